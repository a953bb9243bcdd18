//! CIFAR-10 from its binary batches, with sizes and labels checked.
//!
//! Six files of 10,000 records each: `data_batch_1.bin` to `data_batch_5.bin` for training and `test_batch.bin`. A
//! record is one label byte and 3,072 bytes of pixels: the R, G and B planes of 32 x 32, row by row (Krizhevsky 2009,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, "CIFAR-10 binary version"). Checksums are not compared.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::dataset::limited_len;
use crate::{DataError, ImageShape, InMemory, Split};

/// The ten classes in the order of their labels.
pub const CLASS_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The folder inside the published archive.
pub const FOLDER: &str = "cifar-10-batches-bin";

/// Size of every image.
pub const SHAPE: ImageShape = ImageShape { h: 32, w: 32, c: 3 };

const TRAIN_FILES: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const TEST_FILES: [&str; 1] = ["test_batch.bin"];

const PLANE_BYTES: usize = 32 * 32;
const IMAGE_BYTES: usize = 3 * PLANE_BYTES;
const RECORD_BYTES: usize = 1 + IMAGE_BYTES;
const FILE_RECORDS: usize = 10_000;
const FILE_BYTES: u64 = (FILE_RECORDS * RECORD_BYTES) as u64;
const CHUNK_RECORDS: usize = 100;

const FOLDER_EXPECTED: &str = "a folder with CIFAR-10's binary batches, or one that holds them as cifar-10-batches-bin";
const FILE_EXPECTED: &str = "a CIFAR-10 binary batch of 30,730,000 bytes";

/// Reads CIFAR-10 from `dir`, the folder with the six `.bin` files or a folder that holds it as
/// `cifar-10-batches-bin`.
///
/// The limits take the first records of each half; a limit above the half's size means all of it. All six files must
/// be there with the right size whatever the limits are; only the records asked for are read.
///
/// # Errors
/// When `dir` is no folder, a file is missing, unreadable or not 30,730,000 bytes long, a label that is read is above
/// 9, or a limit is 0.
pub fn load(dir: &Path, limit_train: Option<usize>, limit_test: Option<usize>) -> Result<Split, DataError> {
    let train_len = limited_len("CIFAR-10's training set", TRAIN_FILES.len() * FILE_RECORDS, limit_train)?;
    let test_len = limited_len("CIFAR-10's test set", TEST_FILES.len() * FILE_RECORDS, limit_test)?;
    let root = find_root(dir)?;
    let open_all = |names: &[&'static str]| -> Result<Vec<(PathBuf, File)>, DataError> {
        names.iter().map(|name| open(dir, &root, name)).collect()
    };
    let train_files = open_all(&TRAIN_FILES)?;
    let test_files = open_all(&TEST_FILES)?;
    Ok(Split { train: Box::new(read(train_files, train_len)?), test: Box::new(read(test_files, test_len)?) })
}

fn find_root(dir: &Path) -> Result<PathBuf, DataError> {
    let metadata = fs::metadata(dir).map_err(|source| DataError::Io { path: dir.to_path_buf(), source })?;
    if !metadata.is_dir() {
        return Err(DataError::NotAFolder { path: dir.to_path_buf(), expected: FOLDER_EXPECTED });
    }
    let nested = dir.join(FOLDER);
    let here = TRAIN_FILES.iter().chain(&TEST_FILES).any(|name| fs::symlink_metadata(dir.join(name)).is_ok());
    if here || fs::symlink_metadata(&nested).is_err() {
        return Ok(dir.to_path_buf());
    }
    let metadata = fs::metadata(&nested).map_err(|source| DataError::Io { path: nested.clone(), source })?;
    if !metadata.is_dir() {
        return Err(DataError::NotAFolder { path: nested, expected: FOLDER_EXPECTED });
    }
    Ok(nested)
}

fn open(dir: &Path, root: &Path, name: &'static str) -> Result<(PathBuf, File), DataError> {
    let path = root.join(name);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let tried = [dir.join(name), dir.join(FOLDER).join(name)];
            return Err(DataError::MissingFile { set: "CIFAR-10", file: name, tried });
        }
        Err(source) => return Err(DataError::Io { path, source }),
    };
    if !metadata.is_file() {
        return Err(DataError::NotAFile { path, expected: FILE_EXPECTED });
    }
    if metadata.len() != FILE_BYTES {
        return Err(DataError::WrongSize { path, found: metadata.len(), expected: FILE_BYTES });
    }
    match File::open(&path) {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(DataError::Io { path, source }),
    }
}

fn read(files: Vec<(PathBuf, File)>, len: usize) -> Result<InMemory, DataError> {
    let mut images = vec![0; len * IMAGE_BYTES];
    let mut labels = Vec::with_capacity(len);
    let mut buffer = vec![0; CHUNK_RECORDS * RECORD_BYTES];
    for (path, mut file) in files {
        let file_end = len.min(labels.len() + FILE_RECORDS);
        let file_start = labels.len();
        while labels.len() < file_end {
            let chunk = &mut buffer[..(file_end - labels.len()).min(CHUNK_RECORDS) * RECORD_BYTES];
            file.read_exact(chunk).map_err(|source| DataError::Io { path: path.clone(), source })?;
            for record in chunk.chunks_exact(RECORD_BYTES) {
                let label = record[0];
                if usize::from(label) >= CLASS_NAMES.len() {
                    let record = labels.len() - file_start;
                    let offset = (record * RECORD_BYTES) as u64;
                    return Err(DataError::BadFileLabel { path, record, offset, label, largest: 9 });
                }
                planes_to_hwc(&record[1..], &mut images[labels.len() * IMAGE_BYTES..][..IMAGE_BYTES]);
                labels.push(u16::from(label));
            }
        }
    }
    InMemory::new(images, labels, SHAPE, CLASS_NAMES.map(str::to_string).to_vec())
}

fn planes_to_hwc(planes: &[u8], hwc: &mut [u8]) {
    let (red, rest) = planes.split_at(PLANE_BYTES);
    let (green, blue) = rest.split_at(PLANE_BYTES);
    for (pixel, ((&r, &g), &b)) in hwc.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
        pixel.copy_from_slice(&[r, g, b]);
    }
}
