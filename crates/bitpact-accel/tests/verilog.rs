//! The Verilog against arithmetic and against the reference interpreter, and the committed areas against yosys.
//! Tests whose program is not installed say so and pass.

use bitpact_accel::Widths;
use bitpact_accel::area::{AreaTable, Matrix, Yosys, check_layer, is_installed, simulate};
use bitpact_core::rng::Key;
use bitpact_engine::Interpreter;
use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::{InputDescription, IntegerModel, Model, convert};

fn simulator() -> bool {
    let there = is_installed("iverilog");
    if !there {
        eprintln!("skipped: iverilog is not installed (Debian package iverilog)");
    }
    there
}

fn random(key: Key, rows: usize, columns: usize, least: i64, most: i64) -> Matrix {
    let value = |i: usize| least + (key.u64(i as u64) % (most - least + 1) as u64) as i64;
    Matrix { rows, columns, values: (0..rows * columns).map(value).collect() }
}

#[test]
fn the_array_multiplies_matrices_of_every_width() {
    if !simulator() {
        return;
    }
    let key = Key::new(1).with("verilog");
    // Sizes that leave edges of the array idle, and one with every value at its bound.
    for (bits, rows, columns, pixels, terms, outputs) in [
        ("W1A1", 3, 2, 7, 11, 5),
        ("W2A8", 2, 3, 5, 9, 4),
        ("W8A2", 1, 4, 3, 20, 6),
        ("W8A8", 4, 4, 4, 30, 4),
        ("W16A16", 2, 1, 3, 4, 2),
    ] {
        let widths: Widths = bits.parse().unwrap();
        let (a_max, w_min) = ((1i64 << widths.activations()) - 1, -(1i64 << (widths.weights() - 1)));
        for extreme in [false, true] {
            let a = random(key.with(bits), pixels, terms, if extreme { a_max } else { 0 }, a_max);
            let w = random(key.with(bits).with("w"), terms, outputs, w_min, if extreme { w_min } else { -w_min - 1 });
            let out = simulate(widths, rows, columns, &a, &w).unwrap();
            for i in 0..pixels {
                for j in 0..outputs {
                    let expected: i64 = (0..terms).map(|k| a.at(i, k) * w.at(k, j)).sum();
                    assert_eq!(out.at(i, j), expected, "{bits} {i} {j} {extreme}");
                }
            }
        }
    }
    let bad = random(key, 2, 2, 4, 4);
    let message = simulate("W2A2".parse().unwrap(), 2, 2, &bad, &bad).unwrap_err().to_string();
    assert!(message.contains("activation 4 is not an unsigned code of 2 bits"), "{message}");
}

fn converted(arch: &str, side: usize, bits: &str) -> IntegerModel {
    let graph = zoo::build(arch, Shape::new(side, side, 3), 10).unwrap().unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse().unwrap())).unwrap();
    let names = (0..10).map(|c| format!("class {c}")).collect();
    let model = Model::random(graph, plan, InputDescription::uniform(3, 128, 1.0 / 64.0), names, 3).unwrap();
    convert(&model).unwrap().model
}

#[test]
fn a_converted_layer_on_the_array_is_the_interpreters_to_the_last_code() {
    if !simulator() {
        return;
    }
    // Weights without zero at 2 bits with an identity shortcut, a projection, and the first and last layer at 8 bits.
    for (arch, side, bits, layers) in
        [("resnet20", 8, "W2A2", vec!["layer1.0.act2", "linear"]), ("resnet20-b", 8, "W4A4", vec!["layer3.0.act2"])]
    {
        let model = converted(arch, side, bits);
        let key = Key::new(5).with("pixels");
        let pixels: Vec<u8> = (0..side * side * 3).map(|i| key.u64(i as u64) as u8).collect();
        let tensors = Interpreter::new(&model).run(&pixels).tensors;
        for name in layers {
            let layer = model.layers.iter().position(|l| l.name == name).unwrap();
            let check = check_layer(&model, layer, &pixels, &tensors, 4, 8).unwrap();
            assert_eq!(check.values, model.layers[layer].shape.elements());
            assert_eq!(check.differing, 0, "{arch} {bits} {name}");
            // The comparison can fail.
            let mut wrong = tensors.clone();
            wrong[layer][3] += 1;
            let check = check_layer(&model, layer, &pixels, &wrong, 4, 8).unwrap();
            assert_eq!(check.differing, 1, "{arch} {bits} {name}");
        }
    }
}

#[test]
fn yosys_gives_the_committed_areas() {
    let Ok(yosys) = Yosys::find() else {
        eprintln!("skipped: yosys is not installed (Debian package yosys)");
        return;
    };
    let committed = AreaTable::committed();
    let same_version = committed.source.starts_with(&format!("yosys {}:", yosys.version()));
    for bits in ["W2A2", "W1A3"] {
        let widths: Widths = bits.parse().unwrap();
        let (ours, theirs) = (yosys.pair(widths).unwrap(), committed.get(widths).unwrap());
        assert_eq!(ours.accumulator_bits, theirs.accumulator_bits);
        if same_version {
            assert_eq!(&ours, theirs, "{bits}");
        } else {
            let ratio = ours.mac_transistors as f64 / theirs.mac_transistors as f64;
            assert!((0.7..1.4).contains(&ratio), "{bits}: {ratio} with yosys {}", yosys.version());
        }
    }
}
