//! One convolution or linear layer of a step: its weights in every form the kernels want, its accumulators, and the
//! per-channel coefficients of the norm behind it.
use bitpact_model::InputDescription;

use super::params::{Param, ParamId, Params};
use bitpact_core::{ActQuant, WeightSpec, quantize_weights_given, weights_backward_given};
use bitpact_kernels::norm::{Accumulators, BLOCK, Coefficients};
use bitpact_kernels::peak::Number;
use bitpact_kernels::{
    Aligned, CodeLimits, ConvGeometry, GroupConvF32, GroupConvU8S8, GroupScratch, Isa, Layout, elements, grouped,
};

use super::product_backward::Backward;
use super::profile::{Pass, Work};
use super::totals::Found;
use crate::Gradients;

/// eps of batch norm.
const EPS: f64 = bitpact_model::BATCH_NORM_EPS as f64;

/// What a product reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// The image: u8 pixels with a zero point and a scale per channel.
    Pixels,
    /// Codes of the activation with this clip value.
    Codes { clip: ParamId, bits: bitpact_core::Bits, quant: ActQuant },
    /// Real values.
    Real,
}

impl Source {
    /// The code that stands for zero; the pixels' zero points are their own.
    pub(super) fn zero_code(self) -> u8 {
        match self {
            Source::Codes { bits, quant, .. } => quant.zero_code(bits),
            _ => 0,
        }
    }

    /// Real value of one code; 1 for pixels and real values.
    pub(super) fn step(self, params: &Params) -> f32 {
        match self {
            Source::Codes { clip, bits, quant } => quant.step(params.clip(clip), bits),
            _ => 1.0,
        }
    }
}

/// How the forward product is computed, and its accumulators `[batch][h][w][cs]`.
pub(super) enum Path {
    /// u8 codes times s8 codes, tap-major, exact integers: z in units of s_x * s_w.
    Int { conv: GroupConvU8S8, packed: Aligned<i8>, codes: Vec<i8>, init: Vec<i32>, z: Aligned<i32> },
    /// Real values.
    Real { conv: GroupConvF32, packed: Aligned<f32>, z: Aligned<f32> },
    /// No weights at all: z is the input, a residual stream or an average pool that a batch norm or an activation reads.
    Identity { z: Aligned<f32> },
}

/// Batch norm's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub(super) gamma: ParamId,
    pub(super) beta: ParamId,
    pub(super) mean: ParamId,
    pub(super) var: ParamId,
}

/// Per-channel numbers of a step, `cs` long, zero in padding channels.
#[derive(Debug, Default)]
pub(super) struct Channels {
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
    pub(super) xa: Vec<f32>,
    pub(super) xb: Vec<f32>,
    pub(super) k: [Vec<f32>; 3],
    /// Real value of one accumulator unit: s_x * s_w[c], 1 on the real path.
    unit: Vec<f64>,
    /// New running statistics, applied when the step is known to be good.
    running: Vec<(f64, f64)>,
}

pub(super) struct Product {
    pub(super) name: String,
    /// Not read where there are no weights.
    pub(super) weight: ParamId,
    /// The learned steps, where there are some.
    pub(super) step: Option<ParamId>,
    pub(super) bias: Option<ParamId>,
    pub(super) norm: Option<Norm>,
    pub(super) geometry: ConvGeometry,
    groups: usize,
    pub(super) source: Source,
    spec: Option<WeightSpec>,
    pub(super) path: Path,
    pub(super) z_layout: Layout,
    pub(super) backward: Backward,
    /// How weight gradients are summed over the batch. A function of shapes alone.
    pub(super) sums: WeightSums,
    /// Sum of the partial weight gradients, as the kernels lay it out.
    pub(super) partial: Aligned<f32>,
    codes: Vec<i16>,
    pub(super) scales: Vec<f32>,
    /// Learned steps of the folded weights, and their gradients.
    steps: Vec<f32>,
    dsteps: Vec<f32>,
    /// Weights with the scale of the pixels folded in; empty where nothing is folded.
    folded: Vec<f32>,
    /// tanh of the folded weights, where the quantizer reads it.
    tanh: Vec<f32>,
    /// Weights as real kernels pack them, tap-major.
    real: Vec<f32>,
    pub(super) channels: Channels,
}

/// How the weight gradients of the images of a batch become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum WeightSums {
    /// So many chunks of images are summed apart, then added in order.
    Chunks(usize),
    /// Every block of output channels is summed over all images: for layers whose weights are more than their images.
    Blocks,
}

