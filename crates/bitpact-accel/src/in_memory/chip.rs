//! A layer on the arrays of one chip, cell by cell: every cell's current is drawn once, and every read is the sum of
//! the currents of those that are driven.

use bitpact_core::rng::Key;

use super::cell::{Cell, Encoding, Stored};
use super::encoding::Slices;
use super::layers::Layer;
use super::patterns::{CHUNK, Patterns};
use super::reader::Reader;

/// A table of a chunk has an entry for each pattern of its rows.
const PATTERNS: usize = 1 << CHUNK;

/// Reads of a count, the wrong ones among them, and the squares of their errors.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct ReadErrors {
    /// Reads: conversions of a column.
    pub reads: u64,
    /// Number of reads whose level is not the true count.
    pub wrong: u64,
    /// Sum of squares of level minus count.
    pub squares: u64,
}

impl ReadErrors {
    /// Share of reads that are wrong.
    pub fn rate(&self) -> f64 {
        self.wrong as f64 / self.reads.max(1) as f64
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.wrong += other.wrong;
        self.squares += other.squares;
    }

    pub(crate) fn note(&mut self, level: i32, count: i32) {
        self.reads += 1;
        self.wrong += u64::from(level != count);
        self.squares += u64::from(level.abs_diff(count)).pow(2);
    }
}

/// What the tables of chunks hold.
enum Tables {
    /// Levels of whole reads, where a read is one chunk.
    Levels(Vec<i8>),
    /// Currents of the two lines, where a read is several.
    Currents(Vec<[f32; 2]>),
}

/// A layer on one chip.
pub struct ChipLayer {
    layer: Layer,
    slices: Slices,
    encoding: Encoding,
    reader: Reader,
    chunk_rows: usize,
    /// Chunks of a read.
    read_chunks: usize,
    /// `[output channel][plane][chunk][pattern]`.
    tables: Tables,
    /// `[output channel][plane][chunk]`: the rows that store the high current.
    stored: Vec<u8>,
    /// `[output channel][plane]`: rows that store -1, for matches.
    minus_rows: Vec<i64>,
    /// `[converter]`, empty where no threshold is moved.
    thresholds: Vec<Vec<f64>>,
    columns_per_adc: usize,
}

impl ChipLayer {
    /// Bytes that the tables of `layer` take.
    pub fn bytes(cell: &Cell, layer: &Layer) -> usize {
        let at_once = cell.array.rows_at_once;
        let entry = if at_once > CHUNK { size_of::<[f32; 2]>() } else { 1 };
        let chunks = layer.inputs.div_ceil(at_once.min(CHUNK));
        layer.out_channels * usize::from(layer.weight_bits) * chunks * PATTERNS * entry
    }

