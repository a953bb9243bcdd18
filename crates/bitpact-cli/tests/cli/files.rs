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
    assert!(
        said.contains("took 14 tensors; 1 more start as usual (conv2.weight_step); 0 of the file are not used"),
        "{said}"
    );
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

#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_not_utf_8_are_paths() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let odd = |name: &[u8]| std::ffi::OsString::from(OsStr::from_bytes(&[b"\xff-", name].concat()));
    // A recipe of the working folder must not be taken for that of the run.
    std::fs::write(place.path("config.toml"), "dataset = \"cifar10\"\narch = \"resnet20\"\nepochs = 1\n").unwrap();
    std::fs::copy(place.path("tiny.toml"), place.0.path().join(odd(b"net.toml"))).unwrap();
    std::fs::write(place.0.path().join(odd(b"recipe.toml")), "dataset = \"builtin\"\narch = \"cnn\"\nepochs = 1\n")
        .unwrap();
    let words = |words: &[&str], paths: &[(&str, &[u8])]| {
        let mut all: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
        for (flag, path) in paths {
            all.extend((!flag.is_empty()).then(|| flag.into()));
            all.push(odd(path));
        }
        Ended::new(place.command(&all).output().unwrap(), &format!("{words:?}")).ok()
    };
    let limits = ["--limit-train", "70", "--limit-test", "30", "--batch-size", "16", "--compare-float", "false"];
    let train = [&["train", "--epochs", "1"], &limits[..]].concat();
    words(&train, &[("--arch", b"net.toml"), ("--output", b"run"), ("", b"recipe.toml")]);
    words(&["eval", "--limit-test", "30"], &[("", b"run")]);
    words(&["inspect"], &[("", b"run")]);
    words(&["inspect"], &[("", b"net.toml")]);
    words(&["bench", "--seconds", "0", "--threads", "1", "--batch", "1"], &[("", b"run")]);
    words(&["bench", "--seconds", "0", "--threads", "1", "--batch", "1"], &[("", b"net.toml")]);
    words(&["bench", "--seconds", "0", "--threads", "1", "--batch-size", "2", "--train"], &[("", b"recipe.toml")]);
    words(&["convert"], &[("", b"run"), ("--output", b"shipped.bitpact")]);
    words(&["verify", "--threads", "1", "--dataset", "builtin", "--limit-test", "2"], &[("", b"shipped.bitpact")]);
    words(&["accel", "model", "--device", "pact-4"], &[("", b"run"), ("--output", b"charts")]);
    words(&["train"], &[("--resume", b"run")]);
    words(&train, &[("--teacher", b"run"), ("--output", b"taught"), ("", b"recipe.toml")]);
    words(&["train"], &[("--resume", b"taught")]);
    words(&["train", "--epochs", "2"], &[("--resume", b"taught"), ("--teacher", b"run")]);
    image::RgbImage::new(8, 8).save(place.path("picture.png")).unwrap();
    std::fs::rename(place.path("picture.png"), place.0.path().join(odd(b"picture.png"))).unwrap();
    words(&["run"], &[("", b"run"), ("", b"picture.png")]);
}

#[test]
fn names_that_a_checkpoint_keeps_for_itself_are_refused_before_training() {
    let place = Place::new();
    for name in ["optimizer.momentum.conv1", "optimizer.raw.x", "optimizer.second_moment.y"] {
        std::fs::write(place.path("tiny.toml"), TINY.replace("conv1", name)).unwrap();
        let ended = place.run(&format!("{TRAIN} --epochs 1 --output run"));
        ended.failed(1, &[&format!("tensor `{name}.weight`"), "have a meaning of their own", "rename its node"]);
        assert!(!place.path("run").exists());
    }
    // What only looks like one is a name like any other, also where its tensors are grouped.
    let odd = TINY.replace("conv1", "optimizer.conv1").replace("bn1", "a.running_mean");
    std::fs::write(place.path("tiny.toml"), odd).unwrap();
    place.run(&format!("{TRAIN} --epochs 1 --output run --param-group a.running_mean.weight:lr=0.01")).ok();
    place.run("train --resume run --epochs 2").ok();
    place.run("eval run --limit-test 30").ok();
}

