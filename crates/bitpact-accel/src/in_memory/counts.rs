//! A layer by the table of errors by count: what a read of many rows gives, from the number of rows that it drives and
//! what its cells deviate in sum.

use bitpact_core::rng::Key;

use super::cell::{Cell, Encoding, Stored};
use super::chip::{add, count, row, row_of, tabulate};
use super::encoding::Slices;
use super::layers::Layer;
use super::margin::moments;
use super::patterns::{CHUNK, Patterns};
use super::reader::{Reader, round_half_up};

/// Patterns of the rows of a chunk.
const PATTERNS: usize = 1 << CHUNK;
/// Quantiles of the standard normal distribution that sums draw from.
const QUANTILES: usize = 1 << 12;

/// The level that a read gives, in the mean over reads of as many driven rows.
///
/// With n driven rows, c their true count and e the sum of what their cells deviate from mean cells, in counts, the
/// level is `offset + c_gain c + e_gain e`, the linear form of least squares (Bussgang's theorem, 1952), and a
/// remainder of which `variance` is left. Those four numbers are the table's entry of n. They follow from mean cells
/// through wires and converter: c is binomial with the layer's share of cells that store the high current, e is normal
/// with the variances of c high cells and n - c low ones, and the level is the converter's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Entry {
    offset: f64,
    c_gain: f64,
    e_gain: f64,
    variance: f64,
}

/// The errors of reads by count, for new cells at every read and, as [`CountLayer`] uses it, for cells that were drawn.
#[derive(Debug, Clone)]
pub struct CountTable {
    cell: Cell,
    encoding: Encoding,
    reader: Reader,
    /// Mean currents of a high and a low cell.
    means: [f64; 2],
    /// Variances of a high row, a low row and a row of the dummy column, in squares of the reader's step.
    high: f64,
    low: f64,
    dummy: f64,
    offset_sigma: f64,
    quantiles: Vec<f32>,
}

impl CountTable {
    /// The table of `cell`, in the middle column of a sub-array.
    pub fn new(cell: &Cell) -> Self {
        let reader = Reader::new(cell);
        let (high, low) = (moments(cell, Stored::High), moments(cell, Stored::Low));
        let square = reader.step_ua().powi(2);
        let (v, w) = (high.variance / square, low.variance / square);
        let (of_high, of_low, of_dummy) = match cell.encoding {
            Encoding::Differential => (v + w, v + w, 0.0),
            Encoding::And => (v, w, w),
            Encoding::Match => (v, w, 0.0),
        };
        Self {
            cell: cell.clone(),
            means: [high.mean, low.mean],
            encoding: cell.encoding,
            reader,
            high: of_high,
            low: of_low,
            dummy: of_dummy,
            offset_sigma: cell.adc.offset_sigma,
            quantiles: (0..QUANTILES).map(|i| quantile((i as f64 + 0.5) / QUANTILES as f64) as f32).collect(),
        }
    }

    /// Mean count of a read of `p` high and `m` low driven rows of a group, and what a deviation of one nominal step
    /// adds.
    fn mean(&self, group: usize, p: usize, m: usize) -> [f64; 2] {
        let line = |h: usize, l: usize| h as f64 * self.means[0] + l as f64 * self.means[1];
        let minus = match self.encoding {
            Encoding::Differential => line(m, p),
            Encoding::And => line(0, p + m),
            Encoding::Match => 0.0,
        };
        let column = self.reader.columns() / 2;
        let counts = |more: f64| self.reader.counts(line(p, m) + more, minus, p + m, group, column);
        let d = 1e-3 * self.reader.step_ua();
        [counts(0.0), (counts(d) - counts(0.0)) * self.reader.step_ua() / d]
    }

    /// Variance of what `p` high and `m` low driven rows deviate.
    fn variance(&self, p: usize, m: usize) -> f64 {
        p as f64 * self.high + m as f64 * self.low + (p + m) as f64 * self.dummy
    }

    /// The count of `p` high and `m` low driven rows.
    fn count(&self, p: usize, m: usize) -> f64 {
        if self.encoding == Encoding::Differential { p as f64 - m as f64 } else { p as f64 }
    }

