//! `.bitpact` files: round trips, sizes, and every kind of hostile bytes.

mod common;

use bitpact_core::rng::Key;
use bitpact_core::{Bits, Grid, WeightQuant};
use bitpact_graph::{FirstLast, Shape, zoo};
use bitpact_model::{IntegerModel, IntegerTerm, IntegerView, convert};
use common::{config, everything, main, random, requant, small_integer, sum, sum_of, zoo_model};
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
fn every_op_term_end_move_and_window_survives() {
    let model = everything();
    model.check().unwrap();
    let bytes = model.to_bytes().unwrap();
    assert_eq!(bytes[8..12], [1, 0, 0, 0]);
    let back = IntegerModel::from_bytes(&bytes, NAME).unwrap();
    assert_eq!(back, model);
    assert_eq!(back.to_bytes().unwrap(), bytes);
}

#[test]
fn every_code_of_every_width_and_grid_survives() {
    for bits in Bits::all() {
        for grid in [Grid::WithZero, Grid::WithoutZero] {
            let mut model = small_integer();
            let main = main(&mut model, 1);
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
    assert!(error(&longer).contains("1 bytes follow the outputs"));
}

#[test]
fn other_kinds_and_versions_say_so() {
    let bytes = small_integer().to_bytes().unwrap();
    assert!(error(b"").contains("not a .bitpact file"));
    assert!(error(&[0x80; 64]).contains("not a .bitpact file"));
    let mut newer = bytes.clone();
    for other in [0, 2, 255] {
        newer[8] = other;
        let message = error(&newer);
        assert!(message.contains(&format!("version {other}: this program reads version 1")), "{message}");
    }
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
    assert!(message.contains("layer 0 `y") && message.ends_with("op: 9, expected 0 to 4"), "{message}");
    assert!(message.contains("[...]") && message.len() < 6000, "{message}");
}

#[test]
fn absurd_numbers_are_errors_before_memory_is_reserved() {
    let bytes = small_integer().to_bytes().unwrap();
    let header = 20 + 2 + 3;
    for (at, what) in
        [(header, "input"), (header + 4, "input"), (header + 8, "input"), (header + 13 + 3 * 5, "number of classes")]
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
fn flags_and_lengths_of_ops_are_checked() {
    let model = everything();
    let bytes = model.to_bytes().unwrap();
    for (i, layer) in model.layers.iter().enumerate() {
        let name = [&(layer.name.len() as u16).to_le_bytes(), layer.name.as_bytes(), &0.25f64.to_le_bytes()].concat();
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
        let place = format!("layer {i} `{}`, ", layer.name);
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at + 1] = 1 << bit;
            seal(&mut bad);
            let known = bit == 0 && matches!(layer.op, bitpact_model::IntegerOp::WindowSum { .. });
            let expected = match known {
                true => format!("{place}number of factors: "),
                false => format!("byte {}, {place}flags: {}, which op {} does not have", at + 1, 1 << bit, bytes[at]),
            };
            assert!(error(&bad).contains(&expected), "{}, expected {expected}", error(&bad));
        }
        let length = u64::from_le_bytes(bytes[at + 2..at + 10].try_into().unwrap());
        for other in [0, length - 1, length + 1, u64::from(u32::MAX), u64::MAX] {
            let mut bad = bytes.clone();
            bad[at + 2..at + 10].copy_from_slice(&other.to_le_bytes());
            seal(&mut bad);
            let message = error(&bad);
            assert!(message.contains(&format!("byte {}, {place}length of the op: {other}, but ", at + 2)), "{message}");
        }
    }
}

/// A file of little more than the weights of one channel announces many channels and terms.
#[test]
fn lists_that_no_weights_stand_for_are_written_in_full() {
    let mut model = everything();
    let terms = vec![IntegerTerm::Product(main(&mut model, 3).clone()), IntegerTerm::View(IntegerView::of(1))];
    let mut equal = sum(terms, 4, [0, 12]);
    equal.requant.mul = vec![vec![7; 4]; 2];
    sum_of(&mut model, 3).terms = equal.terms;
    sum_of(&mut model, 3).requant = equal.requant;
    let bytes = model.to_bytes().unwrap();
    assert!(IntegerModel::from_bytes(&bytes, NAME).unwrap() == model);
    let lists = [6, 0x81, 7, 1, 7, 7, 7, 7];
    let at = bytes.windows(8).position(|window| window == lists).expect("one list as a value, one in full");
    let mut bad = bytes.clone();
    bad.splice(at + 3..at + 8, [0x81, 7]);
    seal(&mut bad);
    assert!(error(&bad).contains("multipliers of term 1: values of 129 bytes"), "{}", error(&bad));
}

#[test]
fn codes_bounded_by_channel_are_written_read_and_checked() {
    let bounds: Vec<(i32, i32)> = (0..16).map(|c| (c % 4, 15 - c / 2)).collect();
    let streams = convert(&zoo_model("preact_resnet20", 8, "W2A4", FirstLast::Bits8)).unwrap().model;
    for plain in [small_integer(), streams] {
        let mut model = plain.clone();
        requant(&mut model).bounds = bounds.clone();
        let bytes = model.to_bytes().unwrap();
        let read = IntegerModel::from_bytes(&bytes, NAME).unwrap();
        assert!(read == model && read.to_bytes().unwrap() == bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sealed_mutation_panics(seed in any::<u64>(), edits in 1u64..8) {
        let model = if seed % 2 == 0 { everything() } else { small_integer() };
        let mut bytes = model.to_bytes().unwrap();
        let key = Key::new(seed);
        for edit in 0..edits {
            let key = key.at(edit);
            let at = 20 + key.below(0, bytes.len() as u32 - 24) as usize;
            // Weights fill most of the file of a converted network and mean little.
            let at = if edit % 2 == 0 && seed % 2 == 1 { 20 + at % 220 } else { at };
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
