//! Weights beside the grid that they are rounded to.

use bitpact_core::{Granularity, Grid, WeightQuant, quantize_weights, tanh};
use bitpact_graph::{Graph, NodeId, WeightPlan};
use bitpact_model::Model;

use super::{Histogram, Noise};

/// Intervals of a histogram for each step of the grid, and in all at the most.
const FINE: usize = 8;
const MOST: usize = 128;

/// The weights of one layer in steps of its codes: a weight w with the scale s stands at w / s.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightView {
    /// Name of the layer.
    pub name: String,
    /// Bits of a code; `None` where the weights are float until they are converted.
    pub bits: Option<u8>,
    /// Quantizer and its grid, for people.
    pub quantizer: String,
    /// Number of weights.
    pub count: usize,
    /// Weights before rounding. Of `dorefa` these are `tanh(w) / max|tanh(w)|`, which it rounds.
    pub histogram: Histogram,
    /// Codes of the grid, ascending, and the share of the weights on each.
    pub levels: Vec<(i32, f64)>,
    /// Codes that no weight has.
    pub dead: usize,
    /// Signal over quantization error, in decibels: `10 log10(sum of w^2 / sum of (w - s q)^2)`; `None` where there is
    /// no error or no signal.
    pub snr_db: Option<f64>,
}

/// The weights of every convolution and linear layer of `model`, in the order of its graph.
pub fn weights(model: &Model) -> Vec<WeightView> {
    let products = model.graph.nodes().iter().enumerate().filter(|(_, node)| node.op.is_product());
    products.filter_map(|(id, _)| view(model, id)).collect()
}

/// `None` of tensors that the checkpoint lacks.
fn view(model: &Model, id: NodeId) -> Option<WeightView> {
    let name = model.graph.node(id).name.clone();
    let w = values(model, id)?;
    let Some(WeightPlan::Quantized(spec)) = model.plan.weights.get(&name).copied() else {
        let most = w.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let most = f64::from(if most > 0.0 { most } else { 1.0 });
        let mut histogram = Histogram::new((-1.02 * most, 1.02 * most), 64);
        w.iter().for_each(|&w| histogram.add(w.into()));
        let quantizer = "float in training, 16-bit codes after it".to_owned();
        return Some(WeightView {
            name,
            bits: None,
            quantizer,
            count: w.len(),
            histogram,
            levels: Vec::new(),
            dead: 0,
            snr_db: None,
        });
    };
    let out_channels = model.graph.shape(id).c;
    let reads_image = model.graph.node(id).inputs[0] == 0;
    let by = if reads_image { model.input.mean_scale() } else { 1.0 };
    let steps = model.tensors.get(&format!("{name}.weight_step"));
    let steps: Vec<f32> = steps.map_or(Vec::new(), |steps| steps.data.iter().map(|step| step * by).collect());
    let (mut codes, mut scales) = (vec![0; w.len()], vec![0.0; spec.scales_len(out_channels)]);
    quantize_weights(&spec, &w, out_channels, &steps, &mut codes, &mut scales);
    let rounded: Vec<f64> = match spec.quant {
        WeightQuant::Dorefa if spec.needs_tanh() => {
            let most = w.iter().fold(0.0f32, |most, &w| most.max(tanh(w).abs()));
            w.iter().map(|&w| f64::from(tanh(w) / if most > 0.0 { most } else { 1.0 })).collect()
        }
        _ => w.iter().map(|&w| f64::from(w)).collect(),
    };
    let limit = f64::from(spec.code_limit());
    let reach = 1.25 * limit.max(1.0);
    let steps_across = 2.0 * reach / if spec.grid == Grid::WithoutZero { 2.0 } else { 1.0 };
    let intervals = ((steps_across * FINE as f64) as usize).clamp(32, MOST);
    let mut histogram = Histogram::new((-reach, reach), intervals);
    let (mut noise, per_scale) = (Noise::default(), w.len() / scales.len().max(1));
    for (i, (&value, &code)) in rounded.iter().zip(&codes).enumerate() {
        let scale = f64::from(scales[i / per_scale.max(1)]);
        noise.add(value, scale * f64::from(code));
        if scale > 0.0 {
            histogram.add(value / scale);
        }
    }
    let grid: Vec<i32> =
        (-spec.code_limit()..=spec.code_limit()).filter(|&q| spec.grid.contains(q, spec.bits)).collect();
    let share =
        |level: i32| codes.iter().filter(|&&code| i32::from(code) == level).count() as f64 / w.len().max(1) as f64;
    let levels: Vec<(i32, f64)> = grid.into_iter().map(|level| (level, share(level))).collect();
    let scale = if spec.scale == Granularity::Channel { ", a scale a channel" } else { "" };
    Some(WeightView {
        name,
        bits: Some(spec.bits.get()),
        quantizer: format!("{}{scale}", spec.quant),
        count: w.len(),
        histogram,
        dead: levels.iter().filter(|(_, share)| *share == 0.0).count(),
        levels,
        snr_db: noise.db(),
    })
}

/// The weights of a product as they are quantized: by output channel, and times the image's scales where it is read.
fn values(model: &Model, id: NodeId) -> Option<Vec<f32>> {
    let graph: &Graph = &model.graph;
    let node = graph.node(id);
    let data = &model.tensors.get(&format!("{}.weight", node.name))?.data;
    let mut w: Vec<f32> = match graph.weight_order(id) {
        None => data.clone(),
        Some(order) => order.into_iter().map(|at| data[at]).collect(),
    };
    if node.inputs[0] == 0 {
        let (in_channels, out_channels, groups) = (graph.input_shape(id).c, graph.shape(id).c, node.op.groups());
        let group_in = in_channels / groups;
        let plane = w.len() / (out_channels * group_in).max(1);
        for (o, w) in w.chunks_exact_mut((group_in * plane).max(1)).enumerate() {
            let first = o / (out_channels / groups) * group_in;
            w.iter_mut().enumerate().for_each(|(i, w)| *w *= model.input.scale[first + i / plane]);
        }
    }
    Some(w)
}
