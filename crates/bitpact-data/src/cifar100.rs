//! CIFAR-100 from its binary version, with sizes and labels checked.
//!
//! `train.bin` has 50,000 records and `test.bin` 10,000. A record is the coarse label (one of 20, not used), the fine
//! label, and 3,072 bytes of pixels as in [`cifar10`](crate::cifar10) (Krizhevsky 2009,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, "CIFAR-100 binary version"). Checksums are not compared.

use std::path::Path;

use crate::cifar::{self, Batches};
use crate::{DataError, ImageShape, Split};

/// The hundred fine classes in the order of their labels, which is the alphabet's.
#[rustfmt::skip]
pub const CLASS_NAMES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// The folder inside the published archive.
pub const FOLDER: &str = "cifar-100-binary";

/// Size of every image.
pub const SHAPE: ImageShape = cifar::SHAPE;

pub(crate) const BATCHES: Batches = Batches {
    title: "CIFAR-100",
    train_what: "CIFAR-100's training set",
    test_what: "CIFAR-100's test set",
    folder: FOLDER,
    folder_expected: "a folder with CIFAR-100's train.bin and test.bin, or one that holds it as cifar-100-binary",
    file_expected: "a CIFAR-100 file of 153,700,000 (train.bin) or 30,740,000 (test.bin) bytes",
    train_files: &["train.bin"],
    test_files: &["test.bin"],
    train_records: 50_000,
    test_records: 10_000,
    label_bytes: 2,
    class_names: &CLASS_NAMES,
};

/// Reads CIFAR-100 with its fine labels from `dir`, the folder with `train.bin` and `test.bin` or a folder that holds
/// it as `cifar-100-binary`.
///
/// The limits take the first records of each half; a limit above the half's size means all of it. Both files must be
/// there with the right size whatever the limits are; only the records asked for are read.
///
/// # Errors
/// When `dir` is no folder, a file is missing, unreadable or of another length, a fine label that is read is above 99,
/// or a limit is 0.
pub fn load(dir: &Path, limit_train: Option<usize>, limit_test: Option<usize>) -> Result<Split, DataError> {
    BATCHES.load(dir, limit_train, limit_test)
}
