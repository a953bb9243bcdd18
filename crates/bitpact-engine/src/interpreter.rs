//! The reference interpreter: scalar, short and obviously right. Every kernel, instruction set, thread count, file and
//! exported program must give the same integers.

use bitpact_graph::Shape;
use bitpact_model::{IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerResidual, TensorId};

/// Every code of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Output of every layer in the order of computation, NHWC without padding; the last one is the logits.
    pub tensors: Vec<Vec<i64>>,
}

impl Trace {
    /// The logits.
    pub fn logits(&self) -> &[i64] {
        self.tensors.last().map_or(&[], |t| t)
    }
}

/// Computes an integer network one number at a time.
#[derive(Debug, Clone, Copy)]
pub struct Interpreter<'a> {
    model: &'a IntegerModel,
}

/// What computes sums of products in the interpreter's place, such as a model of hardware.
pub trait Sums {
    /// Whether product `which` of layer `layer` is computed here: 0 is the layer's main product, 1 its second.
    fn computes(&self, layer: usize, which: usize) -> bool;

    /// The sums of that product, `out_channels` for each pixel of its output, row by row. `windows` holds the codes that every pixel
    /// reads: `[pixel][in_channels][kernel rows][kernel columns]`, those of all groups.
    fn sums(&mut self, layer: usize, which: usize, windows: &[i64]) -> Vec<i64>;
}

/// Leaves every product to the interpreter.
struct Nothing;

impl Sums for Nothing {
    fn computes(&self, _: usize, _: usize) -> bool {
        false
    }

    fn sums(&mut self, _: usize, _: usize, _: &[i64]) -> Vec<i64> {
        Vec::new()
    }
}

/// Codes of one tensor with its shape.
struct Codes<'a> {
    shape: Shape,
    values: &'a [i64],
}

impl Codes<'_> {
    /// Code at row `y`, column `x`; `None` in the padding.
    fn at(&self, y: isize, x: isize, c: usize) -> Option<i64> {
        let Shape { h, w, c: channels } = self.shape;
        let (y, x) = (usize::try_from(y).ok()?, usize::try_from(x).ok()?);
        if y < h && x < w { Some(self.values[(y * w + x) * channels + c]) } else { None }
    }
}

impl<'a> Interpreter<'a> {
    /// An interpreter of `model`, which has passed [`IntegerModel::check`]: what [`bitpact_model::convert`] and
    /// [`IntegerModel::load`] return has.
    pub fn new(model: &'a IntegerModel) -> Self {
        Self { model }
    }

    /// Computes every layer for one image of `h * w * c` pixels.
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn run(&self, pixels: &[u8]) -> Trace {
        self.run_with(pixels, &mut Nothing)
    }

    /// Computes every layer for one image of `h * w * c` pixels, with the sums that `other` gives where it computes a product.
    ///
    /// # Panics
    /// If the number of pixels is wrong, or a product has too few sums.
    pub fn run_with(&self, pixels: &[u8], other: &mut dyn Sums) -> Trace {
        assert_eq!(pixels.len(), self.model.input_shape.elements(), "pixels of one image");
        let mut tensors: Vec<Vec<i64>> = vec![pixels.iter().map(|&p| i64::from(p)).collect()];
        for (i, layer) in self.model.layers.iter().enumerate() {
            let mut out = Vec::with_capacity(layer.shape.elements());
            let others = |(which, product): (usize, &IntegerProduct)| {
                let places = || (0..layer.shape.h).flat_map(|y| (0..layer.shape.w).map(move |x| (y, x)));
                let windows = || places().flat_map(|(y, x)| self.window(&tensors, product, y, x)).collect::<Vec<_>>();
                other.computes(i, which).then(|| other.sums(i, which, &windows()))
            };
            let others: Vec<Option<Vec<i64>>> = layer.op.products().enumerate().map(others).collect();
            for y in 0..layer.shape.h {
                for x in 0..layer.shape.w {
                    self.pixel(&tensors, layer, &others, y, x, &mut out);
                }
            }
            tensors.push(out);
        }
        tensors.remove(0);
        Trace { tensors }
    }

