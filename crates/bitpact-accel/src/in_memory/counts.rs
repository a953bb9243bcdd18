//! A layer by the table of errors by count: reads draw their level from its distribution for cells that are new at every read.

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

/// The distribution of the level for every count: for `p` driven rows whose bit line carries the high current and `m` with the low one. The current of a
/// line is taken as normal, with the mean and variance of its cells; the rows are those of the middle group.
#[derive(Debug, Clone, PartialEq)]
pub struct CountTable {
    encoding: Encoding,
    rows: usize,
    per_code: i32,
    /// `[p][m]`: smallest code and where its probabilities begin.
    entries: Vec<(i32, u32)>,
    /// `P(code <= k) 2^32` for the codes of every entry but its largest.
    cumulative: Vec<u32>,
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
        let (group, column) = (reader.groups() / 2, reader.columns() / 2);
        let per_code = cell.adc.counts_per_code as i32;
        let mut table = Self { encoding: cell.encoding, rows, per_code, entries: Vec::new(), cumulative: Vec::new() };
        for (p, m) in (0..=rows).flat_map(|p| (0..=rows).map(move |m| (p, m))) {
            table.entries.push((0, table.cumulative.len() as u32));
            if p + m > rows {
                continue;
            }
            let minus = match cell.encoding {
                Encoding::Differential => (m, p),
                Encoding::And => (0, p + m),
                Encoding::Match => (0, 0),
            };
            let mean = |h: usize, l: usize| h as f64 * high.mean + l as f64 * low.mean;
            let variance = |h: usize, l: usize| h as f64 * high.variance + l as f64 * low.variance;
            let (plus_ua, minus_ua) = (mean(p, m), mean(minus.0, minus.1));
            let counts = |plus, minus| reader.counts(plus, minus, p + m, group, column);
            let at = counts(plus_ua, minus_ua);
            let d = 1e-3 * reader.step_ua();
            let slopes = [(counts(plus_ua + d, minus_ua) - at) / d, (counts(plus_ua, minus_ua + d) - at) / d];
            let sigma = (slopes[0].powi(2) * variance(p, m)
                + slopes[1].powi(2) * variance(minus.0, minus.1)
                + cell.adc.offset_sigma.powi(2))
            .sqrt();
            table.distribution(&reader, at, sigma);
        }
        // The end of the last entry.
        table.entries.push((0, table.cumulative.len() as u32));
        Ok(table)
    }

    /// Adds the probabilities of the levels of a normal number of counts.
    fn distribution(&mut self, reader: &Reader, mean: f64, sigma: f64) {
        let code = |counts: f64| reader.level(counts) / self.per_code;
        let (first, last) = (code(mean - 7.0 * sigma), code(mean + 7.0 * sigma));
        self.entries.last_mut().expect("just added").0 = first;
        for k in first..last {
            let threshold = (f64::from(k) + 0.5) * f64::from(self.per_code);
            let below = standard_normal((threshold - mean) / sigma);
            self.cumulative.push((below * 4_294_967_296.0).min(4_294_967_295.0) as u32);
        }
    }

    /// The level of a read, in counts, by 32 random bits.
    #[inline]
    fn draw(&self, p: u8, m: u8, random: u32) -> i32 {
        let entry = usize::from(p) * (self.rows + 1) + usize::from(m);
        let ((first, from), (_, to)) = (self.entries[entry], self.entries[entry + 1]);
        let below = self.cumulative[from as usize..to as usize].iter().take_while(|&&c| c <= random).count();
        (first + below as i32) * self.per_code
    }

    /// Share of reads of `p` high and `m` low driven rows that are wrong.
    pub fn error_rate(&self, p: usize, m: usize) -> f64 {
        let entry = p * (self.rows + 1) + m;
        let ((first, from), (_, to)) = (self.entries[entry], self.entries[entry + 1]);
        let count = self.count(p as i32, m as i32);
        let at = (count / self.per_code - first) as usize;
        let cumulative = &self.cumulative[from as usize..to as usize];
        let up_to = |k: usize| cumulative.get(k).map_or(1.0, |&c| f64::from(c) / 4_294_967_296.0);
        if count % self.per_code != 0 || at > cumulative.len() {
            return 1.0;
        }
        1.0 - (up_to(at) - if at == 0 { 0.0 } else { up_to(at - 1) })
    }

    fn count(&self, p: i32, m: i32) -> i32 {
        if self.encoding == Encoding::Differential { p - m } else { p }
    }
}