    /// Share of reads of `p` high and `m` low driven rows of the middle group that are wrong, for cells that are new at
    /// every read.
    pub fn error_rate(&self, p: usize, m: usize) -> f64 {
        let [mean, slope] = self.mean(self.reader.groups() / 2, p, m);
        let sigma = (slope * slope * self.variance(p, m)).sqrt().hypot(self.offset_sigma);
        let count = self.count(p, m);
        if f64::from(self.reader.level(count)) != count {
            return 1.0;
        }
        let below = |edge: f64| if sigma == 0.0 { f64::from(edge > mean) } else { normal_below((edge - mean) / sigma) };
        1.0 - (below(count + 0.5) - below(count - 0.5))
    }

    /// The entry of `n` driven rows of group `group`, of whose cells `share` store the high current.
    fn entry(&self, group: usize, n: usize, share: f64) -> Entry {
        let (mut l, mut c, mut ll, mut cc, mut ee, mut lc, mut le) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for (p, weight) in binomial(n, share).into_iter().enumerate() {
            let [level, square, with_error] = self.level(group, p, n - p);
            let count = self.count(p, n - p);
            l += weight * level;
            c += weight * count;
            ll += weight * square;
            cc += weight * count * count;
            ee += weight * self.variance(p, n - p);
            lc += weight * level * count;
            le += weight * with_error;
        }
        let of_count = cc - c * c;
        let c_gain = if of_count > 1e-9 { (lc - l * c) / of_count } else { 1.0 };
        let e_gain = if ee > 0.0 { le / ee } else { 0.0 };
        let variance = ll - l * l - c_gain * c_gain * of_count.max(0.0) - e_gain * e_gain * ee;
        Entry { offset: l - c_gain * c, c_gain, e_gain, variance: if variance > 1e-9 { variance } else { 0.0 } }
    }

    /// Means of the level of a read of `p` high and `m` low driven rows, of its square, and of its product with what
    /// the cells deviate.
    fn level(&self, group: usize, p: usize, m: usize) -> [f64; 3] {
        let ([mean, slope], variance) = (self.mean(group, p, m), self.variance(p, m));
        let sigma = (slope * slope * variance).sqrt().hypot(self.offset_sigma);
        if sigma == 0.0 {
            let level = f64::from(self.reader.level(mean));
            return [level, level * level, 0.0];
        }
        let [least, most, per] = self.reader.codes();
        let code = |counts: f64| (counts / per).round().clamp(least, most);
        let (first, last) = (code(mean - 6.0 * sigma), code(mean + 6.0 * sigma));
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut at, mut sums) = (first, [0.0; 3]);
        let (mut below, mut density_below) = (0.0, 0.0);
        while at <= last {
            // What lies beyond the codes has the last one.
            let edge = ((at + 0.5) * per - mean) / sigma;
            let (above, density_above) = if at == last { (1.0, 0.0) } else { (normal_below(edge), density(edge)) };
            let (level, share) = (at * per, above - below);
            sums[0] += level * share;
            sums[1] += level * level * share;
            sums[2] += level * slope * variance / sigma * (density_below - density_above);
            (below, density_below) = (above, density_above);
            at += 1.0;
        }
        sums
    }
}

/// Shares of `0..=n` ones among `n` bits of which each is 1 with the probability `share`.
fn binomial(n: usize, share: f64) -> Vec<f64> {
    let share = share.clamp(1e-6, 1.0 - 1e-6);
    let odds = share / (1.0 - share);
    // From the likeliest number on, so that nothing is too small to be a number.
    let middle = ((n as f64 * share) as usize).min(n);
    let mut all = vec![1.0; n + 1];
    for p in middle..n {
        all[p + 1] = all[p] * odds * (n - p) as f64 / (p + 1) as f64;
    }
    for p in (0..middle).rev() {
        all[p] = all[p + 1] / odds * (p + 1) as f64 / (n - p) as f64;
    }
    let whole: f64 = all.iter().sum();
    all.into_iter().map(|x| x / whole).collect()
}

