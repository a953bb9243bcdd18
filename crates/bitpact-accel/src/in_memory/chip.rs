//! A layer on the arrays of one chip, cell by cell: every cell's current is drawn once, and every read is the sum of
//! the currents of those that are driven.

use std::ops::{AddAssign, Mul, Range, Shl};

use bitpact_core::rng::Key;

use super::cell::{Cell, Encoding, Stored};
use super::encoding::Slices;
use super::layers::Layer;
use super::patterns::{CHUNK, Patterns};
use super::reader::Reader;

/// A table of a chunk has an entry for each pattern of its rows.
const PATTERNS: usize = 1 << CHUNK;

/// Chunks whose sums are added before they are weighted: their tables fit into a cache.
const TOGETHER: usize = 4;

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

/// The entries of the tables of chunks, `[group of channels][chunk][pattern]` and then a row of columns or channels.
enum Tables {
    /// Entries of reads of one chunk: the levels of its columns, and what they add to the sum of each channel, `sum
    /// over planes j of multipliers[j] levels[j]`, with the largest of these sizes.
    Levels { levels: Vec<i8>, sums: Vec<i32>, largest: i64 },
    /// Entries of reads of several: the currents of the columns' bit lines, and of their other lines or the dummy
    /// columns of the sub-arrays that the group's columns lie in.
    Currents { plus: Vec<f32>, minus: Vec<f32> },
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
    tables: Tables,
    /// `[output channel][plane][chunk]`: the rows that store the high current.
    stored: Vec<u8>,
    /// `[output channel][plane]`: rows that store -1, for matches.
    minus_rows: Vec<i64>,
    /// `[converter]`, empty where no threshold is moved.
    thresholds: Vec<Vec<f64>>,
    columns_per_adc: usize,
    /// Columns of a sub-array.
    cell_columns: usize,
}

impl ChipLayer {
    /// Bytes that the tables of `layer` take.
    pub fn bytes(cell: &Cell, layer: &Layer) -> usize {
        let at_once = cell.array.rows_at_once;
        let planes = usize::from(layer.weight_bits);
        let of_channel = if at_once > CHUNK { planes * size_of::<[f32; 2]>() } else { planes + size_of::<i32>() };
        layer.out_channels * of_channel * layer.inputs.div_ceil(at_once.min(CHUNK)) * PATTERNS
    }

    /// Draws the cells of `layer`; `chip` is the chip's key.
    pub fn new(cell: &Cell, layer: &Layer, chip: Key) -> Self {
        let key = chip.with(&layer.name);
        let mut chip = Self::empty(cell, layer, key);
        let (columns, chunks) = (chip.columns(), chip.chunks());
        let (mut currents, mut levels) = (Vec::with_capacity(PATTERNS), vec![0; PATTERNS * columns]);
        for (group, chunk) in (0..chip.groups()).flat_map(|group| (0..chunks).map(move |chunk| (group, chunk))) {
            let (first, others) = (group * columns, chip.minus_columns(group));
            let first_row = chunk * chip.chunk_rows;
            let rows = (layer.inputs - first_row).min(chip.chunk_rows);
            let mut lines = [vec![0.0; PATTERNS * columns], vec![0.0; PATTERNS * others]];
            for column in 0..columns {
                let stored = chip.stored[(first + column) * chunks + chunk];
                let cells = (0..rows).map(|r| row(cell, key, stored >> r & 1 == 1, first + column, first_row + r));
                tabulate(&cells.collect::<Vec<_>>(), &mut currents);
                let place = chip.minus_place(group, column);
                for (pattern, &[plus, minus]) in currents.iter().enumerate() {
                    if chip.read_chunks == 1 {
                        let level = chip.level(plus, minus, first + column, chunk, rows);
                        levels[pattern * columns + column] = level.clamp(-128, 127) as i8;
                        continue;
                    }
                    lines[0][pattern * columns + column] = plus;
                    if let Some(place) = place {
                        lines[1][pattern * others + place] = minus;
                    }
                }
            }
            match &mut chip.tables {
                Tables::Currents { plus, minus } => {
                    plus.extend_from_slice(&lines[0]);
                    minus.extend_from_slice(&lines[1]);
                }
                Tables::Levels { .. } => chip.push_levels(&levels),
            }
        }
        chip
    }

