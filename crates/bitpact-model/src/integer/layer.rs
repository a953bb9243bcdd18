//! What a layer of an integer network computes.

use bitpact_core::{Grid, Requantization};
use bitpact_graph::{Move, Shape, Window};

/// Number of a tensor: 0 is the image, `i + 1` the output of `layers[i]`.
pub type TensorId = usize;

/// One layer of an integer network.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerLayer {
    /// Name of the last graph node the layer stands for, such as `layer1.0.act1`, `avgpool` or `linear`.
    pub name: String,
    /// Operation of the layer.
    pub op: IntegerOp,
    /// Shape of the output.
    pub shape: Shape,
    /// Smallest value of the output; 0 for an output of the network, whose range is not one of codes.
    pub lo: i32,
    /// Largest value of the output; 0 for an output of the network.
    pub hi: i32,
    /// Real value of one code: information, not needed to compute.
    pub scale: f64,
}

/// An output of an integer network: a value q of its tensor means `scale * (q - zero)`, `scale` being its layer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntegerOutput {
    /// The tensor: codes, sums, values of 32 bits, or values of 64 bits that no layer reads.
    pub tensor: TensorId,
    /// The value that stands for zero.
    pub zero: i64,
}

/// Operation of an integer layer.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // A network has tens of them.
pub enum IntegerOp {
    /// A sum of terms.
    Sum(IntegerSum),
    /// Largest code or 32-bit value of each window; padding never wins.
    MaxPool {
        /// Tensor that is read.
        input: TensorId,
        /// The window, which is not spread.
        window: Window,
    },
    /// Sum of the codes of a channel over each window; padding reads `padding_code`. One window over all of the tensor
    /// is a global sum. With factors, of `n` codes `(sum - n * padding_code) * factor + n * padding_code * largest
    /// factor`, so that padding adds nothing and one value stands for zero at every position.
    WindowSum {
        /// Tensor that is read.
        input: TensorId,
        /// The window, which is not spread.
        window: Window,
        /// Code of the padding; 0 without padding.
        padding_code: u32,
        /// Factor of the sum at each output position, `[row][column]`: for averages that do not all divide
        /// by the same number, the least common multiple over each divisor. Empty where all are 1.
        factors: Vec<u32>,
    },
    /// The channels of several tensors, one after the other: all of codes or all wide.
    Concat {
        /// Tensors read, at least two.
        inputs: Vec<TensorId>,
    },
    /// A tensor with its elements moved.
    View(IntegerView),
}

/// `end(((sum over terms t of value_t * mul[t][c] + add[c]) >> shift) + sum of base_b * multiplier_b)`.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerSum {
    /// Terms that are summed and then shifted.
    pub terms: Vec<IntegerTerm>,
    /// Multipliers of the terms, constants and shift, and the range of what the end reads.
    pub requant: Requantization,
    /// Views that are added after the shift, each times its multiplier: the shortcuts of a residual stream. There is at
    /// least one term or one of these.
    pub base: Vec<(IntegerView, i32)>,
    /// Form of the output.
    pub end: IntegerEnd,
}

/// One term of a layer's sum.
#[derive(Debug, Clone, PartialEq)]
pub enum IntegerTerm {
    /// A convolution or linear layer.
    Product(IntegerProduct),
    /// A view of a tensor.
    View(IntegerView),
    /// `(a - zero_a) * (b - zero_b)`, element by element; where b is 1x1xc, it stands for every pixel.
    Multiplication {
        /// View that is the first factor.
        a: IntegerView,
        /// View that is the second factor.
        b: IntegerView,
        /// The code of each that stands for zero.
        zeros: [i64; 2],
    },
}

/// Form of the output of a sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntegerEnd {
    /// Codes: clamped to the range of the requantization, or of its channel.
    Codes,
    /// Codes through a table: what is clamped to the range of the requantization, less its `lo`, is looked up. One
    /// table for all channels, or one each, of `hi - lo + 1` codes, at most 256.
    Table(Vec<Vec<u8>>),
    /// Values of 32 bits, which nothing clamps.
    Wide,
    /// An output of the network that no layer reads: values of 64 bits, without a shift. Of classes, the prediction is
    /// the largest, and of equal ones the first.
    Output,
}

/// Kind of the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// The pixels.
    Image,
    /// Codes of 0 to 255 at most.
    Codes,
    /// Sums of codes, from 0.
    Sums,
    /// Values of 32 bits, of both signs.
    Wide,
    /// An output of the network.
    Output,
}

/// A tensor, as it is or with its elements moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegerView {
    /// Tensor that is read.
    pub input: TensorId,
    /// Moves applied to the tensor, in order.
    pub moves: Vec<Move>,
    /// Value of elements that the moves insert: what stands for zero. 0 where none are.
    pub fill: i64,
}

impl IntegerView {
    /// The tensor as it is.
    pub fn of(input: TensorId) -> Self {
        Self { input, moves: Vec::new(), fill: 0 }
    }

    /// Tells whether one of the view's moves inserts elements.
    pub fn inserts(&self) -> bool {
        self.moves.iter().any(Move::inserts)
    }
}

