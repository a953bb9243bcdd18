//! A layer by the table of errors by count: what a read is off by, for every number of driven high and low cells, is a
//! part that is frozen in the chip and a part that is drawn at every read.

use bitpact_core::rng::Key;

use super::cell::{Cell, Encoding, Stored};
use super::chip::{ChipLayer, row};
use super::encoding::Slices;
use super::layers::Layer;
use super::margin::moments;
use super::patterns::{CHUNK, Patterns};
use super::reader::Reader;
use crate::AccelError;

/// Rows of a read at most: the table has an entry for every two numbers of them.
const MOST_ROWS: usize = 64;
/// Rows that no image drove may yet be driven: their share of the reads.
const LEAST_DRIVEN: f64 = 1e-3;
/// Quantiles of the standard normal distribution that reads draw from.
const QUANTILES: usize = 1 << 12;

/// The error of a read, in counts, for `p` driven rows whose bit line carries the high current and `m` whose bit line
/// carries the low one.
///
/// A column's cells are drawn as [`ChipLayer`](super::ChipLayer) draws them, and its high and its low rows are then
/// known by three numbers each: with f the share of reads that drive a row and e what its cells deviate from the mean
/// current, the mean `a = sum f e / sum f`, the variance `v = sum f (e - a)^2 / sum f`, and the number of rows
/// `P = sum f * v / (v - sum f (1 - f) (e - a)^2 / sum f)`, which is their own number where all are driven equally
/// often. A read that drives p of them is off by `p a`, which is exact in the mean over reads, and by a normal number
/// of variance `v p (1 - p / P)`, what is left when a part of a finite population is drawn. That number is drawn once
/// for every pattern of driven rows: the same cells give the same current again. The dummy column of ANDs adds the same
/// with all rows; all columns of a sub-array see the same of it.
///
/// The table leaves out that patterns that have rows in common have their cells' deviations in common.
#[derive(Debug, Clone)]
pub struct CountTable {
    cell: Cell,
    encoding: Encoding,
    rows: usize,
    reader: Reader,
    /// `[group of rows][p][m]`: mean count of a read, and what a relative deviation of the nominal step adds.
    entries: Vec<[f32; 2]>,
    /// Mean currents of a high and a low cell.
    means: [f64; 2],
    /// Variances of a high row, a low row and a row of the dummy column, in squares of the reader's step.
    high: f64,
    low: f64,
    dummy: f64,
    offset_variance: f64,
    quantiles: Vec<f32>,
}

/// Rows of a read that are alike, and what their cells deviate, in counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Alike {
    mean: f32,
    variance: f32,
    rows: f32,
}

impl Alike {
    /// The errors of a group of rows with these deviations and shares of the reads that drive them.
    fn new(rows: &[(f64, f64)]) -> Self {
        let sum = |of: &dyn Fn(f64, f64) -> f64| rows.iter().map(|&(e, f)| of(e, f)).sum::<f64>();
        let driven = sum(&|_, f| f);
        if driven == 0.0 {
            return Self::default();
        }
        let mean = sum(&|e, f| f * e) / driven;
        let variance = sum(&|e, f| f * (e - mean).powi(2)) / driven;
        // v - sum f (1 - f) (e - a)^2 / sum f.
        let common = sum(&|e, f| (f * (e - mean)).powi(2)) / driven;
        let population = if common > 0.0 { driven * variance / common } else { rows.len() as f64 };
        Self { mean: mean as f32, variance: variance as f32, rows: population as f32 }
    }

    /// Mean and variance of what a read that drives `n` of them is off by.
    #[inline]
    fn off(&self, n: f32) -> [f32; 2] {
        [n * self.mean, n * self.variance * (1.0 - n / self.rows.max(1e-6)).max(0.0)]
    }
}

