//! Checkpoints: exact round trips, bytes that depend on the value alone, and every kind of bad file.

mod common;

use std::collections::HashMap;

use bitpact_graph::FirstLast;
use bitpact_model::{Checkpoint, Tensor};
use common::{checkpoint, zoo_model};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

const NAME: &str = "some/where.safetensors";

fn error(bytes: &[u8]) -> String {
    let message = Checkpoint::from_bytes(bytes, NAME).unwrap_err().to_string();
    assert!(message.starts_with(NAME), "{message}");
    message
}

/// The metadata and tensors of a file, changed and written again.
fn rewrite(bytes: &[u8], change: impl Fn(&mut HashMap<String, String>, &mut Vec<(String, Tensor, Dtype)>)) -> Vec<u8> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let floats = |b: &[u8]| b.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let mut tensors: Vec<(String, Tensor, Dtype)> = file
        .iter()
        .map(|(n, v)| (n.to_owned(), Tensor { shape: v.shape().to_vec(), data: floats(v.data()) }, v.dtype()))
        .collect();
    let mut metadata = metadata.metadata().clone().unwrap_or_default();
    change(&mut metadata, &mut tensors);
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(_, t, _)| t.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views =
        tensors.iter().zip(&data).map(|((n, t, d), b)| (n.clone(), TensorView::new(*d, t.shape.clone(), b).unwrap()));
    safetensors::serialize(views, (!metadata.is_empty()).then_some(metadata)).unwrap()
}

#[test]
fn a_round_trip_keeps_every_bit() {
    let original = checkpoint();
    let bytes = original.to_bytes().unwrap();
    let back = Checkpoint::from_bytes(&bytes, NAME).unwrap();
    assert_eq!(back, original);
    for (name, tensor) in &original.model.tensors {
        let bits = |t: &Tensor| t.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(tensor), bits(&back.model.tensors[name]), "{name}");
    }
    assert_eq!(back.to_bytes().unwrap(), bytes);
    assert_eq!(checkpoint().to_bytes().unwrap(), bytes, "equal values give equal bytes");
    let bare = Checkpoint { training: None, note: None, ..original };
    assert_eq!(Checkpoint::from_bytes(&bare.to_bytes().unwrap(), NAME).unwrap(), bare);
}

/// Everything that an optimizer may keep; and a file from before there was more than momentum, whose checksum must
/// still hold.
#[test]
fn the_optimizers_state_is_kept_and_older_files_are_read() {
    let old = checkpoint();
    let text = String::from_utf8_lossy(&old.to_bytes().unwrap()).into_owned();
    assert!(!text.contains("optimizer_steps") && !text.contains("optimizer.raw"), "the header of older files");
    let mut full = old.clone();
    let training = full.training.as_mut().unwrap();
    training.optimizer_steps = 77;
    training.second_moment = training.momentum.clone();
    training.raw = full.model.tensors.clone();
    let bytes = full.to_bytes().unwrap();
    assert_eq!(Checkpoint::from_bytes(&bytes, NAME).unwrap(), full);
    let other_count = rewrite(&bytes, |metadata, _| {
        let text = metadata.get_mut("bitpact").unwrap();
        *text = text.replace("\"optimizer_steps\":77", "\"optimizer_steps\":78");
    });
    assert!(error(&other_count).contains("checksum"));
    let message = |change: fn(&mut bitpact_model::TrainingState)| {
        let mut bad = full.clone();
        change(bad.training.as_mut().unwrap());
        bad.to_bytes().unwrap_err().to_string()
    };
    let text = message(|t| drop(t.raw.remove("bn1.running_var")));
    assert!(text.contains("optimizer.raw.bn1.running_var") && text.contains("missing"), "{text}");
    let text = message(|t| t.second_moment.get_mut("linear.bias").unwrap().data[0] = f32::INFINITY);
    assert!(text.contains("optimizer.second_moment.linear.bias") && text.contains("finite"), "{text}");
}

