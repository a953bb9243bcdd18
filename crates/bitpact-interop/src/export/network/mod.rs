//! Everything of an integer network but its weight codes, as JSON: what `npy` writes beside its arrays and the other
//! formats keep as metadata. What is written is what is read back.

mod describe;
mod rebuild;

use bitpact_core::Grid;
use bitpact_graph::Move;
use bitpact_model::{TensorId, TensorKind};
use serde::{Deserialize, Serialize};

/// The version of the description.
pub(super) const VERSION: &str = "bitpact network 1";

/// A network without its weight codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) format: String,
    arch: String,
    input: Input,
    class_names: Vec<String>,
    layers: Vec<Layer>,
    outputs: Vec<Output>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    shape: [usize; 3],
    bits: u8,
    zero_point: Vec<u16>,
    scale: Vec<f32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    tensor: TensorId,
    zero: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    name: String,
    tensor: TensorId,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activation_bits: Option<u32>,
    scale: f64,
    zero: i64,
    lo: i32,
    hi: i32,
    shape: [usize; 3],
    op: Op,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant)] // A network has tens of them.
enum Op {
    Sum { terms: Vec<Term>, constant: Vec<i64>, shift: u32, added: Vec<Added>, end: End },
    MaxPool { tensor: TensorId, window: OfWindow },
    WindowSum { tensor: TensorId, window: OfWindow, padding_code: u32, factors: Vec<u32> },
    Concat { tensors: Vec<TensorId> },
    View { view: OfView },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Term {
    Product(Product),
    View { view: OfView, multiplier: Vec<i32> },
    Multiplication { a: OfView, b: OfView, zeros: [i64; 2], multiplier: Vec<i32> },
}

/// A product without its weight codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Product {
    pub(super) name: String,
    pub(super) tensor: TensorId,
    window: OfWindow,
    padding_code: u32,
    groups: usize,
    pub(super) weight_bits: u8,
    pub(super) grid: Grid,
    pub(super) weight: Names,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) halved: bool,
    crc32: u32,
    pub(super) multiplier: Vec<i32>,
}

/// CRC-32 of weight codes as little-endian int16.
fn crc32(codes: &[i16]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for codes in codes.chunks(1 << 12) {
        hasher.update(&codes.iter().flat_map(|code| code.to_le_bytes()).collect::<Vec<u8>>());
    }
    hasher.finalize()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// One name, or several in an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Many(Vec<String>),
}

impl Names {
    pub(super) fn of(mut names: Vec<String>) -> Self {
        if names.len() == 1 { Self::One(names.remove(0)) } else { Self::Many(names) }
    }

    pub(super) fn all(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// Where a format keeps the weight codes of a product.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    /// Tensors or files.
    pub(super) weight: Names,
    /// The tensor or file of the scales of its channels, where the weights are real numbers or a reader may want it.
    pub(super) scale: Option<String>,
    /// Whether `(q - 1) / 2` stands for the code q.
    pub(super) halved: bool,
}

impl Stored {
    /// The codes themselves, in tensors of these names.
    pub(super) fn plain(names: Vec<String>) -> Self {
        Self { weight: Names::of(names), scale: None, halved: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    view: OfView,
    multiplier: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum End {
    Codes { range: Range },
    Table { range: Range, tables: Vec<Vec<u8>> },
    Wide {},
    Output {},
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    lo: i32,
    hi: i32,
    by_channel: Vec<(i32, i32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfWindow {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
    dilation: [usize; 2],
    spread: [usize; 2],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfView {
    tensor: TensorId,
    moves: Vec<Move>,
    fill: i64,
}

/// The word for the numbers of a tensor.
pub(super) fn word(kind: TensorKind) -> &'static str {
    match kind {
        TensorKind::Image => "image",
        TensorKind::Codes => "codes",
        TensorKind::Sums => "sums",
        TensorKind::Wide => "wide",
        TensorKind::Output => "output",
    }
}

impl Network {
    /// Reads a description.
    ///
    /// # Errors
    /// Text that is none, or one of another version.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            format: String,
        }
        let wrong = |error: serde_json::Error| format!("no description of a network: {error}");
        match serde_json::from_str::<Version>(text).map_err(wrong)?.format.as_str() {
            VERSION => serde_json::from_str(text).map_err(wrong),
            other => Err(format!("a description called {other:?}, expected {VERSION:?}")),
        }
    }
}
