//! Hostile `.bitpact` files behind a right checksum: every field of files with every op, term and end changed in every
//! way, and random mutations. Nothing panics, nothing reserves memory beyond a multiple of the file's size, and what is
//! accepted is written again byte by byte.
//!
//! Fields are found by cutting the file short: the error names the field that no longer fits and where it begins.

mod common;

use std::cell::Cell;
use std::ops::Range;

use bitpact_core::rng::Key;
use bitpact_graph::{FirstLast, Graph};
use bitpact_model::{IntegerModel, convert};
use common::{config, everything, random};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of magic, version and length, and of the checksum.
const HEADER: usize = 20;
const CHECKSUM: usize = 4;

/// Fields that are checked against what is left.
const COUNTS: [&str; 5] =
    ["number of classes", "number of layers", "number of inputs", "number of tables", "number of outputs"];

/// A network of a few hundred weights, to be converted.
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

fn converted(bits: &str, first_last: FirstLast) -> Vec<u8> {
    let graph: Graph = serde_json::from_str(GRAPH).unwrap();
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

/// Name and place of every field between header and checksum, and where the lengths of ops are.
struct File<'a> {
    body: &'a [u8],
    fields: Vec<(String, Range<usize>)>,
    lengths: Vec<usize>,
}

impl<'a> File<'a> {
    fn new(body: &'a [u8]) -> Self {
        let mut starts: Vec<(usize, String)> = Vec::new();
        let mut lengths = Vec::new();
        for length in HEADER..body.len() {
            let mut cut = body[..length].to_vec();
            let (start, name) = loop {
                let message = IntegerModel::from_bytes(&sealed(&cut), "f").unwrap_err().to_string();
                let field = message.strip_prefix("f: byte ").and_then(|rest| rest.split_once(", "));
                let (offset, rest) = field.unwrap_or_else(|| panic!("cut at {length}: {message}"));
                let (name, what) = rest.split_once(": ").unwrap_or((rest, ""));
                let start: usize = offset.parse().unwrap();
                if !name.ends_with("length of the op") || length < start + 8 {
                    break (start, name.to_owned());
                }
                // An op that announces more than is left hides its fields; it announces what is left instead.
                assert!(what.contains("are left"), "cut at {length}: {message}");
                cut[start..start + 8].copy_from_slice(&((length - start - 8) as u64).to_le_bytes());
                if lengths.last() != Some(&start) {
                    lengths.push(start);
                }
                let message = IntegerModel::from_bytes(&sealed(&cut), "f").unwrap_err().to_string();
                assert!(!message.contains("length of the op"), "cut at {length}: {message}");
            };
            if starts.last().is_none_or(|last| last.0 != start) {
                starts.push((start, name));
            }
        }
        let ends: Vec<usize> = starts.iter().skip(1).map(|(at, _)| *at).chain([body.len()]).collect();
        let found = starts.into_iter().zip(ends).map(|((at, name), end)| (name, at..end));
        // A count that promises more than is left hides the first fields behind it; their bytes count as fields of
        // their own.
        let split = |(name, place): (String, Range<usize>)| {
            let own = if COUNTS.iter().any(|count| name.ends_with(count)) { place.start + 4 } else { place.end };
            let rest = (own..place.end).map(|at| (format!("behind the {name}"), at..at + 1));
            std::iter::once((name.clone(), place.start..own)).chain(rest.collect::<Vec<_>>())
        };
        Self { body, fields: found.flat_map(split).collect(), lengths }
    }

    /// The body with other bytes at a place, and the same with the length of the op around them made right.
    fn with(&self, place: Range<usize>, bytes: &[u8]) -> [Vec<u8>; 2] {
        let mut plain = self.body.to_vec();
        plain.splice(place.clone(), bytes.iter().copied());
        let mut right = plain.clone();
        lengthen(&mut right, &self.lengths, place.start, bytes.len() as i64 - place.len() as i64);
        [plain, right]
    }
}

