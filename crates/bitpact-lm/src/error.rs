//! What can go wrong with language models.

use std::path::{Path, PathBuf};

use bitpact_ptq::PtqError;

/// A model, a file or a request that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LmError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error that caused this one.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error that caused this one.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {what}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Place and expectation.
        what: String,
    },
    /// A model that is not of the family that is run here.
    #[error("{0}")]
    Unsupported(String),
    /// Tokens, text or lengths that do not suit the model.
    #[error("{0}")]
    Input(String),
    /// A layer that cannot be quantized.
    #[error("{layer}: {source}")]
    Layer {
        /// Name of the weights.
        layer: String,
        /// Error that caused this one.
        source: PtqError,
    },
    /// The work was stopped from outside.
    #[error("stopped")]
    Stopped,
}

impl LmError {
    pub(crate) fn file(path: &Path, what: impl Into<String>) -> LmError {
        LmError::File { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> LmError {
        let path = path.to_owned();
        move |source| LmError::Read { path, source }
    }
}
