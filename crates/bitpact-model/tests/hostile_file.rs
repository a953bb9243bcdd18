//! Hostile `.bitpact` files behind a right checksum: every field of a file with every kind of layer changed in every way,
//! and random mutations. Nothing panics, nothing reserves memory beyond a multiple of the file's size, and what is accepted
//! is written again byte by byte.
//!
//! Fields are found by cutting the file short: the error names the field that no longer fits and where it begins.

mod common;

use std::cell::Cell;

use bitpact_core::rng::Key;
use bitpact_graph::{FirstLast, Graph};
use bitpact_model::{IntegerModel, convert};
use common::{config, random};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of magic, version and length, and of the checksum.
const HEADER: usize = 20;
const CHECKSUM: usize = 4;

/// A network of a few hundred weights with every kind of layer.
const GRAPH: &str = r#"{ "name": "all", "nodes": [
    { "name": "image", "op": "input", "height": 8, "width": 6, "channels": 2 },
    { "name": "conv1", "op": "conv", "out_channels": 3, "kernel": 3, "padding": 1 },
    { "name": "bn1", "op": "batch_norm" },
    { "name": "act1", "op": "act" },
    { "name": "pool1", "op": "max_pool", "kernel": 2, "stride": 1, "padding": 1 },
    { "name": "conv2", "op": "conv", "out_channels": 5, "kernel": 3, "stride": 2, "padding": 1 },
    { "name": "bn2", "op": "batch_norm" },
    { "name": "short2", "op": "subsample", "stride": 2, "pad_before": 1, "pad_after": 1, "inputs": ["pool1"] },
    { "name": "add2", "op": "add", "inputs": ["bn2", "short2"] },
    { "name": "act2", "op": "act" },
    { "name": "conv25", "op": "conv", "out_channels": 3, "kernel": 1 },
    { "name": "act25", "op": "act" },
    { "name": "conv3", "op": "conv", "out_channels": 4, "kernel": 3, "padding": 1 },
    { "name": "bn3", "op": "batch_norm" },
    { "name": "downsample.0", "op": "conv", "out_channels": 4, "kernel": 1, "inputs": ["act2"] },
    { "name": "bnp3", "op": "batch_norm" },
    { "name": "add3", "op": "add", "inputs": ["bn3", "bnp3"] },
    { "name": "act3", "op": "act" },
    { "name": "mean", "op": "global_avg_pool" },
    { "name": "linear", "op": "linear", "out_features": 3 } ] }"#;

/// The same for the ops of version 3.
const STREAMS: &str = r#"{ "name": "streams", "nodes": [
    { "name": "image", "op": "input", "height": 6, "width": 5, "channels": 2 },
    { "name": "conv1", "op": "conv", "out_channels": 3, "kernel": 3, "padding": 1 },
    { "name": "bn1", "op": "batch_norm" },
    { "name": "act1", "op": "act" },
    { "name": "conv2", "op": "conv", "out_channels": 3, "kernel": 1 },
    { "name": "add2", "op": "add", "inputs": ["conv2", "conv1"] },
    { "name": "bn2", "op": "batch_norm" },
    { "name": "act2", "op": "act", "signed": true },
    { "name": "mean2", "op": "avg_pool", "kernel": 2, "stride": 2, "padding": 1 },
    { "name": "conv3", "op": "conv", "out_channels": 4, "kernel": 1 },
    { "name": "act3", "op": "act" },
    { "name": "conv4", "op": "conv", "out_channels": 5, "kernel": 1, "inputs": ["mean2"] },
    { "name": "act4", "op": "act" },
    { "name": "cat", "op": "concat", "inputs": ["act3", "act4"] },
    { "name": "linear", "op": "linear", "out_features": 3 } ] }"#;

fn file(graph: &str, bits: &str, first_last: FirstLast) -> Vec<u8> {
    let graph: Graph = serde_json::from_str(graph).unwrap();
    let model = random(graph, &config(bits, bitpact_core::WeightQuant::Dorefa, first_last), 3);
    convert(&model).unwrap().model.to_bytes().unwrap()
}

