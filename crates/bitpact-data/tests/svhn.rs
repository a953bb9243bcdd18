//! SVHN's MATLAB files, good ones written in every way the format allows, and bad ones.

mod common;

use std::fs;
use std::path::Path;

use bitpact_data::{DataError, Dataset, DatasetName, Limits, Split, load};
use common::{assert_refused, image, labels, zlib};

const UINT8: u32 = 2;
const DOUBLE: u32 = 9;

fn header() -> Vec<u8> {
    let mut bytes = b"MATLAB 5.0 MAT-file, written by a test".to_vec();
    bytes.resize(124, b' ');
    bytes.extend([0, 1, b'I', b'M']);
    bytes
}

fn word(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_le_bytes());
}

/// Tag, data and padding to 8 bytes; inside the tag where `short`.
fn element(bytes: &mut Vec<u8>, kind: u32, data: &[u8], short: bool) {
    if short && data.len() <= 4 {
        word(bytes, (data.len() as u32) << 16 | kind);
        bytes.extend(data);
        bytes.resize(bytes.len() + 4 - data.len(), 0);
    } else {
        word(bytes, kind);
        word(bytes, data.len() as u32);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
}

/// An array element: class 9 is uint8, 6 double; `kind` is how the values are stored.
fn array(name: &str, class: u32, dims: &[u32], kind: u32, data: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    element(&mut inner, 6, &[class.to_le_bytes(), [0; 4]].concat(), false);
    element(&mut inner, 5, &dims.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<u8>>(), false);
    element(&mut inner, 1, name.as_bytes(), true);
    element(&mut inner, kind, data, true);
    let mut bytes = Vec::new();
    word(&mut bytes, 14);
    word(&mut bytes, inner.len() as u32);
    bytes.extend(inner);
    bytes
}

fn compressed(array: &[u8]) -> Vec<u8> {
    packed(&zlib(array))
}

fn packed(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    word(&mut bytes, 15);
    word(&mut bytes, packed.len() as u32);
    bytes.extend(packed);
    bytes
}

/// Value of row y, column x, channel c of image n.
fn value(n: usize, y: usize, x: usize, c: usize) -> u8 {
    (n * 53 + y * 7 + x * 3 + c * 101) as u8
}

/// `X` in MATLAB's order: rows fastest, then columns, channels, images.
fn columns(images: usize) -> Vec<u8> {
    let place = |i: usize| (i / 3072, i % 32, i / 32 % 32, i / 1024 % 3);
    (0..images * 3072).map(place).map(|(n, y, x, c)| value(n, y, x, c)).collect()
}

fn x(images: usize) -> Vec<u8> {
    array("X", 9, &[32, 32, 3, images as u32], UINT8, &columns(images))
}

fn y(labels: &[u8]) -> Vec<u8> {
    array("y", 6, &[labels.len() as u32, 1], UINT8, labels)
}

fn file(elements: &[Vec<u8>]) -> Vec<u8> {
    [header(), elements.concat()].concat()
}

fn svhn(dir: &Path, limits: Limits) -> Result<Split, DataError> {
    load(DatasetName::Svhn, Some(dir), limits)
}

/// A folder whose test half is good and whose training half is `train`.
fn set_up(train: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("train_32x32.mat"), train).unwrap();
    fs::write(dir.path().join("test_32x32.mat"), file(&[x(2), y(&[10, 1])])).unwrap();
    dir
}

