//! Networks of other programs: taken over, evaluated, trained on.

use std::collections::BTreeMap;

use bitpact::unstable::graph::{BitSpec, QuantConfig, Shape, zoo};
use bitpact::unstable::model::{InputDescription, Tensor};
use bitpact::{Model, QuantPlan};

use super::*;

/// A plain safetensors file of float32.
pub(super) fn plain(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, tensor) in tensors {
        let from = data.len();
        data.extend(tensor.data.iter().flat_map(|v| v.to_le_bytes()));
        let to = data.len();
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"F32\",\"shape\":{:?},\"data_offsets\":[{from},{to}]}}",
            tensor.shape
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// The tensors of a network of the zoo for `classes` classes, with names that PyTorch's wrappers make.
pub(super) fn weights(arch: &str, classes: usize) -> BTreeMap<String, Tensor> {
    let graph = zoo::build(arch, Shape::new(32, 32, 3), classes).unwrap().unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(BitSpec::Float)).unwrap();
    let names = (0..classes).map(|class| class.to_string()).collect();
    let model = Model::random(graph, plan, InputDescription::uniform(3, 0, 1.0), names, 3).unwrap();
    model.tensors.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect()
}

#[test]
fn a_network_is_taken_over_evaluated_and_trained_on() {
    let place = Place::new();
    std::fs::write(place.path("plain.safetensors"), plain(&weights("cnn", 10))).unwrap();
    let said = place.run("import plain.safetensors -o net.safetensors --input half").ok();
    assert!(said.stdout.contains("net.safetensors: cnn, ") && said.stdout.contains("10 classes"), "{}", said.stdout);
    assert!(said.stderr.contains("note: names and shapes of the tensors are those of cnn"), "{}", said.stderr);
    let object = place.run("import plain.safetensors -o again.safetensors --input half --json").ok().json();
    assert_eq!((&object["arch"], &object["classes"]), (&"cnn".into(), &10.into()));
    assert_eq!(
        std::fs::read(place.path("net.safetensors")).unwrap(),
        std::fs::read(place.path("again.safetensors")).unwrap()
    );
    place.run("import net.safetensors -o third.safetensors").ok();
    place.run("inspect net.safetensors").ok();
    // Classes that only have numbers are those of any set.
    let float = place.run("eval net.safetensors --dataset builtin --limit-test 30 --json").ok().json();
    assert_eq!(float["view"], "float");

    let line = "--limit-train 70 --limit-test 30 --batch-size 16 --epochs 1 --threads 1";
    for (file, output) in [("net.safetensors", "a"), ("plain.safetensors", "b")] {
        let said = place.run(&format!("train --init-from {file} --bits W8A8 {line} --output {output}")).ok().stderr;
        assert!(said.contains("training: before the first step "), "{said}");
        let config = std::fs::read_to_string(place.path(output).join("config.toml")).unwrap();
        assert!(config.contains("arch = \"cnn\"") && config.contains("schedule = \"cosine\""), "{config}");
    }
    let config = |run: &str| std::fs::read_to_string(place.path(run).join("config.toml")).unwrap();
    assert!(config("a").contains("zero_point = [128, 128, 128]"), "{}", config("a"));
    assert!(config("b").contains("zero_point = [124, 116, 104]"), "{}", config("b"));
    let line = format!("train --init-from plain.safetensors --input 0.5/0.25 --bits float {line} --output c");
    let said = place.run(&line).ok().stderr;
    assert!(config("c").contains("zero_point = 128") && !said.contains("a pixel means"), "{said}");
    // The float network beside what was imported.
    let before = said.lines().find(|line| line.contains("before the first step")).unwrap().to_owned();
    assert!(before.ends_with(" %"), "{before}");
}

#[test]
fn a_last_layer_of_other_classes_starts_anew() {
    let place = Place::new();
    std::fs::write(place.path("plain.safetensors"), plain(&weights("cnn", 7))).unwrap();
    let line = "--limit-train 70 --limit-test 30 --batch-size 16 --epochs 1 --threads 1 --output run";
    let said = place.run(&format!("train --init-from plain.safetensors {line}")).ok().stderr;
    assert!(said.contains("`linear` has 7 outputs in the file and 10 here: it starts anew"), "{said}");
    assert!(said.contains("took 30 tensors"), "{said}");
}

#[test]
fn command_lines_and_files_that_cannot_be_imported_are_told_apart() {
    let place = Place::new();
    std::fs::write(place.path("plain.safetensors"), plain(&weights("cnn", 10))).unwrap();
    std::fs::write(place.path("names.txt"), "cat\ndog\n").unwrap();
    std::fs::write(place.path("bad.pth"), "cposix\nsystem\n(S'id'\ntR.").unwrap();
    for (words, parts) in [
        ("plain.safetensors", &["--output"][..]),
        ("plain.safetensors -o x --input mnist", &["imagenet"]),
        ("plain.safetensors -o x --mean 0.5", &["--std"]),
        ("plain.safetensors -o x --input unit --mean 0.5 --std 1", &["cannot be used with"]),
        ("plain.safetensors -o x --input-shape 32", &["height, width and channels"]),
        ("plain.safetensors -o x --classes-file nowhere", &["--classes-file nowhere"]),
    ] {
        place.run(&format!("import {words}")).failed(2, parts);
    }
    for (words, parts) in [
        ("missing -o x", &["missing: cannot read"][..]),
        ("bad.pth -o x", &["bad.pth: ", "`posix.system` is not admitted", "nothing is run"]),
        ("plain.safetensors -o x --arch resnet20", &["plain.safetensors: resnet20: missing: "]),
        ("plain.safetensors -o x --arch nonet", &["`nonet` is no network of the zoo"]),
        ("plain.safetensors -o x --classes-file names.txt", &["10 classes, and 2 class names"]),
        ("plain.safetensors -o x --mean 127 --std 1", &["divided by 255"]),
        ("/dev/zero -o x", &["/dev/zero"]),
    ] {
        place.run(&format!("import {words}")).failed(1, parts);
    }
    assert!(!place.path("x").exists());
    place.run("train --init-from bad.pth").failed(1, &["`posix.system` is not admitted"]);
}
