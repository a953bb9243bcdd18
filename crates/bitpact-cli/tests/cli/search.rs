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

#[test]
fn channels_are_removed_down_to_the_budget_and_what_is_left_trains_on() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run");
    let line = format!("search prune {} --epochs 1 -o small --json", run.display());
    let object = place.run(&format!("{line} --budget params=300")).ok().json();
    let left = object["cost"]["left"].as_f64().unwrap();
    assert!(left <= 300.0 && left > 150.0, "{object:?}");
    assert_eq!((object["cost"]["whole"].as_f64(), object["groups"].as_u64()), (Some(486.0), Some(12)));
    place.run("train small/pruned.toml --init-from small/pruned.safetensors --epochs 1 --output again").ok();
    let integers = bitpact::IntegerModel::load(place.path("again/model.bitpact")).unwrap();
    let products: Vec<_> = integers.layers.iter().flat_map(|layer| layer.op.products()).collect();
    // The last layer has ten biases.
    assert_eq!(products.iter().map(|product| product.codes.len()).sum::<usize>() as f64 + 10.0, left);
    place.run(&format!("{line} --budget params=300")).failed(1, &["small", "holds a run already"]);
    for (rest, says) in [
        ("--budget params=3", "with one channel in every layer"),
        ("--budget params=1M", "nothing is to be removed"),
        ("--budget latency=1ms@cpu", "needs a cost of layers"),
        ("--budget latency=1ms@abacus", "neither a device nor a file"),
        ("--strength=-1", "expected a number of 0 or more"),
        ("--strength 1 --quantity size", "none of params"),
        ("--strength 1 --rate 0", "above 0 and at most 1"),
        ("--strength 1 --budget params=300", "cannot be used with"),
        ("", "required"),
    ] {
        let done = place.run(&format!("search prune {} -o other {rest}", run.display()));
        assert!(!done.stderr.contains("epoch") && !place.path("other").exists(), "{}", done.stderr);
        done.failed(2, &[says]);
    }
}

#[test]
fn kernels_along_a_row_are_shortened_and_dilated() {
    let place = Place::new();
    let few = "--limit-train 80 --limit-test 10 --batch-size 8 --epochs 2 --compare-float false --bits float";
    let line = format!("search prune builtin --kernels --strength 1000 --rate 0.2 {few}");
    let object = place.run(&format!("{line} --arch tcn -o small --json")).ok().json();
    let kernel = &object["kernels"]["block5.conv2"];
    assert_eq!((kernel["taps"].as_u64(), kernel["dilation"].as_u64()), (Some(1), Some(1)), "{object:?}");
    place.run("train small/pruned.toml --init-from small/pruned.safetensors --bits W4A4 --output again").ok();
    assert_eq!(place.run("verify again --limit-test 10 --json").ok().json()["different"].as_u64(), Some(0));
    place.run(&format!("{line} --arch cnn -o other")).failed(2, &["no kernel of cnn can be shortened"]);
}

/// A network with a choice between a convolution of 3, one of 1 and none.
const CHOICES: &str = r#"
name = "choices"
choices = ["block"]
nodes = [
  { name = "image", op = "input", height = 32, width = 32, channels = 3 },
  { name = "stem", op = "conv", out_channels = 4, kernel = 3, stride = 4 },
  { name = "stem.bn", op = "batch_norm" },
  { name = "stem.act", op = "act" },
  { name = "three", op = "conv", out_channels = 4, kernel = 3, padding = 1 },
  { name = "three.bn", op = "batch_norm" },
  { name = "one", op = "conv", out_channels = 4, kernel = 1, inputs = ["stem.act"] },
  { name = "one.bn", op = "batch_norm" },
  { name = "same", op = "batch_norm", inputs = ["stem.act"] },
  { name = "block", op = "add", inputs = ["three.bn", "one.bn", "same"] },
  { name = "act", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 10 },
]
"#;

