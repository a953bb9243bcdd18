//! Requantization over pixels of 16 channels: accumulators of products to u8 codes, as
//! [`Requantization::apply`] gives them for one or two products and a shortcut.
//!
//! ```text
//! y[c] = clamp((acc[c] * mul[c] + acc2[c] * mul2[c] + res[c] * res_mul[c] + add[c]) >> shift, lo[c], hi[c])
//! ```
//!
//! [`Requantization::largest_sum`] proves how large a sum can be: below 2^31 sums are taken in 32-bit integers, below
//! 2^53 in float64, where they are exact too (and below 2^31 after the shift), else in 64-bit integers. SIMD takes
//! float32 in place of float64 wherever that decides the code (`guarded.rs`).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod body;
#[cfg(target_arch = "x86_64")]
mod guarded;
mod stream;
#[cfg(test)]
mod tests;

use bitpact_core::{Ranges, Requantization, RequantizationError};

use crate::machine::isa::{Isa, Proof};
use crate::machine::layout::Layout;
use crate::machine::workers::{Out, Workers};
pub(crate) use body::BLOCK;
use body::Constants;
#[cfg(target_arch = "x86_64")]
use guarded::Guarded;
pub(crate) use stream::RequantI32;
pub(crate) use stream::StreamRow;

/// One row of pixels of one block: what their codes are made of, and where they go.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// Number of pixels.
    pub(crate) pixels: usize,
    /// Accumulators of 16 channels at every `stride`.
    pub(crate) acc: &'a [i32],
    /// Second accumulators in the same way; empty without.
    pub(crate) acc2: &'a [i32],
    /// Numbers from one pixel's accumulators to the next.
    pub(crate) stride: usize,
    /// Residual codes of 16 channels at every `res_stride`; empty without.
    pub(crate) res: &'a [u8],
    /// Codes from one pixel to the next.
    pub(crate) res_stride: usize,
    /// Codes written, 16 at every `y_stride`.
    pub(crate) y: *mut u8,
    /// Codes from one pixel to the next.
    pub(crate) y_stride: usize,
}

/// Plan of the requantization of one layer.
#[derive(Debug, Clone)]
pub struct RequantU8 {
    proof: Proof,
    acc2: bool,
    res: bool,
    constants: Width,
}

#[derive(Debug, Clone)]
enum Width {
    Int32(Constants<i32>),
    #[cfg(target_arch = "x86_64")]
    Float32(Guarded),
    Float64(Constants<f64>),
    Int64(Constants<i64>),
}

#[cfg(target_arch = "x86_64")]
impl<'a> Row<'a> {
    /// Its pixels `first..first + pixels`.
    fn part(self, first: usize, pixels: usize) -> Row<'a> {
        let of = |list: &'a [i32]| if list.is_empty() { list } else { &list[first * self.stride..] };
        let res = if self.res.is_empty() { self.res } else { &self.res[first * self.res_stride..] };
        let y = self.y.wrapping_add(first * self.y_stride);
        Row { pixels, acc: of(self.acc), acc2: of(self.acc2), res, y, ..self }
    }
}

impl RequantU8 {
    /// Plans `requant`, whose terms are the accumulator, a second one where `second` says so, and a shortcut's code
    /// where one is left, for values in `ranges`.
    ///
    /// # Errors
    /// If a sum could leave 64 bits.
    ///
    /// # Panics
    /// If the output codes leave 0 to 255, there are other terms, or the machine lacks `isa`.
    pub fn new(
        isa: Isa,
        requant: &Requantization,
        ranges: &Ranges,
        second: bool,
    ) -> Result<RequantU8, RequantizationError> {
        assert!(0 <= requant.lo && requant.lo <= requant.hi && requant.hi <= 255, "output codes of 8 bits");
        let products = 1 + usize::from(second);
        let res = requant.mul.len() > products;
        assert_eq!(requant.mul.len(), products + usize::from(res), "terms of the sum");
        let largest = requant.largest_sum(ranges)?;
        let proof = isa.prove();
        let constants = if largest < 1 << 31 && requant.shift < 32 {
            Width::Int32(Constants::new(requant, second, |add| add as i32))
        } else if largest < 1 << 53 && largest >> requant.shift < 1 << 31 {
            let exact = Constants::new(requant, second, |add| add as f64);
            #[cfg(target_arch = "x86_64")]
            let guarded = match proof {
                Proof::Scalar => None,
                _ => Guarded::new(requant, ranges, largest, &exact),
            };
            #[cfg(target_arch = "x86_64")]
            let constants = guarded.map_or(Width::Float64(exact), Width::Float32);
            #[cfg(not(target_arch = "x86_64"))]
            let constants = Width::Float64(exact);
            constants
        } else {
            Width::Int64(Constants::new(requant, second, |add| add))
        };
        Ok(RequantU8 { proof, acc2: second, res, constants })
    }