/// Changes the length of the op that holds the byte `at`.
fn lengthen(body: &mut [u8], lengths: &[usize], at: usize, by: i64) {
    if let Some(&length) = lengths.iter().rfind(|&&length| length + 8 <= at && length + 8 <= body.len()) {
        let field = &mut body[length..length + 8];
        let new = u64::from_le_bytes((&*field).try_into().unwrap()).wrapping_add_signed(by);
        field.copy_from_slice(&new.to_le_bytes());
    }
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
    let files =
        [converted("W3A4", FirstLast::Float), converted("W1A2", FirstLast::Same), everything().to_bytes().unwrap()];
    for bytes in files {
        let body = &bytes[..bytes.len() - CHECKSUM];
        assert!(read(body, "the file itself").is_some());
        let file = File::new(body);
        seen.extend(file.fields.iter().map(|(name, _)| name.clone()));
        for (name, place) in &file.fields {
            truncated_and_enlarged(&file, name, place.clone());
            other_values(body, name, place.clone());
        }
        cycles(body, &file.fields);
        mutations(&file);
    }
    many_channels();
    for words in ["arch", "input height", "zero points", "number of classes", "class name 2", "layer 3, name"] {
        assert!(seen.iter().any(|name| name.starts_with(words)), "no field {words}");
    }
    for words in [
        "scale",
        "op",
        "flags",
        "length of the op",
        "channels",
        "number of terms",
        "term",
        "name of the product",
        "input",
        "kernel rows",
        "stride columns",
        "padding",
        "dilation rows",
        "spread columns",
        "padding code",
        "output channels",
        "groups",
        "weight bits",
        "grid",
        "weights",
        "inserted value",
        "number of moves",
        "move",
        "factor",
        "columns left",
        "first channel",
        "zero of the second factor",
        "shift",
        "multipliers of term 3",
        "constants",
        "number of tensors added",
        "multiplier of a tensor added",
        "end",
        "lo",
        "hi",
        "number of tables",
        "number of inputs",
    ] {
        assert!(seen.iter().any(|name| name.ends_with(&format!("`, {words}"))), "no field {words}");
    }
    let (accepted, refused) = ACCEPTED.get();
    assert!(accepted > 500 && refused > 5000, "{accepted} accepted, {refused} refused");
}

/// The field's bytes are missing, in part or whole, or there are more of them.
fn truncated_and_enlarged(file: &File, name: &str, place: Range<usize>) {
    let more = [&file.body[place.clone()], &[0], &[255; 9]];
    let edits = [(place.start..place.start + 1, &[][..]), (place.clone(), &[])];
    let edits = edits.into_iter().chain(more.map(|more| (place.end..place.end, more)));
    for body in edits.flat_map(|(place, bytes)| file.with(place, bytes)) {
        read(&body, name);
    }
    read(&file.body[..place.end], name);
}

/// A sum of 255 terms of 65536 channels, of which the weights of one alone take 8 KiB: the lists of the others are
/// refused, be they views or products of one channel.
fn many_channels() {
    let u32s = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let window = u32s(&[1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]);
    let product = |out: u32| {
        let weights = vec![0; out.div_ceil(8) as usize];
        [&[0, 1, 0, b'p'][..], &u32s(&[0]), &window, &u32s(&[0, out, 1]), &[1, 1], &weights].concat()
    };
    let view = [&[1][..], &[0; 9]].concat();
    for (others, words) in [(view, "multipliers of term 1"), (product(1), "65536, but a product has 1")] {
        let lists = [0x81, 7].repeat(256);
        let sum = [&u32s(&[65_536])[..], &[255], &product(65_536), &others.repeat(254), &[9], &lists, &[0, 3]].concat();
        let mut body = vec![0; HEADER];
        body[..12].copy_from_slice(b"BITPACT\n\x01\0\0\0");
        for part in [&[0; 2][..], &u32s(&[1, 1, 1]), &[8, 7], &1f32.to_le_bytes(), &u32s(&[0, 1]), &[1, 0, b'a']] {
            body.extend(part);
        }
        for part in [&1f64.to_le_bytes()[..], &[0; 2], &(sum.len() as u64).to_le_bytes(), &sum] {
            body.extend(part);
        }
        assert!(read(&body, "many channels").is_none());
        let message = IntegerModel::from_bytes(&sealed(&body), "f").unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

fn other_values(body: &[u8], name: &str, place: Range<usize>) {
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
fn cycles(body: &[u8], fields: &[(String, Range<usize>)]) {
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

/// A few edits at once, most of them at the beginning of fields; of half of them the lengths of ops know.
fn mutations(file: &File) {
    let File { body, fields, .. } = file;
    for seed in 0..6000 {
        let key = Key::new(seed).with("mutation");
        let (mut bytes, mut lengths) = (body.to_vec(), file.lengths.clone());
        for edit in 0..1 + u64::from(key.below(0, 3)) {
            let key = key.at(edit);
            let field = fields[key.below(0, fields.len() as u32) as usize].1.clone();
            let at = field.start + if key.below(1, 3) == 0 { key.below(2, field.len() as u32) as usize } else { 0 };
            let at = at.min(bytes.len() - 1);
            let before = bytes.len() as i64;
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
            let by = bytes.len() as i64 - before;
            if seed % 2 == 0 && by != 0 {
                lengthen(&mut bytes, &lengths, at, by);
                for length in lengths.iter_mut().filter(|length| **length > at) {
                    *length = length.saturating_add_signed(by as isize);
                }
            }
        }
        read(&bytes, &format!("mutation {seed}"));
    }
}
