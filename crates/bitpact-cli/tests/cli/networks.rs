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

/// The files of docs/networks train a step, convert and verify.
#[test]
fn the_networks_of_the_documentation_train_and_run_exactly() {
    let place = Place::new();
    for (name, recipe) in [
        ("mobilenet_v3_block", "builtin"),
        ("shufflenet_unit", "builtin"),
        ("densenet_block", "builtin"),
        ("preact_resnet", "builtin"),
        ("sign_resnet11", "builtin"),
        ("choices_resnet8", "builtin"),
        ("three_outputs", "builtin"),
        ("unet", "builtin-segments"),
    ] {
        let file = format!("{}/../../docs/networks/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        assert!(place.run(&format!("inspect {file} --graph")).ok().stdout.contains("3x3"), "{name}");
        let line = "--limit-train 16 --limit-test 10 --batch-size 8 --compare-float false --epochs 1 --bits W4A4";
        place.run(&format!("train {recipe} --arch {file} {line} --output {name}")).ok();
        let verified = place.run(&format!("verify {name} --limit-test 10 --json")).ok().json();
        assert_eq!(verified["different"].as_u64(), Some(0), "{name}");
        let evaluated = place.run(&format!("eval {name} --limit-test 10 --json")).ok().json();
        let metric = if recipe == "builtin" { "top1" } else { "miou" };
        assert!(evaluated[metric].is_f64(), "{name}: {evaluated:?}");
        image::RgbImage::new(40, 40).save(place.path("black.png")).unwrap();
        let shown = place.run(&format!("run {name} black.png black.png --json")).ok().json();
        let of = |i: usize, key: &str| shown["images"][i][key].as_array().map_or(0, Vec::len);
        let key = if recipe == "builtin" { "top" } else { "parts" };
        assert!(of(0, key) == 5 && shown["images"][0][key] == shown["images"][1][key], "{name}: {shown:?}");
    }
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

/// Writes a network of `nodes` on 32x32 images and trains it for an epoch.
fn train(place: &Place, nodes: &str, flags: &str) -> super::Ended {
    let input = r#"{ name = "image", op = "input", height = 32, width = 32, channels = 3 },"#;
    std::fs::write(place.path("net.toml"), format!("name = \"net\"\nnodes = [\n{input}\n{nodes}\n]\n")).unwrap();
    let line = "--limit-train 40 --limit-test 10 --batch-size 8 --compare-float false --epochs 2 --output run";
    place.run(&format!("train --arch net.toml {line} {flags}"))
}

const CONV_ACT: &str = r#"
  { name = "conv1", op = "conv", out_channels = 10, kernel = 3, stride = 4 },
  { name = "act1", op = "act" },"#;

#[test]
fn what_cannot_be_converted_is_refused_before_the_first_step() {
    let ends = [
        ("", "act1"),
        (r#"{ name = "pool", op = "global_avg_pool" }"#, "pool"),
        (r#"{ name = "drop", op = "dropout", rate = 0.5 }"#, "drop"),
        (r#"{ name = "pool", op = "max_pool", kernel = 8, stride = 8 }"#, "pool"),
    ];
    for (end, node) in ends {
        // An activation or dropout ends a network of one pixel.
        let is_pooled = end.contains("pool");
        let start = if is_pooled { CONV_ACT.to_owned() } else { CONV_ACT.replace("stride = 4", "stride = 30") };
        let nodes = format!("{start}\n{end}");
        for flags in ["--bits W4A4", "--bits float@1,W4A4"] {
            let place = Place::new();
            train(&place, &nodes, flags).failed(2, &[node]);
            assert!(!place.path("run").exists(), "{end}, {flags}: something was written");
        }
        // What integers cannot end in, floats can.
        train(&Place::new(), &nodes, "--bits float").ok();
    }
}

#[test]
fn logits_may_be_a_sum() {
    let start = CONV_ACT.replace("stride = 4", "stride = 30");
    for end in [
        r#"{ name = "conv2", op = "conv", out_channels = 10, kernel = 1 },
           { name = "add", op = "add", inputs = ["conv2", "act1"] }"#,
        r#"{ name = "conv2", op = "conv", out_channels = 10, kernel = 1 },
           { name = "conv3", op = "conv", out_channels = 10, kernel = 1, inputs = ["act1"] },
           { name = "add", op = "add", inputs = ["conv2", "conv3"] }"#,
    ] {
        let place = Place::new();
        train(&place, &format!("{start}\n{end}"), "--bits W4A4").ok();
        let verified = place.run("verify run --limit-test 10 --json").ok().json();
        assert_eq!((verified["different"].as_u64(), verified["formula"]["wrong"].as_u64()), (Some(0), Some(0)));
    }
}

/// Layers that are first and last at once.
const ONE_LAYER: [&str; 3] = [
    r#"{ name = "fc", op = "linear", out_features = 10 }"#,
    r#"{ name = "fc", op = "conv", out_channels = 10, kernel = 32, bias = true },
       { name = "bn", op = "batch_norm" }"#,
    r#"{ name = "fc", op = "conv", out_channels = 10, kernel = 32 },
       { name = "fc2", op = "linear", out_features = 10, inputs = ["image"] },
       { name = "add", op = "add", inputs = ["fc", "fc2"] }"#,
];

#[test]
fn one_layer_networks_train_convert_and_verify_at_every_width() {
    for nodes in ONE_LAYER {
        for bits in ["W1A1", "W2A2", "W3A3", "W5A8", "W8A8"] {
            for ends in ["8bit", "same"] {
                let place = Place::new();
                train(&place, nodes, &format!("--bits {bits} --first-last {ends} --max-grad-norm 1")).ok();
                let verified = place.run("verify run --limit-test 10 --json").ok().json();
                let wrong = (verified["different"].as_u64(), verified["formula"]["wrong"].as_u64());
                assert_eq!(wrong, (Some(0), Some(0)), "{nodes} {bits} {ends}");
                place.run("convert run -o shipped.bitpact").ok();
                place.run("train --resume run --epochs 3").ok();
            }
        }
        let place = Place::new();
        train(&place, nodes, "--bits float").ok();
        assert!(!place.path("run/model.bitpact").exists());
    }
}

#[test]
fn bits_that_quantize_nothing_are_refused_before_the_first_step() {
    let place = Place::new();
    let refused = ["layer `fc`", "quantizes nothing here", "first_last"];
    for nodes in ONE_LAYER {
        train(&place, nodes, "--bits W4A4 --first-last float").failed(2, &refused);
        train(&place, nodes, "--bits float@1,W4A4 --first-last float").failed(2, &refused);
    }
    assert!(!place.path("run").exists());
    place.run("bench net.toml --bits W4A4 --first-last float").failed(2, &refused);
}

#[test]
fn what_grows_beyond_float32_from_layer_to_layer_is_told_with_its_tensor() {
    for norm in [true, false] {
        let norms = if norm { r#"{ name = "bnNR", op = "batch_norm" },"# } else { "" };
        let layer = r#"{ name = "convNR", op = "conv", out_channels = 4, kernel = 3, stride = ST, padding = 1 },"#;
        let layer = format!("{layer} {norms} {}", r#"{ name = "actNR", op = "act" },"#);
        let layers = (0..300).map(|i| {
            let stride = if i == 0 { "4" } else { "1" };
            layer.replace("NR", &i.to_string()).replace("ST", stride)
        });
        let end = r#"{ name = "pool", op = "global_avg_pool" }, { name = "fc", op = "linear", out_features = 10 }"#;
        let nodes: String = layers.chain([end.to_owned()]).collect();
        let place = Place::new();
        let ended = train(&place, &nodes, "--bits W4A4");
        match norm {
            true => ended.failed(1, &["step ", "`bn", "beyond float32", "max_grad_norm"]),
            false => ended.failed(1, &["tensor `act", "not numbers"]),
        };
    }
}
