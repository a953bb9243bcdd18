//! The description of a network.

use bitpact_graph::{Shape, Window};
use bitpact_model::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerTerm, IntegerView, TensorKind,
};

use super::super::bits_of;
use super::super::meaning::{self, Meaning};
use super::{
    Added, End, Input, Layer, Network, OfView, OfWindow, Op, Output, Product, Range, Stored, Term, VERSION, crc32, word,
};

impl Network {
    /// The description of `model`, the codes of whose products stand where `stored` says, in their order.
    pub(in crate::export) fn of(model: &IntegerModel, stored: Vec<Stored>) -> Self {
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

impl OfWindow {
    fn of(window: &Window) -> Self {
        let Window { kernel, stride, padding, dilation, spread } = *window;
        let padding = [padding.top, padding.left, padding.bottom, padding.right];
        Self { kernel, stride, padding, dilation, spread }
    }
}

impl OfView {
    fn of(view: &IntegerView) -> Self {
        Self { tensor: view.input, moves: view.moves.clone(), fill: view.fill }
    }
}

fn sizes(shape: Shape) -> [usize; 3] {
    [shape.h, shape.w, shape.c]
}
