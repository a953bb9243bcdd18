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
    pub(crate) fn codes(&self) -> [f64; 3] {
        let least = if self.encoding == Encoding::Differential { -self.most } else { 0 };
        [least.into(), self.most.into(), self.counts_per_code.into()]
    }

    /// The converter from currents to levels of the read number `read`, of `rows` rows, for the columns `first..first +
    /// columns` counted through all sub-arrays.
    pub(crate) fn converter(&self, read: usize, rows: usize, first: usize, columns: usize) -> Converter {
        let (droop, codes) = (self.droops[read % self.droops.len()], self.codes());
        let shares = || (first..first + columns).map(|column| self.shares[column % self.shares.len()]);
        Converter {
            codes_per_ua: shares().map(|share| (share / (self.step_ua * codes[2])) as f32).collect(),
            droops: shares().map(|share| (droop.kappa() * share) as f32).collect(),
            low_ua: (self.encoding == Encoding::Match).then_some((self.low_ua * rows as f64) as f32),
            codes: codes.map(|code| code as f32),
        }
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

/// Levels of the columns of a read, for many reads of one group of rows.
pub(crate) struct Converter {
    /// Codes of a microampere of every column, before the droop.
    codes_per_ua: Vec<f32>,
    /// Share of a current of one microampere that the droop takes, of every column.
    droops: Vec<f32>,
    /// Current that is subtracted from matches.
    low_ua: Option<f32>,
    /// Smallest and largest code, and the counts of one.
    codes: [f32; 3],
}

impl Converter {
    /// The [levels](Reader::level) of columns whose lines carry `plus_ua` and `minus_ua`: with the droop `I (1 - k I)`
    /// the lines differ by `(plus - minus) (1 - k (plus + minus))`.
    pub(crate) fn levels(&self, plus_ua: &[f32], minus_ua: &[f32], out: &mut [f32]) {
        let [least, most, per] = self.codes;
        let columns = self.codes_per_ua.iter().zip(&self.droops);
        for (((out, &plus), &minus), (&scale, &droop)) in out.iter_mut().zip(plus_ua).zip(minus_ua).zip(columns) {
            let minus = self.low_ua.unwrap_or(minus);
            let code = scale * (plus - minus) * (1.0 - droop * (plus + minus));
            *out = round_half_up_f32(code).clamp(least, most) * per;
        }
    }
}

/// The nearest whole number, the upper one of two, for numbers below 2^51: in a form that compilers turn into vectors.
#[inline(always)]
pub(crate) fn round_half_up(x: f64) -> f64 {
    /// `1.5 * 2^52`: what is added to it is rounded to a whole number, ties to even.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let even = (x + WHOLE) - WHOLE;
    even + if x - even >= 0.5 { 1.0 } else { 0.0 }
}

/// [`round_half_up`] of numbers below 2^22.
#[inline(always)]
fn round_half_up_f32(x: f32) -> f32 {
    /// `1.5 * 2^23`.
    const WHOLE: f32 = 12_582_912.0;
    let even = (x + WHOLE) - WHOLE;
    even + if x - even >= 0.5 { 1.0 } else { 0.0 }
}
