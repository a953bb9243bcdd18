//! The derivation of a requantization: the smallest shift that is fine enough, with the proof that no sum overflows.
//!
//! Write `f` for the real output, `g` for the integer sum over `2^shift` without its half, both before rounding and
//! clamping, as affine functions on the box of real inputs; `e = g - f` is affine too, so its extremes lie in corners
//! and are sums of the extremes of its terms. Each multiplier of `g` is zero or has the sign of its multiplier in `f`,
//! so wherever inputs move such that no term of `f` grows, `g` does not grow.
//!
//! The matter is the slab `S` of the box where `lo - 1 <= f <= hi + 1`, with the bounds of the channel. `trim` encloses
//! `S` in a smaller box, one input after the other, and `|e| <= 2^-8` is required there. Nothing more is needed: where
//! `f > hi + 1`, let the inputs run towards the corner at which `f` is smallest, until `f = hi + 1` in `S`, or, where
//! all of the box lies above, to that corner, which then is the trimmed box. There `g >= f - 2^-8 > hi`, and `g` only
//! fell on the way, so both outputs are `hi`. The same below `lo`.
//!
//! The additional code on either side is also what makes the f64 roundings of `trim` harmless: outputs are at most 2^44
//! codes, so each rounding is at most 2^-8 of one.

use super::{Derived, Ranges, RealRequantization, Requantization};
use crate::RequantizationError;

/// How far rounding the multipliers may move an output, in codes.
pub const TOLERANCE: f64 = 1.0 / 256.0;

/// The largest shift tried.
pub const MAX_SHIFT: u32 = 61;

const MAX_MAGNITUDE: f64 = (1u64 << 44) as f64;
type Interval = (f64, f64);

/// One channel; of each term the real multiplier, the proved range, and the part of it that matters.
struct Channel {
    scale: Vec<f64>,
    offset: f64,
    range: Vec<(i64, i64)>,
    trimmed: Vec<Interval>,
}

/// One channel in integers.
struct Rounded {
    mul: Vec<i32>,
    add: i64,
    error: f64,
}

/// Derives the requantization of a layer: `mul = round_half_even(scale * 2^shift)`, and `add` the integer nearest to
/// `offset * 2^shift + 2^shift / 2`, less the middle of the error that rounding the multipliers makes, with the
/// smallest shift for which all of this moves no output by more than [`TOLERANCE`] over the proved ranges. Outputs that
/// lie a code or more outside `[lo, hi]` may move further: they clamp in both. A term that is always 0 gets the
/// multiplier 0. In f64 with `+ - *` and roundings only, so the result is the same on every machine.
///
/// The result is proved: `|sum of value_t * mul_t + add| < 2^63`, in any order of summation, for all values
/// in `ranges`, and `apply` is `clamp(floor(out_real + e + 1/2), lo, hi)` with `|e| <= worst_error <= 2^-8`.
///
/// # Errors
/// Lists of unequal length, an empty range, a number that is not finite, an output above 2^44 codes, and, with the
/// channel and its magnitude: a multiplier that leaves i32, a sum that could leave i64, or a shift that leaves
/// [`MAX_SHIFT`], before the rounding is fine enough.
pub fn derive(real: &RealRequantization, ranges: &Ranges) -> Result<Derived, RequantizationError> {
    let channels = channels(real, ranges)?;
    'shift: for shift in 0..=MAX_SHIFT {
        let mut rounded = Vec::with_capacity(channels.len());
        for (c, channel) in channels.iter().enumerate() {
            let r = channel.round(c, shift)?;
            if r.error > TOLERANCE {
                if shift == MAX_SHIFT {
                    return Err(RequantizationError::Precision { channel: c, shift, error: r.error });
                }
                continue 'shift;
            }
            rounded.push(r);
        }
        let requant = Requantization {
            shift,
            mul: (0..ranges.len()).map(|t| rounded.iter().map(|r| r.mul[t]).collect()).collect(),
            add: rounded.iter().map(|r| r.add).collect(),
            lo: real.lo,
            hi: real.hi,
            bounds: real.bounds.clone(),
        };
        let worst_error = rounded.iter().fold(0.0, |worst, r| f64::max(worst, r.error));
        return Ok(Derived { requant, worst_error });
    }
    unreachable!("the largest shift returns")
}