    /// A layer without tables.
    fn empty(cell: &Cell, layer: &Layer, key: Key) -> Self {
        let reader = Reader::new(cell);
        let slices = Slices::new(cell.encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let at_once = cell.array.rows_at_once;
        let chunk_rows = at_once.min(CHUNK);
        let columns = layer.out_channels * slices.planes();
        let sub_arrays = layer.inputs.div_ceil(cell.array.rows);
        let converters = columns.div_ceil(cell.array.columns_per_adc) * sub_arrays;
        let offset = cell.adc.offset_sigma;
        let drawn = |i: usize| reader.thresholds(offset, key.with("converter").at(i as u64));
        let (mut stored, mut minus_rows) = (Vec::new(), Vec::with_capacity(columns));
        for column in 0..columns {
            let (o, plane) = (column / slices.planes(), column % slices.planes());
            let bits: Vec<bool> = layer.channel(o).iter().map(|&q| slices.stored(q, plane)).collect();
            minus_rows.push(bits.iter().filter(|&&b| !b).count() as i64);
            let mask = |rows: &[bool]| rows.iter().enumerate().fold(0, |mask, (r, &b)| mask | u8::from(b) << r);
            stored.extend(bits.chunks(chunk_rows).map(mask));
        }
        Self {
            layer: layer.clone(),
            encoding: cell.encoding,
            chunk_rows,
            read_chunks: at_once / chunk_rows,
            tables: match at_once > chunk_rows {
                true => Tables::Currents { plus: Vec::new(), minus: Vec::new() },
                false => Tables::Levels { levels: Vec::new(), sums: Vec::new(), largest: 0 },
            },
            stored,
            minus_rows,
            thresholds: if offset == 0.0 { Vec::new() } else { (0..converters).map(drawn).collect() },
            columns_per_adc: cell.array.columns_per_adc,
            cell_columns: cell.array.columns,
            slices,
            reader,
        }
    }

    /// Appends the levels `[pattern][column]` of a read.
    fn push_levels(&mut self, of_read: &[i8]) {
        let Tables::Levels { levels, sums, largest } = &mut self.tables else { unreachable!("a read is one chunk") };
        levels.extend_from_slice(of_read);
        let multipliers = &self.slices.multipliers;
        sums.extend(of_read.chunks_exact(multipliers.len()).map(|planes| {
            let terms = planes.iter().zip(multipliers).map(|(&level, &multiplier)| i64::from(level) * multiplier);
            let sum = terms.sum::<i64>();
            *largest = sum.abs().max(*largest);
            sum as i32
        }));
    }

    /// Groups of channels.
    fn groups(&self) -> usize {
        self.layer.out_channels / self.layer.group_channels
    }

    /// Columns of a group of channels.
    fn columns(&self) -> usize {
        self.layer.group_channels * self.slices.planes()
    }

    fn chunks(&self) -> usize {
        self.layer.inputs.div_ceil(self.chunk_rows)
    }

    /// Chunks of read `read`, and their rows.
    fn of_read(&self, read: usize) -> (Range<usize>, usize) {
        let chunks = read * self.read_chunks..((read + 1) * self.read_chunks).min(self.chunks());
        let rows = (chunks.end * self.chunk_rows).min(self.layer.inputs) - chunks.start * self.chunk_rows;
        (chunks, rows)
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

    /// Calls `told(read, input bit, pixel, levels)` with the levels of the columns of `group`, for every read, input
    /// bit and pixel.
    fn each_read(&self, patterns: &Patterns, group: usize, mut told: impl FnMut(usize, usize, usize, &[f32])) {
        let (columns, chunks, first) = (self.columns(), self.chunks(), group * self.columns());
        let bits = usize::from(self.slices.input_bits());
        let mut levels = vec![0.0; columns];
        let (plus, minus) = match &self.tables {
            Tables::Levels { levels: table, .. } => {
                for (chunk, bit) in (0..chunks).flat_map(|chunk| (0..bits).map(move |bit| (chunk, bit))) {
                    for (pixel, &pattern) in patterns.of(chunk, bit).iter().enumerate() {
                        let row = row_of(table, columns, group * chunks + chunk, pattern);
                        levels.iter_mut().zip(row).for_each(|(to, &level)| *to = level.into());
                        told(chunk, bit, pixel, &levels);
                    }
                }
                return;
            }
            Tables::Currents { plus, minus } => (plus, minus),
        };
        let before: usize = (0..group).map(|group| self.minus_columns(group)).sum::<usize>() * chunks * PATTERNS;
        let (minus, others) = (&minus[before..], self.minus_columns(group));
        let places: Vec<Option<usize>> = (0..columns).map(|column| self.minus_place(group, column)).collect();
        let (mut line, mut other, mut spread) = (vec![0f32; columns], vec![0f32; others], vec![0f32; columns]);
        let (mut line_rows, mut other_rows) = (Vec::new(), Vec::new());
        let is_match = self.encoding == Encoding::Match;
        for read in 0..chunks.div_ceil(self.read_chunks) {
            let (of_read, rows) = self.of_read(read);
            let converter = self.reader.converter(read, rows, first, columns);
            for (bit, pixel) in (0..bits).flat_map(|bit| (0..patterns.pixels).map(move |pixel| (bit, pixel))) {
                line_rows.clear();
                other_rows.clear();
                for chunk in of_read.clone() {
                    let pattern = patterns.of(chunk, bit)[pixel];
                    if pattern != 0 || is_match {
                        line_rows.push(row_of(plus, columns, group * chunks + chunk, pattern));
                        other_rows.push(row_of(minus, others, chunk, pattern));
                    }
                }
                add(&line_rows, &mut line);
                add(&other_rows, &mut other);
                let minus = match self.encoding {
                    Encoding::Differential => &other,
                    Encoding::And | Encoding::Match => {
                        for (to, place) in spread.iter_mut().zip(&places) {
                            *to = place.map_or(0.0, |place| other[place]);
                        }
                        &spread
                    }
                };
                if self.thresholds.is_empty() {
                    converter.levels(&line, minus, &mut levels);
                } else {
                    for (column, to) in levels.iter_mut().enumerate() {
                        *to = self.level(line[column], minus[column], first + column, read, rows) as f32;
                    }
                }
                told(read, bit, pixel, &levels);
            }
        }
    }

    /// Lines beside the bit lines of the columns of a group, or dummy columns of its sub-arrays.
    fn minus_columns(&self, group: usize) -> usize {
        let (columns, first) = (self.columns(), group * self.columns());
        match self.encoding {
            Encoding::Differential => columns,
            Encoding::And => (first + columns - 1) / self.cell_columns - first / self.cell_columns + 1,
            Encoding::Match => 0,
        }
    }

    /// The line beside the bit line of a column of a group, or its dummy column, of those of the group.
    fn minus_place(&self, group: usize, column: usize) -> Option<usize> {
        let first = group * self.columns();
        match self.encoding {
            Encoding::Differential => Some(column),
            Encoding::And => Some((first + column) / self.cell_columns - first / self.cell_columns),
            Encoding::Match => None,
        }
    }

    /// `[pixel][channel]`: `sum over input bits i and planes j of 2^i multipliers[j] levels`, for the channels of
    /// `group`.
    fn plane_sums(&self, patterns: &Patterns, group: usize) -> Vec<i64> {
        if let Tables::Levels { sums, largest, .. } = &self.tables {
            let bound = largest * self.chunks() as i64 * ((1 << self.slices.input_bits()) - 1);
            return match i32::try_from(bound) {
                Ok(_) => self.table_sums::<i32>(sums, patterns, group),
                Err(_) => self.table_sums::<i64>(sums, patterns, group),
            };
        }
        // Single precision holds whole numbers up to 2^24.
        let reads = self.chunks().div_ceil(self.read_chunks) as i64;
        let totals = match self.reader.range() * reads * ((1 << self.slices.input_bits()) - 1) {
            ..=0xff_ffff => self.column_sums::<f32>(patterns, group),
            _ => self.column_sums::<f64>(patterns, group),
        };
        let multipliers = &self.slices.multipliers;
        let of_channel = |totals: &[i64]| totals.iter().zip(multipliers).map(|(total, m)| total * m).sum();
        totals.chunks_exact(multipliers.len()).map(of_channel).collect()
    }

    /// `[pixel][column]`: `sum over input bits i of 2^i levels`, for the columns of `group`.
    fn column_sums<T>(&self, patterns: &Patterns, group: usize) -> Vec<i64>
    where
        T: Copy + Default + From<f32> + Into<f64> + AddAssign + Mul<Output = T>,
    {
        let columns = self.columns();
        let mut totals = vec![T::default(); patterns.pixels * columns];
        self.each_read(patterns, group, |_, bit, pixel, levels| {
            let weight = T::from((1u32 << bit) as f32);
            let totals = &mut totals[pixel * columns..][..columns];
            totals.iter_mut().zip(levels).for_each(|(total, &level)| *total += weight * T::from(level));
        });
        totals.into_iter().map(|total| total.into() as i64).collect()
    }

    fn table_sums<T>(&self, sums: &[i32], patterns: &Patterns, group: usize) -> Vec<i64>
    where
        T: Copy + Default + From<i32> + Into<i64> + AddAssign + Shl<u32, Output = T>,
    {
        let (n, chunks) = (self.layer.group_channels, self.chunks());
        let mut totals = vec![T::default(); patterns.pixels * n];
        let (mut rows, mut line) = (Vec::with_capacity(TOGETHER), vec![0; n]);
        let bits = 0..u32::from(self.slices.input_bits());
        for (first, bit) in (0..chunks).step_by(TOGETHER).flat_map(|chunk| bits.clone().map(move |bit| (chunk, bit))) {
            for (pixel, totals) in totals.chunks_exact_mut(n).enumerate() {
                rows.clear();
                rows.extend((first..chunks.min(first + TOGETHER)).map(|chunk| {
                    let pattern = patterns.of(chunk, bit as usize)[pixel];
                    row_of(sums, n, group * chunks + chunk, pattern)
                }));
                add(&rows, &mut line);
                totals.iter_mut().zip(&line).for_each(|(total, &sum)| *total += T::from(sum) << bit);
            }
        }
        totals.into_iter().map(T::into).collect()
    }

    /// Sums of `windows`, pixel by pixel: `out_channels` for each.
    pub fn sums(&self, windows: &[i64]) -> Vec<i64> {
        let (layer, n, planes) = (&self.layer, self.layer.group_channels, self.slices.planes());
        let mut out = vec![0; windows.len() / layer.window * layer.out_channels];
        for group in 0..self.groups() {
            let patterns = Patterns::new(layer, group * n, self.chunk_rows, windows);
            let known = |o: usize| {
                let column = |(plane, m): (usize, &i64)| m * self.known((group * n + o) * planes + plane);
                self.slices.multipliers.iter().enumerate().map(column).sum::<i64>()
            };
            let known: Vec<i64> = (0..n).map(known).collect();
            let totals = self.plane_sums(&patterns, group);
            for ((totals, &inputs), out) in
                totals.chunks_exact(n).zip(&patterns.sums).zip(out.chunks_exact_mut(layer.out_channels))
            {
                for (o, (total, known)) in totals.iter().zip(&known).enumerate() {
                    let (lo, hi) = layer.bounds[group * n + o];
                    out[group * n + o] = self.slices.sum(total - known, inputs).clamp(lo, hi);
                }
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
        let (chunks, columns) = (self.chunks(), self.columns());
        for group in 0..self.groups() {
            let patterns = Patterns::new(layer, group * layer.group_channels, self.chunk_rows, windows);
            activity += patterns.activity(layer) / self.groups() as f64;
            self.each_read(&patterns, group, |read, bit, pixel, levels| {
                let (of_read, _) = self.of_read(read);
                for (column, &level) in levels.iter().enumerate() {
                    let count = of_read.clone().map(|chunk| {
                        let rows = (layer.inputs - chunk * self.chunk_rows).min(self.chunk_rows);
                        let stored = self.stored[(group * columns + column) * chunks + chunk];
                        count(self.encoding, patterns.of(chunk, bit)[pixel], stored, rows)
                    });
                    errors.note(level as i32, count.sum());
                }
            });
        }
        (errors, activity)
    }
}

/// The row of pattern `pattern` in table `table` of rows of `n`.
#[inline(always)]
pub(crate) fn row_of<T>(tables: &[T], n: usize, table: usize, pattern: u8) -> &[T] {
    &tables[(table * PATTERNS + usize::from(pattern)) * n..][..n]
}

/// Sums `rows` column by column, a block of columns at a time so that their sums stay in registers.
pub(crate) fn add<T: Copy + Default + AddAssign>(rows: &[&[T]], out: &mut [T]) {
    const BLOCK: usize = 16;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [T::default(); BLOCK];
        for row in rows {
            let row = &row[block * BLOCK..];
            match row.first_chunk::<BLOCK>() {
                Some(row) => sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x),
                None => sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x),
            }
        }
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// The count of a chunk of `rows` rows that drives `pattern` and stores `stored`.
pub(crate) fn count(encoding: Encoding, pattern: u8, stored: u8, rows: usize) -> i32 {
    let ones = |mask: u8| mask.count_ones() as i32;
    match encoding {
        Encoding::Differential => ones(pattern & stored) - ones(pattern & !stored),
        Encoding::And => ones(pattern & stored),
        Encoding::Match => rows as i32 - ones(pattern ^ stored),
    }
}

/// Currents of the two lines of row `row` of `column`: driven with 1, and with 0.
pub(crate) fn row(cell: &Cell, key: Key, high: bool, column: usize, row: usize) -> [[f32; 2]; 2] {
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
pub(crate) fn tabulate(rows: &[[[f32; 2]; 2]], out: &mut Vec<[f32; 2]>) {
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
