//! The dialects that compute in floats between quantizers: QCDQ, QDQ and QONNX.
//!
//! A product gives `sum of x * w` with `x = scale * (q - zero)` and the weight scale `multiplier * s_out / (2^shift *
//! s_in)`; what is left of the constants is the bias. So the real number before a quantizer is that of the integers, up
//! to the rounding of float32.

use bitpact_graph::{Padding, Shape, Window};
use bitpact_model::{
    IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView, TensorId, TensorKind,
};

use super::integer::pads_within;
use super::meaning::{self, Affine, Meaning};
use super::moves::{self, moved};
use super::network::Stored;
use super::quantizers::{Dialect, Quantized};
use super::writer::{Header, Parameter, Scalar, Writer};
use super::{ExportError, ExportOptions, Format, input_kind, metadata, range, shape_dims};
use crate::onnx::proto;
use crate::onnx::tensor::kind;

/// Runtimes that make an 8-bit convolution of one between quantizers round its bias to a whole number of products of
/// codes. Where this moves a code by more than so many codes, the bias is added after the convolution, which they leave
/// alone.
const ROUNDED_BIAS: f64 = 1.0 / 1024.0;

/// The file.
///
/// # Errors
/// A layer whose numbers float32 does not hold.
pub(super) fn write(model: &IntegerModel, format: Format, options: ExportOptions) -> Result<proto::Model, ExportError> {
    let dialect = Dialect::of(format);
    let mut w = Writer::new(model.layers.iter().map(|layer| layer.name.as_str()), dialect.batch());
    let input = w.fresh("input");
    w.input(&input, if dialect.reads_floats() { kind::FLOAT } else { input_kind(model) }, model.input_shape);
    let mut pixels = dialect.pixels(&mut w, &input, model.input.bits);
    let zeros: Vec<f32> = model.input.zero_point.iter().map(|&zero| f32::from(zero)).collect();
    if zeros.iter().any(|&zero| zero != 0.0) {
        let zeros = w.channels_f32("input.zero", &zeros);
        pixels = w.node("Sub", &[&pixels, &zeros], "input.centred", &[]);
    }
    let quantized = vec![None; model.layers.len() + 1];
    let meanings = meaning::of(model);
    let (values, stored) = (vec![pixels], Vec::new());
    let mut graph = Reals { model, w, dialect, options, values, quantized, meanings, stored };
    for (i, layer) in model.layers.iter().enumerate() {
        if let Some(sum) = layer.op.sum() {
            range::check(model, &graph.meanings, i, sum, format)?;
        }
        graph.layer(i);
    }
    for output in &model.outputs {
        let layer = &model.layers[output.tensor - 1];
        graph.w.output(&layer.name, kind::FLOAT, &shape_dims(layer));
    }
    let (opset, ir_version, domains) = graph.dialect.versions();
    let metadata = metadata::entries(model, format, options, graph.stored);
    Ok(graph.w.finish(Header { name: model.arch.clone(), ir_version, opset, domains, metadata }))
}

struct Reals<'a> {
    model: &'a IntegerModel,
    w: Writer,
    dialect: Dialect,
    options: ExportOptions,
    /// Name of the real numbers of every tensor.
    values: Vec<String>,
    /// The integers of every tensor that a quantizer gave.
    quantized: Vec<Option<Quantized>>,
    meanings: Vec<Meaning>,
    /// Where the weights of each product stand.
    stored: Vec<Stored>,
}

