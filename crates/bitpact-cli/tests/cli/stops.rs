//! Runs that are stopped, killed, resumed, or computed by more threads: the same bytes every time.

use std::io::{BufRead, BufReader};
use std::process::Child;

use super::*;

pub(super) const EPOCHS: u32 = 40;

/// A run of many short epochs, long enough that a signal meets it at work.
pub(super) fn line(output: &str) -> String {
    format!("{} --epochs {EPOCHS} --output {output}", TRAIN.replace("--limit-train 70", "--limit-train 250"))
}

/// The results of such a run that nothing disturbs.
pub(super) fn undisturbed() -> &'static Vec<Vec<u8>> {
    static RESULTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let place = Place::new();
        place.run(&line("run")).ok();
        results(&place.path("run"))
    })
}

/// Starts `line` and waits until it has said `times` lines with `part` on stderr; the rest of stderr is returned with
/// it.
pub(super) fn start(
    place: &Place,
    line: &str,
    part: &str,
    times: usize,
) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child =
        place.command(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut seen = 0;
    while seen < times {
        let mut text = String::new();
        assert_ne!(said.read_line(&mut text).unwrap(), 0, "{line} ended before {part:?} came {times} times");
        seen += usize::from(text.contains(part));
    }
    (child, said)
}

#[test]
fn two_threads_give_the_bytes_of_one() {
    let place = Place::new();
    place.run(&format!("{} --threads 1", line("one"))).ok();
    place.run(&format!("{} --threads 2", line("two"))).ok();
    assert_eq!(results(&place.path("one")), results(&place.path("two")));
    let other = place.run(&format!("{} --seed 2", line("other"))).ok();
    assert_ne!(results(&place.path("one")), results(&place.path("other")), "{}", other.stderr);
}

/// Sends `signal` to a process and expects that it ends with `status`; what it still said comes back.
#[cfg(unix)]
pub(super) fn end(
    mut child: Child,
    mut said: BufReader<std::process::ChildStderr>,
    signal: &str,
    status: i32,
) -> String {
    send(&child, signal);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(status), "{rest}");
    rest
}

#[cfg(unix)]
fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_sigterm_and_sighup_save_tell_how_to_go_on_and_lose_nothing() {
    let place = Place::new();
    let mut resumed = line("run");
    for (stop_at, signal, status) in [(1, "INT", 130), (3, "TERM", 143), (2, "HUP", 129)] {
        let (child, said) = start(&place, &resumed, "epoch ", stop_at);
        let rest = end(child, said, signal, status);
        assert!(rest.contains("go on with: bitpact train --resume run") && !rest.contains("panicked"), "{rest}");
        resumed = "train --resume run".to_owned();
    }
    let before = std::fs::read_to_string(place.path("run/records.jsonl")).unwrap();
    assert!(before.lines().count() < EPOCHS as usize, "it stopped in the middle");
    place.run(&resumed).ok();
    assert_eq!(&results(&place.path("run")), undisturbed());
}

