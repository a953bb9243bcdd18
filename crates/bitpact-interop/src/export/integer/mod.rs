//! `onnx-integer`: the network in integer operators, number for number what the interpreter computes.
//!
//! Codes are uint8, everything else int64. Products are `ConvInteger`, whose 32-bit sums cannot overflow: weights and
//! inputs of more than 8 bits are cut into digits of base 256, long sums into parts, and added in 64 bits.

mod product;

use bitpact_graph::{Padding, Shape, Window};
use bitpact_model::{IntegerEnd, IntegerModel, IntegerOp, IntegerSum, IntegerTerm, IntegerView, TensorId, TensorKind};

use super::moves::{self, moved};
use super::network::Stored;
use super::writer::{Header, Parameter, Scalar, Writer};
use super::{ExportOptions, Format, input_kind, metadata, shape_dims};
use crate::onnx::proto;
use crate::onnx::tensor::kind;

/// Operator set: everything used is of it or older.
const OPSET: i64 = 13;
const IR_VERSION: i64 = 7;
/// Smallest value of a wide tensor is above this.
const BELOW_WIDE: i64 = i32::MIN as i64;

/// The file.
pub(super) fn write(model: &IntegerModel) -> proto::Model {
    let mut w = Writer::new(model.layers.iter().map(|layer| layer.name.as_str()), None);
    let input = w.fresh("input");
    w.input(&input, input_kind(model), model.input_shape);
    let image = if model.input.bits == 8 { input } else { w.cast(&input, kind::INT64, "input.codes") };
    let mut graph = Integers { model, w, values: vec![image], stored: Vec::new() };
    for i in 0..model.layers.len() {
        graph.layer(i);
    }
    for output in &model.outputs {
        let layer = &model.layers[output.tensor - 1];
        graph.w.output(&layer.name, graph.kind_of(output.tensor), &shape_dims(layer));
    }
    graph.w.finish(Header {
        name: model.arch.clone(),
        ir_version: IR_VERSION,
        opset: OPSET,
        domains: Vec::new(),
        metadata: metadata::entries(model, Format::OnnxInteger, ExportOptions::default(), graph.stored),
    })
}

struct Integers<'a> {
    model: &'a IntegerModel,
    w: Writer,
    /// Name of every tensor.
    values: Vec<String>,
    /// Where the weights of each product stand.
    stored: Vec<Stored>,
}

