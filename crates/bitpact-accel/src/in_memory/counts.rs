//! A layer by the table of errors by count: what a read is off by, for every number of driven high and low cells, is a
//! part that is frozen in the chip and a part that is drawn at every read.

use bitpact_core::rng::Key;

use super::cell::{Cell, Encoding, Stored};
use super::encoding::Slices;
use super::layers::Layer;
use super::margin::moments;
use super::patterns::{CHUNK, Patterns};
use super::reader::Reader;
use crate::AccelError;

/// Rows of a read at most: the table has an entry for every two numbers of them.
const MOST_ROWS: usize = 64;
/// Quantiles of the standard normal distribution that reads draw from.
const QUANTILES: usize = 1 << 12;

/// The error of a read, in counts, for `p` driven rows whose bit line carries the high current and `m` whose bit line
/// carries the low one.
///
/// A column with P high rows and M low rows holds cells whose mean deviations from the nominal current are frozen: `a`
/// of the high ones and `b` of the low ones, normal with variances `v / P` and `w / M`. A read that drives some of them
/// at random is off by `p a + m b` and a normal number of variance `v p (1 - p / P) + w m (1 - m / M)`, what is left
/// when a part of a finite population is drawn. That number is drawn once for every pattern of driven rows: the same
/// cells give the same current again. The dummy column of ANDs adds the same with all rows; all columns of a sub-array
/// see the same of it.
///
/// The table leaves out that rows differ in how often they are driven, and that patterns that have rows in common have
/// their cells' deviations in common.
#[derive(Debug, Clone)]
pub struct CountTable {
    cell_columns: usize,
    encoding: Encoding,
    rows: usize,
    reader: Reader,
    /// `[group of rows][p][m]`: mean count of a read, and what a relative deviation of the nominal step adds.
    entries: Vec<[f32; 2]>,
    /// Variances of a high row, a low row and a row of the dummy column, in squares of the reader's step.
    high: f64,
    low: f64,
    dummy: f64,
    offset_variance: f64,
    quantiles: Vec<f32>,
}

/// The deviations of a read of one column that stay the same from read to read.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frozen {
    /// Rows that are high, that are low, and mean deviations of either and of the dummy column's, in counts.
    rows: [f32; 2],
    deviations: [f32; 3],
}

impl CountTable {
    /// The table of `cell`.
    ///
    /// # Errors
    /// More than 64 rows at once.
    pub fn new(cell: &Cell) -> Result<Self, AccelError> {
        let rows = cell.array.rows_at_once;
        if rows > MOST_ROWS {
            return Err(AccelError::Constant {
                device: cell.name.clone(),
                key: "array.rows_at_once",
                got: rows.to_string(),
                expected: "at most 64 for a table of errors by count",
            });
        }
        let reader = Reader::new(cell);
        let (high, low) = (moments(cell, Stored::High), moments(cell, Stored::Low));
        let column = reader.columns() / 2;
        let square = reader.step_ua().powi(2);
        let (v, w) = (high.variance / square, low.variance / square);
        let (of_high, of_low, of_dummy) = match cell.encoding {
            Encoding::Differential => (v + w, v + w, 0.0),
            Encoding::And => (v, w, w),
            Encoding::Match => (v, w, 0.0),
        };
        let entry = |group: usize, p: usize, m: usize| {
            let line = |h: usize, l: usize| h as f64 * high.mean + l as f64 * low.mean;
            let minus = match cell.encoding {
                Encoding::Differential => line(m, p),
                Encoding::And => line(0, p + m),
                Encoding::Match => 0.0,
            };
            let counts = |more: f64| reader.counts(line(p, m) + more, minus, p + m, group, column);
            let d = 1e-3 * reader.step_ua();
            [counts(0.0) as f32, ((counts(d) - counts(0.0)) * reader.step_ua() / d) as f32]
        };
        let pairs = || (0..=rows).flat_map(|p| (0..=rows).map(move |m| (p, m)));
        let all = (0..reader.groups()).flat_map(|group| pairs().map(move |(p, m)| (group, p, m)));
        Ok(Self {
            cell_columns: cell.array.columns,
            encoding: cell.encoding,
            rows,
            entries: all.map(|(g, p, m)| if p + m <= rows { entry(g, p, m) } else { [0.0; 2] }).collect(),
            reader,
            high: of_high,
            low: of_low,
            dummy: of_dummy,
            offset_variance: cell.adc.offset_sigma.powi(2),
            quantiles: (0..QUANTILES).map(|i| quantile((i as f64 + 0.5) / QUANTILES as f64) as f32).collect(),
        })
    }