    /// The numbers in which sums are taken: `i32`, `f32` (`f64` where it does not decide), `f64` or `i64`.
    pub fn arithmetic(&self) -> &'static str {
        match self.constants {
            Width::Int32(_) => "i32",
            #[cfg(target_arch = "x86_64")]
            Width::Float32(_) => "f32",
            Width::Float64(_) => "f64",
            Width::Int64(_) => "i64",
        }
    }

    /// The codes of a tensor, row by row on the threads of `workers`: channels of `x` as accumulators, of a sum without
    /// other terms. Channels beyond the last get zeros.
    ///
    /// # Panics
    /// If the layouts differ in more than their borders, or a slice does not fit its layout.
    pub fn run_tensor(&self, workers: Workers<'_>, (x, from): (&[i32], Layout), (y, to): (&mut [u8], Layout)) {
        let Layout { h, w, cs, .. } = to;
        assert_eq!((from.h, from.w, from.cs), (h, w, cs), "{from:?} to {to:?}");
        assert!(x.len() == from.len() && y.len() == to.len() && cs.is_multiple_of(BLOCK));
        let out = Out::new(y);
        workers.rows(h, &|r| {
            for first in (0..cs).step_by(BLOCK) {
                let row = Row {
                    pixels: w,
                    acc: &x[from.offset(r, 0) + first..],
                    acc2: &[],
                    stride: cs,
                    res: &[],
                    res_stride: 0,
                    y: out.row(to.offset(r, 0) + first, (w - 1) * cs + BLOCK),
                    y_stride: cs,
                };
                // SAFETY: `out.row` has checked the length, and no other task has this row.
                unsafe { self.run(first / BLOCK, row) };
            }
        });
    }

    /// Writes the codes of channels `16 * block..` of a row of pixels, zeros in channels beyond the last.
    ///
    /// # Safety
    /// `row.y` is valid for writes of 16 bytes at each of its pixels.
    ///
    /// # Panics
    /// If a slice is too short or there is no such block.
    pub(crate) unsafe fn run(&self, block: usize, row: Row<'_>) {
        let reach = |stride: usize| if row.pixels == 0 { 0 } else { (row.pixels - 1) * stride + BLOCK };
        assert!(row.acc.len() >= reach(row.stride), "accumulators of {} pixels", row.pixels);
        let acc2 = if self.acc2 { row.acc2.len() >= reach(row.stride) } else { row.acc2.is_empty() };
        assert!(acc2, "second accumulators of {} pixels", row.pixels);
        let res = if self.res { row.res.len() >= reach(row.res_stride) } else { row.res.is_empty() };
        assert!(res, "residual codes of {} pixels", row.pixels);
        #[cfg(target_arch = "x86_64")]
        let (is_avx2, is_avx512) = match self.proof {
            Proof::Scalar => (false, false),
            Proof::Avx2(_) => (true, false),
            Proof::Avx512(_) => (true, true),
        };
        match &self.constants {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's promise, the lengths just checked, and a token that proves the features.
            Width::Int32(constants) if is_avx512 => unsafe { avx512::row_i32(constants, block, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Float32(constants) if is_avx512 => unsafe { avx512::row_f32(constants, block, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Float64(constants) if is_avx512 => unsafe { avx512::row_f64(constants, block, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Int32(constants) if is_avx2 => unsafe { avx2::row_i32(constants, block, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Float32(constants) if is_avx2 => unsafe { avx2::row_f32(constants, block, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Float64(constants) if is_avx2 => unsafe { avx2::row_f64(constants, block, row) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's promise.
            Width::Float32(constants) => unsafe { body::row(&constants.exact, block, row) },
            // SAFETY: the caller's promise.
            Width::Int32(constants) => unsafe { body::row(constants, block, row) },
            // SAFETY: the caller's promise.
            Width::Float64(constants) => unsafe { body::row(constants, block, row) },
            // SAFETY: the caller's promise.
            Width::Int64(constants) => unsafe { body::row(constants, block, row) },
        }
    }
}
