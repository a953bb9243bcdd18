//! The backward half of one product: which kernels compute it, from gradients in which format, and the units of what
//! they give.

use std::ops::Range;

use bitpact_kernels::conv::rounded::{Format, RoundedInputGrad, RoundedScratch, RoundedWeightGrad};
use bitpact_kernels::norm::{self, Accumulators, GradientOutput};
use bitpact_kernels::peak::Number;
use bitpact_kernels::{
    Aligned, Chunked, CodeLimits, ConvGeometry, ConvInputGradF32, GroupInputGradF32, GroupScratch, GroupWeightGradF32,
    Isa, Layout, image_distance,
};

use super::Zeros;
use crate::Gradients;
use crate::cpu::profile::Clock;
use crate::profile::Pass;

/// Kernels of the two backward products.
pub(in crate::cpu) struct Backward {
    isa: Isa,
    x_len: usize,
    z_layout: Layout,
    dz_layout: Layout,
    kernels: Kernels,
    /// Real value of one unit of dz as the kernels read it, apart from the step of the input.
    gradient_unit: f32,
    /// Step of the input's codes.
    x_step: f32,
    /// Whether inputs and weights are real numbers that are rounded to bfloat16.
    over_real: bool,
}

enum Kernels {
    /// float32, rounded to bfloat16 first where `rounds`.
    Real { weights: GroupWeightGradF32, input: Option<(GroupInputGradF32, Aligned<f32>)>, rounds: bool },
    /// Over codes, or real numbers rounded to bfloat16, from gradients in bfloat16 or 8 bits.
    Rounded { format: Format, weights: RoundedWeightGrad, input: Option<(RoundedInputGrad, Aligned<u8>)> },
}

/// Memory of one thread for backward products.
#[derive(Default)]
pub(in crate::cpu) struct BackwardScratch {
    real: Aligned<f32>,
    bytes: Aligned<u8>,
    rounded: RoundedScratch,
}

/// What the weight gradients of a whole batch are made from, image after image: inputs and gradients of the
/// accumulators, real or rearranged as the kernels of rounded gradients read them.
#[derive(Default)]
pub(in crate::cpu) struct BatchMemory {
    real: [Aligned<f32>; 2],
    bytes: [Aligned<u8>; 2],
}

impl BatchMemory {
    /// Makes it large enough for `batch` images of `backward`.
    pub(in crate::cpu) fn reserve(&mut self, backward: &Backward, batch: usize) {
        let lens = backward.kept_len();
        match &backward.kernels {
            Kernels::Real { .. } => {
                self.real.iter_mut().zip(lens).for_each(|(memory, len)| memory.reserve(batch * len))
            }
            Kernels::Rounded { .. } => {
                self.bytes.iter_mut().zip(lens).for_each(|(memory, len)| memory.reserve(batch * len));
            }
        }
    }

    /// The part of `backward`, image by image.
    pub(in crate::cpu) fn images(&mut self, backward: &Backward, batch: usize) -> BatchImages<'_> {
        fn cut<'a, T: Send>([x, dz]: [&'a mut [T]; 2], lens: [usize; 2], batch: usize) -> [Chunked<'a, T>; 2] {
            [Chunked::new(&mut x[..batch * lens[0]], lens[0]), Chunked::new(&mut dz[..batch * lens[1]], lens[1])]
        }
        let lens = backward.kept_len();
        match &backward.kernels {
            Kernels::Real { .. } => BatchImages::Real(cut(self.real.each_mut().map(|m| &mut m[..]), lens, batch)),
            Kernels::Rounded { .. } => {
                BatchImages::Rounded(cut(self.bytes.each_mut().map(|m| &mut m[..]), lens, batch))
            }
        }
    }
}

