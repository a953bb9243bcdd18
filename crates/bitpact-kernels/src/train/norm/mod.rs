//! The element-wise half of a training step: batch statistics, normalization with residual, clip and quantization in
//! one pass, and its backward in two.
//!
//! For one unit `act(norm(product) + residual)` with accumulators z, per channel c:
//!
//! ```text
//! xhat = z * xa[c] + xb[c]                    xa = 1/sigma, xb = -mean/sigma
//! u    = z * a[c] + b[c] + residual           a = gamma*xa, b = gamma*xb + beta
//! q    = clamp(round_half_even(u * inv), 0, q_max)          q_max may differ per channel
//! ```
//!
//! Nothing but z and q is kept between forward and backward: u, xhat and the clip mask are computed again. Every
//! function works on one image on the calling thread; its sums run over pixels in row order, so they depend on the
//! instruction set and on nothing else. z holds exact integers (i32) or float32.

mod body;
pub(crate) mod gradient;
#[cfg(test)]
mod tests;

use crate::machine::isa::Isa;
use crate::machine::layout::Layout;
use crate::machine::on_isa;
use bitpact_core::ActQuant;
use body::{ChannelSums, Clip, ClipChannels, Codes, Keep, NoResidual, Real, RealOut, Relu, SignedCodes};

/// Channels a block of the element-wise kernels holds; every channel stride is a multiple.
pub const BLOCK: usize = 16;

/// Accumulators of a product, without border: `[h][w][cs]`.
#[derive(Debug, Clone, Copy)]
pub enum Accumulators<'a> {
    /// Exact integers of the integer path.
    Int(&'a [i32]),
    /// float32.
    Real(&'a [f32]),
}

/// What is added before the activation.
#[derive(Debug, Clone, Copy)]
pub enum ResidualView<'a> {
    /// Nothing.
    None,
    /// `step * (code - zero)`.
    Codes {
        /// The codes.
        codes: &'a [u8],
        /// Where they lie.
        layout: Layout,
        /// Real value of one code.
        step: f32,
        /// The code that stands for zero.
        zero: u8,
    },
    /// Real values.
    Real {
        /// The values.
        values: &'a [f32],
        /// Where they lie.
        layout: Layout,
    },
}

/// Where `u` goes.
#[derive(Debug)]
pub enum Output<'a> {
    /// Clipped and quantized.
    Codes {
        /// The codes; border pixels are left alone.
        codes: &'a mut [u8],
        /// Where they lie.
        layout: Layout,
        /// q_max / alpha.
        inverse_scale: f32,
        /// Largest code.
        q_max: f32,
        /// Largest code of each channel, whole numbers of 0 to `q_max`; empty where that is `q_max` for all.
        limits: &'a [f32],
    },
    /// Clipped on both sides and quantized; stored as `q + q_max`.
    SignedCodes {
        /// The codes; border pixels are left alone.
        codes: &'a mut [u8],
        /// Where they lie.
        layout: Layout,
        /// q_max / alpha.
        inverse_scale: f32,
        /// Largest code, at most 127.
        q_max: f32,
        /// Largest `q` of each channel, whole numbers of 0 to `q_max`; empty where that is `q_max` for all.
        limits: &'a [f32],
    },
    /// The sign of u, -1 as 0 and +1 as 2; 0 is positive.
    Signs {
        /// The codes; border pixels are left alone.
        codes: &'a mut [u8],
        /// Where they lie.
        layout: Layout,
    },
    /// max(u, 0).
    Relu {
        /// The values; border pixels are left alone.
        values: &'a mut [f32],
        /// Where they lie.
        layout: Layout,
    },
    /// u itself.
    Keep {
        /// The values; border pixels are left alone.
        values: &'a mut [f32],
        /// Where they lie.
        layout: Layout,
    },
}

/// The activation, as its backward needs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation<'a> {
    /// Clip at one value: [`bitpact_core::act_backward`] of `pact`, `pact+`, `pact-sym` or `sign`. `fixed` and `relu`
    /// are taken for `pact`, whose sum nobody need read, and `lsq` for `pact+`.
    Clip {
        /// The quantizer.
        quant: ActQuant,
        /// The clip value.
        alpha: f32,
        /// q_max / alpha.
        inverse_scale: f32,
        /// Largest code.
        q_max: f32,
    },
    /// Channels that clip at values of their own, with the step of the largest: [`bitpact_core::act_backward_channel`].
    Channels {
        /// The quantizer, which has such clip values.
        quant: ActQuant,
        /// The clip value of each channel.
        alphas: &'a [f32],
        /// q_max over the largest clip value.
        inverse_scale: f32,
        /// Largest code.
        q_max: f32,
    },
    /// max(u, 0).
    Relu,
    /// None: the gradient passes.
    Keep,
}

