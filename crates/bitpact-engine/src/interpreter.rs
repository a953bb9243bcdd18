//! The reference interpreter: scalar, short and obviously right. Every kernel, instruction set, thread count, file and
//! exported program must give the same integers.

use bitpact_graph::Shape;
use bitpact_model::{IntegerModel, IntegerOp, IntegerProduct, IntegerResidual, TensorId};

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
        assert_eq!(pixels.len(), self.model.input_shape.elements(), "pixels of one image");
        let mut tensors: Vec<Vec<i64>> = vec![pixels.iter().map(|&p| i64::from(p)).collect()];
        for layer in &self.model.layers {
            let mut out = Vec::with_capacity(layer.shape.elements());
            for y in 0..layer.shape.h {
                for x in 0..layer.shape.w {
                    for c in 0..layer.shape.c {
                        out.push(self.value(&tensors, &layer.op, y, x, c));
                    }
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

    /// Output of a layer at row `y`, column `x`, channel `c`.
    fn value(&self, tensors: &[Vec<i64>], op: &IntegerOp, y: usize, x: usize, c: usize) -> i64 {
        match op {
            IntegerOp::Product { main, second, residual, step } => {
                let acc = self.sum(tensors, main, y, x, c);
                let acc2 = second.as_ref().map_or(0, |second| self.sum(tensors, second, y, x, c));
                let res = residual.map_or(0, |residual| self.shortcut(tensors, residual, y, x, c));
                step.apply(c, acc, acc2, res).into()
            }
            IntegerOp::Logits { main, mul, add } => self.sum(tensors, main, y, x, c) * i64::from(mul[c]) + add[c],
            &IntegerOp::MaxPool { input, kernel, stride, padding } => {
                let codes = self.codes(tensors, input);
                let window = (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx)));
                let inside = window.filter_map(|(ky, kx)| {
                    codes.at(position(y, stride, padding, ky), position(x, stride, padding, kx), c)
                });
                inside.max().unwrap_or(0)
            }
            &IntegerOp::SumPool { input } => {
                let codes = self.codes(tensors, input);
                codes.values.iter().skip(c).step_by(codes.shape.c).sum()
            }
        }
    }

    /// `acc`: sum of code times weight code over the window.
    fn sum(&self, tensors: &[Vec<i64>], product: &IntegerProduct, y: usize, x: usize, c: usize) -> i64 {
        let codes = self.codes(tensors, product.input);
        let weights = product.channel(c);
        let [rows, columns] = product.kernel;
        let first = product.first_input(c);
        let mut acc = 0;
        for i in 0..product.group_inputs() {
            let padding = match product.input {
                0 => self.model.input.zero_point[first + i].into(),
                _ => product.padding_code.into(),
            };
            for ky in 0..rows {
                for kx in 0..columns {
                    let (py, px) = (
                        position(y, product.stride, product.padding, ky),
                        position(x, product.stride, product.padding, kx),
                    );
                    let code = codes.at(py, px, first + i).unwrap_or(padding);
                    acc += code * i64::from(weights[(i * rows + ky) * columns + kx]);
                }
            }
        }
        acc
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

/// Row or column of the input that window position `k` of output position `at` reads.
fn position(at: usize, stride: usize, padding: usize, k: usize) -> isize {
    (at * stride + k) as isize - padding as isize
}
