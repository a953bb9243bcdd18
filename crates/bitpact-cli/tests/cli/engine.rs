//! The commands around the engine: run, verify, bench and kernels.

use super::*;
use image::{GrayImage, Luma, Rgb, RgbImage};

fn paths() -> usize {
    bitpact::Isa::available().len()
}

#[test]
fn verify_compares_every_path_and_says_so() {
    let place = trained();
    let object = place.run("verify run --limit-test 40 --threads 2 --json").ok().json();
    assert_eq!((&object["different"], &object["images"], &object["first"]), (&0.into(), &40.into(), &().into()));
    let entries = object["paths"].as_array().unwrap();
    assert_eq!(entries.len(), 2 * paths());
    let sum: u64 = entries.iter().map(|path| path["codes"].as_u64().unwrap()).sum();
    assert_eq!(object["codes"], sum + object["probed"].as_u64().unwrap());
    for path in entries {
        assert!(path["different"] == 0 && path["codes"].as_u64().unwrap() > 0, "{path}");
        assert!(path["isa"].is_string() && path["threads"].is_u64(), "{path}");
    }
    let formula = &object["formula"];
    assert!(formula["values"].as_u64().unwrap() > 0 && formula["wrong"].as_u64() == Some(0), "{formula}");
    let told = place.run("verify run --limit-test 3 --threads 1").ok().stdout;
    assert!(told.contains("follow the formula of training"), "{told}");
    let told = place.run("verify run/model.bitpact --limit-test 3 --threads 1").ok().stdout;
    assert!(told.contains("\n0 of ") && told.contains("codes differ: 3 images of builtin"), "{told}");
    place.run("verify run/best.safetensors --limit-test 2 --threads 1").ok();
    place.run("verify float").failed(1, &["float/last.safetensors", "no integers"]);
    place.run("verify run --dataset cifar").failed(2, &["--dataset"]);
    place.run("verify none.bitpact").failed(1, &["none.bitpact"]);
}

/// A model for images of another size is no question of codes.
#[test]
fn verify_refuses_images_the_network_cannot_read() {
    let place = Place::new();
    let model = random_model(16);
    model.save(place.path("small.bitpact")).unwrap();
    place
        .run("verify small.bitpact --dataset builtin --limit-test 2")
        .failed(1, &["small.bitpact", "16x16x3", "32x32x3"]);
}

fn random_model(side: usize) -> bitpact::IntegerModel {
    use bitpact::unstable::graph::{QuantConfig, Shape, zoo};
    let graph = zoo::build("cnn", Shape::new(side, side, 3), 10).unwrap().unwrap();
    let plan = bitpact::QuantPlan::resolve(&graph, &QuantConfig::new("W2A2".parse().unwrap())).unwrap();
    let names = (0..10).map(|c| format!("thing {c}")).collect();
    let pixels = bitpact::unstable::model::InputDescription::uniform(3, 128, 1.0 / 64.0);
    bitpact::convert(&bitpact::Model::random(graph, plan, pixels, names, 1).unwrap()).unwrap().model
}

