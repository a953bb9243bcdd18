//! What every file says beside its weights.

use bitpact_model::{IntegerLayer, IntegerModel, TensorKind};
use serde_json::{Value, json};

use super::network::{Network, Stored, word};
use super::{ExportOptions, Format, bits_of};

/// Prefix of the keys.
pub(super) const PREFIX: &str = "bitpact.";
/// Name of the format.
pub(super) const FORMAT: &str = "bitpact.format";
/// Present where [`ExportOptions::rounded_biases`] is set.
pub(super) const ROUNDED: &str = "bitpact.rounded_biases";
/// Everything of the network but its weight codes ([`Network`]).
pub(super) const NETWORK: &str = "bitpact.network";

/// The entries: widths and scales of every layer, what the input means, and the network, the codes of whose products
/// stand where `stored` says.
pub(super) fn entries(
    model: &IntegerModel,
    format: Format,
    options: ExportOptions,
    stored: Vec<Stored>,
) -> Vec<(&'static str, String)> {
    let layers: Vec<Value> = model.layers.iter().enumerate().map(|(i, layer)| describe(model, i, layer)).collect();
    let outputs: Vec<Value> = model
        .outputs
        .iter()
        .map(|output| json!({ "name": model.layers[output.tensor - 1].name, "zero": output.zero }))
        .collect();
    let input = json!({ "bits": model.input.bits, "zero_point": model.input.zero_point, "scale": model.input.scale });
    let network = Network::of(model, stored);
    let mut entries = vec![
        (FORMAT, format.name().to_owned()),
        ("bitpact.arch", model.arch.clone()),
        ("bitpact.input", input.to_string()),
        ("bitpact.classes", json!(model.class_names).to_string()),
        ("bitpact.outputs", Value::from(outputs).to_string()),
        ("bitpact.layers", Value::from(layers).to_string()),
        (NETWORK, serde_json::to_string(&network).expect("numbers of a checked network are finite")),
    ];
    if options.rounded_biases {
        entries.push((ROUNDED, true.to_string()));
    }
    entries
}

/// Widths and scale of a layer.
fn describe(model: &IntegerModel, i: usize, layer: &IntegerLayer) -> Value {
    let kind = model.kind(i + 1);
    let products: Vec<Value> = layer
        .op
        .products()
        .map(|product| {
            json!({
                "name": product.name,
                "weight_bits": product.weight_bits,
                "grid": product.grid.name(),
                "groups": product.groups,
            })
        })
        .collect();
    let mut object = json!({ "name": layer.name, "kind": word(kind), "scale": layer.scale });
    if kind == TensorKind::Codes {
        object["lo"] = json!(layer.lo);
        object["hi"] = json!(layer.hi);
        object["activation_bits"] = json!(bits_of(layer.hi.into()));
    }
    if !products.is_empty() {
        object["products"] = products.into();
    }
    object
}
