//! From a trained network to an integer network: the only place where batch norm is folded.

mod fold;
mod stream;
mod sum;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bitpact_core::{ActQuant, Bits, RequantizationError, act_code, channel_q_max, largest_clip};
use bitpact_graph::{GraphError, Layer, Move, NodeId, Op, Window, fuse};

use self::stream::Streams;
use crate::{IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerView, Model, ModelError, TensorId};

/// Why a network has no integer form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// No layer is quantized.
    #[error("`{arch}` is a float network: it has no integer form")]
    Float {
        /// Name of the architecture.
        arch: String,
    },
    /// The graph cannot be fused into layers.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The model, or what came of it, is not valid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layer whose sums could overflow, or whose real multipliers no requantization can hold.
    #[error("layer `{layer}`: {source}")]
    Step {
        /// Name of the layer.
        layer: String,
        /// Error that caused this one.
        source: RequantizationError,
    },
    /// A layer that has no integer form.
    #[error("layer `{layer}`: {what}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// Error that caused this one.
        what: String,
    },
}

/// What conversion proved about one layer with weights.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Name of the product, such as `layer1.0.conv1`.
    pub name: String,
    /// Smallest and largest sum of any channel, for any image.
    pub acc_range: (i64, i64),
    /// Largest distance of the integers from the real sum before rounding, in output codes; for the logits, relative to
    /// the largest logit; for a residual stream, in its own units, all roundings from its start included.
    pub worst_error: f64,
    /// Right shift of the sum; for the logits, their scale is `2^-shift` and nothing is shifted.
    pub shift: i32,
    /// Bits of a weight code: 1 to 8, or 16.
    pub weight_bits: u8,
    /// Bits of the output codes; `None` for the logits and residual streams.
    pub act_bits: Option<u8>,
}

/// An integer network and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// The network.
    pub model: IntegerModel,
    /// One entry a layer with weights, in the order of computation; products of one sum share its shift.
    pub report: Vec<LayerReport>,
    /// One entry an activation that reads a residual stream or an average pool.
    pub acts: Vec<ActReport>,
    /// Largest distance of every residual stream from the real sum, in its own units, by the name of its layer.
    pub streams: BTreeMap<String, f64>,
}

impl Conversion {
    /// The largest distance of the integers from the real sum before rounding, in output codes; roundings of residual
    /// streams count where an activation reads them, and the logits relative to the largest.
    pub fn worst_error(&self) -> f64 {
        let is_stream = |name: &str| {
            let streams = self.model.layers.iter().filter(|l| l.op.is_wide());
            streams.flat_map(|l| l.op.products()).any(|p| p.name == name)
        };
        let layers = self.report.iter().filter(|l| l.act_bits.is_some() || !is_stream(&l.name)).map(|l| l.worst_error);
        layers.chain(self.acts.iter().map(|a| a.worst_error)).fold(0.0, f64::max)
    }
}

/// What conversion proved about an activation without a product of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct ActReport {
    /// Name of the activation.
    pub name: String,
    /// Smallest and largest value read, for any image.
    pub range: (i64, i64),
    /// Largest distance of the integers from the real sum before rounding, in output codes, what a stream's own
    /// roundings may add included.
    pub worst_error: f64,
    /// Right shift of the sum.
    pub shift: u32,
    /// Bits of the output codes.
    pub bits: u8,
}

