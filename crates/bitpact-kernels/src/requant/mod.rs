//! The integer step over pixels of 16 channels: accumulators of products to u8 codes, as
//! [`IntegerStep::apply`](bitpact_core::IntegerStep::apply) gives them.
//!
//! ```text
//! y[c] = clamp((acc[c] * mul[c] + acc2[c] * mul2[c] + res[c] * res_mul[c] + add[c]) >> shift, lo, hi)
//! ```
//!
//! [`IntegerStep::largest_sum`](bitpact_core::IntegerStep::largest_sum) proves how large a sum can be: below 2^31 sums are taken in
//! 32-bit integers, below 2^53 in float64, where they are exact too, else in 64-bit integers.

mod body;
#[cfg(test)]
mod tests;

use bitpact_core::StepError;
use bitpact_core::step::{IntegerStep, Ranges};

use crate::isa::{Isa, Proof};
pub use body::BLOCK;
use body::{Constants, Inputs};

/// Plan of the integer step of one layer.
#[derive(Debug, Clone)]
pub struct StepU8 {
    proof: Proof,
    acc2: bool,
    res: bool,
    constants: Width,
}

#[derive(Debug, Clone)]
enum Width {
    Int32(Constants<i32>),
    Float64(Constants<f64>),
    Int64(Constants<i64>),
}

impl StepU8 {
    /// Plans `step` for accumulators and residual codes in `ranges`.
    ///
    /// # Errors
    /// If a sum could leave 64 bits.
    ///
    /// # Panics
    /// If the output codes leave 0 to 255, or the machine lacks `isa`.
    pub fn new(isa: Isa, step: &IntegerStep, ranges: &Ranges<'_>) -> Result<StepU8, StepError> {
        assert!(0 <= step.lo && step.lo <= step.hi && step.hi <= 255, "output codes of 8 bits");
        let largest = step.largest_sum(ranges)?;
        let constants = if largest < 1 << 31 && step.shift < 32 {
            Width::Int32(Constants::new(step, |add| add as i32))
        } else if largest < 1 << 53 {
            Width::Float64(Constants::new(step, |add| add as f64))
        } else {
            Width::Int64(Constants::new(step, |add| add))
        };
        Ok(StepU8 { proof: isa.prove(), acc2: !step.mul2.is_empty(), res: !step.res_mul.is_empty(), constants })
    }

    /// The numbers in which sums are taken: `i32`, `f64` or `i64`.
    pub fn arithmetic(&self) -> &'static str {
        match self.constants {
            Width::Int32(_) => "i32",
            Width::Float64(_) => "f64",
            Width::Int64(_) => "i64",
        }
    }

    /// Whether the step has a second accumulator, and whether it has a residual code.
    pub fn inputs(&self) -> (bool, bool) {
        (self.acc2, self.res)
    }

    /// Writes the codes of channels `16 * block..` of some pixels, `y[pixel][16]`, zeros in channels beyond the last. Sums lie at
    /// `acc[pixel * stride..]`, residual codes at `res[pixel][16]`; `acc2` and `res` are empty where the step has no such input.
    ///
    /// # Panics
    /// If a slice is too short or there is no such block.
    pub fn run(&self, block: usize, acc: &[i32], acc2: &[i32], stride: usize, res: &[u8], y: &mut [u8]) {
        let pixels = y.len() / BLOCK;
        let reach = if pixels == 0 { 0 } else { (pixels - 1) * stride + BLOCK };
        assert!(y.len().is_multiple_of(BLOCK) && acc.len() >= reach, "accumulators of {pixels} pixels");
        assert!(if self.acc2 { acc2.len() >= reach } else { acc2.is_empty() }, "second accumulators");
        assert!(if self.res { res.len() >= y.len() } else { res.is_empty() }, "residual codes");
        let inputs = Inputs { acc, acc2, stride, res };
        match &self.constants {
            Width::Int32(constants) => body::run(self.proof, constants, block, inputs, y),
            Width::Float64(constants) => body::run(self.proof, constants, block, inputs, y),
            Width::Int64(constants) => body::run(self.proof, constants, block, inputs, y),
        }
    }
}
