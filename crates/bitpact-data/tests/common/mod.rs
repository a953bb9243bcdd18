//! Tiny files in the formats of the published sets.

#![allow(dead_code)]

use std::io::Write;
use std::path::Path;

use bitpact_data::{DataError, Dataset, Split};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// An idx file of unsigned bytes.
pub(crate) fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Pixel `i` of image `n` of every tiny set.
pub(crate) fn pixel(n: usize, i: usize) -> u8 {
    (n * 31 + i * 7 + i / 28) as u8
}

/// `n` grey images of 28 x 28.
pub(crate) fn grey(n: usize) -> Vec<u8> {
    (0..n).flat_map(|n| (0..784).map(move |i| pixel(n, i))).collect()
}

/// A set of the MNIST family with `train` and `test` labels.
pub(crate) fn mnist(dir: &Path, prefixes: [&str; 2], train: &[u8], test: &[u8], gzipped: bool) {
    for (prefix, labels) in prefixes.into_iter().zip([train, test]) {
        let n = labels.len();
        let images = idx(&[n as u32, 28, 28], &grey(n));
        for (kind, bytes) in [("images-idx3-ubyte", images), ("labels-idx1-ubyte", idx(&[n as u32], labels))] {
            let (end, bytes) = if gzipped { (".gz", gzip(&bytes)) } else { ("", bytes) };
            std::fs::write(dir.join(format!("{prefix}-{kind}{end}")), bytes).unwrap();
        }
    }
}

pub(crate) fn image(set: &dyn Dataset, index: usize) -> Vec<u8> {
    let mut out = vec![0; set.image_shape().len()];
    set.image(index, &mut out);
    out
}

pub(crate) fn labels(set: &dyn Dataset) -> Vec<usize> {
    (0..set.len()).map(|i| set.label(i)).collect()
}

/// Expects an error that has every one of `parts`.
#[track_caller]
pub(crate) fn assert_refused(result: Result<Split, DataError>, parts: &[&str]) {
    let text = result.err().expect("an error").to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
