//! Good and bad CIFAR-10 folders, one malformation at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bitpact_data::{DataError, Dataset, Split, cifar10};
use tempfile::TempDir;

const FILE_BYTES: u64 = 30_730_000;
const RECORD_BYTES: usize = 3073;
const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

/// Six sparse files of zeros: 60,000 black aeroplanes.
fn black_set(dir: &Path) {
    for name in FILES {
        File::create(dir.join(name)).unwrap().set_len(FILE_BYTES).unwrap();
    }
}

fn set_up() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    black_set(dir.path());
    let path = dir.path().to_path_buf();
    (dir, path)
}

fn write_record(dir: &Path, file: &str, record: usize, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(dir.join(file)).unwrap();
    file.seek(SeekFrom::Start((record * RECORD_BYTES) as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

fn error(result: Result<Split, DataError>) -> String {
    result.err().expect("an error").to_string()
}

/// Loads with small limits and expects an error that has every one of `parts`.
#[track_caller]
fn assert_refused(dir: &Path, parts: &[&str]) {
    let text = error(cifar10::load(dir, Some(5), Some(5)));
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

fn image(set: &dyn Dataset, index: usize) -> Vec<u8> {
    let mut out = vec![0; set.image_shape().len()];
    set.image(index, &mut out);
    out
}

#[test]
fn the_whole_set_is_read_in_order_with_planes_made_pixels() {
    let (_guard, dir) = set_up();
    let record = |label: u8| -> Vec<u8> {
        let mut record = vec![label];
        record.extend((0..3072).map(|i| ((i / 1024) * 80 + i % 79) as u8));
        record
    };
    write_record(&dir, FILES[0], 0, &record(3));
    write_record(&dir, FILES[2], 123, &record(5));
    write_record(&dir, FILES[4], 9_999, &record(9));
    write_record(&dir, FILES[5], 9_999, &record(7));

    let split = cifar10::load(&dir, None, Some(usize::MAX)).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (50_000, 10_000));
    let marked = [(0, 3), (20_123, 5), (49_999, 9)];
    for index in 0..50_000 {
        let expected = marked.iter().find(|m| m.0 == index).map_or(0, |m| m.1);
        assert_eq!(split.train.label(index), expected, "label {index}");
    }
    let expected: Vec<u8> = (0..1024).flat_map(|i| [0, 1024, 2048].map(|plane| record(0)[1 + plane + i])).collect();
    for (set, index) in [(&split.train, 0), (&split.train, 20_123), (&split.train, 49_999), (&split.test, 9_999)] {
        assert_eq!(image(set, index), expected, "image {index}");
    }
    assert!(image(&split.train, 20_124).iter().all(|&byte| byte == 0));
    assert_eq!(split.test.label(9_999), 7);
    assert_eq!(split.test.class_names()[7], "horse");
}

#[test]
fn limits_take_the_first_records_across_files() {
    let (_guard, dir) = set_up();
    write_record(&dir, FILES[1], 0, &[4]);
    write_record(&dir, FILES[1], 1, &[200]);
    let split = cifar10::load(&dir, Some(10_001), Some(1)).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (10_001, 1));
    assert_eq!(split.train.label(10_000), 4);
}

#[test]
fn a_folder_that_holds_the_usual_one_will_do() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    black_set(&inner);
    assert_eq!(cifar10::load(outer.path(), Some(2), Some(2)).unwrap().train.len(), 2);
}

#[test]
fn limits_of_zero_are_refused() {
    let dir = Path::new("not looked at");
    assert_eq!(
        error(cifar10::load(dir, Some(0), None)),
        "CIFAR-10's training set, limited to its first 0 images, has no images; at least one is needed"
    );
    assert!(error(cifar10::load(dir, None, Some(0))).starts_with("CIFAR-10's test set, limited to"));
}

#[test]
fn a_folder_that_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    assert_refused(&dir.path().join("absent"), &["cannot read", "absent", "No such file"]);
}

#[test]
fn a_file_where_the_folder_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cifar-10-binary.tar.gz");
    fs::write(&file, "packed").unwrap();
    assert_refused(&file, &["cifar-10-binary.tar.gz is not a folder", "cifar-10-batches-bin"]);
    let nested = dir.path().join("cifar-10-batches-bin");
    fs::write(&nested, "packed").unwrap();
    assert_refused(dir.path(), &["cifar-10-batches-bin is not a folder"]);
}

#[test]
fn an_empty_folder_names_the_first_file_and_both_places() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("data_batch_1.bin");
    let nested = dir.path().join("cifar-10-batches-bin").join("data_batch_1.bin");
    let parts = [here.to_str().unwrap(), nested.to_str().unwrap(), "CIFAR-10: data_batch_1.bin not found"];
    assert_refused(dir.path(), &parts);
    fs::create_dir(dir.path().join("cifar-10-batches-bin")).unwrap();
    assert_refused(dir.path(), &parts);
}

#[test]
fn every_missing_file_is_named_whatever_the_limits() {
    for name in FILES {
        let (_guard, dir) = set_up();
        fs::remove_file(dir.join(name)).unwrap();
        assert_refused(&dir, &[&format!("CIFAR-10: {name} not found; looked for"), "cifar-10-batches-bin"]);
    }
}

#[test]
fn truncated_oversized_and_empty_files_give_both_sizes() {
    for (bytes, word) in [(FILE_BYTES - 1, "truncated"), (0, "truncated"), (FILE_BYTES + 1, "too long")] {
        let (_guard, dir) = set_up();
        OpenOptions::new().write(true).open(dir.join(FILES[3])).unwrap().set_len(bytes).unwrap();
        assert_refused(&dir, &[&format!("data_batch_4.bin is {word}: {bytes} bytes, expected 30730000")]);
    }
}

#[test]
fn a_bad_label_is_told_with_its_place() {
    let (_guard, dir) = set_up();
    write_record(&dir, FILES[1], 123, &[10]);
    let text = error(cifar10::load(&dir, Some(11_000), None));
    assert!(
        text.ends_with("data_batch_2.bin: record 123 (counted from 0, at byte 377979) has label 10, expected 0..=9")
    );
    write_record(&dir, FILES[5], 2, &[255]);
    assert_refused(&dir, &["test_batch.bin: record 2 (counted from 0, at byte 6146) has label 255"]);
}

#[test]
fn a_folder_where_a_file_is_expected() {
    let (_guard, dir) = set_up();
    fs::remove_file(dir.join(FILES[5])).unwrap();
    fs::create_dir(dir.join(FILES[5])).unwrap();
    assert_refused(&dir, &["test_batch.bin is not a regular file"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_opened() {
    let (_guard, dir) = set_up();
    let name = dir.join(FILES[2]);
    fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink(FILES[2], &name).unwrap();
    assert_refused(&dir, &["cannot read", "data_batch_3.bin"]);
}
