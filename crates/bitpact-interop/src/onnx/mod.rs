//! ONNX files: the graph becomes a network of ours.
//!
//! Nodes are read in the order of computation. What a name stands for is a constant, which operators on constants fold,
//! or a tensor of the network: a node of ours and where its elements stand in the file's tensor. Reshapes and
//! transpositions only change the latter. docs/onnx.md lists the operators and what each becomes.

mod build;
mod finish;
mod fold;
mod forms;
mod importer;
mod input;
mod layout;
mod names;
mod node;
mod ops;
mod points;
pub mod proto;
mod refusal;
pub(crate) mod tensor;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bitpact_kernels::memory;
use prost::bytes::Bytes;

use crate::{ImportOptions, Imported, InteropError};

pub use ops::operators;

/// Bytes of a file at the most, the limit of the format's own encoding.
const LONGEST_FILE: u64 = 1 << 31;

/// The network of the ONNX file `path`. Tensors that stand in other files are read where these lie in the folder of
/// `path` or below it.
///
/// # Errors
/// A file that cannot be read or is not ONNX, or a network that has no counterpart here: all nodes that have none are
/// named at once.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, InteropError> {
    let bytes = read(path).map_err(|what| InteropError::file(path, what))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("onnx");
    import_bytes(bytes, name, folder, path, options)
}

/// The network of the bytes of an ONNX file. `name` is the network's name where the file has none, `folder` where
/// tensors outside the file may be, `path` what errors call the file.
///
/// # Errors
/// Those of [`import`].
pub fn import_bytes(
    bytes: impl Into<Bytes>,
    name: &str,
    folder: &Path,
    path: &Path,
    options: &ImportOptions,
) -> Result<Imported, InteropError> {
    let model = proto::decode(bytes.into()).map_err(|what| InteropError::file(path, what))?;
    importer::import(&model, name, folder, path, options)
}

/// Sizes and elements of a tensor that stands in an ONNX message.
///
/// # Errors
/// Elements that are no numbers, or fewer or more of them than the sizes say.
pub fn numbers(tensor: &proto::Tensor) -> Result<(Vec<usize>, Vec<f64>), String> {
    let array = tensor::read(tensor, Path::new("."))?;
    let values = match array.data {
        tensor::Data::Float(data) => data.into_iter().map(f64::from).collect(),
        tensor::Data::Int(data) => data.into_iter().map(|v| v as f64).collect(),
    };
    Ok((array.dims, values))
}

/// The bytes of a file that may be one of ONNX.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read: {error}");
    let mut file = File::open(path).map_err(cannot)?;
    let mut first = [0];
    let n = file.read(&mut first).map_err(cannot)?;
    // Keys of the fields that a file may begin with.
    if n == 0 || !matches!(first[0], 0x08 | 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72) {
        return Err("is not an ONNX file: it begins with no field of one".to_owned());
    }
    let size = file.metadata().map_err(cannot)?.len();
    if size > LONGEST_FILE {
        return Err(format!("has {size} bytes, expected at most {LONGEST_FILE}, the most that the format can hold"));
    }
    // The file, and its tensors as float32.
    memory::check(size.saturating_mul(2)).map_err(|shortage| shortage.to_string())?;
    let mut bytes = first.to_vec();
    file.take(LONGEST_FILE).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}
