//! The closed set of ops.

mod shapes;
mod written;

use bitpact_core::Function;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Move, Padding, Shape, Window};
use written::{is_default_eps, is_default_momentum, is_false, is_one, is_ones, is_true, is_zeros, pair, sides};

/// An op without keys of its own, which serde would take with any.
fn no_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keys {}
    Keys::deserialize(deserializer).map(|Keys {}| ())
}

/// Operation of a node. Weights are not part of it: they are tensors named after the node. Pairs are rows first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The network's input. Exactly one, and the first node.
    Input {
        /// Number of rows.
        height: usize,
        /// Number of columns.
        width: usize,
        /// Number of channels.
        channels: usize,
    },
    /// 2-D convolution with zero padding. `weight` is OIHW with `I = in_channels / groups`, `bias` one value a channel.
    Conv(Conv),
    /// Transposed convolution, as PyTorch's `ConvTranspose2d`: each input pixel adds its multiple of the window to the
    /// output. `weight` is IOHW with `O = out_channels / groups`, `bias` one value a channel.
    ConvTranspose(ConvTranspose),
    /// Fully connected layer over all h*w*c values; `weight` is `[out_features, c*h*w]` in CHW order as in PyTorch.
    Linear {
        /// Number of outputs.
        out_features: usize,
        /// Says whether the operation adds a bias to each output channel.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Batch normalization over n, h, w: `weight`, `bias`, `running_mean`, `running_var`.
    BatchNorm(BatchNorm),
    /// The clipped, quantized activation (`clip_val`); a plain ReLU in a float network. Signed, the quantization point
    /// of a tensor without a ReLU (codes on both sides of zero); nothing in a float network.
    Act {
        /// Whether negative values are kept.
        #[serde(default, skip_serializing_if = "is_false")]
        signed: bool,
    },
    /// A function of one number, element by element; PReLU has a `weight` of one slope a channel. Integer networks read
    /// it from a table of codes, so its input is an activation, signed as a rule, and activations read it.
    Function(Function),
    /// Sum of two or more tensors of one shape.
    #[serde(deserialize_with = "no_keys")]
    Add,
    /// Product of two tensors of one shape, element by element; the second may also be 1x1xc, and then stands for every
    /// pixel.
    Mul,
    /// A move of elements, which computes nothing.
    View(Move),
    /// Option-A shortcut (He et al. 2015): every `stride`-th pixel, then zero channels before and after.
    Subsample {
        /// Distance in rows and columns between the pixels that are read.
        stride: usize,
        /// Channels of zeros before those of the tensor.
        pad_before: usize,
        /// Channels of zeros after those of the tensor.
        pad_after: usize,
    },
    /// Maximum over a window; padding never wins.
    MaxPool(MaxPool),
    /// Mean over h and w.
    #[serde(deserialize_with = "no_keys")]
    GlobalAvgPool,
    /// Mean over a window.
    AvgPool(AvgPool),
    /// The channels of two or more tensors of one height and width, one after the other.
    #[serde(deserialize_with = "no_keys")]
    Concat,
    /// In training sets a value to 0 with probability `rate` and divides the others by `1 - rate` (Srivastava et al.
    /// 2014); nothing elsewhere, and absent from an integer network.
    Dropout {
        /// Probability of a zero, at least 0 and below 1.
        rate: f64,
    },
}

// A graph refuses NaN.
impl Eq for Op {}

/// Parameters of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Output channels.
    pub out_channels: usize,
    /// Rows and columns of the window.
    #[serde(with = "pair")]
    pub kernel: [usize; 2],
    /// Rows and columns from one place of the window to the next.
    #[serde(default = "ones", with = "pair")]
    pub stride: [usize; 2],
    /// Zeros beside the input.
    #[serde(default, with = "sides")]
    pub padding: Padding,
    /// Distance of the rows and columns that the window sees.
    #[serde(default = "ones", with = "pair", skip_serializing_if = "is_ones")]
    pub dilation: [usize; 2],
    /// Says whether the operation adds a bias to each output channel.
    #[serde(default)]
    pub bias: bool,
    /// Channels are cut into so many equal groups: outputs of a group see only its inputs. 1 is an ordinary
    /// convolution; as many as there are input channels, a depthwise one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
}

impl Conv {
    /// A square window with the same stride in both directions and the same padding on every side, one group, no bias.
    pub const fn square(out_channels: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        let padding = Padding::all(padding);
        Self {
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding,
            dilation: [1; 2],
            bias: false,
            groups: 1,
        }
    }
}