/// Folds batch norm with its running statistics, biases, shortcuts, clipping and rounding of `model` into
/// requantizations.
///
/// For a product of codes of scale `s_x` and weights `s_w[c] * q_w`, `z = s_x * s_w[c] * (acc - sum of zero points *
/// q_w)`, `y = weight * (z + conv bias - running_mean) / sqrt(running_var + eps) + bias (+ shortcut)` and the output
/// code is `clamp(round(y * q_max / alpha), 0, q_max)`; channels with clip values of their own have the scale of the
/// largest, and end at `round(alpha[c] * q_max / max alpha)`. Signed codes are stored as `q + q_max`, and the zero
/// `q_max` of a tensor is folded into the constants of its readers like a zero point; so is the zero 1/2 of signs,
/// whose codes are 0 and 1 and whose padding is 0, that is -1. The input's scale is folded into
/// the weights that read the image before they are quantized, in float32 (`w * scale[c]`), so `s_x` is 1 there. All
/// constants come from f64 with `+ - * /` and square roots, so they are the same on every machine.
///
/// # Errors
/// A float network, an invalid model, a layer whose sums could overflow, or one that needs the code of zero of signs,
/// which have none; the error names the layer.
pub fn convert(model: &Model) -> Result<Conversion, ConvertError> {
    model.check()?;
    if model.plan.is_float() {
        return Err(ConvertError::Float { arch: model.graph.name().to_owned() });
    }
    let layers = fuse(&model.graph)?;
    let mut streams = Streams::of(&model.graph, &layers);
    if !streams.is_empty() {
        // The scales of streams follow from the ranges of everything that is added to them.
        let measured = Converter::run(model, &layers, streams)?;
        streams = measured.streams.scaled();
    }
    let Converter { out, report, acts, streams, .. } = Converter::run(model, &layers, streams)?;
    out.check()?;
    // Tensor 0 is the image, then every layer has one.
    let streams = streams.errors.into_iter().map(|(tensor, error)| (out.layers[tensor - 1].name.clone(), error));
    Ok(Conversion { streams: streams.collect(), model: out, report, acts })
}

fn least_common_multiple(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b)
}

/// A node without a tensor of its own in the integer network: it becomes a part of the layers that read it.
enum Computed {
    /// A function of the output of this node.
    Function(NodeId),
    /// The product of the outputs of two nodes.
    Product([NodeId; 2]),
}

struct Converter<'a> {
    model: &'a Model,
    out: IntegerModel,
    /// The tensor that holds the output of a node.
    tensors: HashMap<NodeId, TensorId>,
    computed: HashMap<NodeId, Computed>,
    /// The code of each tensor that stands for zero, of signs a half; the image's zero points are its own.
    zeros: Vec<f64>,
    report: Vec<LayerReport>,
    acts: Vec<ActReport>,
    streams: Streams,
    /// The activation that holds the clip value of each.
    owners: Vec<NodeId>,
}

impl<'a> Converter<'a> {
    fn run(model: &'a Model, layers: &[Layer], streams: Streams) -> Result<Self, ConvertError> {
        let out = IntegerModel {
            arch: model.graph.name().to_owned(),
            input: model.input.clone(),
            input_shape: model.graph.input(),
            class_names: model.class_names.clone(),
            layers: Vec::with_capacity(layers.len()),
            outputs: Vec::new(),
        };
        let mut converter = Self {
            model,
            out,
            tensors: HashMap::from([(0, 0)]),
            computed: HashMap::new(),
            zeros: vec![0.0],
            report: Vec::new(),
            acts: Vec::new(),
            streams,
            owners: model.graph.clip_owners(),
        };
        for layer in layers {
            converter.layer(layer)?;
        }
        for &id in model.graph.outputs() {
            let tensor = converter.tensor_of(id, id)?;
            let zero = converter.whole_zero(tensor, id, "as outputs")?;
            converter.out.outputs.push(IntegerOutput { tensor, zero });
        }
        Ok(converter)
    }
}

/// An activation's quantizer, in f64.
struct Quantizer {
    quant: ActQuant,
    inverse: f64,
    zero: f64,
    hi: i32,
    /// Codes of each channel, where they differ.
    bounds: Vec<(i32, i32)>,
    scale: f64,
    bits: Bits,
}

/// An activation as training computes it.
struct Act<F> {
    quantizer: Quantizer,
    /// The stored code of a real number in a channel.
    code: F,
}

