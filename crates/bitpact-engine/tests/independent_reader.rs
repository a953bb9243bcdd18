//! A second opinion on whole networks: docs/read_bitpact.py, a Python program written from docs/format.md alone, has
//! evaluated the files of tests/independent/, and the interpreter must give its integers.
//!
//! The files were made with the example `random_model` and these arguments:
//!
//! | file | arguments |
//! |---|---|
//! | `cnn.bitpact` | `cnn W4A4 8bit 6` |
//! | `resnet20.bitpact` | `resnet20 W2A2 8bit 3` |
//! | `resnet20-b.bitpact` | `resnet20-b W3A5 float 3` |
//! | `corners.bitpact` | `corners - - 9` |
//! | `preact_resnet20.bitpact` | `preact_resnet20 W2A2 8bit 4` |
//! | `channels.bitpact` | `crates/bitpact-engine/tests/independent/pools-graph.json W3A3 8bit 6 channel` |
//! | `pools.bitpact` | `crates/bitpact-engine/tests/independent/pools-graph.json W3A3 8bit 5` |
//!
//! and `X.json` with `python docs/read_bitpact.py X.bitpact --golden X.json`: for 100 images made by a formula, a
//! CRC-32 a layer over its output codes, and the predicted classes.

use std::path::PathBuf;

use bitpact_engine::{ExecOptions, Executor, Interpreter, predict};
use bitpact_graph::Shape;
use bitpact_model::{IntegerModel, IntegerOp, IntegerTerm};
use serde_json::{Value, json};

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "independent", name].iter().collect()
}

/// The network of a file, which bitpact must write back byte by byte, and the Python program's results.
fn load(name: &str) -> (IntegerModel, Value) {
    let path = file(&format!("{name}.bitpact"));
    let bytes = std::fs::read(&path).unwrap();
    let model = IntegerModel::from_bytes(&bytes, &path).unwrap();
    assert_eq!(model.to_bytes().unwrap(), bytes, "{name} written again");
    let golden = std::fs::read_to_string(file(&format!("{name}.json"))).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let checksum = u32::from_le_bytes(*bytes.last_chunk().unwrap());
    assert_eq!(golden["checksum"], checksum, "{name}.json belongs to another file");
    (model, golden)
}

/// Image `i` of `formula_images` in docs/read_bitpact.py, where the formula is explained.
fn formula_image(Shape { h, w, c }: Shape, i: usize) -> Vec<u8> {
    let v = |n: usize| {
        let z = (n as u64 + 1).wrapping_mul(0x9E3779B97F4A7C15).wrapping_add(2024);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
        ((z ^ (z >> 31)) >> 56) as u8
    };
    let b = i % 4;
    let pixel = |at: usize| {
        let (y, x, channel) = (at / (w * c), at / c % w, at % c);
        match v(((i * h + (y >> b)) * w + (x >> b)) * c + channel) {
            v if i % 3 == 2 => v / 128 * 255,
            v => v,
        }
    };
    (0..h * w * c).map(pixel).collect()
}

/// What the Python program writes, as the interpreter has it.
fn results(model: &IntegerModel, checksum: &Value) -> Value {
    let interpreter = Interpreter::new(model);
    let mut crcs = vec![crc32fast::Hasher::new(); model.layers.len()];
    let (mut argmax, mut first_logits) = (Vec::new(), Vec::new());
    for i in 0..100 {
        let trace = interpreter.run(&formula_image(model.input_shape, i));
        for (crc, codes) in crcs.iter_mut().zip(&trace.tensors) {
            let bytes: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
            crc.update(&bytes);
        }
        argmax.push(predict(trace.logits()));
        if i == 0 {
            first_logits = trace.logits().to_vec();
        }
    }
    let crcs: Vec<(&str, u32)> =
        model.layers.iter().map(|l| l.name.as_str()).zip(crcs.into_iter().map(|c| c.finalize())).collect();
    json!({ "checksum": checksum, "crcs": crcs, "first_logits": first_logits, "argmax": argmax })
}

fn check(name: &str) {
    let (model, golden) = load(name);
    let results = results(&model, &golden["checksum"]);
    for (ours, theirs) in results["crcs"].as_array().unwrap().iter().zip(golden["crcs"].as_array().unwrap()) {
        assert_eq!(ours, theirs, "layer of {name}: interpreter, Python program");
    }
    assert_eq!(results, golden, "{name}: interpreter, Python program");
}

#[test]
fn cnn() {
    check("cnn");
}

#[test]
fn resnet20() {
    check("resnet20");
}

#[test]
fn resnet20_with_projections() {
    check("resnet20-b");
}

#[test]
fn corners() {
    check("corners");
    let (model, _) = load("corners");
    for isa in bitpact_kernels::testing::paths() {
        let mut executor = Executor::new(&model, ExecOptions { isa, threads: 1 }).unwrap();
        for i in 0..20 {
            let image = formula_image(model.input_shape, i);
            assert_eq!(executor.trace(&image), Interpreter::new(&model).run(&image), "{isa}, image {i}");
        }
    }
}

#[test]
fn pre_activation() {
    check("preact_resnet20");
}

/// Window sums of signed codes with padding, streams begun by codes, and both kinds of concatenation.
#[test]
fn pools_and_concatenations() {
    check("pools");
}

/// Codes bounded by channel, signed and unsigned, of products and of activations that read sums and streams.
#[test]
fn clip_values_of_channels() {
    check("channels");
}

#[test]
fn one_weight_flipped_is_seen() {
    let (mut model, golden) = load("cnn");
    let IntegerOp::Sum(sum) = &mut model.layers[3].op else { panic!("a sum") };
    let IntegerTerm::Product(product) = &mut sum.terms[0] else { panic!("a product") };
    assert_eq!(product.name, "conv3");
    product.codes[1000] = -product.codes[1000];
    let results = results(&model, &golden["checksum"]);
    for i in 0..model.layers.len() {
        assert_eq!(results["crcs"][i] == golden["crcs"][i], i < 3, "layer {i}");
    }
}
