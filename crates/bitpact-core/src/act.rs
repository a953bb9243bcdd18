//! Activation quantizers: PACT forward, and its two backward modes.

use crate::round::{round_code, round_to_code};
use crate::{Bits, NameError};
use serde::{Deserialize, Serialize};

/// The clip value never falls below this, 2^-7; a step that would is clamped.
pub const ALPHA_MIN: f32 = 1.0 / 128.0;

/// A quantizer of activations, with its gradient. The forward of the unsigned ones is the same; they differ in the
/// gradient of the clip value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ActQuant {
    /// PACT as published (arXiv 1805.06085, eq. 3): the clip value learns from clipped elements only.
    #[serde(rename = "pact")]
    Pact,
    /// The calibrated gradient: elements inside the range add their rounding error.
    #[serde(rename = "pact+")]
    PactPlus,
    /// Learned step size (arXiv 1902.08153), with `alpha = q_max * step` as the parameter: the gradient of `pact+`,
    /// times [`lsq_alpha_scale`].
    #[serde(rename = "lsq")]
    Lsq,
    /// PACT with a clip value that stays where it starts.
    #[serde(rename = "fixed")]
    Fixed,
    /// A ReLU with a scale that is not learned: the clip value follows the running maximum.
    #[serde(rename = "relu")]
    Relu,
    /// Signed, for tensors without a ReLU: codes in `[-q_max, q_max]` with `q_max = 2^(bits-1) - 1`, clipped at both
    /// `alpha` and `-alpha`. Codes are stored unsigned, as `q + q_max`.
    #[serde(rename = "pact-sym")]
    PactSym,
    /// The sign, of 1 bit: `x_q = alpha` where `x >= 0`, else `-alpha`, with a learned alpha that is the clip value of
    /// the gradient too ([`act_backward`]). Codes are -1 and +1.
    #[serde(rename = "sign")]
    Sign,
}

impl ActQuant {
    /// Every activation quantizer, in the order of the documentation.
    pub const ALL: [ActQuant; 7] = [
        ActQuant::Pact,
        ActQuant::PactPlus,
        ActQuant::Lsq,
        ActQuant::Fixed,
        ActQuant::Relu,
        ActQuant::PactSym,
        ActQuant::Sign,
    ];

    /// Tells whether the quantizer trains its clip value.
    pub const fn is_learned(self) -> bool {
        !matches!(self, ActQuant::Fixed | ActQuant::Relu)
    }

    /// Whether the channels of a layer may have clip values of their own: where a clip value is learned apart from the
    /// step.
    pub const fn has_channel_clips(self) -> bool {
        matches!(self, ActQuant::Pact | ActQuant::PactPlus | ActQuant::PactSym)
    }

    /// Tells whether the quantizer's codes lie on both sides of zero.
    pub const fn is_signed(self) -> bool {
        matches!(self, ActQuant::PactSym | ActQuant::Sign)
    }

    /// The largest code: `2^bits - 1`, of `pact-sym` `2^(bits-1) - 1`, of a sign 1.
    pub const fn q_max(self, bits: Bits) -> i32 {
        match self {
            ActQuant::PactSym => (1 << (bits.get() - 1)) - 1,
            ActQuant::Sign => 1,
            _ => bits.q_max(),
        }
    }

    /// The stored code that stands for zero: 0, signed `q_max`. Stored codes end at `q_max + zero_code`. Signs are
    /// stored as 0 and 2 while they are trained; 1 stands where zeros are inserted among them.
    pub const fn zero_code(self, bits: Bits) -> u8 {
        if self.is_signed() { self.q_max(bits) as u8 } else { 0 }
    }

    /// The stored code around an image where a convolution's window reaches beyond it: that of zero, of signs that of
    /// -1, so that a sign is one bit everywhere.
    pub const fn padding_code(self, bits: Bits) -> u8 {
        match self {
            ActQuant::Sign => 0,
            _ => self.zero_code(bits),
        }
    }

    /// Codes of the integer network: their scale as a multiple of [`ActQuant::scale`], the code that stands for zero,
    /// and the largest one.
    ///
    /// They are the stored ones; signs become 0 and 1, `x = 2 alpha (u - 1/2)`, so that zero lies between two codes.
    pub fn integer_codes(self, bits: Bits) -> (f64, f64, i32) {
        let zero = self.zero_code(bits);
        match self {
            ActQuant::Sign => (2.0, 0.5, 1),
            _ => (1.0, zero.into(), self.q_max(bits) + i32::from(zero)),
        }
    }

