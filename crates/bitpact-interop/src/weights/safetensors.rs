//! safetensors files, one or several with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path};

use bitpact_model::{Tensor, read_model_file};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::Named;
use super::dtype::DType;
use crate::InteropError;
use crate::error::short;

/// Bytes of an index at the most.
const LONGEST_INDEX: u64 = 1 << 26;

/// Named tensors of the safetensors file `path`, which `bytes` are, in the order in which they lie in it.
///
/// # Errors
/// Bytes that are none, or a tensor whose numbers are of a type that is not read.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Named, InteropError> {
    named(bytes).map_err(|what| InteropError::file(path, what))
}

fn named(bytes: &[u8]) -> Result<Named, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            Dtype::I64 => DType::I64,
            Dtype::I32 => DType::I32,
            Dtype::I16 => DType::I16,
            Dtype::I8 => DType::I8,
            Dtype::U8 => DType::U8,
            Dtype::BOOL => DType::Bool,
            other => {
                let name = short(name);
                return Err(format!("tensor `{name}`: numbers of type {other:?}, expected F64, F32, F16 or BF16"));
            }
        };
        Ok((name.to_owned(), Tensor { shape: view.shape().to_vec(), data: dtype.floats(view.data()) }))
    };
    // By their places; the library's own order is that of no file.
    let mut views: Vec<_> = file.iter().collect();
    views.sort_by_key(|(name, view)| (view.data().as_ptr(), *name));
    views.into_iter().map(tensor).collect()
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Named tensors of the files that the index `path` lists, file after file.
///
/// # Errors
/// An index that cannot be read, a file outside its folder, or a tensor that is not in its file.
pub(super) fn read_sharded(path: &Path) -> Result<Named, InteropError> {
    let wrong = |what: String| InteropError::file(path, what);
    let bytes = bitpact_kernels::memory::read_at_most(path, LONGEST_INDEX)
        .map_err(|error| wrong(format!("cannot read: {error}")))?;
    let Index { weight_map } = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("not an index of safetensors files (`weight_map`): {error}")))?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut tensors = Vec::new();
    for shard in shards {
        let is_name = Path::new(shard).components().eq([Component::Normal(OsStr::new(shard))]);
        if !is_name {
            return Err(wrong(format!("`{}` is no name of a file in the folder of the index", short(shard))));
        }
        let listed = |(name, _): &(String, Tensor)| weight_map.get(name) == Some(shard);
        let file = folder.join(shard);
        tensors.extend(read(&read_model_file(&file)?, &file)?.into_iter().filter(listed));
    }
    let read: BTreeSet<&String> = tensors.iter().map(|(name, _)| name).collect();
    if let Some((name, shard)) = weight_map.iter().find(|(name, _)| !read.contains(name)) {
        return Err(wrong(format!("tensor `{}` is not in `{}`, where it should be", short(name), short(shard))));
    }
    Ok(tensors)
}
