//! The requantization of a residual stream over pixels of 16 channels: accumulators of products to i32 values, and from
//! such values to codes.
//!
//! ```text
//! y[c] = ((acc[c] * mul[c] + acc2[c] * mul2[c] + add[c]) >> shift) + base[c]
//! ```
//!
//! Sums below 2^53, and below 2^31 after the shift, are taken in float64, where they are exact, as is a multiplication
//! by a power of two; others in 64-bit integers.

use bitpact_core::{Ranges, Requantization, RequantizationError};

use super::body::{BLOCK, Constants};
use crate::machine::isa::Isa;
use crate::machine::on_isa;

/// One row of pixels of one block.
#[derive(Clone, Copy)]
pub(crate) struct StreamRow<'a> {
    /// Number of pixels.
    pub(crate) pixels: usize,
    /// Accumulators of 16 channels at every `stride`.
    pub(crate) acc: &'a [i32],
    /// Second accumulators in the same way; empty without.
    pub(crate) acc2: &'a [i32],
    /// Numbers from one pixel's accumulators to the next.
    pub(crate) stride: usize,
    /// What is added, 16 channels at every `base_stride`; empty without.
    pub(crate) base: &'a [i32],
    /// Numbers from one pixel's values to add to the next.
    pub(crate) base_stride: usize,
}

/// Plan of the requantization of one stream.
#[derive(Debug, Clone)]
pub(crate) struct RequantI32 {
    isa: Isa,
    constants: Width,
}

#[derive(Debug, Clone)]
enum Width {
    Float64(Constants<f64>),
    Int64(Constants<i64>),
}

impl RequantI32 {
    /// Plans `requant`, whose terms are the accumulator and, where `second` says so, a second one, for accumulators in
    /// `ranges`, over which its outputs are proved to fit in i32.
    ///
    /// # Errors
    /// If a sum could leave 64 bits.
    pub(crate) fn new(
        isa: Isa,
        requant: &Requantization,
        ranges: &Ranges,
        second: bool,
    ) -> Result<RequantI32, RequantizationError> {
        let largest = requant.largest_sum(ranges)?;
        let constants = if largest < 1 << 53 && largest >> requant.shift < 1 << 31 {
            Width::Float64(Constants::new(requant, second, |add| add as f64))
        } else {
            Width::Int64(Constants::new(requant, second, |add| add))
        };
        Ok(RequantI32 { isa, constants })
    }

    /// The numbers in which sums are taken: `f64` or `i64`.
    pub(crate) fn arithmetic(&self) -> &'static str {
        match self.constants {
            Width::Float64(_) => "f64",
            Width::Int64(_) => "i64",
        }
    }

    /// Calls `put(pixel, values)` for channels `16 * block..` of a row of pixels; 0 in channels beyond the last.
    ///
    /// # Panics
    /// If a slice is too short or there is no such block.
    #[inline(always)]
    pub(crate) fn run(&self, block: usize, row: StreamRow<'_>, put: impl Fn(usize, [i32; BLOCK])) {
        match &self.constants {
            Width::Float64(constants) => on_isa!(self.isa, |_FMA| row_f64(constants, block, row, &put)),
            Width::Int64(constants) => on_isa!(self.isa, |_FMA| row_i64(constants, block, row, &put)),
        }
    }
}

#[inline(always)]
fn lanes(values: &[i32], at: usize) -> &[i32; BLOCK] {
    values[at..].first_chunk().expect("16 channels a pixel")
}

#[inline(always)]
fn row_f64(constants: &Constants<f64>, block: usize, row: StreamRow<'_>, put: &impl Fn(usize, [i32; BLOCK])) {
    let block = &constants.blocks[block];
    for pixel in 0..row.pixels {
        let mut sums = block.add;
        let acc = lanes(row.acc, pixel * row.stride);
        for k in 0..BLOCK {
            sums[k] += f64::from(acc[k]) * block.mul[k];
        }
        if !row.acc2.is_empty() {
            let acc2 = lanes(row.acc2, pixel * row.stride);
            for k in 0..BLOCK {
                sums[k] += f64::from(acc2[k]) * block.mul2[k];
            }
        }
        // SAFETY: the sum is below 2^31 in size, as the choice of float64 asks for.
        let mut values: [i32; BLOCK] = sums.map(|sum| unsafe { sum.floor().to_int_unchecked() });
        if !row.base.is_empty() {
            let base = lanes(row.base, pixel * row.base_stride);
            for k in 0..BLOCK {
                values[k] = values[k].wrapping_add(base[k]);
            }
        }
        put(pixel, values);
    }
}

#[inline(always)]
fn row_i64(constants: &Constants<i64>, block: usize, row: StreamRow<'_>, put: &impl Fn(usize, [i32; BLOCK])) {
    let block_of = &constants.blocks[block];
    for pixel in 0..row.pixels {
        let mut values = [0; BLOCK];
        for (k, value) in values.iter_mut().enumerate() {
            let mut sum = block_of.add[k] + i64::from(lanes(row.acc, pixel * row.stride)[k]) * block_of.mul[k];
            if !row.acc2.is_empty() {
                sum += i64::from(lanes(row.acc2, pixel * row.stride)[k]) * block_of.mul2[k];
            }
            *value = (sum >> constants.shift) as i32;
            if !row.base.is_empty() {
                *value = value.wrapping_add(row.base[pixel * row.base_stride + k]);
            }
        }
        put(pixel, values);
    }
}