#[cfg(unix)]
#[test]
fn kill_9_at_any_moment_and_resume_loses_nothing() {
    let place = Place::new();
    // Around the first checkpoint, within epochs, right after resuming.
    let moments =
        [("calibrated", 1), ("epoch ", 1), ("going on after", 1), ("epoch ", 3), ("epoch ", 2), ("epoch ", 4)];
    let mut command = line("run");
    for (part, times) in moments {
        let (mut child, said) = start(&place, &command, part, times);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(said);
        command = "train --resume run".to_owned();
    }
    place.run(&command).ok();
    assert_eq!(&results(&place.path("run")), undisturbed());
    let left: Vec<String> = std::fs::read_dir(place.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let records = std::fs::read_to_string(place.path("run/records.jsonl")).unwrap();
    let epochs: Vec<u64> = records
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|record| record["kind"] == "epoch")
        .map(|record| record["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(epochs, (1..=u64::from(EPOCHS)).collect::<Vec<_>>());
}

#[test]
fn a_teacher_may_lie_elsewhere_when_a_run_is_resumed_but_must_be_the_same() {
    let place = Place::new();
    place.run(&format!("{TRAIN} --epochs 1 --bits float --output teacher")).ok();
    place.run(&format!("{TRAIN} --epochs 1 --teacher nothing --output run")).failed(1, &["nothing: cannot read"]);
    let line = "--bits W8A8@1,W2A2 --mixup 0.2 --ema-decay 0.9";
    let ended = place.run(&format!("{TRAIN} --epochs 2 --teacher teacher {line} --output run")).ok();
    assert!(ended.stderr.contains("W2A2 from epoch 2 on"), "{}", ended.stderr);
    assert!(ended.stdout.contains("integers, W2A2"), "{}", ended.stdout);
    std::fs::rename(place.path("teacher"), place.path("moved")).unwrap();
    place.run("train --resume run --epochs 3").failed(1, &["teacher: cannot read"]);
    place.run("train --resume run --epochs 3 --teacher moved").ok();
    let text = "the run began with another teacher";
    place.run("train --resume run --epochs 4 --teacher run/best.safetensors").failed(1, &[text]);
}

#[test]
fn resuming_takes_no_other_recipe_but_more_epochs() {
    let place = Place::new();
    place.run(&format!("{TRAIN} --epochs 1 --output run")).ok();
    let contradiction = place.run("train --resume run --lr 0.2 --seed 1");
    contradiction.failed(2, &["--resume run", "`lr` is 0.05 in it, not 0.2"]);
    place.run("train --resume run --lr 0.05 --threads 1 --isa scalar").ok();
    let object = place.run("train --resume run --epochs 2 --json").ok().json();
    assert_eq!(object["epochs"], 2);
    place.run("train --resume run --epochs 1").failed(1, &["2 epochs are done, more than the 1"]);
    std::fs::remove_file(place.path("run/last.safetensors")).unwrap();
    std::fs::write(place.path("run/last.safetensors"), "x").unwrap();
    place.run("train --resume run").failed(1, &["run/last.safetensors"]);
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[cfg(unix)]
#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let place = Place::new();
    let script = format!("trap '' HUP; exec {} {}", env!("CARGO_BIN_EXE_bitpact"), line("run"));
    let mut command = Command::new("sh");
    command.current_dir(place.path(".")).args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("epoch ") {
        assert_ne!(said.read_line(&mut text).unwrap(), 0, "{text}");
    }
    send(&child, "HUP");
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(&results(&place.path("run")), undisturbed());
}

/// Whether a process measures a row for the process `id`.
#[cfg(target_os = "linux")]
fn has_row_of(id: u32) -> bool {
    let part = format!("\0--row\0{id}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.windows(part.len()).any(|window| window == part.as_bytes()))
}

#[cfg(unix)]
#[test]
fn signals_end_other_commands_and_nothing_stays_behind() {
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("KILL", -1)] {
        let place = Place::new();
        let folder = place.path("tmp");
        std::fs::create_dir(&folder).unwrap();
        let mut command = place.command("bench resnet20 --threads 1 --batch 1 --seconds 3600".split(' '));
        let mut child = command.env("TMPDIR", &folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        said.read_line(&mut String::new()).unwrap();
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(status).filter(|&status| status > 0));
        assert_eq!(std::io::Read::read_to_end(&mut said, &mut Vec::new()).unwrap(), 0);
        // The process of the row notices by itself.
        #[cfg(target_os = "linux")]
        assert!((0..20_000).any(|_| !has_row_of(child.id())), "{signal}: a row is measured for nobody");
        assert!(names(&folder).is_empty(), "{signal}: {:?}", names(&folder));
    }
    let place = Place::new();
    place.run(&format!("{TRAIN} --epochs 1 --output run")).ok();
    let before = names(&place.path("run"));
    // A test set that is read from a pipe nobody writes to.
    let status = Command::new("mkfifo").arg(place.path("pipe.bitpact")).status().unwrap();
    assert!(status.success());
    for line in ["eval pipe.bitpact", "verify pipe.bitpact", "convert pipe.bitpact -o run/new.bitpact"] {
        let mut child = place.command(line.split(' ')).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let writer = std::fs::File::options().write(true).open(place.path("pipe.bitpact")).unwrap();
        assert_eq!(end(child, said, "TERM", 143), "");
        drop(writer);
    }
    assert_eq!(names(&place.path("run")), before);
}

#[cfg(unix)]
#[test]
fn a_signal_while_another_program_works_leaves_no_folder_of_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    for folder in ["tmp", "programs"] {
        std::fs::create_dir(place.path(folder)).unwrap();
    }
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    // Says its version, and for real work waits until the test writes to the pipe.
    let script =
        format!("#!/bin/sh\n[ \"$1\" = -V ] && echo Yosys 0.0 || read line < {}\n", place.path("pipe").display());
    std::fs::write(place.path("programs/yosys"), script).unwrap();
    std::fs::set_permissions(place.path("programs/yosys"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", place.path("programs").display(), std::env::var("PATH").unwrap());
    let mut command = place.command(["accel", "area", "--bits", "2"]);
    command.env("PATH", path).env("TMPDIR", place.path("tmp")).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    // Opened when the other end is.
    let mut pipe = std::fs::File::options().write(true).open(place.path("pipe")).unwrap();
    assert_eq!(names(&place.path("tmp")).len(), 1);
    end(child, said, "TERM", 143);
    assert!(names(&place.path("tmp")).is_empty());
    std::io::Write::write_all(&mut pipe, b"\n").unwrap();
}

#[test]
fn a_resumed_run_goes_on_with_what_it_began_with_or_says_what_differs() {
    let place = Place::new();
    place.run(&format!("{TRAIN} --epochs 2 --schedule cosine --output run")).ok();
    let config = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    std::fs::write(place.path("run/config.toml"), config.replace("momentum = 0.9", "momentum = 0.5")).unwrap();
    place.run("train --resume run --epochs 3").failed(2, &["run/config.toml: `momentum` is 0.5, not 0.9", "--output"]);
    std::fs::write(place.path("run/config.toml"), &config).unwrap();
    let said = place.run("train --resume run --epochs 3").ok().stderr;
    assert!(said.contains("3 epochs instead of 2") && said.contains("warning: the learning rate goes on at"), "{said}");
    let said = place.run("train --resume run").ok().stderr;
    assert!(!said.contains("instead of"), "{said}");
    let records = std::fs::read(place.path("run/records.jsonl")).unwrap();
    std::fs::remove_file(place.path("run/last.safetensors")).unwrap();
    place.run("train --resume run").failed(1, &["run/last.safetensors: missing, though records.jsonl is there"]);
    assert!(std::fs::read(place.path("run/records.jsonl")).unwrap() == records);
}

#[test]
fn a_float_run_of_other_settings_is_not_taken_for_the_one_beside() {
    let place = Place::new();
    let both = TRAIN.replace("--compare-float false", "--compare-float true --epochs 1");
    place.run(&format!("{TRAIN} --bits float --epochs 1 --lr 0.2 --output run/float")).ok();
    let before = std::fs::read(place.path("run/float/last.safetensors")).unwrap();
    let ended = place.run(&format!("{both} --output run"));
    ended.failed(1, &["run/float: holds another run than the float network of this one", "`lr` is 0.2, not 0.05"]);
    assert!(!place.path("run/last.safetensors").exists(), "told before the training");
    assert!(std::fs::read(place.path("run/float/last.safetensors")).unwrap() == before);
}
