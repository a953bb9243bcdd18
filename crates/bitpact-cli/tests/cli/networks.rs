//! A network of one's own: the example of the documentation is drawn, trained, converted, verified and measured.

use super::Place;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/network.toml");

#[test]
fn the_example_of_the_documentation_trains_and_runs_exactly() {
    let place = Place::new();
    let drawing = place.run(&format!("inspect {EXAMPLE} --graph")).ok().stdout;
    for line in ["3x3 16 to 16, stream + shortcut", "norm, act", "concat", "average pool 2x2/2", "dropout 0.1"] {
        assert!(drawing.contains(line), "no {line:?} in\n{drawing}");
    }
    let head = place.run(&format!("inspect {EXAMPLE} --json")).ok().json();
    assert_eq!((head["network"].as_str(), head["classes"].as_u64()), (Some("sampler, without weights"), Some(10)));
    let train = format!(
        "train --arch {EXAMPLE} --limit-train 70 --limit-test 30 --batch-size 16 --compare-float false --epochs 2 --output run"
    );
    place.run(&train).ok();
    let drawing = place.run("inspect run --graph").ok().stdout;
    for line in ["stream + shortcut/2", "act A4", "window sum 2x2/2", "concat"] {
        assert!(drawing.contains(line), "no {line:?} in\n{drawing}");
    }
    assert!(!drawing.contains("dropout"), "{drawing}");
    let layers = place.run("inspect run --json").ok().json();
    let act = layers["layers"].as_array().unwrap().iter().find(|layer| layer["layer"] == "act4").unwrap();
    assert!(act["op"] == "act" && act["act_bits"] == 4 && act["occupancy"].is_array(), "{act}");
    let verified = place.run("verify run --limit-test 30 --json").ok().json();
    assert_eq!(verified["different"].as_u64(), Some(0));
    let bench = format!("bench {EXAMPLE} --bits W2A2 --seconds 0 --threads 1 --batch 1 --json");
    assert_eq!(place.run(&bench).ok().json()["bits"], "W2A2");
}

#[test]
fn names_of_architectures_are_drawn_and_bad_files_are_usage() {
    let place = Place::new();
    assert!(place.run("inspect preact_resnet20").ok().stdout.contains("269722"));
    std::fs::write(place.path("bad.toml"), "name = \"x\"\nnodes = [{ name = \"a\", op = \"batchnorm\" }]").unwrap();
    for command in ["inspect bad.toml", "bench bad.toml"] {
        place.run(command).failed(2, &["bad.toml, line 2", "batchnorm"]);
    }
    place.run("bench tiny.toml --image-size 64").failed(2, &["--image-size", "tiny.toml is a file"]);
}
