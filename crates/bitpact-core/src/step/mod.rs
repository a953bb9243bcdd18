//! The integer step: batch norm, bias, residual branch, clipping and rounding of one layer in integers.
//!
//! `out = clamp((acc * mul[c] + acc2 * mul2[c] + res * res_mul[c] + add[c]) >> shift, lo, hi)`.

mod derive;
#[cfg(test)]
mod tests;

pub use derive::{MAX_SHIFT, TOLERANCE, derive};

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
        (sum >> self.shift).clamp(i64::from(self.lo), i64::from(self.hi)) as i32
    }
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
    let positive: i64 = codes.iter().map(|&q| i64::from(q.max(0))).sum();
    let negative: i64 = codes.iter().map(|&q| i64::from(q.min(0))).sum();
    (a_min * positive + a_max * negative, a_max * positive + a_min * negative)
}
