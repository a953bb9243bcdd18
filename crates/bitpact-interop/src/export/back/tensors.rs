//! Safetensors files.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

use super::super::Format;
use super::super::metadata::{FORMAT, NETWORK};
use super::super::network::{Network, Product};
use super::super::tensors::{ENTRY, contents};
use super::{Exported, Fault, changed, codes_of_reals, network};

/// The network of a file; `None` where it does not say that it is one.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Exported>, Fault> {
    let wrong = |error: safetensors::SafeTensorError| Fault::Wrong(format!("is no safetensors file: {error}"));
    let Ok((_, header)) = SafeTensors::read_metadata(bytes) else { return Ok(None) };
    let Some(text) = header.metadata().as_ref().and_then(|entries| entries.get(ENTRY)) else { return Ok(None) };
    let Ok(entries) = serde_json::from_str::<BTreeMap<String, String>>(text) else { return Ok(None) };
    let Some(description) = entries.get(NETWORK) else { return Ok(None) };
    if entries.get(FORMAT).map(String::as_str) != Some(Format::Safetensors.name()) {
        return Err(Fault::Wrong(format!("its `{FORMAT}` is not {}", Format::Safetensors)));
    }
    let description = Network::parse(description)?;
    let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
    let floats = |name: &str| -> Result<Vec<f32>, String> {
        let tensor = file.tensor(name).map_err(|error| error.to_string())?;
        match tensor.dtype() {
            Dtype::F32 => Ok(tensor.data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()),
            other => Err(format!("a tensor of {other:?}, expected F32")),
        }
    };
    let codes = |product: &Product, sizes: [usize; 4]| {
        let ([weight], Some(scale)) = (product.weight.all(), &product.scale) else {
            return Err("weights without a tensor or a scale".to_owned());
        };
        codes_of_reals(&floats(weight)?, &floats(scale)?, sizes[0])
    };
    let model = network(description, codes)?;
    let (tensors, again) = contents(&model).map_err(|error| Fault::Wrong(error.to_string()))?;
    if again != *text {
        return Err(changed("the metadata say something else"));
    }
    if tensors.len() != file.len() {
        return Err(changed(format!("{} tensors instead of {}", file.len(), tensors.len())));
    }
    for (name, shape, bytes) in tensors {
        let is_same = file.tensor(&name).is_ok_and(|tensor| {
            (tensor.dtype(), tensor.shape(), tensor.data()) == (Dtype::F32, &shape[..], &bytes[..])
        });
        if !is_same {
            return Err(changed(format!("the tensor `{name}` is another")));
        }
    }
    Ok(Some(Exported { model, format: Format::Safetensors }))
}
