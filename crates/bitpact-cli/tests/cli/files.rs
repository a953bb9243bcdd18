//! Files and folders that are missing, damaged, of something else, or cannot be written: exit status 1, the file named.

use super::*;

#[test]
fn models_that_are_none_are_named_with_the_reason() {
    let (place, source) = (Place::new(), trained());
    let good = std::fs::read(source.path("run/model.bitpact")).unwrap();
    let checkpoint = std::fs::read(source.path("run/last.safetensors")).unwrap();
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    for (name, bytes) in [
        ("short.bitpact", good[..good.len() / 2].to_vec()),
        ("flipped.bitpact", flipped(&good)),
        ("empty.bitpact", Vec::new()),
        ("text.bitpact", b"hello".to_vec()),
        ("short.safetensors", checkpoint[..checkpoint.len() / 2].to_vec()),
        ("flipped.safetensors", flipped(&checkpoint)),
        ("empty.safetensors", Vec::new()),
        ("text", b"hello".to_vec()),
    ] {
        std::fs::write(place.path(name), bytes).unwrap();
        place.run(&format!("eval {name}")).failed(1, &[name]);
        place.run(&format!("inspect {name} --json")).failed(1, &[name]);
        place.run(&format!("convert {name} -o out.bitpact")).failed(1, &[name]);
    }
    for command in ["eval missing", "inspect missing", "convert missing -o x.bitpact", "train --init-from missing"] {
        place.run(command).failed(1, &["missing: cannot read"]);
    }
    std::fs::create_dir(place.path("empty")).unwrap();
    for command in ["eval empty", "inspect empty", "convert empty -o x.bitpact", "train --resume empty"] {
        place.run(command).failed(1, &["empty: holds no run"]);
    }
    place.run("train --resume nowhere").failed(1, &["nowhere: cannot read the folder"]);
    assert!(!place.path("out.bitpact").exists() && !place.path("x.bitpact").exists());
}

#[test]
fn data_that_is_not_there_or_too_short_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.path("images")).unwrap();
    let line = "train --dataset cifar10 --data images";
    place.run(line).failed(1, &["images", "data_batch_1.bin not found"]);
    std::fs::write(place.path("images/data_batch_1.bin"), "short").unwrap();
    place.run(line).failed(1, &["data_batch_1.bin is truncated: 5 bytes, expected 30730000"]);
    place.run("train --dataset cifar10 --data nowhere").failed(1, &["nowhere"]);
    assert!(!place.path("runs").exists());
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let (place, source) = (Place::new(), trained());
    let wide = TINY.replace("out_channels = 4", "out_channels = 6");
    std::fs::write(place.path("tiny.toml"), wide).unwrap();
    let weights = source.path("run/best.safetensors");
    let line = format!("{TRAIN} --epochs 1 --output run --init-from {}", weights.display());
    let expected = ["weights to start from", "`conv1.weight` has shape [4, 3, 3, 3], expected [6, 3, 3, 3]"];
    place.run(&line).failed(1, &expected);
    assert!(!place.path("run").exists(), "nothing was trained, so nothing was made");
    std::fs::write(place.path("tiny.toml"), TINY).unwrap();
    let said = place.run(&line).ok().stderr;
    assert!(said.contains("took 14 tensors; 0 more start as usual; 0 of the file are not used"), "{said}");
}

#[test]
fn a_folder_that_holds_a_run_is_left_alone() {
    let place = Place::new();
    let line = format!("{TRAIN} --epochs 1 --output run");
    place.run(&line).ok();
    let before = results(&place.path("run"));
    place.run(&line).failed(1, &["run: holds a run already", "--resume", "--output"]);
    assert_eq!(results(&place.path("run")), before);
}

#[cfg(unix)]
#[test]
fn folders_that_take_no_files_are_named() {
    let place = Place::new();
    std::fs::write(place.path("file"), "").unwrap();
    place.run(&format!("{TRAIN} --epochs 1 --output file/run")).failed(1, &["file/run"]);
    let run = trained().path("run");
    place.run(&format!("convert {} -o file/model.bitpact", run.display())).failed(1, &["file/model.bitpact"]);
    place.run(&format!("convert {} -o none/model.bitpact", run.display())).failed(1, &["none/model.bitpact"]);
    let last = run.join("last.safetensors").display().to_string();
    place.run(&format!("convert {last} -o {last}")).failed(2, &["that is the checkpoint itself"]);
}

