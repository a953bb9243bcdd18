//! What good runs give: files, numbers that agree with each other, one JSON object where asked.

use super::*;

#[test]
fn a_run_leaves_its_files_and_tells_where_they_are() {
    let place = Place::new();
    let ended = place.run(&format!("{TRAIN} --epochs 2 --output run")).ok();
    for part in ["integers, W4A4", "simulated in float32", "run/model.bitpact", "bitpact eval run", "30 test images"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    assert!(ended.stderr.contains("epoch 1/2") && ended.stderr.contains("epoch 2/2"), "{}", ended.stderr);
    let config = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("limit_train = 70") && config.contains("name = \"tiny\""), "{config}");
    for secret in [place.0.path().to_str().unwrap(), "threads", "run\""] {
        assert!(!config.contains(secret), "{secret}");
    }
    let records = std::fs::read_to_string(place.path("run/records.jsonl")).unwrap();
    let epochs = records.lines().filter(|line| line.contains("\"kind\":\"epoch\"")).count();
    assert_eq!(epochs, 2, "{records}");
}

#[test]
fn train_and_eval_json_agree() {
    let place = Place::new();
    let line = format!("{TRAIN} --epochs 1 --json");
    let trained = place.run(&line).ok().json();
    let flags = "archtiny-batch_size16-compare_floatfalse-epochs1-limit_test30-limit_train70";
    assert_eq!(trained["output"], format!("runs/builtin-W4A4-seed1-{flags}"));
    assert_eq!(trained["epochs"], 1);
    assert_eq!(trained["images"], 30);
    for key in ["top1", "top5", "simulated_top1"] {
        assert!((0.0..=1.0).contains(&trained[key].as_f64().unwrap()), "{key}");
    }
    for key in ["images_per_s", "train_images_per_s"] {
        assert!(trained[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let run = &format!("runs/builtin-W4A4-seed1-{flags}");
    for model in [run.to_owned(), format!("{run}/model.bitpact"), format!("{run}/last.safetensors")] {
        for flags in ["", " --threads 1 --isa scalar --batch-size 7"] {
            let found = place.run(&format!("eval {model} --limit-test 30 --json{flags}")).ok().json();
            assert_eq!(found["view"], "integer");
            for key in ["top1", "top5", "images"] {
                assert_eq!(found[key], trained[key], "{model} {key}");
            }
        }
    }
    place.run(&format!("eval {run} --dataset cifar10")).failed(2, &["cifar10", "--data"]);
}

#[test]
fn a_float_run_has_no_integers_and_says_so() {
    let place = trained();
    let found = place.run("eval float --limit-test 30 --json").ok();
    assert_eq!(found.json()["view"], "float");
    let record = std::fs::read_to_string(place.path("float/records.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    assert_eq!(found.json()["top1"], record["simulated_top1"]);
    let told = place.run("eval float --limit-test 30").ok();
    assert!(told.stderr.contains("float/last.safetensors is a float network"), "{}", told.stderr);
    place.run("convert float -o x.bitpact").failed(1, &["last.safetensors", "float network"]);
    let shown = place.run("inspect float").ok().stdout;
    assert!(shown.contains("without an integer form") && shown.contains("conv2"), "{shown}");
    assert!(!place.path("float/model.bitpact").exists());
}

#[test]
fn convert_gives_the_file_that_training_wrote() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run").display().to_string();
    let object = place.run(&format!("convert {run} -o again.bitpact --json")).ok().json();
    let bytes = std::fs::read(place.path("again.bitpact")).unwrap();
    assert_eq!(bytes, std::fs::read(source.path("run/model.bitpact")).unwrap());
    assert_eq!(object["bytes"], bytes.len());
    assert_eq!(object["output"], "again.bitpact");
    let best = place.run(&format!("convert {run}/best.safetensors -o best.bitpact")).ok();
    assert!(best.stdout.starts_with("best.bitpact: tiny, "), "{}", best.stdout);
}

#[test]
fn inspect_shows_every_layer_of_every_kind_of_file() {
    let place = trained();
    for file in ["run", "run/model.bitpact", "run/last.safetensors", "run/best.safetensors"] {
        let shown = place.run(&format!("inspect {file}")).ok().stdout;
        for part in ["tiny in integers", "conv1", "3x3/2 3 to 4", "16x16x4", "window sum", "linear", "acc max", "alpha"]
        {
            assert!(shown.contains(part), "{file}: no {part:?} in {shown}");
        }
        assert!(
            shown.lines().filter(|line| !line.starts_with("file ")).all(|line| line.chars().count() <= 100),
            "{shown}"
        );
        let graph = place.run(&format!("inspect {file} --graph")).ok().stdout;
        assert_eq!(graph.lines().count(), 5, "{graph}");
        assert!(shown.contains(&graph) && graph.contains("3x3/2 4 to 8, W4 A8"), "{graph}");
        let object = place.run(&format!("inspect {file} --json")).ok().json();
        let layers = object["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4, "{layers:?}");
        assert_eq!((&layers[0]["weight_bits"], &layers[1]["weight_bits"]), (&8.into(), &4.into()));
        assert_eq!((&layers[0]["act_bits"], &layers[1]["act_bits"]), (&4.into(), &8.into()));
        assert_eq!(layers[1]["macs"], 8 * 8 * 8 * 4 * 9);
        assert_eq!(layers[1]["inputs"], serde_json::json!(["act1"]));
        let number = |key: &str| layers[1][key].as_f64().unwrap();
        assert!((number("alpha") - 255.0 * number("scale")).abs() < 1e-9 * number("alpha"));
        assert!(number("acc_min") < 0.0 && number("acc_max") > 0.0);
        assert!(number("acc_max") < number("acc_bits").exp2() && (2.0..=16.0).contains(&number("weight_levels")));
        // Only the folder has records.
        let occupancy = layers[0].get("occupancy").and_then(|levels| levels.as_array());
        assert_eq!(occupancy.map(Vec::len), (file == "run").then_some(16), "{file}");
        assert_eq!(layers[0].get("entropy").is_some(), file == "run");
    }
    let best = place.run("inspect run/best.safetensors").ok().stdout;
    assert!(best.contains("chosen on the test set"), "{best}");
}

#[test]
fn a_comparison_trains_the_float_network_beside() {
    let place = Place::new();
    let line = TRAIN.replace("--compare-float false", "--compare-float true");
    let object = place.run(&format!("{line} --epochs 1 --output run --json")).ok().json();
    assert!((0.0..=1.0).contains(&object["float_top1"].as_f64().unwrap()));
    assert!(place.path("run/float/last.safetensors").exists());
    let again = place.run("train --resume run --json").ok().json();
    assert_eq!(again["float_top1"], object["float_top1"], "a finished run is shown again, not trained again");
    let float = place.run(&format!("{line} --epochs 1 --bits float --output float --json")).ok().json();
    assert!(!float.contains_key("float_top1") && !place.path("float/float").exists());
}
