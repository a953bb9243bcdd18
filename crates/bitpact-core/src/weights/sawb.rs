//! The clip value of SAWB: a linear form of two moments of the weights.

use super::{Grid, WeightSpec};
use crate::{Bits, reduce};

/// Rows of (c1, c2) for 2 to 8 bits, printed by `cargo run --example sawb_coefficients`.
const WITH_ZERO: [(f64, f64); 7] = [
    (2.59502, 1.70261),
    (6.99678, 6.35205),
    (12.15000, 12.17061),
    (17.81457, 18.71421),
    (23.88644, 25.80951),
    (29.83216, 32.79418),
    (35.41286, 39.37338),
];
const WITHOUT_ZERO: [(f64, f64); 7] = [
    (3.18210, 2.14064),
    (7.52130, 6.90190),
    (12.49838, 12.56131),
    (18.03237, 18.96546),
    (24.00769, 25.95116),
    (29.89127, 32.86357),
    (35.44189, 39.40763),
];

/// The coefficients `(c1, c2)` of `alpha = c1 sqrt(mean w^2) - c2 mean|w|` (arXiv 1807.06964), derived by
/// [`crate::sawb_fit`]. At 1 bit `(0, -1)`: `alpha = mean|w|`, on either grid.
pub fn sawb_coefficients(bits: Bits, grid: Grid) -> (f64, f64) {
    let table = match grid {
        Grid::WithZero => &WITH_ZERO,
        Grid::WithoutZero => &WITHOUT_ZERO,
    };
    match bits.get() {
        1 => (0.0, -1.0),
        bits => table[usize::from(bits) - 2],
    }
}

/// `c1 sqrt(mean w^2) - c2 mean|w|` of one layer, and `max|w|` where that is not positive; 0 for no weights at all.
///
/// The sums in the fixed order of [`crate::reduce`], the rest in f64, rounded once.
pub fn sawb_alpha(spec: &WeightSpec, w: &[f32]) -> f32 {
    let n = w.len() as f64;
    let (c1, c2) = sawb_coefficients(spec.bits, spec.grid);
    let rms = (f64::from(reduce::sum_sq(w)) / n).sqrt();
    let mean = f64::from(reduce::sum_abs(w)) / n;
    let alpha = (c1 * rms - c2 * mean) as f32;
    if alpha > 0.0 { alpha } else { reduce::max_abs(w) }
}
