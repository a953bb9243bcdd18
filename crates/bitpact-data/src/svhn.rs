//! Street View House Numbers, cropped digits ("Format 2"), from its MATLAB files.
//!
//! `train_32x32.mat` and `test_32x32.mat` each hold `X`, bytes of 32 x 32 x 3 x n, and `y`, n labels of 1 to 10; 10
//! stands for the digit 0 and is class 0 here (Netzer et al. 2011, <http://ufldl.stanford.edu/housenumbers/>). The
//! `extra` file is not read.

use std::path::Path;

use crate::dataset::limited_len;
use crate::files::{self, Opened};
use crate::{DataError, DatasetName, ImageShape, InMemory, Limits, Split, mat};

/// Size of every image.
pub const SHAPE: ImageShape = ImageShape { h: SIDE, w: SIDE, c: 3 };

pub(crate) const TRAIN_FILE: &str = "train_32x32.mat";
pub(crate) const TEST_FILE: &str = "test_32x32.mat";

const SIDE: usize = 32;
const IMAGE_BYTES: usize = SIDE * SIDE * 3;
/// Images of the publisher's training set and of the extra one, which some put together.
const MOST_IMAGES: usize = 73_257 + 531_131;

const FOLDER_EXPECTED: &str = "a folder with train_32x32.mat and test_32x32.mat, or one that holds it as svhn";
const FILE_EXPECTED: &str = "a MATLAB file of cropped digits";

/// Reads SVHN from `dir`, the folder with the two `.mat` files or one that holds it as `svhn`.
///
/// The limits take the first images of each half; no more of the images is decompressed.
///
/// # Errors
/// When `dir` is no folder; a file is missing, unreadable, truncated, no level 5 MAT-file, or has other arrays than
/// the two described above; a label is not one of 1 to 10; or a limit is 0.
pub fn load(dir: &Path, limits: Limits) -> Result<Split, DataError> {
    let info = DatasetName::Svhn.info();
    let root = files::find_root(dir, info.folders, info.present_names(), FOLDER_EXPECTED)?;
    let half = |file: &'static str, limit: Option<usize>| -> Result<InMemory, DataError> {
        read(files::open(info.title, dir, &root, info.folders, &[file], FILE_EXPECTED)?, limit)
    };
    Ok(Split { train: Box::new(half(TRAIN_FILE, limits.train)?), test: Box::new(half(TEST_FILE, limits.test)?) })
}

fn read(opened: Opened, limit: Option<usize>) -> Result<InMemory, DataError> {
    let limit = limited_len(&opened.path.display().to_string(), MOST_IMAGES, limit)?;
    let sizes = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let images = |dims: &[usize]| match *dims {
        [SIDE, SIDE, 3, n] if n <= MOST_IMAGES => Ok(n.min(limit) * IMAGE_BYTES),
        // One image: MATLAB drops the last dimension where it is 1.
        [SIDE, SIDE, 3] => Ok(IMAGE_BYTES),
        _ => Err(format!("its size is {}, expected 32x32x3 and up to {MOST_IMAGES} images", sizes(dims))),
    };
    let labels = |dims: &[usize]| match *dims {
        [n, 1] | [1, n] if n <= MOST_IMAGES => Ok(n),
        _ => Err(format!("its size is {}, expected one label an image", sizes(dims))),
    };
    let [x, y] = mat::read(&opened, [("X", &images), ("y", &labels)])?;
    let count = x.dims.get(3).copied().unwrap_or(1);
    if y.dims.iter().product::<usize>() != count {
        return Err(opened.format(format!("{} labels for {count} images", y.dims.iter().product::<usize>())));
    }
    let len = limited_len(&opened.path.display().to_string(), count, Some(limit))?;
    let label = |(i, value): (usize, f64)| match value {
        1.0..=10.0 if value.fract() == 0.0 => Ok(value as u16 % 10),
        _ => Err(opened.format(format!("label {i} (counted from 0) is {value}, expected 1 to 10"))),
    };
    let labels = y.values().take(len).enumerate().map(label).collect::<Result<Vec<u16>, DataError>>()?;
    let Some(columns) = x.into_u8() else {
        return Err(opened.format("array `X`: expected bytes"));
    };
    let mut pixels = vec![0; columns.len()];
    for (image, out) in columns.chunks_exact(IMAGE_BYTES).zip(pixels.chunks_exact_mut(IMAGE_BYTES)) {
        for (i, &byte) in image.iter().enumerate() {
            let (y, x, c) = (i % SIDE, i / SIDE % SIDE, i / (SIDE * SIDE));
            out[(y * SIDE + x) * 3 + c] = byte;
        }
    }
    let names = DatasetName::Svhn.info().class_names;
    InMemory::new(pixels, labels, SHAPE, names.iter().map(|name| name.to_string()).collect())
}
