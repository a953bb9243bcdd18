//! Requantization: from the terms of a layer's sum to its output codes, in integers. Batch norm, bias, shortcuts,
//! clipping and rounding of the layer are inside its constants.
//!
//! `out[c] = clamp((sum over terms t of value_t * mul[t][c] + add[c]) >> shift, lo[c], hi[c])`.

use crate::RequantizationError;

mod derive;
mod finest;
#[cfg(test)]
mod tests;

pub use derive::{MAX_SHIFT, TOLERANCE, derive};
pub use finest::derive_finest;

/// The requantization of one layer; one entry per output channel in each list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requantization {
    /// Right shift (rounding down) after the sum.
    pub shift: u32,
    /// Multipliers `[term][channel]`.
    pub mul: Vec<Vec<i32>>,
    /// Bias, zero points and half of `2^shift`, so that the shift rounds to nearest, halves up.
    pub add: Vec<i64>,
    /// Smallest output code.
    pub lo: i32,
    /// Largest output code.
    pub hi: i32,
    /// Smallest and largest output code of each channel, within `lo..=hi`; empty where those hold for every channel.
    pub bounds: Vec<(i32, i32)>,
}

/// Proved ranges of the terms, `[term][channel]`, both ends included.
pub type Ranges = [Vec<(i64, i64)>];

impl Requantization {
    /// Number of output channels.
    pub fn channels(&self) -> usize {
        self.add.len()
    }

    /// The output code of channel `c` for one value of each term.
    ///
    /// Exact for values inside the ranges that the requantization was derived for.
    #[inline]
    pub fn apply(&self, c: usize, values: impl IntoIterator<Item = i64>) -> i32 {
        self.code(c, self.sum(c, values))
    }

    /// The output code of channel `c` for its sum, as [`Requantization::sum`] gives it.
    #[inline]
    pub fn code(&self, c: usize, sum: i64) -> i32 {
        let (lo, hi) = self.bound(c);
        (sum >> self.shift).clamp(i64::from(lo), i64::from(hi)) as i32
    }

    /// What a sum stands for before it is rounded and clamped, in steps of the output code.
    pub fn before_rounding(&self, sum: i64) -> f64 {
        let half = if self.shift > 0 { 0.5 } else { 0.0 };
        sum as f64 / (self.shift as f64).exp2() - half
    }

    /// The sum of channel `c` before shift and clamping, for one value of each term.
    #[inline]
    pub fn sum(&self, c: usize, values: impl IntoIterator<Item = i64>) -> i64 {
        self.mul.iter().zip(values).fold(self.add[c], |sum, (mul, value)| sum + value * i64::from(mul[c]))
    }

    /// Smallest and largest output code of channel `c`.
    #[inline]
    pub fn bound(&self, c: usize) -> (i32, i32) {
        self.bounds.get(c).copied().unwrap_or((self.lo, self.hi))
    }

    /// Smallest and largest sum of channel `c`, each term taking the end of its range that is worst for it.
    pub fn sum_range(&self, c: usize, ranges: &Ranges) -> (i128, i128) {
        let add = i128::from(self.add[c]);
        self.mul.iter().zip(ranges).fold((add, add), |(lo, hi), (mul, range)| {
            let ends = [range[c].0, range[c].1].map(|end| i128::from(end) * i128::from(mul[c]));
            (lo + ends[0].min(ends[1]), hi + ends[0].max(ends[1]))
        })
    }

