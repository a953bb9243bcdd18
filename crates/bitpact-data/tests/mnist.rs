//! The MNIST family: good files in every form, and files that lie about themselves.

mod common;

use std::fs;
use std::path::Path;

use bitpact_data::check::{check, find};
use bitpact_data::{DataError, Dataset, DatasetName, Limits, Split, load};
use common::{assert_refused, grey, gzip, idx, image, labels, pixel};

const MNIST: [&str; 2] = ["train", "t10k"];
const TRAIN: [u8; 5] = [3, 0, 9, 3, 1];
const TEST: [u8; 3] = [7, 2, 2];

fn fashion(dir: &Path) -> Result<Split, DataError> {
    load(DatasetName::FashionMnist, Some(dir), Limits::default())
}

fn set_up() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    common::mnist(dir.path(), MNIST, &TRAIN, &TEST, false);
    dir
}

#[test]
fn plain_and_gzipped_files_are_read_alike_wherever_they_usually_lie() {
    for (place, gzipped) in [("", false), ("", true), ("fashion-mnist", true), ("FashionMNIST/raw", false)] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(place)).unwrap();
        common::mnist(&home.path().join(place), MNIST, &TRAIN, &TEST, gzipped);
        let split = fashion(home.path()).unwrap();
        assert_eq!(labels(&*split.train), [3, 0, 9, 3, 1], "{place}");
        assert_eq!(labels(&*split.test), [7, 2, 2]);
        assert_eq!(image(&*split.train, 4), (0..784).map(|i| pixel(4, i)).collect::<Vec<u8>>());
        assert_eq!(split.test.class_names()[9], "Ankle boot");
        assert_eq!(split.test.image_shape(), bitpact_data::mnist::SHAPE);
    }
}

#[test]
fn a_gzipped_file_without_its_ending_is_known_by_its_bytes() {
    let dir = set_up();
    let name = dir.path().join("train-images-idx3-ubyte");
    fs::write(&name, gzip(&fs::read(&name).unwrap())).unwrap();
    assert_eq!(fashion(dir.path()).unwrap().train.len(), 5);
}

#[test]
fn limits_read_the_first_images_only() {
    let dir = set_up();
    let broken = idx(&[5], &[3, 0, 99, 99, 99]);
    fs::write(dir.path().join("train-labels-idx1-ubyte"), broken).unwrap();
    let limits = |train| Limits { train: Some(train), test: Some(usize::MAX) };
    let split = load(DatasetName::FashionMnist, Some(dir.path()), limits(2)).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (2, 3));
    assert_refused(
        load(DatasetName::FashionMnist, Some(dir.path()), limits(3)),
        &["train-labels-idx1-ubyte: record 2 (counted from 0, at byte 10) has label 99, expected 0..=9"],
    );
    assert_refused(load(DatasetName::FashionMnist, Some(dir.path()), limits(0)), &["first 0 images"]);
}

#[test]
fn emnist_is_turned_upright_and_its_letters_begin_at_a() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("emnist");
    fs::create_dir(&folder).unwrap();
    common::mnist(&folder, ["emnist-letters-train", "emnist-letters-test"], &[1, 26], &[2], true);
    let split = load(DatasetName::EmnistLetters, Some(dir.path()), Limits::default()).unwrap();
    assert_eq!(labels(&*split.train), [0, 25]);
    assert_eq!(split.train.class_names()[25], "z");
    let upright: Vec<u8> = (0..784).map(|i| pixel(1, i % 28 * 28 + i / 28)).collect();
    assert_eq!(image(&*split.train, 1), upright);
    common::mnist(&folder, ["emnist-letters-train", "emnist-letters-test"], &[1, 0], &[2], true);
    assert_refused(
        load(DatasetName::EmnistLetters, Some(dir.path()), Limits::default()),
        &["label 0, expected 1..=26"],
    );
    common::mnist(&folder, ["emnist-balanced-train", "emnist-balanced-test"], &[0, 46], &[2], true);
    let split = load(DatasetName::EmnistBalanced, Some(dir.path()), Limits::default()).unwrap();
    assert_eq!((split.train.class_names()[46].as_str(), split.train.label(1)), ("t", 46));
    common::mnist(&folder, ["emnist-digits-train", "emnist-digits-test"], &[0, 9], &[2], false);
    assert_eq!(load(DatasetName::EmnistDigits, Some(dir.path()), Limits::default()).unwrap().train.label(1), 9);
}

#[test]
fn missing_and_misplaced_files_are_named_with_every_place() {
    let dir = set_up();
    fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte")).unwrap();
    assert_refused(
        fashion(dir.path()),
        &[
            "Fashion-MNIST: t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz not found; looked for",
            "fashion-mnist/t10k",
            "FashionMNIST/raw/t10k",
        ],
    );
    fs::create_dir(dir.path().join("t10k-labels-idx1-ubyte")).unwrap();
    assert_refused(fashion(dir.path()), &["t10k-labels-idx1-ubyte is not a regular file; expected an idx file"]);
    assert_refused(fashion(&dir.path().join("train-labels-idx1-ubyte")), &["is not a folder"]);
    assert_refused(fashion(&dir.path().join("absent")), &["absent", "cannot read"]);
}