/// A limit on the size of files stands for a disk that is full: writes fail in the middle.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_leaves_no_half_of_it() {
    let place = Place::new();
    let limited = |kilobytes: u32, line: &str| {
        let binary = env!("CARGO_BIN_EXE_bitpact");
        // 512-byte blocks; without the trap the limit would kill the process.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec {binary} {line}", kilobytes * 2);
        let mut command = Command::new("sh");
        let output = command.current_dir(place.path(".")).args(["-c", &script]).output().unwrap();
        Ended::new(output, line)
    };
    limited(6, &format!("{TRAIN} --epochs 1 --output run")).failed(1, &["run/last.safetensors: cannot write"]);
    let left: Vec<_> = std::fs::read_dir(place.path("run")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["config.toml"], "no temporary file and no half checkpoint");
    // The same command again, and the run it would have been.
    place.run(&format!("{TRAIN} --epochs 1 --output run")).ok();

    let (run, model) = (place.path("run"), place.path("model.bitpact"));
    std::fs::write(&model, "old").unwrap();
    limited(0, &format!("convert {} -o model.bitpact", run.display())).failed(1, &["model.bitpact: cannot write"]);
    assert_eq!(std::fs::read(&model).unwrap(), b"old");
}

#[cfg(target_os = "linux")]
#[test]
fn standard_output_that_is_full_or_closed_is_no_panic() {
    let place = trained();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(["inspect", "run"]).stdout(full).output().unwrap();
    let ended = Ended::new(output, "inspect run > /dev/full");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot write to standard output"), "{}", ended.stderr);

    for args in [["inspect", "run"], ["eval", "run"], ["train", "--help"]] {
        let mut child = place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = Ended::new(child.wait_with_output().unwrap(), "a reader that went away");
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn the_files_of_a_run_are_no_output() {
    let place = Place::new();
    place.run(&format!("{TRAIN} --epochs 1 --output run")).ok();
    let before = (results(&place.path("run")), std::fs::read(place.path("run/records.jsonl")).unwrap());
    std::fs::create_dir(place.path("other")).unwrap();
    for name in ["best.safetensors", "last.safetensors", "model.bitpact", "config.toml", "records.jsonl", ".lock"] {
        place.run(&format!("convert run -o run/{name}")).failed(2, &["--output", name]);
        place.run(&format!("convert run/best.safetensors -o run/../run/{name}")).failed(2, &["--output", name]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../run/records.jsonl", place.path("other/link")).unwrap();
        place.run("convert run -o other/link").failed(2, &["--output other/link"]);
    }
    assert_eq!((results(&place.path("run")), std::fs::read(place.path("run/records.jsonl")).unwrap()), before);
    place.run("convert run -o run/shipped.bitpact").ok();
    place.run("convert run -o other/model.bitpact").ok();
}

#[cfg(target_os = "linux")]
#[test]
fn outputs_that_are_not_regular_files_stay_what_they_are() {
    use std::os::unix::fs::FileTypeExt;
    let place = Place::new();
    let run = trained().path("run").display().to_string();
    let expected = std::fs::read(trained().path("run/model.bitpact")).unwrap();
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| std::fs::read(place.path("pipe")).unwrap());
        let said = place.run(&format!("convert {run} -o pipe --json")).ok().json();
        assert_eq!(said["bytes"], expected.len());
        assert!(reader.join().unwrap() == expected);
    });
    assert!(std::fs::metadata(place.path("pipe")).unwrap().file_type().is_fifo());
    place.run(&format!("convert {run} -o /dev/null")).ok();
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    place.run(&format!("convert {run} -o /dev/full")).failed(1, &["/dev/full: cannot write"]);
    std::os::unix::fs::symlink("real.bitpact", place.path("link.bitpact")).unwrap();
    place.run(&format!("convert {run} -o link.bitpact")).ok();
    assert!(place.path("link.bitpact").is_symlink() && std::fs::read(place.path("real.bitpact")).unwrap() == expected);
    std::os::unix::fs::symlink("charts/roofline.svg", place.path("charts.svg")).unwrap();
    std::fs::create_dir(place.path("charts")).unwrap();
    std::os::unix::fs::symlink("../elsewhere.svg", place.path("charts/roofline.svg")).unwrap();
    place.run(&format!("accel model {run} --device pact-4 --output charts")).ok();
    assert!(place.path("charts/roofline.svg").is_symlink() && place.path("elsewhere.svg").is_file());
}
