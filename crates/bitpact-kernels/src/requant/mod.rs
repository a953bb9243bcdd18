//! The integer step over whole tensors: accumulators of a convolution to u8 codes, as
//! [`IntegerStep::apply`](bitpact_core::IntegerStep::apply) gives them.
//!
//! ```text
//! y[c] = clamp((acc[c] * mul[c] + acc2[c] * mul2[c] + res[c] * res_mul[c] + add[c]) >> shift, lo, hi)
//! ```
//!
//! Sums are taken in 64 bits, or in 32 where [`IntegerStep::largest_sum`](bitpact_core::IntegerStep::largest_sum) proves
//! that none leaves them.

mod body;
#[cfg(test)]
mod tests;

use bitpact_core::StepError;
use bitpact_core::step::{IntegerStep, Ranges};

use crate::isa::{Isa, Proof};
use crate::layout::Layout;
use body::{BLOCK, Constants, Inputs};

/// Plan of the integer step of one layer, for one image at a time.
#[derive(Debug, Clone)]
pub struct StepU8 {
    proof: Proof,
    acc: Layout,
    acc2: bool,
    res: Option<Layout>,
    y: Layout,
    constants: Width,
}

#[derive(Debug, Clone)]
enum Width {
    Narrow(Constants<i32>),
    Wide(Constants<i64>),
}

impl StepU8 {
    /// Plans `step` over accumulators in `acc` (without border; the second accumulators lie in the same way), residual codes
    /// in `res` where the step has them, and output codes in `y`. All have the shape and channel stride of `y`, a multiple of
    /// 16. `ranges` are those of the accumulators and codes that will come.
    ///
    /// # Errors
    /// If a sum could leave 64 bits.
    ///
    /// # Panics
    /// If the layouts do not fit each other, the output codes leave 0 to 255, or the machine lacks `isa`.
    pub fn new(
        isa: Isa,
        step: &IntegerStep,
        ranges: &Ranges<'_>,
        acc: Layout,
        res: Option<Layout>,
        y: Layout,
    ) -> Result<StepU8, StepError> {
        for layout in [Some(acc), res].into_iter().flatten() {
            assert_eq!((layout.h, layout.w, layout.c, layout.cs), (y.h, y.w, y.c, y.cs), "layouts of a step");
        }
        assert!(acc.border == 0 && y.cs.is_multiple_of(BLOCK), "accumulators without border, blocks of channels");
        assert!(step.mul.len() == y.c && res.is_some() != step.res_mul.is_empty(), "constants of a step");
        assert!(0 <= step.lo && step.lo <= step.hi && step.hi <= 255, "output codes of 8 bits");
        let narrow = step.largest_sum(ranges)? < 1 << 31 && step.shift < 32;
        let constants = if narrow {
            Width::Narrow(Constants::new(step, y.cs, |add| add as i32))
        } else {
            Width::Wide(Constants::new(step, y.cs, |add| add))
        };
        Ok(StepU8 { proof: isa.prove(), acc, acc2: !step.mul2.is_empty(), res, y, constants })
    }

    /// Whether sums fit 32 bits.
    pub fn is_narrow(&self) -> bool {
        matches!(self.constants, Width::Narrow(_))
    }

    /// Writes the interior pixels of `y`: the codes, and zeros in the channels beyond. `acc2` and `res` are empty where the step
    /// has no such input.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, acc: &[i32], acc2: &[i32], res: &[u8], y: &mut [u8]) {
        assert_eq!(acc.len(), self.acc.len(), "accumulators");
        assert_eq!(acc2.len(), if self.acc2 { acc.len() } else { 0 }, "second accumulators");
        assert_eq!(res.len(), self.res.map_or(0, |layout| layout.len()), "residual codes");
        assert_eq!(y.len(), self.y.len(), "output codes");
        let row = self.y.w * self.y.cs;
        for r in 0..self.y.h {
            let inputs = Inputs {
                acc: &acc[r * row..(r + 1) * row],
                acc2: if self.acc2 { &acc2[r * row..(r + 1) * row] } else { &[] },
                res: self.res.map_or(&[], |layout| &res[layout.offset(r, 0)..][..row]),
            };
            let at = self.y.offset(r, 0);
            let y = &mut y[at..at + row];
            match &self.constants {
                Width::Narrow(constants) => body::run(self.proof, constants, inputs, y),
                Width::Wide(constants) => body::run(self.proof, constants, inputs, y),
            }
        }
    }
}
