//! The integer network: the value that is shipped, run, and promised to be exact.

mod check;

pub(crate) use check::{check_shape, output as layer_output};

use std::path::Path;

use bitpact_core::{Grid, IntegerStep};
use bitpact_graph::Shape;

use crate::{InputDescription, ModelError, file};

/// Which tensor: 0 is the image, `i + 1` the output of `layers[i]`.
pub type TensorId = usize;

/// A network of integers. Codes are unsigned, at most 255; sums of codes, residual streams and the logits are wider
/// ([`TensorKind`]).
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerModel {
    /// Name of the architecture.
    pub arch: String,
    /// What a pixel means; the zero point is also what padding of the image holds.
    pub input: InputDescription,
    /// Shape of the image.
    pub input_shape: Shape,
    /// One name a class.
    pub class_names: Vec<String>,
    /// The layers in the order of computation; the last one, and no other, is [`IntegerOp::Logits`].
    pub layers: Vec<IntegerLayer>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerLayer {
    /// Name of the last graph node the layer stands for, such as `layer1.0.act1`, `avgpool` or `linear`.
    pub name: String,
    /// What it computes.
    pub op: IntegerOp,
    /// Shape of the output.
    pub shape: Shape,
    /// Smallest output code; 0 for the logits, whose range is not one of codes.
    pub lo: i32,
    /// Largest output code; 0 for the logits.
    pub hi: i32,
    /// Real value of one code: information, not needed to compute.
    pub scale: f64,
}

/// What a layer computes.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // A network has tens of them.
pub enum IntegerOp {
    /// `step(product, second product or residual code)`: convolution to activation.
    Product {
        /// The product; its sum is the step's `acc`.
        main: IntegerProduct,
        /// A projection shortcut; its sum is the step's `acc2`.
        second: Option<IntegerProduct>,
        /// An identity shortcut; its code is the step's `res`.
        residual: Option<IntegerResidual>,
        /// From sums to codes.
        step: IntegerStep,
    },
    /// `logit[c] = acc * mul[c] + add[c]`, in i64, on one scale for all classes. The prediction is the largest, and of equal ones
    /// the first.
    Logits {
        /// The product.
        main: IntegerProduct,
        /// Multiplier per class.
        mul: Vec<i32>,
        /// Constant per class.
        add: Vec<i64>,
    },
    /// Largest code of each window; padding never wins.
    MaxPool {
        /// Tensor read.
        input: TensorId,
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        stride: usize,
        /// Padding on every side.
        padding: usize,
    },
    /// Sum of the codes of a channel over all pixels; the shape becomes 1x1xc.
    SumPool {
        /// Tensor read.
        input: TensorId,
    },
    /// Sum of the codes of a channel over each window; padding reads `padding_code`.
    WindowSum {
        /// Tensor read.
        input: TensorId,
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        stride: usize,
        /// Padding on every side.
        padding: usize,
        /// Code of the padding; 0 without padding.
        padding_code: u32,
    },
    /// A residual stream: `((acc*mul[c] + acc2*mul2[c] + add[c]) >> shift) + res*res_mul`, which nothing clamps. All
    /// streams that are added up have one scale, so `res_mul` is 1 where the shortcut is a stream, and the addition exact.
    Stream {
        /// The product; its sum is the step's `acc`.
        main: IntegerProduct,
        /// A projection shortcut; its sum is the step's `acc2`.
        second: Option<IntegerProduct>,
        /// An identity shortcut, of a stream or of codes; its value is `res`.
        residual: Option<IntegerResidual>,
        /// From sums to the stream; without `res_mul`, and with the whole range of i32 from `lo` to `hi`.
        step: IntegerStep,
        /// Multiplier of the shortcut; 0 without one.
        res_mul: i32,
    },
    /// `step` of a stream or of sums: from wide values to codes.
    Act {
        /// Tensor read.
        input: TensorId,
        /// From values to codes, with neither `mul2` nor `res_mul`.
        step: IntegerStep,
    },
    /// The channels of several tensors, one after the other: all of codes or all streams.
    Concat {
        /// Tensors read, at least two.
        inputs: Vec<TensorId>,
    },
}

/// What the numbers of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// The pixels.
    Image,
    /// Codes of 0 to 255 at most.
    Codes,
    /// Sums of codes, from 0.
    Sums,
    /// A residual stream, of both signs.
    Stream,
    /// The logits.
    Logits,
}

/// `acc[o] = sum of codes[o][i][y][x] * q[first + i][y][x]` over a window of raw codes of the input, `first` being the
/// first input channel of o's group.
///
/// Padding reads the zero point of the channel where the input is the image, and `padding_code` elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegerProduct {
    /// Name of the graph node, such as `layer1.0.conv1`.
    pub name: String,
    /// Tensor read.
    pub input: TensorId,
    /// Rows and columns of the window; all of the input for a linear layer.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: usize,
    /// Padding on every side.
    pub padding: usize,
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