fn channels(real: &RealRequantization, ranges: &Ranges) -> Result<Vec<Channel>, RequantizationError> {
    let n = real.offset.len();
    super::check_lengths(&real.scale, "scales", ranges, n)?;
    super::check_bounds((real.lo, real.hi), &real.bounds, n)?;
    let mut channels = Vec::with_capacity(n);
    for c in 0..n {
        let range: Vec<(i64, i64)> = ranges.iter().map(|ranges| ranges[c]).collect();
        let of = |(scales, range): (&Vec<f64>, &(i64, i64))| {
            if *range == (0, 0) && scales[c].is_finite() { 0.0 } else { scales[c] }
        };
        let scale: Vec<f64> = real.scale.iter().zip(&range).map(of).collect();
        if let Some((term, &value)) = scale.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(RequantizationError::NotFinite {
                what: format!("the scale of term {term}"),
                channel: c,
                value,
            });
        }
        if !real.offset[c].is_finite() {
            return Err(RequantizationError::NotFinite {
                what: "the offset".to_owned(),
                channel: c,
                value: real.offset[c],
            });
        }
        let trimmed = range.iter().map(|&(lo, hi)| (lo as f64, hi as f64)).collect();
        let mut channel = Channel { scale, offset: real.offset[c], range, trimmed };
        let terms = channel.scale.iter().zip(&channel.range);
        let magnitude =
            channel.offset.abs() + terms.map(|(scale, &range)| scale.abs() * super::reach(range) as f64).sum::<f64>();
        if magnitude > MAX_MAGNITUDE {
            return Err(RequantizationError::Magnitude { channel: c, magnitude });
        }
        let (lo, hi) = real.bounds.get(c).copied().unwrap_or((real.lo, real.hi));
        channel.trim(f64::from(lo) - 1.0, f64::from(hi) + 1.0);
        channels.push(channel);
    }
    Ok(channels)
}

impl Channel {
    /// Shrinks the box of values to one that still holds every point with `lo <= f <= hi`; to the corner nearest to
    /// those outputs where there is no such point.
    fn trim(&mut self, lo: f64, hi: f64) {
        let terms: Vec<Interval> =
            self.trimmed.iter().zip(&self.scale).map(|(&trimmed, &scale)| times(trimmed, scale)).collect();
        let low = self.offset + terms.iter().map(|t| t.0).sum::<f64>();
        let high = self.offset + terms.iter().map(|t| t.1).sum::<f64>();
        for (i, &(least, most)) in terms.iter().enumerate() {
            let (scale, (from, to)) = (self.scale[i], self.trimmed[i]);
            if scale == 0.0 {
                continue;
            }
            let term = if low > hi {
                (least, least)
            } else if high < lo {
                (most, most)
            } else {
                (f64::max(least, lo - (high - most)), f64::min(most, hi - (low - least)))
            };
            let (a, b) = (term.0 / scale, term.1 / scale);
            self.trimmed[i] = (f64::max(from, f64::min(a, b)), f64::min(to, f64::max(a, b)));
        }
    }

    /// The channel at a shift; an error where it no longer fits, which no larger shift can mend.
    fn round(&self, channel: usize, shift: u32) -> Result<Rounded, RequantizationError> {
        let unit = (1u64 << shift) as f64;
        let mut mul = Vec::with_capacity(self.scale.len());
        let (mut low, mut high) = (0.0, 0.0);
        let mut magnitude = 0i128;
        for (i, &scale) in self.scale.iter().enumerate() {
            let scaled = scale * unit;
            let nearest = scaled.round_ties_even();
            if nearest.abs() > f64::from(i32::MAX) {
                let what = format!("the scale of term {i},");
                return Err(RequantizationError::Multiplier { what, channel, value: scale, shift, scaled });
            }
            mul.push(nearest as i32);
            let error = times(self.trimmed[i], (nearest - scaled) / unit);
            (low, high) = (low + error.0, high + error.1);
            magnitude += i128::from(nearest as i32).abs() * i128::from(super::reach(self.range[i]));
        }
        let (half, odd_half) = if shift == 0 { (0, 0.5) } else { (1i64 << (shift - 1), 0.0) };
        let scaled = self.offset * unit;
        let nearest = (scaled - 0.5 * (low + high) * unit + odd_half).round_ties_even();
        magnitude = magnitude.saturating_add(nearest.abs() as i128 + i128::from(half));
        if magnitude >= 1 << 63 {
            return Err(RequantizationError::Overflow { channel, shift, magnitude: magnitude as f64 });
        }
        let error = (nearest - odd_half - scaled) / unit;
        let error = f64::max((low + error).abs(), (high + error).abs());
        Ok(Rounded { mul, add: nearest as i64 + half, error })
    }
}

fn times((lo, hi): Interval, factor: f64) -> Interval {
    let (a, b) = (lo * factor, hi * factor);
    (f64::min(a, b), f64::max(a, b))
}
