//! Weight quantizers: which there are, their grids, forward and backward over one tensor.

mod lsq;
mod quantize;
mod sawb;
#[cfg(test)]
mod tests;

pub use lsq::{WEIGHT_STEP_MIN, lsq_gradient_scale, lsq_start};
pub use quantize::{
    CODE_LIMIT_16BIT, quantize_weights, quantize_weights_16bit, quantize_weights_given, weights_backward,
    weights_backward_given,
};
pub use sawb::{sawb_alpha, sawb_coefficients};

use crate::{Bits, NameError, SpecError};
use serde::{Deserialize, Serialize};

/// How weights are quantized; formulas at [`quantize_weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WeightQuant {
    /// DoReFa-Net (arXiv 1606.06160), the quantizer of the PACT paper.
    #[serde(rename = "dorefa")]
    Dorefa,
    /// Statistics-aware weight binning (arXiv 1807.06964): the clip value from two moments of the weights.
    #[serde(rename = "sawb")]
    Sawb,
    /// The codes of `sawb`; the gradient passes beyond the clip value too.
    #[serde(rename = "sawb+")]
    SawbPlus,
    /// Learned step size quantization (arXiv 1902.08153): the step is a trained parameter.
    #[serde(rename = "lsq")]
    Lsq,
    /// The largest weight of each output channel is the largest code.
    #[serde(rename = "minmax")]
    Minmax,
}

impl WeightQuant {
    /// Every quantizer.
    pub const ALL: [WeightQuant; 5] =
        [WeightQuant::Dorefa, WeightQuant::Sawb, WeightQuant::SawbPlus, WeightQuant::Lsq, WeightQuant::Minmax];

    /// The name used in recipes and files.
    pub const fn name(self) -> &'static str {
        match self {
            WeightQuant::Dorefa => "dorefa",
            WeightQuant::Sawb => "sawb",
            WeightQuant::SawbPlus => "sawb+",
            WeightQuant::Lsq => "lsq",
            WeightQuant::Minmax => "minmax",
        }
    }

    /// Tells whether the steps are trained, and so come from outside.
    pub const fn is_learned(self) -> bool {
        matches!(self, WeightQuant::Lsq)
    }

    /// One scale or many where nothing is said: one per output channel for `minmax`, one for the layer for the others.
    pub const fn usual_scale(self) -> Granularity {
        if matches!(self, WeightQuant::Minmax) { Granularity::Channel } else { Granularity::Layer }
    }
}

impl std::fmt::Display for WeightQuant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for WeightQuant {
    type Err = NameError;
    fn from_str(name: &str) -> Result<WeightQuant, NameError> {
        let expected = "dorefa, sawb, sawb+, lsq, minmax";
        let unknown = || NameError { what: "weight quantizer", given: name.to_owned(), expected };
        WeightQuant::ALL.into_iter().find(|q| q.name() == name).ok_or_else(unknown)
    }
}

/// What shares one number: a whole layer, or a channel of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// One number for the layer.
    #[default]
    Layer,
    /// One for each output channel.
    Channel,
}

impl Granularity {
    /// The name used in recipes and files.
    pub const fn name(self) -> &'static str {
        match self {
            Granularity::Layer => "layer",
            Granularity::Channel => "channel",
        }
    }
}

impl std::fmt::Display for Granularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The set of weight codes of `k` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Grid {
    /// All integers in `[-(2^(k-1) - 1), 2^(k-1) - 1]`: `2^k - 1` codes.
    #[serde(rename = "zero")]
    WithZero,
    /// The odd integers in `[-(2^k - 1), 2^k - 1]`: `2^k` codes, none of them zero.
    #[serde(rename = "no_zero")]
    WithoutZero,
}

impl Grid {
    /// The name used in recipes and files.
    pub const fn name(self) -> &'static str {
        match self {
            Grid::WithZero => "zero",
            Grid::WithoutZero => "no_zero",
        }
    }

    /// The largest code: `2^(k-1) - 1` with zero (0 at 1 bit), `2^k - 1` without.
    pub const fn code_limit(self, bits: Bits) -> i32 {
        match self {
            Grid::WithZero => (1 << (bits.get() - 1)) - 1,
            Grid::WithoutZero => bits.q_max(),
        }
    }

    /// Tells whether `code` lies on the grid.
    pub const fn contains(self, code: i32, bits: Bits) -> bool {
        let odd = code & 1 == 1;
        code.unsigned_abs() <= self.code_limit(bits) as u32 && (matches!(self, Grid::WithZero) || odd)
    }

    /// The k-bit two's complement field stored for `code`: of the code itself with zero, of `q' = (code - 1) / 2`
    /// without.
    ///
    /// `code` must lie on the grid; of any other the low bits are kept.
    pub const fn to_field(self, code: i32, bits: Bits) -> u32 {
        let stored = match self {
            Grid::WithZero => code,
            Grid::WithoutZero => (code - 1) >> 1,
        };
        stored as u32 & bits.q_max() as u32
    }

    /// The code of a stored field, of which only the low k bits count.
    ///
    /// With zero, the field `2^(k-1)` is no code of the grid and gives `-2^(k-1)`: check fields from outside with
    /// [`Grid::contains`]. Without zero every field is a code.
    pub const fn from_field(self, field: u32, bits: Bits) -> i32 {
        let unused = 32 - bits.get() as u32;
        let stored = ((field << unused) as i32) >> unused;
        match self {
            Grid::WithZero => stored,
            Grid::WithoutZero => 2 * stored + 1,
        }
    }
}

impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Grid {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Grid, NameError> {
        [Grid::WithZero, Grid::WithoutZero].into_iter().find(|g| g.name() == name).ok_or_else(|| NameError {
            what: "weight grid",
            given: name.to_owned(),
            expected: "zero, no_zero",
        })
    }
}

/// A weight quantizer with its width and grid. The constructors and deserialization allow only what exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSpec", into = "RawSpec")]
pub struct WeightSpec {
    /// Width of a code.
    pub bits: Bits,
    /// The quantizer.
    pub quant: WeightQuant,
    /// The set of codes.
    pub grid: Grid,
    /// What has a scale of its own. Written only where it is not [`WeightQuant::usual_scale`].
    pub scale: Granularity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    bits: Bits,
    quant: WeightQuant,
    grid: Option<Grid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<Granularity>,
}

impl TryFrom<RawSpec> for WeightSpec {
    type Error = SpecError;
    fn try_from(raw: RawSpec) -> Result<WeightSpec, SpecError> {
        WeightSpec::with_scale(raw.bits, raw.quant, raw.grid, raw.scale)
    }
}

impl From<WeightSpec> for RawSpec {
    fn from(spec: WeightSpec) -> RawSpec {
        let scale = (spec.scale != spec.quant.usual_scale()).then_some(spec.scale);
        RawSpec { bits: spec.bits, quant: spec.quant, grid: Some(spec.grid), scale }
    }
}

impl WeightSpec {
    /// A quantizer on `grid`, or on its usual one: with zero for `minmax`, and for `lsq` from 3 bits on; without for
    /// the others and at 1 bit. Its scales are the usual ones too.
    ///
    /// # Errors
    /// `dorefa`, and every quantizer at 1 bit, has only the grid without zero.
    pub fn new(bits: Bits, quant: WeightQuant, grid: Option<Grid>) -> Result<WeightSpec, SpecError> {
        WeightSpec::with_scale(bits, quant, grid, None)
    }

    /// [`WeightSpec::new`] with a scale per layer or per output channel, or the usual of the two.
    ///
    /// # Errors
    /// Those of [`WeightSpec::new`]; `dorefa` has one scale for the layer, by its formula.
    pub fn with_scale(
        bits: Bits,
        quant: WeightQuant,
        grid: Option<Grid>,
        scale: Option<Granularity>,
    ) -> Result<WeightSpec, SpecError> {
        let without_only = quant == WeightQuant::Dorefa || bits.get() == 1;
        let usual = match quant {
            WeightQuant::Minmax => Grid::WithZero,
            // The published grid has zero and 2^k levels; at 2 bits only the one without zero has 4.
            WeightQuant::Lsq if bits.get() > 2 => Grid::WithZero,
            _ => Grid::WithoutZero,
        };
        let usual = if without_only { Grid::WithoutZero } else { usual };
        match grid {
            Some(grid) if without_only && grid != Grid::WithoutZero => {
                return Err(SpecError::Grid { quant, bits, grid, only: Grid::WithoutZero });
            }
            _ => {}
        }
        let scale = scale.unwrap_or(quant.usual_scale());
        if quant == WeightQuant::Dorefa && scale != Granularity::Layer {
            return Err(SpecError::Scale { quant, scale, only: Granularity::Layer });
        }
        Ok(WeightSpec { bits, quant, grid: grid.unwrap_or(usual), scale })
    }

    /// The largest code of the grid.
    pub const fn code_limit(&self) -> i32 {
        self.grid.code_limit(self.bits)
    }

    /// Tells whether forward and backward read tanh of the weights: `dorefa` above 1 bit.
    pub const fn needs_tanh(&self) -> bool {
        matches!(self.quant, WeightQuant::Dorefa) && self.bits.get() > 1
    }

    /// Number of scales of a tensor: one for the layer or one per output channel.
    pub const fn scales_len(&self, out_channels: usize) -> usize {
        match self.scale {
            Granularity::Channel => out_channels,
            Granularity::Layer => 1,
        }
    }
}
