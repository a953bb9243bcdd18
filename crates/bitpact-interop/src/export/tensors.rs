//! `safetensors`: float weights with their scales.

use std::collections::{BTreeSet, HashMap};

use bitpact_model::{IntegerModel, IntegerTerm, ModelError};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::meaning::{self, Affine};
use super::network::{Names, Stored};
use super::{ExportError, ExportOptions, Format, metadata, range};

/// The entry of the file's metadata.
pub(super) const ENTRY: &str = "bitpact.export";

/// A tensor's name, shape and little-endian elements.
type Named = (String, Vec<usize>, Vec<u8>);

/// The bytes of the file.
pub(super) fn write(model: &IntegerModel) -> Result<Vec<u8>, ExportError> {
    let (tensors, text) = contents(model)?;
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name, view)))
        .collect::<Result<Vec<_>, _>>();
    // One entry, so that the file is a function of the network: the order of several would be that of a hash table.
    let entry = HashMap::from([(ENTRY.to_owned(), text)]);
    let bytes = views.and_then(|views| safetensors::serialize(views, Some(entry)));
    let bytes = bytes.map_err(|error| ModelError::Kind { kind: "safetensors export", what: error.to_string() })?;
    Ok(bytes)
}

/// Every tensor: of a product its weights, `scale[o] * code`, and the scales, and of a sum with products its bias,
/// which has the name of its product where there is one, else that of the layer. A name that is taken gets a number.
/// And the text of the metadata.
pub(super) fn contents(model: &IntegerModel) -> Result<(Vec<Named>, String), ExportError> {
    let meanings = meaning::of(model);
    let mut tensors: Vec<Named> = Vec::new();
    let mut stored = Vec::new();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut fresh = |name: &str| {
        let numbered = (2..).map(|n| format!("{name}#{n}"));
        let all = std::iter::once(name.to_owned()).chain(numbered);
        all.into_iter().find(|name| taken.insert(name.clone())).expect("there is no last number")
    };
    for (i, layer) in model.layers.iter().enumerate() {
        let Some(sum) = layer.op.sum() else { continue };
        let Affine { gains, bias, .. } = meaning::affine(model, &meanings, i, sum);
        range::check(model, &meanings, i, sum, Format::Safetensors)?;
        let mut names = Vec::new();
        for (term, gains) in sum.terms.iter().zip(&gains) {
            let IntegerTerm::Product(product) = term else { continue };
            let step = meanings[product.input].scale;
            let scales: Vec<f32> = gains.iter().map(|gain| range::step(gain / step)).collect();
            let channels = product.codes.chunks_exact(product.weights_per_channel()).zip(&scales);
            let weights: Vec<f32> =
                channels.flat_map(|(codes, &scale)| codes.iter().map(move |&q| f32::from(q) * scale)).collect();
            let [rows, columns] = product.window.kernel;
            let shape = vec![product.out_channels, product.group_inputs(), rows, columns];
            let name = fresh(&product.name);
            let [weight, scale] = ["weight", "weight_scale"].map(|what| format!("{name}.{what}"));
            tensors.push((weight.clone(), shape, bytes(&weights)));
            tensors.push((scale.clone(), vec![scales.len()], bytes(&scales)));
            stored.push(Stored { weight: Names::One(weight), scale: Some(scale), halved: false });
            names.push(name);
        }
        if let Some(first) = names.first() {
            let name = if names.len() == 1 { first.clone() } else { fresh(&layer.name) };
            let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
            tensors.push((format!("{name}.bias"), vec![bias.len()], bytes(&bias)));
        }
    }
    let entries = metadata::entries(model, Format::Safetensors, ExportOptions::default(), stored);
    let object: serde_json::Map<String, serde_json::Value> =
        entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    Ok((tensors, serde_json::Value::from(object).to_string()))
}