    /// Proves a requantization that comes from a file: the largest `sum of |value_t * mul_t| + |add|` of any channel
    /// over the given ranges, below 2^63. Below 2^31 it may be computed in 32-bit arithmetic, in any order of
    /// summation.
    ///
    /// # Errors
    /// Lists of unequal length, a shift above 62, `lo > hi`, bounds of a channel beyond them, an empty range, or a sum
    /// that could reach 2^63.
    pub fn largest_sum(&self, ranges: &Ranges) -> Result<u64, RequantizationError> {
        let n = self.channels();
        check_lengths(&self.mul, "multipliers", ranges, n)?;
        if self.shift > 62 {
            return Err(RequantizationError::Shift { shift: self.shift });
        }
        check_bounds((self.lo, self.hi), &self.bounds, n)?;
        let mut largest = 0;
        for c in 0..n {
            let mut sum = u128::from(self.add[c].unsigned_abs());
            for (mul, range) in self.mul.iter().zip(ranges) {
                sum += u128::from(mul[c].unsigned_abs()) * u128::from(reach(range[c]));
            }
            if sum >= 1 << 63 {
                return Err(RequantizationError::Overflow { channel: c, shift: self.shift, magnitude: sum as f64 });
            }
            largest = largest.max(sum as u64);
        }
        Ok(largest)
    }
}

/// Largest absolute value in a range.
fn reach((lo, hi): (i64, i64)) -> u64 {
    lo.unsigned_abs().max(hi.unsigned_abs())
}

/// Checks that there is a list of factors, called `what`, and one of ranges for each term, with an entry a channel, and
/// that no range is empty.
fn check_lengths<T>(
    factors: &[Vec<T>],
    what: &str,
    ranges: &Ranges,
    channels: usize,
) -> Result<(), RequantizationError> {
    if factors.len() != ranges.len() {
        let (got, expected) = (ranges.len(), factors.len());
        return Err(RequantizationError::Terms { got, expected });
    }
    for (term, (factors, ranges)) in factors.iter().zip(ranges).enumerate() {
        for (what, got) in [(what, factors.len()), ("ranges", ranges.len())] {
            if got != channels {
                let what = format!("the list of {what} of term {term}");
                return Err(RequantizationError::Length { what, got, expected: channels });
            }
        }
        if let Some(channel) = ranges.iter().position(|(lo, hi)| lo > hi) {
            let (lo, hi) = ranges[channel];
            return Err(RequantizationError::EmptyRange { what: format!("term {term}"), channel, lo, hi });
        }
    }
    Ok(())
}

/// Checks the output codes of `channels` channels.
fn check_bounds((lo, hi): (i32, i32), bounds: &[(i32, i32)], channels: usize) -> Result<(), RequantizationError> {
    if !bounds.is_empty() && bounds.len() != channels {
        return Err(RequantizationError::Length { what: "bounds".to_owned(), got: bounds.len(), expected: channels });
    }
    for (channel, &(from, to)) in std::iter::once(&(lo, hi)).chain(bounds).enumerate() {
        let channel = channel.saturating_sub(1);
        if from > to {
            let what = "output".to_owned();
            return Err(RequantizationError::EmptyRange { what, channel, lo: from.into(), hi: to.into() });
        }
        if from < lo || to > hi {
            return Err(RequantizationError::Bounds { channel, lo: from, hi: to, range: (lo, hi) });
        }
    }
    Ok(())
}

/// The requantization of one layer in real numbers, in output code units:
/// `out_real[c] = sum over terms t of value_t * scale[t][c] + offset[c]`, then rounded and clamped to `[lo, hi]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RealRequantization {
    /// Output codes per unit of each term, `[term][channel]`.
    pub scale: Vec<Vec<f64>>,
    /// The constant, in output codes.
    pub offset: Vec<f64>,
    /// Smallest output code.
    pub lo: i32,
    /// Largest output code.
    pub hi: i32,
    /// Smallest and largest output code of each channel, within `lo..=hi`; empty where those hold for every channel.
    pub bounds: Vec<(i32, i32)>,
}

/// A derived requantization and how exact it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    /// The requantization.
    pub requant: Requantization,
    /// The largest distance, in output codes, between the integer sum over `2^shift` (less its half) and the real
    /// output, over the proved ranges; outputs that lie a code or more outside `[lo, hi]`, and clamp in both, are left
    /// out where one term after the other shows it.
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