#[test]
fn a_models_checksum_tells_models_apart_and_nothing_else() {
    let original = checkpoint();
    let sum = original.model.checksum().unwrap();
    let bare = Checkpoint { training: None, note: None, ..original.clone() };
    assert_eq!(Checkpoint::from_bytes(&bare.to_bytes().unwrap(), NAME).unwrap().model.checksum().unwrap(), sum);
    let mut other = original.model.clone();
    other.tensors.get_mut("linear.bias").unwrap().data[0] += 1.0;
    assert_ne!(other.checksum().unwrap(), sum);
    let mut other = original.model;
    other.input.zero_point[0] += 1;
    assert_ne!(other.checksum().unwrap(), sum);
}

#[test]
fn saving_is_atomic_and_the_same_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let original = checkpoint();
    original.save(&a).unwrap();
    original.save(&b).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_eq!(Checkpoint::load(&a).unwrap(), original);

    let mut invalid = checkpoint();
    invalid.model.tensors.remove("bn1.bias");
    let message = invalid.save(&a).unwrap_err().to_string();
    assert!(message.contains("a.safetensors") && message.contains("bn1.bias"), "{message}");
    assert_eq!(Checkpoint::load(&a).unwrap(), original, "the old file is untouched");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn float_networks_have_no_clip_values() {
    let model = zoo_model("cnn", 8, "float", FirstLast::Bits8);
    assert!(!model.tensors.keys().any(|name| name.ends_with("clip_val")));
    let checkpoint = Checkpoint { model, training: None, note: None };
    assert_eq!(Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap(), NAME).unwrap(), checkpoint);
}

#[test]
fn tensors_must_be_those_of_the_network() {
    type Change = fn(&mut Checkpoint);
    let cases: [(Change, &[&str]); 11] = [
        (|c| drop(c.model.tensors.remove("conv2.weight")), &["conv2.weight", "missing", "[16, 16, 3, 3]"]),
        (|c| drop(c.model.tensors.insert("stranger".into(), Tensor::full(&[2], 1.0))), &["stranger", "no such tensor"]),
        (|c| c.model.tensors.get_mut("linear.bias").unwrap().shape = vec![2, 2], &["linear.bias", "[2, 2]", "[4]"]),
        (|c| c.model.tensors.get_mut("linear.bias").unwrap().data.truncate(3), &["linear.bias", "3 values", "4"]),
        (|c| c.model.tensors.get_mut("bn2.weight").unwrap().data[7] = f32::NAN, &["bn2.weight", "value 7", "NaN"]),
        (|c| c.model.tensors.get_mut("bn2.running_var").unwrap().data[1] = -1.0, &["bn2.running_var", "-1", ">= 0"]),
        (|c| c.model.tensors.get_mut("act3.clip_val").unwrap().data[0] = 0.0, &["act3.clip_val", "> 0"]),
        (|c| drop(c.model.class_names.pop()), &["class names", "3 names", "4 classes"]),
        (|c| c.model.class_names[2].push('\x1b'), &["names", "\\u{1b}\", expected no control characters"]),
        (|c| c.note = Some("a\tb".to_owned()), &["note", "\"a\\tb\", expected no control characters"]),
        (|c| c.model.input.scale[1] = 0.0, &["input", "channel 1"]),
    ];
    for (change, words) in cases {
        let mut bad = checkpoint();
        bad.training = None;
        change(&mut bad);
        let message = bad.to_bytes().unwrap_err().to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{message}, expected {words:?}");
    }
    let mut bad = checkpoint();
    bad.training.as_mut().unwrap().momentum.insert("conv9.weight".into(), Tensor::full(&[1], 0.0));
    let message = bad.to_bytes().unwrap_err().to_string();
    assert!(message.contains("optimizer.momentum.conv9.weight"), "{message}");
}