/// Closes a body: length and checksum as they should be.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    let length = (bytes.len() + CHECKSUM) as u64;
    bytes[12..HEADER].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// Name and place of every field between header and checksum.
fn fields(body: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut starts: Vec<(usize, String)> = Vec::new();
    for length in HEADER..body.len() {
        let message = IntegerModel::from_bytes(&sealed(&body[..length]), "f").unwrap_err().to_string();
        let field = message.strip_prefix("f: byte ").and_then(|rest| rest.split_once(", "));
        let (offset, rest) = field.unwrap_or_else(|| panic!("cut at {length}: {message}"));
        let name = rest.split_once(": ").map_or(rest, |(name, _)| name);
        let start = (offset.parse().unwrap(), name.to_owned());
        if starts.last().is_none_or(|last| last.0 != start.0) {
            starts.push(start);
        }
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(at, _)| *at).chain([body.len()]).collect();
    let found = starts.into_iter().zip(ends).map(|((at, name), end)| (name, at..end));
    // A count that promises more than is left hides the first fields behind it; their bytes count as fields of their own.
    let split = |(name, place): (String, std::ops::Range<usize>)| {
        let own = if name.starts_with("number of") { place.start + 4 } else { place.end };
        let rest = (own..place.end).map(|at| (format!("behind the {name}"), at..at + 1));
        std::iter::once((name.clone(), place.start..own)).chain(rest.collect::<Vec<_>>())
    };
    found.flat_map(split).collect()
}

thread_local! {
    static ACCEPTED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Reads a body behind a right checksum.
#[track_caller]
fn read(body: &[u8], what: &str) -> Option<IntegerModel> {
    let bytes = sealed(body);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let read = IntegerModel::from_bytes(&bytes, "hostile.bitpact");
    let reserved = MEMORY.peak_usage().saturating_sub(before);
    assert!(reserved <= (64 << 10) + 512 * bytes.len(), "{what}: {reserved} bytes for a file of {}", bytes.len());
    let (accepted, refused) = ACCEPTED.get();
    match read {
        Ok(model) => {
            ACCEPTED.set((accepted + 1, refused));
            assert!(model.to_bytes().unwrap() == bytes, "{what}: what is read is not what is written");
            Some(model)
        }
        Err(error) => {
            ACCEPTED.set((accepted, refused + 1));
            let message = error.to_string();
            assert!(message.starts_with("hostile.bitpact: ") && message.len() < 8192, "{what}: {message}");
            None
        }
    }
}

/// One test, because memory is counted for the whole process.
#[test]
fn hostile_files() {
    let mut seen: Vec<String> = Vec::new();
    for (graph, bits, first_last) in
        [(GRAPH, "W3A4", FirstLast::Float), (GRAPH, "W1A2", FirstLast::Same), (STREAMS, "W2A3", FirstLast::Bits8)]
    {
        let bytes = file(graph, bits, first_last);
        let body = &bytes[..bytes.len() - CHECKSUM];
        assert!(read(body, "the file itself").is_some());
        let fields = fields(body);
        seen.extend(fields.iter().map(|(name, _)| name.clone()));
        for (name, place) in &fields {
            truncated_and_enlarged(body, name, place.clone());
            other_values(body, name, place.clone());
        }
        cycles(body, &fields);
        mutations(body, &fields);
    }
    for words in ["arch", "input height", "zero points", "number of classes", "class name 2", "layer 3, name"] {
        assert!(seen.iter().any(|name| name.starts_with(words)), "no field {words}");
    }
    for words in [
        "scale",
        "op",
        "flags",
        "input",
        "output channels",
        "weight bits",
        "grid",
        "weights",
        "shift",
        "lo",
        "mul",
        "mul2",
        "res_mul",
        "add",
        "kernel",
        "stride",
        "padding",
        "channels before the shortcut",
        "number of inputs",
        "padding code",
    ] {
        assert!(seen.iter().any(|name| name.ends_with(&format!("`, {words}"))), "no field {words}");
    }
    let (accepted, refused) = ACCEPTED.get();
    assert!(accepted > 500 && refused > 5000, "{accepted} accepted, {refused} refused");
}

/// The field's bytes are missing, in part or whole, or there are more of them.
fn truncated_and_enlarged(body: &[u8], name: &str, place: std::ops::Range<usize>) {
    let mut shorter = body.to_vec();
    shorter.remove(place.start);
    read(&shorter, name);
    let without = [&body[..place.start], &body[place.end..]].concat();
    read(&without, name);
    for more in [&body[place.clone()], &[0], &[255; 9]] {
        read(&[&body[..place.end], more, &body[place.end..]].concat(), name);
    }
    read(&body[..place.end], name);
}

fn other_values(body: &[u8], name: &str, place: std::ops::Range<usize>) {
    let with = |bytes: &[u8]| {
        let mut bad = body.to_vec();
        bad[place.start..place.start + bytes.len()].copy_from_slice(bytes);
        read(&bad, name);
    };
    let length = place.len();
    for byte in [0, 1, 0x7f, 0x80, 0xff] {
        with(&vec![byte; length]);
        with(&[byte]);
    }
    if length == 4 {
        for value in (0..12).chain([255, 256, 32_768, 32_769, 65_536, 65_537, 1 << 26, i32::MAX as u32, u32::MAX - 1]) {
            with(&u32::to_le_bytes(value));
        }
    }
    if length == 8 {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1e300] {
            with(&f64::to_le_bytes(value));
        }
    }
}