    /// The entries of read `read` of a column.
    fn group(&self, read: usize) -> &[[f32; 2]] {
        let n = (self.rows + 1) * (self.rows + 1);
        &self.entries[read % self.reader.groups() * n..][..n]
    }

    /// The level of a read of `p` and `m` driven rows, by 32 random bits of the column's cells and 32 of the dummy
    /// column's.
    #[inline]
    fn draw(&self, entries: &[[f32; 2]], frozen: &Frozen, p: u8, m: u8, random: [u32; 2]) -> i32 {
        let [mean, slope] = entries[usize::from(p) * (self.rows + 1) + usize::from(m)];
        let (p, m, [high_rows, low_rows]) = (f32::from(p), f32::from(m), frozen.rows);
        let [a, b, dummy] = frozen.deviations;
        let left = |n: f32, of: f32| n * (1.0 - n / of.max(1.0));
        let normal = |random: u32| self.quantiles[random as usize >> (32 - QUANTILES.ilog2())];
        let own =
            self.high as f32 * left(p, high_rows) + self.low as f32 * left(m, low_rows) + self.offset_variance as f32;
        let mut off = p * a + m * b + own.sqrt() * normal(random[0]);
        if self.dummy > 0.0 {
            let variance = self.dummy as f32 * left(p + m, high_rows + low_rows);
            off -= (p + m) * dummy + variance.sqrt() * normal(random[1]);
        }
        self.reader.level(f64::from(mean + slope * off))
    }

    /// Share of reads of `p` high and `m` low driven rows of the middle group that are wrong, for cells that are new at
    /// every read.
    pub fn error_rate(&self, p: usize, m: usize) -> f64 {
        let [mean, slope] = self.group(self.reader.groups() / 2)[p * (self.rows + 1) + m].map(f64::from);
        let variance = p as f64 * self.high + m as f64 * self.low + (p + m) as f64 * self.dummy;
        let sigma = (slope * slope * variance + self.offset_variance).sqrt();
        let count = if self.encoding == Encoding::Differential { p as f64 - m as f64 } else { p as f64 };
        if f64::from(self.reader.level(count)) != count {
            return 1.0;
        }
        let below = |edge: f64| if sigma == 0.0 { f64::from(edge > mean) } else { normal_below((edge - mean) / sigma) };
        1.0 - (below(count + 0.5) - below(count - 0.5))
    }

    /// Draws the frozen deviations of a read of `high` high and `low` low rows; `column` and `dummy` are the keys of
    /// the column's cells and of those of the dummy column.
    fn freeze(&self, high: usize, low: usize, column: Key, dummy: Key) -> Frozen {
        // Matches: every row has a high cell and a low one, and drives one of them.
        let (high, low) = if self.encoding == Encoding::Match { (high + low, high + low) } else { (high, low) };
        let mean =
            |variance: f64, n: usize, drawn: f32| ((variance / n.max(1) as f64).sqrt() * f64::from(drawn)) as f32;
        Frozen {
            rows: [high as f32, low as f32],
            deviations: [
                mean(self.high, high, column.normal(0)),
                mean(self.low, low, column.normal(1)),
                mean(self.dummy, high + low, dummy.normal(0)),
            ],
        }
    }
}

/// A layer of one chip whose reads draw from a [`CountTable`].
pub struct CountLayer {
    layer: Layer,
    slices: Slices,
    rows: usize,
    key: Key,
    dummy: Key,
    /// `[output channel][plane][read]`: the rows that store the high current, and what is frozen.
    reads: Vec<(u64, Frozen)>,
}

