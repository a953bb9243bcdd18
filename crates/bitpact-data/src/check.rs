//! What lies in a folder: which sets, how many images, labels and checksums of the files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::catalog::{Half, SetInfo};
use crate::{DataError, Dataset, DatasetName, Limits, files, load};

/// Files of a set that were found in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The set; several where sets share file names and neither a checksum nor the folder's name tells them apart.
    pub names: Vec<DatasetName>,
    /// The folder the files are in.
    pub folder: PathBuf,
}

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Path of the file.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// MD5 of the file in lower-case hexadecimal digits.
    pub md5: String,
    /// The published MD5 of the file, where there is one for this form of it.
    pub published: Option<&'static str>,
}

impl FileReport {
    /// Tells whether the file is another than the published one. It may well hold the same images, packed anew.
    pub fn is_foreign(&self) -> bool {
        self.published.is_some_and(|published| published != self.md5)
    }
}

/// One half of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfReport {
    /// Number of images.
    pub images: usize,
    /// Images of every class, in the order of the labels.
    pub histogram: Vec<usize>,
}

/// A set that was read from its first image to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReport {
    /// Name of the set.
    pub name: DatasetName,
    /// The folder its files are in.
    pub folder: PathBuf,
    /// The files.
    pub files: Vec<FileReport>,
    /// Images to learn from.
    pub train: HalfReport,
    /// Images to measure on.
    pub test: HalfReport,
}

/// The sets of which `dir`, or a folder in it under its usual name, holds at least one file.
///
/// # Errors
/// When `dir` cannot be read or is no folder.
pub fn find(dir: &Path) -> Result<Vec<Found>, DataError> {
    let mut found: Vec<Found> = Vec::new();
    for name in DatasetName::ALL {
        let info = name.info();
        let folder = files::find_root(dir, info.folders, info.present_names(), "a folder with image sets")?;
        if present(info, &folder).is_empty() {
            continue;
        }
        // Sets that share a folder's files are one find with several names.
        let shares =
            |other: &Found| other.folder == folder && other.names.iter().any(|other| same_names(other.info(), info));
        match found.iter_mut().find(|other| shares(other)) {
            Some(other) => other.names.push(name),
            None => found.push(Found { names: vec![name], folder }),
        }
    }
    for entry in found.iter_mut().filter(|entry| entry.names.len() > 1) {
        tell_apart(entry)?;
    }
    Ok(found)
}

/// The files of the set that are in `folder`, with the names they have there.
fn present(info: &SetInfo, folder: &Path) -> Vec<(PathBuf, Option<&'static str>)> {
    let at = |file: &'static crate::catalog::FileInfo| {
        let spellings = info.spellings(file.name);
        // The published checksum is that of the last spelling, the gzipped one where there are two.
        let last = spellings.len() - 1;
        let name = spellings.into_iter().enumerate().find(|(_, name)| folder.join(name).exists());
        name.map(|(i, name)| (folder.join(name), file.md5.filter(|_| i == last)))
    };
    info.files.iter().filter_map(at).collect()
}

fn same_names(a: &SetInfo, b: &SetInfo) -> bool {
    a.files.iter().map(|file| file.name).eq(b.files.iter().map(|file| file.name))
}

/// Keeps of an entry's names the one that a checksum, or else the folder's name, speaks for.
fn tell_apart(entry: &mut Found) -> Result<(), DataError> {
    let io = |source| DataError::Io { path: entry.folder.clone(), source };
    let full = entry.folder.canonicalize().map_err(io)?;
    let files = present(entry.names[0].info(), &entry.folder);
    let sums = files.iter().map(|(path, _)| md5_of(path)).collect::<Result<Vec<String>, DataError>>()?;
    let by_sum = |name: &DatasetName| {
        let published = || name.info().files.iter().filter_map(|file| file.md5);
        sums.iter().any(|sum| published().any(|md5| md5 == sum))
    };
    let by_folder = |name: &DatasetName| name.info().folders.iter().any(|folder| full.ends_with(folder));
    let told = entry.names.iter().copied().find(|name| by_sum(name));
    if let Some(name) = told.or_else(|| entry.names.iter().copied().find(|name| by_folder(name))) {
        entry.names = vec![name];
    }
    Ok(())
}

/// Finds an unsupported version of a data set in `dir` or in a folder in it: the name of that version, and the name
/// of the set to fetch instead.
pub fn other_version(dir: &Path) -> Option<(&'static str, DatasetName)> {
    let has = |folder: &str, names: &[&str]| {
        let all = |place: &Path| names.iter().all(|name| place.join(name).is_file());
        all(dir) || all(&dir.join(folder))
    };
    if has("cifar-10-batches-py", &["data_batch_1", "test_batch"]) || has("", &["cifar-10-python.tar.gz"]) {
        return Some(("the Python version of CIFAR-10", DatasetName::Cifar10));
    }
    if has("cifar-100-python", &["train", "test", "meta"]) || has("", &["cifar-100-python.tar.gz"]) {
        return Some(("the Python version of CIFAR-100", DatasetName::Cifar100));
    }
    None
}

/// Reads the whole set `name` from `dir` as [`load`] does and reports what is there.
///
/// # Errors
/// Those of [`load`].
pub fn check(name: DatasetName, dir: &Path) -> Result<SetReport, DataError> {
    let split = load(name, Some(dir), Limits::default())?;
    let info = name.info();
    let folder = files::find_root(dir, info.folders, info.present_names(), "a folder with the set's files")?;
    let report = |(path, published): (PathBuf, Option<&'static str>)| {
        let bytes = std::fs::metadata(&path).map_err(|source| DataError::Io { path: path.clone(), source })?.len();
        Ok(FileReport { md5: md5_of(&path)?, path, bytes, published })
    };
    let files = present(info, &folder).into_iter().map(report).collect::<Result<_, DataError>>()?;
    Ok(SetReport { name, folder, files, train: half(&*split.train), test: half(&*split.test) })
}

fn half(set: &dyn Dataset) -> HalfReport {
    let mut histogram = vec![0; set.class_names().len()];
    (0..set.len()).for_each(|index| histogram[set.label(index)] += 1);
    HalfReport { images: set.len(), histogram }
}

impl SetReport {
    /// The published number of images of a half, and what is there.
    pub fn half(&self, half: Half) -> (usize, &HalfReport) {
        match half {
            Half::Train => (self.name.info().train_images, &self.train),
            Half::Test => (self.name.info().test_images, &self.test),
        }
    }
}

/// MD5 of a file in lower-case hexadecimal digits. It tells a damaged file, not a forged one.
///
/// # Errors
/// When the file cannot be read.
pub fn md5_of(path: &Path) -> Result<String, DataError> {
    let io = |source| DataError::Io { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut context = md5::Context::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(format!("{:x}", context.finalize())),
            n => context.consume(&buffer[..n]),
        }
    }
}