/// The images of a [`BatchMemory`], for tasks that write one each.
pub(in crate::cpu) enum BatchImages<'a> {
    Real([Chunked<'a, f32>; 2]),
    Rounded([Chunked<'a, u8>; 2]),
}

/// The image that a weight gradient reads.
pub(in crate::cpu) enum Image<'a> {
    /// Codes, the codes of zero, and the memory and factor that turn them to real values.
    Codes { codes: &'a [u8], zeros: &'a Zeros, scale: f32, wide: &'a mut [f32] },
    /// Real values.
    Real(&'a [f32]),
}

impl Backward {
    /// `limits`: those of the codes, where the forward product is one of codes; `over_real`: whether it is one of real
    /// numbers rounded to bfloat16; `needs_input`: whether the gradient of the input is needed.
    pub(in crate::cpu) fn new(
        isa: Isa,
        gradients: Gradients,
        geometry: ConvGeometry,
        groups: usize,
        limits: Option<CodeLimits>,
        over_real: bool,
        needs_input: bool,
        x: Layout,
        z_layout: Layout,
    ) -> Self {
        let (h, w) = (z_layout.h, z_layout.w);
        let format = match gradients {
            Gradients::Fp32 => None,
            Gradients::Bf16 => Some(Format::Bf16),
            Gradients::Int8 => Some(Format::S8),
        };
        // bfloat16 asks for no limits.
        let code_limits = limits.or(over_real.then_some(CodeLimits { x: 0, w: 0 }));
        let format = format.filter(|format| groups == 1 && format.pays(isa)).zip(code_limits);
        let mut dz_layout = Layout::new(h, w, geometry.cout, ConvInputGradF32::border(geometry));
        let dense = Layout { border: 0, ..x };
        let kernels = match format {
            Some((format, limits)) => {
                dz_layout.border = dz_layout.border.max(RoundedWeightGrad::border(geometry));
                let input = needs_input.then(|| {
                    let plan = RoundedInputGrad::new(isa, format, geometry, dz_layout, dense, limits.w);
                    let packed = Aligned::zeroed(plan.packed_len());
                    (plan, packed)
                });
                Kernels::Rounded {
                    format,
                    weights: RoundedWeightGrad::new(isa, format, geometry, x, limits.x, dz_layout),
                    input,
                }
            }
            None => {
                let input = needs_input.then(|| {
                    let plan = GroupInputGradF32::new(isa, geometry, groups, dz_layout, dense);
                    let packed = Aligned::zeroed(plan.packed_len());
                    (plan, packed)
                });
                let weights = GroupWeightGradF32::new(isa, geometry, groups, x, dz_layout);
                Kernels::Real { weights, input, rounds: code_limits.is_some() && gradients != Gradients::Fp32 }
            }
        };
        Self { isa, x_len: x.len(), z_layout, dz_layout, kernels, gradient_unit: 1.0, x_step: 1.0, over_real }
    }

    /// Elements of a partial weight gradient.
    pub(in crate::cpu) fn partial_len(&self) -> usize {
        match &self.kernels {
            Kernels::Real { weights, .. } => weights.partial_len(),
            Kernels::Rounded { weights, .. } => weights.partial_len(),
        }
    }

    /// Blocks of output channels whose weight gradients can be summed over all images apart from each other; none where
    /// weights fall into groups.
    pub(in crate::cpu) fn blocks(&self) -> Option<usize> {
        match &self.kernels {
            Kernels::Real { weights, .. } => weights.whole().map(|weights| weights.blocks()),
            Kernels::Rounded { weights, .. } => Some(weights.blocks()),
        }
    }

    /// Elements of an image's input and of its gradient in [`BatchMemory`].
    fn kept_len(&self) -> [usize; 2] {
        match &self.kernels {
            Kernels::Real { .. } => [self.x_len, self.dz_layout.len()].map(|len| image_distance(len, size_of::<f32>())),
            Kernels::Rounded { weights, .. } => weights.rearranged_len(),
        }
    }

    /// Bytes of an image in [`BatchMemory`].
    pub(in crate::cpu) fn kept_bytes(&self) -> usize {
        let bytes = match &self.kernels {
            Kernels::Real { .. } => size_of::<f32>(),
            Kernels::Rounded { .. } => 1,
        };
        bytes * self.kept_len().iter().sum::<usize>()
    }

    /// Makes scratch memory large enough.
    pub(in crate::cpu) fn reserve(&self, scratch: &mut BackwardScratch, groups: &mut GroupScratch) {
        match &self.kernels {
            Kernels::Real { weights, input, .. } => {
                scratch.real.reserve(self.dz_layout.len());
                weights.reserve(groups);
                if let Some((plan, _)) = input {
                    plan.reserve(groups);
                }
            }
            Kernels::Rounded { format, weights, input } => {
                scratch.bytes.reserve(self.dz_layout.len() * format.bytes());
                weights.reserve(&mut scratch.rounded);
                if let Some((plan, _)) = input {
                    plan.reserve(&mut scratch.rounded);
                }
            }
        }
    }

    /// Whether the kernels read weight codes and not real weights.
    pub(in crate::cpu) fn reads_codes(&self) -> bool {
        matches!(self.kernels, Kernels::Rounded { .. }) && !self.over_real
    }

    /// Whether real inputs must be rounded to bfloat16 before the kernels read them.
    pub(in crate::cpu) fn needs_rounded_input(&self) -> bool {
        self.over_real && matches!(self.kernels, Kernels::Real { .. })
    }

    /// What the kernels multiply; rounded gradients among real numbers are still float32.
    pub(in crate::cpu) fn number(&self) -> Number {
        match &self.kernels {
            Kernels::Real { .. } => Number::F32,
            Kernels::Rounded { format: Format::Bf16, .. } => Number::Bf16,
            Kernels::Rounded { format: Format::S8, .. } => Number::Int8,
        }
    }

    /// Whether the gradient of the input is computed.
    pub(in crate::cpu) fn has_input(&self) -> bool {
        match &self.kernels {
            Kernels::Real { input, .. } => input.is_some(),
            Kernels::Rounded { input, .. } => input.is_some(),
        }
    }

    /// Packs the tap-major weights of a step: real weights over the input's step, or codes.
    pub(in crate::cpu) fn pack(&mut self, x_step: f32, real: &[f32], codes: &[i8]) {
        self.x_step = x_step;
        match &mut self.kernels {
            Kernels::Real { input: Some((plan, packed)), .. } => plan.pack(real, packed),
            Kernels::Rounded { input: Some((plan, packed)), .. } if self.over_real => plan.pack_real(real, packed),
            Kernels::Rounded { input: Some((plan, packed)), .. } => plan.pack(codes, packed),
            _ => {}
        }
    }

    /// Brings the coefficients of dz to the unit that the kernels read. `extremes` are a channel's largest |dL/du| and
    /// its smallest and largest accumulator.
    ///
    /// bfloat16: the input's step is divided out, so that products with codes give the input's gradient in real units.
    /// 8 bits: the unit is the smallest power of two that keeps the largest |dz| of the batch, as far as the extremes
    /// bound it, within 127.
    pub(in crate::cpu) fn scale(
        &mut self,
        k: &mut [Vec<f32>; 3],
        channels: usize,
        extremes: impl Fn(usize) -> [f32; 3],
    ) {
        let Kernels::Rounded { format, .. } = &self.kernels else { return };
        self.gradient_unit = match format {
            Format::Bf16 => self.x_step,
            Format::S8 => {
                let bound = |c: usize| {
                    let [g, low, high] = extremes(c);
                    (k[0][c] * g).abs() + (k[1][c] * low + k[2][c]).abs().max((k[1][c] * high + k[2][c]).abs())
                };
                power_of_two_unit((0..channels).map(bound).fold(0.0, f32::max))
            }
        };
        let inverse = 1.0 / self.gradient_unit;
        k.iter_mut().flatten().for_each(|k| *k *= inverse);
    }

    /// What the sums over codes of the input and dz are to be multiplied with to be dL/d(weight code).
    pub(in crate::cpu) fn weight_unit(&self) -> f32 {
        match self.kernels {
            Kernels::Real { .. } => 1.0,
            Kernels::Rounded { .. } => self.gradient_unit,
        }
    }

    /// Empties the border of the scratch memory's gradient; the images of a layer share it.
    pub(in crate::cpu) fn begin(&self, scratch: &mut BackwardScratch) {
        match &self.kernels {
            Kernels::Real { .. } => scratch.real[..self.dz_layout.len()].fill(0.0),
            Kernels::Rounded { format, .. } => {
                scratch.bytes[..self.dz_layout.len() * format.bytes()].fill(format.zero());
            }
        }
    }

    /// The gradient of one image's accumulators into scratch memory. `random` differs for every image, layer and step.
    pub(in crate::cpu) fn gradient(
        &self,
        z: Accumulators,
        k: &[Vec<f32>; 3],
        g: &[f32],
        random: u32,
        scratch: &mut BackwardScratch,
    ) {
        let BackwardScratch { real, bytes, .. } = scratch;
        let len = self.dz_layout.len();
        let output = match &self.kernels {
            Kernels::Real { rounds: false, .. } => GradientOutput::Real(&mut real[..len]),
            Kernels::Real { rounds: true, .. } => GradientOutput::Rounded(&mut real[..len]),
            Kernels::Rounded { format: Format::Bf16, .. } => GradientOutput::Bf16(&mut bytes[..2 * len]),
            Kernels::Rounded { format: Format::S8, .. } => GradientOutput::S8 { bytes: &mut bytes[..len], random },
        };
        let [k1, k2, k3] = k;
        norm::backward_apply(self.isa, self.z_layout, z, [k1, k2, k3], g, output, self.dz_layout);
    }

    /// The gradient of the image that the product reads, from that in scratch memory, where it is needed.
    pub(in crate::cpu) fn input(
        &self,
        dx: &mut [f32],
        accumulate: bool,
        scratch: &mut BackwardScratch,
        groups: &mut GroupScratch,
    ) {
        let BackwardScratch { real, bytes, rounded } = scratch;
        let len = self.dz_layout.len();
        match &self.kernels {
            Kernels::Real { input: Some((plan, packed)), .. } => plan.run(&real[..len], packed, dx, accumulate, groups),
            Kernels::Rounded { format, input: Some((plan, packed)), .. } => {
                let scale = match format {
                    Format::Bf16 => 1.0,
                    Format::S8 => self.gradient_unit / self.x_step,
                };
                let dz = &bytes[..len * format.bytes()];
                plan.run(self.isa, dz, packed, scale, dx, accumulate, rounded);
            }
            _ => {}
        }
    }

    /// Adds the weight gradient of one image, that of a whole group of images at its last or at the `last` of all:
    /// `place` counts the images from 0.
    pub(in crate::cpu) fn weights(
        &self,
        (place, last): (usize, bool),
        image: Image,
        partial: &mut [f32],
        scratch: &mut BackwardScratch,
        groups: &mut GroupScratch,
        clock: &mut Clock,
    ) {
        let BackwardScratch { real, bytes, rounded } = scratch;
        let len = self.dz_layout.len();
        match (&self.kernels, image) {
            (Kernels::Real { weights, .. }, Image::Real(x)) => weights.run(x, &real[..len], partial, groups),
            (Kernels::Real { weights, .. }, Image::Codes { codes, zeros, scale, wide }) => {
                norm::widen(self.isa, codes, &zeros.real, scale, wide);
                clock.lap(Pass::Widen);
                weights.run(wide, &real[..len], partial, groups);
            }
            (Kernels::Rounded { format, weights, .. }, image) => {
                let (slot, dz) = (place % weights.group(), &bytes[..len * format.bytes()]);
                let zero = match image {
                    Image::Codes { codes, zeros, .. } => {
                        weights.rearrange(slot, codes, &zeros.codes, dz, rounded);
                        &zeros.codes[..]
                    }
                    Image::Real(x) => {
                        weights.rearrange_real(slot, x, dz, rounded);
                        &[0; bitpact_kernels::norm::BLOCK][..]
                    }
                };
                clock.lap(Pass::Widen);
                if last || slot + 1 == weights.group() {
                    weights.run(slot + 1, zero, partial, rounded);
                }
            }
        }
    }

    /// Keeps what the weight gradient of image `i` is made from, for [`Backward::block_sums`].
    pub(in crate::cpu) fn keep(&self, i: usize, image: Image, kept: &BatchImages, scratch: &BackwardScratch) {
        let dz = self.dz_layout.len();
        match (kept, &self.kernels, image) {
            (BatchImages::Real([x, gradient]), _, image) => {
                let mut x = x.get(i);
                let x = &mut x[..self.x_len];
                match image {
                    Image::Real(from) => x.copy_from_slice(from),
                    Image::Codes { codes, zeros, scale, .. } => {
                        norm::widen(self.isa, codes, &zeros.real, scale, x);
                    }
                }
                gradient.get(i)[..dz].copy_from_slice(&scratch.real[..dz]);
            }
            (BatchImages::Rounded([planes, words]), Kernels::Rounded { format, weights, .. }, image) => {
                let gradient = &scratch.bytes[..dz * format.bytes()];
                let to = [&mut planes.get(i)[..], &mut words.get(i)[..]];
                match image {
                    Image::Codes { codes, zeros, .. } => weights.rearrange_image(codes, &zeros.codes, gradient, to),
                    Image::Real(x) => weights.rearrange_real_image(x, gradient, to),
                }
            }
            _ => unreachable!("rounded products keep bytes"),
        }
    }

    /// The weight gradient of all images for some blocks of output channels.
    pub(in crate::cpu) fn block_sums(
        &self,
        blocks: Range<usize>,
        zero: &[u8],
        batch: usize,
        kept: &BatchMemory,
        partial: &mut [f32],
        scratch: &mut BackwardScratch,
    ) {
        let [x, dz] = self.kept_len().map(|len| batch * len);
        partial.fill(0.0);
        match &self.kernels {
            Kernels::Real { weights, .. } => {
                let weights = weights.whole().expect("blocks are those of a plan without groups");
                weights.run_blocks(batch, &kept.real[0][..x], &kept.real[1][..dz], blocks, partial);
            }
            Kernels::Rounded { weights, .. } => {
                let images = [&kept.bytes[0][..x], &kept.bytes[1][..dz]];
                weights.run_blocks(batch, zero, images, blocks, partial, &mut scratch.rounded);
            }
        }
    }

    /// Copies a partial weight gradient to OIHW order.
    pub(in crate::cpu) fn unpack(&self, partial: &[f32], dw: &mut [f32]) {
        match &self.kernels {
            Kernels::Real { weights, .. } => weights.unpack(partial, dw),
            Kernels::Rounded { weights, .. } => weights.unpack(partial, dw),
        }
    }
}

/// The smallest power of two p with `bound / p <= 127`; 1 where there is nothing to scale.
fn power_of_two_unit(bound: f32) -> f32 {
    if !(bound.is_finite() && bound > f32::MIN_POSITIVE * 128.0) {
        return 1.0;
    }
    // 126.99: what float32 rounds when dz is made must not exceed 127.
    let exponent = (bound / 126.99).log2().ceil();
    exponent.exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_two_that_just_suffice() {
        for bound in [1e-30f32, 3e-7, 0.5, 126.9, 127.0, 128.0, 1e20] {
            let unit = power_of_two_unit(bound);
            assert_eq!(unit.to_bits() & 0x007f_ffff, 0, "{unit} is no power of two");
            assert!(bound / unit <= 127.0 && bound / unit > 63.0, "{bound} in units of {unit}");
        }
        assert_eq!([0.0, f32::NAN, f32::INFINITY].map(power_of_two_unit), [1.0; 3]);
    }
}