impl CountLayer {
    /// `layer` on the chip with the key `chip`.
    pub fn new(table: &CountTable, layer: &Layer, chip: Key) -> Self {
        let key = chip.with(&layer.name);
        let slices = Slices::new(table.encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let mut reads = Vec::new();
        for column in 0..layer.out_channels * slices.planes() {
            let (o, plane) = (column / slices.planes(), column % slices.planes());
            for (read, codes) in layer.channel(o).chunks(table.rows).enumerate() {
                let bit = |(r, &q): (usize, &i16)| u64::from(slices.stored(q, plane)) << r;
                let stored = codes.iter().enumerate().map(bit).fold(0, |a, b| a | b);
                let high = stored.count_ones() as usize;
                let place = |purpose, column: usize| key.with(purpose).at(column as u64).at(read as u64);
                let dummy = place("dummy", column / table.cell_columns);
                reads.push((stored, table.freeze(high, codes.len() - high, place("column", column), dummy)));
            }
        }
        Self {
            layer: layer.clone(),
            rows: table.rows,
            key: key.with("reads"),
            dummy: key.with("dummy reads"),
            reads,
            slices,
        }
    }

    /// Share of word lines that are driven.
    pub fn activity(&self, windows: &[i64]) -> f64 {
        let layer = &self.layer;
        let channels = (0..layer.out_channels).step_by(layer.group_channels);
        let groups = channels.len() as f64;
        channels.map(|o| Patterns::new(layer, o, self.rows.min(CHUNK), windows).activity(layer)).sum::<f64>() / groups
    }

    /// Sums of `windows`, pixel by pixel, with reads that draw from `table`: the same cells that drive the same rows
    /// give the same level.
    pub fn sums(&self, table: &CountTable, windows: &[i64]) -> Vec<i64> {
        let layer = &self.layer;
        let (pixels, bits) = (windows.len() / layer.window, usize::from(layer.input_bits));
        let mut out = vec![0; pixels * layer.out_channels];
        let (mut totals, mut inputs, mut words) = (vec![0i64; pixels], Vec::new(), Vec::new());
        let reads = layer.inputs.div_ceil(self.rows);
        for o in 0..layer.out_channels {
            if o % layer.group_channels == 0 {
                let patterns = Patterns::new(layer, o, self.rows.min(CHUNK), windows);
                words = patterns.words(self.rows.div_ceil(CHUNK));
                inputs = patterns.sums;
            }
            totals.fill(0);
            for (plane, &multiplier) in self.slices.multipliers.iter().enumerate() {
                let column = o * self.slices.planes() + plane;
                for read in 0..reads {
                    let (stored, frozen) = &self.reads[column * reads + read];
                    let entries = table.group(read);
                    let key = self.key.at((column * reads + read) as u64);
                    let dummy = self.dummy.at((column / table.cell_columns * reads + read) as u64);
                    let used = u64::MAX >> (64 - (layer.inputs - read * self.rows).min(self.rows));
                    // Matches drive every row, and count those that store -1 where no input is 1.
                    let (is_match, known) = match table.encoding {
                        Encoding::Match => (true, i64::from((!stored & used).count_ones())),
                        _ => (false, 0),
                    };
                    for bit in 0..bits {
                        let words = &words[(read * bits + bit) * pixels..][..pixels];
                        for (total, &word) in totals.iter_mut().zip(words) {
                            let (driven, high) = if is_match { (used, !(word ^ stored)) } else { (word, *stored) };
                            let ones = |mask: u64| mask.count_ones() as u8;
                            let random = [key, dummy].map(|key| (key.u64(word) >> 32) as u32);
                            let level = table.draw(entries, frozen, ones(driven & high), ones(driven & !high), random);
                            *total += multiplier * ((i64::from(level) - known) << bit);
                        }
                    }
                }
            }
            let (lo, hi) = layer.bounds[o];
            for (pixel, (&total, &inputs)) in totals.iter().zip(&inputs).enumerate() {
                out[pixel * layer.out_channels + o] = self.slices.sum(total, inputs).clamp(lo, hi);
            }
        }
        out
    }
}

/// The standard normal distribution function, within 1e-7: Abramowitz and Stegun, Handbook of Mathematical Functions,
/// 26.2.17.
fn normal_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let tail =
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt() * series.iter().fold(0.0, |sum, c| (sum + c) * t);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The standard normal number that the share `p` of them is below, by bisection.
fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..40 {
        let x = 0.5 * (low + high);
        if normal_below(x) < p { low = x } else { high = x }
    }
    0.5 * (low + high)
}
