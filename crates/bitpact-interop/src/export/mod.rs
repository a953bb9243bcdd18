//! Networks of integers as files of other programs.
//!
//! Every format is a function of the [`IntegerModel`], so what is exported is what was validated: weights are its
//! codes, and scales and biases come from its multipliers and constants, batch norm folded. docs/export.md says what
//! each format keeps.

mod back;
mod check;
mod folder;
mod integer;
mod meaning;
mod metadata;
mod moves;
mod network;
mod npy;
mod quantizers;
mod range;
mod real;
mod tensors;
mod writer;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bitpact_model::{IntegerLayer, IntegerModel, ModelError, write_atomically};
use prost::Message;

use crate::onnx::proto;
use crate::onnx::tensor::kind;

pub use back::{Exported, read_back};
pub use check::{CheckData, noise};

/// A form that an integer network can be exported in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// ONNX, operator set 13: quantized weights and activations in 8-bit integers between `QuantizeLinear`, `Clip` and
    /// `DequantizeLinear`, float operators between them.
    OnnxQcdq,
    /// ONNX, operator set 21 or 25: the same with integers of 4 and 2 bits.
    OnnxQdq,
    /// ONNX with the operators of QONNX: floats that `Quant` rounds.
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
    #[error("layer `{layer}` cannot be written as {format}: {what}; {} can express it", exact())]
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

/// Formats that express every layer of every network, in words.
fn exact() -> String {
    [Format::OnnxInteger, Format::Npy].map(Format::name).join(" and ")
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
        _ => onnx(model, format, options)?.encode_to_vec(),
    };
    Ok(write_atomically(path, &bytes)?)
}

/// A checked network in a format of ONNX.
fn onnx(model: &IntegerModel, format: Format, options: ExportOptions) -> Result<proto::Model, ExportError> {
    match format {
        Format::OnnxInteger => Ok(integer::write(model)),
        _ => real::write(model, format, options),
    }
}

/// Scale and zero of every tensor in a format, the image first: a real value x of it is the integer `x / scale + zero`.
fn meanings(model: &IntegerModel, format: Format) -> Vec<(f64, i64)> {
    if format == Format::OnnxInteger {
        return vec![(1.0, 0); model.layers.len() + 1];
    }
    let mut meanings: Vec<(f64, i64)> = meaning::of(model).into_iter().map(|of| (of.scale, of.zero)).collect();
    model.outputs.iter().for_each(|output| meanings[output.tensor].1 = output.zero);
    meanings
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