    fn codes<'t>(&self, tensors: &'t [Vec<i64>], id: TensorId) -> Codes<'t> {
        Codes { shape: self.model.shape(id), values: &tensors[id] }
    }

    /// Appends the output of a layer at row `y`, column `x`, channel by channel.
    fn pixel(
        &self,
        tensors: &[Vec<i64>],
        layer: &IntegerLayer,
        others: &[Option<Vec<i64>>],
        y: usize,
        x: usize,
        out: &mut Vec<i64>,
    ) {
        let channels = 0..layer.shape.c;
        let sums = |which: usize, product: &IntegerProduct| match &others[which] {
            Some(sums) => sums[(y * layer.shape.w + x) * layer.shape.c..][..layer.shape.c].to_vec(),
            None => {
                let window = self.window(tensors, product, y, x);
                (0..layer.shape.c).map(|c| sum(product, &window, c)).collect()
            }
        };
        match &layer.op {
            IntegerOp::Product { main, second, residual, step } => {
                let (acc, acc2) = (sums(0, main), second.as_ref().map(|second| sums(1, second)));
                out.extend(channels.map(|c| {
                    let (acc, acc2) = (acc[c], acc2.as_ref().map_or(0, |acc2| acc2[c]));
                    let res = residual.map_or(0, |residual| self.shortcut(tensors, residual, y, x, c));
                    i64::from(step.apply(c, acc, acc2, res))
                }));
            }
            IntegerOp::Logits { main, mul, add } => {
                let acc = sums(0, main);
                out.extend(channels.map(|c| acc[c] * i64::from(mul[c]) + add[c]));
            }
            &IntegerOp::MaxPool { input, kernel, stride, padding } => {
                let codes = self.codes(tensors, input);
                out.extend(channels.map(|c| {
                    let window = (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx)));
                    let inside = window.filter_map(|(ky, kx)| {
                        codes.at(position(y, stride, padding, ky), position(x, stride, padding, kx), c)
                    });
                    inside.max().unwrap_or(0)
                }));
            }
            IntegerOp::Stream { main, second, residual, step, res_mul } => {
                let (acc, acc2) = (sums(0, main), second.as_ref().map(|second| sums(1, second)));
                out.extend(channels.map(|c| {
                    let (acc, acc2) = (acc[c], acc2.as_ref().map_or(0, |acc2| acc2[c]));
                    let res = residual.map_or(0, |residual| self.shortcut(tensors, residual, y, x, c));
                    i64::from(step.apply(c, acc, acc2, 0)) + res * i64::from(*res_mul)
                }));
            }
            IntegerOp::Act { input, step } => {
                let values = self.codes(tensors, *input);
                let pixel = &values.values[(y * layer.shape.w + x) * layer.shape.c..];
                out.extend(channels.map(|c| i64::from(step.apply(c, pixel[c], 0, 0))));
            }
            IntegerOp::Concat { inputs } => {
                for &input in inputs {
                    let codes = self.codes(tensors, input);
                    let c = codes.shape.c;
                    out.extend(&codes.values[(y * codes.shape.w + x) * c..][..c]);
                }
            }
            &IntegerOp::WindowSum { input, kernel, stride, padding, padding_code } => {
                let codes = self.codes(tensors, input);
                out.extend(channels.map(|c| {
                    let window = (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx)));
                    let code =
                        |(ky, kx)| codes.at(position(y, stride, padding, ky), position(x, stride, padding, kx), c);
                    window.map(|at| code(at).unwrap_or(padding_code.into())).sum::<i64>()
                }));
            }
            &IntegerOp::SumPool { input } => {
                let codes = self.codes(tensors, input);
                out.extend(channels.map(|c| codes.values.iter().skip(c).step_by(codes.shape.c).sum::<i64>()));
            }
        }
    }

    /// The codes that a product reads for row `y`, column `x` of its output, in the order of the weights of one output channel:
    /// `[in_channels][kernel rows][kernel columns]`.
    fn window(&self, tensors: &[Vec<i64>], product: &IntegerProduct, y: usize, x: usize) -> Vec<i64> {
        let codes = self.codes(tensors, product.input);
        let [rows, columns] = product.kernel;
        let mut window = Vec::with_capacity(product.in_channels * rows * columns);
        for channel in 0..product.in_channels {
            let padding = match product.input {
                0 => self.model.input.zero_point[channel].into(),
                _ => product.padding_code.into(),
            };
            for ky in 0..rows {
                let py = position(y, product.stride, product.padding, ky);
                for kx in 0..columns {
                    let px = position(x, product.stride, product.padding, kx);
                    window.push(codes.at(py, px, channel).unwrap_or(padding));
                }
            }
        }
        window
    }

    /// `res`: the code of an identity shortcut, 0 in the channels it adds.
    fn shortcut(&self, tensors: &[Vec<i64>], residual: IntegerResidual, y: usize, x: usize, c: usize) -> i64 {
        let codes = self.codes(tensors, residual.input);
        match c.checked_sub(residual.pad_before) {
            Some(channel) if channel < codes.shape.c => {
                codes.values[(y * residual.stride * codes.shape.w + x * residual.stride) * codes.shape.c + channel]
            }
            _ => 0,
        }
    }
}

/// `acc`: sum of code times weight code over the part of the window that belongs to the group of output channel `c`.
fn sum(product: &IntegerProduct, window: &[i64], c: usize) -> i64 {
    let first = product.first_input(c) * product.kernel[0] * product.kernel[1];
    window[first..].iter().zip(product.channel(c)).map(|(code, &weight)| code * i64::from(weight)).sum()
}

/// Row or column of the input that window position `k` of output position `at` reads.
fn position(at: usize, stride: usize, padding: usize, k: usize) -> isize {
    (at * stride + k) as isize - padding as isize
}
