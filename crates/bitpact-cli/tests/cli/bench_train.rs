//! `bench --train`.

use crate::Place;

#[test]
fn training_steps_are_measured_without_data() {
    let place = Place::new();
    let line = "bench --train cifar10-resnet20 --arch tiny.toml --batch-size 4 --seconds 0 --threads 2";
    for (flags, number) in [("", "f32"), (" --precision fp32 --bits W2A2", "f32"), (" --bits float", "f32")] {
        let object = place.run(&format!("{line}{flags} --json")).ok().json();
        let number_of = |key: &str| object[key].as_f64().unwrap_or_else(|| panic!("{key} of {object:?}"));
        assert_eq!((number_of("threads"), number_of("batch_size"), &object["input"]), (2.0, 4.0, &"32x32x3".into()));
        assert_eq!(object["precision"], "fp32");
        let rate = number_of("batch_size") / number_of("median_ms") * 1e3;
        assert!((number_of("images_per_s") / rate - 1.0).abs() < 1e-9);
        assert!(number_of("p10_ms") <= number_of("median_ms") && number_of("median_ms") <= number_of("p90_ms"));
        #[cfg(target_os = "linux")]
        assert!(number_of("peak_bytes") > 1e5);
        // The rows and the waits are the step; the layers are the passes.
        let rows = |key: &str| object[key].as_array().unwrap().clone();
        let sum =
            |rows: &[serde_json::Value], key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>();
        let (passes, layers) = (rows("passes"), rows("layers"));
        for key in ["ms", "share", "macs", "waiting_ms"] {
            assert!((sum(&passes, key) - sum(&layers, key)).abs() < 1e-6 * sum(&passes, key), "{key}");
        }
        let step = number_of("profiled_ms");
        assert!(sum(&passes, "ms") + number_of("waiting_ms") <= step * 1.000_001, "{object:?}");
        let busy = number_of("busy");
        assert!(busy > 0.0 && (busy - sum(&passes, "share")).abs() < 1e-6 && rows("busy_of_workers").len() == 2);
        for row in &passes {
            let is_product =
                ["forward product", "input gradient", "weight gradient"].contains(&row["pass"].as_str().unwrap());
            assert_eq!(row["percent_of_peak"].as_f64().is_some_and(|percent| percent > 0.0), is_product, "{row}");
        }
        let gradient = passes.iter().find(|row| row["pass"] == "weight gradient").unwrap();
        assert_eq!(gradient["number"], number);
    }
    let told = place.run(&format!("{line} --image-size 16 --layers")).code;
    assert_eq!(told, Some(2), "a network of one's own has its size");
    let told = place.run(&format!("{line} --layers")).ok().stdout;
    for part in ["tiny at W4A4, images of 32x32x3, batches of 4", "images/s", "peak memory", "busy", "conv2", "waits"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    for (line, parts) in [
        ("bench --train cifar10-resnet21", &["cifar10-resnet20"][..]),
        ("bench --train builtin --bits W9A1", &["--bits"]),
        ("bench --train builtin --threads 1,2", &["--threads", "one number"]),
        ("bench --train builtin --batch 4", &["--batch"]),
        ("bench --train builtin --all-kernels", &["--all-kernels"]),
        ("bench cnn --train builtin", &["--train"]),
        ("bench --train builtin --batch-size 0", &["--batch-size"]),
        ("bench cnn --layers", &["--train"]),
        ("bench cnn --batch-size 4", &["--batch-size", "--train"]),
        ("bench cnn --precision bf16", &["--precision", "--train"]),
        ("bench", &["MODEL"]),
    ] {
        place.run(line).failed(2, parts);
    }
}