/// `acc[o] = sum of codes[o][i][y][x] * q[first + i][y][x]` over a window of raw codes of the input, `first` being the
/// first input channel of o's group.
///
/// Padding reads the zero point of the channel where the input is the image, and `padding_code` elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegerProduct {
    /// Name of the graph node, such as `layer1.0.conv1`.
    pub name: String,
    /// Tensor that is read.
    pub input: TensorId,
    /// The window; all of the input for a linear layer.
    pub window: Window,
    /// Code of the padding: what stands for zero in the input. 0 without padding, and where the input is the image.
    pub padding_code: u32,
    /// Output channels.
    pub out_channels: usize,
    /// Input channels, of all groups.
    pub in_channels: usize,
    /// Equal groups of input and output channels: an output sees the inputs of its own group only.
    pub groups: usize,
    /// Bits of a weight code: 1 to 8, or 16.
    pub weight_bits: u8,
    /// Grid of the codes; with zero at 16 bits.
    pub grid: Grid,
    /// Weight codes, OIHW with `I = in_channels / groups`.
    pub codes: Vec<i16>,
}

/// Whether a window over a tensor reads padding, beside it or between its elements.
pub(crate) fn reads_padding(window: &Window) -> bool {
    !window.padding.is_none() || window.spread != [1; 2]
}

impl IntegerProduct {
    /// Weights of one output channel.
    pub fn weights_per_channel(&self) -> usize {
        self.group_inputs() * self.window.kernel[0] * self.window.kernel[1]
    }

    /// Input channels of one group.
    pub fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    /// First input channel of the group of output channel `o`.
    pub fn first_input(&self, o: usize) -> usize {
        o / (self.out_channels / self.groups) * self.group_inputs()
    }

    /// Codes of output channel `o`: `[in_channels / groups][kernel rows][kernel columns]`.
    pub fn channel(&self, o: usize) -> &[i16] {
        let n = self.weights_per_channel();
        &self.codes[o * n..(o + 1) * n]
    }

    /// Tells whether padding is read, beside the input or between its elements.
    pub fn reads_padding(&self) -> bool {
        reads_padding(&self.window)
    }
}

impl IntegerTerm {
    /// The product, where the term is one.
    pub fn product(&self) -> Option<&IntegerProduct> {
        match self {
            IntegerTerm::Product(product) => Some(product),
            _ => None,
        }
    }

    /// Every tensor the term reads.
    pub fn inputs(&self) -> Vec<TensorId> {
        match self {
            IntegerTerm::Product(product) => vec![product.input],
            IntegerTerm::View(view) => vec![view.input],
            IntegerTerm::Multiplication { a, b, .. } => vec![a.input, b.input],
        }
    }
}

impl IntegerOp {
    /// The sum, where the layer is one.
    pub fn sum(&self) -> Option<&IntegerSum> {
        match self {
            IntegerOp::Sum(sum) => Some(sum),
            _ => None,
        }
    }

    /// The products of the layer, in the order of its terms.
    pub fn products(&self) -> impl Iterator<Item = &IntegerProduct> {
        self.sum().into_iter().flat_map(|sum| sum.terms.iter().filter_map(IntegerTerm::product))
    }

    /// Kind of the layer's output, where `kinds` holds the kind of every tensor before it.
    pub(crate) fn kind(&self, kinds: &[TensorKind]) -> TensorKind {
        let of = |input: TensorId| kinds.get(input).copied().unwrap_or(TensorKind::Codes);
        match self {
            IntegerOp::Sum(sum) => match sum.end {
                IntegerEnd::Codes | IntegerEnd::Table(_) => TensorKind::Codes,
                IntegerEnd::Wide => TensorKind::Wide,
                IntegerEnd::Output => TensorKind::Output,
            },
            IntegerOp::MaxPool { input, .. } => of(*input),
            IntegerOp::WindowSum { .. } => TensorKind::Sums,
            // All inputs of a concatenation are of one kind.
            IntegerOp::Concat { inputs } => inputs.first().map_or(TensorKind::Codes, |&input| of(input)),
            IntegerOp::View(view) => of(view.input),
        }
    }

    /// Tells whether the layer is an output of the network.
    pub fn is_output(&self) -> bool {
        self.sum().is_some_and(|sum| sum.end == IntegerEnd::Output)
    }

    /// Tells whether the layer gives values of 32 bits.
    pub fn is_wide(&self) -> bool {
        self.sum().is_some_and(|sum| sum.end == IntegerEnd::Wide)
    }

    /// Every tensor the layer reads.
    pub fn inputs(&self) -> Vec<TensorId> {
        match self {
            IntegerOp::MaxPool { input, .. } | IntegerOp::WindowSum { input, .. } => vec![*input],
            IntegerOp::Concat { inputs } => inputs.clone(),
            IntegerOp::View(view) => vec![view.input],
            IntegerOp::Sum(sum) => {
                let terms = sum.terms.iter().flat_map(IntegerTerm::inputs);
                terms.chain(sum.base.iter().map(|(view, _)| view.input)).collect()
            }
        }
    }
}