impl Converter<'_> {
    fn name(&self, id: NodeId) -> &str {
        &self.model.graph.node(id).name
    }

    fn tensor_of(&self, id: NodeId, reader: NodeId) -> Result<TensorId, ConvertError> {
        self.tensors.get(&id).copied().ok_or_else(|| ConvertError::Layer {
            layer: self.name(reader).to_owned(),
            what: format!("`{}` is no tensor of the integer network", self.name(id)),
        })
    }

    /// Real value of one code of a tensor; 1 for the image, whose scale is in the weights.
    fn scale_of(&self, tensor: TensorId) -> f64 {
        tensor.checked_sub(1).map_or(1.0, |layer| self.out.layers[layer].scale)
    }

    fn push(&mut self, node: NodeId, op: IntegerOp, (lo, hi): (i64, i64), zero: f64, scale: f64) {
        let (name, shape) = (self.name(node).to_owned(), self.model.graph.shape(node));
        self.out.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale });
        self.tensors.insert(node, self.out.layers.len());
        self.zeros.push(zero);
    }

    fn layer(&mut self, layer: &Layer) -> Result<(), ConvertError> {
        match *layer {
            Layer::Sum(ref sum) => self.sum(sum),
            Layer::MaxPool { input, node } => {
                let tensor = self.tensor_of(input, node)?;
                let op = IntegerOp::MaxPool { input: tensor, window: self.window(node) };
                self.streams.pass(node, &[tensor], self.out.layers.len() + 1);
                self.push_checked(node, op, self.zeros[tensor], self.scale_of(tensor))
            }
            Layer::AvgPool { input, node } | Layer::GlobalAvgPool { input, node } => self.window_sum(input, node),
            Layer::View { input, node } => {
                let tensor = self.tensor_of(input, node)?;
                let moves = self.model.graph.node(node).op.moves().unwrap_or_default();
                let zero = self.zeros[tensor];
                let fill = match moves.iter().any(Move::inserts) {
                    true => self.whole_zero(tensor, node, "with zeros inserted among them")?,
                    false => 0,
                };
                self.streams.pass(node, &[tensor], self.out.layers.len() + 1);
                let op = IntegerOp::View(IntegerView { input: tensor, moves, fill });
                self.push_checked(node, op, zero, self.scale_of(tensor))
            }
            Layer::Function { input, node } => {
                self.computed.insert(node, Computed::Function(input));
                Ok(())
            }
            Layer::Mul { node } => {
                let inputs = &self.model.graph.node(node).inputs;
                self.computed.insert(node, Computed::Product([inputs[0], inputs[1]]));
                Ok(())
            }
            Layer::Concat { node } => {
                let inputs = &self.model.graph.node(node).inputs;
                let inputs = inputs.iter().map(|&i| self.tensor_of(i, node)).collect::<Result<Vec<_>, _>>()?;
                let (zero, scale) = (self.zeros[inputs[0]], self.scale_of(inputs[0]));
                self.streams.pass(node, &inputs, self.out.layers.len() + 1);
                self.push_checked(node, IntegerOp::Concat { inputs }, zero, scale)
            }
            Layer::Dropout { input, node } => {
                let tensor = self.tensor_of(input, node)?;
                self.tensors.insert(node, tensor);
                Ok(())
            }
        }
    }

    /// An average pool: sums of codes whose divisor is in the scale.
    fn window_sum(&mut self, input: NodeId, node: NodeId) -> Result<(), ConvertError> {
        let divisors = self.model.graph.node(node).op.divisors(self.model.graph.shape(input)).unwrap_or_default();
        let window = self.window(node);
        let input = self.tensor_of(input, node)?;
        let padding_code = match window.padding.is_none() {
            true => 0,
            false => self.whole_zero(input, node, "in an average over padding")? as u32,
        };
        let multiple = divisors.iter().try_fold(1, |all, &n| least_common_multiple(all, n as u64));
        let Some(multiple) = multiple.filter(|&multiple| multiple < 1 << 31) else {
            let what = "an average whose divisors have no common multiple of 31 bits".to_owned();
            return Err(ConvertError::Layer { layer: self.name(node).to_owned(), what });
        };
        let factors = match divisors.iter().all(|&n| n as u64 == multiple) {
            true => Vec::new(),
            false => divisors.iter().map(|&n| (multiple / n as u64) as u32).collect(),
        };
        let positions = (window.kernel[0] * window.kernel[1]) as i64;
        let largest = factors.iter().max().map_or(1, |&factor| i64::from(factor));
        let (zero, scale) = (self.zeros[input] * (positions * largest) as f64, self.scale_of(input) / multiple as f64);
        self.push_checked(node, IntegerOp::WindowSum { input, window, padding_code, factors }, zero, scale)
    }

    /// The window of a pool.
    fn window(&self, node: NodeId) -> Window {
        let graph = &self.model.graph;
        graph.node(node).op.window(graph.input_shape(node)).expect("a pool has a window")
    }

    /// Pushes a layer whose code range follows from its inputs.
    fn push_checked(&mut self, node: NodeId, op: IntegerOp, zero: f64, scale: f64) -> Result<(), ConvertError> {
        let fail = |what| ConvertError::Layer { layer: self.name(node).to_owned(), what };
        let (_, range) = self.out.output_of(&op).map_err(fail)?;
        self.push(node, op, range, zero, scale);
        Ok(())
    }

    fn act_codes(&self, act: NodeId) -> Result<Act<impl Fn(f32, usize) -> u8 + use<>>, ConvertError> {
        let quantizer = self.quantizer(act)?;
        let (quant, hi, bounds) = (quantizer.quant, quantizer.hi, quantizer.bounds.clone());
        let (inverse, zero) = (quantizer.inverse as f32, i32::from(quant.zero_code(quantizer.bits)));
        let code = move |x: f32, c: usize| {
            let limit = bounds.get(c).map_or(hi, |&(_, hi)| hi) - zero;
            match quant {
                ActQuant::Sign => u8::from(act_code(quant, x, inverse, 1.0) > 0),
                _ => (act_code(quant, x, inverse, limit as f32) + zero) as u8,
            }
        };
        Ok(Act { quantizer, code })
    }

    fn quantizer(&self, act: NodeId) -> Result<Quantizer, ConvertError> {
        let name = self.name(act);
        let plan = *self.model.plan.activations.get(name).ok_or_else(|| ConvertError::Layer {
            layer: name.to_owned(),
            what: "the plan has no activation for it".to_owned(),
        })?;
        let alphas = &self.model.tensor(&format!("{}.clip_val", self.name(self.owners[act])))?.data;
        let alpha = largest_clip(alphas);
        let stored_zero = i32::from(plan.quant.zero_code(plan.bits));
        let (inverse, q_max) = (plan.quant.inverse_scale(alpha, plan.bits), plan.quant.q_max(plan.bits));
        let limits: Vec<i32> = alphas.iter().map(|&a| channel_q_max(a, inverse, q_max as f32) as i32).collect();
        let bound = |&limit: &i32| (if plan.quant.is_signed() { stored_zero - limit } else { 0 }, stored_zero + limit);
        let (multiple, zero, hi) = plan.quant.integer_codes(plan.bits);
        Ok(Quantizer {
            quant: plan.quant,
            inverse: f64::from(inverse) / multiple,
            zero,
            hi,
            bounds: if limits.iter().all(|&l| l == q_max) { Vec::new() } else { limits.iter().map(bound).collect() },
            scale: f64::from(plan.quant.scale(alpha, plan.bits)) * multiple,
            bits: plan.bits,
        })
    }

    /// The code of zero of a tensor, for the layer of `reader`, which needs one; `how` says what for.
    fn whole_zero(&self, tensor: TensorId, reader: NodeId, how: &str) -> Result<i64, ConvertError> {
        let zero = self.zeros[tensor];
        if zero.fract() == 0.0 {
            return Ok(zero as i64);
        }
        let what =
            format!("reads signs {how}, and no code of -1 and +1 stands for zero: use another quantizer than sign");
        Err(ConvertError::Layer { layer: self.name(reader).to_owned(), what })
    }

    /// The code beyond the edges of `input`, which `tensor` holds, for the windows of the product `reader`: that of
    /// zero, of signs that of -1, as training has it where it reads the codes themselves.
    fn padding_code(&self, input: NodeId, tensor: TensorId, reader: NodeId) -> Result<u32, ConvertError> {
        let graph = &self.model.graph;
        let mut source = input;
        while matches!(graph.node(source).op, Op::MaxPool(_) | Op::View(_) | Op::Subsample { .. } | Op::Concat) {
            source = graph.node(source).inputs[0];
        }
        match graph.node(source).op {
            Op::Act { .. } if self.zeros[tensor] == 0.5 => Ok(0),
            _ => Ok(self.whole_zero(tensor, reader, "through a dropout or an average pool, with padding")? as u32),
        }
    }
}
