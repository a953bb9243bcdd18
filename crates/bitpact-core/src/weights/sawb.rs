//! The clip value of SAWB: a linear form of two moments of the weights.

use super::{Grid, WeightSpec};
use crate::{Bits, reduce};

/// Rows of (c1, c2) for 2 to 8 bits, printed by `cargo run --example sawb_coefficients`.
const WITH_ZERO: [(f64, f64); 7] =
    [(2.60, 1.71), (7.0, 6.35), (12.07, 12.07), (14.7, 15.1), (23.0, 25.0), (28.77, 31.52), (33.59, 37.18)];
const WITHOUT_ZERO: [(f64, f64); 7] =
    [(3.19, 2.15), (7.55, 6.93), (12.43, 12.48), (17.86, 18.76), (23.42, 25.24), (28.95, 31.72), (33.82, 37.47)];

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
