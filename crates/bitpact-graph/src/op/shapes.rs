//! The shape that each op gives.

use super::{AvgPool, BatchNorm, Conv, ConvTranspose, MaxPool, Op};
use crate::{GraphError, Padding, Shape, Window};

/// Bound on every size of a network, so that products of four of them stay far below 2^64.
const LARGEST: usize = 1 << 15;

impl Op {
    /// Shape of the op's output for inputs of the given shapes, whose number fits [`Op::arity`].
    ///
    /// # Errors
    /// Names `node` where a parameter is out of range, a window does not fit or two shapes differ.
    pub fn output_shape(&self, node: &str, inputs: &[Shape]) -> Result<Shape, GraphError> {
        let of = Checked { node };
        match *self {
            Op::Input { height, width, channels } => {
                of.sizes(&[("height", height), ("width", width), ("channels", channels)])?;
                Ok(Shape::new(height, width, channels))
            }
            Op::Conv(Conv { out_channels, kernel, stride, dilation, padding, groups, .. }) => {
                of.sizes(&[("out_channels", out_channels)])?;
                of.groups(groups, inputs[0].c, out_channels)?;
                let [h, w] = of.window(Window { kernel, stride, padding, dilation, spread: [1; 2] }, inputs[0])?;
                Ok(Shape::new(h, w, out_channels))
            }
            Op::ConvTranspose(conv) => {
                of.sizes(&[("out_channels", conv.out_channels)])?;
                of.groups(conv.groups, inputs[0].c, conv.out_channels)?;
                let [h, w] = of.window(of.transposed(&conv)?, inputs[0])?;
                Ok(Shape::new(h, w, conv.out_channels))
            }
            Op::Linear { out_features, .. } => {
                of.sizes(&[("out_features", out_features)])?;
                Ok(Shape::new(1, 1, out_features))
            }
            Op::BatchNorm(BatchNorm { eps, momentum }) => {
                of.number("eps", eps, eps > 0.0 && eps.is_finite(), "a number above 0")?;
                of.number("momentum", momentum, (0.0..=1.0).contains(&momentum), "0 to 1")?;
                Ok(inputs[0])
            }
            Op::Function(function) => {
                if let Some((name, value)) = function.parameter() {
                    of.number(name, value, value.abs() <= 1e6, "a number of at most a million")?;
                }
                Ok(inputs[0])
            }
            Op::Act { .. } => Ok(inputs[0]),
            Op::Add => match inputs.iter().find(|&&shape| shape != inputs[0]) {
                None => Ok(inputs[0]),
                Some(&right) => Err(GraphError::Shapes { node: node.to_owned(), left: inputs[0], right, op: "added" }),
            },
            Op::Mul => {
                let [left, right] = [inputs[0], inputs[1]];
                match right == left || right == Shape::new(1, 1, left.c) {
                    true => Ok(left),
                    false => Err(GraphError::Shapes { node: node.to_owned(), left, right, op: "multiplied" }),
                }
            }
            Op::View(of) => of.shape(inputs[0]).map_err(|what| GraphError::Pattern { node: node.to_owned(), what }),
            Op::Subsample { stride, pad_before, pad_after } => {
                of.sizes(&[("stride", stride)])?;
                of.pads(&[("pad_before", pad_before), ("pad_after", pad_after)])?;
                let Shape { h, w, c } = inputs[0];
                Ok(Shape::new(h.div_ceil(stride), w.div_ceil(stride), c + pad_before + pad_after))
            }
            Op::MaxPool(MaxPool { kernel, padding, .. }) | Op::AvgPool(AvgPool { kernel, padding, .. }) => {
                of.pool_padding(kernel, padding)?;
                let plain = match *self {
                    Op::MaxPool(pool) => Op::MaxPool(MaxPool { ceil_mode: false, ..pool }),
                    Op::AvgPool(pool) => Op::AvgPool(AvgPool { ceil_mode: false, ..pool }),
                    other => other,
                };
                let positions = of.window(plain.window(inputs[0]).expect("a pool has a window"), inputs[0])?;
                let window = self.window(inputs[0]).expect("a pool has a window");
                let [h, w] = window.positions(inputs[0]).unwrap_or(positions);
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
            Op::Dropout { rate } => {
                of.number("rate", rate, (0.0..1.0).contains(&rate), "at least 0 and below 1")?;
                Ok(inputs[0])
            }
        }
    }
}

/// Checks of one node's parameters.
struct Checked<'a> {
    node: &'a str,
}

