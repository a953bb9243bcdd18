//! What can be wrong with a set of images, each with the file, the place and what was expected.

use std::path::PathBuf;

/// Why a set could not be loaded or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to open or read a path.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder was asked for and something else is there.
    #[error("{} is not a folder; expected {expected}", path.display())]
    NotAFolder {
        /// The path that was given.
        path: PathBuf,
        /// What the folder should hold.
        expected: &'static str,
    },
    /// A file was asked for and something else, such as a folder, is there.
    #[error("{} is not a regular file; expected {expected}", path.display())]
    NotAFile {
        /// The path that was found.
        path: PathBuf,
        /// What the file should be.
        expected: &'static str,
    },
    /// A file of the set exists in none of the places it may be in.
    #[error("{set}: {file} not found; looked for {}", listed(tried))]
    MissingFile {
        /// Name of the set.
        set: &'static str,
        /// The file's name.
        file: String,
        /// The paths that were tried.
        tried: Vec<PathBuf>,
    },
    /// A file is not what its format says.
    #[error("{}: {message}", path.display())]
    Format {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A file is another set's.
    #[error("{} is the one of the data set `{found}`, not of `{expected}`", path.display())]
    OtherSet {
        /// Path of the file.
        path: PathBuf,
        /// The set it was published with.
        found: &'static str,
        /// The set that was asked for.
        expected: &'static str,
    },
    /// A file has another length than its format gives it.
    #[error("{} is {}: {found} bytes, expected {expected}", path.display(), if found < expected { "truncated" } else { "too long" })]
    WrongSize {
        /// Path of the file.
        path: PathBuf,
        /// Length of the file in bytes.
        found: u64,
        /// The format's length in bytes.
        expected: u64,
    },
    /// A record's label is not one of the set's classes.
    #[error("{}: record {record} (counted from 0, at byte {offset}) has label {label}, expected {smallest}..={largest}", path.display())]
    BadFileLabel {
        /// Path of the file.
        path: PathBuf,
        /// The record's place in the file, counted from 0.
        record: usize,
        /// The label's byte offset in the file, in the unpacked one where it is gzipped.
        offset: u64,
        /// The path that was found.
        label: u8,
        /// The smallest valid label.
        smallest: u8,
        /// The largest valid label.
        largest: u8,
    },
    /// An image side or the number of channels is zero.
    #[error("images of {h} x {w} pixels with {c} channels hold nothing; every one of the three must be at least 1")]
    EmptyShape {
        /// Number of rows.
        h: usize,
        /// Number of columns.
        w: usize,
        /// Number of channels.
        c: usize,
    },
    /// The pixel array does not hold one image per label.
    #[error("{labels} labels need {expected} bytes of pixels ({image} bytes an image), found {found}")]
    PixelCount {
        /// Number of labels of the set.
        labels: usize,
        /// Bytes of one image.
        image: usize,
        /// `labels * image`.
        expected: usize,
        /// Length of the pixel array.
        found: usize,
    },
    /// A label in memory is not below the number of classes.
    #[error("image {index} has label {label}, but there are {classes} classes: expected 0..{classes}")]
    BadLabel {
        /// The image.
        index: usize,
        /// Label of the example.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A set, or the part of it that was asked for, has no images.
    #[error("{what} has no images; at least one is needed")]
    Empty {
        /// The set, and why it is empty.
        what: String,
    },
    /// Images and targets are not of the same number.
    #[error("{images} bytes of images of {image} bytes need {expected} numbers of targets, found {found}")]
    TargetCount {
        /// Bytes of all images.
        images: usize,
        /// Bytes of one.
        image: usize,
        /// Numbers expected.
        expected: usize,
        /// Numbers found.
        found: usize,
    },
    /// A set with no classes.
    #[error("a set needs at least one class name")]
    NoClasses,
    /// No set has this name.
    #[error("unknown data set `{name}`; expected one of: {valid}")]
    UnknownName {
        /// The name that was typed.
        name: String,
        /// The valid names, separated by commas.
        valid: String,
    },
    /// A set that is read from files was asked for without a folder.
    #[error("the data set `{name}` is read from a folder: give it with --data DIR. {how}")]
    NeedsFolder {
        /// Name of the set.
        name: &'static str,
        /// How the files can be had, in words.
        how: String,
    },
    /// A folder was given for a set that reads none.
    #[error("the data set `{name}` reads no files, but --data {} was given; leave --data out or choose another --dataset (`folder` for data of one's own)", path.display())]
    UnusedFolder {
        /// Name of the set.
        name: &'static str,
        /// Path of the folder.
        path: PathBuf,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