#[test]
fn run_shows_the_five_most_likely_classes_of_every_picture() {
    let place = Place::new();
    let model = random_model(32);
    model.save(place.path("model.bitpact")).unwrap();
    let colour = RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, 77]));
    colour.save(place.path("colour.png")).unwrap();
    RgbImage::from_fn(90, 50, |x, y| Rgb([(x * 2) as u8, (y * 5) as u8, 77])).save(place.path("large.jpg")).unwrap();
    GrayImage::from_fn(32, 32, |x, _| Luma([(x * 8) as u8])).save(place.path("grey.png")).unwrap();

    let object = place.run("run model.bitpact colour.png large.jpg grey.png --json").ok().json();
    let images = object["images"].as_array().unwrap();
    let files: Vec<&str> = images.iter().map(|image| image["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["colour.png", "large.jpg", "grey.png"]);
    for image in images {
        let top = image["top"].as_array().unwrap();
        let number = |i: usize, key: &str| top[i][key].as_f64().unwrap();
        assert_eq!(top.len(), 5);
        assert!((0..4).all(|i| number(i, "logit") >= number(i + 1, "logit")), "{image}");
        let sum: f64 = (0..5).map(|i| number(i, "probability")).sum();
        assert!(sum > 0.5 && sum <= 1.000_001, "{image}");
        assert!(top.iter().all(|class| class["name"] == format!("thing {}", class["class"])), "{image}");
    }
    // The picture of the right size is what the interpreter sees.
    let logits = bitpact::Interpreter::new(&model).run(&colour.into_raw()).logits().to_vec();
    for class in images[0]["top"].as_array().unwrap() {
        assert_eq!(class["logit"], logits[class["class"].as_u64().unwrap() as usize]);
    }

    let told = place.run("run model.bitpact grey.png --isa scalar --threads 1").ok().stdout;
    assert!(told.starts_with("grey.png\n") && told.matches("thing ").count() == 5, "{told}");
    let best = format!("thing {}\n", images[2]["top"][0]["class"]);
    assert!(told.lines().nth(1).unwrap().ends_with(best.trim_end()), "{told}, expected {best}");
}

#[test]
fn pictures_that_are_none_are_errors_beside_the_others() {
    let place = Place::new();
    random_model(32).save(place.path("model.bitpact")).unwrap();
    let good = RgbImage::from_fn(40, 40, |x, y| Rgb([(x * 6) as u8, (y * 6) as u8, 1]));
    good.save(place.path("good.png")).unwrap();
    let bytes = std::fs::read(place.path("good.png")).unwrap();
    std::fs::write(place.path("cut.png"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(place.path("text.jpg"), "no picture").unwrap();
    for (files, parts) in [
        ("good.png cut.png", ["cut.png", "damaged PNG file"]),
        ("good.png text.jpg", ["text.jpg", "not a PNG, JPEG, WebP, BMP or TIFF file"]),
        ("missing.png good.png", ["missing.png", "cannot read"]),
    ] {
        for json in ["", " --json"] {
            let ended = place.run(&format!("run model.bitpact {files}{json}"));
            assert_eq!(ended.code, Some(1));
            for part in parts.iter().chain(&["1 of 2 pictures cannot be used"]) {
                assert!(ended.stderr.contains(part), "{}", ended.stderr);
            }
            let alone = place.run(&format!("run model.bitpact good.png{json}")).ok();
            assert_eq!(ended.stdout, alone.stdout, "the good one is shown");
        }
    }
    place.run("run model.bitpact cut.png text.jpg --json").failed(1, &["2 of 2", "cut.png", "text.jpg"]);
    // A batch that a row cannot hold loses no other row.
    #[cfg(target_os = "linux")]
    {
        let script = format!(
            "ulimit -v 190000; exec {} bench model.bitpact --seconds 0 --threads 1 --batch 1,65536 --json",
            env!("CARGO_BIN_EXE_bitpact")
        );
        let output = Command::new("sh").current_dir(place.path(".")).args(["-c", &script]).output().unwrap();
        let ended = Ended::new(output, &script);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("1 threads, batch 65536") && ended.stderr.contains("1 rows could not"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.json()["rows"].as_array().unwrap().len(), 1);
    }
    place.run("run model.bitpact").failed(2, &["<IMAGE>"]);
    place.run("run good.png good.png").failed(1, &["good.png"]);
}

#[test]
fn bench_measures_a_file_and_a_random_network() {
    let place = trained();
    for target in ["run/model.bitpact", "cnn --bits W2A2 --weight-quant sawb --first-last same --image-size 8"] {
        let line = format!("bench {target} --seconds 0 --threads 1,2 --batch 1,3 --json");
        let object = place.run(&line).ok().json();
        let rows = object["rows"].as_array().unwrap();
        let combinations: Vec<(u64, u64)> =
            rows.iter().map(|row| (row["threads"].as_u64().unwrap(), row["batch"].as_u64().unwrap())).collect();
        assert_eq!(combinations, [(1, 1), (1, 3), (2, 1), (2, 3)], "{target}");
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
            let speed = number("batch") / number("median_ms") * 1e3;
            assert!((number("images_per_s") / speed - 1.0).abs() < 1e-9, "{row}");
            assert!(number("p10_ms") <= number("median_ms") && number("median_ms") <= number("p90_ms"), "{row}");
            #[cfg(target_os = "linux")]
            assert!(
                number("resident_bytes") > 1e5 && number("peak_resident_bytes") >= number("resident_bytes"),
                "{row}"
            );
        }
        let layers = object["layers"].as_array().unwrap();
        let sum = |key: &str| layers.iter().map(|layer| layer[key].as_f64().unwrap()).sum::<f64>();
        assert!((sum("share") - 1.0).abs() < 1e-9 && sum("macs") == object["macs"].as_f64().unwrap(), "{target}");
        for layer in layers {
            let has_macs = layer["macs"] != 0;
            assert!(layer["name"].is_string() && layer["kernel"].is_string(), "{layer}");
            assert_eq!(layer["percent_of_peak"].as_f64().is_some_and(|share| share > 0.0), has_macs, "{layer}");
        }
    }
    let told = place.run("bench run --seconds 0 --threads 1 --batch 2 --isa scalar").ok().stdout;
    for part in ["model.bitpact, images of 32x32x3, scalar", "median ms", "of peak", "act1", "total"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    for (line, parts) in [
        ("bench resnet19", &["`resnet19` is neither a file nor", "resnet18"][..]),
        ("bench cnn --bits float", &["--bits", "float"]),
        ("bench cnn --bits W9A1", &["--bits", "expected 1 to 8"]),
        ("bench cnn --weight-quant dorfea", &["--weight-quant", "dorefa", "sawb"]),
        ("bench cnn --first-last 4bit", &["--first-last", "8bit"]),
        ("bench cnn --image-size 1", &["--image-size"]),
        ("bench cnn --threads 0", &["--threads"]),
        ("bench cnn --batch 1,x", &["--batch"]),
        ("bench cnn --seconds many", &["--seconds", "expected a number of seconds"]),
        ("bench run --bits W2A2", &["--bits", "run is a file"]),
    ] {
        place.run(line).failed(2, parts);
    }
    place.run("bench float").failed(1, &["float/last.safetensors", "no integers"]);
}

#[test]
fn kernels_shows_what_this_machine_has() {
    let place = Place::new();
    let object = place.run("kernels --json").ok().json();
    let names: Vec<String> = bitpact::Isa::available().iter().map(ToString::to_string).collect();
    assert_eq!(object["paths"], serde_json::json!(names));
    let peaks = object["peaks"].as_array().unwrap();
    for isa in &names {
        for number in ["int8", "f32"] {
            assert!(peaks.iter().any(|peak| peak["isa"] == isa.as_str() && peak["number"] == number), "{isa} {number}");
        }
    }
    assert!(peaks.iter().all(|peak| peak["macs_per_s"].as_f64().unwrap() > 0.0));
    assert!(object["read_bytes_per_s"].as_f64().unwrap() > 0.0 && object["cores"].as_u64().unwrap() > 0);
    let told = place.run("kernels").ok().stdout;
    assert!(told.contains("scalar") && told.contains("G MAC/s") && told.contains("GB/s"), "{told}");
}