/// Parameters of a transposed convolution. An input of `n` rows becomes
/// `(n - 1) * stride - top - bottom + dilation * (kernel - 1) + output_padding + 1` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTranspose {
    /// Output channels.
    pub out_channels: usize,
    /// Rows and columns of the window.
    #[serde(with = "pair")]
    pub kernel: [usize; 2],
    /// Step of the window over the output.
    #[serde(default = "ones", with = "pair")]
    pub stride: [usize; 2],
    /// Rows and columns taken off the output; on each side at most `dilation * (kernel - 1)`.
    #[serde(default, with = "sides")]
    pub padding: Padding,
    /// Rows and columns added at the bottom and right of the output, less than the stride or the dilation.
    #[serde(default, with = "pair", skip_serializing_if = "is_zeros")]
    pub output_padding: [usize; 2],
    /// Distance of the rows and columns that the window writes.
    #[serde(default = "ones", with = "pair", skip_serializing_if = "is_ones")]
    pub dilation: [usize; 2],
    /// Says whether the operation adds a bias to each output channel.
    #[serde(default)]
    pub bias: bool,
    /// Equal groups of channels: outputs of a group see only its inputs.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
}

/// Parameters of a batch normalization: `y = weight * (x - mean) / sqrt(var + eps) + bias`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Added to the variance, rounded to float32.
    #[serde(default = "BatchNorm::default_eps", skip_serializing_if = "is_default_eps")]
    pub eps: f64,
    /// Share of a step's statistics in the running ones: `running = (1 - momentum) * running + momentum * step`.
    #[serde(default = "BatchNorm::default_momentum", skip_serializing_if = "is_default_momentum")]
    pub momentum: f64,
}

impl BatchNorm {
    /// The number that the op adds to the variance: [`BatchNorm::eps`], rounded to float32.
    pub fn added(&self) -> f64 {
        f64::from(self.eps as f32)
    }

    const fn default_eps() -> f64 {
        1e-5
    }

    const fn default_momentum() -> f64 {
        0.1
    }
}

impl Default for BatchNorm {
    /// PyTorch's: eps 1e-5, momentum 0.1.
    fn default() -> Self {
        Self { eps: Self::default_eps(), momentum: Self::default_momentum() }
    }
}

/// Parameters of a maximum pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool {
    /// Rows and columns of the window.
    #[serde(with = "pair")]
    pub kernel: [usize; 2],
    /// Rows and columns from one place of the window to the next.
    #[serde(with = "pair")]
    pub stride: [usize; 2],
    /// Padding beside the input, less than the window.
    #[serde(default, with = "sides")]
    pub padding: Padding,
    /// Distance of the rows and columns that the window sees.
    #[serde(default = "ones", with = "pair", skip_serializing_if = "is_ones")]
    pub dilation: [usize; 2],
    /// Whether a last window that begins inside the input or its first padding counts although it reaches beyond the
    /// last padding.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ceil_mode: bool,
}

impl MaxPool {
    /// A square window with the same stride in both directions and the same padding on every side.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        let padding = Padding::all(padding);
        Self { kernel: [kernel; 2], stride: [stride; 2], padding, dilation: [1; 2], ceil_mode: false }
    }
}

/// Parameters of an average pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool {
    /// Rows and columns of the window.
    #[serde(with = "pair")]
    pub kernel: [usize; 2],
    /// Rows and columns from one place of the window to the next.
    #[serde(with = "pair")]
    pub stride: [usize; 2],
    /// Padding beside the input, less than the window.
    #[serde(default, with = "sides")]
    pub padding: Padding,
    /// Whether a last window that begins inside the input or its first padding counts although it reaches beyond the
    /// last padding.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ceil_mode: bool,
    /// Whether padding counts as zeros, as PyTorch's `AvgPool2d` does by default, or not at all. What `ceil_mode` adds
    /// beyond the padding never counts.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub count_include_pad: bool,
}

impl AvgPool {
    /// A square window with the same stride in both directions and the same padding on every side, which counts as
    /// zeros.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        let padding = Padding::all(padding);
        Self { kernel: [kernel; 2], stride: [stride; 2], padding, ceil_mode: false, count_include_pad: true }
    }
}

fn one() -> usize {
    1
}

fn ones() -> [usize; 2] {
    [1; 2]
}

fn yes() -> bool {
    true
}