/// Layers that read their own output, later ones, or each other.
fn cycles(body: &[u8], fields: &[(String, std::ops::Range<usize>)]) {
    let inputs = fields.iter().filter(|(name, _)| name.ends_with("`, input"));
    for (name, place) in inputs {
        let layer: u32 = name.strip_prefix("layer ").unwrap().split(' ').next().unwrap().parse().unwrap();
        for tensor in [layer + 1, layer + 2, 1000, u32::MAX] {
            let mut bad = body.to_vec();
            bad[place.clone()].copy_from_slice(&tensor.to_le_bytes());
            let message = IntegerModel::from_bytes(&sealed(&bad), "f").unwrap_err().to_string();
            assert!(message.contains(&format!("tensor {tensor}, but only 0 to {layer} exist")), "{message}");
        }
    }
}

/// A few edits at once, most of them at the beginning of fields.
fn mutations(body: &[u8], fields: &[(String, std::ops::Range<usize>)]) {
    for seed in 0..6000 {
        let key = Key::new(seed).with("mutation");
        let mut bytes = body.to_vec();
        for edit in 0..1 + u64::from(key.below(0, 3)) {
            let key = key.at(edit);
            let field = fields[key.below(0, fields.len() as u32) as usize].1.clone();
            let at = field.start + if key.below(1, 3) == 0 { key.below(2, field.len() as u32) as usize } else { 0 };
            let at = at.min(bytes.len() - 1);
            match key.below(3, 6) {
                0 => bytes[at] ^= 1 << key.below(4, 8),
                1 => bytes[at] = bytes[at].wrapping_add(1),
                2 => bytes[at] = key.u64(5) as u8,
                3 => drop(bytes.remove(at)),
                4 => bytes.insert(at, key.u64(5) as u8),
                _ => {
                    // A field of elsewhere.
                    let other = fields[key.below(6, fields.len() as u32) as usize].1.clone();
                    let taken = other.start..other.end.min(other.start + bytes.len() - at);
                    bytes[at..at + taken.len()].copy_from_slice(&body[taken]);
                }
            }
        }
        read(&bytes, &format!("mutation {seed}"));
    }
}