impl WeightSums {
    fn new(backward: &Backward, batch: usize) -> Self {
        let len = backward.partial_len();
        let chunks = if len <= 1 << 18 {
            16
        } else if len <= 1 << 20 {
            8
        } else {
            4
        };
        let chunks = chunks.min(batch);
        let sums = chunks * len * size_of::<f32>();
        match backward.blocks() {
            Some(_) if sums > batch * backward.kept_bytes() => Self::Blocks,
            _ => Self::Chunks(chunks),
        }
    }

    /// Partial sums that are kept for a batch.
    pub(super) fn partials(self) -> usize {
        match self {
            Self::Chunks(chunks) => chunks,
            Self::Blocks => 0,
        }
    }
}

/// What [`Product::new`] is made from.
pub(super) struct ProductSpec {
    pub(super) name: String,
    pub(super) weight: ParamId,
    pub(super) step: Option<ParamId>,
    pub(super) bias: Option<ParamId>,
    pub(super) norm: Option<Norm>,
    pub(super) geometry: ConvGeometry,
    pub(super) groups: usize,
    pub(super) source: Source,
    pub(super) spec: Option<WeightSpec>,
    pub(super) x: Layout,
    pub(super) batch: usize,
    /// Whether there are no weights; then the geometry is a depthwise 1x1 convolution.
    pub(super) identity: bool,
    pub(super) gradients: Gradients,
}

impl Product {
    pub(super) fn new(isa: Isa, s: ProductSpec) -> Self {
        let ProductSpec { name, weight, step, bias, norm, geometry, groups, source, spec, x, batch, gradients, .. } = s;
        let (h, w) = geometry.output(x.h, x.w);
        let z_layout = Layout::new(h, w, geometry.cout, 0);
        let n = grouped::weights(geometry, groups);
        let largest = match source {
            Source::Codes { bits, quant, .. } => quant.q_max(bits) as u8 + source.zero_code(),
            _ => u8::MAX,
        };
        let limits = spec.map(|s| s.grid.code_limit(s.bits)).filter(|&limit| limit <= 127);
        let limits = limits.map(|limit| CodeLimits { x: largest, w: limit as u8 }).filter(|_| source != Source::Real);
        let path = if s.identity {
            Path::Identity { z: Aligned::zeroed(batch * z_layout.len()) }
        } else if let Some(limits) = limits {
            let conv = GroupConvU8S8::new(isa, geometry, groups, x, z_layout, limits);
            let packed = Aligned::zeroed(conv.packed_len());
            let codes = vec![0; n];
            Path::Int { conv, packed, codes, init: vec![0; z_layout.cs], z: Aligned::zeroed(batch * z_layout.len()) }
        } else {
            let conv = GroupConvF32::new(isa, geometry, groups, x, z_layout);
            let packed = Aligned::zeroed(conv.packed_len());
            Path::Real { conv, packed, z: Aligned::zeroed(batch * z_layout.len()) }
        };
        let needs_input = source != Source::Pixels && !s.identity;
        let limits = limits.filter(|_| !s.identity);
        let backward = Backward::new(isa, gradients, geometry, groups, limits, needs_input, x, z_layout);
        let partial_len = backward.partial_len();
        let reads_real = !(s.identity || backward.reads_codes());
        let sums = WeightSums::new(&backward, batch);
        let steps = spec.filter(|s| s.quant.is_learned()).map_or(0, |s| s.scales_len(geometry.cout));
        let cs = z_layout.cs;
        let zeros = || vec![0.0; cs];
        let channels = Channels {
            a: zeros(),
            b: zeros(),
            xa: zeros(),
            xb: zeros(),
            k: [zeros(), zeros(), zeros()],
            unit: vec![1.0; geometry.cout],
            running: vec![(0.0, 0.0); geometry.cout],
        };
        Self {
            name,
            weight,
            step,
            bias,
            norm,
            geometry,
            groups,
            source,
            spec,
            path,
            z_layout,
            backward,
            sums,
            partial: Aligned::zeroed(if s.identity { 0 } else { partial_len }),
            codes: vec![0; if spec.is_some() { n } else { 0 }],
            scales: vec![0.0; geometry.cout],
            steps: vec![0.0; steps],
            dsteps: vec![0.0; steps],
            folded: vec![0.0; if source == Source::Pixels { n } else { 0 }],
            tanh: vec![0.0; if spec.is_some_and(|s| s.needs_tanh()) { n } else { 0 }],
            real: vec![0.0; if reads_real { n } else { 0 }],
            channels,
        }
    }

