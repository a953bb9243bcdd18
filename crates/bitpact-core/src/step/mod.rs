//! The integer step: batch norm, bias, residual branch, clipping and rounding of one layer in integers.
//!
//! `out = clamp((acc * mul[c] + acc2 * mul2[c] + res * res_mul[c] + add[c]) >> shift, lo[c], hi[c])`.

use crate::StepError;

mod derive;
mod finest;
#[cfg(test)]
mod tests;

pub use derive::{MAX_SHIFT, TOLERANCE, derive};
pub use finest::derive_finest;

/// The integer step of one layer; one entry per output channel in each list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegerStep {
    /// Right shift (rounding down) after the sum.
    pub shift: u32,
    /// Multipliers of the accumulator.
    pub mul: Vec<i32>,
    /// Multipliers of the second accumulator (a projection shortcut); empty where there is none.
    pub mul2: Vec<i32>,
    /// Multipliers of the residual code (an identity shortcut); empty where there is none.
    pub res_mul: Vec<i32>,
    /// Bias, zero points and half of `2^shift`, so that the shift rounds to nearest, halves up.
    pub add: Vec<i64>,
    /// Smallest output code.
    pub lo: i32,
    /// Largest output code.
    pub hi: i32,
    /// Smallest and largest output code of each channel, within `lo..=hi`; empty where those hold for every channel.
    pub bounds: Vec<(i32, i32)>,
}

impl IntegerStep {
    /// The output code of channel `c`; `acc2` and `res` are passed over where the step has no such input.
    ///
    /// Exact for inputs inside the ranges the step was derived for.
    #[inline]
    pub fn apply(&self, c: usize, acc: i64, acc2: i64, res: i64) -> i32 {
        let mut sum = acc * i64::from(self.mul[c]) + self.add[c];
        if let Some(&mul2) = self.mul2.get(c) {
            sum += acc2 * i64::from(mul2);
        }
        if let Some(&res_mul) = self.res_mul.get(c) {
            sum += res * i64::from(res_mul);
        }
        let (lo, hi) = self.bound(c);
        (sum >> self.shift).clamp(i64::from(lo), i64::from(hi)) as i32
    }

    /// Smallest and largest output code of channel `c`.
    #[inline]
    pub fn bound(&self, c: usize) -> (i32, i32) {
        self.bounds.get(c).copied().unwrap_or((self.lo, self.hi))
    }

    /// Proves a step that comes from a file: the largest `|acc * mul| + |acc2 * mul2| + |res * res_mul| + |add|` of any channel
    /// over the given ranges, below 2^63. Below 2^31 the step may be computed in 32-bit arithmetic, in any order of summation.
    ///
    /// # Errors
    /// Lists of unequal length, a shift above 62, `lo > hi`, bounds of a channel beyond them, an empty range, or a sum that
    /// could reach 2^63.
    pub fn largest_sum(&self, ranges: &Ranges<'_>) -> Result<u64, StepError> {
        let n = self.mul.len();
        let length = |what, got| if got == n { Ok(()) } else { Err(StepError::Length { what, got, expected: n }) };
        let length_or_none = |what, got| if got == 0 { Ok(()) } else { length(what, got) };
        length("add", self.add.len())?;
        length("acc range", ranges.acc.len())?;
        length_or_none("mul2", self.mul2.len())?;
        length_or_none("res_mul", self.res_mul.len())?;
        if !self.mul2.is_empty() {
            length("acc2 range", ranges.acc2.len())?;
        }
        if self.shift > 62 {
            return Err(StepError::Shift { shift: self.shift });
        }
        check_bounds((self.lo, self.hi), &self.bounds, n)?;
        let mut largest = 0;
        for c in 0..n {
            let mut sum = u128::from(self.add[c].unsigned_abs());
            let mut term = |what, mul: Option<&i32>, (lo, hi): (i64, i64)| {
                if lo > hi {
                    return Err(StepError::EmptyRange { what, channel: c, lo, hi });
                }
                let reach = lo.unsigned_abs().max(hi.unsigned_abs());
                sum += u128::from(mul.map_or(0, |m| m.unsigned_abs())) * u128::from(reach);
                Ok(())
            };
            term("acc", self.mul.get(c), ranges.acc[c])?;
            if !self.mul2.is_empty() {
                term("acc2", self.mul2.get(c), ranges.acc2[c])?;
            }
            if !self.res_mul.is_empty() {
                term("res", self.res_mul.get(c), ranges.res)?;
            }
            if sum >= 1 << 63 {
                return Err(StepError::Overflow { channel: c, shift: self.shift, magnitude: sum as f64 });
            }
            largest = largest.max(sum as u64);
        }
        Ok(largest)
    }
}