/// An identity shortcut: every `stride`-th pixel, with channels of 0 added before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntegerResidual {
    /// Tensor read.
    pub input: TensorId,
    /// Step in both directions.
    pub stride: usize,
    /// Zero channels before.
    pub pad_before: usize,
    /// Zero channels after.
    pub pad_after: usize,
}

impl IntegerProduct {
    /// Weights of one output channel.
    pub fn weights_per_channel(&self) -> usize {
        self.group_inputs() * self.kernel[0] * self.kernel[1]
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
}

impl IntegerOp {
    /// The products of the layer: main, then second.
    pub fn products(&self) -> impl Iterator<Item = &IntegerProduct> {
        let (main, second) = match self {
            IntegerOp::Product { main, second, .. } | IntegerOp::Stream { main, second, .. } => {
                (Some(main), second.as_ref())
            }
            IntegerOp::Logits { main, .. } => (Some(main), None),
            _ => (None, None),
        };
        main.into_iter().chain(second)
    }

    /// Every tensor the layer reads.
    pub fn inputs(&self) -> Vec<TensorId> {
        match self {
            IntegerOp::MaxPool { input, .. }
            | IntegerOp::SumPool { input }
            | IntegerOp::WindowSum { input, .. }
            | IntegerOp::Act { input, .. } => vec![*input],
            IntegerOp::Concat { inputs } => inputs.clone(),
            IntegerOp::Product { residual, .. } | IntegerOp::Stream { residual, .. } => {
                self.products().map(|p| p.input).chain(residual.map(|r| r.input)).collect()
            }
            IntegerOp::Logits { .. } => self.products().map(|p| p.input).collect(),
        }
    }
}

impl IntegerModel {
    /// Shape of a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn shape(&self, tensor: TensorId) -> Shape {
        if tensor == 0 { self.input_shape } else { self.layers[tensor - 1].shape }
    }

    /// Smallest and largest code of a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn code_range(&self, tensor: TensorId) -> (i64, i64) {
        match tensor.checked_sub(1) {
            None => (0, 255),
            Some(layer) => (self.layers[layer].lo.into(), self.layers[layer].hi.into()),
        }
    }

    /// Whether a tensor holds sums of codes, which may need more than 8 bits.
    pub fn is_sum(&self, tensor: TensorId) -> bool {
        self.kind(tensor) == TensorKind::Sums
    }

    /// What a tensor holds.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn kind(&self, tensor: TensorId) -> TensorKind {
        let mut tensor = tensor;
        loop {
            let Some(layer) = tensor.checked_sub(1) else { return TensorKind::Image };
            return match &self.layers[layer].op {
                IntegerOp::Product { .. } | IntegerOp::MaxPool { .. } | IntegerOp::Act { .. } => TensorKind::Codes,
                IntegerOp::SumPool { .. } | IntegerOp::WindowSum { .. } => TensorKind::Sums,
                IntegerOp::Stream { .. } => TensorKind::Stream,
                IntegerOp::Logits { .. } => TensorKind::Logits,
                // All its inputs, which come before it, are of one kind.
                IntegerOp::Concat { inputs } => match inputs.first() {
                    Some(&first) if first < tensor => {
                        tensor = first;
                        continue;
                    }
                    _ => TensorKind::Codes,
                },
            };
        }
    }

    /// Shape and range of values of a layer with this op, if it came after those there are.
    ///
    /// # Errors
    /// Inputs that do not exist, or that the op cannot read.
    pub fn output_of(&self, op: &IntegerOp) -> Result<(Shape, (i64, i64)), String> {
        match op.inputs().into_iter().find(|&input| input > self.layers.len()) {
            Some(input) => Err(format!("reads tensor {input}, but only 0 to {} exist", self.layers.len())),
            None => check::output(self, op),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.shape.c)
    }

    /// Checks everything that makes the network computable and exact: sizes, order, shapes, codes on their grids, and that no
    /// sum can leave i64 for any image.
    ///
    /// # Errors
    /// Names the first layer at fault.
    pub fn check(&self) -> Result<(), ModelError> {
        check::check(self)
    }

    /// Writes the `.bitpact` file, atomically.
    ///
    /// # Errors
    /// An invalid network, or a file that cannot be written; then whatever stood at `path` still does.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        file::save(path.as_ref(), self.to_bytes())
    }

    /// Reads a `.bitpact` file.
    ///
    /// # Errors
    /// Names the file, the byte and the field at fault.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        Self::from_bytes(&file::read(path)?, path)
    }

    /// The bytes of the `.bitpact` file (docs/format.md): the same for equal networks, on every machine.
    ///
    /// # Errors
    /// If the network is not valid ([`IntegerModel::check`]).
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        self.check()?;
        Ok(crate::format::write(self))
    }

    /// Reads the bytes of a `.bitpact` file; `name` is what errors call it. Takes any bytes without panicking, and reserves
    /// no memory for a list before it has seen that the bytes can hold one.
    ///
    /// # Errors
    /// Names the byte and the field at fault.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self, ModelError> {
        let read = crate::format::read(bytes).and_then(|model| model.check().map(|()| model));
        read.map_err(|e| e.in_file(name))
    }
}