    /// Largest |z| of the integer path, for the proof that its sums are exact.
    pub(super) fn largest_accumulator(&self) -> Option<u64> {
        let spec = self.spec.filter(|_| matches!(self.path, Path::Int { .. }))?;
        let q_max = match self.source {
            Source::Codes { bits, quant, .. } => quant.q_max(bits) as u64,
            _ => 255,
        };
        let taps = (self.geometry.kh * self.geometry.kw * self.geometry.cin / self.groups) as u64;
        Some(taps * q_max * spec.grid.code_limit(spec.bits) as u64)
    }

    /// What the products of a step on `batch` images multiply.
    pub(super) fn work(&self, batch: usize) -> Vec<Work> {
        let forward = match self.path {
            Path::Int { .. } => Number::Int8,
            Path::Real { .. } => Number::F32,
            Path::Identity { .. } => return Vec::new(),
        };
        let backward = self.backward.number();
        let input = self.backward.has_input().then_some((Pass::InputGradient, backward));
        let all = [(Pass::Product, forward), (Pass::WeightGradient, backward)].into_iter().chain(input);
        let weights = grouped::weights(self.geometry, self.groups);
        let macs = (batch * self.z_layout.h * self.z_layout.w * weights) as u64;
        all.map(|(pass, number)| Work { layer: self.name.clone(), pass, number, macs }).collect()
    }

    /// Makes scratch memory large enough for everything that runs on this product.
    pub(super) fn reserve(&self, scratch: &mut GroupScratch) {
        match &self.path {
            Path::Int { conv, .. } => conv.reserve(scratch),
            Path::Real { conv, .. } => conv.reserve(scratch),
            Path::Identity { .. } => {}
        }
    }

    /// Whether there are no weights.
    pub(super) fn is_identity(&self) -> bool {
        matches!(self.path, Path::Identity { .. })
    }

    /// The input channel of every weight, in OIHW order.
    fn input_channels(&self) -> impl Iterator<Item = usize> + use<> {
        let ConvGeometry { kh, kw, cin, cout, .. } = self.geometry;
        let (plane, inputs, outputs) = (kh * kw, cin / self.groups, cout / self.groups);
        (0..cout).flat_map(move |o| (0..inputs * plane).map(move |i| o / outputs * inputs + i / plane))
    }

    /// Weights of this step in every form: folded, quantized, packed forward and backward.
    pub(super) fn prepare(&mut self, isa: Isa, params: &Params, pixels: &InputDescription, training: bool) {
        if self.is_identity() {
            return;
        }
        let mut w = params.value(self.weight);
        if self.source == Source::Pixels {
            let channels = self.input_channels();
            let folded = self.folded.iter_mut().zip(w);
            folded.zip(channels).for_each(|((to, w), channel)| *to = w * pixels.scale[channel]);
            w = &self.folded;
        }
        let cout = self.geometry.cout;
        let per_out = w.len() / cout;
        if let Some(spec) = &self.spec {
            let scales = &mut self.scales[..spec.scales_len(cout)];
            if let Some(step) = self.step {
                let unit = if self.source == Source::Pixels { pixels.mean_scale() } else { 1.0 };
                self.steps.iter_mut().zip(params.value(step)).for_each(|(to, s)| *to = s * unit);
            }
            if spec.needs_tanh() {
                elements::tanh(isa, w, &mut self.tanh);
            }
            quantize_weights_given(spec, w, &self.tanh, cout, &self.steps, &mut self.codes, scales);
            if scales.len() == 1 {
                let s = scales[0];
                self.scales.fill(s);
            }
        }
        let x_step = self.source.step(params);
        let channels = self.input_channels();
        let filters = ConvGeometry { cin: self.geometry.cin / self.groups, ..self.geometry };
        match &mut self.path {
            Path::Int { conv, packed, codes, init, .. } => {
                filters.tap_major(&self.codes, codes, |q| q as i8);
                conv.pack(codes, packed);
                let zero = self.source.zero_code();
                if self.source == Source::Pixels || zero > 0 {
                    init[..cout].fill(0);
                    for (i, (&q, channel)) in self.codes.iter().zip(channels).enumerate() {
                        let zero = if self.source == Source::Pixels { pixels.zero_point[channel] } else { zero };
                        init[i / per_out] -= i32::from(q) * i32::from(zero);
                    }
                }
                for (unit, &s) in self.channels.unit.iter_mut().zip(&self.scales) {
                    *unit = f64::from(x_step) * f64::from(s);
                }
                if !self.backward.reads_codes() {
                    for (to, &q) in self.real.iter_mut().zip(&*codes) {
                        *to = f32::from(q) / x_step;
                    }
                }
            }
            Path::Real { conv, packed, .. } => {
                if self.spec.is_some() {
                    filters.tap_major(&self.codes, &mut self.real, f32::from);
                    for (filter, &scale) in self.real.chunks_exact_mut(per_out).zip(&self.scales) {
                        filter.iter_mut().for_each(|w| *w *= scale);
                    }
                } else {
                    filters.tap_major(w, &mut self.real, |w| w);
                }
                conv.pack(&self.real, packed);
            }
            Path::Identity { .. } => {}
        }
        if training {
            let codes = match &self.path {
                Path::Int { codes, .. } => codes,
                _ => &[][..],
            };
            self.backward.pack(x_step, &self.real, codes);
        }
    }

