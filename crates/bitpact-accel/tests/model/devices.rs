//! Devices: those that are built in, and those that cannot be.

use std::collections::BTreeSet;

use bitpact_accel::{AccelError, DEVICE_NAMES, Estimate, compare};

use super::*;

#[test]
fn every_constant_of_a_built_in_device_names_its_source() {
    for name in DEVICE_NAMES {
        let device = Device::open(name).unwrap();
        assert_eq!(device.name, name);
        let text = std::fs::read_to_string(format!("{}/devices/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let mut keys = BTreeSet::new();
        let mut prefix = String::new();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            if let Some(table) = line.strip_prefix('[') {
                prefix = format!("{}.", table.trim_end_matches(']'));
            } else if let Some((key, _)) = line.split_once(" = ") {
                keys.insert(format!("{prefix}{key}"));
            }
        }
        for key in keys.iter().filter(|k| !k.starts_with("sources.") && !["name", "summary"].contains(&k.as_str())) {
            assert!(device.sources.contains_key(key), "{name}: no source for {key}");
        }
    }
}

#[test]
fn the_papers_machines_have_the_papers_peaks() {
    for (name, tera) in [("pact-16", 4.096), ("pact-8", 8.192), ("pact-4", 16.384), ("pact-2", 32.768)] {
        assert!((Device::open(name).unwrap().peak_macs_per_s() / 1e12 - tera).abs() < 1e-9, "{name}");
    }
}

#[test]
fn impossible_devices_are_refused_with_the_constant_at_fault() {
    let change = |from: &str, to: &str| {
        assert!(TOY.contains(from), "{from}");
        Device::parse(&TOY.replace(from, to), "toy.toml").unwrap_err().to_string()
    };
    for (from, to, expected) in [
        ("cores = 4", "cores = 0", "device `toy`: cores = 0, expected 1 to 65536"),
        ("rows = 2", "rows = 0", "rows = 0, expected 1 to 65536"),
        ("columns = 4", "columns = 70000", "columns = 70000, expected 1 to 65536"),
        ("columns = 4", "columns = 4\nlanes = 0", "lanes = 0, expected 1 to 65536"),
        ("frequency_ghz = 1.0", "frequency_ghz = 0.0", "frequency_ghz = 0, expected a positive number"),
        ("frequency_ghz = 1.0", "frequency_ghz = nan", "frequency_ghz = NaN, expected a positive number"),
        (
            "bandwidth_gbps = 1.0",
            "bandwidth_gbps = -3.0",
            "bandwidth_gbps = -3, expected a positive number, or nothing",
        ),
        ("bandwidth_gbps = 1.0", "bandwidth_gbps = inf", "bandwidth_gbps = inf, expected a positive number"),
        ("activation_bits = 4", "activation_bits = 17", "activation_bits = 17, expected 1 to 16"),
        ("weight_bits = 4", "weight_bits = 0", "weight_bits = 0, expected 1 to 16"),
        ("on_chip_kib = 1024", "on_chip_kib = 0", "on_chip_kib = 0, expected 1 to 2^30"),
        ("activation_buffers = 1", "activation_buffers = 0", "activation_buffers = 0, expected 1 to 16"),
        ("activation_buffers = 1", "activation_buffers = 1\nefficiency = 1.5", "efficiency = 1.5, expected above 0"),
        ("activation_buffers = 1", "activation_buffers = 1\nlayer_overhead_us = -1.0", "layer_overhead_us = -1"),
        ("activation_buffers = 1", "activation_buffers = 1\n[sources]\nspeed = \"?\"", "[sources] names `speed`"),
        ("cores = 4", "cores = -4", "toy.toml: TOML parse error at line 5"),
        ("cores = 4", "", "missing field `cores`"),
        ("cores = 4", "cores = 4\nfans = 2", "unknown field `fans`"),
        ("weight-stationary", "row-stationary", "unknown variant `row-stationary`"),
    ] {
        let message = change(from, to);
        assert!(message.contains(expected), "{to}: {message}");
    }
    let energy = "activation_buffers = 1\n[energy]\nmultiply_pj_per_bit2 = -1.0\nadd_pj_per_bit = 1.0\non_chip_pj_per_byte = 1.0\nlocal_pj_per_byte = 1.0\nexternal_pj_per_byte = 1.0";
    assert!(change("activation_buffers = 1", energy).contains("energy.multiply_pj_per_bit2 = -1"));
    let missing = Device::open("pact-3").unwrap_err().to_string();
    assert!(
        missing.contains("`pact-3` is neither a built-in device nor a file") && missing.contains("pact-16"),
        "{missing}"
    );
    let negative = toy().with_bandwidth(Some(-1.0)).unwrap_err().to_string();
    assert!(negative.contains("bandwidth_gbps = -1"), "{negative}");
}

#[test]
fn layers_that_cannot_be_mapped_are_named() {
    let refuses = Device { wider: bitpact_accel::Wider::Refuse, ..toy() };
    let work = workload("cnn", "W4A4");
    let message = Estimate::new(&refuses, &work, 1).unwrap_err().to_string();
    assert!(message.contains("layer `conv1` needs W8A8, the units of device `toy` are W4A4"), "{message}");
    // Two tiles of 4 cores of 64x64 weights of 4 bits: 16 KiB.
    let tiny = Device { rows: 64, columns: 64, on_chip_kib: 1, ..toy() };
    let message = Estimate::new(&tiny, &work, 1).unwrap_err().to_string();
    assert!(
        message.contains("cannot be mapped: two tiles of weights take") && message.contains("1024 on chip"),
        "{message}"
    );
    for batch in [0, 65_537] {
        assert!(matches!(Estimate::new(&toy(), &work, batch), Err(AccelError::Batch { got }) if got == batch));
    }
}

#[test]
fn measured_times_are_matched_by_layer_or_step() {
    let work = workload("resnet20-b", "W4A4");
    let estimate = Estimate::new(&Device::open("this-cpu").unwrap(), &work, 1).unwrap();
    let ms = |name: &str| estimate.layers.iter().find(|l| l.name == name).unwrap().time_s * 1e3;
    let text = format!(
        r#"{{"device": "x", "layers": [
            {{"name": "conv1", "ms": {}, "macs": 442368}},
            {{"name": "layer2.0.act2", "ms": {}, "isa": "avx2"}},
            {{"name": "avgpool", "ms": 0.001, "macs": 0}}]}}"#,
        2.0 * ms("conv1"),
        ms("layer2.0.conv2") + ms("layer2.0.shortcut.0"),
    );
    let comparison = compare(&estimate, &text, "bench.json").unwrap();
    assert_eq!(comparison.layers.len(), 2);
    assert!((comparison.layers[0].error + 0.5).abs() < 1e-12);
    assert!(comparison.layers[1].error.abs() < 1e-12, "a step is the sum of its products");
    assert!((comparison.mean_absolute_error - 0.25).abs() < 1e-12);
    assert_eq!(comparison.not_predicted, ["avgpool"]);
    for (bad, expected) in [
        ("", "bench.json: expected an object with an array `layers`"),
        (r#"{"layers": []}"#, "no layer of the network"),
        (r#"{"layers": [{"name": "conv9", "ms": 1, "macs": 5}]}"#, "layer `conv9`: the network has no such layer"),
        (r#"{"layers": [{"name": "conv1", "ms": 0}]}"#, "layer `conv1`: ms = 0"),
        (r#"{"layers": [{"name": "conv1", "ms": 1, "macs": 7}]}"#, "layer `conv1`: macs = 7, the network has 442368"),
    ] {
        let message = compare(&estimate, bad, "bench.json").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
