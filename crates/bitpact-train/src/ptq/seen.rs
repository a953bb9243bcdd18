//! What the float network shows of itself on the images: the reference that every step is measured against.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bitpact_core::{ALPHA_MIN, Granularity};
use bitpact_graph::{ActPlan, Graph, NodeId, Op, QuantPlan, Shape};
use bitpact_kernels::Pool;
use bitpact_model::Model;
use bitpact_ptq::{Calibrate, Histogram};

use super::forward::{Values, centred, value, walk};
use super::product::Lowered;
use super::{Progress, PtqError};

/// Images whose values are counted by one task.
const TASK_IMAGES: usize = 8;

/// Of one node over all images.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    /// Mean of each channel.
    pub(super) mean: Vec<f64>,
    /// Mean square of each channel.
    pub(super) mean_square: Vec<f64>,
    /// Largest magnitude of each channel.
    pub(super) largest: Vec<f32>,
}

impl Moments {
    pub(super) fn of(x: &[f32], channels: usize) -> Self {
        let (mut mean, mut mean_square, mut largest) =
            (vec![0.0; channels], vec![0.0; channels], vec![0.0f32; channels]);
        for pixel in x.chunks_exact(channels) {
            for (c, &v) in pixel.iter().enumerate() {
                mean[c] += f64::from(v);
                mean_square[c] += f64::from(v).powi(2);
                largest[c] = largest[c].max(v.abs());
            }
        }
        let n = (x.len() / channels.max(1)).max(1) as f64;
        mean.iter_mut().chain(&mut mean_square).for_each(|sum| *sum /= n);
        Self { mean, mean_square, largest }
    }

    /// Sum over channels of the variance.
    pub(super) fn variance(&self) -> f64 {
        self.mean.iter().zip(&self.mean_square).map(|(mean, square)| (square - mean * mean).max(0.0)).sum()
    }
}

/// The float network on the images.
pub(super) struct Seen {
    /// Of every node.
    pub(super) moments: Vec<Moments>,
    /// What each activation reads, of those that share a clip value together, under the one that holds it: positive
    /// values, of signed activations magnitudes.
    histograms: BTreeMap<NodeId, Histogram>,
    /// The outputs.
    pub(super) outputs: Values,
}

impl Seen {
    /// Runs the float `model` on images, HWC, one after the other.
    ///
    /// # Errors
    /// A stop, or an output that is not a number.
    pub(super) fn new(
        model: &Model,
        pixels: &[u8],
        pool: &Pool,
        progress: &mut Progress<'_>,
    ) -> Result<Self, PtqError> {
        let graph = &model.graph;
        let images = pixels.len() / model.input.example_bytes(graph.input());
        let owners = graph.clip_owners();
        let mut moments = vec![Moments::default(); graph.nodes().len()];
        let mut histograms: BTreeMap<NodeId, Histogram> = BTreeMap::new();
        progress.begin("float network", graph.nodes().len());
        let outputs = walk(graph, centred(pixels, &model.input), |id, inputs| {
            progress.next()?;
            let node = graph.node(id);
            if node.op.is_act() {
                let seen = histogram(inputs[0], graph.shape(id), node.op == Op::Act { signed: true }, pool);
                histograms.entry(owners[id]).or_default().merge(&seen);
            }
            let values = match node.op.is_product() {
                true => {
                    let lowered = Lowered::new(graph, id, &model.input);
                    let weights = lowered.matrices(&model.tensor(&format!("{}.weight", node.name))?.data);
                    lowered.forward(inputs[0], &weights, &bias(model, id)?, images, pool)
                }
                false => value(model, id, inputs, images, pool)?,
            };
            moments[id] = Moments::of(&values, graph.shape(id).c);
            Ok::<_, PtqError>(values)
        })?;
        match outputs.iter().position(|y| !y.is_finite()) {
            Some(at) => {
                Err(PtqError::Output { image: at / graph.shape(graph.output()).elements(), value: outputs[at] })
            }
            None => Ok(Self { moments, histograms, outputs }),
        }
    }

    /// Clip values of every activation of `plan` that holds its own, by the name of its tensor. Where channels have
    /// their own, each ends at the largest value that it had, and the layer's clip value at the latest.
    pub(super) fn clips(&self, graph: &Graph, plan: &QuantPlan, rule: &dyn Fn(&ActPlan) -> Calibrate) -> Clips {
        let clip = |(&owner, histogram): (&NodeId, &Histogram)| {
            let node = graph.node(owner);
            let act = plan.activations.get(&node.name)?;
            let q_max = act.quant.q_max(act.bits) as u32;
            let alpha = histogram.clip(rule(act), q_max).max(ALPHA_MIN);
            // What the activation gives is what it reads, so far as it is clipped by it.
            let of_channel = |&largest: &f32| if largest > 0.0 { largest.min(alpha) } else { alpha };
            let values = match act.clip_scale {
                Granularity::Layer => vec![alpha],
                Granularity::Channel => {
                    let mut clips: Vec<f32> = self.moments[owner].largest.iter().map(of_channel).collect();
                    // The step is that of the largest.
                    if let Some(most) = clips.iter_mut().reduce(|most, clip| if *clip > *most { clip } else { most }) {
                        *most = alpha;
                    }
                    clips
                }
            };
            Some((node.name.clone(), values))
        };
        self.histograms.iter().filter_map(clip).collect()
    }
}

/// Clip values by activation.
pub(super) type Clips = BTreeMap<String, Vec<f32>>;

/// The bias of a product, zeros where it has none.
pub(super) fn bias(model: &Model, id: NodeId) -> Result<Vec<f32>, PtqError> {
    let node = model.graph.node(id);
    Ok(match node.op.has_bias() {
        true => model.tensor(&format!("{}.bias", node.name))?.data.clone(),
        false => vec![0.0; model.graph.shape(id).c],
    })
}

/// Histogram of the values, or of their magnitudes.
pub(super) fn histogram(x: &[f32], shape: Shape, is_signed: bool, pool: &Pool) -> Histogram {
    let part = shape.elements() * TASK_IMAGES;
    let all = Mutex::new(Histogram::default());
    pool.run(x.len().div_ceil(part), &|task, _| {
        let values = &x[task * part..x.len().min((task + 1) * part)];
        let mut seen = Histogram::default();
        match is_signed {
            true => seen.add(values.iter().map(|v| v.abs())),
            false => seen.add(values.iter().copied()),
        }
        // Counts: the order does not matter.
        all.lock().expect("no task panics").merge(&seen);
    });
    all.into_inner().expect("no task panics")
}