/// Checks the output codes of a step of `channels` channels.
fn check_bounds((lo, hi): (i32, i32), bounds: &[(i32, i32)], channels: usize) -> Result<(), StepError> {
    if !bounds.is_empty() && bounds.len() != channels {
        return Err(StepError::Length { what: "bounds", got: bounds.len(), expected: channels });
    }
    for (channel, &(from, to)) in std::iter::once(&(lo, hi)).chain(bounds).enumerate() {
        let channel = channel.saturating_sub(1);
        if from > to {
            return Err(StepError::EmptyRange { what: "output", channel, lo: from.into(), hi: to.into() });
        }
        if from < lo || to > hi {
            return Err(StepError::Bounds { channel, lo: from, hi: to, range: (lo, hi) });
        }
    }
    Ok(())
}

/// The real step of one layer, in output code units:
/// `out_real[c] = acc * scale[c] + acc2 * scale2[c] + res * res_scale[c] + offset[c]`, then rounded and clamped to `[lo, hi]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RealStep {
    /// Code steps per unit of the accumulator.
    pub scale: Vec<f64>,
    /// Code steps per unit of the second accumulator; empty where there is none.
    pub scale2: Vec<f64>,
    /// Code steps per residual code; empty where there is none.
    pub res_scale: Vec<f64>,
    /// The constant, in code steps.
    pub offset: Vec<f64>,
    /// Smallest output code.
    pub lo: i32,
    /// Largest output code.
    pub hi: i32,
    /// Smallest and largest output code of each channel, within `lo..=hi`; empty where those hold for every channel.
    pub bounds: Vec<(i32, i32)>,
}

/// The proved ranges of the inputs of a step, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges<'a> {
    /// Range of the accumulator per channel.
    pub acc: &'a [(i64, i64)],
    /// Range of the second accumulator per channel; not read where the step has none.
    pub acc2: &'a [(i64, i64)],
    /// Range of the residual code; not read where the step has none.
    pub res: (i64, i64),
}

/// A derived step and how exact it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    /// The integer step.
    pub step: IntegerStep,
    /// The largest distance, in code steps, between the integer sum over `2^shift` (less its half) and the real output, over the
    /// proved ranges; outputs that lie a code step or more outside `[lo, hi]`, and clamp in both, are left out where one
    /// input after the other shows it.
    pub worst_error: f64,
}

/// The smallest and largest `sum a[i] * codes[i]` over all `a[i]` in `[a_min, a_max]`; both are attained.
///
/// `codes` are those of one output channel.
pub fn accumulator_range(codes: &[i16], a_min: i64, a_max: i64) -> (i64, i64) {
    let (mut positive, mut negative) = (0, 0);
    // Sums of 2^16 codes fit 32 bits, which lets the loops use narrow lanes.
    for codes in codes.chunks(1 << 16) {
        positive += i64::from(codes.iter().map(|&q| i32::from(q.max(0))).sum::<i32>());
        negative += i64::from(codes.iter().map(|&q| i32::from(q.min(0))).sum::<i32>());
    }
    (a_min * positive + a_max * negative, a_max * positive + a_min * negative)
}
