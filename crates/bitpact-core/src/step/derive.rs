//! The derivation of an integer step: the smallest shift that is fine enough, with the proof that no sum overflows.
//!
//! Write `f` for the real output, `g` for the integer sum over `2^shift` without its half, both before rounding and clamping, as
//! affine functions on the box of real inputs; `e = g - f` is affine too, so its extremes lie in corners and are sums
//! of the extremes of its terms. Each multiplier of `g` is zero or has the sign of its multiplier in `f`, so wherever inputs
//! move such that no term of `f` grows, `g` does not grow.
//!
//! The matter is the slab `S` of the box where `lo - 1 <= f <= hi + 1`, with the bounds of the channel. `trim` encloses `S` in a smaller box, one input after
//! the other, and `|e| <= 2^-8` is required there. Nothing more is needed: where `f > hi + 1`, let the inputs run towards the corner at
//! which `f` is smallest, until `f = hi + 1` in `S`, or, where all of the box lies above, to that corner, which then is the
//! trimmed box. There `g >= f - 2^-8 > hi`, and `g` only fell on the way, so both outputs are `hi`. The same below `lo`.
//!
//! The additional code step on either side is also what makes the f64 roundings of `trim` harmless: outputs are at most 2^44
//! code steps, so each rounding is at most 2^-8 of one.

use super::{Derived, IntegerStep, Ranges, RealStep};
use crate::StepError;

/// How far rounding the multipliers may move an output, in code steps.
pub const TOLERANCE: f64 = 1.0 / 256.0;

/// The largest shift tried.
pub const MAX_SHIFT: u32 = 61;

const MAX_MAGNITUDE: f64 = (1u64 << 44) as f64;
const INPUTS: usize = 3;
const SCALES: [&str; INPUTS] = ["scale", "scale2", "res_scale"];

type Interval = (f64, f64);

/// One channel: the real multipliers, the proved input ranges, and those that matter.
struct Channel {
    scale: [f64; INPUTS],
    offset: f64,
    range: [(i64, i64); INPUTS],
    trimmed: [Interval; INPUTS],
}

/// One channel in integers.
struct Rounded {
    mul: [i32; INPUTS],
    add: i64,
    error: f64,
}

/// Derives the integer step of a layer: `mul = round_half_even(scale * 2^shift)` and so on, and `add` the integer nearest to
/// `offset * 2^shift + 2^shift / 2`, less the middle of the error that rounding the multipliers makes, with the smallest shift for
/// which all of this moves no output by more than [`TOLERANCE`] over the proved ranges. Outputs that lie a code step or more outside `[lo, hi]` may move further: they clamp in both.
/// An input that is always 0 gets the multiplier 0. In f64 with
/// `+ - *` and roundings only, so the result is the same on every machine.
///
/// The result is proved: `|acc * mul + acc2 * mul2 + res * res_mul + add| < 2^63`, in any order of summation, for all inputs
/// in `ranges`, and `apply` is `clamp(floor(out_real + e + 1/2), lo, hi)` with `|e| <= worst_error <= 2^-8`.
///
/// # Errors
/// Lists of unequal length, an empty range, a number that is not finite, an output above 2^44 code steps, and, with the
/// channel and its magnitude: a multiplier that leaves i32, a sum that could leave i64, or a shift that leaves [`MAX_SHIFT`],
/// before the rounding is fine enough.
pub fn derive(real: &RealStep, ranges: &Ranges<'_>) -> Result<Derived, StepError> {
    let channels = channels(real, ranges)?;
    'shift: for shift in 0..=MAX_SHIFT {
        let mut rounded = Vec::with_capacity(channels.len());
        for (c, channel) in channels.iter().enumerate() {
            let r = channel.round(c, shift)?;
            if r.error > TOLERANCE {
                if shift == MAX_SHIFT {
                    return Err(StepError::Precision { channel: c, shift, error: r.error });
                }
                continue 'shift;
            }
            rounded.push(r);
        }
        let list = |i: usize, given: &[f64]| match given {
            [] => Vec::new(),
            _ => rounded.iter().map(|r| r.mul[i]).collect(),
        };
        let step = IntegerStep {
            shift,
            mul: rounded.iter().map(|r| r.mul[0]).collect(),
            mul2: list(1, &real.scale2),
            res_mul: list(2, &real.res_scale),
            add: rounded.iter().map(|r| r.add).collect(),
            lo: real.lo,
            hi: real.hi,
            bounds: real.bounds.clone(),
        };
        let worst_error = rounded.iter().fold(0.0, |worst, r| f64::max(worst, r.error));
        return Ok(Derived { step, worst_error });
    }
    unreachable!("the largest shift returns")
}

