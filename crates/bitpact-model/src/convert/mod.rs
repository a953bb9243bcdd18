//! From a trained network to an integer network: the only place where batch norm is folded.

mod fold;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bitpact_core::{Ranges, RealStep, StepError, channel_q_max, largest_clip, step};
use bitpact_graph::{End, GraphError, Layer, NodeId, Op, Sum, View, fuse};

use self::fold::Folded;
use self::stream::Streams;
use crate::{IntegerLayer, IntegerModel, IntegerOp, IntegerResidual, Model, ModelError, TensorId};

/// The `eps` of every batch norm: `y = weight * (z - mean) / sqrt(var + eps) + bias`.
pub const BATCH_NORM_EPS: f32 = 1e-5;

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
    /// A layer whose sums could overflow, or whose real multipliers no integer step can hold.
    #[error("layer `{layer}`: {source}")]
    Step {
        /// The layer.
        layer: String,
        /// Why.
        source: StepError,
    },
    /// A layer that has no integer form.
    #[error("layer `{layer}`: {what}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
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
    /// Largest distance of the integer step from the real one before rounding, in code steps; for the logits, relative to the
    /// largest logit; for a residual stream, in its own steps, all roundings from its start included.
    pub worst_error: f64,
    /// Right shift of the step; for the logits, their scale is `2^-shift` and nothing is shifted.
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
    /// One entry a layer with weights, in the order of computation; a projection shares its layer's step.
    pub report: Vec<LayerReport>,
    /// One entry an activation that reads a residual stream or an average pool.
    pub acts: Vec<ActReport>,
}

impl Conversion {
    /// The largest distance of an integer step from the real one before rounding, in code steps; roundings of residual
    /// streams count where an activation reads them, and the logits relative to the largest.
    pub fn worst_error(&self) -> f64 {
        let is_stream = |name: &str| {
            let streams = self.model.layers.iter().filter(|l| matches!(l.op, IntegerOp::Stream { .. }));
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
    /// Largest distance of the integer step from the real one before rounding, in code steps, what a stream's own
    /// roundings may add included.
    pub worst_error: f64,
    /// Right shift of the step.
    pub shift: u32,
    /// Bits of the output codes.
    pub bits: u8,
}

/// Folds batch norm with its running statistics, biases, shortcuts, clipping and rounding of `model` into integer steps.
///
/// For a product of codes with step `s_x` and weights `s_w[c] * q_w`, `z = s_x * s_w[c] * (acc - sum of zero points * q_w)`,
/// `y = weight * (z + conv bias - running_mean) / sqrt(running_var + eps) + bias (+ shortcut)` and the output code is
/// `clamp(round(y * q_max / alpha), 0, q_max)`; channels with clip values of their own have the step of the largest, and end at
/// `round(alpha[c] * q_max / max alpha)`. Signed codes are stored as `q + q_max`, and the zero `q_max` of a tensor is
/// folded into the constants of its readers like a zero point. The input's scale is folded into the weights that read the image before
/// they are quantized, in float32 (`w * scale[c]`), so `s_x` is 1 there. All constants come from f64 with
/// `+ - * /` and square roots, so they are the same on every machine.
///
/// # Errors
/// A float network, an invalid model, or a layer whose sums could overflow; the error names the layer.
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
    let Converter { out, report, acts, .. } = Converter::run(model, &layers, streams)?;
    out.check()?;
    Ok(Conversion { model: out, report, acts })
}

struct Converter<'a> {
    model: &'a Model,
    out: IntegerModel,
    /// The tensor that holds the output of a node.
    tensors: HashMap<NodeId, TensorId>,
    /// The code of each tensor that stands for zero; the image's zero points are its own.
    zeros: Vec<i64>,
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
        };
        let mut converter = Self {
            model,
            out,
            tensors: HashMap::from([(0, 0)]),
            zeros: vec![0],
            report: Vec::new(),
            acts: Vec::new(),
            streams,
            owners: model.graph.clip_owners(),
        };
        for layer in layers {
            converter.layer(layer)?;
        }
        Ok(converter)
    }
}