#[test]
fn compressed_and_plain_arrays_give_upright_images_and_ten_is_zero() {
    let other = array("note", 6, &[1, 1], DOUBLE, &1.5f64.to_le_bytes());
    let doubles: Vec<u8> = [5.0f64, 10.0, 9.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let files = [
        file(&[compressed(&x(3)), compressed(&y(&[5, 10, 9]))]),
        file(&[x(3), y(&[5, 10, 9])]),
        file(&[other.clone(), compressed(&other), compressed(&y(&[5, 10, 9])), compressed(&x(3))]),
        file(&[compressed(&x(3)), array("y", 6, &[1, 3], DOUBLE, &doubles)]),
    ];
    for (i, bytes) in files.iter().enumerate() {
        let dir = set_up(bytes);
        let split = svhn(dir.path(), Limits::default()).unwrap();
        assert_eq!(labels(&*split.train), [5, 0, 9], "file {i}");
        let upright = |n| -> Vec<u8> {
            let place = |i: usize| (i / 96, i / 3 % 32, i % 3);
            (0..3072).map(place).map(|(y, x, c)| value(n, y, x, c)).collect()
        };
        (0..3).for_each(|n| assert_eq!(image(&*split.train, n), upright(n), "file {i}, image {n}"));
        assert_eq!(labels(&*split.test), [0, 1]);
    }
}

#[test]
fn limits_decompress_the_first_images_only() {
    let whole = zlib(&x(200));
    let dir = set_up(&file(&[packed(&whole[..whole.len() * 3 / 4]), compressed(&y(&[7; 200]))]));
    let limits = |train| Limits { train: Some(train), test: None };
    assert_eq!(svhn(dir.path(), limits(20)).unwrap().train.len(), 20);
    assert_refused(svhn(dir.path(), limits(200)), &["train_32x32.mat: truncated"]);
    assert_refused(svhn(dir.path(), limits(0)), &["first 0 images"]);
}

#[test]
fn one_image_without_its_last_dimension() {
    let one = array("X", 9, &[32, 32, 3], UINT8, &columns(1));
    let dir = set_up(&file(&[one, y(&[4])]));
    assert_eq!(labels(&*svhn(dir.path(), Limits::default()).unwrap().train), [4]);
}

#[test]
fn files_that_are_not_what_they_say_are_refused() {
    let good = file(&[x(3), y(&[5, 10, 9])]);
    let mut big_endian = good.clone();
    big_endian[124..128].copy_from_slice(&[1, 0, b'M', b'I']);
    let lying_tag = {
        let mut bytes = good.clone();
        bytes[132..136].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes
    };
    let mut lying_inside = x(3);
    let dims = lying_inside.windows(4).position(|w| w == 3u32.to_le_bytes()).unwrap();
    lying_inside[dims + 4..dims + 8].copy_from_slice(&600_000u32.to_le_bytes());
    let long_name = array(&"n".repeat(10_000), 9, &[1, 1], UINT8, &[1]);
    let words: Vec<u8> = columns(1).iter().flat_map(|&b| [b, 0]).collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "truncated"),
        (b"<html>404</html>".to_vec(), "truncated"),
        (vec![b'x'; 4000], "no level 5 MAT-file"),
        (big_endian, "big-endian"),
        (header(), "has no array `X`"),
        (file(&[x(3)]), "has no array `y`"),
        (good[..good.len() - 30].to_vec(), "truncated"),
        (good[..140].to_vec(), "truncated"),
        (lying_tag, "truncated: the element at byte 128 has 4294967295 bytes"),
        (file(&[compressed(&lying_inside), y(&[1; 3])]), "do not fit 32x32x3x600000"),
        (file(&[compressed(&x(3)[..500]), y(&[1; 3])]), "truncated"),
        (file(&[array("X", 9, &[32, 32, 1, 3], UINT8, &columns(1)), y(&[1; 3])]), "its size is 32x32x1x3"),
        (file(&[array("X", 9, &[32, 32, 3, u32::MAX], UINT8, &[]), y(&[1])]), "its size is"),
        (file(&[array("X", 11, &[32, 32, 3, 1], 4, &words), y(&[1])]), "array `X`: expected bytes"),
        (file(&[array("X", 1, &[32, 32, 3, 1], UINT8, &columns(1)), y(&[1])]), "expected real numbers"),
        (file(&[array("X", 9, &[32, 32, 3, 1], 99, &columns(1)), y(&[1])]), "values of type 99"),
        (file(&[x(3), y(&[1, 2])]), "2 labels for 3 images"),
        (file(&[x(3), y(&[1, 0, 2])]), "label 1 (counted from 0) is 0, expected 1 to 10"),
        (file(&[x(3), y(&[1, 2, 11])]), "label 2 (counted from 0) is 11"),
        (file(&[x(1), array("y", 6, &[1, 1], DOUBLE, &f64::NAN.to_le_bytes())]), "is NaN"),
        (file(&[x(1), array("y", 6, &[1, 1], DOUBLE, &1.5f64.to_le_bytes())]), "is 1.5"),
        (file(&[long_name, x(1), y(&[1])]), "bytes of name"),
        (file(&[x(0), y(&[])]), "has no images"),
    ];
    for (bytes, part) in cases {
        let dir = set_up(&bytes);
        assert_refused(svhn(dir.path(), Limits::default()), &[part, "train_32x32.mat"]);
    }
}

/// Every file that differs from a good one in one byte is read or refused, never a panic.
#[test]
fn flipped_bytes_never_panic() {
    let good = file(&[compressed(&x(1)), y(&[5])]);
    let dir = set_up(&good);
    let whole = [(112, 250.min(good.len())), (good.len() - 60, good.len())];
    for at in whole.into_iter().flat_map(|(from, to)| from..to) {
        for flip in [0x01, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            fs::write(dir.path().join("train_32x32.mat"), bytes).unwrap();
            let _ = svhn(dir.path(), Limits::default());
        }
    }
}