/// Sums of one image that the backward of a unit needs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClipSums {
    /// dL/dalpha; of channels that clip apart, what the step gives to the gradient of the largest clip value.
    pub alpha_gradient: f64,
    /// Elements at or above alpha, or at or below -alpha where it clips too.
    pub clipped: u64,
}

/// Exact sums of z and z^2 per channel over one image: `sum[c]`, `square[c]`.
///
/// Sums of squares are the bits of a u64, exact while z^2 * pixels < 2^64.
///
/// # Panics
/// If a length does not fit `pixels` and `sum.len()`, which is a multiple of 16.
pub fn statistics_int(isa: Isa, z: &[i32], sum: &mut [i64], square: &mut [i64]) {
    check_statistics(z.len(), sum.len(), square.len());
    on_isa!(isa, |_FMA| body::statistics_int(z, sum, square))
}

/// Sums of z and z^2 per channel over one image in float64.
///
/// # Panics
/// As [`statistics_int`].
pub fn statistics_real(isa: Isa, z: &[f32], sum: &mut [f64], square: &mut [f64]) {
    check_statistics(z.len(), sum.len(), square.len());
    on_isa!(isa, |_FMA| body::statistics_real(z, sum, square))
}

fn check_statistics(z: usize, sum: usize, square: usize) {
    assert!(
        sum == square && sum > 0 && sum.is_multiple_of(BLOCK) && z.is_multiple_of(sum),
        "{z} values, {sum} channels"
    );
}