impl Checked<'_> {
    fn parameter(&self, parameter: &'static str, got: usize, expected: &'static str) -> GraphError {
        GraphError::Parameter { node: self.node.to_owned(), parameter, got, expected }
    }

    fn sizes(&self, sizes: &[(&'static str, usize)]) -> Result<(), GraphError> {
        match sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            None => Ok(()),
            Some(&(name, got)) => Err(self.parameter(name, got, "1 to 32768")),
        }
    }

    fn pads(&self, pads: &[(&'static str, usize)]) -> Result<(), GraphError> {
        match pads.iter().find(|(_, pad)| *pad > LARGEST) {
            None => Ok(()),
            Some(&(name, got)) => Err(self.parameter(name, got, "0 to 32768")),
        }
    }

    fn number(&self, name: &str, got: f64, fits: bool, expected: &str) -> Result<(), GraphError> {
        match fits {
            true => Ok(()),
            false => Err(GraphError::Pattern {
                node: self.node.to_owned(),
                what: format!("{name} = {got}, expected {expected}"),
            }),
        }
    }

    fn groups(&self, groups: usize, inputs: usize, outputs: usize) -> Result<(), GraphError> {
        self.sizes(&[("groups", groups)])?;
        match inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups) {
            true => Ok(()),
            false => Err(GraphError::Groups { node: self.node.to_owned(), groups, inputs, outputs }),
        }
    }

    /// Output positions of a window.
    fn window(&self, window: Window, input: Shape) -> Result<[usize; 2], GraphError> {
        let Window { kernel, stride, padding, dilation, spread } = window;
        for i in 0..2 {
            self.sizes(&[("kernel", kernel[i]), ("stride", stride[i].max(spread[i])), ("dilation", dilation[i])])?;
            self.sizes(&[("stride", stride[i]), ("stride", spread[i])])?;
        }
        self.pads(&[("padding", padding.most())])?;
        window.positions(input).ok_or_else(|| GraphError::Window {
            node: self.node.to_owned(),
            window: Box::new(window),
            input,
        })
    }

    fn pool_padding(
        &self,
        kernel: [usize; 2],
        Padding { top, left, bottom, right }: Padding,
    ) -> Result<(), GraphError> {
        let [rows, columns] = kernel;
        match (top.max(bottom) < rows, left.max(right) < columns) {
            (true, true) => Ok(()),
            (false, _) => Err(self.parameter("padding", top.max(bottom), "less than the kernel")),
            (_, false) => Err(self.parameter("padding", left.max(right), "less than the kernel")),
        }
    }

    /// The window of a transposed convolution.
    fn transposed(&self, conv: &ConvTranspose) -> Result<Window, GraphError> {
        let Padding { top, left, bottom, right } = conv.padding;
        for (i, [before, after]) in [[top, bottom], [left, right]].into_iter().enumerate() {
            let (kernel, stride, dilation) = (conv.kernel[i], conv.stride[i], conv.dilation[i]);
            self.sizes(&[("kernel", kernel), ("stride", stride), ("dilation", dilation)])?;
            let (reach, added) = ((kernel - 1) * dilation, conv.output_padding[i]);
            if added > 0 && added >= stride.max(dilation) {
                return Err(self.parameter("output_padding", added, "less than the stride or the dilation"));
            }
            if before > reach || after > reach + added {
                return Err(self.parameter("padding", before.max(after), "at most dilation * (kernel - 1)"));
            }
        }
        Ok(conv.window())
    }
}

/// The window with as much padding at the bottom and right as its last positions in ceil mode need.
pub(super) fn with_last_windows(window: Window, from: Shape) -> Window {
    let (extent, padded, Padding { top, left, bottom, right }) = (window.extent(), window.padded(from), window.padding);
    let more = |i: usize, side: usize, before: usize| {
        let stride = window.stride[i];
        let Some(left_over) = padded[i].checked_sub(extent[i]) else { return 0 };
        let missing = (stride - left_over % stride) % stride;
        // A position counts only if it begins inside the input or the padding before it.
        let begins = (left_over + missing) / stride * stride;
        if begins < side + before { missing } else { 0 }
    };
    let padding = Padding { bottom: bottom + more(0, from.h, top), right: right + more(1, from.w, left), top, left };
    Window { padding, ..window }
}