#[test]
fn files_that_are_often_taken_for_weights_are_named() {
    let place = Place::new();
    for (bytes, part) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
        (b"PK\x03\x04archive/data.pkl", "`bitpact import`"),
        (b"\x08\x08\x12\x07pytorch", "ONNX"),
        (b"<!DOCTYPE html>", "a web page"),
    ] {
        std::fs::write(place.path("weights"), bytes).unwrap();
        for line in ["eval weights", "inspect weights", "train --teacher weights --epochs 1"] {
            place.run(line).failed(1, &["weights", part]);
        }
    }
    let model = trained().path("run/model.bitpact").display().to_string();
    place.run(&format!("train --init-from {model}")).failed(1, &[".bitpact", "take its checkpoint"]);
}

#[test]
fn messages_say_what_is_meant_and_can_be_pasted() {
    let place = Place::new();
    place.run("inspect resnet200").failed(1, &["neither a file nor an architecture (did you mean `resnet20`?)"]);
    std::fs::write(place.path("graph.json"), "{\"name\": \"x\", \"nodes\": []}").unwrap();
    let said = place.run("inspect graph.json");
    assert!(said.code != Some(0) && !said.stderr.contains("line 0"), "{}", said.stderr);
    std::fs::create_dir_all(place.path("sets/cifar-10-batches-py")).unwrap();
    for name in ["data_batch_1", "test_batch", "batches.meta"] {
        std::fs::write(place.path("sets/cifar-10-batches-py").join(name), "\u{80}").unwrap();
    }
    let python = ["the Python version of CIFAR-10", "bitpact data fetch cifar10"];
    place.run("data check sets").failed(1, &python);
    place.run("train --dataset cifar10 --data sets").failed(1, &python);
    for (flag, says) in [("--cutout 33", "`cutout` = 33: expected at most 32"), ("pad = 32", "`augment` has pad = 32")]
    {
        let line = match flag.strip_prefix("pad") {
            None => format!("{TRAIN} --epochs 1 {flag}"),
            Some(_) => {
                let recipe = format!("dataset = \"builtin\"\narch = \"cnn\"\nepochs = 1\naugment = {{ {flag} }}\n");
                std::fs::write(place.path("recipe.toml"), recipe).unwrap();
                "train recipe.toml --limit-train 200 --limit-test 10".to_owned()
            }
        };
        place.run(&line).failed(2, &[says]);
    }
    let mut words: Vec<&str> = TRAIN.split(' ').collect();
    words.extend(["--epochs", "1", "--output", "my run"]);
    let shown = Ended::new(place.command(&words).output().unwrap(), "a space").ok().stdout;
    assert!(shown.contains("bitpact eval 'my run'\n") && shown.contains("bitpact inspect 'my run'\n"), "{shown}");
    let estimated = place.run("accel model tiny.toml --device pact-4 --bits W2A2 --json").ok().json();
    assert_eq!(estimated["network"], "tiny");
    let help = place.run("--help").ok().stdout;
    let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  bitpact ")).collect();
    assert!(examples.len() > 8 && examples.iter().all(|line| line.trim_start().contains("  ")), "{help}");
}

#[cfg(target_os = "linux")]
#[test]
fn batches_that_do_not_fit_into_memory_are_refused_with_what_would() {
    let place = Place::new();
    let float = trained().path("float").display().to_string();
    let limited = |line: &str| {
        let script = format!("ulimit -v 450000; exec {} {line}", env!("CARGO_BIN_EXE_bitpact"));
        let output = Command::new("sh").current_dir(place.path(".")).args(["-c", &script]).output().unwrap();
        Ended::new(output, line)
    };
    for line in [
        "train --arch resnet20 --batch-size 9000 --compare-float false --output run",
        "bench --train builtin --arch resnet20 --batch-size 9000 --threads 1",
    ] {
        limited(line)
            .failed(1, &["batches of 9000 images need about", "can be had here; a batch size of", "would fit"]);
    }
    assert!(!place.path("run").exists());
    limited(&format!("eval {float} --limit-test 30 --batch-size 65536")).ok();
    // What is said to fit does.
    let said = limited("bench --train builtin --arch resnet20 --batch-size 9000 --threads 1").stderr;
    let fits = said.split("a batch size of ").nth(1).unwrap().split(' ').next().unwrap();
    limited(&format!("bench --train builtin --arch resnet20 --batch-size {fits} --threads 1 --seconds 0")).ok();
}