#[test]
fn one_alternative_of_every_choice_is_taken_and_trains_on() {
    let place = Place::new();
    std::fs::write(place.path("net.toml"), CHOICES).unwrap();
    let few = "--limit-train 40 --limit-test 10 --batch-size 8 --epochs 1 --compare-float false";
    let line = format!("search blocks builtin --arch net.toml --bits float {few}");
    // Weights and biases: 108 of the first layer, 50 of the last, and 144, 16 or 0 of the block.
    let object = place.run(&format!("{line} --budget params=180 -o one --json")).ok().json();
    let taken = object["choices"][0]["taken"].as_str().unwrap();
    let cost = object["cost"]["chosen"].as_f64().unwrap();
    assert_eq!(object["cost"]["most"].as_f64(), Some(302.0), "{object:?}");
    assert!(matches!((taken, cost), ("one.bn", 174.0) | ("same", 158.0)), "{object:?}");
    let shares = object["choices"][0]["shares"].as_array().unwrap();
    assert!((shares.iter().map(|share| share.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
    place.run("train one/chosen.toml --init-from one/chosen.safetensors --bits W4A4 --output again").ok();
    assert_eq!(place.run("verify again --limit-test 10 --json").ok().json()["different"].as_u64(), Some(0));
    // Of this network, not of the recipe's own.
    place.run(&format!("{line} --budget bytes=W8A8 -o other")).failed(2, &["any choice meets it"]);
    let shown = place.run(&format!("{line} --strength 0 -o free")).ok().stdout;
    assert!(shown.contains("302") && shown.contains("bitpact train free/chosen.toml"), "{shown}");
    for (rest, says) in [
        ("--budget params=3", "with the cheapest alternatives"),
        ("--budget params=1M", "any choice meets it"),
        ("--budget latency=1ms@cpu", "needs a cost of layers"),
    ] {
        let done = place.run(&format!("{line} -o other {rest}"));
        assert!(!done.stderr.contains("epoch") && !place.path("other").exists(), "{}", done.stderr);
        done.failed(2, &[says]);
    }
    place.run("search blocks builtin --strength 0 -o other").failed(2, &["has no choices"]);
    let wrong = CHOICES.replacen("\"same\"] }", "\"stem.act\"] }", 1).replacen("  { name = \"same\"", "# \"", 1);
    std::fs::write(place.path("net.toml"), wrong).unwrap();
    place.run(&format!("{line} --strength 0")).failed(2, &["net.toml", "alternative `stem.act` of the choice"]);
}

#[test]
fn a_pipeline_begins_with_the_blocks() {
    let place = Place::new();
    std::fs::write(place.path("net.toml"), CHOICES).unwrap();
    let recipe = "dataset = 'builtin'\narch = 'net.toml'\nepochs = 1\nbits = 'W4A4'\ncompare_float = false\n";
    std::fs::write(place.path("recipe.toml"), recipe).unwrap();
    let few = "--limit-train 40 --limit-test 10 --batch-size 8";
    let line = format!("search pipeline recipe.toml --blocks params=180 --prune params=120 -o chain -- {few}");
    place.run(&line).ok();
    let table = std::fs::read_to_string(place.path("chain/pipeline.md")).unwrap();
    assert!(
        ["blocks, params=180, float", "params=120, float", "params=120, W8A8"].iter().all(|s| table.contains(s)),
        "{table}"
    );
    assert_eq!(place.run(&line).ok().stderr.matches("is done").count(), 5);
}

#[test]
fn widths_are_trained_as_mixtures_within_the_budget() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run");
    let line = format!("search bits {} --gradient --bits 2,8 --epochs 1 -o mixed.toml --json", run.display());
    let object = place.run(&format!("{line} --budget bytes=W4A4")).ok().json();
    assert_eq!(object["weights"]["conv2"], 2, "8 bits are more than W4A4 has: {object:?}");
    let shares = object["shares"]["conv2"]["shares"].as_array().unwrap();
    assert!((shares.iter().map(|share| share.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
    place.run("train mixed.toml --init-from mixed.safetensors --epochs 1 --output again").ok();
    let integers = bitpact::IntegerModel::load(place.path("again/model.bitpact")).unwrap();
    let bits: Vec<u8> = integers.layers.iter().flat_map(|layer| layer.op.products()).map(|p| p.weight_bits).collect();
    assert_eq!(bits, [8, 2, 8]);
    for (rest, says) in [
        ("--budget bytes=3", "cannot be met"),
        ("--budget bytes=W4A4 --front 3", "cannot be used with"),
        ("--budget bytes=W4A4 --rate 2", "above 0 and at most 1"),
    ] {
        let line = format!("search bits {} --gradient --bits 2,8 -o other.toml", run.display());
        place.run(&format!("{line} {rest}")).failed(2, &[says]);
    }
    let line = format!("search bits {} --budget bytes=W4A4 --epochs 2", run.display());
    place.run(&line).failed(2, &["--gradient"]);
}

#[test]
fn a_pipeline_goes_through_every_stage_once() {
    let (place, source) = (Place::new(), trained());
    let config = source.path("run").join("config.toml");
    let line =
        format!("search pipeline {} --prune params=300 --mixed bytes=W4A4 --distill 0.5 -o chain", config.display());
    let first = place.run(&format!("{line} -- --epochs 1")).ok();
    let table = std::fs::read_to_string(place.path("chain/pipeline.md")).unwrap();
    let stages = ["seed, float", "params=300, float", "params=300, W8A8", "params=300, bytes=W4A4"];
    assert!(stages.iter().all(|stage| table.contains(stage) && first.stdout.contains(stage)), "{table}");
    assert!(place.path("chain/front.svg").exists() && place.path("chain/params-300/bytes-W4A4/model.bitpact").exists());
    let page = std::fs::read_to_string(place.path("chain/report.html")).unwrap();
    assert!(page.contains(", 4 stages") && stages.iter().all(|stage| page.contains(stage)));
    // A run that stopped before its end goes on, and all else is left alone.
    std::fs::remove_dir_all(place.path("chain/params-300/bytes-W4A4")).unwrap();
    let again = place.run(&format!("{line} --json -- --epochs 1")).ok();
    assert_eq!(again.stderr.matches("is done").count(), 5, "{}", again.stderr);
    assert_eq!(again.json()["rows"].as_array().unwrap().len(), 4);
    place.run(&format!("{line} -- --bits W2A2")).failed(2, &["a pipeline sets this flag"]);
    place.run(&format!("{line} -- --no-such-flag")).failed(2, &["--no-such-flag"]);
    place.run(&format!("search pipeline {} --prune size=3 -o chain", config.display())).failed(2, &["none of params"]);
}