/// A product as the node that it reads, the node itself and its batch norm.
type ProductTerm = (NodeId, NodeId, Option<NodeId>);

/// The main product of a sum, the second one, and the shortcut.
type Terms = (ProductTerm, Option<ProductTerm>, Option<View>);

/// An activation's quantizer, in f64.
struct Quantizer {
    inverse: f64,
    zero: i32,
    hi: i32,
    /// Codes of each channel, where they differ.
    bounds: Vec<(i32, i32)>,
    step: f64,
    bits: u8,
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

    fn push(&mut self, node: NodeId, op: IntegerOp, (lo, hi): (i64, i64), zero: i64, scale: f64) {
        let (name, shape) = (self.name(node).to_owned(), self.model.graph.shape(node));
        self.out.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale });
        self.tensors.insert(node, self.out.layers.len());
        self.zeros.push(zero);
    }

    fn layer(&mut self, layer: &Layer) -> Result<(), ConvertError> {
        match *layer {
            Layer::Sum(ref sum) => match (sum.end, sum.products().next(), sum.views().next()) {
                (End::Act(act), None, Some((view, norm))) => self.act(view.tensor, norm, act),
                (End::Act(act), ..) => self.unit(sum, act),
                (End::Output, ..) => self.logits(sum),
                (End::Wide, ..) => self.stream(sum),
            },
            Layer::MaxPool { input, node } => {
                let Op::MaxPool { kernel, stride, padding } = self.model.graph.node(node).op else {
                    return Ok(());
                };
                let input = self.tensor_of(input, node)?;
                let (range, scale) = (self.out.code_range(input), self.scale_of(input));
                let op = IntegerOp::MaxPool { input, kernel, stride, padding };
                self.push(node, op, range, self.zeros[input], scale);
                Ok(())
            }
            Layer::AvgPool { input, node } => {
                let Op::AvgPool { kernel, stride, padding } = self.model.graph.node(node).op else {
                    return Ok(());
                };
                let input = self.tensor_of(input, node)?;
                let padding_code = if padding > 0 { self.zeros[input] as u32 } else { 0 };
                let op = IntegerOp::WindowSum { input, kernel, stride, padding, padding_code };
                let positions = (kernel * kernel) as i64;
                let (zero, scale) = (self.zeros[input] * positions, self.scale_of(input) / positions as f64);
                self.push_checked(node, op, zero, scale)
            }
            Layer::Concat { node } => {
                let inputs = &self.model.graph.node(node).inputs;
                let inputs = inputs.iter().map(|&i| self.tensor_of(i, node)).collect::<Result<Vec<_>, _>>()?;
                let (zero, scale) = (self.zeros[inputs[0]], self.scale_of(inputs[0]));
                self.streams.concat(node, &inputs, self.out.layers.len() + 1);
                self.push_checked(node, IntegerOp::Concat { inputs }, zero, scale)
            }
            Layer::Dropout { input, node } => {
                let tensor = self.tensor_of(input, node)?;
                self.tensors.insert(node, tensor);
                Ok(())
            }
            Layer::GlobalAvgPool { input, node } => {
                let input = self.tensor_of(input, node)?;
                let from = self.out.shape(input);
                let pixels = (from.h * from.w) as i64;
                let (lo, hi) = self.out.code_range(input);
                let scale = self.scale_of(input) / pixels as f64;
                let (range, zero) = ((lo * pixels, hi * pixels), self.zeros[input] * pixels);
                self.push(node, IntegerOp::SumPool { input }, range, zero, scale);
                Ok(())
            }
        }
    }

    /// Pushes a layer whose code range follows from its inputs.
    fn push_checked(&mut self, node: NodeId, op: IntegerOp, zero: i64, scale: f64) -> Result<(), ConvertError> {
        let fail = |what| ConvertError::Layer { layer: self.name(node).to_owned(), what };
        let (_, range) = crate::integer::layer_output(&self.out, &op).map_err(fail)?;
        self.push(node, op, range, zero, scale);
        Ok(())
    }

    fn quantizer(&self, act: NodeId) -> Result<Quantizer, ConvertError> {
        let name = self.name(act);
        let plan = *self.model.plan.activations.get(name).ok_or_else(|| ConvertError::Layer {
            layer: name.to_owned(),
            what: "the plan has no activation for it".to_owned(),
        })?;
        let alphas = &self.model.tensor(&format!("{}.clip_val", self.name(self.owners[act])))?.data;
        let alpha = largest_clip(alphas);
        let zero = i32::from(plan.quant.zero_code(plan.bits));
        let (inverse, q_max) = (plan.quant.inverse_step(alpha, plan.bits), plan.quant.q_max(plan.bits));
        let limits: Vec<i32> = alphas.iter().map(|&a| channel_q_max(a, inverse, q_max as f32) as i32).collect();
        let bound = |&limit: &i32| (if plan.quant.is_signed() { zero - limit } else { 0 }, zero + limit);
        Ok(Quantizer {
            inverse: f64::from(inverse),
            zero,
            hi: q_max + zero,
            bounds: if limits.iter().all(|&l| l == q_max) { Vec::new() } else { limits.iter().map(bound).collect() },
            step: f64::from(plan.quant.step(alpha, plan.bits)),
            bits: plan.bits.get(),
        })
    }

    /// The main product and norm, the second one, and the shortcut of a sum.
    fn terms(&self, sum: &Sum) -> Result<Terms, ConvertError> {
        let mut products = sum.products();
        let (Some(main), second) = (products.next(), products.next()) else {
            unreachable!("a sum without products is an activation");
        };
        let mut views = sum.views().map(|(view, _)| view);
        let shortcut = views.next();
        if products.next().is_some() || views.next().is_some() || (second.is_some() && shortcut.is_some()) {
            let what = "a sum of more than a product and a shortcut or of more than two products".to_owned();
            return Err(ConvertError::Layer { layer: self.name(main.1).to_owned(), what });
        }
        Ok((main, second, shortcut))
    }

    /// The identity shortcut of a sum, from tensor `input`.
    fn shortcut(&self, view: View, input: TensorId) -> IntegerResidual {
        match view.node.map(|node| self.model.graph.node(node).op) {
            Some(Op::Subsample { stride, pad_before, pad_after }) => {
                IntegerResidual { input, stride, pad_before, pad_after }
            }
            _ => IntegerResidual { input, stride: 1, pad_before: 0, pad_after: 0 },
        }
    }

    fn unit(&mut self, sum: &Sum, act: NodeId) -> Result<(), ConvertError> {
        let Quantizer { inverse, zero, hi, bounds, step: scale, bits } = self.quantizer(act)?;
        let ((input, product, norm), second_term, view) = self.terms(sum)?;
        let main = self.fold(product, norm, input)?;
        let mut real = RealStep {
            scale: main.scale.iter().map(|s| s * inverse).collect(),
            scale2: Vec::new(),
            res_scale: Vec::new(),
            offset: main.offset.clone(),
            lo: 0,
            hi,
            bounds,
        };
        let (mut second, mut residual, mut ranges2, mut residual_range) = (None, None, Vec::new(), (0, 0));
        let mut residual_zero = 0;
        if let Some((tensor, product, norm)) = second_term {
            let folded = self.fold(product, norm, tensor)?;
            real.scale2 = folded.scale.iter().map(|s| s * inverse).collect();
            for (sum, offset) in real.offset.iter_mut().zip(&folded.offset) {
                *sum += offset;
            }
            ranges2 = folded.ranges;
            second = Some(folded.product);
        }
        if let Some(view) = view {
            let input = self.tensor_of(view.tensor, act)?;
            let shortcut = self.shortcut(view, input);
            let scale = self.scale_of(input) * inverse;
            let kept = shortcut.pad_before..main.scale.len() - shortcut.pad_after;
            real.res_scale = (0..main.scale.len()).map(|c| if kept.contains(&c) { scale } else { 0.0 }).collect();
            residual_range = self.out.residual_range(&shortcut);
            residual_zero = self.zeros[input];
            residual = Some(shortcut);
        }
        for (c, offset) in real.offset.iter_mut().enumerate() {
            let shortcut = real.res_scale.get(c).map_or(0.0, |scale| scale * residual_zero as f64);
            *offset = *offset * inverse - shortcut + f64::from(zero);
        }
        let ranges = Ranges { acc: &main.ranges, acc2: &ranges2, res: residual_range };
        let layer = self.name(product).to_owned();
        let derived = step::derive(&real, &ranges).map_err(|source| ConvertError::Step { layer, source })?;
        for (product, ranges) in
            std::iter::once((&main.product, &main.ranges)).chain(second.iter().map(|p| (p, &ranges2)))
        {
            self.report.push(LayerReport {
                name: product.name.clone(),
                acc_range: hull(ranges),
                worst_error: derived.worst_error,
                shift: derived.step.shift as i32,
                weight_bits: product.weight_bits,
                act_bits: Some(bits),
            });
        }
        let range = (0, hi.into());
        let op = IntegerOp::Product { main: main.product, second, residual, step: derived.step };
        self.push(sum.output, op, range, zero.into(), scale);
        Ok(())
    }

    fn logits(&mut self, sum: &Sum) -> Result<(), ConvertError> {
        let ((input, product, norm), second, view) = self.terms(sum)?;
        let layer = self.name(product).to_owned();
        if second.is_some() || view.is_some() {
            let what = "the logits cannot be a sum with a shortcut".to_owned();
            return Err(ConvertError::Layer { layer, what });
        }
        let main = self.fold(product, norm, input)?;
        let Some(exponent) = logit_exponent(&main) else {
            let what = "its multipliers and sums leave no common scale for the logits in 64 bits".to_owned();
            return Err(ConvertError::Layer { layer, what });
        };
        let unit_value = power_of_two(exponent);
        let round = |v: &f64| (v * unit_value).round_ties_even();
        let mul: Vec<i32> = main.scale.iter().map(|s| round(s) as i32).collect();
        let add: Vec<i64> = main.offset.iter().map(|o| round(o) as i64).collect();
        let (mut error, mut largest) = (0.0, 0.0);
        for c in 0..mul.len() {
            let reach = main.ranges[c].0.unsigned_abs().max(main.ranges[c].1.unsigned_abs()) as f64;
            let by_mul = (f64::from(mul[c]) - main.scale[c] * unit_value).abs() * reach;
            error = f64::max(error, by_mul + (add[c] as f64 - main.offset[c] * unit_value).abs());
            largest = f64::max(largest, (main.scale[c].abs() * reach + main.offset[c].abs()) * unit_value);
        }
        self.report.push(LayerReport {
            name: main.product.name.clone(),
            acc_range: hull(&main.ranges),
            worst_error: if largest > 0.0 { error / largest } else { 0.0 },
            shift: exponent,
            weight_bits: main.product.weight_bits,
            act_bits: None,
        });
        let op = IntegerOp::Logits { main: main.product, mul, add };
        self.push(sum.output, op, (0, 0), 0, power_of_two(-exponent));
        Ok(())
    }
}

/// The largest power of two whose multiples of the scales stay below 2^30, and of the logits below 2^62; between 2^-1000 and 2^1000.
fn logit_exponent(main: &Folded) -> Option<i32> {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let scale = largest(&mut main.scale.iter().map(|s| s.abs()));
    let logit = largest(&mut (0..main.scale.len()).map(|c| {
        let reach = main.ranges[c].0.unsigned_abs().max(main.ranges[c].1.unsigned_abs()) as f64;
        (main.scale[c].abs() + scale * 2f64.powi(-29)) * reach + main.offset[c].abs()
    }));
    let fits = |e: i32| scale * power_of_two(e) <= power_of_two(30) && logit * power_of_two(e) <= power_of_two(62);
    (-1000..=1000).rev().find(|&e| fits(e))
}

/// `2^exponent`, exactly.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + i64::from(exponent)) as u64) << 52)
}

fn hull(ranges: &[(i64, i64)]) -> (i64, i64) {
    ranges.iter().fold((i64::MAX, i64::MIN), |(lo, hi), r| (lo.min(r.0), hi.max(r.1)))
}
