//! CIFAR-100: what differs from CIFAR-10.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use bitpact_data::{Dataset, DatasetName, Limits, load};
use common::{assert_refused, image};

const RECORD_BYTES: u64 = 3074;

/// Sparse files of zeros: 60,000 black apples.
fn black_set(dir: &Path) {
    for (name, records) in [("train.bin", 50_000), ("test.bin", 10_000)] {
        File::create(dir.join(name)).unwrap().set_len(records * RECORD_BYTES).unwrap();
    }
}

fn write_record(dir: &Path, name: &str, record: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(dir.join(name)).unwrap();
    file.seek(SeekFrom::Start(record * RECORD_BYTES)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn fine_labels_are_the_classes_and_bad_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cifar-100-binary");
    fs::create_dir(&folder).unwrap();
    black_set(&folder);
    let record: Vec<u8> = [19, 99].into_iter().chain((0..3072).map(|i| (i / 1024 * 80 + i % 79) as u8)).collect();
    write_record(&folder, "train.bin", 7, &record);
    write_record(&folder, "test.bin", 9_999, &[255, 42]);
    let some = Limits { train: Some(10), test: None };
    let split = load(DatasetName::Cifar100, Some(dir.path()), some).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (10, 10_000));
    assert_eq!((split.train.label(7), split.test.label(9_999)), (99, 42));
    assert_eq!((split.train.class_names()[0].as_str(), split.train.class_names()[99].as_str()), ("apple", "worm"));
    let expected: Vec<u8> = (0..1024).flat_map(|i| [0, 1024, 2048].map(|plane| record[2 + plane + i])).collect();
    assert_eq!(image(&*split.train, 7), expected);

    write_record(&folder, "train.bin", 3, &[0, 100]);
    assert_refused(
        load(DatasetName::Cifar100, Some(dir.path()), some),
        &["train.bin: record 3 (counted from 0, at byte 9223) has label 100, expected 0..=99"],
    );
    OpenOptions::new().write(true).open(folder.join("test.bin")).unwrap().set_len(5).unwrap();
    assert_refused(
        load(DatasetName::Cifar100, Some(dir.path()), some),
        &["test.bin is truncated: 5 bytes, expected 30740000"],
    );
}

#[test]
fn class_names_are_a_hundred_in_order() {
    let names = bitpact_data::cifar100::CLASS_NAMES;
    assert!(names.is_sorted(), "the labels are alphabetical");
    let split = load(DatasetName::Cifar100, None, Limits::default());
    assert_refused(split, &["--data DIR", "cifar-100-binary.tar.gz", "bitpact data fetch cifar100"]);
}
