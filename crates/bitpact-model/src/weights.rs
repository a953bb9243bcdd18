//! Weights from any float32 safetensors file, for starting from another network.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::{PREFIXES, floats, is_checkpoint, not_safetensors};
use crate::model::check_texts;
use crate::{Checkpoint, InputDescription, ModelError, Tensor, file};

/// Reads the named tensors of a safetensors file: a checkpoint of bitpact, whose model tensors are returned, or any
/// file with PyTorch's names. A leading `module.` is dropped from names, `num_batches_tracked` is passed over.
///
/// # Errors
/// A file that cannot be read, is not safetensors, has a tensor that is not float32, two of one name, or a name with
/// control characters.
pub fn load_weights(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>, ModelError> {
    load_weights_and_input(path).map(|(tensors, _)| tensors)
}

/// Loads weights as [`load_weights`] does, with the scale and zero point of pixels where the file holds them, as a
/// checkpoint of bitpact does.
///
/// # Errors
/// Those of [`load_weights`].
pub fn load_weights_and_input(
    path: impl AsRef<Path>,
) -> Result<(BTreeMap<String, Tensor>, Option<InputDescription>), ModelError> {
    let path = path.as_ref();
    from_bytes(&file::read(path)?).map_err(|e| e.in_file(path))
}

fn from_bytes(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, Option<InputDescription>), ModelError> {
    if is_checkpoint(bytes) {
        let model = Checkpoint::decode(bytes)?.model;
        return Ok((model.tensors, Some(model.input)));
    }
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| ModelError::Kind { kind: "safetensors file", what: not_safetensors(bytes, &e) })?;
    check_texts("tensor names", file.names())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let name = name.strip_prefix("module.").unwrap_or(name);
        if name.ends_with("num_batches_tracked") || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        if view.dtype() != Dtype::F32 {
            return Err(ModelError::tensor(name, format!("{:?}, expected F32", view.dtype())));
        }
        let tensor = Tensor { shape: view.shape().to_vec(), data: floats(view.data()) };
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(ModelError::tensor(name, "stands twice in the file, with and without `module.`"));
        }
    }
    Ok((tensors, None))
}
