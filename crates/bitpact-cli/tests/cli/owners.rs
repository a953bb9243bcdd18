//! Several processes at one run: readers do not disturb it, and one at a time trains in it.

use std::io::Read;

use super::stops::{line, start, undisturbed};
use super::*;

#[test]
fn looking_at_a_run_does_not_disturb_it() {
    let place = Place::new();
    let (mut child, mut said) = start(&place, &line("run"), "epoch ", 1);
    let mut rounds = 0;
    while child.try_wait().unwrap().is_none() {
        for line in [
            "inspect run",
            "inspect run/model.bitpact",
            "eval run --isa scalar",
            "convert run -o run/other.bitpact",
            "bench run --threads 1 --batch 1 --seconds 0",
            "verify run --threads 1",
            "accel model run --device pact-4",
        ] {
            place.run(line).ok();
        }
        rounds += 1;
    }
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "after {rounds} rounds: {text}");
    assert_eq!(&results(&place.path("run")), undisturbed());
}

#[test]
fn looking_at_a_run_removes_and_changes_nothing() {
    let place = Place::new();
    place.run(&format!("{TRAIN} --epochs 1 --output run")).ok();
    std::fs::write(place.path("run/.bitpact-being-written"), "half").unwrap();
    let look = || {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            (entry.file_name(), metadata.len(), metadata.modified().unwrap())
        };
        let mut all: Vec<_> = std::fs::read_dir(place.path("run")).unwrap().map(entry).collect();
        all.sort();
        (all, std::fs::metadata(place.path("run")).unwrap().modified().unwrap())
    };
    let before = look();
    image::RgbImage::new(8, 8).save(place.path("picture.png")).unwrap();
    for line in [
        "inspect run",
        "eval run",
        "convert run -o other.bitpact",
        "run run picture.png",
        "train --arch tiny.toml --epochs 1 --limit-train 70 --limit-test 30 --batch-size 16 --teacher run --output second",
        "train --arch tiny.toml --epochs 1 --limit-train 70 --limit-test 30 --batch-size 16 --init-from run/best.safetensors --output third",
    ] {
        place.run(line).ok();
        assert!(look() == before, "{line} touched the run");
    }
    place.run("train --resume run").ok();
    assert!(!place.path("run/.bitpact-being-written").exists(), "the next owner cleans up");
}

#[test]
fn a_second_owner_is_refused_with_process_and_folder() {
    let place = Place::new();
    let (mut child, _said) = start(&place, &line("run"), "calibrated", 1);
    let process = format!("process {} trains in this folder", child.id());
    for second in [&line("run"), "train --resume run", &line("run/float")] {
        place.run(second).failed(1, &["run: ", &process]);
    }
    assert!(!place.path("run/float").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    place.run("train --resume run").ok();
    assert_eq!(&results(&place.path("run")), undisturbed(), "a dead process owns nothing");
    assert!(!place.path("run/.lock").exists());
}

#[test]
fn the_float_run_beside_a_run_has_the_same_owner() {
    let place = Place::new();
    let both = TRAIN.replace("--compare-float false", "--compare-float true --epochs 2 --output run");
    place.run(&both).ok();
    let (mut child, _said) = start(&place, "train --resume run/float --epochs 4000", "going on", 1);
    let process = format!("process {} trains in this folder", child.id());
    place.run("train --resume run").failed(1, &["run/float: ", &process]);
    place.run("train --resume run/float").failed(1, &["run/float: ", &process]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn runs_that_differ_in_a_flag_have_folders_of_their_own() {
    let place = Place::new();
    let line = format!("{TRAIN} --epochs 1 --json");
    let folder = |flags: &str| place.run(&format!("{line} {flags}")).ok().json()["output"].as_str().unwrap().to_owned();
    let folders = [folder("--lr 0.1"), folder("--lr 0.001"), folder("--lr 0.001 --mixup 0.2"), folder("")];
    for (i, a) in folders.iter().enumerate() {
        assert!(folders[..i].iter().all(|b| a != b), "{folders:?}");
        assert_eq!(lr_of(&place.path(a)), [0.1, 0.001, 0.001, 0.05][i], "{a}");
    }
    place.run(&format!("{line} --lr 0.001")).failed(1, &[&folders[1], "holds a run already"]);
}

fn lr_of(folder: &Path) -> f64 {
    let text = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("lr = ")).unwrap();
    line.parse().unwrap()
}
