//! Decides every buffer and every step of training before the first batch.

mod build;

use bitpact_core::rng::Key;
use bitpact_core::{ActQuant, Bits, channel_q_max, largest_clip};
use bitpact_kernels::pool2d::Window;
use bitpact_kernels::{Aligned, GroupScratch, Layout};
use bitpact_model::InputDescription;

use super::general::General;
use super::product::backward::{BackwardScratch, BatchMemory};
use super::product::{Path, Product, Source};
use super::slabs::{Slabs, Target};
use super::totals::Totals;
use crate::params::{ParamId, Params};

/// Position of a tensor between stages in [`StepPlan::values`].
pub(super) type ValueId = usize;

/// A tensor between stages, `[batch]` bordered images.
#[derive(Debug, Default)]
pub(super) enum Store {
    /// Codes, or pixels.
    Codes(Aligned<u8>),
    /// Real values.
    Real(Aligned<f32>),
    /// Taken out for writing.
    #[default]
    Taken,
}

impl Store {
    pub(super) fn codes(&self, i: usize, len: usize) -> &[u8] {
        match self {
            Store::Codes(data) => &data[i * len..(i + 1) * len],
            _ => unreachable!("the plan gave codes to this tensor"),
        }
    }

    pub(super) fn real(&self, i: usize, len: usize) -> &[f32] {
        match self {
            Store::Real(data) => &data[i * len..(i + 1) * len],
            _ => unreachable!("the plan gave real values to this tensor"),
        }
    }
}

pub(super) struct Value {
    pub(super) layout: Layout,
    pub(super) source: Source,
    pub(super) store: Store,
}

impl Value {
    /// The layout of the tensor's gradient: the same without border.
    pub(super) fn dense(&self) -> Layout {
        Layout { border: 0, ..self.layout }
    }
}

/// How a unit ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Activation {
    /// Clip and quantize.
    Quantized { clip: ParamId, bits: Bits, quant: ActQuant },
    /// max(u, 0), in a float network.
    Relu,
    /// Nothing: the logits, and what is signed in a float network.
    None,
}

/// The shortcut of a unit.
pub(super) enum Shortcut {
    None,
    Identity { value: ValueId },
    Subsample { value: ValueId, stride: usize, pad_before: usize },
    Projection { value: ValueId, product: Box<Product> },
}

/// Counts since the last reset.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) alpha_gradient: f32,
    pub(super) clipped: u64,
    pub(super) elements: u64,
    pub(super) levels: Vec<u64>,
}

pub(super) struct UnitStep {
    pub(super) main: Product,
    pub(super) input: ValueId,
    pub(super) shortcut: Shortcut,
    pub(super) activation: Activation,
    pub(super) act_name: Option<String>,
    pub(super) clip: ClipPlace,
    pub(super) channel_clips: ChannelClips,
    pub(super) output: ValueId,
    pub(super) counts: Counts,
    /// Largest u of the batch, for clip values that follow a maximum.
    pub(super) maximum: f32,
}

/// Clip values of channels that have their own, and their largest codes, `cs` long with the layer's in padding
/// channels; empty where the layer has one clip value.
#[derive(Debug, Default)]
pub(super) struct ChannelClips {
    pub(super) alphas: Vec<f32>,
    pub(super) limits: Vec<f32>,
}

impl ChannelClips {
    /// Takes them from the parameter at the start of a forward.
    pub(super) fn refresh(&mut self, alphas: &[f32], inverse_scale: f32, q_max: f32) {
        self.alphas.fill(largest_clip(alphas));
        if let Some(own) = self.alphas.get_mut(..alphas.len()) {
            own.copy_from_slice(alphas);
        }
        for (limit, &alpha) in self.limits.iter_mut().zip(&self.alphas) {
            *limit = channel_q_max(alpha, inverse_scale, q_max);
        }
    }
}

pub(super) enum StageKind {
    Unit(Box<UnitStep>),
    MaxPool { window: Window, input: ValueId, output: ValueId },
    MeanPool { input: ValueId, output: ValueId },
    AvgPool { window: Window, input: ValueId, output: ValueId },
    Concat { inputs: Vec<ValueId>, output: ValueId, targets: Vec<Target> },
    Dropout { name: String, rate: f32, input: ValueId, output: ValueId },
    General(Box<General>),
}

/// Where a unit stands among those that share its clip value, in the order of computation.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClipPlace {
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

