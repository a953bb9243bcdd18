//! One convolution or linear layer of a step: its weights, its accumulators, and the coefficients of the norm behind
//! it.

pub(super) mod backward;
mod channels;
mod weights;

use bitpact_core::{ActQuant, WeightSpec};
use bitpact_kernels::conv::rounded::{ConvBf16, Format};
use bitpact_kernels::norm::{Accumulators, BLOCK};
use bitpact_kernels::peak::Number;
use bitpact_kernels::{
    Aligned, CodeLimits, ConvGeometry, GroupConvF32, GroupConvU8S8, GroupScratch, Isa, Layout, grouped,
};
use bitpact_model::InputDescription;

use super::noise::CellErrors;
use crate::Gradients;
use crate::params::{ParamId, Params};
use crate::profile::{Pass, Work};
use backward::Backward;
use channels::Channels;

pub(super) use channels::Norm;

/// What a product reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// The image: u8 pixels with a zero point and a scale per channel.
    Pixels,
    /// The input in codes of 16 bits, as real numbers: each less its zero point.
    Array,
    /// Codes of the activation with this clip value.
    Codes { clip: ParamId, bits: bitpact_core::Bits, quant: ActQuant },
    /// Real values.
    Real,
}

impl Source {
    /// Whether it is the network's input, whose scale is in the weights.
    pub(super) fn is_input(self) -> bool {
        matches!(self, Source::Pixels | Source::Array)
    }

    /// Whether real values are stored, not codes.
    pub(super) fn is_real(self) -> bool {
        matches!(self, Source::Real | Source::Array)
    }

    /// The code that stands for zero; the pixels' zero points are their own.
    pub(super) fn zero_code(self) -> u8 {
        match self {
            Source::Codes { bits, quant, .. } => quant.zero_code(bits),
            _ => 0,
        }
    }

    /// The code around an image, where windows of products reach.
    pub(super) fn padding_code(self) -> u8 {
        match self {
            Source::Codes { bits, quant, .. } => quant.padding_code(bits),
            _ => 0,
        }
    }

    /// Real value of one code; 1 for pixels and real values.
    pub(super) fn step(self, params: &Params) -> f32 {
        match self {
            Source::Codes { clip, bits, quant } => quant.scale(params.clip(clip), bits),
            _ => 1.0,
        }
    }
}

/// How the forward product is computed, and its accumulators `[batch][h][w][cs]`.
pub(super) enum Path {
    /// u8 codes times s8 codes, tap-major, exact integers: z in units of s_x * s_w.
    Int { conv: GroupConvU8S8, packed: Aligned<i8>, codes: Vec<i8>, init: Vec<i32>, z: Aligned<i32> },
    /// Real values, in training over bfloat16 where there are kernels for that.
    Real { conv: GroupConvF32, packed: Aligned<f32>, z: Aligned<f32>, bf16: Option<(ConvBf16, Aligned<u8>)> },
    /// No weights at all: z is the input, a residual stream or an average pool that a batch norm or an activation
    /// reads.
    Identity { z: Aligned<f32> },
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
    pub(super) groups: usize,
    pub(super) source: Source,
    pub(super) zeros: Zeros,
    spec: Option<WeightSpec>,
    pub(super) path: Path,
    /// Whether training normalizes by the running statistics, which stay.
    pub(super) is_frozen: bool,
    /// Deviations of the weights, where a step had some.
    pub(super) errors: Option<Box<CellErrors>>,
    pub(super) z_layout: Layout,
    pub(super) backward: Backward,
    /// Whether inputs and weights are rounded to bfloat16 in training.
    pub(super) rounds: bool,
    /// How weight gradients are summed over the batch. A function of shapes alone.
    pub(super) sums: WeightSums,
    /// Sum of the partial weight gradients, as the kernels lay it out.
    pub(super) partial: Aligned<f32>,
    codes: Vec<i16>,
    pub(super) scales: Vec<f32>,
    /// Learned steps of the folded weights, and their gradients.
    steps: Vec<f32>,
    dsteps: Vec<f32>,
    /// Weights in the order and with the scales that the quantizer reads; empty where those of the parameter are.
    folded: Vec<f32>,
    /// Position in the parameter of every weight, where its order is another ([`bitpact_graph::Graph::weight_order`]).
    order: Option<Vec<usize>>,
    /// Channels of what is read for each channel of the image or activation: more than one where every window was
    /// copied.
    taps: usize,
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
pub(super) struct ProductSpec<'a> {
    pub(super) name: String,
    pub(super) weight: ParamId,
    pub(super) step: Option<ParamId>,
    pub(super) bias: Option<ParamId>,
    pub(super) norm: Option<Norm>,
    pub(super) geometry: ConvGeometry,
    pub(super) groups: usize,
    pub(super) source: Source,
    /// Scale and zero point of the pixels.
    pub(super) pixels: &'a InputDescription,
    pub(super) spec: Option<WeightSpec>,
    pub(super) x: Layout,
    pub(super) batch: usize,
    /// Whether there are no weights; then the geometry is a depthwise 1x1 convolution.
    pub(super) identity: bool,
    pub(super) order: Option<Vec<usize>>,
    pub(super) taps: usize,
    pub(super) gradients: Gradients,
    /// Whether the whole network is float.
    pub(super) in_float: bool,
}

