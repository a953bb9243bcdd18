//! Everything of an integer network but its weight codes, as JSON: what `npy` writes beside its arrays and the other
//! formats keep as metadata. What is written is what is read back.

use bitpact_core::{Grid, Requantization};
use bitpact_graph::{Move, Padding, Shape, Window};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum,
    IntegerTerm, IntegerView, TensorId, TensorKind,
};
use serde::{Deserialize, Serialize};

use super::bits_of;
use super::meaning::{self, Meaning};

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
    /// The description of `model`, the codes of whose products stand where `stored` says, in their order.
    pub(super) fn of(model: &IntegerModel, stored: Vec<Stored>) -> Self {
        let meanings = meaning::of(model);
        let mut stored = stored.into_iter();
        let layers = model.layers.iter().enumerate();
        let layers = layers.map(|(i, layer)| Layer::of(model, i, layer, meanings[i + 1], &mut stored)).collect();
        let input = &model.input;
        Self {
            format: VERSION.to_owned(),
            arch: model.arch.clone(),
            input: Input {
                shape: sizes(model.input_shape),
                bits: input.bits,
                zero_point: input.zero_point.clone(),
                scale: input.scale.clone(),
            },
            class_names: model.class_names.clone(),
            layers,
            outputs: model.outputs.iter().map(|&IntegerOutput { tensor, zero }| Output { tensor, zero }).collect(),
        }
    }

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

    /// The network, whose codes `codes` finds: `[output][input of the group][row][column]` for a product of these
    /// sizes. It is not checked.
    ///
    /// # Errors
    /// A product that reads a tensor that is not there, or whose sizes fit no memory; errors of `codes`. The message
    /// names the product.
    pub(super) fn model(
        self,
        mut codes: impl FnMut(&Product, [usize; 4]) -> Result<Vec<i16>, String>,
    ) -> Result<IntegerModel, String> {
        let shapes: Vec<Shape> =
            std::iter::once(self.input.shape).chain(self.layers.iter().map(|layer| layer.shape)).map(shape).collect();
        let mut layers = Vec::new();
        for (i, layer) in self.layers.into_iter().enumerate() {
            let mut product = |product: Product| {
                let name = product.name.clone();
                let from = shapes[..=i].get(product.tensor).ok_or("reads a tensor that is not there")?;
                let product = product.integers(from.c, shapes[i + 1].c, &mut codes);
                product.map_err(|what: String| format!("`{name}`: {what}"))
            };
            let op = match layer.op {
                Op::Sum { terms, constant, shift, added, end } => {
                    let (mut found, mut mul) = (Vec::new(), Vec::new());
                    for term in terms {
                        let (term, multiplier) = match term {
                            Term::Product(of) => {
                                let multiplier = of.multiplier.clone();
                                (IntegerTerm::Product(product(of)?), multiplier)
                            }
                            Term::View { view, multiplier } => (IntegerTerm::View(view.integers()), multiplier),
                            Term::Multiplication { a, b, zeros, multiplier } => {
                                let (a, b) = (a.integers(), b.integers());
                                (IntegerTerm::Multiplication { a, b, zeros }, multiplier)
                            }
                        };
                        found.push(term);
                        mul.push(multiplier);
                    }
                    let all = || Range { lo: i32::MIN, hi: i32::MAX, by_channel: Vec::new() };
                    let (Range { lo, hi, by_channel: bounds }, end) = match end {
                        End::Codes { range } => (range, IntegerEnd::Codes),
                        End::Table { range, tables } => (range, IntegerEnd::Table(tables)),
                        End::Wide {} => (all(), IntegerEnd::Wide),
                        End::Output {} => (all(), IntegerEnd::Output),
                    };
                    let requant = Requantization { shift, mul, add: constant, lo, hi, bounds };
                    let base = added.into_iter().map(|added| (added.view.integers(), added.multiplier)).collect();
                    IntegerOp::Sum(IntegerSum { terms: found, requant, base, end })
                }
                Op::MaxPool { tensor, window } => IntegerOp::MaxPool { input: tensor, window: window.integers() },
                Op::WindowSum { tensor, window, padding_code, factors } => {
                    IntegerOp::WindowSum { input: tensor, window: window.integers(), padding_code, factors }
                }
                Op::Concat { tensors } => IntegerOp::Concat { inputs: tensors },
                Op::View { view } => IntegerOp::View(view.integers()),
            };
            let (name, shape) = (layer.name, shapes[i + 1]);
            layers.push(IntegerLayer { name, op, shape, lo: layer.lo, hi: layer.hi, scale: layer.scale });
        }
        let Input { bits, zero_point, scale, .. } = self.input;
        Ok(IntegerModel {
            arch: self.arch,
            input: InputDescription { bits, zero_point, scale },
            input_shape: shapes[0],
            class_names: self.class_names,
            layers,
            outputs: self.outputs.into_iter().map(|Output { tensor, zero }| IntegerOutput { tensor, zero }).collect(),
        })
    }
}

