//! The closed set of ops and the shape each one produces.

use serde::{Deserialize, Deserializer, Serialize};

use crate::GraphError;

/// Height, width and channels of one image's tensor; tensors are NHWC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// A shape of `h` rows, `w` columns and `c` channels.
    pub const fn new(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c }
    }

    /// Elements of one image: `h * w * c`.
    pub const fn elements(&self) -> usize {
        self.h * self.w * self.c
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.h, self.w, self.c)
    }
}

/// An op without keys of its own, which serde would take with any.
fn no_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keys {}
    Keys::deserialize(deserializer).map(|Keys {}| ())
}

/// What a node computes. Weights are not part of the op: they are tensors named after the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The image, u8 pixels. Exactly one, and the first node.
    Input {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Channels.
        channels: usize,
    },
    /// 2-D convolution, square window, zero padding. `weight` is OIHW with `I = in_channels / groups`, `bias` one value
    /// a channel.
    Conv {
        /// Output channels.
        out_channels: usize,
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        #[serde(default = "one")]
        stride: usize,
        /// Padding on every side.
        #[serde(default)]
        padding: usize,
        /// Whether a bias is added.
        #[serde(default)]
        bias: bool,
        /// Channels are cut into so many equal groups: outputs of a group see only its inputs. 1 is an ordinary
        /// convolution; as many as there are input channels, a depthwise one.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        groups: usize,
    },
    /// Fully connected layer over all h*w*c values; `weight` is `[out_features, c*h*w]` in CHW order as in PyTorch.
    Linear {
        /// Outputs.
        out_features: usize,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Batch normalization over n, h, w: `weight`, `bias`, `running_mean`, `running_var`; eps 1e-5, momentum 0.1.
    #[serde(deserialize_with = "no_keys")]
    BatchNorm,
    /// The clipped, quantized activation (`clip_val`); a plain ReLU in a float network. Signed, the quantization point
    /// of a tensor without a ReLU (codes on both sides of zero); nothing in a float network.
    Act {
        /// Whether negative values are kept.
        #[serde(default, skip_serializing_if = "is_false")]
        signed: bool,
    },
    /// Sum of two or more tensors of one shape.
    #[serde(deserialize_with = "no_keys")]
    Add,
    /// Option-A shortcut (He et al. 2015): every `stride`-th pixel, then zero channels before and after.
    Subsample {
        /// Step in both directions.
        stride: usize,
        /// Zero channels before.
        pad_before: usize,
        /// Zero channels after.
        pad_after: usize,
    },
    /// Maximum over a square window; padding never wins.
    MaxPool {
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        stride: usize,
        /// Padding on every side.
        #[serde(default)]
        padding: usize,
    },
    /// Mean over h and w.
    #[serde(deserialize_with = "no_keys")]
    GlobalAvgPool,
    /// Mean over a square window. Padding counts as zeros, so every mean divides by `kernel * kernel`, as PyTorch's
    /// `AvgPool2d` does by default.
    AvgPool {
        /// Rows and columns of the window.
        kernel: usize,
        /// Step of the window.
        stride: usize,
        /// Padding on every side, less than the kernel.
        #[serde(default)]
        padding: usize,
    },
    /// The channels of two or more tensors of one height and width, one after the other.
    #[serde(deserialize_with = "no_keys")]
    Concat,
    /// In training sets a value to 0 with probability `rate` and divides the others by `1 - rate` (Srivastava et al.
    /// 2014); nothing elsewhere, and absent from an integer network.
    Dropout {
        /// Probability of a zero.
        rate: Rate,
    },
}

/// A probability at least 0 and below 1, which a checked graph holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub f64);

// A graph refuses NaN.
impl Eq for Rate {}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

// Defaults are not written: the checksum of a checkpoint covers the text of its graph.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(n: &usize) -> bool {
    *n == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(b: &bool) -> bool {
    !b
}

/// Bound on every size of a network, so that products of four of them stay far below 2^64.
const LARGEST: usize = 1 << 15;