    /// `q_max / alpha` in float32: the factor from real values to codes. This spelling decides codes.
    #[inline]
    pub fn inverse_scale(self, alpha: f32, bits: Bits) -> f32 {
        self.q_max(bits) as f32 / alpha
    }

    /// `alpha / q_max` in float32: the scale of the codes, the real value of one of them (PACT, eq. 2).
    #[inline]
    pub fn scale(self, alpha: f32, bits: Bits) -> f32 {
        alpha / self.q_max(bits) as f32
    }

    /// The name used in recipes and files.
    pub const fn name(self) -> &'static str {
        match self {
            ActQuant::Pact => "pact",
            ActQuant::PactPlus => "pact+",
            ActQuant::Lsq => "lsq",
            ActQuant::Fixed => "fixed",
            ActQuant::Relu => "relu",
            ActQuant::PactSym => "pact-sym",
            ActQuant::Sign => "sign",
        }
    }
}

impl std::fmt::Display for ActQuant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for ActQuant {
    type Err = NameError;
    fn from_str(name: &str) -> Result<ActQuant, NameError> {
        let expected = "pact, pact+, lsq, fixed, relu, pact-sym, sign";
        let unknown = || NameError { what: "activation quantizer", given: name.to_owned(), expected };
        ActQuant::ALL.into_iter().find(|q| q.name() == name).ok_or_else(unknown)
    }
}

/// [`ActQuant::inverse_scale`] of the unsigned quantizers.
#[inline]
pub fn act_inverse_scale(alpha: f32, bits: Bits) -> f32 {
    ActQuant::Pact.inverse_scale(alpha, bits)
}

/// [`ActQuant::scale`] of the unsigned quantizers.
#[inline]
pub fn act_scale(alpha: f32, bits: Bits) -> f32 {
    ActQuant::Pact.scale(alpha, bits)
}

/// The factor of `lsq` for the gradient of alpha: `q_max^2 / sqrt(n q_max)` for `n` numbers that share the step.
///
/// The paper descends on the step, `s -= lr g dL/ds` with `g = 1 / sqrt(n q_max)` (section 2.2). With `alpha = q_max
/// s`, `dL/ds = q_max dL/dalpha` and alpha moves by `q_max` times what `s` moves by: `alpha -= lr g q_max^2 dL/dalpha`.
pub fn lsq_alpha_scale(n: usize, q_max: f32) -> f32 {
    q_max * q_max * crate::lsq_gradient_scale(n, q_max)
}

/// The code of `x`: `clamp(round_half_even(x * inverse_scale), 0, q_max)` (PACT, eq. 1 and 2), 0 for `NaN`.
///
/// `inverse_scale` from [`act_inverse_scale`]; `q_max` is an integer in 1..=255. Zero and the clip value are codes.
#[inline(always)]
pub fn quantize_act(x: f32, inverse_scale: f32, q_max: f32) -> u8 {
    round_to_code(clamp(x * inverse_scale, q_max)) as u8
}

/// The signed code of `x`: `clamp(round_half_even(x * inverse_scale), -q_max, q_max)`, `-q_max` for `NaN`.
///
/// `inverse_scale` from [`ActQuant::inverse_scale`] of `pact-sym`; `q_max` is an integer in 1..=127. Zero and both clip
/// values are codes.
#[inline(always)]
pub fn quantize_act_signed(x: f32, inverse_scale: f32, q_max: f32) -> i8 {
    let v = x * inverse_scale;
    let v = if v > -q_max { v } else { -q_max };
    round_to_code(if v < q_max { v } else { q_max }) as i8
}

/// The code of `x` in a quantizer of signs: 1 where `x >= 0`, else -1, and for `NaN`.
#[inline(always)]
pub fn quantize_act_sign(x: f32) -> i8 {
    if x >= 0.0 { 1 } else { -1 }
}

