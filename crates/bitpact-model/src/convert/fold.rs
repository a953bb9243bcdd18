//! One product in integers: quantized weights, and everything affine after it in one scale and one offset per channel.

use bitpact_core::{Grid, quantize_weights, quantize_weights_16bit};
use bitpact_graph::{NodeId, Op, WeightPlan};

use super::{BATCH_NORM_EPS, ConvertError, Converter};
use crate::{IntegerProduct, Tensor};

/// A product in integers, and the real numbers its sums stand for: `y = acc * scale[c] + offset[c]`.
pub(super) struct Folded {
    pub(super) product: IntegerProduct,
    pub(super) scale: Vec<f64>,
    pub(super) offset: Vec<f64>,
    pub(super) ranges: Vec<(i64, i64)>,
}

impl Converter<'_> {
    /// Quantizes the weights of a product and folds its scales, bias and batch norm.
    pub(super) fn fold(&self, product: NodeId, norm: Option<NodeId>, input: NodeId) -> Result<Folded, ConvertError> {
        let graph = &self.model.graph;
        let name = self.name(product).to_owned();
        let input = self.tensor_of(input, product)?;
        let from = self.out.shape(input);
        let (kernel, stride, padding, groups) = match graph.node(product).op {
            Op::Conv { kernel, stride, padding, groups, .. } => ([kernel; 2], stride, padding, groups),
            _ => ([from.h, from.w], 1, 0, 1),
        };
        let out_channels = graph.shape(product).c;
        let weight = self.model.tensor(&format!("{name}.weight"))?;
        let plane = kernel[0] * kernel[1];
        let mut w = weight.data.clone();
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
        let product = IntegerProduct {
            name: name.clone(),
            input,
            kernel,
            stride,
            padding,
            padding_code: if padding > 0 && input > 0 { zero as u32 } else { 0 },
            out_channels,
            in_channels,
            groups,
            weight_bits,
            grid,
            codes,
        };
        let s_x = self.scale_of(input);
        let ranges = self.out.acc_ranges(&product).map_err(|what| ConvertError::Layer { layer: name, what })?;
        let mut folded = Folded { product, scale: Vec::new(), offset: Vec::new(), ranges };
        for (c, (gain, shift)) in affine.into_iter().enumerate() {
            let codes = folded.product.channel(c);
            let scale = s_x * f64::from(scales[c]) * gain;
            let zero: i64 = match input {
                0 => {
                    let first = folded.product.first_input(c);
                    let zero_point = |i: usize| i64::from(self.model.input.zero_point[first + i / plane]);
                    codes.iter().enumerate().map(|(i, &q)| zero_point(i) * i64::from(q)).sum()
                }
                _ => zero * codes.iter().map(|&q| i64::from(q)).sum::<i64>(),
            };
            folded.offset.push(shift - scale * zero as f64);
            folded.scale.push(scale);
        }
        Ok(folded)
    }

    /// `y = gain * z + shift` per channel, of bias and batch norm.
    fn affine(&self, product: NodeId, norm: Option<NodeId>, channels: usize) -> Result<Vec<(f64, f64)>, ConvertError> {
        let tensor = |name: String| -> Result<&Tensor, ConvertError> { Ok(self.model.tensor(&name)?) };
        let bias: Vec<f64> = match self.model.graph.node(product).op {
            Op::Conv { bias: true, .. } | Op::Linear { bias: true, .. } => {
                tensor(format!("{}.bias", self.name(product)))?.data.iter().map(|&b| f64::from(b)).collect()
            }
            _ => vec![0.0; channels],
        };
        match norm {
            None => Ok(bias.into_iter().map(|b| (1.0, b)).collect()),
            Some(norm) => self.norm(norm, &bias),
        }
    }

    /// `y = gain * x + shift` per channel of a batch norm, x coming without its `bias`.
    pub(super) fn norm(&self, norm: NodeId, bias: &[f64]) -> Result<Vec<(f64, f64)>, ConvertError> {
        let tensor = |name: String| -> Result<&Tensor, ConvertError> { Ok(self.model.tensor(&name)?) };
        let norm = self.name(norm);
        let gamma = tensor(format!("{norm}.weight"))?;
        let beta = tensor(format!("{norm}.bias"))?;
        let mean = tensor(format!("{norm}.running_mean"))?;
        let var = tensor(format!("{norm}.running_var"))?;
        let fold = |(c, bias): (usize, &f64)| {
            let deviation = (f64::from(var.data[c]) + f64::from(BATCH_NORM_EPS)).sqrt();
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