    /// Coefficients of a training forward from sums over the batch: per channel the exact or float64 mean and
    /// variance of z over `count` pixels.
    pub(super) fn normalize(&mut self, params: &Params, count: usize, moments: impl Fn(usize) -> (f64, f64)) {
        let Some(norm) = self.norm else { return self.without_norm(params) };
        for c in 0..self.geometry.cout {
            let unit = self.channels.unit[c];
            let (mean, var) = moments(c);
            let inverse = 1.0 / (var * unit * unit + EPS).sqrt();
            self.set_channel(params, norm, c, unit * inverse, -mean * unit * inverse);
            let bias = self.bias.map_or(0.0, |b| f64::from(params.value(b)[c]));
            let unbiased = var * count as f64 / count.saturating_sub(1).max(1) as f64;
            self.channels.running[c] = (mean * unit + bias, unbiased * unit * unit);
        }
    }

    /// Coefficients of the evaluation forward, from the running statistics.
    pub(super) fn normalize_running(&mut self, params: &Params) {
        let Some(norm) = self.norm else { return self.without_norm(params) };
        for c in 0..self.geometry.cout {
            let bias = self.bias.map_or(0.0, |b| f64::from(params.value(b)[c]));
            let mean = f64::from(params.value(norm.mean)[c]) - bias;
            let inverse = 1.0 / (f64::from(params.value(norm.var)[c]) + EPS).sqrt();
            self.set_channel(params, norm, c, self.channels.unit[c] * inverse, -mean * inverse);
        }
    }

    fn set_channel(&mut self, params: &Params, norm: Norm, c: usize, xa: f64, xb: f64) {
        let (gamma, beta) = (f64::from(params.value(norm.gamma)[c]), f64::from(params.value(norm.beta)[c]));
        let ch = &mut self.channels;
        (ch.xa[c], ch.xb[c]) = (xa as f32, xb as f32);
        (ch.a[c], ch.b[c]) = ((gamma * xa) as f32, (gamma * xb + beta) as f32);
    }

    fn without_norm(&mut self, params: &Params) {
        for c in 0..self.geometry.cout {
            self.channels.a[c] = self.channels.unit[c] as f32;
            self.channels.b[c] = self.bias.map_or(0.0, |b| params.value(b)[c]);
        }
    }

    /// Coefficients of the backward and gradients of norm and bias, from sums over the batch of dL/du and
    /// dL/du * xhat; `count` pixels.
    pub(super) fn backward_coefficients(&mut self, params: &mut Params, count: usize, found: &Found) {
        let n = count as f64;
        for c in 0..self.geometry.cout {
            let (sum_g, sum_gx) = found.sums(c);
            let ch = &mut self.channels;
            let (k1, xa, xb) = (f64::from(ch.a[c]), f64::from(ch.xa[c]), f64::from(ch.xb[c]));
            let (k2, k3) = match self.norm {
                Some(norm) => {
                    params.get_mut(norm.gamma).grad[c] = sum_gx as f32;
                    params.get_mut(norm.beta).grad[c] = sum_g as f32;
                    (-k1 * (sum_gx / n) * xa, -k1 * (sum_g / n + xb * (sum_gx / n)))
                }
                None => (0.0, 0.0),
            };
            if let Some(bias) = self.bias {
                // A norm removes the mean, and with it the bias: its gradient is exactly zero.
                params.get_mut(bias).grad[c] = if self.norm.is_some() { 0.0 } else { sum_g as f32 };
            }
            (ch.k[0][c], ch.k[1][c], ch.k[2][c]) = (k1 as f32, k2 as f32, k3 as f32);
        }
        self.backward.scale(&mut self.channels.k, self.geometry.cout, |c| found.extremes(c));
    }