    /// Draws the cells of `layer`; `chip` is the chip's key.
    pub fn new(cell: &Cell, layer: &Layer, chip: Key) -> Self {
        let key = chip.with(&layer.name);
        let reader = Reader::new(cell);
        let slices = Slices::new(cell.encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let at_once = cell.array.rows_at_once;
        let chunk_rows = at_once.min(CHUNK);
        let (chunks, columns) = (layer.inputs.div_ceil(chunk_rows), layer.out_channels * slices.planes());
        let sub_arrays = layer.inputs.div_ceil(cell.array.rows);
        let converters = columns.div_ceil(cell.array.columns_per_adc) * sub_arrays;
        let offset = cell.adc.offset_sigma;
        let drawn = |i: usize| reader.thresholds(offset, key.with("converter").at(i as u64));
        let mut chip = Self {
            layer: layer.clone(),
            encoding: cell.encoding,
            chunk_rows,
            read_chunks: at_once / chunk_rows,
            tables: Tables::Levels(Vec::new()),
            stored: Vec::with_capacity(columns * chunks),
            minus_rows: Vec::with_capacity(columns),
            thresholds: if offset == 0.0 { Vec::new() } else { (0..converters).map(drawn).collect() },
            columns_per_adc: cell.array.columns_per_adc,
            slices,
            reader,
        };
        let mut currents = Vec::with_capacity(PATTERNS);
        let (mut levels, mut all) = (Vec::new(), Vec::new());
        for column in 0..columns {
            let (o, plane) = (column / chip.slices.planes(), column % chip.slices.planes());
            let bits: Vec<bool> = layer.channel(o).iter().map(|&q| chip.slices.stored(q, plane)).collect();
            chip.minus_rows.push(bits.iter().filter(|&&b| !b).count() as i64);
            for (c, rows) in bits.chunks(chunk_rows).enumerate() {
                chip.stored.push(rows.iter().enumerate().fold(0, |mask, (r, &b)| mask | u8::from(b) << r));
                let cells = rows.iter().enumerate().map(|(r, &b)| row(cell, key, b, column, c * chunk_rows + r));
                tabulate(&cells.collect::<Vec<_>>(), &mut currents);
                if chip.read_chunks == 1 {
                    let level = |&[plus, minus]: &[f32; 2]| chip.level(plus, minus, column, c, rows.len());
                    levels.extend(currents.iter().map(level).map(|l| l.clamp(-128, 127) as i8));
                } else {
                    all.extend_from_slice(&currents);
                }
            }
        }
        chip.tables = if chip.read_chunks == 1 { Tables::Levels(levels) } else { Tables::Currents(all) };
        chip
    }

    /// What the converter makes of the currents of read `read` of `column`, `rows` of whose rows are used.
    #[inline]
    fn level(&self, plus: f32, minus: f32, column: usize, read: usize, rows: usize) -> i32 {
        let (groups, columns) = (self.reader.groups(), self.reader.columns());
        let counts = self.reader.counts(plus.into(), minus.into(), rows, read % groups, column % columns);
        if self.thresholds.is_empty() {
            return self.reader.level(counts);
        }
        let converters = (self.layer.out_channels * self.slices.planes()).div_ceil(self.columns_per_adc);
        let converter = read / groups * converters + column / self.columns_per_adc;
        self.reader.level_of(counts, &self.thresholds[converter])
    }

    /// Reads of a column.
    fn reads(&self) -> usize {
        self.layer.inputs.div_ceil(self.chunk_rows * self.read_chunks)
    }

    /// Calls `told(input bit, levels, read)` with the levels of all pixels, for every read of `column` and every input
    /// bit.
    fn read_column(&self, patterns: &Patterns, column: usize, mut told: impl FnMut(usize, &[i32], usize)) {
        let chunks = self.layer.inputs.div_ceil(self.chunk_rows);
        let pixels = patterns.pixels;
        let (mut levels, mut lines) = (vec![0i32; pixels], vec![[0f32; 2]; pixels]);
        for read in 0..self.reads() {
            let first = read * self.read_chunks;
            let last = (first + self.read_chunks).min(chunks);
            for bit in 0..usize::from(self.slices.input_bits()) {
                match &self.tables {
                    Tables::Levels(tables) => {
                        let table: &[i8; PATTERNS] = table(tables, column * chunks + first);
                        for (level, &p) in levels.iter_mut().zip(patterns.of(first, bit)) {
                            *level = table[usize::from(p)].into();
                        }
                    }
                    Tables::Currents(tables) => {
                        lines.fill([0.0; 2]);
                        for chunk in first..last {
                            let table: &[[f32; 2]; PATTERNS] = table(tables, column * chunks + chunk);
                            for (line, &p) in lines.iter_mut().zip(patterns.of(chunk, bit)) {
                                let [plus, minus] = table[usize::from(p)];
                                line[0] += plus;
                                line[1] += minus;
                            }
                        }
                        let rows = (last * self.chunk_rows).min(self.layer.inputs) - first * self.chunk_rows;
                        for (level, &[plus, minus]) in levels.iter_mut().zip(&lines) {
                            *level = self.level(plus, minus, column, read, rows);
                        }
                    }
                }
                told(bit, &levels, read);
            }
        }
    }

    /// Sums of `windows`, pixel by pixel: `out_channels` for each.
    pub fn sums(&self, windows: &[i64]) -> Vec<i64> {
        let layer = &self.layer;
        let pixels = windows.len() / layer.window;
        let mut out = vec![0; pixels * layer.out_channels];
        let (mut plane_sums, mut totals) = (vec![0i64; pixels], vec![0i64; pixels]);
        let mut patterns = None;
        for o in 0..layer.out_channels {
            if o % layer.group_channels == 0 {
                patterns = Some(Patterns::new(layer, o, self.chunk_rows, windows));
            }
            let patterns = patterns.as_ref().expect("made for the first channel");
            totals.fill(0);
            for (plane, multiplier) in self.slices.multipliers.iter().enumerate() {
                let column = o * self.slices.planes() + plane;
                plane_sums.fill(0);
                self.read_column(patterns, column, |bit, levels, _| {
                    for (sum, &level) in plane_sums.iter_mut().zip(levels) {
                        *sum += i64::from(level) << bit;
                    }
                });
                let known = self.known(column);
                for (total, sum) in totals.iter_mut().zip(&plane_sums) {
                    *total += multiplier * (sum - known);
                }
            }
            let (lo, hi) = layer.bounds[o];
            for (pixel, (&total, &inputs)) in totals.iter().zip(&patterns.sums).enumerate() {
                out[pixel * layer.out_channels + o] = self.slices.sum(total, inputs).clamp(lo, hi);
            }
        }
        out
    }

    /// The part of the sum of a plane's counts that is not `sum In' s`: matches count the rows that store -1 for each
    /// input bit.
    fn known(&self, column: usize) -> i64 {
        match self.encoding {
            Encoding::Match => self.minus_rows[column] * ((1 << self.slices.input_bits()) - 1),
            _ => 0,
        }
    }

    /// How often the reads of `windows` are wrong, and the share of word lines that are driven.
    pub fn errors(&self, windows: &[i64]) -> (ReadErrors, f64) {
        let (layer, mut errors, mut activity) = (&self.layer, ReadErrors::default(), 0.0);
        let chunks = layer.inputs.div_ceil(self.chunk_rows);
        let groups = layer.out_channels / layer.group_channels;
        for group in 0..groups {
            let patterns = Patterns::new(layer, group * layer.group_channels, self.chunk_rows, windows);
            activity += patterns.activity(layer) / groups as f64;
            let columns = group * layer.group_channels * self.slices.planes();
            for column in columns..columns + layer.group_channels * self.slices.planes() {
                self.read_column(&patterns, column, |bit, levels, read| {
                    let chunks_of = read * self.read_chunks..((read + 1) * self.read_chunks).min(chunks);
                    for (pixel, &level) in levels.iter().enumerate() {
                        let count = chunks_of.clone().map(|chunk| {
                            let rows = (layer.inputs - chunk * self.chunk_rows).min(self.chunk_rows);
                            let stored = self.stored[column * chunks + chunk];
                            count(self.encoding, patterns.of(chunk, bit)[pixel], stored, rows)
                        });
                        errors.note(level, count.sum());
                    }
                });
            }
        }
        (errors, activity)
    }
}

/// The count of a chunk of `rows` rows that drives `pattern` and stores `stored`.
fn count(encoding: Encoding, pattern: u8, stored: u8, rows: usize) -> i32 {
    let ones = |mask: u8| mask.count_ones() as i32;
    match encoding {
        Encoding::Differential => ones(pattern & stored) - ones(pattern & !stored),
        Encoding::And => ones(pattern & stored),
        Encoding::Match => rows as i32 - ones(pattern ^ stored),
    }
}

fn table<T>(tables: &[T], index: usize) -> &[T; PATTERNS] {
    tables[index * PATTERNS..][..PATTERNS].try_into().expect("of this length")
}

/// Currents of the two lines of row `row` of `column`: driven with 1, and with 0.
fn row(cell: &Cell, key: Key, high: bool, column: usize, row: usize) -> [[f32; 2]; 2] {
    let sample = |high: bool, purpose: &str, at: usize| {
        cell.sample(if high { Stored::High } else { Stored::Low }, key.with(purpose).at(at as u64).at(row as u64))
            as f32
    };
    match cell.encoding {
        Encoding::Differential => [[sample(high, "plus", column), sample(!high, "minus", column)], [0.0; 2]],
        // All columns of a sub-array share its dummy column.
        Encoding::And => {
            [[sample(high, "plus", column), sample(false, "dummy", column / cell.array.columns)], [0.0; 2]]
        }
        Encoding::Match => [[sample(high, "plus", column), 0.0], [sample(!high, "minus", column), 0.0]],
    }
}

/// Currents of every pattern of `rows`; patterns of rows that do not exist are those without them.
fn tabulate(rows: &[[[f32; 2]; 2]], out: &mut Vec<[f32; 2]>) {
    out.clear();
    out.push(rows.iter().fold([0.0; 2], |sum, [_, off]| [sum[0] + off[0], sum[1] + off[1]]));
    for pattern in 1..PATTERNS {
        let before = out[pattern & (pattern - 1)];
        out.push(match rows.get(pattern.trailing_zeros() as usize) {
            Some([on, off]) => [before[0] + on[0] - off[0], before[1] + on[1] - off[1]],
            None => before,
        });
    }
}
