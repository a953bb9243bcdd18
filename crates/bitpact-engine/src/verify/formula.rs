//! Each layer of a converted network, fed the integer network's own input codes, against the formula of training in
//! real numbers: what comparisons of integers with integers cannot see.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use bitpact_core::{ActQuant, channel_q_max, largest_clip, quantize_weights, quantize_weights_16bit};
use bitpact_graph::{End, Factor, Graph, Layer, Move, NodeId, Op, Sum, WeightPlan, Window, fuse, moved_source};
use bitpact_kernels::memory;
use bitpact_model::{Conversion, IntegerLayer, IntegerOp, Model, ModelError};

use super::{CODE_BYTES, trace_codes};
use crate::{EngineError, Interpreter, Trace};

/// Bound on the error of a sum in float64, in output units.
const FLOAT_SLACK: f64 = 1e-6;

/// A value that is further from the formula than conversion proved.
#[derive(Debug, Clone, PartialEq)]
pub struct FormulaDifference {
    /// Number of the image.
    pub image: usize,
    /// Name of the layer.
    pub layer: String,
    /// Row of the layer's output.
    pub y: usize,
    /// Column.
    pub x: usize,
    /// Channel.
    pub channel: usize,
    /// The formula's value in units of the layer's codes, before rounding.
    pub real: f64,
    /// The integer network's value.
    pub got: i64,
    /// Largest distance that conversion proved, rounding included.
    pub bound: f64,
}

impl fmt::Display for FormulaDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, layer, y, x, channel, real, got, bound } = self;
        write!(
            f,
            "image {image}, layer `{layer}`, row {y}, column {x}, channel {channel} is {got}, the formula of training gives \
             {real:.4}, which is further away than the proved {bound:.4}"
        )
    }
}

/// Result of a comparison with the formula of training.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FormulaCheck {
    /// Images compared.
    pub images: usize,
    /// Values compared.
    pub values: u64,
    /// Codes that differ by one from the rounded formula, within the proved bound of a rounding boundary.
    pub at_boundaries: u64,
    /// Values beyond the bound.
    pub wrong: u64,
    /// The first of them.
    pub first: Option<FormulaDifference>,
}

/// Compares the interpreter's values of `conversion` with the formula of training on `images` images. Every layer that
/// sums terms is fed the integer network's own input codes, so errors do not add up, and computed in float64 from the
/// tensors of `model`: weights as its quantizers give them (16-bit codes for layers trained in float), biases, batch
/// norms with their running statistics and eps, shortcuts, clip values. A code must be the formula's value, rounded,
/// or, within the error that conversion proved of a rounding boundary, its neighbour.
///
/// `load(range, pixels)` writes the images numbered `range`, HWC.
///
/// # Errors
/// A model whose graph cannot be fused, or that lacks a tensor.
pub fn check_formula(
    model: &Model,
    conversion: &Conversion,
    images: usize,
    mut load: impl FnMut(Range<usize>, &mut [u8]),
) -> Result<FormulaCheck, EngineError> {
    let formula = Formula::new(model, conversion)?;
    let interpreter = Interpreter::new(&conversion.model);
    memory::check(CODE_BYTES * trace_codes(&conversion.model) as u64).map_err(EngineError::Memory)?;
    let mut pixels = vec![0; conversion.model.example_bytes()];
    let mut check = FormulaCheck { images, ..FormulaCheck::default() };
    for image in 0..images {
        load(image..image + 1, &mut pixels);
        let trace = interpreter.run(&pixels);
        formula.sums.iter().for_each(|sum| formula.compare(sum, image, &pixels, &trace, &mut check));
    }
    Ok(check)
}

/// Real value of an integer of a tensor: `(value - zero) * unit`.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    /// The layer that writes it; none for the image.
    layer: Option<usize>,
    zero: f64,
    unit: f64,
}

/// A product in real numbers.
struct Product {
    input: NodeId,
    window: Window,
    /// Input channels of a group, and output channels of one.
    group: [usize; 2],
    /// `[out][in of a group][kernel row][kernel column]`.
    weights: Vec<f64>,
    bias: Vec<f64>,
}

enum Value {
    Product(Product),
    View { tensor: NodeId, moves: Vec<Move> },
}

/// One sum: its terms, each with the batch norm of its channels as gain and shift, and what its output means.
struct Expected {
    layer: usize,
    terms: Vec<(Value, Vec<(f64, f64)>)>,
    /// From real values to the layer's codes: `real * inverse + zero`.
    inverse: f64,
    zero: f64,
    /// Largest distance before rounding, in output units, of each channel.
    error: f64,
    /// Smallest and largest rounded output, for each channel or for all; empty where the layer does not round.
    bounds: Vec<(f64, f64)>,
}