impl Op {
    /// The op's name as it stands in files and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Conv(_) => "conv",
            Op::ConvTranspose(_) => "conv_transpose",
            Op::Linear { .. } => "linear",
            Op::BatchNorm(_) => "batch_norm",
            Op::Act { .. } => "act",
            Op::Function(_) => "function",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::View(_) => "view",
            Op::Subsample { .. } => "subsample",
            Op::MaxPool(_) => "max_pool",
            Op::GlobalAvgPool => "global_avg_pool",
            Op::AvgPool(_) => "avg_pool",
            Op::Concat => "concat",
            Op::Dropout { .. } => "dropout",
        }
    }

    /// Number of inputs the op takes; [`Op::Add`] and [`Op::Concat`] take more, too.
    pub fn arity(&self) -> usize {
        match self {
            Op::Input { .. } => 0,
            Op::Add | Op::Concat | Op::Mul => 2,
            _ => 1,
        }
    }

    /// Tells whether the op multiplies by weights.
    pub fn is_product(&self) -> bool {
        matches!(self, Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. })
    }

    /// Tells whether the op quantizes.
    pub fn is_act(&self) -> bool {
        matches!(self, Op::Act { .. })
    }

    /// Tells whether the op normalizes by the statistics of a batch.
    pub fn is_norm(&self) -> bool {
        matches!(self, Op::BatchNorm(_))
    }

    /// Tells whether the op has a `bias` that it adds to a product.
    pub fn has_bias(&self) -> bool {
        match *self {
            Op::Conv(Conv { bias, .. }) | Op::ConvTranspose(ConvTranspose { bias, .. }) | Op::Linear { bias, .. } => {
                bias
            }
            _ => false,
        }
    }

    /// Groups of channels of a product; 1 for other ops.
    pub fn groups(&self) -> usize {
        match *self {
            Op::Conv(Conv { groups, .. }) | Op::ConvTranspose(ConvTranspose { groups, .. }) => groups,
            _ => 1,
        }
    }

    /// What the op does to the places of elements, one move after the other; `None` for ops that compute.
    pub fn moves(&self) -> Option<Vec<Move>> {
        match *self {
            Op::View(of) => Some(vec![of]),
            Op::Subsample { stride, pad_before, pad_after } => {
                let strided = (stride > 1).then(|| Move::stride(stride));
                let inserted = (pad_before + pad_after > 0).then(|| Move::channels_inserted(pad_before, pad_after));
                Some(strided.into_iter().chain(inserted).collect())
            }
            _ => None,
        }
    }

    /// The window of a product or pool over an input of the shape `from`, which a checked graph has. Of a pool in ceil
    /// mode, the padding at the bottom and right is what its last windows need; of a transposed convolution, the window
    /// is the one that reads its input spread out, with weights turned by 180 degrees.
    pub fn window(&self, from: Shape) -> Option<Window> {
        match *self {
            Op::Conv(Conv { kernel, stride, padding, dilation, .. }) => {
                Some(Window { kernel, stride, padding, dilation, spread: [1; 2] })
            }
            Op::ConvTranspose(conv) => Some(conv.window()),
            Op::Linear { .. } | Op::GlobalAvgPool => Some(Window::whole(from)),
            Op::MaxPool(MaxPool { kernel, stride, padding, dilation, ceil_mode }) => {
                let window = Window { kernel, stride, padding, dilation, spread: [1; 2] };
                Some(if ceil_mode { shapes::with_last_windows(window, from) } else { window })
            }
            Op::AvgPool(AvgPool { kernel, stride, padding, ceil_mode, .. }) => {
                let window = Window { kernel, stride, padding, dilation: [1; 2], spread: [1; 2] };
                Some(if ceil_mode { shapes::with_last_windows(window, from) } else { window })
            }
            _ => None,
        }
    }

    /// Elements that the mean of each window of an average pool divides by, `[row][column]` of output positions; `None`
    /// for other ops.
    pub fn divisors(&self, from: Shape) -> Option<Vec<usize>> {
        let window = self.window(from)?;
        let [h, w] = window.positions(from)?;
        let pool = match *self {
            Op::GlobalAvgPool => return Some(vec![from.h * from.w]),
            Op::AvgPool(pool) => pool,
            _ => return None,
        };
        let Padding { top, left, bottom, right } = pool.padding;
        let along = |i: usize, position: usize, side: usize, before: usize, after: usize| {
            let start = position * window.stride[i];
            let end = start + window.kernel[i];
            match pool.count_include_pad {
                true => end.min(before + side + after) - start,
                false => end.min(before + side).saturating_sub(start.max(before)),
            }
        };
        let rows: Vec<usize> = (0..h).map(|y| along(0, y, from.h, top, bottom)).collect();
        let columns: Vec<usize> = (0..w).map(|x| along(1, x, from.w, left, right)).collect();
        Some(rows.iter().flat_map(|rows| columns.iter().map(move |columns| rows * columns)).collect())
    }
}

impl ConvTranspose {
    /// The window over the spread input; valid once the shape was checked.
    fn window(&self) -> Window {
        let reach = [0, 1].map(|i| (self.kernel[i] - 1) * self.dilation[i]);
        let Padding { top, left, bottom, right } = self.padding;
        let padding = Padding {
            top: reach[0] - top,
            left: reach[1] - left,
            bottom: reach[0] + self.output_padding[0] - bottom,
            right: reach[1] + self.output_padding[1] - right,
        };
        Window { kernel: self.kernel, stride: [1; 2], padding, dilation: self.dilation, spread: self.stride }
    }
}