impl Product {
    pub(super) fn new(isa: Isa, s: ProductSpec) -> Self {
        let ProductSpec {
            name,
            weight,
            step,
            bias,
            norm,
            geometry,
            groups,
            source,
            pixels,
            spec,
            x,
            batch,
            gradients,
            in_float,
            ..
        } = s;
        let (h, w) = geometry.output(x.h, x.w);
        let z_layout = Layout::new(h, w, geometry.cout, 0);
        let n = grouped::weights(geometry, groups);
        let largest = match source {
            Source::Codes { bits, quant, .. } => quant.q_max(bits) as u8 + source.zero_code(),
            _ => u8::MAX,
        };
        let limits = spec.map(|s| s.grid.code_limit(s.bits)).filter(|&limit| limit <= 127);
        let limits = limits.map(|limit| CodeLimits { x: largest, w: limit as u8 }).filter(|_| !source.is_real());
        let rounds = in_float && !s.identity && gradients == Gradients::Bf16;
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
            let narrow = rounds && groups == 1 && Format::Bf16.pays(isa);
            let bf16 = narrow.then(|| ConvBf16::new(isa, geometry, x, z_layout)).map(|conv| {
                let packed = Aligned::zeroed(conv.packed_len());
                (conv, packed)
            });
            Path::Real { conv, packed, z: Aligned::zeroed(batch * z_layout.len()), bf16 }
        };
        let is_folded = source.is_input() || s.order.is_some();
        let needs_input = !source.is_input() && !s.identity;
        let limits = limits.filter(|_| !s.identity);
        let backward = Backward::new(isa, gradients, geometry, groups, limits, rounds, needs_input, x, z_layout);
        let partial_len = backward.partial_len();
        let reads_real = !(s.identity || backward.reads_codes());
        let sums = WeightSums::new(&backward, batch);
        let steps = spec.filter(|s| s.quant.is_learned()).map_or(0, |s| s.scales_len(geometry.cout));
        Self {
            name,
            weight,
            step,
            bias,
            norm,
            geometry,
            groups,
            source,
            zeros: Zeros::new(source, pixels, x.cs, s.taps),
            spec,
            path,
            is_frozen: false,
            errors: None,
            z_layout,
            backward,
            rounds,
            sums,
            partial: Aligned::zeroed(if s.identity { 0 } else { partial_len }),
            codes: vec![0; if spec.is_some() { n } else { 0 }],
            scales: vec![0.0; geometry.cout],
            steps: vec![0.0; steps],
            dsteps: vec![0.0; steps],
            folded: vec![0.0; if is_folded { n } else { 0 }],
            order: s.order,
            taps: s.taps,
            tanh: vec![0.0; if spec.is_some_and(|s| s.needs_tanh()) { n } else { 0 }],
            real: vec![0.0; if reads_real { n } else { 0 }],
            channels: Channels::new(geometry.cout, z_layout.cs),
        }
    }

    /// Inputs of one sum.
    pub(super) fn inputs(&self) -> usize {
        self.geometry.kh * self.geometry.kw * self.geometry.cin / self.groups
    }

    /// Bits of the weight codes of the integer path.
    pub(super) fn weight_bits(&self) -> Option<u8> {
        self.spec.filter(|_| matches!(self.path, Path::Int { .. })).map(|spec| spec.bits.get())
    }

    /// Largest |z| of the integer path, for the proof that its sums are exact.
    pub(super) fn largest_accumulator(&self) -> Option<u64> {
        let spec = self.spec.filter(|_| matches!(self.path, Path::Int { .. }))?;
        let q_max = match self.source {
            Source::Codes { bits, quant, .. } => quant.q_max(bits) as u64,
            _ => 255,
        };
        Some(self.inputs() as u64 * q_max * spec.grid.code_limit(spec.bits) as u64)
    }

    /// What the products of a step on `batch` images multiply.
    pub(super) fn work(&self, batch: usize) -> Vec<Work> {
        let forward = match self.path {
            Path::Int { .. } => Number::Int8,
            Path::Real { bf16: Some(_), .. } => Number::Bf16,
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

    /// Bytes of an image in bfloat16 for the forward product; 0 where it reads none.
    pub(super) fn narrow_len(&self) -> usize {
        match &self.path {
            Path::Real { bf16: Some((conv, _)), .. } => conv.scratch_len(),
            _ => 0,
        }
    }

    /// Whether there are no weights.
    pub(super) fn is_identity(&self) -> bool {
        matches!(self.path, Path::Identity { .. })
    }

    /// Number of weights.
    pub(super) fn weights(&self) -> usize {
        if self.is_identity() { 0 } else { grouped::weights(self.geometry, self.groups) }
    }

    /// Accumulators of image `i`.
    pub(super) fn z(&self, i: usize) -> Accumulators<'_> {
        let len = self.z_layout.len();
        match &self.path {
            Path::Int { z, .. } => Accumulators::Int(&z[i * len..(i + 1) * len]),
            Path::Real { z, .. } | Path::Identity { z } => Accumulators::Real(&z[i * len..(i + 1) * len]),
        }
    }

    /// The factor that turns codes, less those of zero, to the real numbers that the float kernels multiply.
    pub(super) fn widening(&self, params: &Params) -> f32 {
        match (&self.path, self.source) {
            (Path::Real { .. } | Path::Identity { .. }, Source::Codes { .. }) => self.source.step(params),
            _ => 1.0,
        }
    }
}

/// The codes that stand for zero, a multiple of 16 that repeat over the channels of a pixel, also as real numbers.
pub(super) struct Zeros {
    pub(super) codes: Vec<u8>,
    pub(super) real: Vec<f32>,
}

impl Zeros {
    /// Those of a tensor of channel stride `cs` with `taps` channels for each of the image; channels that pad it have 0
    /// in images.
    pub(super) fn new(source: Source, pixels: &InputDescription, cs: usize, taps: usize) -> Self {
        let codes: Vec<u8> = match source {
            Source::Pixels => {
                let code = |i: usize| pixels.zero_point.get(i % cs / taps).map_or(0, |&zero| zero as u8);
                (0..cs.next_multiple_of(BLOCK)).map(code).collect()
            }
            _ => vec![source.zero_code(); BLOCK],
        };
        Self { real: codes.iter().map(|&z| f32::from(z)).collect(), codes }
    }
}