struct Formula<'a> {
    graph: &'a Graph,
    conversion: &'a Conversion,
    zero_points: Vec<f64>,
    meanings: BTreeMap<NodeId, Meaning>,
    /// Learned slopes of functions.
    slopes: BTreeMap<NodeId, &'a [f32]>,
    sums: Vec<Expected>,
}

impl<'a> Formula<'a> {
    fn new(model: &'a Model, conversion: &'a Conversion) -> Result<Self, EngineError> {
        let graph = &model.graph;
        let owners = graph.clip_owners();
        let layers = &conversion.model.layers;
        let layer_of = |node: NodeId| layers.iter().position(|layer| layer.name == graph.node(node).name);
        let zero_points = model.input.zero_point.iter().map(|&z| f64::from(z)).collect();
        let image = Meaning { layer: None, zero: 0.0, unit: 1.0 };
        let (meanings, mut slopes) = (BTreeMap::from([(0, image)]), BTreeMap::new());
        for (id, node) in graph.nodes().iter().enumerate() {
            if matches!(node.op, Op::Function(function) if function.is_learned()) {
                slopes.insert(id, &model.tensor(&format!("{}.weight", node.name))?.data[..]);
            }
        }
        let mut formula = Self { graph, conversion, zero_points, meanings, slopes, sums: Vec::new() };
        for layer in fuse(graph).map_err(|error| unfit(graph.name(), error.to_string()))? {
            let node = layer.output();
            let written = layer_of(node);
            let meaning = match &layer {
                Layer::Sum(sum) => {
                    let mut bounds = Vec::new();
                    let (zero, unit, inverse) = match sum.end {
                        End::Act(act) => {
                            let plan = model.plan.activations[&graph.node(act).name];
                            let alphas = &model.tensor(&format!("{}.clip_val", graph.node(owners[act]).name))?.data;
                            let alpha = largest_clip(alphas);
                            let (multiple, zero, hi) = plan.quant.integer_codes(plan.bits);
                            let unit = f64::from(plan.quant.scale(alpha, plan.bits)) * multiple;
                            let inverse = plan.quant.inverse_scale(alpha, plan.bits);
                            let q_max = plan.quant.q_max(plan.bits) as f32;
                            let limits = alphas.iter().map(|&a| f64::from(channel_q_max(a, inverse, q_max)));
                            let least = |limit: f64| if plan.quant.is_signed() { zero - limit } else { 0.0 };
                            bounds = match plan.quant {
                                ActQuant::Sign => vec![(0.0, f64::from(hi))],
                                _ => limits.map(|limit| (least(limit), zero + limit)).collect(),
                            };
                            (zero, unit, f64::from(inverse) / multiple)
                        }
                        End::Wide | End::Output => {
                            let unit = written.map_or(1.0, |layer| layers[layer].scale);
                            (0.0, unit, 1.0 / unit)
                        }
                    };
                    if let Some(layer) = written {
                        formula.sums.push(formula.expected(model, sum, layer, (zero, inverse), bounds)?);
                    }
                    Meaning { layer: written, zero, unit }
                }
                Layer::MaxPool { input, .. } => Meaning { layer: written, ..formula.meanings[input] },
                Layer::Concat { node } => Meaning { layer: written, ..formula.meanings[&graph.node(*node).inputs[0]] },
                // A dropout is no layer of the integer network.
                Layer::Dropout { input, .. } => formula.meanings[input],
                Layer::View { input, .. } => Meaning { layer: written, ..formula.meanings[input] },
                // Computed where it is read.
                Layer::Function { .. } | Layer::Mul { .. } => continue,
                Layer::AvgPool { input, node } | Layer::GlobalAvgPool { input, node } => {
                    let op = graph.node(*node).op;
                    let window = op.window(graph.shape(*input)).expect("a pool has a window");
                    let positions = (window.kernel[0] * window.kernel[1]) as f64;
                    let Meaning { zero, unit, .. } = formula.meanings[input];
                    // The first position's mean is its sum times its factor over the common multiple.
                    let factors = match written.map(|layer| &layers[layer].op) {
                        Some(IntegerOp::WindowSum { factors, .. }) => &factors[..],
                        _ => &[],
                    };
                    let factor = f64::from(factors.first().copied().unwrap_or(1));
                    let zero = zero * positions * f64::from(factors.iter().copied().max().unwrap_or(1));
                    let divisor = op.divisors(graph.shape(*input)).map_or(positions, |all| all[0] as f64);
                    Meaning { layer: written, zero, unit: unit / (divisor * factor) }
                }
            };
            formula.meanings.insert(node, meaning);
        }
        Ok(formula)
    }

