//! ONNX files.

use std::path::Path;

use crate::{ImportOptions, Imported, InteropError};

/// The network of the ONNX file `path`.
///
/// # Errors
/// Files of ONNX are not read.
pub fn import(path: &Path, _options: &ImportOptions) -> Result<Imported, InteropError> {
    Err(InteropError::file(path, "neither a PyTorch nor a safetensors file"))
}
