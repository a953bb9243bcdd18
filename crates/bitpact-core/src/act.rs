//! Activation quantizers: PACT forward, and its two backward modes.

use crate::round::round_to_code;
use crate::{Bits, NameError, round_half_even};
use serde::{Deserialize, Serialize};

/// The clip value never falls below this, 2^-7; a step that would is clamped.
pub const ALPHA_MIN: f32 = 1.0 / 128.0;

/// How an activation is quantized and differentiated. The forward is the same for all; they differ in the gradient of
/// the clip value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ActQuant {
    /// PACT as published (arXiv 1805.06085, eq. 3): the clip value learns from clipped elements only.
    #[serde(rename = "pact")]
    Pact,
    /// The calibrated gradient: elements inside the range add their rounding error.
    #[serde(rename = "pact+")]
    PactPlus,
    /// A ReLU with a scale that is not learned.
    #[serde(rename = "relu")]
    Relu,
}

impl ActQuant {
    /// The name used in recipes and files.
    pub const fn name(self) -> &'static str {
        match self {
            ActQuant::Pact => "pact",
            ActQuant::PactPlus => "pact+",
            ActQuant::Relu => "relu",
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
        [ActQuant::Pact, ActQuant::PactPlus, ActQuant::Relu].into_iter().find(|q| q.name() == name).ok_or_else(|| {
            NameError { what: "activation quantizer", given: name.to_owned(), expected: "pact, pact+, relu" }
        })
    }
}

/// `q_max / alpha` in float32: the factor from real values to codes. This spelling decides codes.
#[inline]
pub fn act_inverse_step(alpha: f32, bits: Bits) -> f32 {
    bits.q_max() as f32 / alpha
}

/// `alpha / q_max` in float32: the real value of one code step (PACT, eq. 2).
#[inline]
pub fn act_step(alpha: f32, bits: Bits) -> f32 {
    alpha / bits.q_max() as f32
}

/// The code of `x`: `clamp(round_half_even(x * inverse_step), 0, q_max)` (PACT, eq. 1 and 2), 0 for `NaN`.
///
/// `inverse_step` from [`act_inverse_step`]; `q_max` is an integer in 1..=255. Zero and the clip value are codes.
#[inline]
pub fn quantize_act(x: f32, inverse_step: f32, q_max: f32) -> u8 {
    round_to_code(clamp(x * inverse_step, q_max)) as u8
}

/// `v` clamped to `[0, q_max]`, 0 for `NaN`; clamping before rounding changes nothing, as both bounds are integers.
#[inline]
fn clamp(v: f32, q_max: f32) -> f32 {
    let v = if v > 0.0 { v } else { 0.0 };
    if v < q_max { v } else { q_max }
}

/// What one element contributes to the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActGrad {
    /// dL/dx.
    pub dx: f32,
    /// The element's term of dL/dalpha; sum it over the tensor.
    pub dalpha: f32,
}

/// Backward of one element, `g = dL/dx_q`.
///
/// - all: `dx = g` where `0 <= x < alpha`, else 0;
/// - `pact` (arXiv 1805.06085, eq. 3): `dalpha = g` where `x >= alpha`, else 0;
/// - `pact+`: the same, and `dalpha = g * (q - x * inverse_step) / q_max` where `0 <= x < alpha`. This is what automatic
///   differentiation makes of `alpha * round_ste(clip(x) / alpha * n) / n`;
/// - `relu`: `dalpha = 0`.
#[inline]
pub fn act_backward(quant: ActQuant, g: f32, x: f32, alpha: f32, inverse_step: f32, q_max: f32) -> ActGrad {
    let inside = x >= 0.0 && x < alpha;
    let clipped = x >= alpha;
    let dx = if inside { g } else { 0.0 };
    let dalpha = match quant {
        ActQuant::Relu => 0.0,
        ActQuant::Pact => {
            if clipped {
                g
            } else {
                0.0
            }
        }
        ActQuant::PactPlus => {
            let v = x * inverse_step;
            let residual = g * (round_half_even(clamp(v, q_max)) - v) / q_max;
            if clipped {
                g
            } else if inside {
                residual
            } else {
                0.0
            }
        }
    };
    ActGrad { dx, dalpha }
}

#[cfg(test)]
mod tests;