/// A layer whose reads draw from a [`CountTable`].
pub struct CountLayer {
    layer: Layer,
    slices: Slices,
    chunk_rows: usize,
    read_chunks: usize,
    /// `[output channel][plane][chunk]`: the rows that store the high current.
    stored: Vec<u8>,
}

impl CountLayer {
    /// `layer` with the planes of the table's encoding.
    pub fn new(table: &CountTable, layer: &Layer) -> Self {
        let slices = Slices::new(table.encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let chunk_rows = table.rows.min(CHUNK);
        let columns = (0..layer.out_channels).flat_map(|o| (0..slices.planes()).map(move |plane| (o, plane)));
        let chunk = |plane: usize, rows: &[i16]| {
            rows.iter().enumerate().fold(0, |mask, (r, &q)| mask | u8::from(slices.stored(q, plane)) << r)
        };
        let stored = columns
            .flat_map(|(o, plane)| layer.channel(o).chunks(chunk_rows).map(move |rows| (plane, rows)))
            .map(|(plane, rows)| chunk(plane, rows))
            .collect();
        Self { layer: layer.clone(), chunk_rows, read_chunks: table.rows / chunk_rows, stored, slices }
    }

    /// Share of word lines that are driven.
    pub fn activity(&self, windows: &[i64]) -> f64 {
        let layer = &self.layer;
        let channels = (0..layer.out_channels).step_by(layer.group_channels);
        let groups = channels.len() as f64;
        channels.map(|o| Patterns::new(layer, o, self.chunk_rows, windows).activity(layer)).sum::<f64>() / groups
    }

    /// Sums of `windows`, pixel by pixel, with reads that draw from `table` by the numbers of `key`.
    pub fn sums(&self, table: &CountTable, windows: &[i64], key: Key) -> Vec<i64> {
        let layer = &self.layer;
        let pixels = windows.len() / layer.window;
        let chunks = layer.inputs.div_ceil(self.chunk_rows);
        let bits = usize::from(layer.input_bits);
        let mut out = vec![0; pixels * layer.out_channels];
        let mut totals = vec![0i64; pixels];
        let (mut high, mut low) = (vec![0u8; pixels], vec![0u8; pixels]);
        let matches = table.encoding == Encoding::Match;
        let mut patterns = None;
        for o in 0..layer.out_channels {
            if o % layer.group_channels == 0 {
                patterns = Some(Patterns::new(layer, o, self.chunk_rows, windows));
            }
            let patterns = patterns.as_ref().expect("made for the first channel");
            totals.fill(0);
            for (plane, &multiplier) in self.slices.multipliers.iter().enumerate() {
                let column = o * self.slices.planes() + plane;
                for first in (0..chunks).step_by(self.read_chunks) {
                    let key = key.at((column * chunks + first) as u64);
                    for bit in 0..bits {
                        let mut known = 0;
                        high.fill(0);
                        low.fill(0);
                        for chunk in first..(first + self.read_chunks).min(chunks) {
                            let stored = self.stored[column * chunks + chunk];
                            let rows = (layer.inputs - chunk * self.chunk_rows).min(self.chunk_rows);
                            let used = u8::MAX >> (8 - rows);
                            if matches {
                                known += i64::from((!stored & used).count_ones());
                            }
                            for ((h, l), &p) in high.iter_mut().zip(&mut low).zip(patterns.of(chunk, bit)) {
                                let (driven, stored) = if matches { (used, !(p ^ stored)) } else { (p, stored) };
                                *h += (driven & stored).count_ones() as u8;
                                *l += (driven & !stored).count_ones() as u8;
                            }
                        }
                        for (pixel, total) in totals.iter_mut().enumerate() {
                            let random = (key.u64((bit * pixels + pixel) as u64) >> 32) as u32;
                            let level = i64::from(table.draw(high[pixel], low[pixel], random));
                            *total += multiplier * ((level - known) << bit);
                        }
                    }
                }
            }
            let (lo, hi) = layer.bounds[o];
            for (pixel, (&total, &inputs)) in totals.iter().zip(&patterns.sums).enumerate() {
                out[pixel * layer.out_channels + o] = self.slices.sum(total, inputs).clamp(lo, hi);
            }
        }
        out
    }
}

/// The standard normal distribution function, within 1e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17.
fn standard_normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let tail =
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt() * series.iter().fold(0.0, |sum, c| (sum + c) * t);
    if x < 0.0 { tail } else { 1.0 - tail }
}
