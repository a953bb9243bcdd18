//! The figures of a network, as JSON.

use bitpact_model::IntegerModel;
use serde_json::{Value, json};

use super::ends::Parameter;
use super::{Footprint, Language};

/// Flash, memory and multiply-adds, as JSON.
pub(in crate::source) fn json(
    model: &IntegerModel,
    parameters: &[Parameter],
    footprint: &Footprint,
    language: Language,
) -> String {
    let element = |p: &Parameter| match language {
        Language::C => p.element.c(),
        Language::Rust => p.element.rust(),
    };
    let layers: Vec<Value> = footprint
        .layers
        .iter()
        .map(|layer| {
            json!({
                "name": layer.name,
                "weight_bytes": layer.weight_bytes,
                "constant_bytes": layer.constant_bytes,
                "output_bytes": layer.output_bytes,
                "macs": layer.macs,
            })
        })
        .collect();
    let outputs: Vec<Value> = parameters
        .iter()
        .map(|p| {
            json!({ "parameter": p.name, "layer": model.layers[p.tensor - 1].name, "type": element(p),
                "elements": p.elements, "scale": p.scale, "zero": p.zero })
        })
        .collect();
    let contents = json!({
        "name": footprint.name,
        "arch": model.arch,
        "flash_bytes": footprint.flash_bytes(),
        "weight_bytes": footprint.weight_bytes,
        "constant_bytes": footprint.constant_bytes,
        "ram_bytes": footprint.ram_bytes,
        "arena_bytes": footprint.arena_bytes,
        "live_bytes": footprint.live_bytes,
        "macs": footprint.macs(),
        "outputs": outputs,
        "layers": layers,
        "class_names": model.class_names,
    });
    format!("{contents:#}\n")
}
