//! Codes that are looked up: what a requantization gives, and what stands for one code of one tensor.

use bitpact_core::Requantization;
use bitpact_kernels::{Layout, Workers};
use bitpact_model::{IntegerEnd, IntegerSum};

/// One table of 256 codes for all channels, or one for each.
#[derive(Debug)]
pub(super) struct Tables(Vec<[u8; 256]>);

impl Tables {
    /// The tables that a sum ends in, and the sum of the codes that are looked up: its range moved to begin at 0.
    /// `None` for sums that end in none, and where the constants of the moved range need more than 64 bits.
    pub(super) fn of(sum: &IntegerSum) -> Option<(Self, IntegerSum)> {
        let IntegerEnd::Table(tables) = &sum.end else { return None };
        let requant = &sum.requant;
        let moved = i64::from(requant.lo).checked_neg()?.checked_mul(1i64.checked_shl(requant.shift)?)?;
        let add = requant.add.iter().map(|add| add.checked_add(moved)).collect::<Option<_>>()?;
        let requant = Requantization { add, lo: 0, hi: requant.hi - requant.lo, ..requant.clone() };
        let codes = IntegerSum { requant, end: IntegerEnd::Codes, ..sum.clone() };
        let padded = |table: &Vec<u8>| std::array::from_fn(|q| table.get(q).copied().unwrap_or(0));
        Some((Self(tables.iter().map(padded).collect()), codes))
    }

    /// The code that a sum of one tensor of codes, as it is, gives for each code of it.
    pub(super) fn of_codes(sum: &IntegerSum) -> Self {
        let requant = &sum.requant;
        let is_same = |values: &[i64]| values.iter().all(|v| *v == values[0]);
        let mul: Vec<i64> = requant.mul[0].iter().map(|&mul| mul.into()).collect();
        let tables = if let IntegerEnd::Table(tables) = &sum.end { &tables[..] } else { &[] };
        let is_uniform = is_same(&mul) && is_same(&requant.add) && requant.bounds.is_empty() && tables.len() <= 1;
        let code = |c: usize, q: usize| {
            let code = requant.apply(c, [q as i64]);
            match tables {
                [] => code as u8,
                _ => tables[if tables.len() == 1 { 0 } else { c }][(code - requant.lo) as usize],
            }
        };
        let channels = if is_uniform { 1 } else { requant.channels() };
        Self((0..channels).map(|c| std::array::from_fn(|q| code(c, q))).collect())
    }

    fn of_channel(&self, c: usize) -> &[u8; 256] {
        &self.0[if self.0.len() == 1 { 0 } else { c }]
    }

    /// Replaces each code of `y` by what its table holds.
    pub(super) fn run_in_place(&self, workers: Workers<'_>, (y, layout): (&mut [u8], Layout)) {
        workers.each_row(y, layout, &|_, row| {
            for pixel in row.chunks_exact_mut(layout.cs) {
                for (c, code) in pixel[..layout.c].iter_mut().enumerate() {
                    *code = self.of_channel(c)[usize::from(*code)];
                }
            }
        });
    }

    /// Writes to `y` what the tables hold for each code of `x`, a tensor of the same shape.
    pub(super) fn run(&self, workers: Workers<'_>, (x, from): (&[u8], Layout), (y, to): (&mut [u8], Layout)) {
        workers.each_row(y, to, &|r, row| {
            for (q, pixel) in row.chunks_exact_mut(to.cs).enumerate() {
                let codes = &x[from.offset(r, q)..][..from.c];
                for (c, (out, &code)) in pixel.iter_mut().zip(codes).enumerate() {
                    *out = self.of_channel(c)[usize::from(code)];
                }
            }
        });
    }
}
