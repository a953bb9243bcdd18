//! CIFAR-10 from its binary batches, with sizes and labels checked.
//!
//! Six files of 10,000 records each: `data_batch_1.bin` to `data_batch_5.bin` for training and `test_batch.bin`. A
//! record is one label byte and 3,072 bytes of pixels: the R, G and B planes of 32 x 32, row by row (Krizhevsky 2009,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, "CIFAR-10 binary version"). Checksums are not compared.

use std::path::Path;

use crate::cifar::{self, Batches};
use crate::{DataError, ImageShape, Split};

/// The ten classes in the order of their labels.
pub const CLASS_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The folder inside the published archive.
pub const FOLDER: &str = "cifar-10-batches-bin";

/// Size of every image.
pub const SHAPE: ImageShape = cifar::SHAPE;

pub(crate) const BATCHES: Batches = Batches {
    title: "CIFAR-10",
    train_what: "CIFAR-10's training set",
    test_what: "CIFAR-10's test set",
    folder: FOLDER,
    folder_expected: "a folder with CIFAR-10's binary batches, or one that holds them as cifar-10-batches-bin",
    file_expected: "a CIFAR-10 binary batch of 30,730,000 bytes",
    train_files: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test_files: &["test_batch.bin"],
    train_records: 10_000,
    test_records: 10_000,
    label_bytes: 1,
    class_names: &CLASS_NAMES,
};

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
    BATCHES.load(dir, limit_train, limit_test)
}