pub(super) struct StageStep {
    pub(super) kind: StageKind,
    pub(super) slabs: Slabs,
}

/// Per-thread scratch, sized for the largest layer.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) x: Aligned<f32>,
    /// An image in bfloat16.
    pub(super) narrow: Aligned<u8>,
    pub(super) backward: BackwardScratch,
    /// Gradients of accumulators without border.
    pub(super) dz: Aligned<f32>,
    pub(super) u: Aligned<f32>,
    pub(super) residual: Aligned<f32>,
    pub(super) residual_codes: Aligned<u8>,
    pub(super) groups: GroupScratch,
    /// What deviations of weights make of sums.
    pub(super) errors: Aligned<i32>,
    /// Gradients of weight codes.
    pub(super) dwq: Aligned<f32>,
}

/// Everything a step touches.
pub(super) struct StepPlan {
    pub(super) params: Params,
    pub(super) pixels: InputDescription,
    pub(super) values: Vec<Value>,
    pub(super) stages: Vec<StageStep>,
    pub(super) slabs: Vec<Aligned<f32>>,
    pub(super) scratch: Vec<Scratch>,
    /// Per image: sums of statistics, `[batch][2][cs]`.
    pub(super) sums_int: Vec<i64>,
    pub(super) sums_real: Vec<f64>,
    /// Per image: what the backward's pass one finds for main product and projection, `[batch][parts][cs]`.
    pub(super) sums: [Vec<f32>; 2],
    /// Per image: alpha's gradient, clipped elements, largest u.
    pub(super) clip_sums: Vec<(f64, u64)>,
    /// Per image, `[batch][cs]`: gradients of the clip values of channels; empty where no layer has them.
    pub(super) channel_sums: Vec<f64>,
    pub(super) maxima: Vec<f32>,
    /// `[sampled image][256]` counts of codes.
    pub(super) histogram: Vec<u64>,
    /// `[chunk][partial_len]`, of the largest layer whose weight gradients are summed chunk by chunk.
    pub(super) partials: Aligned<f32>,
    /// The images of a layer whose weight gradients are summed block by block.
    pub(super) kept: BatchMemory,
    pub(super) totals: Totals,
    /// The stages with weights, those with most weights first.
    pub(super) largest_first: Vec<usize>,
    /// Largest u of the batch by clip value, for those that follow a maximum.
    pub(super) clip_maxima: Vec<f32>,
    pub(super) output: ValueId,
    pub(super) batch: usize,
    /// Random numbers of the step.
    pub(super) key: Key,
    /// Deviation of the step's cells.
    pub(super) sum_noise: f32,
}

impl StepPlan {
    /// Takes the deviation of the next step's cells. With one, batch norms normalize by the running statistics, as they
    /// do on a chip: those of a batch would take away what its cells add to every image.
    pub(super) fn set_sum_noise(&mut self, deviation: f32) {
        self.sum_noise = deviation;
        for stage in &mut self.stages {
            let StageKind::Unit(unit) = &mut stage.kind else { continue };
            unit.main.is_frozen = deviation > 0.0;
            if let Shortcut::Projection { product, .. } = &mut unit.shortcut {
                product.is_frozen = deviation > 0.0;
            }
        }
    }

    /// Writes the output of image `i`, HWC, to `out`.
    pub(super) fn write_output(&self, i: usize, out: &mut [f32]) {
        let Value { layout, store, .. } = &self.values[self.output];
        let image = store.real(i, layout.len());
        let pixels = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
        for (at, pixel) in pixels.zip(out.chunks_exact_mut(layout.c)) {
            pixel.copy_from_slice(&image[at..at + layout.c]);
        }
    }

    /// The slab of the output's gradient.
    pub(super) fn last_slab(&self) -> usize {
        self.stages.last().expect("a network has stages").slabs.output
    }
}

/// Products of a stage, the shortcut's included.
pub(super) fn products_of(kind: &StageKind) -> impl Iterator<Item = &Product> {
    let unit = match kind {
        StageKind::Unit(unit) => Some(unit),
        _ => None,
    };
    let projection = unit.and_then(|unit| match &unit.shortcut {
        Shortcut::Projection { product, .. } => Some(&**product),
        _ => None,
    });
    unit.map(|unit| &unit.main).into_iter().chain(projection)
}

/// Whether a product runs on integers.
pub(super) fn is_int(product: &Product) -> bool {
    matches!(product.path, Path::Int { .. })
}