impl Op {
    /// The op's name as it stands in files and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Conv { .. } => "conv",
            Op::Linear { .. } => "linear",
            Op::BatchNorm => "batch_norm",
            Op::Act { .. } => "act",
            Op::Add => "add",
            Op::Subsample { .. } => "subsample",
            Op::MaxPool { .. } => "max_pool",
            Op::GlobalAvgPool => "global_avg_pool",
            Op::AvgPool { .. } => "avg_pool",
            Op::Concat => "concat",
            Op::Dropout { .. } => "dropout",
        }
    }

    /// Number of inputs the op takes; [`Op::Add`] and [`Op::Concat`] take more, too.
    pub fn arity(&self) -> usize {
        match self {
            Op::Input { .. } => 0,
            Op::Add | Op::Concat => 2,
            _ => 1,
        }
    }

    /// Whether the op multiplies by weights.
    pub fn is_product(&self) -> bool {
        matches!(self, Op::Conv { .. } | Op::Linear { .. })
    }

    /// Whether the op quantizes.
    pub fn is_act(&self) -> bool {
        matches!(self, Op::Act { .. })
    }

    /// Shape of the op's output for inputs of the given shapes, whose number fits [`Op::arity`].
    ///
    /// # Errors
    /// Names `node` where a parameter is out of range, a window does not fit or two shapes differ.
    pub(crate) fn output_shape(&self, node: &str, inputs: &[Shape]) -> Result<Shape, GraphError> {
        let check = |parameter: &'static str, got: usize, smallest: usize| {
            if (smallest..=LARGEST).contains(&got) {
                return Ok(());
            }
            let expected = if smallest == 0 { "0 to 32768" } else { "1 to 32768" };
            Err(GraphError::Parameter { node: node.to_owned(), parameter, got, expected })
        };
        let window = |input: Shape, kernel: usize, stride: usize, padding: usize| {
            check("kernel", kernel, 1)?;
            check("stride", stride, 1)?;
            check("padding", padding, 0)?;
            let fits = |side: usize| side + 2 * padding >= kernel;
            if !fits(input.h) || !fits(input.w) {
                return Err(GraphError::Window { node: node.to_owned(), kernel, padding, input });
            }
            let side = |s: usize| (s + 2 * padding - kernel) / stride + 1;
            Ok((side(input.h), side(input.w)))
        };
        match *self {
            Op::Input { height, width, channels } => {
                check("height", height, 1)?;
                check("width", width, 1)?;
                check("channels", channels, 1)?;
                Ok(Shape::new(height, width, channels))
            }
            Op::Conv { out_channels, kernel, stride, padding, groups, .. } => {
                check("out_channels", out_channels, 1)?;
                check("groups", groups, 1)?;
                if !inputs[0].c.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
                    let node = node.to_owned();
                    return Err(GraphError::Groups { node, groups, inputs: inputs[0].c, outputs: out_channels });
                }
                let (h, w) = window(inputs[0], kernel, stride, padding)?;
                Ok(Shape::new(h, w, out_channels))
            }
            Op::Linear { out_features, .. } => {
                check("out_features", out_features, 1)?;
                Ok(Shape::new(1, 1, out_features))
            }
            Op::BatchNorm | Op::Act { .. } => Ok(inputs[0]),
            Op::Add => match inputs.iter().find(|&&shape| shape != inputs[0]) {
                None => Ok(inputs[0]),
                Some(&right) => Err(GraphError::AddShapes { node: node.to_owned(), left: inputs[0], right }),
            },
            Op::Subsample { stride, pad_before, pad_after } => {
                check("stride", stride, 1)?;
                check("pad_before", pad_before, 0)?;
                check("pad_after", pad_after, 0)?;
                let Shape { h, w, c } = inputs[0];
                Ok(Shape::new(h.div_ceil(stride), w.div_ceil(stride), c + pad_before + pad_after))
            }
            Op::MaxPool { kernel, stride, padding } | Op::AvgPool { kernel, stride, padding } => {
                if padding >= kernel {
                    let expected = "less than the kernel";
                    return Err(GraphError::Parameter {
                        node: node.to_owned(),
                        parameter: "padding",
                        got: padding,
                        expected,
                    });
                }
                let (h, w) = window(inputs[0], kernel, stride, padding)?;
                Ok(Shape::new(h, w, inputs[0].c))
            }
            Op::GlobalAvgPool => Ok(Shape::new(1, 1, inputs[0].c)),
            Op::Concat => {
                let Shape { h, w, .. } = inputs[0];
                if let Some(&other) = inputs.iter().find(|s| (s.h, s.w) != (h, w)) {
                    return Err(GraphError::ConcatShapes { node: node.to_owned(), first: inputs[0], other });
                }
                Ok(Shape::new(h, w, inputs.iter().map(|s| s.c).sum()))
            }
            Op::Dropout { rate: Rate(rate) } if (0.0..1.0).contains(&rate) => Ok(inputs[0]),
            Op::Dropout { rate: Rate(rate) } => {
                let what = format!("rate = {rate}, expected at least 0 and below 1");
                Err(GraphError::Pattern { node: node.to_owned(), what })
            }
        }
    }
}
