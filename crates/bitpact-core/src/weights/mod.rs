//! Weight quantizers: which there are, their grids, forward and backward over one tensor.

mod quantize;
mod sawb;
#[cfg(test)]
mod tests;

pub use quantize::{CODE_LIMIT_16BIT, quantize_weights, quantize_weights_16bit, weights_backward};
pub use sawb::{sawb_alpha, sawb_coefficients};

use crate::{Bits, NameError, SpecError};
use serde::{Deserialize, Serialize};

/// How weights are quantized; formulas at [`quantize_weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightQuant {
    /// DoReFa-Net (arXiv 1606.06160), the quantizer of the PACT paper.
    Dorefa,
    /// Statistics-aware weight binning (arXiv 1807.06964): the clip value from two moments of the weights.
    Sawb,
    /// The largest weight of each output channel is the largest code.
    Minmax,
}

impl WeightQuant {
    /// The name used in recipes and files.
    pub const fn name(self) -> &'static str {
        match self {
            WeightQuant::Dorefa => "dorefa",
            WeightQuant::Sawb => "sawb",
            WeightQuant::Minmax => "minmax",
        }
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
        [WeightQuant::Dorefa, WeightQuant::Sawb, WeightQuant::Minmax].into_iter().find(|q| q.name() == name).ok_or_else(
            || NameError { what: "weight quantizer", given: name.to_owned(), expected: "dorefa, sawb, minmax" },
        )
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

    /// Whether `code` lies on the grid.
    pub const fn contains(self, code: i32, bits: Bits) -> bool {
        let odd = code & 1 == 1;
        code.unsigned_abs() <= self.code_limit(bits) as u32 && (matches!(self, Grid::WithZero) || odd)
    }

    /// The k-bit two's complement field stored for `code`: of the code itself with zero, of `q' = (code - 1) / 2` without.
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

/// A weight quantizer with its width and grid. [`WeightSpec::new`] and deserialization allow only pairs that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSpec")]
pub struct WeightSpec {
    /// Width of a code.
    pub bits: Bits,
    /// The quantizer.
    pub quant: WeightQuant,
    /// The set of codes.
    pub grid: Grid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    bits: Bits,
    quant: WeightQuant,
    grid: Option<Grid>,
}

impl TryFrom<RawSpec> for WeightSpec {
    type Error = SpecError;
    fn try_from(raw: RawSpec) -> Result<WeightSpec, SpecError> {
        WeightSpec::new(raw.bits, raw.quant, raw.grid)
    }
}

impl WeightSpec {
    /// A quantizer on `grid`, or on its usual one: with zero for `minmax`, without for `dorefa` and `sawb`, and at 1 bit
    /// without for all.
    ///
    /// # Errors
    /// `dorefa`, and every quantizer at 1 bit, has only the grid without zero.
    pub fn new(bits: Bits, quant: WeightQuant, grid: Option<Grid>) -> Result<WeightSpec, SpecError> {
        let without_only = quant == WeightQuant::Dorefa || bits.get() == 1;
        let usual = if quant == WeightQuant::Minmax && !without_only { Grid::WithZero } else { Grid::WithoutZero };
        match grid {
            Some(grid) if without_only && grid != Grid::WithoutZero => {
                Err(SpecError::Grid { quant, bits, grid, only: Grid::WithoutZero })
            }
            given => Ok(WeightSpec { bits, quant, grid: given.unwrap_or(usual) }),
        }
    }

    /// The largest code of the grid.
    pub const fn code_limit(&self) -> i32 {
        self.grid.code_limit(self.bits)
    }

    /// Number of scales of a tensor: one for the layer (`dorefa`, `sawb`) or one per output channel (`minmax`).
    pub const fn scales_len(&self, out_channels: usize) -> usize {
        match self.quant {
            WeightQuant::Minmax => out_channels,
            WeightQuant::Dorefa | WeightQuant::Sawb => 1,
        }
    }
}
