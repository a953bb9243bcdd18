//! `bitpact accel`: the shapes scripts rely on, files, and what cannot be.

use super::*;

#[test]
fn the_paper_is_rebuilt_as_people_and_scripts_read_it() {
    let place = Place::new();
    let object = place.run("accel paper --json").ok().json();
    let area = object["area"].as_array().unwrap();
    assert_eq!(area.iter().map(|a| a["bits"].as_u64().unwrap()).collect::<Vec<_>>(), [16, 8, 4, 2]);
    assert!(area.iter().all(|a| a["ours"].is_number() && a["paper"].is_number()));
    let throughput = object["throughput"].as_array().unwrap();
    assert_eq!(throughput.len(), 12);
    for point in throughput {
        let (ours, paper) = (point["ours"].as_f64().unwrap(), point["paper"].as_f64().unwrap());
        assert!((ours / paper - 1.0).abs() <= 0.15, "{point}");
        assert!(point["bandwidth_gbps"].is_null() || [32.0, 64.0].contains(&point["bandwidth_gbps"].as_f64().unwrap()));
    }
    assert_eq!(throughput.iter().filter(|p| p["bandwidth_gbps"].is_null()).count(), 4);
    let text = place.run("accel paper --output charts").ok().stdout;
    assert!(text.contains("16 to 4 bits at 64 GB/s: 4.5"), "{text}");
    for chart in ["charts/area.svg", "charts/throughput.svg"] {
        assert!(std::fs::read_to_string(place.path(chart)).unwrap().starts_with("<svg"));
    }
    let other = place.run("accel paper --network resnet20 --json").ok().json();
    assert!(other["throughput"][0]["paper"].is_null());
}

#[test]
fn a_network_of_the_zoo_or_of_a_file_is_estimated() {
    let place = Place::new();
    let line = "accel model resnet18 --bits W2A8 --device pact-2 --bandwidth 32 --batch 2";
    let object = place.run(&format!("{line} --json --output charts")).ok().json();
    assert_eq!((object["batch"].as_u64(), object["bandwidth_gbps"].as_f64()), (Some(2), Some(32.0)));
    assert_eq!(object["layers"][1]["widths"], "W2A8");
    assert!(place.path("charts/roofline.svg").exists());
    assert!(place.run(line).ok().stdout.contains("images/s"));
    let unlimited = place.run("accel model resnet18 --device pact-4 --bandwidth unlimited --json").ok().json();
    assert!(unlimited["bandwidth_gbps"].is_null());

    let run = trained().path("run");
    let file = place.run(&format!("accel model {} --device this-cpu --json", run.display())).ok().json();
    let layers = file["layers"].as_array().unwrap();
    assert_eq!(layers.iter().map(|l| l["name"].as_str().unwrap()).collect::<Vec<_>>(), ["conv1", "conv2", "linear"]);
    let ms: Vec<serde_json::Value> = layers
        .iter()
        .map(|l| serde_json::json!({ "name": l["name"], "ms": l["time_s"].as_f64().unwrap() * 2e3, "macs": l["macs"] }))
        .collect();
    std::fs::write(place.path("bench.json"), serde_json::json!({ "layers": ms }).to_string()).unwrap();
    let line = format!("accel model {} --device this-cpu --measured bench.json", run.display());
    let compared = place.run(&format!("{line} --json")).ok().json();
    assert!((compared["measured"]["error"].as_f64().unwrap() + 0.5).abs() < 1e-9);
    assert!(place.run(&line).ok().stdout.contains("-50.0 %"));

    let compared = place.run("accel compare resnet20 --device pact-2 --device this-cpu --bits W2A2 --json").ok().json();
    assert_eq!(compared["estimates"].as_array().unwrap().len(), 2);
    assert!(place.run("accel compare cnn").ok().stdout.contains("everything stays on chip up to 16 bits"));
}

