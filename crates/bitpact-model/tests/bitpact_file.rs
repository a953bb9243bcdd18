//! `.bitpact` files: round trips, sizes, and every kind of hostile bytes.

mod common;

use bitpact_core::rng::Key;
use bitpact_core::{Bits, Grid, WeightQuant};
use bitpact_graph::{FirstLast, Shape, zoo};
use bitpact_model::{IntegerModel, IntegerOp, convert};
use common::{config, random, small_integer, zoo_model};
use proptest::prelude::*;

const NAME: &str = "some/where.bitpact";

fn error(bytes: &[u8]) -> String {
    let message = IntegerModel::from_bytes(bytes, NAME).unwrap_err().to_string();
    assert!(message.starts_with(NAME), "{message}");
    message
}

/// Writes length and checksum anew, so that what is tested lies behind them.
fn seal(bytes: &mut [u8]) {
    let length = bytes.len() as u64;
    bytes[12..20].copy_from_slice(&length.to_le_bytes());
    let body = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn networks_survive_the_file() {
    for (arch, side) in [("cnn", 8), ("resnet20", 8), ("resnet20-b", 8), ("resnet18", 32)] {
        for (bits, first_last) in [("W1A2", FirstLast::Same), ("W3A8", FirstLast::Float), ("W7A1", FirstLast::Bits8)] {
            let model = convert(&zoo_model(arch, side, bits, first_last)).unwrap().model;
            let bytes = model.to_bytes().unwrap();
            let back = IntegerModel::from_bytes(&bytes, NAME).unwrap();
            assert!(back == model, "{arch} {bits}");
            assert_eq!(back.to_bytes().unwrap(), bytes);
        }
    }
}

#[test]
fn every_code_of_every_width_and_grid_survives() {
    for bits in Bits::all() {
        for grid in [Grid::WithZero, Grid::WithoutZero] {
            let mut model = small_integer();
            let IntegerOp::Product { main, .. } = &mut model.layers[1].op else { panic!("a product") };
            (main.weight_bits, main.grid) = (bits.get(), grid);
            let codes: Vec<i16> = (-256i16..256).filter(|&q| grid.contains(q.into(), bits)).collect();
            main.codes.iter_mut().enumerate().for_each(|(i, q)| *q = codes[i % codes.len()]);
            let bytes = model.to_bytes().unwrap();
            assert!(IntegerModel::from_bytes(&bytes, NAME).unwrap() == model, "{bits} bits, {grid}");
        }
    }
}

#[test]
fn files_are_small() {
    let float_bytes = |model: &bitpact_model::Model| -> usize {
        let weights = |name: &str| !name.contains("running") && !name.contains("clip_val");
        model.tensors.iter().filter(|(name, _)| weights(name)).map(|(_, t)| 4 * t.data.len()).sum()
    };
    for (bits, ratio) in [("W2A2", 13.0), ("W4A4", 7.0)] {
        let graph = zoo::build("resnet20", Shape::new(32, 32, 3), 10).unwrap().unwrap();
        let model = random(graph, &config(bits, WeightQuant::Sawb, FirstLast::Bits8), 1);
        let bytes = convert(&model).unwrap().model.to_bytes().unwrap().len();
        assert!(bytes as f64 * ratio <= float_bytes(&model) as f64, "{bits}: {bytes} bytes");
    }
}

#[test]
fn saving_and_loading_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (model, path) = (small_integer(), folder.path().join("a.bitpact"));
    model.save(&path).unwrap();
    assert!(IntegerModel::load(&path).unwrap() == model);
    let bytes = std::fs::read(&path).unwrap();
    let mut invalid = model.clone();
    invalid.layers[2].scale = f64::NAN;
    assert!(invalid.save(&path).unwrap_err().to_string().contains("a.bitpact"));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    for bad in [folder.path().join("missing/a.bitpact"), path.join("a.bitpact")] {
        let message = model.save(&bad).unwrap_err().to_string();
        assert!(message.contains(bad.to_str().unwrap()), "{message}");
        let message = IntegerModel::load(&bad).unwrap_err().to_string();
        assert!(message.contains(bad.to_str().unwrap()) && message.contains("cannot read"), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn damaged_and_truncated_files_are_errors() {
    let bytes = small_integer().to_bytes().unwrap();
    for (i, at) in (0..bytes.len()).step_by(97).chain(0..32).enumerate() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (i % 8);
        error(&bad);
    }
    for length in (0..bytes.len()).step_by(97).chain(0..32) {
        let message = error(&bytes[..length]);
        assert!(message.contains(&format!("{length} bytes")), "{message}");
    }
    assert!(error(&[&bytes[..], &[0]].concat()).contains("length"));
}

#[test]
fn a_sealed_file_cut_short_names_byte_and_field() {
    let bytes = small_integer().to_bytes().unwrap();
    for length in (20..bytes.len() - 4).step_by(61).chain(20..300) {
        let mut bad = bytes[..length].to_vec();
        bad.extend([0; 4]);
        seal(&mut bad);
        let message = error(&bad);
        assert!(message.contains("byte ") && message.contains("left"), "cut at {length}: {message}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    seal(&mut longer);
    assert!(error(&longer).contains("1 bytes follow the last layer"));
}

#[test]
fn other_kinds_and_versions_say_so() {
    let bytes = small_integer().to_bytes().unwrap();
    assert!(error(b"").contains("not a .bitpact file"));
    assert!(error(&[0x80; 64]).contains("not a .bitpact file"));
    let mut newer = bytes.clone();
    for other in [1, 5] {
        newer[8] = other;
        let message = error(&newer);
        assert!(message.contains(&format!("version {other}: this program reads versions 2 to 4")), "{message}");
    }
    newer[8] = 3;
    seal(&mut newer);
    assert!(error(&newer).contains("version: 3, but its ops are those of version 2"), "{}", error(&newer));
    let mut damaged = bytes;
    damaged[100] ^= 4;
    assert!(error(&damaged).contains("checksum"));
}

#[test]
fn names_of_a_file_are_escaped_and_cut() {
    let mut bytes = small_integer().to_bytes().unwrap();
    let at = bytes.windows(4).position(|name| name == b"act1").unwrap();
    bytes[at] = 0x1b;
    seal(&mut bytes);
    let message = error(&bytes);
    assert!(message.contains(r#"names: "\u{1b}ct1", expected no control"#), "{message:?}");
    bytes[at + 4 + 8] = 9;
    seal(&mut bytes);
    let message = error(&bytes);
    assert!(message.contains(r"layer 0 `\u{1b}ct1`, op: 9") && !message.contains('\x1b'), "{message:?}");

    let mut model = small_integer();
    model.layers[0].name = "y\u{301}".repeat(1000);
    let mut bytes = model.to_bytes().unwrap();
    let at = bytes.windows(3).position(|name| name == "y\u{301}".as_bytes()).unwrap();
    bytes[at + 3000 + 8] = 9;
    seal(&mut bytes);
    let message = error(&bytes);
    assert!(message.contains("layer 0 `y") && message.ends_with("op: 9, expected 0 to 8"), "{message}");
    assert!(message.contains("[...]") && message.len() < 6000, "{message}");
}

#[test]
fn absurd_numbers_are_errors_before_memory_is_reserved() {
    let bytes = small_integer().to_bytes().unwrap();
    let header = 20 + 2 + 3;
    for (at, what) in
        [(header, "input"), (header + 4, "input"), (header + 8, "input"), (header + 12 + 3 * 5, "number of classes")]
    {
        for value in [0u32, 70_000, u32::MAX] {
            let mut bad = bytes.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            seal(&mut bad);
            let message = error(&bad);
            assert!(message.contains(what) || value == 0, "{message}, expected {what}");
        }
    }
    // Every aligned or unaligned u32 of the file, set to its largest value.
    for at in (20..bytes.len() - 8).filter(|at| at % 7 == 0 || *at < 400) {
        let mut bad = bytes.clone();
        bad[at..at + 4].copy_from_slice(&[255; 4]);
        seal(&mut bad);
        let _ = IntegerModel::from_bytes(&bad, NAME);
    }
}

#[test]
fn contradictions_are_named() {
    type Change = fn(&mut IntegerModel);
    fn main(model: &mut IntegerModel, layer: usize) -> &mut bitpact_model::IntegerProduct {
        match &mut model.layers[layer].op {
            IntegerOp::Product { main, .. } | IntegerOp::Logits { main, .. } => main,
            _ => panic!("no product"),
        }
    }
    fn step(model: &mut IntegerModel) -> &mut bitpact_core::IntegerStep {
        match &mut model.layers[1].op {
            IntegerOp::Product { step, .. } => step,
            _ => panic!("no product"),
        }
    }
    let cases: &[(Change, &str)] = &[
        (|m| m.layers.clear(), "layers: there are none"),
        (|m| drop(m.layers.pop()), "gives the logits"),
        (|m| m.layers[1].name = m.layers[0].name.clone(), "a name of its own"),
        (|m| m.layers[3].name.clear(), "a name of its own"),
        (|m| m.arch = "x".repeat(5000), "5000 bytes"),
        (|m| m.arch.push('\u{9b}'), r#"cnn\u{9b}", expected no control characters"#),
        (|m| m.layers[3].name.push('\x1b'), r#"act3\u{1b}", expected no"#),
        (|m| m.class_names[1].push('\n'), r#"\n", expected no"#),
        (|m| main(m, 1).name.insert(0, '\x7f'), r#""\u{7f}conv2", expected no"#),
        (|m| main(m, 1).input = 2, "reads tensor 2"),
        (|m| main(m, 1).input = usize::MAX, "reads tensor"),
        (|m| main(m, 1).input = 0, "reads 16 channels, but its input has 3"),
        (|m| main(m, 1).padding = 0, "`act2`: shape 8x8x16, but its inputs give 6x6x16"),
        (|m| main(m, 1).padding = 4000, "more than 67108864 elements"),
        (|m| main(m, 1).padding = usize::MAX, "padding"),
        (|m| main(m, 1).padding_code = 16, "`conv2` pads with code 16, expected 0 to 15"),
        (|m| main(m, 0).padding_code = 1, "`conv1` pads with code 1, expected 0 to 0"),
        (|m| main(m, 1).groups = 0, "`conv2`: 0 groups do not divide 16 input and 16 output channels"),
        (|m| main(m, 1).groups = 3, "3 groups"),
        (|m| main(m, 1).groups = 2, "2304 weights, expected [16, 8, 3, 3]"),
        (|m| main(m, 1).stride = 0, "stride 0"),
        (|m| main(m, 1).kernel = [0, 3], "kernel rows 0"),
        (|m| main(m, 1).kernel = [3, 30], "3x30 window with padding 1 does not fit"),
        (|m| main(m, 1).out_channels = 0, "0 output channels"),
        (|m| main(m, 1).out_channels = 17, "2304 weights"),
        (|m| main(m, 1).codes.truncate(2303), "2303 weights"),
        (|m| main(m, 1).codes[9] = 8, "weight 9 is 8"),
        (|m| main(m, 1).codes[9] = 0, "weight 9 is 0"),
        (|m| main(m, 0).codes[9] = -32_640, "weight 9 is -32640"),
        (|m| main(m, 0).grid = Grid::WithoutZero, "16-bit weights have a grid with zero"),
        (|m| main(m, 1).weight_bits = 9, "9 bits"),
        (|m| main(m, 1).weight_bits = 0, "0 bits"),
        (|m| main(m, 1).name.clear(), "without a name"),
        (|m| step(m).shift = 63, "63"),
        (|m| step(m).mul.truncate(15), "15 values of mul"),
        (|m| step(m).add.truncate(15), "add"),
        (|m| step(m).mul2 = vec![1; 16], "16 values of mul2, expected 0"),
        (|m| step(m).res_mul = vec![1; 16], "16 values of res_mul, expected 0"),
        (|m| step(m).add[3] = i64::MAX, "channel 3"),
        (|m| step(m).add[3] = i64::MIN, "channel 3"),
        (|m| step(m).hi = 256, "0 to 256"),
        (|m| step(m).lo = -1, "-1 to"),
        (|m| step(m).lo = 200, "200 to"),
        (|m| m.layers[1].hi = 16, "codes of 0 to 16"),
        (|m| m.layers[1].scale = f64::INFINITY, "scale inf"),
        (|m| m.layers[1].scale = 0.0, "scale 0"),
        (|m| m.input_shape = Shape::new(usize::MAX, 8, 3), "input shape"),
        (|m| m.input_shape = Shape::new(0, 8, 3), "input shape"),
        (|m| m.input.zero_point.push(0), "4 zero points"),
        (|m| m.class_names.push(String::new()), "5 names"),
        (
            |m| m.layers[2].op = IntegerOp::MaxPool { input: 0, kernel: 2, stride: 2, padding: 0 },
            "only a product can read the image",
        ),
        (
            |m| m.layers[2].op = IntegerOp::MaxPool { input: 2, kernel: 2, stride: 2, padding: 2 },
            "padding 2, expected less",
        ),
        (
            |m| m.layers[2].op = IntegerOp::MaxPool { input: 1, kernel: 2, stride: 2, padding: 0 },
            "no layer reads its output",
        ),
    ];
    small_integer().check().unwrap();
    for (change, words) in cases {
        let mut model = small_integer();
        change(&mut model);
        let message = model.check().unwrap_err().to_string();
        assert!(message.contains(words), "{message}, expected {words}");
        assert!(model.to_bytes().is_err());
    }
}

/// The ops of version 3.
#[test]
fn contradictions_of_streams_are_named() {
    type Change = fn(&mut IntegerModel);
    let good = convert(&zoo_model("preact_resnet20", 8, "W2A3", FirstLast::Bits8)).unwrap().model;
    assert_eq!(good.to_bytes().unwrap()[8], 3);
    // Layers: conv1, layer1.0.act1, layer1.0.act2, layer1.0.add.
    fn stream(m: &mut IntegerModel) -> (&mut bitpact_core::IntegerStep, &mut i32, &mut usize) {
        match &mut m.layers[3].op {
            IntegerOp::Stream { step, res_mul, main, .. } => (step, res_mul, &mut main.input),
            _ => panic!("no stream"),
        }
    }
    fn act(m: &mut IntegerModel) -> (&mut bitpact_core::IntegerStep, &mut usize) {
        match &mut m.layers[1].op {
            IntegerOp::Act { step, input } => (step, input),
            _ => panic!("no activation"),
        }
    }
    let cases: &[(Change, &str)] = &[
        (|m| stream(m).0.hi = 255, "a stream is not clamped"),
        (|m| stream(m).0.res_mul = vec![1; 16], "16 values of res_mul, expected 0"),
        (|m| stream(m).0.mul.truncate(3), "3 values of mul"),
        (|m| stream(m).0.add.truncate(3), "3 values of add"),
        (|m| stream(m).0.shift = 0, "expected values of 32 bits"),
        (|m| *stream(m).1 = i32::MAX, "expected values of 32 bits"),
        (|m| *stream(m).1 = 2, "`layer1.0.add`: codes of"),
        (|m| *stream(m).2 = 1, "reads a residual stream, which only an activation can"),
        (|m| m.layers[3].lo += 1, "but its inputs give"),
        (|m| act(m).0.hi = 256, "0 to 256"),
        (|m| act(m).0.shift = 63, "63"),
        (|m| act(m).0.mul.truncate(15), "15 values of mul"),
        (|m| act(m).0.mul2 = vec![0; 16], "16 values of mul2, expected 0"),
        (|m| act(m).0.add[3] = i64::MAX, "channel 3"),
        (|m| *act(m).1 = 0, "an activation reads a residual stream or sums of codes"),
        (|m| m.layers[2].op = IntegerOp::Concat { inputs: vec![2] }, "1 inputs of a concatenation"),
        (|m| m.layers[2].op = IntegerOp::Concat { inputs: vec![2, 1] }, "codes alone or streams alone"),
        (|m| m.layers[2].op = IntegerOp::Concat { inputs: vec![0, 2] }, "codes alone or streams alone"),
        (
            |m| m.layers[2].op = IntegerOp::MaxPool { input: 1, kernel: 1, stride: 1, padding: 0 },
            "only an activation can read",
        ),
        (
            |m| m.layers[2].op = IntegerOp::WindowSum { input: 2, kernel: 2, stride: 1, padding: 2, padding_code: 0 },
            "padding 2, expected less",
        ),
        (
            |m| m.layers[2].op = IntegerOp::WindowSum { input: 2, kernel: 2, stride: 1, padding: 1, padding_code: 9 },
            "padding code 9, expected 0 to 7",
        ),
    ];
    good.check().unwrap();
    for (change, words) in cases {
        let mut model = good.clone();
        change(&mut model);
        let message = model.check().unwrap_err().to_string();
        assert!(message.contains(words), "{message}, expected {words}");
    }
}

/// Version 4.
#[test]
fn codes_bounded_by_channel_are_written_read_and_checked() {
    fn step(model: &mut IntegerModel, layer: usize) -> &mut bitpact_core::IntegerStep {
        match &mut model.layers[layer].op {
            IntegerOp::Product { step, .. } | IntegerOp::Act { step, .. } => step,
            _ => panic!("no codes"),
        }
    }
    let bounds: Vec<(i32, i32)> = (0..16).map(|c| (c % 4, 15 - c / 2)).collect();
    let streams = convert(&zoo_model("preact_resnet20", 8, "W2A4", FirstLast::Bits8)).unwrap().model;
    for (plain, layer) in [(small_integer(), 1), (streams, 1)] {
        let mut model = plain.clone();
        step(&mut model, layer).bounds = bounds.clone();
        let bytes = model.to_bytes().unwrap();
        assert_eq!(bytes[8], 4);
        let read = IntegerModel::from_bytes(&bytes, NAME).unwrap();
        assert!(read == model && read.to_bytes().unwrap() == bytes);
        let mut older = bytes;
        older[8] = 3;
        seal(&mut older);
        assert!(error(&older).contains("version: 3, but its ops are those of version 4"), "{}", error(&older));
        type Change = fn(&mut Vec<(i32, i32)>);
        let cases: &[(Change, &str)] = &[
            (|b| b.truncate(15), "bounds has 15 entries"),
            (|b| b[3] = (9, 8), "channel 3: empty range 9..=8"),
            (|b| b[3] = (0, 16), "but its channels have 0 to 16"),
            (|b| b[3] = (-1, 5), "but its channels have -1 to 15"),
            (|b| b.iter_mut().for_each(|b| b.1 = b.1.min(14)), "but its channels have 0 to 14"),
            (|b| b.fill((0, 15)), "the same codes for every channel"),
        ];
        for (change, words) in cases {
            let mut model = model.clone();
            change(&mut step(&mut model, layer).bounds);
            let message = model.check().unwrap_err().to_string();
            assert!(message.contains(words), "{message}, expected {words}");
        }
    }
    let mut stream = convert(&zoo_model("preact_resnet20", 8, "W2A4", FirstLast::Bits8)).unwrap().model;
    let IntegerOp::Stream { step, .. } = &mut stream.layers[3].op else { panic!("a stream") };
    step.bounds = vec![(0, 15); step.mul.len()];
    assert!(stream.check().unwrap_err().to_string().contains("a stream is not clamped"));
}

#[test]
fn channels_that_a_shortcut_fills_count_in_the_proof_like_the_others() {
    let mut model = convert(&zoo_model("resnet20", 8, "W2A2", FirstLast::Bits8)).unwrap().model;
    let filling = model.layers.iter().position(
        |layer| matches!(layer.op, IntegerOp::Product { residual: Some(residual), .. } if residual.pad_before > 0),
    );
    for (add, fits) in [(i64::MAX - 3, true), (i64::MAX - 2, false), (3 - i64::MAX, true), (2 - i64::MAX, false)] {
        let IntegerOp::Product { step, .. } = &mut model.layers[filling.unwrap()].op else { panic!("a product") };
        (step.mul[0], step.res_mul[0], step.add[0]) = (0, 1, add);
        assert_eq!(model.check().is_ok(), fits, "{add}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sealed_mutation_panics(seed in any::<u64>(), edits in 1u64..8) {
        let mut model = small_integer();
        if let (true, IntegerOp::Product { step, .. }) = (seed % 2 == 0, &mut model.layers[0].op) {
            step.bounds = (0..16).map(|c| (0, 15 - c % 3)).collect();
        }
        let mut bytes = model.to_bytes().unwrap();
        let key = Key::new(seed);
        for edit in 0..edits {
            let key = key.at(edit);
            let at = 20 + key.below(0, bytes.len() as u32 - 24) as usize;
            // Weights fill most of the file and mean little; look for a byte outside of them now and then.
            let at = if edit % 2 == 0 { 20 + at % 220 } else { at };
            match key.below(1, 4) {
                0 => bytes[at] = key.u64(2) as u8,
                1 => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff][key.below(2, 6) as usize],
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, key.u64(2) as u8),
            }
        }
        seal(&mut bytes);
        if let Ok(model) = IntegerModel::from_bytes(&bytes, NAME) {
            prop_assert!(model.to_bytes().unwrap() == bytes, "what is read is written again");
        }
    }
}