/// The errors that stay the same from read to read of one group of rows of a column: of its high rows, its low rows and
/// the rows of its dummy column.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frozen {
    high: Alike,
    low: Alike,
    dummy: Alike,
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
            cell: cell.clone(),
            means: [high.mean, low.mean],
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
        let (p, m) = (f32::from(p), f32::from(m));
        let normal = |random: u32| self.quantiles[random as usize >> (32 - QUANTILES.ilog2())];
        let ([a, v], [b, w]) = (frozen.high.off(p), frozen.low.off(m));
        let mut off = a + b + (v + w + self.offset_variance as f32).sqrt() * normal(random[0]);
        if self.dummy > 0.0 {
            let [a, v] = frozen.dummy.off(p + m);
            off -= a + v.sqrt() * normal(random[1]);
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

    /// Draws the cells of rows `first..` of column `column`, whose bits are `bits` and which `driven` shares of the
    /// reads drive; `key` is the layer's.
    fn freeze(&self, key: Key, column: usize, first: usize, bits: &[bool], driven: &[f32]) -> Frozen {
        let ([high, low], step) = (self.means, self.reader.step_ua());
        let (mut of_high, mut of_low, mut of_dummy) = (Vec::new(), Vec::new(), Vec::new());
        for (r, (&bit, &f)) in bits.iter().zip(driven).enumerate() {
            let [on, off] = row(&self.cell, key, bit, column, first + r).map(|lines| lines.map(f64::from));
            let f = f64::from(f).max(LEAST_DRIVEN);
            let (own, other) = if bit { (high, low) } else { (low, high) };
            let alike = if bit { &mut of_high } else { &mut of_low };
            match self.encoding {
                Encoding::Differential => alike.push(((on[0] - own - on[1] + other) / step, f)),
                Encoding::And => {
                    alike.push(((on[0] - own) / step, f));
                    of_dummy.push(((on[1] - low) / step, f));
                }
                // Every row has a high cell and a low one, and drives one of them.
                Encoding::Match => {
                    alike.push(((on[0] - own) / step, f));
                    let alike = if bit { &mut of_low } else { &mut of_high };
                    alike.push(((off[0] - other) / step, (1.0 - f).max(LEAST_DRIVEN)));
                }
            }
        }
        Frozen { high: Alike::new(&of_high), low: Alike::new(&of_low), dummy: Alike::new(&of_dummy) }
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
    /// The levels of all patterns of a read, where its rows are few.
    tables: Option<ChipLayer>,
}

impl CountLayer {
    /// `layer` on the chip with the key `chip`; `driven` is the share of the reads that drive the row of each input of
    /// the window.
    ///
    /// # Panics
    /// If there are not as many shares as inputs of the window.
    pub fn new(table: &CountTable, layer: &Layer, chip: Key, driven: &[f32]) -> Self {
        assert_eq!(driven.len(), layer.window, "a share for each input");
        let key = chip.with(&layer.name);
        let slices = Slices::new(table.encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let mut reads = Vec::new();
        for column in 0..layer.out_channels * slices.planes() {
            let (o, plane) = (column / slices.planes(), column % slices.planes());
            let driven = &driven[o / layer.group_channels * layer.inputs..][..layer.inputs];
            let bits: Vec<bool> = layer.channel(o).iter().map(|&q| slices.stored(q, plane)).collect();
            for (read, (bits, driven)) in bits.chunks(table.rows).zip(driven.chunks(table.rows)).enumerate() {
                let stored = bits.iter().enumerate().fold(0, |mask, (r, &bit)| mask | u64::from(bit) << r);
                reads.push((stored, table.freeze(key, column, read * table.rows, bits, driven)));
            }
        }
        let mut layer = Self {
            layer: layer.clone(),
            rows: table.rows,
            key: key.with("reads"),
            dummy: key.with("dummy reads"),
            reads,
            slices,
            tables: None,
        };
        if table.rows <= CHUNK {
            let level = |column: usize, read: usize, pattern: u8| layer.level(table, column, read, pattern.into());
            let tables = ChipLayer::of_levels(&table.cell, &layer.layer, key, level);
            layer.tables = Some(tables);
            layer.reads = Vec::new();
        }
        layer
    }

    /// The level of read `read` of a column that drives the rows `word`.
    #[inline]
    fn level(&self, table: &CountTable, column: usize, read: usize, word: u64) -> i32 {
        let reads = self.layer.inputs.div_ceil(self.rows);
        let (stored, frozen) = &self.reads[column * reads + read];
        let key = self.key.at((column * reads + read) as u64);
        let dummy = self.dummy.at((column / table.cell.array.columns * reads + read) as u64);
        // Matches drive every row.
        let used = u64::MAX >> (64 - (self.layer.inputs - read * self.rows).min(self.rows));
        let is_match = table.encoding == Encoding::Match;
        let (driven, high) = if is_match { (used, !(word ^ stored)) } else { (word, *stored) };
        let ones = |mask: u64| mask.count_ones() as u8;
        let random = [key, dummy].map(|key| (key.u64(word) >> 32) as u32);
        table.draw(table.group(read), frozen, ones(driven & high), ones(driven & !high), random)
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
        if let Some(tables) = &self.tables {
            return tables.sums(windows);
        }
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
                for (read, bit) in (0..reads).flat_map(|read| (0..bits).map(move |bit| (read, bit))) {
                    let words = &words[(read * bits + bit) * pixels..][..pixels];
                    // Matches count the rows that store -1 where no input is 1.
                    let known = match table.encoding {
                        Encoding::Match => i64::from(self.minus_rows(column, read)),
                        _ => 0,
                    };
                    for (total, &word) in totals.iter_mut().zip(words) {
                        let level = self.level(table, column, read, word);
                        *total += multiplier * ((i64::from(level) - known) << bit);
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

    /// Rows of a read of a column that store -1.
    fn minus_rows(&self, column: usize, read: usize) -> u32 {
        let reads = self.layer.inputs.div_ceil(self.rows);
        let rows = (self.layer.inputs - read * self.rows).min(self.rows);
        rows as u32 - self.reads[column * reads + read].0.count_ones()
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
