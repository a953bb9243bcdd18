//! One term in integers: quantized weights, and everything affine after it in one scale and one offset per channel.

use bitpact_core::{Grid, quantize_weights, quantize_weights_16bit};
use bitpact_graph::{Move, NodeId, Op, View, WeightPlan, moved_source};

use super::{Computed, ConvertError, Converter};
use crate::integer::reads_padding;
use crate::{IntegerProduct, IntegerTerm, IntegerView, Tensor};

/// A term in integers, and the real numbers that its values stand for.
pub(super) struct Folded {
    pub(super) term: IntegerTerm,
    /// Real value of one unit, per channel.
    pub(super) scale: Vec<f64>,
    /// Real value that is added, per channel, and the value that stands for zero: `y = (value - zero) * scale[c] +
    /// offset[c]`.
    pub(super) offset: Vec<f64>,
    pub(super) zero: f64,
    pub(super) ranges: Vec<(i64, i64)>,
}

impl Converter<'_> {
    /// The integers of a view, through its batch norm where it has one.
    pub(super) fn fold_view(&self, view: View, norm: Option<NodeId>, reader: NodeId) -> Result<Folded, ConvertError> {
        if let Some(Computed::Product(factors)) = self.computed.get(&view.tensor) {
            return self.fold_multiplication(*factors, norm, view.tensor);
        }
        let tensor = self.tensor_of(view.tensor, reader)?;
        let zero = self.zeros[tensor];
        let moves = self.moves(view);
        let shape = self.model.graph.shape(view.node.unwrap_or(view.tensor));
        let from = self.out.shape(tensor);
        let is_whole = zero.fract() == 0.0;
        let fill = if moves.iter().any(Move::inserts) && is_whole { zero as i64 } else { 0 };
        let integers = IntegerView { input: tensor, moves, fill };
        let affine = self.affine_of(norm, shape.c)?;
        let unit = self.scale_of(tensor);
        // Channels that are inserted as a whole hold zero: they need no multiplier.
        let inserted = |c: usize| {
            let places = (0..shape.h).flat_map(|y| (0..shape.w).map(move |x| (y, x, c)));
            places.filter(|&place| moved_source(from, &integers.moves, place).is_none()).count()
        };
        let is_kept = |c: usize| !integers.inserts() || inserted(c) < shape.h * shape.w;
        if integers.inserts() && !is_whole && (0..shape.c).any(|c| is_kept(c) && inserted(c) > 0) {
            self.whole_zero(tensor, view.node.unwrap_or(view.tensor), "with zeros inserted among them")?;
        }
        let scale = (0..shape.c).map(|c| if is_kept(c) { affine[c].0 * unit } else { 0.0 }).collect();
        let ranges = vec![self.out.view_range(&integers); shape.c];
        let offset = affine.iter().map(|(_, shift)| *shift).collect();
        Ok(Folded { term: IntegerTerm::View(integers), scale, offset, zero, ranges })
    }

    /// The integers of a product of two tensors, through its batch norm where it has one.
    fn fold_multiplication(
        &self,
        factors: [NodeId; 2],
        norm: Option<NodeId>,
        node: NodeId,
    ) -> Result<Folded, ConvertError> {
        let tensors = [self.tensor_of(factors[0], node)?, self.tensor_of(factors[1], node)?];
        let whole = |i: usize| self.whole_zero(tensors[i], node, "in a product of tensors");
        let ([a, b], zeros) = (tensors.map(IntegerView::of), [whole(0)?, whole(1)?]);
        let range = self.out.multiplication_range([&a, &b], zeros);
        let term = IntegerTerm::Multiplication { a, b, zeros };
        let unit = self.scale_of(tensors[0]) * self.scale_of(tensors[1]);
        let affine = self.affine_of(norm, self.model.graph.shape(node).c)?;
        let (scale, offset) = affine.into_iter().map(|(gain, shift)| (gain * unit, shift)).unzip();
        let ranges = vec![range; self.model.graph.shape(node).c];
        Ok(Folded { term, scale, offset, zero: 0.0, ranges })
    }

    /// `y = gain * x + shift` per channel of a batch norm, or of none.
    fn affine_of(&self, norm: Option<NodeId>, channels: usize) -> Result<Vec<(f64, f64)>, ConvertError> {
        match norm {
            Some(norm) => self.norm(norm, &vec![0.0; channels]),
            None => Ok(vec![(1.0, 0.0); channels]),
        }
    }

    /// Moves that make `view` of its tensor.
    fn moves(&self, view: View) -> Vec<Move> {
        view.node.and_then(|node| self.model.graph.node(node).op.moves()).unwrap_or_default()
    }

    /// Quantizes the weights of a product and folds its scales, bias and batch norm.
    pub(super) fn fold(&self, product: NodeId, norm: Option<NodeId>, read: NodeId) -> Result<Folded, ConvertError> {
        let graph = &self.model.graph;
        let name = self.name(product).to_owned();
        let input = self.tensor_of(read, product)?;
        let from = self.out.shape(input);
        let op = graph.node(product).op;
        let (window, groups) = (op.window(from).expect("a product has a window"), op.groups());
        let kernel = window.kernel;
        let out_channels = graph.shape(product).c;
        let weight = self.model.tensor(&format!("{name}.weight"))?;
        let plane = kernel[0] * kernel[1];
        let mut w = match graph.weight_order(product) {
            None => weight.data.clone(),
            Some(order) => order.into_iter().map(|at| weight.data[at]).collect(),
        };
        let in_channels = from.c;
        let (group_in, group_out) = (in_channels / groups, out_channels / groups);
        if input == 0 {
            let scales = &self.model.input.scale;
            for (o, w) in w.chunks_exact_mut(group_in * plane).enumerate() {
                let first = o / group_out * group_in;
                w.iter_mut().enumerate().for_each(|(i, w)| *w *= scales[first + i / plane]);
            }
        }
        let steps: Vec<f32> = match self.model.tensors.get(&format!("{name}.weight_step")) {
            Some(step) if input == 0 => step.data.iter().map(|s| s * self.model.input.mean_scale()).collect(),
            Some(step) => step.data.clone(),
            None => Vec::new(),
        };
        let (codes, scales, weight_bits, grid) = quantize(self.model.plan.weights.get(&name), &w, out_channels, &steps);
        let affine = self.affine(product, norm, out_channels)?;
        let zero = self.zeros[input];
        let pads = reads_padding(&window) && input > 0;
        let product = IntegerProduct {
            name: name.clone(),
            input,
            window,
            padding_code: if pads { self.padding_code(read, input, product)? } else { 0 },
            out_channels,
            in_channels,
            groups,
            weight_bits,
            grid,
            codes,
        };
        let s_x = self.scale_of(input);
        let ranges = self.out.acc_ranges(&product).map_err(|what| ConvertError::Layer { layer: name, what })?;
        let (mut scale, mut offset) = (Vec::with_capacity(out_channels), Vec::with_capacity(out_channels));
        for (c, (gain, shift)) in affine.into_iter().enumerate() {
            let codes = product.channel(c);
            let unit = s_x * f64::from(scales[c]) * gain;
            let zero = match input {
                0 => {
                    let first = product.first_input(c);
                    let zero_point = |i: usize| i64::from(self.model.input.zero_point[first + i / plane]);
                    codes.iter().enumerate().map(|(i, &q)| zero_point(i) * i64::from(q)).sum::<i64>() as f64
                }
                _ => zero * codes.iter().map(|&q| i64::from(q)).sum::<i64>() as f64,
            };
            offset.push(shift - unit * zero);
            scale.push(unit);
        }
        Ok(Folded { term: IntegerTerm::Product(product), scale, offset, zero: 0.0, ranges })
    }

    /// `y = gain * z + shift` per channel, of bias and batch norm.
    fn affine(&self, product: NodeId, norm: Option<NodeId>, channels: usize) -> Result<Vec<(f64, f64)>, ConvertError> {
        let tensor = |name: String| -> Result<&Tensor, ConvertError> { Ok(self.model.tensor(&name)?) };
        let bias: Vec<f64> = match self.model.graph.node(product).op.has_bias() {
            true => tensor(format!("{}.bias", self.name(product)))?.data.iter().map(|&b| f64::from(b)).collect(),
            false => vec![0.0; channels],
        };
        match norm {
            None => Ok(bias.into_iter().map(|b| (1.0, b)).collect()),
            Some(norm) => self.norm(norm, &bias),
        }
    }

    /// `y = gain * x + shift` per channel of a batch norm, x coming without its `bias`.
    pub(super) fn norm(&self, norm: NodeId, bias: &[f64]) -> Result<Vec<(f64, f64)>, ConvertError> {
        let tensor = |name: String| -> Result<&Tensor, ConvertError> { Ok(self.model.tensor(&name)?) };
        let Op::BatchNorm(parameters) = self.model.graph.node(norm).op else {
            unreachable!("a norm is a batch norm");
        };
        let norm = self.name(norm);
        let gamma = tensor(format!("{norm}.weight"))?;
        let beta = tensor(format!("{norm}.bias"))?;
        let mean = tensor(format!("{norm}.running_mean"))?;
        let var = tensor(format!("{norm}.running_var"))?;
        let fold = |(c, bias): (usize, &f64)| {
            let deviation = (f64::from(var.data[c]) + parameters.added()).sqrt();
            let gain = f64::from(gamma.data[c]) / deviation;
            (gain, (bias - f64::from(mean.data[c])) * gain + f64::from(beta.data[c]))
        };
        Ok(bias.iter().enumerate().map(fold).collect())
    }
}

/// Codes, one scale per output channel, bits and grid.
fn quantize(
    plan: Option<&WeightPlan>,
    w: &[f32],
    out_channels: usize,
    steps: &[f32],
) -> (Vec<i16>, Vec<f32>, u8, Grid) {
    let mut codes = vec![0; w.len()];
    match plan {
        Some(WeightPlan::Quantized(spec)) => {
            let mut scales = vec![0.0; spec.scales_len(out_channels)];
            quantize_weights(spec, w, out_channels, steps, &mut codes, &mut scales);
            let scales = (0..out_channels).map(|c| scales[c.min(scales.len() - 1)]).collect();
            (codes, scales, spec.bits.get(), spec.grid)
        }
        _ => {
            let mut scales = vec![0.0; out_channels];
            quantize_weights_16bit(w, out_channels, &mut codes, &mut scales);
            (codes, scales, 16, Grid::WithZero)
        }
    }
}
