//! Networks of integers as files of other programs.
//!
//! Every format is a function of the [`IntegerModel`], so what is exported is what was validated: weights are its
//! codes, and scales and biases come from its multipliers and constants, batch norm folded. docs/export.md says what
//! each format keeps.

mod check;
mod folder;
mod integer;
mod meaning;
mod moves;
mod npy;
mod quantizers;
mod real;
mod tensors;
mod writer;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bitpact_model::{IntegerLayer, IntegerModel, ModelError, TensorKind, write_atomically};
use serde_json::{Value, json};

use crate::onnx::tensor::kind;

pub use check::CheckData;

/// A form that an integer network can be exported in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// ONNX, operator set 13: quantized weights and activations in 8-bit integers between `QuantizeLinear`, `Clip` and
    /// `DequantizeLinear`, float operators between them.
    OnnxQcdq,
    /// ONNX, operator set 21 or 25: the same with integers of 4 and 2 bits.
    OnnxQdq,
    /// ONNX with the operators of QONNX: floats that `IntQuant` rounds.
    Qonnx,
    /// ONNX, operator set 13, in integer operators: the same numbers as the network's own.
    OnnxInteger,
    /// A folder of NumPy files with a JSON file of every constant.
    Npy,
    /// A safetensors file of float weights with their scales.
    Safetensors,
}

impl Format {
    /// Every format of export.
    pub const ALL: [Format; 6] =
        [Format::OnnxQcdq, Format::OnnxQdq, Format::Qonnx, Format::OnnxInteger, Format::Npy, Format::Safetensors];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::OnnxQcdq => "onnx-qcdq",
            Format::OnnxQdq => "onnx-qdq",
            Format::Qonnx => "qonnx",
            Format::OnnxInteger => "onnx-integer",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
        }
    }

    /// Tells whether the format is a file of ONNX.
    pub fn is_onnx(self) -> bool {
        !matches!(self, Format::Npy | Format::Safetensors)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Format::ALL.map(Format::name).join(", ");
        Format::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| format!("unknown format `{name}`, expected one of {}", names()))
    }
}

/// Choices of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// For [`Format::OnnxQcdq`] and [`Format::OnnxQdq`]: biases stay in their convolutions, so that runtimes make 8-bit
    /// integer convolutions of these, whose biases they round to whole products of codes. Else a bias that this would
    /// move by more than a thousandth of a code is added after its convolution.
    pub rounded_biases: bool,
}

/// Why a network cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A layer that the format cannot express.
    #[error("layer `{layer}` cannot be written as {format}: {what}; {}", others(*.format))]
    Layer {
        /// Name of the layer.
        layer: String,
        /// The format.
        format: Format,
        /// Error that caused this one.
        what: String,
    },
    /// An invalid network, or a file that cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Formats that express every layer, in words.
fn others(format: Format) -> String {
    let complete = [Format::OnnxQcdq, Format::OnnxInteger, Format::Npy];
    let names: Vec<&str> = complete.into_iter().filter(|&other| other != format).map(Format::name).collect();
    format!("{} can express it", names.join(" and "))
}

/// Writes `model` to `path`: a file, or, for [`Format::Npy`], a folder. Nothing is half written: a file appears as a
/// whole, and of a folder the JSON file comes last.
///
/// # Errors
/// A network that is not valid, a layer that the format cannot express, named together with the formats that can, or a
/// file that cannot be written.
pub fn export(model: &IntegerModel, format: Format, options: ExportOptions, path: &Path) -> Result<(), ExportError> {
    model.check()?;
    let bytes = match format {
        Format::Npy => return folder::write(model, path),
        Format::Safetensors => tensors::write(model)?,
        Format::OnnxInteger => integer::write(model)?,
        Format::OnnxQcdq | Format::OnnxQdq | Format::Qonnx => real::write(model, format, options),
    };
    Ok(write_atomically(path, &bytes)?)
}

/// Scale and zero of every tensor in a format, the image first: a real value x of it is the integer `x / scale + zero`.
fn meanings(model: &IntegerModel, format: Format) -> Vec<(f64, i64)> {
    match format {
        Format::OnnxInteger => vec![(1.0, 0); model.layers.len() + 1],
        _ => meaning::of(model).into_iter().map(|meaning| (meaning.scale, meaning.zero)).collect(),
    }
}

/// Sizes of a layer's value behind the batch: channels alone where it is an output of one pixel.
fn shape_dims(layer: &IntegerLayer) -> Vec<usize> {
    let shape = layer.shape;
    match layer.op.is_output() && (shape.h, shape.w) == (1, 1) {
        true => vec![shape.c],
        false => vec![shape.c, shape.h, shape.w],
    }
}

/// Number of the element type of the input: uint8, or uint16 of codes of 16 bits.
fn input_kind(model: &IntegerModel) -> i32 {
    if model.input.bits == 8 { kind::UINT8 } else { kind::UINT16 }
}

/// Bits that hold the values 0 to `largest`.
fn bits_of(largest: i64) -> u32 {
    i64::BITS - largest.leading_zeros()
}

/// What every ONNX file says beside its graph: widths and scales of every layer, and what the input means.
fn metadata(model: &IntegerModel, format: Format) -> Vec<(&'static str, String)> {
    let layers: Vec<Value> = model.layers.iter().enumerate().map(|(i, layer)| describe(model, i, layer)).collect();
    let outputs: Vec<Value> = model
        .outputs
        .iter()
        .map(|output| json!({ "name": model.layers[output.tensor - 1].name, "zero": output.zero }))
        .collect();
    let input = json!({ "bits": model.input.bits, "zero_point": model.input.zero_point, "scale": model.input.scale });
    vec![
        ("bitpact.format", format.name().to_owned()),
        ("bitpact.arch", model.arch.clone()),
        ("bitpact.input", input.to_string()),
        ("bitpact.classes", json!(model.class_names).to_string()),
        ("bitpact.outputs", Value::from(outputs).to_string()),
        ("bitpact.layers", Value::from(layers).to_string()),
    ]
}

/// Widths and scale of a layer.
fn describe(model: &IntegerModel, i: usize, layer: &IntegerLayer) -> Value {
    let kind = match model.kind(i + 1) {
        TensorKind::Image => "image",
        TensorKind::Codes => "codes",
        TensorKind::Sums => "sums",
        TensorKind::Wide => "wide",
        TensorKind::Output => "output",
    };
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
    let mut object = json!({ "name": layer.name, "kind": kind, "scale": layer.scale });
    if kind == "codes" {
        object["lo"] = json!(layer.lo);
        object["hi"] = json!(layer.hi);
        object["activation_bits"] = json!(bits_of(layer.hi.into()));
    }
    if !products.is_empty() {
        object["products"] = products.into();
    }
    object
}