/// The code of `x` as `quant` has it, signed; `inverse_scale` and `q_max` as [`quantize_act`] and
/// [`quantize_act_signed`] ask for them.
#[inline(always)]
pub fn act_code(quant: ActQuant, x: f32, inverse_scale: f32, q_max: f32) -> i32 {
    match quant {
        ActQuant::Sign => quantize_act_sign(x).into(),
        ActQuant::PactSym => quantize_act_signed(x, inverse_scale, q_max).into(),
        _ => quantize_act(x, inverse_scale, q_max).into(),
    }
}

/// `v` clamped to `[0, q_max]`, 0 for `NaN`; clamping before rounding changes nothing, as both bounds are integers.
#[inline(always)]
fn clamp(v: f32, q_max: f32) -> f32 {
    let v = if v > 0.0 { v } else { 0.0 };
    if v < q_max { v } else { q_max }
}

/// The clip value that sets the step of a layer whose channels have clip values of their own: the largest, `s = max
/// alpha[c] / q_max`.
pub fn largest_clip(alphas: &[f32]) -> f32 {
    alphas.iter().fold(0.0, |most, &alpha| if alpha > most { alpha } else { most })
}

/// The largest code of a channel with the clip value `alpha`: `min(round_half_even(alpha * inverse_scale), q_max)`,
/// `inverse_scale` from the layer's [`largest_clip`].
///
/// Rounding is monotone, so to clamp the channel's codes at it is to clip its values at `alpha`: `round(min(x, alpha) /
/// s) = min(round(x / s), round(alpha / s))`. A signed channel has its codes in plus and minus of it.
#[inline(always)]
pub fn channel_q_max(alpha: f32, inverse_scale: f32, q_max: f32) -> f32 {
    f32::from(quantize_act(alpha, inverse_scale, q_max))
}

/// The share of one element in the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActGrad {
    /// Gradient of the loss by the element before it was quantized, dL/dx.
    pub dx: f32,
    /// The element's term of dL/dalpha; sum it over the tensor.
    pub dalpha: f32,
}

/// Backward of one element, `g = dL/dx_q`.
///
/// - all: `dx = g` where `0 <= x < alpha`, else 0;
/// - `pact` (arXiv 1805.06085, eq. 3): `dalpha = g` where `x >= alpha`, else 0;
/// - `pact+`: the same, and `dalpha = g * ((q - x * inverse_scale) / q_max)` where `0 <= x < alpha`. This is what
///   automatic differentiation makes of `alpha * round_ste(clip(x) / alpha * n) / n`;
/// - `lsq` (arXiv 1902.08153, eq. 3, over `q_max`): as `pact+`; [`lsq_alpha_scale`] multiplies the sum;
/// - `fixed`, `relu`: `dalpha = 0`;
/// - `pact-sym`: `dx = g` where `-alpha < x < alpha`, else 0; `dalpha = g` where `x >= alpha`, `-g` where `x <=
///   -alpha`, else 0;
/// - `sign`: `dx = g` where `-alpha < x < alpha`, else 0, the straight-through estimator of binarized networks (arXiv
///   1602.02830, eq. 4, whose clip is at 1); `dalpha = g` where `x >= 0`, else `-g`, the exact derivative.
#[inline(always)]
pub fn act_backward(quant: ActQuant, g: f32, x: f32, alpha: f32, inverse_scale: f32, q_max: f32) -> ActGrad {
    let (mut dx, mut dalpha) = ([g], [0.0]);
    act_backward_lanes(quant, &[x], &[alpha], inverse_scale, q_max, &mut dx, &mut dalpha, &mut [0]);
    ActGrad { dx: dx[0], dalpha: dalpha[0] }
}