fn channels(real: &RealStep, ranges: &Ranges<'_>) -> Result<Vec<Channel>, StepError> {
    let n = real.scale.len();
    let length = |what, got| if got == n { Ok(()) } else { Err(StepError::Length { what, got, expected: n }) };
    length("offset", real.offset.len())?;
    length("acc range", ranges.acc.len())?;
    if !real.scale2.is_empty() {
        length("scale2", real.scale2.len())?;
        length("acc2 range", ranges.acc2.len())?;
    }
    if !real.res_scale.is_empty() {
        length("res_scale", real.res_scale.len())?;
    }
    super::check_bounds((real.lo, real.hi), &real.bounds, n)?;
    let mut channels = Vec::with_capacity(n);
    for c in 0..n {
        let mut scale = [real.scale[c], 0.0, 0.0];
        let mut range = [ranges.acc[c], (0, 0), (0, 0)];
        if let Some(&s) = real.scale2.get(c) {
            (scale[1], range[1]) = (s, ranges.acc2[c]);
        }
        if let Some(&s) = real.res_scale.get(c) {
            (scale[2], range[2]) = (s, ranges.res);
        }
        for i in 0..INPUTS {
            if range[i] == (0, 0) && scale[i].is_finite() {
                scale[i] = 0.0;
            }
        }
        for (what, (lo, hi)) in ["acc", "acc2", "res"].into_iter().zip(range) {
            if lo > hi {
                return Err(StepError::EmptyRange { what, channel: c, lo, hi });
            }
        }
        for (what, value) in SCALES.into_iter().zip(scale).chain([("offset", real.offset[c])]) {
            if !value.is_finite() {
                return Err(StepError::NotFinite { what, channel: c, value });
            }
        }
        let mut channel = Channel { scale, offset: real.offset[c], range, trimmed: range.map(to_real) };
        let reach = |i: usize| f64::max(range[i].0.unsigned_abs() as f64, range[i].1.unsigned_abs() as f64);
        let magnitude = channel.offset.abs() + (0..INPUTS).map(|i| scale[i].abs() * reach(i)).sum::<f64>();
        if magnitude > MAX_MAGNITUDE {
            return Err(StepError::Magnitude { channel: c, magnitude });
        }
        let (lo, hi) = real.bounds.get(c).copied().unwrap_or((real.lo, real.hi));
        channel.trim(f64::from(lo) - 1.0, f64::from(hi) + 1.0);
        channels.push(channel);
    }
    Ok(channels)
}

impl Channel {
    /// Shrinks the box of inputs to one that still holds every point with `lo <= f <= hi`; to the corner nearest to those
    /// outputs where there is no such point.
    fn trim(&mut self, lo: f64, hi: f64) {
        let terms = [0, 1, 2].map(|i| times(self.trimmed[i], self.scale[i]));
        let low = self.offset + terms.iter().map(|t| t.0).sum::<f64>();
        let high = self.offset + terms.iter().map(|t| t.1).sum::<f64>();
        for i in 0..INPUTS {
            let (scale, (from, to)) = (self.scale[i], self.trimmed[i]);
            if scale == 0.0 {
                continue;
            }
            let term = if low > hi {
                (terms[i].0, terms[i].0)
            } else if high < lo {
                (terms[i].1, terms[i].1)
            } else {
                (f64::max(terms[i].0, lo - (high - terms[i].1)), f64::min(terms[i].1, hi - (low - terms[i].0)))
            };
            let (a, b) = (term.0 / scale, term.1 / scale);
            self.trimmed[i] = (f64::max(from, f64::min(a, b)), f64::min(to, f64::max(a, b)));
        }
    }

    /// The channel at a shift; an error where it no longer fits, which no larger shift can mend.
    fn round(&self, channel: usize, shift: u32) -> Result<Rounded, StepError> {
        let unit = (1u64 << shift) as f64;
        let mut mul = [0; INPUTS];
        let (mut low, mut high) = (0.0, 0.0);
        let mut magnitude = 0i128;
        for i in 0..INPUTS {
            let scaled = self.scale[i] * unit;
            let nearest = scaled.round_ties_even();
            if nearest.abs() > f64::from(i32::MAX) {
                return Err(StepError::Multiplier { what: SCALES[i], channel, value: self.scale[i], shift, scaled });
            }
            mul[i] = nearest as i32;
            let error = times(self.trimmed[i], (nearest - scaled) / unit);
            (low, high) = (low + error.0, high + error.1);
            let reach = self.range[i].0.unsigned_abs().max(self.range[i].1.unsigned_abs());
            magnitude += i128::from(mul[i]).abs() * i128::from(reach);
        }
        let (half, odd_half) = if shift == 0 { (0, 0.5) } else { (1i64 << (shift - 1), 0.0) };
        let scaled = self.offset * unit;
        let nearest = (scaled - 0.5 * (low + high) * unit + odd_half).round_ties_even();
        magnitude = magnitude.saturating_add(nearest.abs() as i128 + i128::from(half));
        if magnitude >= 1 << 63 {
            return Err(StepError::Overflow { channel, shift, magnitude: magnitude as f64 });
        }
        let error = (nearest - odd_half - scaled) / unit;
        let error = f64::max((low + error).abs(), (high + error).abs());
        Ok(Rounded { mul, add: nearest as i64 + half, error })
    }
}

fn to_real((lo, hi): (i64, i64)) -> Interval {
    (lo as f64, hi as f64)
}

fn times((lo, hi): Interval, factor: f64) -> Interval {
    let (a, b) = (lo * factor, hi * factor);
    (f64::min(a, b), f64::max(a, b))
}
