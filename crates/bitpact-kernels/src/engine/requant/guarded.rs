//! Requantization in float32 where that decides the code, which it nearly always does, and in float64 where it does
//! not.
//!
//! With `u = 2^-24`, the unit roundoff, and A, P, R, B the terms of `acc`, `acc2`, `res` and `add` over `2^shift`, the
//! sum `fl(fl(fl(B + R) + P) + A)` of fused operations on rounded factors is off by at most
//!
//! ```text
//! u (3 |B| + 3 |R| + 3 |P| + 2 |A| + |y|)  <=  u (5 C + 772)  <  2^-22 (1.5 C + 256) = e,    C >= |B| + |R| + |P|
//! ```
//!
//! where the output y, a code, lies in `-1..=257`, so that `|A| <= 257 + C`. So y is between the sum with e taken off
//! and what `2 e` more make of it; truncating and clamping keep that order, and where both give one number it is the
//! code. Outside, the error grows with `u |y|` only, and both are clamped. With C in the hundreds one number in several
//! thousand is undecided.

use bitpact_core::{Ranges, Requantization};

use super::body::{Block, Constants};

/// Largest e that is worth it: of sixteen numbers one is undecided at most six times in a hundred.
const LARGEST: f64 = 1.0 / 512.0;

/// The constants of both.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    /// Of the sum with e taken off.
    pub(super) narrow: Constants<f32>,
    pub(super) exact: Constants<f64>,
    /// From that sum to one that is too large.
    pub(super) width: f32,
}

impl Guarded {
    /// `None` where too many numbers would be undecided. The sum is at most `largest` in size.
    pub(super) fn new(
        requant: &Requantization,
        ranges: &Ranges,
        largest: u64,
        exact: &Constants<f64>,
    ) -> Option<Guarded> {
        // Beyond, conversions to 32 bits would overflow.
        if largest >> requant.shift >= 1 << 30 {
            return None;
        }
        let term =
            |mul: i32, (lo, hi): (i64, i64)| f64::from(mul).abs() * lo.unsigned_abs().max(hi.unsigned_abs()) as f64;
        let beside_acc = (0..requant.channels()).map(|c| {
            let terms = requant.mul.iter().zip(ranges).skip(1).map(|(mul, range)| term(mul[c], range[c]));
            terms.fold(requant.add[c].unsigned_abs() as f64, |sum, term| sum + term)
        });
        let scale = 0.5_f64.powi(requant.shift as i32);
        let error = (1.5 * scale * beside_acc.fold(0.0, f64::max) + 256.0) / f64::from(1 << 22);
        let narrow = |block: &Block<f64>| {
            let narrow = |list: &[f64; _]| list.map(|v| v as f32);
            Block {
                mul: narrow(&block.mul),
                mul2: narrow(&block.mul2),
                res_mul: narrow(&block.res_mul),
                add: block.add.map(|add| (add - error) as f32),
                lo: block.lo,
                hi: block.hi,
                mask: block.mask,
            }
        };
        // Adding the width rounds once more, at numbers up to 257 by 2^-16.
        let width = 2.0 * error + 1.0 / f64::from(1 << 14);
        (error <= LARGEST).then(|| Guarded {
            narrow: Constants { shift: exact.shift, blocks: exact.blocks.iter().map(narrow).collect() },
            exact: exact.clone(),
            width: width as f32,
        })
    }
}
