//! From currents to codes: what a column and its flash converter make of the cells that are driven.

use bitpact_core::rng::Key;

use super::cell::{Cell, Encoding};
use super::ladder::{Droop, word_line_share};

/// Bit lines of a column.
pub(crate) fn lines(encoding: Encoding) -> usize {
    if encoding == Encoding::Differential { 2 } else { 1 }
}

/// Share of the read voltage at every column of a sub-array: of a row that is driven, half of the cells store the high
/// current.
pub(crate) fn shares(cell: &Cell) -> Vec<f64> {
    let (array, lines) = (&cell.array, lines(cell.encoding));
    let mean = 0.5 * (cell.high_ua() + cell.low_ua());
    let share = |column| word_line_share(array, cell.read_v, mean, lines * column + lines / 2, lines * array.columns);
    (0..array.columns).map(share).collect()
}

/// Reads groups of rows of a cell's columns.
#[derive(Debug, Clone)]
pub struct Reader {
    encoding: Encoding,
    /// Droop of every group of rows of a sub-array.
    droops: Vec<Droop>,
    /// Current of a row that does not match, which the converter of matches subtracts.
    low_ua: f64,
    /// Current of a count: the reference of the converter.
    step_ua: f64,
    /// Share of the read voltage at every column of a sub-array.
    shares: Vec<f64>,
    counts_per_code: u32,
    /// Largest code.
    most: i32,
}

impl Reader {
    /// The converter's reference is the current of a count of nominal cells through the wires of the middle of the
    /// array, where fair bits put a read: at a quarter of the rows for ANDs, at half of them for matches, and at half
    /// of them for differences too, whose two lines carry a quarter each, so that a count changes both loads.
    pub fn new(cell: &Cell) -> Self {
        let array = &cell.array;
        let (rows, at_once) = (array.rows, array.rows_at_once);
        let droop = |first| Droop::new(array, cell.read_v, first, at_once);
        let droops: Vec<Droop> = (0..rows).step_by(at_once).map(droop).collect();
        let mut reader = Self {
            encoding: cell.encoding,
            low_ua: cell.low_ua(),
            step_ua: 1.0,
            shares: shares(cell),
            counts_per_code: cell.adc.counts_per_code,
            most: (1 << cell.adc.bits) - 1,
            droops,
        };
        let on = match cell.encoding {
            Encoding::And => at_once.div_ceil(4),
            Encoding::Differential | Encoding::Match => at_once.div_ceil(2),
        };
        let (h, high, low) = (on as f64, cell.high_ua(), cell.low_ua());
        let plus = match cell.encoding {
            Encoding::Match => h * high + (at_once - on) as f64 * low,
            _ => h * high,
        };
        let (middle, group) = (array.columns / 2, reader.droops.len() / 2);
        reader.step_ua = reader.counts(plus, h * low, at_once, group, middle) / h;
        reader
    }

    /// Counts, not yet rounded, of a read in which the bit line carries `plus_ua` and the other line, or the dummy
    /// column, `minus_ua`; `rows` are driven, those of group `group` of the sub-array, at column `column`.
    #[inline]
    pub fn counts(&self, plus_ua: f64, minus_ua: f64, rows: usize, group: usize, column: usize) -> f64 {
        let (droop, share) = (self.droops[group], self.shares[column]);
        let minus_ua = match self.encoding {
            Encoding::Match => self.low_ua * rows as f64,
            _ => minus_ua,
        };
        (droop.apply(share * plus_ua) - droop.apply(share * minus_ua)) / self.step_ua
    }

    /// Largest count the converter holds.
    pub fn range(&self) -> i64 {
        i64::from(self.most) * i64::from(self.counts_per_code)
    }

    /// The nearest of the converter's levels to `counts`, in counts: a multiple of the counts of a code.
    #[inline]
    pub fn level(&self, counts: f64) -> i32 {
        let [least, most, per] = self.codes();
        (round_half_up(counts / per).clamp(least, most) * per) as i32
    }

    /// Smallest and largest code, and the counts of one.
    #[inline]
    fn codes(&self) -> [f64; 3] {
        let least = if self.encoding == Encoding::Differential { -self.most } else { 0 };
        [least.into(), self.most.into(), self.counts_per_code.into()]
    }

    /// The [levels](Self::level) of columns whose lines carry `plus_ua` and `minus_ua`, for a read of `rows` rows of
    /// group `group`; `shares` are the columns' shares of the read voltage.
    pub(crate) fn levels(
        &self,
        [plus_ua, minus_ua]: [&[f32]; 2],
        rows: usize,
        group: usize,
        shares: &[f64],
        out: &mut [f64],
    ) {
        let (droop, step, [least, most, per]) = (self.droops[group], self.step_ua, self.codes());
        let low_ua = (self.encoding == Encoding::Match).then_some(self.low_ua * rows as f64);
        let lines = plus_ua.iter().zip(minus_ua).zip(shares);
        for (out, ((&plus, &minus), &share)) in out.iter_mut().zip(lines) {
            let minus = low_ua.unwrap_or(minus.into());
            let counts = (droop.apply(share * f64::from(plus)) - droop.apply(share * minus)) / step;
            *out = round_half_up(counts / per).clamp(least, most) * per;
        }
    }

    /// Share of the read voltage at column `column`, counted through all sub-arrays.
    pub(crate) fn share(&self, column: usize) -> f64 {
        self.shares[column % self.shares.len()]
    }

    /// Thresholds of the converter of one column, in counts and in order, each moved by its offset.
    pub fn thresholds(&self, offset_sigma: f64, column: Key) -> Vec<f64> {
        let least = if self.encoding == Encoding::Differential { -self.most } else { 0 };
        let threshold = |(i, code): (usize, i32)| {
            let offset = if offset_sigma == 0.0 { 0.0 } else { offset_sigma * f64::from(column.normal(i as u64)) };
            (f64::from(code) - 0.5) * f64::from(self.counts_per_code) + offset
        };
        let mut all: Vec<f64> = (least + 1..=self.most).enumerate().map(threshold).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The level of a converter whose `thresholds` were moved: a flash converter counts those below.
    #[inline]
    pub fn level_of(&self, counts: f64, thresholds: &[f64]) -> i32 {
        let least = if self.encoding == Encoding::Differential { -self.most } else { 0 };
        (least + thresholds.partition_point(|&t| t <= counts) as i32) * self.counts_per_code as i32
    }

    /// Current of a count in microamperes.
    pub fn step_ua(&self) -> f64 {
        self.step_ua
    }

    /// Groups of rows of a sub-array.
    pub fn groups(&self) -> usize {
        self.droops.len()
    }

    /// Columns of a sub-array.
    pub fn columns(&self) -> usize {
        self.shares.len()
    }
}

/// The nearest whole number, the upper one of two, for numbers below 2^51: in a form that compilers turn into vectors.
#[inline(always)]
fn round_half_up(x: f64) -> f64 {
    /// `1.5 * 2^52`: what is added to it is rounded to a whole number, ties to even.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let even = (x + WHOLE) - WHOLE;
    even + if x - even >= 0.5 { 1.0 } else { 0.0 }
}