#[test]
fn a_network_runs_on_in_memory_arrays() {
    let place = Place::new();
    let run = trained().path("run");
    let line = format!("accel in-memory {} --limit-test 20 --chips 2 --threads 1", run.display());
    let ideal = place.run(&format!("{line} --ideal --cell 1t1mtj --cell crest --json")).ok().json();
    for cell in ideal["cells"].as_array().unwrap() {
        assert_eq!((&cell["accuracy"]["identical"], &cell["accuracy"]["count_error_rate"]), (&1.0.into(), &0.0.into()));
        assert_eq!(cell["accuracy"]["mean"], ideal["exact"]);
    }
    let spread = format!("{line} --cell 2t2mtj --sigma 5% --exact-ends --sweep rows,ratio --json --output charts");
    let ended = place.run(&spread).ok();
    let cell = &ended.json()["cells"][0];
    assert!(cell["accuracy"]["count_error_rate"].as_f64().unwrap() > 0.01, "{cell}");
    assert_eq!(cell["layers"].as_array().unwrap().len(), 1);
    assert_eq!(cell["sweep"].as_array().unwrap().len(), 12);
    for chart in ["charts/margin.svg", "charts/accuracy.svg"] {
        assert!(std::fs::read_to_string(place.path(chart)).unwrap().starts_with("<svg"));
    }
    assert_eq!(place.run(&spread.replace("--threads 1", "--threads 3")).ok().stdout, ended.stdout);
    let small = "--epochs 1 --warmup-epochs 0 --limit-train 20 --limit-test 10 --batch-size 10";
    place.run(&format!("train --bits W1A1 {small} --output one")).ok();
    let by_count = "accel in-memory one --limit-test 5 --chips 2 --rows 64 --sigma 0.1 --by-count";
    let text = place.run(by_count).ok().stdout;
    assert!(text.contains("stride-xnor") && text.contains("an image: "), "{text}");
    for (flags, code, parts) in [
        ("--cell mram", 2, &["`mram` is neither a built-in device nor a file", "stride-xnor"][..]),
        ("--sigma much", 2, &["expected a share such as 5% or 0.05"]),
        ("--sigma -5%", 2, &["spread.current = -0.05, expected 0 to 1"]),
        ("--ratio 1", 2, &["device `stride-xnor`: ratio = 1, expected more than 1"]),
        ("--rows 12", 2, &["array.rows_at_once = 12, expected a power of two"]),
        ("--adc-bits 0", 2, &["adc.bits = 0, expected 1 to 10"]),
        ("--by-count", 2, &["the table of errors by count holds for", "which no layer has"]),
        ("--sweep wires", 2, &["rows, sigma, ratio"]),
        ("--ideal --ratio 2", 2, &["cannot be used with"]),
    ] {
        place.run(&format!("{line} {flags}")).failed(code, parts);
    }
    let float = trained().path("float").display().to_string();
    place.run(&format!("accel in-memory {float}")).failed(1, &["is a float network, which has no integers"]);
    // The mean of 32 x 32 codes of 8 bits is a sum of 18.
    let nodes = r#"{ name = "image", op = "input", height = 32, width = 32, channels = 3 },
      { name = "conv", op = "conv", out_channels = 4, kernel = 3, padding = 1 }, { name = "bn", op = "batch_norm" },
      { name = "act", op = "act" }, { name = "pool", op = "global_avg_pool" },
      { name = "linear", op = "linear", out_features = 10 }"#;
    std::fs::write(place.path("net.toml"), format!("name = \"wide\"\nnodes = [{nodes}]\n")).unwrap();
    place.run(&format!("train --arch net.toml --bits W8A8 {small} --output wide")).ok();
    let told = "layer `linear` cannot be mapped on arrays: reads values of 18 bits, expected at most 16";
    place.run("accel in-memory wide --limit-test 2 --chips 1").failed(2, &[told]);
}

#[test]
fn areas_are_shown_without_yosys() {
    let place = Place::new();
    let object = place.run("accel area --committed --json").ok().json();
    assert_eq!(object["pairs"].as_array().unwrap().len(), 81);
    place.run("accel area --committed --bits 2 --bits 8 --output out").ok();
    for file in ["mac-area.csv", "area.svg", "mac_W2A2.v", "mac_W8A8.v", "array_W2A2_4x4.v"] {
        assert!(place.path("out").join(file).exists(), "{file}");
    }
    // No program on the search path: the committed table, and a word about it.
    let output = place.command(["accel", "area", "--json"]).env("PATH", "").output().unwrap();
    let ended = Ended::new(output, "accel area --json without programs").ok();
    assert!(ended.stderr.contains("yosys: not found"), "{}", ended.stderr);
    assert_eq!(ended.json()["pairs"].as_array().unwrap().len(), 81);
}

#[test]
fn what_cannot_be_is_told() {
    let place = Place::new();
    std::fs::write(place.path("none.toml"), "name = \"none\"\n").unwrap();
    std::fs::write(place.path("bench.json"), "{}").unwrap();
    let run = trained().path("run").display().to_string();
    for (line, parts) in [
        ("accel", &["Usage: bitpact accel"][..]),
        ("accel model resnet18", &["--device <NAME|FILE>"]),
        ("accel model resnet18 --device pact-3", &["`pact-3` is neither a built-in device nor a file", "pact-16"]),
        ("accel model resnet18 --device none.toml", &["none.toml", "missing field"]),
        (
            "accel model resnet19 --device pact-2",
            &["`resnet19` is neither a network of the zoo nor a file", "resnet50"],
        ),
        ("accel model resnet18 --device pact-2 --bits W17A2", &["expected 1 to 16 bits"]),
        ("accel model resnet18 --device pact-2 --bits 4", &["expected a form like `W4A8`"]),
        ("accel model resnet18 --device pact-2 --bandwidth -1", &["bandwidth_gbps = -1, expected a positive number"]),
        ("accel model resnet18 --device pact-2 --bandwidth fast", &["expected a number of GB/s or `unlimited`"]),
        ("accel model resnet18 --device pact-2 --batch 0", &["batch = 0, expected 1 to 65536"]),
        ("accel model alexnet --device pact-2 --input 2x2x3", &["does not fit an input of 2x2x3"]),
        ("accel model resnet18 --device zen5-2core --bits W16A16", &["layer `conv1` needs W16A16", "refuse"]),
        ("accel paper --network vgg", &["--network vgg", "resnet50-v1"]),
        ("accel area --bits 17", &["--bits"]),
        ("accel area --committed --bits 12", &["W12A12 is not in the table"]),
    ] {
        place.run(line).failed(2, parts);
    }
    let bits = format!("accel model {run} --device pact-2 --bits W4A4");
    place.run(&bits).failed(2, &["a file has its own bits"]);
    let layer = format!("accel area --simulate {run} --layer conv9");
    place.run(&layer).failed(2, &["--layer", "act1, act2, linear"]);
    let measured = |file: &str| format!("accel model {run} --device this-cpu --measured {file}");
    place.run(&measured("nothing.json")).failed(1, &["nothing.json: cannot read"]);
    place.run(&measured("bench.json")).failed(1, &["bench.json: expected an object with an array `layers`"]);
    let float = trained().path("float").display().to_string();
    place.run(&format!("accel model {float} --device pact-2")).failed(2, &["is float"]);
}