impl Layer {
    fn of(
        model: &IntegerModel,
        i: usize,
        layer: &IntegerLayer,
        meaning: Meaning,
        stored: &mut impl Iterator<Item = Stored>,
    ) -> Self {
        let kind = model.kind(i + 1);
        let op = match &layer.op {
            IntegerOp::Sum(sum) => {
                let terms = sum.terms.iter().zip(&sum.requant.mul);
                let requant = &sum.requant;
                let range = || Range { lo: requant.lo, hi: requant.hi, by_channel: requant.bounds.clone() };
                Op::Sum {
                    terms: terms.map(|(term, multiplier)| Term::of(term, multiplier.clone(), stored)).collect(),
                    constant: requant.add.clone(),
                    shift: requant.shift,
                    added: sum
                        .base
                        .iter()
                        .map(|(view, multiplier)| Added { view: OfView::of(view), multiplier: *multiplier })
                        .collect(),
                    end: match &sum.end {
                        IntegerEnd::Codes => End::Codes { range: range() },
                        IntegerEnd::Table(tables) => End::Table { range: range(), tables: tables.clone() },
                        IntegerEnd::Wide => End::Wide {},
                        IntegerEnd::Output => End::Output {},
                    },
                }
            }
            IntegerOp::MaxPool { input, window } => Op::MaxPool { tensor: *input, window: OfWindow::of(window) },
            IntegerOp::WindowSum { input, window, padding_code, factors } => Op::WindowSum {
                tensor: *input,
                window: OfWindow::of(window),
                padding_code: *padding_code,
                factors: factors.clone(),
            },
            IntegerOp::Concat { inputs } => Op::Concat { tensors: inputs.clone() },
            IntegerOp::View(view) => Op::View { view: OfView::of(view) },
        };
        Self {
            name: layer.name.clone(),
            tensor: i + 1,
            kind: word(kind).to_owned(),
            activation_bits: (kind == TensorKind::Codes).then(|| bits_of(layer.hi.into())),
            scale: layer.scale,
            zero: meaning.zero,
            lo: layer.lo,
            hi: layer.hi,
            shape: sizes(layer.shape),
            op,
        }
    }
}

impl Term {
    fn of(term: &IntegerTerm, multiplier: Vec<i32>, stored: &mut impl Iterator<Item = Stored>) -> Self {
        match term {
            IntegerTerm::Product(product) => {
                let Stored { weight, scale, halved } = stored.next().expect("every product was stored");
                Term::Product(Product {
                    name: product.name.clone(),
                    tensor: product.input,
                    window: OfWindow::of(&product.window),
                    padding_code: product.padding_code,
                    groups: product.groups,
                    weight_bits: product.weight_bits,
                    grid: product.grid,
                    weight,
                    scale,
                    halved,
                    crc32: crc32(&product.codes),
                    multiplier,
                })
            }
            IntegerTerm::View(view) => Term::View { view: OfView::of(view), multiplier },
            IntegerTerm::Multiplication { a, b, zeros } => {
                Term::Multiplication { a: OfView::of(a), b: OfView::of(b), zeros: *zeros, multiplier }
            }
        }
    }
}

impl Product {
    /// The product over `inputs` channels with `outputs` channels.
    fn integers(
        self,
        inputs: usize,
        outputs: usize,
        codes: &mut impl FnMut(&Product, [usize; 4]) -> Result<Vec<i16>, String>,
    ) -> Result<IntegerProduct, String> {
        let of_group = inputs.checked_div(self.groups).ok_or("0 groups, expected 1 or more")?;
        let [rows, columns] = self.window.kernel;
        let sizes = [outputs, of_group, rows, columns];
        let count = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let count = count.ok_or_else(|| format!("weights of {sizes:?}, which no memory holds"))?;
        if self.multiplier.len() != outputs {
            return Err(format!("{} multipliers, expected {outputs}", self.multiplier.len()));
        }
        let codes = codes(&self, sizes)?;
        if codes.len() != count {
            return Err(format!("{} weights, expected {count}", codes.len()));
        }
        if crc32(&codes) != self.crc32 {
            return Err("its weights are not those that were written".to_owned());
        }
        Ok(IntegerProduct {
            name: self.name,
            input: self.tensor,
            window: self.window.integers(),
            padding_code: self.padding_code,
            out_channels: outputs,
            in_channels: inputs,
            groups: self.groups,
            weight_bits: self.weight_bits,
            grid: self.grid,
            codes,
        })
    }
}

impl OfWindow {
    fn of(window: &Window) -> Self {
        let Window { kernel, stride, padding, dilation, spread } = *window;
        let padding = [padding.top, padding.left, padding.bottom, padding.right];
        Self { kernel, stride, padding, dilation, spread }
    }

    fn integers(self) -> Window {
        let Self { kernel, stride, padding: [top, left, bottom, right], dilation, spread } = self;
        Window { kernel, stride, padding: Padding { top, left, bottom, right }, dilation, spread }
    }
}

impl OfView {
    fn of(view: &IntegerView) -> Self {
        Self { tensor: view.input, moves: view.moves.clone(), fill: view.fill }
    }

    fn integers(self) -> IntegerView {
        IntegerView { input: self.tensor, moves: self.moves, fill: self.fill }
    }
}

fn sizes(shape: Shape) -> [usize; 3] {
    [shape.h, shape.w, shape.c]
}

fn shape([h, w, c]: [usize; 3]) -> Shape {
    Shape { h, w, c }
}