    fn expected(
        &self,
        model: &Model,
        sum: &Sum,
        layer: usize,
        (zero, inverse): (f64, f64),
        bounds: Vec<(f64, f64)>,
    ) -> Result<Expected, EngineError> {
        let graph = self.graph;
        let channels = graph.shape(sum.output).c;
        let mut terms = Vec::new();
        for term in &sum.terms {
            let value = match term.factor {
                Factor::Product { input, node } => Value::Product(product(model, input, node)?),
                Factor::View(view) => {
                    let moves = view.node.and_then(|node| graph.node(node).op.moves()).unwrap_or_default();
                    Value::View { tensor: view.tensor, moves }
                }
            };
            terms.push((value, norm(model, term.norm, channels)?));
        }
        let name = &graph.node(sum.output).name;
        let report = |product: NodeId| {
            let name = &graph.node(product).name;
            self.conversion.report.iter().find(|report| report.name == *name)
        };
        let error = match (sum.end, sum.products().next().and_then(|(_, product, _)| report(product))) {
            // Outputs keep half a unit for each unit of their sums, and half of one for the constant.
            (End::Output, _) => {
                let reports = sum.products().filter_map(|(_, product, _)| report(product));
                let reach = |(lo, hi): (i64, i64)| lo.unsigned_abs().max(hi.unsigned_abs()) as f64;
                reports.map(|report| 0.5 * reach(report.acc_range)).sum::<f64>() + 0.5
            }
            (End::Wide, _) => self.conversion.streams.get(name).copied().unwrap_or(0.0),
            (_, Some(report)) => report.worst_error,
            (_, None) => self.conversion.acts.iter().find(|act| act.name == *name).map_or(0.0, |act| act.worst_error),
        };
        Ok(Expected { layer, terms, inverse, zero, error, bounds })
    }

    /// Compares one layer of one image.
    fn compare(&self, sum: &Expected, image: usize, pixels: &[u8], trace: &Trace, check: &mut FormulaCheck) {
        let layer: &IntegerLayer = &self.conversion.model.layers[sum.layer];
        for (at, &got) in trace.tensors[sum.layer].iter().enumerate() {
            let (pixel, c) = (at / layer.shape.c, at % layer.shape.c);
            let (y, x) = (pixel / layer.shape.w, pixel % layer.shape.w);
            let terms = sum.terms.iter().map(|(value, norm)| {
                let (gain, shift) = norm[c];
                gain * self.value(value, pixels, trace, (y, x, c)) + shift
            });
            let real = terms.sum::<f64>() * sum.inverse + sum.zero;
            let (mut clamped, mut bound) = (real, sum.error + FLOAT_SLACK * real.abs().max(1.0));
            if let Some(&(lo, hi)) = sum.bounds.get(c % sum.bounds.len().max(1)) {
                clamped = real.clamp(lo, hi);
                bound += 0.5;
                let rounded = real.round_ties_even().clamp(lo, hi);
                check.at_boundaries += u64::from(got as f64 != rounded);
            }
            check.values += 1;
            if (got as f64 - clamped).abs() > bound {
                check.wrong += 1;
                let layer = layer.name.clone();
                let found = FormulaDifference { image, layer, y, x, channel: c, real, got, bound };
                check.first.get_or_insert(found);
            }
        }
    }

    /// Real value of a term before its batch norm.
    fn value(&self, value: &Value, pixels: &[u8], trace: &Trace, (y, x, c): (usize, usize, usize)) -> f64 {
        let (tensor, moves) = match value {
            Value::Product(product) => return self.product(product, pixels, trace, (y, x, c)),
            Value::View { tensor, moves } => (*tensor, moves),
        };
        let source = moved_source(self.graph.shape(tensor), moves, (y, x, c));
        source.map_or(0.0, |(y, x, c)| self.real(tensor, pixels, trace, (y, x, c)))
    }

