//! Named tensors of PyTorch and safetensors files.

use std::path::Path;

use crate::{ImportOptions, Imported, InteropError, Kind};

/// The network of the zoo that the tensors of the file `path`, which is of this kind, belong to.
///
/// # Errors
/// Such files are not read.
pub fn import(path: &Path, kind: Kind, _options: &ImportOptions) -> Result<Imported, InteropError> {
    Err(InteropError::file(path, format!("a file of kind {kind:?}, which is not read")))
}