/// A layer of one chip whose reads follow a [`CountTable`]: its cells are those that [`ChipLayer`](super::ChipLayer)
/// draws, and every sum is that of its reads' linear forms and one normal number with the variance of their remainders,
/// the same for the same inputs.
///
/// Counts and deviations are tabulated for the patterns of eight rows, weight planes together. The table takes
/// remainders of different reads as independent, what a converter's thresholds are off as drawn at every read, and
/// word lines as in the middle column.
pub struct CountLayer {
    layer: Layer,
    slices: Slices,
    encoding: Encoding,
    key: Key,
    chunk_rows: usize,
    read_chunks: usize,
    /// `[group of rows of a sub-array][driven rows]`.
    entries: Vec<Vec<Entry>>,
    /// `[group of channels][chunk][pattern]`, and then counts of all channels of the group and their deviations, with
    /// planes weighted by their multipliers.
    tables: Vec<f32>,
    /// Rows that store -1 of all planes, weighted by their multipliers, by channel; matches count them where no input
    /// is 1.
    known: Vec<i64>,
}

impl CountLayer {
    /// Draws the cells of `layer`; `chip` is the chip's key.
    pub fn new(table: &CountTable, layer: &Layer, chip: Key) -> Self {
        let (cell, encoding, key) = (&table.cell, table.encoding, chip.with(&layer.name));
        let slices = Slices::new(encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let at_once = cell.array.rows_at_once;
        let chunk_rows = at_once.min(CHUNK);
        let ([high, low], step) = (table.means, table.reader.step_ua());
        let (n, chunks) = (layer.group_channels, layer.inputs.div_ceil(chunk_rows));
        let mut tables = Vec::with_capacity(layer.out_channels / n * chunks * PATTERNS * 2 * n);
        let (mut known, mut ones, mut currents) = (vec![0; layer.out_channels], 0, Vec::with_capacity(PATTERNS));
        for (first, chunk) in (0..layer.out_channels).step_by(n).flat_map(|o| (0..chunks).map(move |c| (o, c))) {
            let first_row = chunk * chunk_rows;
            let rows = (layer.inputs - first_row).min(chunk_rows);
            let mut of_chunk = vec![0f32; PATTERNS * 2 * n];
            for (o, (plane, &multiplier)) in
                (0..n).flat_map(|o| slices.multipliers.iter().enumerate().map(move |plane| (o, plane)))
            {
                let column = (first + o) * slices.planes() + plane;
                let codes = &layer.channel(first + o)[first_row..first_row + rows];
                let stored =
                    codes.iter().enumerate().fold(0, |mask: u8, (r, &q)| mask | u8::from(slices.stored(q, plane)) << r);
                ones += stored.count_ones();
                known[first + o] += multiplier * (rows as i64 - i64::from(stored.count_ones()));
                let cells = (0..rows).map(|r| row(cell, key, stored >> r & 1 == 1, column, first_row + r));
                tabulate(&cells.collect::<Vec<_>>(), &mut currents);
                for (pattern, &[plus, minus]) in currents.iter().enumerate() {
                    let count = f64::from(count(encoding, pattern as u8, stored, rows));
                    let mean = match encoding {
                        Encoding::Match => count * high + (rows as f64 - count) * low,
                        Encoding::Differential | Encoding::And => count * (high - low),
                    };
                    let to = &mut of_chunk[pattern * 2 * n..][..2 * n];
                    to[o] += (multiplier as f64 * count) as f32;
                    to[n + o] += (multiplier as f64 * (f64::from(plus - minus) - mean) / step) as f32;
                }
            }
            tables.extend_from_slice(&of_chunk);
        }
        // A row matches as often as not.
        let share = match encoding {
            Encoding::Match => 0.5,
            _ => f64::from(ones) / (layer.codes.len() * slices.planes()).max(1) as f64,
        };
        let entries = |group| (0..=at_once).map(|n| table.entry(group, n, share)).collect();
        Self {
            layer: layer.clone(),
            encoding,
            key: key.with("reads"),
            chunk_rows,
            read_chunks: at_once / chunk_rows,
            entries: (0..table.reader.groups()).map(entries).collect(),
            tables,
            known,
            slices,
        }
    }

    /// Bytes that the tables of `layer` take.
    pub fn bytes(cell: &Cell, layer: &Layer) -> usize {
        let chunks = layer.inputs.div_ceil(cell.array.rows_at_once.min(CHUNK));
        layer.out_channels * chunks * PATTERNS * size_of::<[f32; 2]>()
    }

    /// Share of word lines that are driven.
    pub fn activity(&self, windows: &[i64]) -> f64 {
        let layer = &self.layer;
        let channels = (0..layer.out_channels).step_by(layer.group_channels);
        let groups = channels.len() as f64;
        channels.map(|o| Patterns::new(layer, o, self.chunk_rows, windows).activity(layer)).sum::<f64>() / groups
    }

    /// Sums of `windows`, pixel by pixel: `out_channels` for each.
    pub fn sums(&self, table: &CountTable, windows: &[i64]) -> Vec<i64> {
        let (layer, n) = (&self.layer, self.layer.group_channels);
        let mut out = vec![0; windows.len() / layer.window * layer.out_channels];
        for first in (0..layer.out_channels).step_by(n) {
            let patterns = Patterns::new(layer, first, self.chunk_rows, windows);
            let (totals, remainders) = self.linear(&patterns, first);
            for (pixel, (totals, (seed, variance))) in totals.chunks_exact(n).zip(remainders).enumerate() {
                let (key, sigma) = (self.key.at(seed), variance.sqrt());
                for (o, &total) in (first..first + n).zip(totals) {
                    let quantile = || table.quantiles[(key.u64(o as u64) >> (64 - QUANTILES.ilog2())) as usize];
                    let drawn = if sigma > 0.0 { sigma * f64::from(quantile()) } else { 0.0 };
                    let total = round_half_up(total + drawn) as i64 - self.known(o);
                    let (lo, hi) = layer.bounds[o];
                    out[pixel * layer.out_channels + o] = self.slices.sum(total, patterns.sums[pixel]).clamp(lo, hi);
                }
            }
        }
        out
    }

    /// The part of the sum of a channel's counts that is not `sum In' s`.
    fn known(&self, o: usize) -> i64 {
        match self.encoding {
            Encoding::Match => self.known[o] * ((1 << self.slices.input_bits()) - 1),
            Encoding::Differential | Encoding::And => 0,
        }
    }

    /// `[pixel][channel]`: the sums of the reads' linear forms, of the group of channels from `first` on; and of each
    /// pixel a number that its inputs give, and the variance of the remainders.
    fn linear(&self, patterns: &Patterns, first: usize) -> (Vec<f64>, Vec<(u64, f64)>) {
        let (n, chunks) = (self.layer.group_channels, self.layer.inputs.div_ceil(self.chunk_rows));
        let multipliers = || self.slices.multipliers.iter().map(|&m| m as f64);
        let (whole, squares) = (multipliers().sum::<f64>(), multipliers().map(|m| m * m).sum::<f64>());
        let mut totals = vec![0f64; patterns.pixels * n];
        let mut remainders = vec![(0u64, 0f64); patterns.pixels];
        let (mut rows, mut line) = (Vec::new(), vec![0f32; 2 * n]);
        for read in 0..chunks.div_ceil(self.read_chunks) {
            let of_read = read * self.read_chunks..((read + 1) * self.read_chunks).min(chunks);
            let used = (of_read.end * self.chunk_rows).min(self.layer.inputs) - of_read.start * self.chunk_rows;
            let entries = &self.entries[read % self.entries.len()];
            for (bit, pixel) in
                (0..self.layer.input_bits).flat_map(|bit| (0..patterns.pixels).map(move |pixel| (bit, pixel)))
            {
                rows.clear();
                let (mut driven, mut word) = (0, 0u64);
                for chunk in of_read.clone() {
                    let pattern = patterns.of(chunk, bit.into())[pixel];
                    driven += pattern.count_ones() as usize;
                    word = word.rotate_left(8) ^ u64::from(pattern);
                    if pattern != 0 || self.encoding == Encoding::Match {
                        rows.push(row_of(&self.tables, 2 * n, first / n * chunks + chunk, pattern));
                    }
                }
                let (seed, variance) = &mut remainders[pixel];
                *seed = (*seed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
                // Matches drive every row.
                let entry = &entries[if self.encoding == Encoding::Match { used } else { driven }];
                let weight = f64::from(1u32 << bit);
                *variance += weight * weight * squares * entry.variance;
                add(&rows, &mut line);
                let (counts, errors) = line.split_at(n);
                let [offset, c_gain, e_gain] = [entry.offset * whole, entry.c_gain, entry.e_gain].map(|x| weight * x);
                for ((total, &c), &e) in totals[pixel * n..][..n].iter_mut().zip(counts).zip(errors) {
                    *total += offset + c_gain * f64::from(c) + e_gain * f64::from(e);
                }
            }
        }
        (totals, remainders)
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