    fn product(&self, product: &Product, pixels: &[u8], trace: &Trace, (y, x, o): (usize, usize, usize)) -> f64 {
        let [inputs, outputs] = product.group;
        let [rows, columns] = product.window.kernel;
        let from = self.graph.shape(product.input);
        // Beyond the edges signs are -1, all else 0.
        let padding = match self.meanings.get(&product.input) {
            Some(&Meaning { zero: 0.5, unit, .. }) => -0.5 * unit,
            _ => 0.0,
        };
        let mut sum = 0.0;
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let source = product.window.source(from, (y, x), (row, column));
            for i in 0..inputs {
                let weight = product.weights[((o * inputs + i) * rows + row) * columns + column];
                let c = o / outputs * inputs + i;
                sum += weight * source.map_or(padding, |(y, x)| self.real(product.input, pixels, trace, (y, x, c)));
            }
        }
        sum + product.bias[o]
    }

    /// Real value of an element of a tensor; of the image in units of a pixel, because its scale is in the weights.
    fn real(&self, node: NodeId, pixels: &[u8], trace: &Trace, (y, x, c): (usize, usize, usize)) -> f64 {
        let shape = self.graph.shape(node);
        let inputs = &self.graph.node(node).inputs;
        match self.graph.node(node).op {
            Op::Function(function) => {
                let slope = self.slopes.get(&node).map_or(0.0, |slopes| slopes[c]);
                return function.value(self.real(inputs[0], pixels, trace, (y, x, c)) as f32, slope).into();
            }
            Op::Mul => {
                let second = self.graph.shape(inputs[1]);
                let place = if (second.h, second.w) == (1, 1) { (0, 0, c) } else { (y, x, c) };
                let [a, b] = [(inputs[0], (y, x, c)), (inputs[1], place)];
                return self.real(a.0, pixels, trace, a.1) * self.real(b.0, pixels, trace, b.1);
            }
            _ => {}
        }
        let at = (y * shape.w + x) * shape.c + c;
        let Meaning { layer, zero, unit } = self.meanings[&node];
        match layer {
            None => f64::from(self.conversion.model.input.code(pixels, at)) - self.zero_points[c],
            Some(layer) => (trace.tensors[layer][at] as f64 - zero) * unit,
        }
    }
}

fn unfit(layer: &str, what: String) -> EngineError {
    ModelError::Layer { layer: layer.to_owned(), what }.into()
}

/// A product with the weights that training multiplies by.
fn product(model: &Model, input: NodeId, node: NodeId) -> Result<Product, EngineError> {
    let (graph, name) = (&model.graph, &model.graph.node(node).name);
    let (from, out_channels) = (graph.shape(input), graph.shape(node).c);
    let op = graph.node(node).op;
    let Some(window) = op.window(from) else { return Err(unfit(name, format!("a product that is a {}", op.name()))) };
    let group = [from.c / op.groups(), out_channels / op.groups()];
    let plane = window.kernel[0] * window.kernel[1];
    let mut w = model.tensor(&format!("{name}.weight"))?.data.clone();
    if let Some(order) = graph.weight_order(node) {
        w = order.into_iter().map(|at| w[at]).collect();
    }
    let mut learned = model.tensors.get(&format!("{name}.weight_step")).map_or(Vec::new(), |step| step.data.clone());
    if input == 0 {
        // The scale of pixels is in the weights before they are quantized.
        let of = |i: usize| model.input.scale[i / (group[0] * plane) / group[1] * group[0] + i / plane % group[0]];
        w.iter_mut().enumerate().for_each(|(i, w)| *w *= of(i));
        learned.iter_mut().for_each(|step| *step *= model.input.mean_scale());
    }
    let mut codes = vec![0; w.len()];
    let mut scales = vec![0.0; out_channels];
    match model.plan.weights.get(name) {
        Some(WeightPlan::Quantized(spec)) => {
            scales.truncate(spec.scales_len(out_channels));
            quantize_weights(spec, &w, out_channels, &learned, &mut codes, &mut scales);
        }
        _ => quantize_weights_16bit(&w, out_channels, &mut codes, &mut scales),
    }
    let n = codes.len() / out_channels;
    let scale = |i: usize| f64::from(scales[(i / n).min(scales.len() - 1)]);
    let weights = codes.iter().enumerate().map(|(i, &code)| f64::from(code) * scale(i)).collect();
    let bias = match op.has_bias() {
        true => model.tensor(&format!("{name}.bias"))?.data.iter().map(|&b| f64::from(b)).collect(),
        false => vec![0.0; out_channels],
    };
    Ok(Product { input, window, group, weights, bias })
}

/// A batch norm in evaluation as `gain * x + shift` of each channel.
fn norm(model: &Model, node: Option<NodeId>, channels: usize) -> Result<Vec<(f64, f64)>, EngineError> {
    let Some(node) = node else { return Ok(vec![(1.0, 0.0); channels]) };
    let Op::BatchNorm(parameters) = model.graph.node(node).op else { unreachable!("a norm is a batch norm") };
    let name = &model.graph.node(node).name;
    let tensor = |part: &str| model.tensor(&format!("{name}.{part}")).map(|tensor| &tensor.data);
    let (gamma, beta, mean, var) =
        (tensor("weight")?, tensor("bias")?, tensor("running_mean")?, tensor("running_var")?);
    let of = |c: usize| {
        let deviation = (f64::from(var[c]) + parameters.added()).sqrt();
        let gain = f64::from(gamma[c]) / deviation;
        (gain, f64::from(beta[c]) - f64::from(mean[c]) * gain)
    };
    Ok((0..channels).map(of).collect())
}