impl Integers<'_> {
    fn layer(&mut self, i: usize) {
        let layer = &self.model.layers[i];
        let (name, shape) = (layer.name.as_str(), layer.shape);
        let value = match &layer.op {
            IntegerOp::Sum(sum) => self.sum(sum, shape, name),
            IntegerOp::MaxPool { input, window } => self.max_pool(*input, window, shape, name),
            IntegerOp::WindowSum { input, window, padding_code, factors } => {
                self.window_sum(*input, window, *padding_code, factors, shape, name)
            }
            IntegerOp::Concat { inputs } => {
                let inputs: Vec<&str> = inputs.iter().map(|&input| self.values[input].as_str()).collect();
                self.w.node("Concat", &inputs, name, &[("axis", Parameter::Int(1))])
            }
            IntegerOp::View(view) => self.view(view, name),
        };
        self.w.name(&value, name);
        self.values.push(name.to_owned());
    }

    /// Number of the element type of a tensor.
    fn kind_of(&self, tensor: TensorId) -> i32 {
        self.scalar(tensor, 0).kind()
    }

    /// A value in the element type of a tensor.
    fn scalar(&self, tensor: TensorId, value: i64) -> Scalar {
        match self.model.kind(tensor) {
            TensorKind::Image if self.model.input.bits > 8 => Scalar::I64(value),
            TensorKind::Image | TensorKind::Codes => Scalar::U8(value as u8),
            TensorKind::Sums | TensorKind::Wide | TensorKind::Output => Scalar::I64(value),
        }
    }

    /// A view in the element type of its tensor.
    fn view(&mut self, view: &IntegerView, base: &str) -> String {
        let fill = self.scalar(view.input, view.fill);
        let (x, shape) = (self.values[view.input].clone(), self.model.shape(view.input));
        moved(&mut self.w, &x, shape, &view.moves, fill, base)
    }

    /// A view in int64.
    fn wide_view(&mut self, view: &IntegerView, base: &str) -> String {
        let x = self.view(view, base);
        match self.kind_of(view.input) {
            kind::INT64 => x,
            _ => self.w.cast(&x, kind::INT64, base),
        }
    }

    fn binary(&mut self, op: &str, a: &str, b: &str, base: &str) -> String {
        self.w.node(op, &[a, b], base, &[])
    }

    /// `x` times one number a channel.
    fn times(&mut self, x: String, by: &[i64], base: &str) -> String {
        if by.iter().all(|&m| m == 1) {
            return x;
        }
        let by = self.w.channels_i64(&format!("{base}.multiplier"), by);
        self.binary("Mul", &x, &by, base)
    }

    fn plus(&mut self, x: String, add: &[i64], base: &str) -> String {
        if add.iter().all(|&a| a == 0) {
            return x;
        }
        let add = self.w.channels_i64(&format!("{base}.constant"), add);
        self.binary("Add", &x, &add, base)
    }

    fn sum(&mut self, sum: &IntegerSum, shape: Shape, name: &str) -> String {
        let base = &format!("{name}/sum");
        let mut total: Option<String> = None;
        let mut join = |graph: &mut Self, x: String| {
            total = Some(match total.take() {
                Some(sum) => graph.binary("Add", &sum, &x, base),
                None => x,
            });
        };
        for (term, mul) in sum.terms.iter().zip(&sum.requant.mul) {
            let value = match term {
                IntegerTerm::Product(product) => self.product(product),
                IntegerTerm::View(view) => self.wide_view(view, base),
                IntegerTerm::Multiplication { a, b, zeros } => {
                    let [a, b] = [(a, zeros[0]), (b, zeros[1])].map(|(view, zero)| {
                        let x = self.wide_view(view, base);
                        self.plus(x, &[-zero], base)
                    });
                    self.binary("Mul", &a, &b, base)
                }
            };
            let mul: Vec<i64> = mul.iter().map(|&m| i64::from(m)).collect();
            let value = self.times(value, &mul, base);
            join(self, value);
        }
        let requant = &sum.requant;
        let shifted = match total {
            Some(total) => {
                let total = self.plus(total, &requant.add, base);
                // Where what is below 0 becomes lo all the same, dividing may round towards 0.
                let clamps = sum.end == IntegerEnd::Codes && requant.lo >= 0;
                Some(self.shifted(total, requant.shift, clamps, base))
            }
            None => None,
        };
        let constant: Vec<i64> = match shifted {
            Some(_) => Vec::new(),
            None => requant.add.iter().map(|add| add >> requant.shift).collect(),
        };
        let mut value = shifted;
        for (view, mul) in &sum.base {
            let x = self.wide_view(view, base);
            let x = self.times(x, &[i64::from(*mul)], base);
            value = Some(match value {
                Some(value) => self.binary("Add", &value, &x, base),
                None => x,
            });
        }
        let value = value.expect("a sum has a term or a tensor added");
        let value = self.plus(value, &constant, base);
        match &sum.end {
            IntegerEnd::Codes => {
                let value = self.clamped(value, sum, base);
                self.w.cast(&value, kind::UINT8, base)
            }
            IntegerEnd::Table(tables) => {
                let value = self.clamped(value, sum, base);
                let entries = tables[0].len();
                let starts: Vec<i64> = match tables.len() {
                    1 => vec![-i64::from(requant.lo)],
                    n => (0..n).map(|c| (c * entries) as i64 - i64::from(requant.lo)).collect(),
                };
                let index = self.plus(value, &starts, base);
                let table =
                    self.w.constant(&format!("{name}.table"), kind::UINT8, &[tables.len() * entries], tables.concat());
                self.w.node("Gather", &[&table, &index], base, &[])
            }
            IntegerEnd::Output if (shape.h, shape.w) == (1, 1) => self.w.reshape(&value, &[shape.c], base),
            IntegerEnd::Wide | IntegerEnd::Output => value,
        }
    }

    /// `x >> shift`, or `x / 2^shift` rounded towards 0 where `truncate`.
    fn shifted(&mut self, x: String, shift: u32, truncate: bool, base: &str) -> String {
        if shift == 0 {
            return x;
        }
        let unit = self.w.scalar("unit", Scalar::I64(1 << shift));
        if truncate {
            return self.binary("Div", &x, &unit, base);
        }
        // Mod has the sign of the divisor.
        let rest = self.binary("Mod", &x, &unit, base);
        let whole = self.binary("Sub", &x, &rest, base);
        self.binary("Div", &whole, &unit, base)
    }

    /// Clamped to the range of the requantization, or of each channel.
    fn clamped(&mut self, x: String, sum: &IntegerSum, base: &str) -> String {
        let requant = &sum.requant;
        if requant.bounds.is_empty() {
            let [lo, hi] = [requant.lo, requant.hi].map(|v| self.w.scalar("bound", Scalar::I64(v.into())));
            return self.w.node("Clip", &[&x, &lo, &hi], base, &[]);
        }
        let (lo, hi): (Vec<i64>, Vec<i64>) =
            requant.bounds.iter().map(|&(lo, hi)| (i64::from(lo), i64::from(hi))).unzip();
        let [lo, hi] = [lo, hi].map(|bounds| self.w.channels_i64(&format!("{base}.bounds"), &bounds));
        let x = self.binary("Max", &x, &lo, base);
        self.binary("Min", &x, &hi, base)
    }

    fn max_pool(&mut self, input: TensorId, window: &Window, shape: Shape, name: &str) -> String {
        let x = self.values[input].clone();
        let base = &format!("{name}/pool");
        if self.kind_of(input) == kind::UINT8 {
            let within = pads_within(window);
            // Codes of 0 never win.
            let x = if within { x } else { moves::padded(&mut self.w, &x, window.padding, Scalar::U8(0), base) };
            let pads = if within { moves::pads(window.padding) } else { [0; 4] };
            return self.w.node("MaxPool", &[&x], base, &moves::window(window, &pads));
        }
        let x = moves::padded(&mut self.w, &x, window.padding, Scalar::I64(BELOW_WIDE), base);
        let places = (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| [ky, kx]));
        let taps: Vec<String> =
            places.map(|k| moves::tap(&mut self.w, &x, window, k, [shape.h, shape.w], base)).collect();
        self.w.node("Max", &taps.iter().map(String::as_str).collect::<Vec<_>>(), base, &[])
    }

    fn window_sum(
        &mut self,
        input: TensorId,
        window: &Window,
        padding_code: u32,
        factors: &[u32],
        shape: Shape,
        name: &str,
    ) -> String {
        let base = &format!("{name}/window");
        let from = self.model.shape(input);
        let x = self.values[input].clone();
        let sum = if *window == Window::whole(from) {
            let x = self.w.cast(&x, kind::INT64, base);
            let axes = self.w.ints("axes", &[2, 3]);
            self.w.node("ReduceSum", &[&x, &axes], base, &[("keepdims", Parameter::Int(1))])
        } else {
            let x = moves::padded(&mut self.w, &x, window.padding, Scalar::U8(padding_code as u8), base);
            let [rows, columns] = window.kernel;
            let ones = vec![1; from.c * rows * columns];
            let ones = self.w.constant(&format!("{base}.ones"), kind::UINT8, &[from.c, 1, rows, columns], ones);
            let pads = [0; 4];
            let [kernel, strides, pads, dilations] = moves::window(window, &pads);
            let group = ("group", Parameter::Int(from.c as i64));
            let sum = self.w.node("ConvInteger", &[&x, &ones], base, &[kernel, strides, pads, dilations, group]);
            self.w.cast(&sum, kind::INT64, base)
        };
        if factors.is_empty() {
            return sum;
        }
        let padding = (window.kernel[0] * window.kernel[1]) as i64 * i64::from(padding_code);
        let largest = factors.iter().max().map_or(1, |&factor| i64::from(factor));
        let sum = self.plus(sum, &[-padding], base);
        let factors: Vec<i64> = factors.iter().map(|&factor| i64::from(factor)).collect();
        let factors = self.w.i64s(&format!("{base}.factors"), &[1, 1, shape.h, shape.w], &factors);
        let sum = self.binary("Mul", &sum, &factors, base);
        self.plus(sum, &[padding * largest], base)
    }
}

/// Whether every padding is below the kernel, as runtimes want it.
pub(super) fn pads_within(window: &Window) -> bool {
    let Padding { top, left, bottom, right } = window.padding;
    top.max(bottom) < window.kernel[0] && left.max(right) < window.kernel[1]
}
