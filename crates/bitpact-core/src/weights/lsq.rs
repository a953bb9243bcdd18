//! Learned step size quantization (Esser et al. 2020, arXiv 1902.08153): start, codes and gradients of a step.
//!
//! A step `d` is the distance of neighbouring levels: the scale of a code with zero, twice it without. `Q` is the
//! largest level in steps, `L` with zero and `L / 2` without. The published grid ends one level lower on the negative
//! side; ours are symmetric.

use super::{Grid, WeightSpec};
use crate::reduce;

/// A learned weight step never falls below this, 2^-20.
pub const WEIGHT_STEP_MIN: f32 = 1.0 / 1_048_576.0;

impl Grid {
    /// Codes from one level to the next.
    const fn spacing(self) -> f32 {
        match self {
            Grid::WithZero => 1.0,
            Grid::WithoutZero => 2.0,
        }
    }
}

/// The factor of a step's gradient, `1 / sqrt(n q_max)` (section 2.2): `n` numbers share the step, whose largest level
/// is `q_max` steps.
pub fn lsq_gradient_scale(n: usize, q_max: f32) -> f32 {
    (1.0 / (n.max(1) as f64 * f64::from(q_max)).sqrt()) as f32
}

/// The steps to start from, one for each scale of `spec`: `2 mean|w| / sqrt(Q)` (section 2.1), at 1 bit `2 mean|w|`,
/// which makes the scale `mean|w|`; [`WEIGHT_STEP_MIN`] at the least. `w` is `[out_channels][rest]`.
///
/// # Panics
/// Where a length does not fit.
pub fn lsq_start(spec: &WeightSpec, w: &[f32], out_channels: usize, steps: &mut [f32]) {
    assert_eq!(steps.len(), spec.scales_len(out_channels), "lsq_start: number of steps");
    let n = w.len() / steps.len().max(1);
    for (c, step) in steps.iter_mut().enumerate() {
        let part = &w[c * n..(c + 1) * n];
        let mean = if n == 0 { 0.0 } else { f64::from(reduce::sum_abs(part)) / n as f64 };
        let root = if spec.bits.get() == 1 { 1.0 } else { f64::from(largest_level(spec)).sqrt() };
        let start = (2.0 * mean / root) as f32;
        *step = if start > WEIGHT_STEP_MIN { start } else { WEIGHT_STEP_MIN };
    }
}

/// `Q`.
fn largest_level(spec: &WeightSpec) -> f32 {
    spec.code_limit() as f32 / spec.grid.spacing()
}

/// The scale of a code and its inverse, for a step.
pub(super) fn scale_pair(spec: &WeightSpec, step: f32) -> (f32, f32) {
    let scale = step / spec.grid.spacing();
    if scale >= f32::MIN_POSITIVE { (scale, 1.0 / scale) } else { (0.0, 0.0) }
}

/// Gradients of some of the weights that share `step`: fills `dw`, adds to `sum` what [`step_gradient`] reads. `codes`
/// are theirs.
pub(super) fn backward(
    spec: &WeightSpec,
    step: f32,
    w: &[f32],
    codes: &[i16],
    dwq: &[f32],
    dw: &mut [f32],
    sum: &mut f64,
) {
    let (_, inverse) = scale_pair(spec, step);
    let (limit, binary) = (spec.code_limit() as f32, spec.bits.get() == 1);
    for (((d, &g), &v), &code) in dw.iter_mut().zip(dwq).zip(w).zip(codes) {
        let (v, code) = (v * inverse, f32::from(code));
        let inside = v.abs() < limit;
        *d = if inside || binary { g } else { 0.0 };
        *sum += f64::from(g * if inside && !binary { code - v } else { code });
    }
}

/// The gradient of a step that `n` weights share.
pub(super) fn step_gradient(spec: &WeightSpec, n: usize, sum: f64) -> f32 {
    let by_step = sum / f64::from(spec.grid.spacing());
    (by_step * f64::from(lsq_gradient_scale(n, largest_level(spec)))) as f32
}
