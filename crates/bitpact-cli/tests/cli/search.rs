//! `bitpact search`: bits chosen under a budget, as a recipe that trains.

use super::*;

fn cost(object: &serde_json::Map<String, serde_json::Value>, name: &str) -> f64 {
    object["choices"][0]["costs"][name].as_f64().unwrap_or_else(|| panic!("{object:?}"))
}

#[test]
fn bits_keep_within_their_budget_and_the_recipe_trains() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run");
    let line = format!("search bits {} --bits 2,4,8 --images 30 --sensitivity layers.json", run.display());
    let object = place.run(&format!("{line} --budget bytes=W4A4 -o own.toml --json")).ok().json();
    assert!(cost(&object, "bytes") <= object["budgets"][0]["limit"].as_f64().unwrap());
    assert_eq!((object["method"].as_str(), object["images"].as_u64()), (Some("exact"), Some(30)));
    assert_eq!(object["uniform"].as_array().unwrap().len(), 3);
    place.run("train own.toml --epochs 1 --output again").ok();
    let integers = bitpact::IntegerModel::load(place.path("again/model.bitpact")).unwrap();
    let products: Vec<_> = integers.layers.iter().flat_map(|layer| layer.op.products()).collect();
    let packed: usize = products.iter().map(|p| (p.codes.len() * usize::from(p.weight_bits)).div_ceil(8)).sum();
    assert_eq!(packed as f64, cost(&object, "bytes"), "what the file packs is what was predicted");
    for product in products {
        assert_eq!(object["choices"][0]["weights"][&product.name], product.weight_bits);
    }
    // The measures are taken from the file: the run is not needed any more, its recipe is.
    let recipe = run.join("config.toml");
    let again = format!("search bits {} --bits 2,4,8 --sensitivity layers.json", recipe.display());
    let again = place.run(&format!("{again} --budget bytes=W4A4 -o b.toml")).ok();
    assert!(!again.stderr.contains("measuring") && again.stdout.contains("chosen"), "{}", again.stderr);
    let front = format!("{line} --budget bytes=W8A8 --budget bitops=W8A8 --front 3 -o front --json");
    let object = place.run(&front).ok().json();
    let count = object["choices"].as_array().unwrap().len();
    assert!((2..=3).contains(&count), "{object:?}");
    assert!(place.path(&format!("front/0{count}.toml")).exists() && place.path("front/front.json").exists());
    assert!(std::fs::read_to_string(place.path("front/front.svg")).unwrap().contains("the same width everywhere"));
}

#[test]
fn this_machine_is_timed_once() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run");
    let line = format!(
        "search bits {} --bits 2,8 --images 10 --budget latency=W8A8@cpu --cache cpu.json -o own.toml --sensitivity layers.json",
        run.display()
    );
    let first = place.run(&line).ok();
    assert!(first.stderr.contains("timing") && first.stdout.contains("measured"), "{}{}", first.stderr, first.stdout);
    let before = std::fs::read(place.path("cpu.json")).unwrap();
    let second = place.run(&line).ok();
    assert!(!second.stderr.contains("timing"), "{}", second.stderr);
    assert_eq!(std::fs::read(place.path("cpu.json")).unwrap(), before);
    std::fs::write(place.path("cpu.json"), "{}").unwrap();
    place.run(&line).failed(1, &["cpu.json", "no table of measured layers"]);
}

#[test]
fn what_cannot_be_is_told_before_anything_is_measured() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run");
    for (rest, says) in [
        ("--budget bytes=3", "cannot be met"),
        ("--budget size=3", "none of params"),
        ("--budget params=3k", "at every width"),
        ("--budget latency=1ms@mpic --bits 2,3", "mpic has no figure"),
        ("--budget latency=1ms@abacus", "neither a device nor a file"),
        ("--budget energy=1J@cpu", "no energies"),
        ("--budget bytes=30k --bits 4", "one width"),
        ("--budget bytes=30k --bits 9", "expected 1 to 8"),
        ("--budget bytes=30k --cache x.json", "--cache"),
    ] {
        let done = place.run(&format!("search bits {} {rest}", run.display()));
        assert!(!done.stderr.contains("measuring"), "{}", done.stderr);
        done.failed(2, &[says]);
    }
    place.run("search bits builtin --budget bytes=30k").failed(2, &["a recipe has no trained weights"]);
    std::fs::write(place.path("bad.json"), "{}").unwrap();
    place
        .run(&format!("search bits {} --budget bytes=W4A4 --sensitivity bad.json", run.display()))
        .failed(1, &["bad.json"]);
}
