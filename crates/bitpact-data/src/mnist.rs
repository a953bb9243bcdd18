//! MNIST and the sets made in its format: Fashion-MNIST, Kuzushiji-MNIST, and EMNIST's digits, letters and balanced
//! split. Grey images of 28 x 28 and labels in four idx files, each plain or gzipped.
//!
//! MNIST, Fashion-MNIST and KMNIST have the same file names, `train-images-idx3-ubyte` and so on; a label file whose
//! published checksum is another set's is refused. EMNIST's images are stored with rows and columns exchanged and are
//! turned upright here; its letters are labelled 1 to 26 in the files and 0 to 25 here.

use std::path::Path;

use crate::catalog::{Half, SetInfo};
use crate::check::md5_of;
use crate::dataset::limited_len;
use crate::files::{self, Opened};
use crate::{DataError, DatasetName, ImageShape, InMemory, Limits, Split, idx};

/// Size of every image.
pub const SHAPE: ImageShape = ImageShape { h: SIDE, w: SIDE, c: 1 };

const SIDE: usize = 28;

const FOLDER_EXPECTED: &str = "a folder with the set's four idx files, or one that holds it under its usual name";
const FILE_EXPECTED: &str = "an idx file, plain or gzipped";

/// Reads a set of the family from `dir`: the folder with its four files, or one that holds it under one of its usual
/// names ([`SetInfo::folders`]).
///
/// The limits take the first images of each half. Only those are read and checked; sizes in the headers are checked
/// always.
///
/// # Errors
/// A set of another family; a `dir` that is no folder; a file that is missing, unreadable, truncated or no idx file of
/// 28 x 28 bytes; another number of labels than of images, or more than the set has; a label that is not one of the
/// classes; files of another set of the family; a limit of 0.
pub fn load(name: DatasetName, dir: &Path, limits: Limits) -> Result<Split, DataError> {
    let info = name.info();
    if !info.is_mnist_family() {
        return Err(DataError::UnknownName { name: name.to_string(), valid: family_names() });
    }
    let root = files::find_root(dir, info.folders, info.present_names(), FOLDER_EXPECTED)?;
    let half = |half: Half, limit: Option<usize>| -> Result<InMemory, DataError> {
        let [images, labels] = [0, 1].map(|i| info.files_of(half).nth(i).expect("images and labels"));
        let open = |file: &'static str| {
            files::open(info.title, dir, &root, info.folders, &info.spellings(file), FILE_EXPECTED)
        };
        let (images, labels) = (open(images.name)?, open(labels.name)?);
        refuse_siblings(info, &labels)?;
        let most = match half {
            Half::Train => info.train_images,
            Half::Test => info.test_images,
        };
        read(info, images, labels, limit, most)
    };
    Ok(Split { train: Box::new(half(Half::Train, limits.train)?), test: Box::new(half(Half::Test, limits.test)?) })
}

fn family_names() -> String {
    let names = DatasetName::ALL.into_iter().filter(|name| name.info().is_mnist_family());
    names.map(DatasetName::as_str).collect::<Vec<_>>().join(", ")
}

/// An error when the label file is, to the bit, the published one of another set with the same file names.
fn refuse_siblings(info: &SetInfo, labels: &Opened) -> Result<(), DataError> {
    /// The longest label file of a set that shares its names has 60,008 bytes.
    const LARGEST: u64 = 1 << 17;
    if labels.bytes > LARGEST {
        return Ok(());
    }
    let md5 = md5_of(&labels.path)?;
    match DatasetName::ALL.into_iter().find(|name| name.info().files.iter().any(|file| file.md5 == Some(&md5))) {
        Some(found) if found != info.name => {
            Err(DataError::OtherSet { path: labels.path.clone(), found: found.as_str(), expected: info.name.as_str() })
        }
        _ => Ok(()),
    }
}

fn read(
    info: &SetInfo,
    images: Opened,
    labels: Opened,
    limit: Option<usize>,
    most: usize,
) -> Result<InMemory, DataError> {
    let paths = [images.path.clone(), labels.path.clone()];
    let limit = limited_len(&paths[0].display().to_string(), usize::MAX, limit)?;
    let labels = idx::read(labels, &[], limit, most)?;
    let images = idx::read(images, &[SIDE as u32; 2], limit, most)?;
    let [images_path, path] = paths;
    if images.count != labels.count {
        let message = format!("has {} labels, but {} has {} images", labels.count, images_path.display(), images.count);
        return Err(DataError::Format { path, message });
    }
    if images.count == 0 {
        return Err(DataError::Empty { what: images_path.display().to_string() });
    }
    let (first, classes) = (info.first_label(), info.class_names.len());
    let shifted = labels.bytes.iter().enumerate().map(|(record, &label)| match label.checked_sub(first) {
        Some(shifted) if usize::from(shifted) < classes => Ok(u16::from(shifted)),
        _ => Err(DataError::BadFileLabel {
            path: path.clone(),
            record,
            offset: 8 + record as u64,
            label,
            smallest: first,
            largest: first + (classes - 1) as u8,
        }),
    });
    let labels = shifted.collect::<Result<Vec<u16>, DataError>>()?;
    let mut pixels = images.bytes;
    if info.is_transposed() {
        pixels.chunks_exact_mut(SIDE * SIDE).for_each(transpose);
    }
    InMemory::new(pixels, labels, SHAPE, info.class_names.iter().map(|name| name.to_string()).collect())
}

fn transpose(image: &mut [u8]) {
    for y in 0..SIDE {
        for x in 0..y {
            image.swap(y * SIDE + x, x * SIDE + y);
        }
    }
}
