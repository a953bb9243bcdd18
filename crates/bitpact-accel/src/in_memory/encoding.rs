//! How weight and input codes become bits of cells and word lines, and how counts become sums again.

use bitpact_core::Grid;

use super::cell::Encoding;

/// The bits of a layer's operands. With `c[i][j]` the count of input bit `i` and weight plane `j`, a sum of products is
/// `(sum over i, j of 2^i multipliers[j] c[i][j] + input_multiplier * sum of inputs) / (1 or 2)`.
///
/// Weight codes of k bits, planes `b[j]` of 0 and 1:
///
/// - differential and match, cells of -1 and +1: `v = sum 2^j (2 b[j] - 1)`, all odd numbers of `±(2^k - 1)`: `v = q`
///   on the grid without zero, `v = 2 q + 1` on the one with zero, where the sum is halved after the sum of inputs is
///   subtracted;
/// - and, cells of 0 and 1: `q = 2 u - (2^k - 1)` with `u = sum 2^j b[j]` on the grid without zero, two's complement on
///   the one with zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    encoding: Encoding,
    grid: Grid,
    weight_bits: u8,
    input_bits: u8,
    /// Multiplier of every weight plane.
    pub multipliers: Vec<i64>,
    /// Multiplier of the sum of the inputs, which is known without the array.
    pub input_multiplier: i64,
    /// Whether the sum is halved; it is even where every count is right.
    pub halved: bool,
}

impl Slices {
    /// The bits of `weight_bits` wide codes of `grid` and of inputs of 0 to `2^input_bits - 1`.
    pub fn new(encoding: Encoding, grid: Grid, weight_bits: u8, input_bits: u8) -> Self {
        let k = weight_bits;
        let powers = |shift: u8| (0..k).map(|j| 1i64 << (j + shift)).collect::<Vec<_>>();
        let (multipliers, input_multiplier, halved) = match (encoding, grid) {
            (Encoding::And, Grid::WithoutZero) => (powers(1), 1 - (1 << k), false),
            (Encoding::And, Grid::WithZero) => {
                let mut powers = powers(0);
                if let Some(sign) = powers.last_mut() {
                    *sign = -*sign;
                }
                (powers, 0, false)
            }
            (_, Grid::WithoutZero) => (powers(0), 0, false),
            (_, Grid::WithZero) => (powers(0), -1, true),
        };
        Self { encoding, grid, weight_bits, input_bits, multipliers, input_multiplier, halved }
    }

    /// Weight planes: cells, or pairs of cells, for one weight.
    pub fn planes(&self) -> usize {
        self.multipliers.len()
    }

    /// Bits of an input, one read each.
    pub fn input_bits(&self) -> u8 {
        self.input_bits
    }

    /// Says whether plane `plane` stores a cell of high current on the bit line for the weight code `q`.
    pub fn stored(&self, q: i16, plane: usize) -> bool {
        let (q, most) = (i64::from(q), (1i64 << self.weight_bits) - 1);
        let unsigned = match (self.encoding, self.grid) {
            (Encoding::And, Grid::WithZero) => q,
            (_, Grid::WithoutZero) => (q + most) >> 1,
            (_, Grid::WithZero) => (2 * q + 1 + most) >> 1,
        };
        unsigned >> plane & 1 == 1
    }

    /// The sum of products, from the weighted sum of the planes' counts and the sum of the inputs.
    #[inline]
    pub fn sum(&self, planes: i64, inputs: i64) -> i64 {
        (planes + self.input_multiplier * inputs) >> u8::from(self.halved)
    }
}
