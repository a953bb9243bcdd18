//! What a pixel means: told by recipes for each channel, and compared where a network and what it meets both say it.

use super::*;

/// A copy of the finished run, to be changed.
fn copied(place: &Place) -> PathBuf {
    let (from, to) = (trained().path("run"), place.path("run"));
    std::fs::create_dir(&to).unwrap();
    for name in ["config.toml", "model.bitpact", "last.safetensors", "best.safetensors", "records.jsonl"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    to
}

#[test]
fn a_network_beside_a_recipe_of_other_pixels_is_refused_or_warned_of() {
    for (from, to) in [("scale = 0.015625", "scale = 0.0078125"), ("zero_point = 128", "zero_point = [128, 128, 127]")]
    {
        let place = Place::new();
        let config = copied(&place).join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(from), "{text}");
        place.run("eval run --limit-test 30").ok();
        std::fs::write(&config, text.replace(from, to)).unwrap();
        let refused = ["pixels have another meaning", "of channel", "--force evaluates it all the same"];
        place.run("eval run --limit-test 30").failed(1, &refused);
        let said = place.run("eval run --limit-test 30 --force").ok().stderr;
        assert!(said.contains("warning: ") && said.contains("another meaning"), "{said}");
        // A file alone says nothing that could differ.
        place.run("eval run/model.bitpact --limit-test 30 --dataset builtin").ok();
    }
}

#[test]
fn weights_that_were_trained_on_other_pixels_are_refused_or_warned_of() {
    let place = Place::new();
    let recipe = |input: &str| {
        let text = format!("dataset = \"builtin\"\narch = \"tiny.toml\"\nepochs = 1\nbatch_size = 16\n{input}\n");
        std::fs::write(place.path("recipe.toml"), text).unwrap();
    };
    let weights = trained().path("run/best.safetensors").display().to_string();
    let line = format!("train recipe.toml --limit-train 70 --limit-test 30 --output run --init-from {weights}");
    for input in ["input = { zero_point = 0 }", "input = { mean = 0.5, std = [0.2, 0.2, 0.3] }"] {
        recipe(input);
        place.run(&line).failed(1, &["best.safetensors", "another meaning", "--force takes its weights all the same"]);
        assert!(!place.path("run").exists());
    }
    let said = place.run(&format!("{line} --force")).ok().stderr;
    assert!(said.contains("warning: ") && said.contains("took 14 tensors"), "{said}");
    assert!(said.contains("statistics are estimated anew from 4 batches"), "{said}");
    recipe("input = { zero_point = [128, 128, 128], scale = 0.015625 }");
    place.run(&line.replace("--output run", "--output same")).ok();
    place.run("train --force").failed(2, &["--init-from"]);
}

#[test]
fn recipes_give_each_channel_its_mean_and_deviation() {
    let place = Place::new();
    let recipe = |input: &str| {
        let text =
            format!("dataset = \"builtin\"\narch = \"tiny.toml\"\nepochs = 1\nbatch_size = 16\ninput = {input}\n");
        std::fs::write(place.path("recipe.toml"), text).unwrap();
    };
    let line = "train recipe.toml --limit-train 70 --limit-test 30 --output run";
    recipe("{ mean = [0.4914, 0.4822, 0.4465], std = [0.247, 0.2435, 0.2616] }");
    place.run(line).ok();
    let shown = place.run("inspect run --json").ok().json();
    assert_eq!(shown["zero_point"], serde_json::json!([125, 123, 114]));
    let verified = place.run("verify run --limit-test 30 --json").ok().json();
    let wrong = (verified["different"].as_u64(), verified["formula"]["wrong"].as_u64());
    assert_eq!(wrong, (Some(0), Some(0)));
    place.run("eval run --limit-test 30").ok();
    place.run("train --resume run --epochs 2").ok();
    recipe("{ zero_point = [1, 2] }");
    place.run(&line.replace("run", "other")).failed(2, &["`input` tells 2 channels apart, and the images have 3"]);
}