/// [`act_backward`] of N elements, each with its clip value: `g` becomes dL/dx, `dalpha` gains the terms of dL/dalpha,
/// and `clipped` one where `x >= alpha`, or `x <= -alpha` in a signed quantizer.
///
/// Its form is one that compilers turn into vectors of every width.
#[inline(always)]
pub fn act_backward_lanes<const N: usize>(
    quant: ActQuant,
    x: &[f32; N],
    alpha: &[f32; N],
    inverse_scale: f32,
    q_max: f32,
    g: &mut [f32; N],
    dalpha: &mut [f32; N],
    clipped: &mut [u32; N],
) {
    for i in 0..N {
        let own = g[i];
        let above = x[i] >= alpha[i];
        let below = quant.is_signed() && x[i] <= -alpha[i];
        let inside = if quant.is_signed() { !above && !below } else { x[i] >= 0.0 && !above };
        let dx = if inside { g[i] } else { 0.0 };
        let outside = if below { -g[i] } else { 0.0 };
        let mut term = if above { g[i] } else { outside };
        if matches!(quant, ActQuant::PactPlus | ActQuant::Lsq) {
            let v = x[i] * inverse_scale;
            // Outside the range v may be anything, even infinite, so the product is selected, not masked by zero.
            let residual = dx * ((round_code(clamp(v, q_max)) - v) / q_max);
            term += if inside { residual } else { 0.0 };
        }
        if quant == ActQuant::Sign {
            term = if x[i] >= 0.0 { own } else { -own };
        }
        dalpha[i] += if matches!(quant, ActQuant::Fixed | ActQuant::Relu) { 0.0 } else { term };
        clipped[i] += u32::from(above || below);
        g[i] = dx;
    }
}

/// What one element of a channel with a clip value of its own contributes to the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelActGrad {
    /// Gradient of the loss by the element before it was quantized, dL/dx.
    pub dx: f32,
    /// The element's term of dL/dalpha of its channel; sum it over the channel.
    pub dalpha: f32,
    /// The element's term of what dL/dalpha of the largest clip value gains through the step; sum it over the tensor.
    pub dlargest: f32,
}

/// Backward of one element of a channel that clips at `alpha`, in a layer whose step is `1 / inverse_scale`, the
/// largest clip value over `q_max`.
///
/// The channel's value is `x_q = s (clip(x, 0, alpha) / s + r)`, `r` being what rounding adds, constant under the
/// straight-through estimator, so with `g = dL/dx_q`
///
/// - `dx` and `dalpha` are those of [`act_backward`] in mode `pact` (`pact-sym` where signed), with the channel's
///   `alpha`;
/// - `pact+`: `dlargest = g r / q_max` where `x >= 0`, clipped or not, as `s` is the largest clip value over `q_max`; 0
///   in the other modes, which hold the step constant.
///
/// # Panics
/// For `lsq`, which learns the step itself, and for quantizers that do not learn.
#[inline(always)]
pub fn act_backward_channel(
    quant: ActQuant,
    g: f32,
    x: f32,
    alpha: f32,
    inverse_scale: f32,
    q_max: f32,
) -> ChannelActGrad {
    let (mut dx, mut dalpha, mut dlargest) = ([g], [0.0], [0.0]);
    let grads = (&mut dx, &mut dalpha, &mut dlargest, &mut [0]);
    act_backward_channel_lanes(quant, &[x], &[alpha], inverse_scale, q_max, grads);
    ChannelActGrad { dx: dx[0], dalpha: dalpha[0], dlargest: dlargest[0] }
}

/// [`act_backward_channel`] of N elements, each of a channel of its own: of `grads`, the first becomes dL/dx from
/// dL/dx_q, and the others gain the terms of dL/dalpha and of the largest clip value, and the counts of
/// [`act_backward_lanes`].
///
/// # Panics
/// As [`act_backward_channel`].
#[inline(always)]
pub fn act_backward_channel_lanes<const N: usize>(
    quant: ActQuant,
    x: &[f32; N],
    alpha: &[f32; N],
    inverse_scale: f32,
    q_max: f32,
    (g, dalpha, dlargest, clipped): (&mut [f32; N], &mut [f32; N], &mut [f32; N], &mut [u32; N]),
) {
    assert!(quant.has_channel_clips(), "{quant} has one clip value a layer");
    if quant == ActQuant::PactPlus {
        for i in 0..N {
            let v = if x[i] < alpha[i] { x[i] } else { alpha[i] } * inverse_scale;
            let term = g[i] * ((round_code(clamp(v, q_max)) - v) / q_max);
            dlargest[i] += if x[i] >= 0.0 { term } else { 0.0 };
        }
    }
    let own = if quant.is_signed() { ActQuant::PactSym } else { ActQuant::Pact };
    act_backward_lanes(own, x, alpha, inverse_scale, q_max, g, dalpha, clipped);
}

#[cfg(test)]
mod tests;
