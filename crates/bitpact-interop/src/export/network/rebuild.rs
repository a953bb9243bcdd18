//! The network of a description.

use bitpact_core::Requantization;
use bitpact_graph::{Padding, Shape, Window};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum,
    IntegerTerm, IntegerView,
};

use super::{End, Input, Network, OfView, OfWindow, Op, Output, Product, Range, Term, crc32};

impl Network {
    /// The network, whose codes `codes` finds: `[output][input of the group][row][column]` for a product of these
    /// sizes. It is not checked.
    ///
    /// # Errors
    /// A product that reads a tensor that is not there, or whose sizes fit no memory; errors of `codes`. The message
    /// names the product.
    pub(in crate::export) fn model(
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
    fn integers(self) -> Window {
        let Self { kernel, stride, padding: [top, left, bottom, right], dilation, spread } = self;
        Window { kernel, stride, padding: Padding { top, left, bottom, right }, dilation, spread }
    }
}

impl OfView {
    fn integers(self) -> IntegerView {
        IntegerView { input: self.tensor, moves: self.moves, fill: self.fill }
    }
}

fn shape([h, w, c]: [usize; 3]) -> Shape {
    Shape { h, w, c }
}