impl Reals<'_> {
    fn layer(&mut self, i: usize) {
        let layer = &self.model.layers[i];
        let (name, shape) = (layer.name.as_str(), layer.shape);
        let base = &format!("{name}/real");
        let value = match &layer.op {
            IntegerOp::Sum(sum) => self.sum(sum, i, shape, name),
            IntegerOp::MaxPool { input, window } => {
                let x = self.values[*input].clone();
                let within = pads_within(window);
                let fill = Scalar::F32(f32::MIN);
                let x = if within { x } else { moves::padded(&mut self.w, &x, window.padding, fill, base) };
                let pads = if within { moves::pads(window.padding) } else { [0; 4] };
                self.w.node("MaxPool", &[&x], base, &moves::window(window, &pads))
            }
            IntegerOp::WindowSum { input, window, padding_code, factors } => {
                self.window_sum(i, *input, window, *padding_code, factors, base)
            }
            IntegerOp::Concat { inputs } => {
                let Meaning { scale, zero } = self.meanings[inputs[0]];
                let inputs: Vec<String> = inputs
                    .iter()
                    .map(|&input| {
                        let x = self.real(input, zero, base);
                        self.times(x, &[scale / self.meanings[input].scale], base)
                    })
                    .collect();
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                self.w.node("Concat", &inputs, base, &[("axis", Parameter::Int(1))])
            }
            IntegerOp::View(view) => self.view(view, self.meanings[view.input].zero, base),
        };
        let Meaning { scale, zero } = self.meanings[i + 1];
        let output = self.model.outputs.iter().find(|output| output.tensor == i + 1 && output.zero != zero);
        let Some(output) = output else {
            self.w.name(&value, name);
            self.values.push(name.to_owned());
            return;
        };
        // Readers and the output have other zeros.
        let shown = self.plus(value.clone(), &[(zero - output.zero) as f64 * scale], base);
        self.w.name(&shown, name);
        self.values.push(value);
    }

    /// The real numbers of a tensor whose zero were `zero`.
    fn real(&mut self, tensor: TensorId, zero: i64, base: &str) -> String {
        let Meaning { scale, zero: own } = self.meanings[tensor];
        let x = self.values[tensor].clone();
        if tensor == 0 { x } else { self.plus(x, &[(own - zero) as f64 * scale], base) }
    }

    /// A view whose zero were `zero`.
    fn view(&mut self, view: &IntegerView, zero: i64, base: &str) -> String {
        let x = self.real(view.input, zero, base);
        let fill = Scalar::F32(((view.fill - zero) as f64 * self.meanings[view.input].scale) as f32);
        moved(&mut self.w, &x, self.model.shape(view.input), &view.moves, fill, base)
    }

    /// `x` times one number a channel, or one for all.
    fn times(&mut self, x: String, by: &[f64], base: &str) -> String {
        let by: Vec<f32> = by.iter().map(|&v| v as f32).collect();
        if by.iter().all(|&v| v == 1.0) {
            return x;
        }
        let by = self.w.channels_f32(&format!("{base}.factor"), &by);
        self.w.node("Mul", &[&x, &by], base, &[])
    }

    fn plus(&mut self, x: String, add: &[f64], base: &str) -> String {
        let add: Vec<f32> = add.iter().map(|&v| v as f32).collect();
        if add.iter().all(|&v| v == 0.0) {
            return x;
        }
        let add = self.w.channels_f32(&format!("{base}.bias"), &add);
        self.w.node("Add", &[&x, &add], base, &[])
    }

    fn sum(&mut self, sum: &IntegerSum, i: usize, shape: Shape, name: &str) -> String {
        let base = &format!("{name}/real");
        let requant = &sum.requant;
        let Affine { out, gains, mut bias } = meaning::affine(self.model, &self.meanings, i, sum);
        if requant.shift > 0 && sum.end == IntegerEnd::Codes {
            // Integers round halves up and quantizers to even: half a step of the integers before the shift moves
            // halves alone.
            let step = out.scale / (1u64 << requant.shift) as f64;
            bias.iter_mut().for_each(|bias| *bias += step / 2.0);
        }
        let is_linear = sum.end == IntegerEnd::Output && (shape.h, shape.w) == (1, 1) && sum.terms.len() == 1;
        let reach = gains.iter().flatten().fold(0.0, |most, gain| f64::max(most, gain.abs())) / out.scale;
        let is_between = matches!(sum.end, IntegerEnd::Codes) && sum.terms.len() == 1 && sum.base.is_empty();
        let is_exact = self.options.rounded_biases || reach / 2.0 <= ROUNDED_BIAS;
        let is_apart = self.dialect.is_quantized() && is_between && !is_exact;
        let mut total: Option<String> = None;
        let mut pending = Some(bias);
        for (term, gains) in sum.terms.iter().zip(&gains) {
            let value = match term {
                IntegerTerm::Product(product) => {
                    let bias = pending.take_if(|_| !is_apart);
                    self.product(product, gains, bias, is_linear, base)
                }
                IntegerTerm::View(view) => {
                    let Meaning { scale, zero } = self.meanings[view.input];
                    let gains: Vec<f64> = gains.iter().map(|gain| gain / scale).collect();
                    match self.quantized[view.input].clone().filter(|_| view.moves.is_empty()) {
                        // Another scale of the same integers.
                        Some(codes) if gains.iter().all(|gain| *gain == gains[0]) && gains[0] > 0.0 => {
                            codes.real(&mut self.w, gains[0] * scale, base)
                        }
                        _ => {
                            let x = self.view(view, zero, base);
                            self.times(x, &gains, base)
                        }
                    }
                }
                IntegerTerm::Multiplication { a, b, zeros } => {
                    let scale = self.meanings[a.input].scale * self.meanings[b.input].scale;
                    let [a, b] = [(a, zeros[0]), (b, zeros[1])].map(|(view, zero)| self.view(view, zero, base));
                    let x = self.w.node("Mul", &[&a, &b], base, &[]);
                    self.times(x, &gains.iter().map(|gain| gain / scale).collect::<Vec<_>>(), base)
                }
            };
            total = Some(self.joined(total, value, base));
        }
        for (view, mul) in &sum.base {
            let Meaning { scale, zero } = self.meanings[view.input];
            let x = self.view(view, zero, base);
            let x = self.times(x, &[f64::from(*mul) * out.scale / scale], base);
            total = Some(self.joined(total, x, base));
        }
        let mut value = total.expect("a sum has a term or a tensor added");
        if let Some(bias) = pending {
            value = self.plus(value, &bias, base);
        }
        match &sum.end {
            IntegerEnd::Codes => {
                let layer = &self.model.layers[i];
                let is_narrow = self.is_read_plainly(i + 1);
                let range = (layer.lo, layer.hi);
                let (real, codes) =
                    self.dialect.codes(&mut self.w, &value, range, &requant.bounds, out, is_narrow, name);
                self.quantized[i + 1] = codes;
                real
            }
            IntegerEnd::Table(tables) => self.table(value, sum, tables, i, name),
            IntegerEnd::Output if (shape.h, shape.w) == (1, 1) && !self.is_flat(sum, is_linear) => {
                self.w.reshape(&value, &[shape.c], base)
            }
            IntegerEnd::Wide | IntegerEnd::Output => value,
        }
    }

    /// Whether only convolutions, matrices and sums read a tensor as it is: runtimes move what makes codes real behind
    /// pools and moves, which know no integers below 8 bits.
    fn is_read_plainly(&self, tensor: TensorId) -> bool {
        self.model.layers.iter().filter(|layer| layer.op.inputs().contains(&tensor)).all(|layer| {
            let is_plain = |view: &IntegerView| view.moves.is_empty() || view.input != tensor;
            layer.op.sum().is_some_and(|sum| {
                let terms = sum.terms.iter().all(|term| match term {
                    IntegerTerm::Product(product) => product.input != tensor || product.window.spread == [1; 2],
                    IntegerTerm::View(view) => is_plain(view),
                    IntegerTerm::Multiplication { a, b, .. } => is_plain(a) && is_plain(b),
                });
                terms && sum.base.iter().all(|(view, _)| is_plain(view))
            })
        })
    }

    fn joined(&mut self, total: Option<String>, x: String, base: &str) -> String {
        match total {
            Some(total) => self.w.node("Add", &[&total, &x], base, &[]),
            None => x,
        }
    }

    /// Looks up what is near whole numbers.
    fn table(&mut self, x: String, sum: &IntegerSum, tables: &[Vec<u8>], i: usize, name: &str) -> String {
        let base = &format!("{name}/index");
        let requant = &sum.requant;
        let x = self.w.node("Round", &[&x], base, &[]);
        let [lo, hi] = [requant.lo, requant.hi].map(|v| self.w.scalar("bound", Scalar::F32(v as f32)));
        let x = self.w.node("Clip", &[&x, &lo, &hi], base, &[]);
        let x = self.w.cast(&x, kind::INT64, base);
        let entries = tables[0].len();
        let starts: Vec<i64> = match tables.len() {
            1 => vec![-i64::from(requant.lo)],
            n => (0..n).map(|c| (c * entries) as i64 - i64::from(requant.lo)).collect(),
        };
        let starts = self.w.channels_i64(&format!("{base}.start"), &starts);
        let index = self.w.node("Add", &[&x, &starts], base, &[]);
        self.dialect.table(&mut self.w, &index, &tables.concat(), self.meanings[i + 1], name)
    }

    /// Tells whether the output of a sum of one pixel has no rows and columns.
    fn is_flat(&self, sum: &IntegerSum, is_linear: bool) -> bool {
        let product = sum.terms.first().and_then(IntegerTerm::product);
        sum.base.is_empty() && is_linear && product.is_some_and(|product| self.is_matrix(product))
    }

    /// Tells whether a product is one of a matrix with all of its input.
    fn is_matrix(&self, product: &IntegerProduct) -> bool {
        product.groups == 1 && product.window == Window::whole(self.model.shape(product.input))
    }

    /// A product whose sums have these gains; of a matrix, where `flat`, without rows and columns.
    fn product(
        &mut self,
        product: &IntegerProduct,
        gains: &[f64],
        bias: Option<Vec<f64>>,
        flat: bool,
        base: &str,
    ) -> String {
        let window = &product.window;
        let scale = self.meanings[product.input].scale;
        let scales: Vec<f64> = gains.iter().map(|gain| gain / scale).collect();
        let x = self.real(product.input, meaning::zero_of(&self.meanings, product), base);
        let shape = self.model.shape(product.input);
        let bias: Option<Vec<f32>> = bias.map(|bias| bias.iter().map(|&b| b as f32).collect());
        let bias = bias.filter(|bias| bias.iter().any(|&b| b != 0.0));
        let bias = bias.map(|bias| self.w.f32s(&format!("{}.bias", product.name), &[bias.len()], &bias));
        let flat = flat && self.is_matrix(product);
        let dims = match flat {
            true => vec![product.out_channels, product.weights_per_channel()],
            false => vec![product.out_channels, product.group_inputs(), window.kernel[0], window.kernel[1]],
        };
        let (weights, stored) = self.dialect.weights(&mut self.w, product, &scales, &dims);
        self.stored.push(stored);
        if flat {
            let x = self.w.node("Flatten", &[&x], base, &[("axis", Parameter::Int(1))]);
            let inputs: Vec<&str> = [&x, &weights].into_iter().chain(&bias).map(String::as_str).collect();
            return self.w.node("Gemm", &inputs, &product.name, &[("transB", Parameter::Int(1))]);
        }
        let x = moves::spread(&mut self.w, &x, shape, window.spread, Scalar::F32(0.0), base);
        let pads = moves::pads(window.padding);
        let [kernel, strides, pads, dilations] = moves::window(window, &pads);
        let inputs: Vec<&str> = [&x, &weights].into_iter().chain(&bias).map(String::as_str).collect();
        let group = ("group", Parameter::Int(product.groups as i64));
        self.w.node("Conv", &inputs, &product.name, &[kernel, strides, pads, dilations, group])
    }

    fn window_sum(
        &mut self,
        i: usize,
        input: TensorId,
        window: &Window,
        padding_code: u32,
        factors: &[u32],
        base: &str,
    ) -> String {
        debug_assert_eq!(self.model.kind(input), TensorKind::Codes);
        let (from, shape) = (self.model.shape(input), self.model.layers[i].shape);
        let zero = match window.padding.is_none() && factors.is_empty() {
            true => self.meanings[input].zero,
            false => padding_code.into(),
        };
        let x = self.real(input, zero, base);
        let positions = window.kernel[0] * window.kernel[1];
        // Real value of one unit of the mean, without the factor of its place.
        let gain = self.meanings[i + 1].scale / self.meanings[input].scale * positions as f64;
        let mean = if *window == Window::whole(from) {
            self.w.node("GlobalAveragePool", &[&x], base, &[])
        } else if window.dilation == [1; 2] {
            let within = pads_within(window);
            let x = if within { x } else { moves::padded(&mut self.w, &x, window.padding, Scalar::F32(0.0), base) };
            let pads = if within { moves::pads(window.padding) } else { moves::pads(Padding::default()) };
            let [kernel, strides, pads, _] = moves::window(window, &pads);
            let padding = ("count_include_pad", Parameter::Int(1));
            self.w.node("AveragePool", &[&x], base, &[kernel, strides, pads, padding])
        } else {
            // Pools of this operator set have no dilation.
            let [rows, columns] = window.kernel;
            let shares = vec![1.0 / positions as f32; from.c * positions];
            let shares = self.w.f32s(&format!("{base}.shares"), &[from.c, 1, rows, columns], &shares);
            let pads = moves::pads(window.padding);
            let [kernel, strides, pads, dilations] = moves::window(window, &pads);
            let group = ("group", Parameter::Int(from.c as i64));
            self.w.node("Conv", &[&x, &shares], base, &[kernel, strides, pads, dilations, group])
        };
        if factors.is_empty() {
            return self.times(mean, &[gain], base);
        }
        let factors: Vec<f32> = factors.iter().map(|&factor| (gain * f64::from(factor)) as f32).collect();
        let factors = self.w.f32s(&format!("{base}.factors"), &[1, 1, shape.h, shape.w], &factors);
        self.w.node("Mul", &[&mean, &factors], base, &[])
    }
}