#[test]
fn files_that_are_not_what_they_say_are_refused() {
    let images = |n: u32, pixels: &[u8]| idx(&[n, 28, 28], pixels);
    let good = images(5, &grey(5));
    let mut huge = good.clone();
    huge[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut wide = good.clone();
    wide[12..16].copy_from_slice(&29u32.to_be_bytes());
    let mut long = good.clone();
    long.push(0);
    let mut many = images(60_001, &[]);
    many.resize(300 << 20, 0);
    let mut flipped = gzip(&good);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "truncated"),
        (good[..3].to_vec(), "truncated"),
        (good[..10].to_vec(), "truncated"),
        (good[..good.len() - 1].to_vec(), "truncated: 3935 bytes, expected 3936"),
        (long.clone(), "too long: 3937 bytes, expected 3936"),
        (idx(&[5], &TRAIN), "starts with 00 00 08 01; expected 00 00 08 03"),
        ([&[0, 0, 13, 3], &good[4..]].concat(), "starts with 00 00 0d 03"),
        (huge.clone(), "promises 4294967295 items"),
        (wide, "its items are 28x29, expected 28x28"),
        (images(4, &grey(4)), "has 5 labels, but"),
        (images(0, &[]), "has 5 labels, but"),
        (gzip(&good[..100]), "truncated: the data end after 84 of 3920 bytes"),
        (gzip(&long), "goes on after the 5 items"),
        (gzip(&huge), "promises 4294967295 items"),
        (gzip(&many), "promises 60001 items, and the set has 60000"),
        (images(60_001, &[]), "promises 60001 items, and the set has 60000"),
        (gzip(&good)[..200].to_vec(), "train-images"),
        (flipped, "train-images"),
        (b"\x1f\x8bnot gzip at all".to_vec(), "cannot read"),
        (b"<html>404</html>".to_vec(), "starts with 3c 68 74 6d"),
    ];
    for (bytes, part) in cases {
        let dir = set_up();
        fs::write(dir.path().join("train-images-idx3-ubyte"), bytes).unwrap();
        assert_refused(fashion(dir.path()), &[part, "train-"]);
    }
    let dir = tempfile::tempdir().unwrap();
    common::mnist(dir.path(), MNIST, &[], &TEST, false);
    assert_refused(fashion(dir.path()), &["has no images"]);
}

/// A small file may unpack to a very large one: no more is unpacked than its header and the limits ask for.
#[test]
fn a_bomb_is_not_unpacked() {
    let dir = set_up();
    let mut bytes = idx(&[5, 28, 28], &grey(5));
    bytes.resize(200 << 20, 0);
    fs::write(dir.path().join("train-images-idx3-ubyte"), gzip(&bytes)).unwrap();
    assert_refused(fashion(dir.path()), &["goes on after the 5 items"]);
}

#[test]
fn a_folder_tells_what_is_in_it() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(find(home.path()).unwrap(), []);
    for folder in ["kmnist", "FashionMNIST/raw", "gzip"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    common::mnist(&home.path().join("kmnist"), MNIST, &TRAIN, &TEST, true);
    common::mnist(&home.path().join("FashionMNIST/raw"), MNIST, &TRAIN, &TEST, false);
    common::mnist(&home.path().join("gzip"), ["emnist-letters-train", "emnist-letters-test"], &[1], &[2], true);
    let names = |dir: &Path| find(dir).unwrap().into_iter().map(|found| found.names).collect::<Vec<_>>();
    let (fashion, kmnist) = (DatasetName::FashionMnist, DatasetName::Kmnist);
    assert_eq!(names(home.path()), [vec![fashion], vec![kmnist], vec![DatasetName::EmnistLetters]]);
    // By the folder's own name, and not at all under another.
    assert_eq!(names(&home.path().join("kmnist")), [[kmnist]]);
    assert_eq!(names(&home.path().join("FashionMNIST/raw")), [[fashion]]);
    fs::rename(home.path().join("kmnist"), home.path().join("images")).unwrap();
    assert_eq!(names(&home.path().join("images")), [[DatasetName::Mnist, fashion, kmnist]]);

    let report = check(kmnist, &home.path().join("images")).unwrap();
    assert_eq!((report.train.images, report.test.images), (5, 3));
    assert_eq!(report.train.histogram, [1, 1, 0, 2, 0, 0, 0, 0, 0, 1]);
    assert_eq!(report.test.histogram, [0, 0, 2, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(report.files.len(), 4);
    let file = fs::read(&report.files[1].path).unwrap();
    assert_eq!(
        (report.files[1].bytes, &report.files[1].md5),
        (file.len() as u64, &format!("{:x}", md5::compute(file)))
    );
    assert!(report.files.iter().all(|file| file.is_foreign()), "tiny files are not the published ones");
    // Nothing is published about unpacked files.
    let report = check(fashion, home.path()).unwrap();
    assert!(report.files.iter().all(|file| file.published.is_none() && !file.is_foreign()));
}