/// One image forward: `u = z*a + b + residual` into `output`. `shape` is the layout of z (no border).
///
/// # Panics
/// If a slice is shorter than its layout, or a channel stride is not a multiple of 16 or differs.
pub fn apply(isa: Isa, shape: Layout, z: Accumulators, a: &[f32], b: &[f32], residual: ResidualView, output: Output) {
    check(shape, &z, &residual);
    assert!(a.len() == shape.cs && b.len() == shape.cs);
    macro_rules! with_output {
        ($z:expr, $r:expr) => {
            match output {
                Output::Codes { codes, layout, inverse_scale, q_max, limits: [] } => {
                    check_layout(shape, layout, codes.len());
                    let out = Codes::new(codes, layout, inverse_scale, q_max);
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
                Output::Codes { codes, layout, inverse_scale, limits, .. } => {
                    check_layout(shape, layout, codes.len());
                    assert_eq!(limits.len(), shape.cs, "largest codes");
                    let out = Codes::new(codes, layout, inverse_scale, body::lanes(limits));
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
                Output::SignedCodes { codes, layout, inverse_scale, q_max, limits: [] } => {
                    check_layout(shape, layout, codes.len());
                    let out = SignedCodes::new(codes, layout, inverse_scale, q_max, q_max);
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
                Output::SignedCodes { codes, layout, inverse_scale, q_max, limits } => {
                    check_layout(shape, layout, codes.len());
                    assert_eq!(limits.len(), shape.cs, "largest codes");
                    let out = SignedCodes::new(codes, layout, inverse_scale, q_max, body::lanes(limits));
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
                Output::Signs { codes, layout } => {
                    check_layout(shape, layout, codes.len());
                    let out = body::Signs::new(codes, layout);
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
                Output::Relu { values, layout } => {
                    check_layout(shape, layout, values.len());
                    let out = RealOut::<true>::new(values, layout);
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
                Output::Keep { values, layout } => {
                    check_layout(shape, layout, values.len());
                    let out = RealOut::<false>::new(values, layout);
                    on_isa!(isa, |FMA| body::apply::<_, _, _, FMA>(shape, $z, a, b, $r, out))
                }
            }
        };
    }
    macro_rules! with_residual {
        ($z:expr) => {
            match residual {
                ResidualView::None => with_output!($z, NoResidual),
                ResidualView::Codes { codes, layout, step, zero } => {
                    with_output!($z, body::CodeResidual::new(codes, layout, step, zero))
                }
                ResidualView::Real { values, layout } => with_output!($z, Real::new(values, layout)),
            }
        };
    }
    match z {
        Accumulators::Int(z) => with_residual!(z),
        Accumulators::Real(z) => with_residual!(z),
    }
}

/// Coefficients of one unit's backward passes, one value a channel.
#[derive(Debug, Clone, Copy)]
pub struct Coefficients<'a> {
    /// gamma / sigma.
    pub a: &'a [f32],
    /// beta - gamma * mean / sigma.
    pub b: &'a [f32],
    /// 1 / sigma.
    pub xa: &'a [f32],
    /// -mean / sigma.
    pub xb: &'a [f32],
}

/// What backward's pass one finds in one image, one value a channel.
#[derive(Debug)]
pub struct UnitSums<'a> {
    /// Sum of dL/du.
    pub g: &'a mut [f32],
    /// Sum of dL/du * xhat.
    pub gx: &'a mut [f32],
    /// Largest |dL/du|.
    pub largest_g: &'a mut [f32],
    /// Smallest accumulator.
    pub lowest_z: &'a mut [f32],
    /// Largest accumulator.
    pub highest_z: &'a mut [f32],
}

impl<'a> UnitSums<'a> {
    /// Values a channel.
    pub const PARTS: usize = 5;

    /// The parts of one image's slice, each of `cs` values.
    ///
    /// # Panics
    /// If the length is not `PARTS * cs`.
    pub fn new(sums: &'a mut [f32], cs: usize) -> Self {
        assert_eq!(sums.len(), Self::PARTS * cs, "sums of {cs} channels");
        let (g, rest) = sums.split_at_mut(cs);
        let (gx, rest) = rest.split_at_mut(cs);
        let (largest_g, rest) = rest.split_at_mut(cs);
        let (lowest_z, highest_z) = rest.split_at_mut(cs);
        Self { g, gx, largest_g, lowest_z, highest_z }
    }
}

/// Backward, pass one, over one image: masks `g` (dL/dy, dense) in place to dL/du and sums it per channel.
/// `alpha_gradients[c]` is dL/dalpha of channels that clip apart; other activations do not touch it, and it may be
/// empty with them.
///
/// # Panics
/// As [`apply`].
pub fn backward_reduce(
    isa: Isa,
    shape: Layout,
    z: Accumulators,
    k: Coefficients,
    residual: ResidualView,
    activation: Activation,
    g: &mut [f32],
    mut unit_sums: UnitSums,
    alpha_gradients: &mut [f64],
) -> ClipSums {
    check(shape, &z, &residual);
    assert!([k.a, k.b, k.xa, k.xb].iter().all(|s| s.len() == shape.cs) && g.len() == shape.len());
    assert!(unit_sums.g.len() == shape.cs, "sums of {} channels for {shape:?}", unit_sums.g.len());
    let mut sums = ClipSums::default();
    macro_rules! reduce {
        ($z:expr, $r:expr, $act:expr, $alpha:expr) => {{
            let (act, alpha, unit_sums) = ($act, $alpha, &mut unit_sums);
            sums.clipped = on_isa!(isa, |FMA| body::backward_reduce::<_, _, _, _, FMA>(
                shape, $z, k, $r, act, alpha, g, unit_sums
            ));
        }};
    }
    macro_rules! with_quant {
        ($given:expr, |$quant:ident| $call:expr) => {
            match $given {
                ActQuant::Pact | ActQuant::Fixed | ActQuant::Relu => {
                    let $quant = body::Pact;
                    $call
                }
                ActQuant::PactPlus | ActQuant::Lsq => {
                    let $quant = body::PactPlus;
                    $call
                }
                ActQuant::PactSym => {
                    let $quant = body::PactSym;
                    $call
                }
                ActQuant::Sign => {
                    let $quant = body::Sign;
                    $call
                }
            }
        };
    }
    macro_rules! with_activation {
        ($z:expr, $r:expr) => {
            match activation {
                Activation::Clip { quant, alpha, inverse_scale, q_max } => {
                    with_quant!(quant, |quant| {
                        let act = Clip { quant, alpha, inverse_scale, q_max };
                        reduce!($z, $r, act, &mut sums.alpha_gradient)
                    })
                }
                Activation::Relu => reduce!($z, $r, Relu, &mut sums.alpha_gradient),
                Activation::Keep => reduce!($z, $r, Keep, &mut sums.alpha_gradient),
                Activation::Channels { quant, alphas, inverse_scale, q_max } => {
                    assert!([alphas.len(), alpha_gradients.len()] == [shape.cs; 2], "clip values");
                    alpha_gradients.fill(0.0);
                    let alphas = body::lanes(alphas);
                    let mut alpha = ChannelSums { channels: &mut *alpha_gradients, step: 0.0 };
                    with_quant!(quant, |quant| {
                        let act = ClipChannels { quant, alphas, inverse_scale, q_max };
                        reduce!($z, $r, act, &mut alpha)
                    });
                    sums.alpha_gradient = alpha.step;
                }
            }
        };
    }
    macro_rules! with_residual {
        ($z:expr) => {
            match residual {
                ResidualView::None => with_activation!($z, NoResidual),
                ResidualView::Codes { codes, layout, step, zero } => {
                    with_activation!($z, body::CodeResidual::new(codes, layout, step, zero))
                }
                ResidualView::Real { values, layout } => with_activation!($z, Real::new(values, layout)),
            }
        };
    }
    match z {
        Accumulators::Int(z) => with_residual!(z),
        Accumulators::Real(z) => with_residual!(z),
    }
    sums
}

/// Where the gradient of accumulators goes.
#[derive(Debug)]
pub enum GradientOutput<'a> {
    /// float32.
    Real(&'a mut [f32]),
    /// Rounded to bfloat16, stored as float32.
    Rounded(&'a mut [f32]),
    /// bfloat16, two bytes a value.
    Bf16(&'a mut [u8]),
    /// `128 + n`, n being the value, between -127 and 127, rounded up or down at random: up with the probability of its
    /// remainder. The random numbers are functions of `random` and the element's place in the image.
    S8 {
        /// The bytes.
        bytes: &'a mut [u8],
        /// Differs for every image, layer and step.
        random: u32,
    },
}

/// Backward, pass two, over one image: `dz = g*k1 + z*k2 + k3` into a bordered buffer, `g` being dL/du of pass one;
/// border pixels are left alone.
///
/// With N pixels in the batch: k1 = gamma/sigma, k2 = -k1 * sum_gx/N * xa, k3 = -k1 * (sum_g/N + xb * sum_gx/N).
///
/// # Panics
/// As [`apply`].
pub fn backward_apply(
    isa: Isa,
    shape: Layout,
    z: Accumulators,
    k: [&[f32]; 3],
    g: &[f32],
    output: GradientOutput,
    dz_layout: Layout,
) {
    check(shape, &z, &ResidualView::None);
    assert!(k.iter().all(|s| s.len() == shape.cs) && g.len() == shape.len());
    macro_rules! with_accumulators {
        ($out:expr) => {
            match z {
                Accumulators::Int(z) => {
                    on_isa!(isa, |FMA| body::backward_apply::<_, _, FMA>(shape, z, k, g, $out, dz_layout))
                }
                Accumulators::Real(z) => {
                    on_isa!(isa, |FMA| body::backward_apply::<_, _, FMA>(shape, z, k, g, $out, dz_layout))
                }
            }
        };
    }
    match output {
        GradientOutput::Real(dz) => {
            check_layout(shape, dz_layout, dz.len());
            with_accumulators!(gradient::RealGradient(dz))
        }
        GradientOutput::Rounded(dz) => {
            check_layout(shape, dz_layout, dz.len());
            with_accumulators!(gradient::RoundedGradient(dz))
        }
        GradientOutput::Bf16(bytes) => {
            assert!(bytes.len().is_multiple_of(2));
            check_layout(shape, dz_layout, bytes.len() / 2);
            with_accumulators!(gradient::Bf16Gradient(bytes))
        }
        GradientOutput::S8 { bytes, random } => {
            check_layout(shape, dz_layout, bytes.len());
            with_accumulators!(gradient::S8Gradient { bytes, random })
        }
    }
}

/// A whole bordered image of codes as real values, `(code - zero[i % n]) * scale` for the `n` numbers of `zero`: the
/// codes of zero of every channel, or fewer where they repeat.
///
/// # Panics
/// If the lengths differ or `zero` is empty.
pub fn widen(isa: Isa, codes: &[u8], zero: &[f32], scale: f32, values: &mut [f32]) {
    assert!(codes.len() == values.len() && !zero.is_empty(), "{} codes, {} values", codes.len(), values.len());
    on_isa!(isa, |_FMA| body::widen(codes, zero, scale, values))
}

fn check(shape: Layout, z: &Accumulators, residual: &ResidualView) {
    let len = match z {
        Accumulators::Int(z) => z.len(),
        Accumulators::Real(z) => z.len(),
    };
    assert!(shape.border == 0 && len == shape.len(), "accumulators of {len} elements for {shape:?}");
    match residual {
        ResidualView::None => assert!(shape.cs.is_multiple_of(BLOCK), "channel stride {}", shape.cs),
        ResidualView::Codes { codes, layout, .. } => check_layout(shape, *layout, codes.len()),
        ResidualView::Real { values, layout } => check_layout(shape, *layout, values.len()),
    }
}

fn check_layout(shape: Layout, layout: Layout, len: usize) {
    let same = (layout.h, layout.w, layout.cs) == (shape.h, shape.w, shape.cs);
    assert!(
        same && shape.cs.is_multiple_of(BLOCK) && len == layout.len(),
        "{len} elements in {layout:?} against {shape:?}"
    );
}
