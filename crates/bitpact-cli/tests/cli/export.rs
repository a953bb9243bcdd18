//! Networks as files of other programs.

use super::*;

const FORMATS: [&str; 6] = ["onnx-qcdq", "onnx-qdq", "qonnx", "onnx-integer", "npy", "safetensors"];

#[test]
fn a_run_is_written_in_every_format() {
    let place = Place::new();
    let run = trained().path("run").display().to_string();
    for format in FORMATS {
        let ended = place.run(&format!("export {run} --format {format} -o {format}.out --json")).ok();
        let object = ended.json();
        assert_eq!((&object["format"], &object["output"]), (&format.into(), &format!("{format}.out").into()));
        assert!(object["bytes"].as_u64().unwrap() > 1000 && object["check"].is_null(), "{object:?}");
    }
    assert!(place.path("npy.out/conv1.weight.npy").exists() && place.path("npy.out/model.json").exists());
    // The network that was converted and the file that holds it are the same network.
    place.run(&format!("export {run}/model.bitpact -o again.onnx")).ok();
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(bytes("again.onnx") == bytes("onnx-qcdq.out"), "the format that is usual, from a file");
}

#[test]
fn every_export_becomes_the_network_that_it_was_made_of() {
    let place = Place::new();
    let run = trained().path("run").display().to_string();
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    for format in FORMATS {
        place.run(&format!("export {run} --format {format} -o {format}.out")).ok();
        let ended = place.run(&format!("import {format}.out -o {format}.bitpact --json")).ok();
        assert_eq!(ended.json()["format"], format);
        assert!(
            bytes(&format!("{format}.bitpact")) == std::fs::read(format!("{run}/model.bitpact")).unwrap(),
            "{format}"
        );
    }
    place.run("inspect qonnx.bitpact").ok();
    // As a file of another program it is a network that can be trained.
    place.run("import onnx-qcdq.out --trainable -o net.safetensors").ok();
    place.run("import onnx-qcdq.out --arch resnet8 -o a").failed(2, &["--arch", "bitpact exported"]);
    place.run("import onnx-qcdq.out -o onnx-qcdq.out").failed(2, &["the file itself"]);
    let mut file = bytes("onnx-qcdq.out");
    let name = b"bitpact.layers";
    let at = file.windows(name.len()).position(|window| window == name).unwrap();
    file[at + name.len() + 20] ^= 1;
    std::fs::write(place.path("edited.onnx"), file).unwrap();
    place.run("import edited.onnx -o a").failed(1, &["edited.onnx", "bitpact.layers", "--trainable"]);
    assert!(!place.path("a").exists());
}

#[test]
fn a_check_writes_images_numbers_and_a_script() {
    let place = Place::new();
    let run = trained().path("run").display().to_string();
    let ended = place.run(&format!("export {run} -o model.onnx --check check --limit-test 30")).ok();
    assert!(ended.stdout.contains("python check/check.py model.onnx"), "{}", ended.stdout);
    let contents: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("check/check.json")).unwrap()).unwrap();
    assert_eq!(contents["outputs"][0]["name"], "linear");
    assert_eq!(contents["layers"].as_array().unwrap().len(), 4);
    let length = |name: &str| std::fs::metadata(place.path(name)).unwrap().len();
    // A header of 128 bytes and 30 images, and the 10 outputs of 64 bits of each.
    assert_eq!(length("check/input.npy"), 128 + 30 * 32 * 32 * 3);
    assert_eq!(length("check/output0.npy"), 128 + 30 * 10 * 8);
    // Of the layers 20 images, the last of them the output.
    assert_eq!(length("check/layer3.npy"), 128 + 20 * 10 * 8);
}

#[test]
fn source_is_written_within_what_a_machine_has() {
    let place = Place::new();
    let run = trained().path("run").display().to_string();
    let ended = place.run(&format!("export {run} --format c --name net --target cortex-m4 -o net --json")).ok();
    let object = ended.json();
    let number = |key: &str| object[key].as_u64().unwrap();
    assert!(number("flash_bytes") > 500 && number("ram_bytes") > 1000 && number("macs") > 1000, "{object:?}");
    assert!(object["time"]["modelled_cycles"].as_f64().unwrap() > number("macs") as f64 / 2.0);
    for file in ["net.h", "net.c", "net_test.c", "bitpact_kernels.h", "Makefile", "CMakeLists.txt", "net.json"] {
        assert!(place.path("net").join(file).exists(), "{file}");
    }
    let ended = place.run(&format!("export {run} --format rust --name net --ram 1M -o crate --json")).ok();
    assert_eq!((&ended.json()["format"], &ended.json()["macs"]), (&"rust".into(), &object["macs"]));
    for file in ["Cargo.toml", "src/lib.rs", "src/net.rs", "tests/golden.rs", "examples/run_file.rs", "net.json"] {
        assert!(place.path("crate").join(file).exists(), "{file}");
    }
    place.run(&format!("export {run} --format rust --name Net -o a")).failed(2, &["--name", "Net", "lower-case"]);
    place.run(&format!("export {run} --format rust --check b -o a")).failed(2, &["rust is none"]);
    place.run(&format!("export {run} --format c --flash 1k -o a")).failed(1, &["--flash gives 1024", "act2 ("]);
    place.run(&format!("export {run} --format c --ram 99 -o a")).failed(1, &["--ram gives 99", "largest outputs"]);
    place.run(&format!("export {run} --format c --ram 9x -o a")).failed(2, &["9x", "64k"]);
    place.run(&format!("export {run} --format c --target z80 -o a")).failed(2, &["z80", "cortex-m4"]);
    place.run(&format!("export {run} --format c --name while -o a")).failed(2, &["--name", "while"]);
    place.run(&format!("export {run} --format npy --ram 9k -o a")).failed(2, &["--format c and rust"]);
    let float = trained().path("float").display().to_string();
    place.run(&format!("export {float} --format c -o a")).failed(1, &["float network"]);
    assert!(!place.path("a").exists());
}

#[test]
fn what_cannot_be_exported_is_told_and_nothing_is_made() {
    let place = Place::new();
    let run = trained().path("run").display().to_string();
    place.run(&format!("export {run} --format tflite -o a")).failed(2, &["tflite", "onnx-qcdq"]);
    place.run(&format!("export {run} --format npy -o a --check b")).failed(2, &["--check", "npy is none"]);
    place.run(&format!("export {run}/model.bitpact -o {run}/model.bitpact")).failed(2, &["the network itself"]);
    let float = trained().path("float").display().to_string();
    place.run(&format!("export {float} -o a")).failed(1, &["float network"]);
    place.run(&format!("export {run} -o missing/a")).failed(1, &["missing/a"]);
    let left: Vec<_> = std::fs::read_dir(place.path(".")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["tiny.toml"]);
}