    /// Number of weights.
    pub(super) fn weights(&self) -> usize {
        if self.is_identity() { 0 } else { grouped::weights(self.geometry, self.groups) }
    }

    /// dL/dw of the parameter `w` from the sum of the partial weight gradients, through quantizer and folding, into its `grad`; `dwq` is
    /// memory for as many weights. The learned steps' gradients are kept for [`Product::step_gradient`].
    pub(super) fn weight_gradient(&mut self, pixels: &InputDescription, w: &mut Param, dwq: &mut [f32]) {
        self.backward.unpack(&self.partial, dwq);
        if matches!(self.path, Path::Int { .. }) {
            let unit = self.backward.weight_unit();
            let per_out = dwq.len() / self.geometry.cout;
            for (dwq, &s) in dwq.chunks_exact_mut(per_out).zip(&self.scales) {
                // Weights that are all zero have no step; their gradient is zero, and the decay holds them there.
                let inverse = if s > 0.0 { unit / s } else { 0.0 };
                dwq.iter_mut().for_each(|d| *d *= inverse);
            }
        }
        let (value, grad) = (&w.value[..], &mut w.grad[..]);
        match &self.spec {
            Some(spec) => {
                let value = if self.source == Source::Pixels { &self.folded } else { value };
                let (cout, dsteps) = (self.geometry.cout, &mut self.dsteps);
                weights_backward_given(spec, value, &self.tanh, cout, &self.steps, dwq, grad, dsteps);
            }
            None => grad.copy_from_slice(dwq),
        }
        if self.source == Source::Pixels {
            grad.iter_mut().zip(self.input_channels()).for_each(|(g, channel)| *g *= pixels.scale[channel]);
        }
    }

    /// dL/dstep of the learned steps into their `grad`.
    pub(super) fn step_gradient(&self, pixels: &InputDescription, grad: &mut [f32]) {
        let unit = if self.source == Source::Pixels { pixels.mean_scale() } else { 1.0 };
        grad.iter_mut().zip(&self.dsteps).for_each(|(to, d)| *to = d * unit);
    }

    /// Moves the running statistics by `momentum` towards the step's.
    pub(super) fn update_running(&self, params: &mut Params, momentum: f64) {
        let Some(norm) = self.norm else { return };
        for (c, &(mean, var)) in self.channels.running.iter().enumerate() {
            for (id, new) in [(norm.mean, mean), (norm.var, var)] {
                let value = &mut params.get_mut(id).value[c];
                *value = ((1.0 - momentum) * f64::from(*value) + momentum * new) as f32;
            }
        }
    }

    /// Accumulators of image `i`.
    pub(super) fn z(&self, i: usize) -> Accumulators<'_> {
        let len = self.z_layout.len();
        match &self.path {
            Path::Int { z, .. } => Accumulators::Int(&z[i * len..(i + 1) * len]),
            Path::Real { z, .. } | Path::Identity { z } => Accumulators::Real(&z[i * len..(i + 1) * len]),
        }
    }

    pub(super) fn coefficients(&self) -> Coefficients<'_> {
        let ch = &self.channels;
        Coefficients { a: &ch.a, b: &ch.b, xa: &ch.xa, xb: &ch.xb }
    }

    /// The codes that stand for zero, repeating over 16 channels.
    pub(super) fn zero_codes(&self, pixels: &InputDescription) -> [u8; BLOCK] {
        match self.source {
            Source::Pixels => {
                let cs = pixels.zero_point.len().next_multiple_of(4).min(BLOCK);
                std::array::from_fn(|i| pixels.zero_point.get(i % cs).copied().unwrap_or(0))
            }
            _ => [self.source.zero_code(); BLOCK],
        }
    }

    /// Zero and scale patterns that turn a stored input image into the real numbers the float kernels multiply.
    pub(super) fn widening(&self, params: &Params, pixels: &InputDescription) -> ([f32; BLOCK], [f32; BLOCK]) {
        let (mut zero, mut scale) = ([0.0; BLOCK], [1.0; BLOCK]);
        match self.source {
            Source::Pixels => {
                let cs = pixels.zero_point.len().next_multiple_of(4).min(BLOCK);
                for i in 0..BLOCK {
                    zero[i] = pixels.zero_point.get(i % cs).map_or(0.0, |&z| f32::from(z));
                }
            }
            Source::Codes { .. } => {
                zero = [f32::from(self.source.zero_code()); BLOCK];
                if matches!(self.path, Path::Real { .. }) {
                    scale = [self.source.step(params); BLOCK];
                }
            }
            Source::Real => {}
        }
        (zero, scale)
    }
}
