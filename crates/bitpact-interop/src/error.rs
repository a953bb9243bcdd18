//! What can be wrong with a foreign file.

use std::path::{Path, PathBuf};

use bitpact_model::ModelError;

/// A foreign file that cannot be read, or a network that has no counterpart here.
#[derive(Debug, thiserror::Error)]
pub enum InteropError {
    /// The file, with what is wrong at which place of it.
    #[error("{}: {what}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Place, what stands there and what was expected.
        what: String,
    },
    /// A file that bitpact exported and something changed since.
    #[error("{}: was changed after bitpact wrote it: {place}{version}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The first place that differs, and how.
        place: String,
        /// What is known of versions, in brackets, where the file was written by another one; else nothing.
        version: String,
    },
    /// Tensors or a description that make no model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl InteropError {
    /// An error about the file at `path`.
    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_owned(), what: what.into() }
    }
}

/// The beginning of a name of a file, as it may stand in a message.
pub(crate) fn short(name: &str) -> String {
    name.escape_debug().take(100).collect()
}