#[test]
fn files_of_another_kind_version_or_network_say_so() {
    let bytes = checkpoint().to_bytes().unwrap();
    let plain = rewrite(&bytes, |metadata, _| metadata.clear());
    assert!(error(&plain).contains("not a bitpact checkpoint"), "{}", error(&plain));
    assert!(error(b"").contains("not a bitpact checkpoint"));
    assert!(error(b"BITPACT\n and more bytes than eight").contains("not a bitpact checkpoint"));
    let edit = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        rewrite(&bytes, move |metadata, _| {
            let text = metadata.get_mut("bitpact").unwrap();
            assert!(text.contains(&from), "{text}");
            *text = text.replace(&from, &to);
        })
    };
    assert!(error(&edit("\"version\":1", "\"version\":2")).contains("version 2"), "another version");
    assert!(error(&edit("\"version\":1", "\"versions\":1")).contains("version"), "no version");
    assert!(error(&edit("\"step\":12345", "\"step\":12346")).contains("checksum"), "another step");
    assert!(error(&edit("\"step\":12345", "\"step\":-1")).contains("metadata"), "a negative step");
    assert!(error(&edit("\"note\":", "\"notes\":")).contains("notes"), "an unknown field");
    assert!(error(&edit("\"kernel\":3", "\"kernel\":0")).contains("kernel"), "an impossible graph");
    let other_dtype = rewrite(&bytes, |_, tensors| tensors[0].2 = Dtype::I32);
    assert!(error(&other_dtype).contains("I32"), "integers");
    let hostile = rewrite(&bytes, |_, tensors| {
        tensors[0].0 = "\x1b[2J".to_owned();
        tensors[0].2 = Dtype::I32;
    });
    assert!(error(&hostile).ends_with(r"tensor `\u{1b}[2J`: I32, expected F32"), "{:?}", error(&hostile));
    let hostile = error(&edit("\"op\":\"act\"", "\"op\":\"\\u001bact\""));
    assert!(hostile.contains(r"\u{1b}act") && !hostile.contains('\x1b'), "{hostile:?}");
    let fewer = rewrite(&bytes, |_, tensors| drop(tensors.remove(3)));
    assert!(error(&fewer).contains("checksum"), "a tensor taken away");
}

#[test]
fn damaged_and_truncated_files_are_errors() {
    let bytes = checkpoint().to_bytes().unwrap();
    for (i, at) in (0..bytes.len()).step_by(97).enumerate() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (i % 8);
        error(&bad);
    }
    for length in (0..bytes.len()).step_by(1009).chain([7, 8, 9, bytes.len() - 1]) {
        error(&bytes[..length]);
    }
    let longer = [&bytes[..], &[0]].concat();
    error(&longer);
}

#[test]
fn paths_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("missing"), folder.path().to_owned()] {
        let message = Checkpoint::load(&path).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()) && message.contains("cannot read"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn numbers_of_the_header_survive(step in any::<u64>(), loss in any::<f64>(), scale in 1e-30f32..1e30, note in "\\PC*") {
        let mut original = checkpoint();
        let loss = if loss.is_finite() { loss } else { 0.1 };
        original.model.input.scale[0] = scale;
        original.note = Some(note);
        let training = original.training.as_mut().unwrap();
        training.step = step;
        training.progress = serde_json::json!({ "loss": loss });
        let back = Checkpoint::from_bytes(&original.to_bytes().unwrap(), NAME).unwrap();
        let read = back.training.as_ref().unwrap().progress["loss"].as_f64().unwrap();
        prop_assert_eq!(read.to_bits(), loss.to_bits());
        prop_assert_eq!(back.model.input.scale[0].to_bits(), scale.to_bits());
        prop_assert_eq!(back, original);
    }

    #[test]
    fn no_mutation_panics(seed in any::<u64>(), edits in 1usize..6) {
        let mut bytes = checkpoint().to_bytes().unwrap();
        let key = bitpact_core::rng::Key::new(seed);
        for edit in 0..edits as u64 {
            // Half of the edits in the header, where they do most.
            let range = if edit % 2 == 0 { 6000.min(bytes.len()) } else { bytes.len() };
            let at = key.below(3 * edit, range as u32) as usize;
            match key.below(3 * edit + 1, 3) {
                0 => bytes[at] = key.u64(3 * edit + 2) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, key.u64(3 * edit + 2) as u8),
            }
        }
        if let Ok(back) = Checkpoint::from_bytes(&bytes, NAME) {
            prop_assert_eq!(back, checkpoint());
        }
    }
}
