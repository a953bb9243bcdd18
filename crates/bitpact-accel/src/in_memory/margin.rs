//! Sense margins, read disturb and how often a count is read wrongly.

use bitpact_core::rng::Key;

use super::cell::{Array, Cell, Encoding, Storage, Stored};
use super::ladder::{Droop, exact};
use super::reader::{self, Reader};

/// Cells drawn for the moments of a spread: means of 64 rows are then right within a hundredth of a count.
const MOMENT_CELLS: u64 = 1 << 16;

/// Half of the smallest distance between the currents of neighbouring counts, in microamperes, over all the data that
/// give them. Below 0 they overlap.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Margins {
    /// Nominal cells without wires: `(I_high - I_low) / 2`.
    pub ideal_ua: f64,
    /// Nominal cells, with the linear droop of the farthest group of rows.
    pub droop_ua: f64,
    /// Nominal cells, with the exact ladder of resistors, over the rows nearest to the sense circuit and the farthest.
    pub exact_ua: f64,
    /// With the droop, where every level may be off by three standard deviations of its cells.
    pub three_sigma_ua: f64,
    /// Largest difference of exact ladder and linear droop over those data, in counts.
    pub droop_error_counts: f64,
    /// Largest difference of the exact network of a whole sub-array and the droops of its word and bit lines, in
    /// counts, over its columns, in a read of fair random data in the rows farthest from the sense circuits.
    pub array_error_counts: f64,
}

/// `1 - I / I_c`: what is left before a read current switches a junction.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct ReadDisturb {
    /// `1 - I / I_c` of the parallel state, which carries the high current, where the read current can switch it.
    pub parallel: f64,
    /// `1 - I / I_c` of the antiparallel state, which carries the low current, where the read current can switch it.
    pub antiparallel: f64,
}

/// Cells of a read: how many carry which current.
#[derive(Clone, Copy)]
struct Data {
    count: i64,
    /// High and low cells of the bit line.
    plus: (usize, usize),
    /// High and low cells of the line that is subtracted.
    minus: (usize, usize),
}

/// Everything that a read of `rows` rows can be.
fn all_data(encoding: Encoding, rows: usize) -> Vec<Data> {
    let pairs = |most: usize| (0..=most).flat_map(move |a| (0..=most - a).map(move |b| (a, b)));
    match encoding {
        Encoding::Differential => {
            pairs(rows).map(|(p, m)| Data { count: p as i64 - m as i64, plus: (p, m), minus: (m, p) }).collect()
        }
        Encoding::And => pairs(rows)
            .map(|(ones, zeros)| Data { count: ones as i64, plus: (ones, zeros), minus: (0, ones + zeros) })
            .collect(),
        Encoding::Match => {
            (0..=rows).map(|n| Data { count: n as i64, plus: (n, rows - n), minus: (0, rows) }).collect()
        }
    }
}

/// Smallest half distance of neighbouring counts, given the interval of currents of every kind of data.
fn margin(data: &[Data], interval: impl Fn(&Data) -> (f64, f64)) -> f64 {
    let mut levels = std::collections::BTreeMap::<i64, (f64, f64)>::new();
    for one in data {
        let (low, high) = interval(one);
        let level = levels.entry(one.count).or_insert((f64::INFINITY, f64::NEG_INFINITY));
        *level = (level.0.min(low), level.1.max(high));
    }
    let gaps = levels.values().zip(levels.values().skip(1)).map(|(below, above)| above.0 - below.1);
    0.5 * gaps.fold(f64::INFINITY, f64::min)
}

/// The margins of `cell` as its array reads it.
pub fn margins(cell: &Cell) -> Margins {
    let (array, rows) = (&cell.array, cell.array.rows_at_once);
    let (high, low) = (cell.high_ua(), cell.low_ua());
    let data = all_data(cell.encoding, rows);
    let sum = |(h, l): (usize, usize)| h as f64 * high + l as f64 * low;
    let droop = Droop::new(array, cell.read_v, array.rows - rows, rows);
    let drooped = |one: &Data| droop.apply(sum(one.plus)) - droop.apply(sum(one.minus));
    let exact: Vec<[f64; 2]> = data.iter().map(|one| exact_ends(cell, array, one)).collect();
    let step = Reader::new(cell).step_ua();
    let differences = data.iter().zip(&exact).flat_map(|(one, ends)| ends.map(|e| (e - drooped(one)).abs() / step));
    let moments = [Stored::High, Stored::Low].map(|stored| moments(cell, stored));
    let sigma = |one: &Data| {
        let variance = |(h, l): (usize, usize)| h as f64 * moments[0].variance + l as f64 * moments[1].variance;
        let minus = if cell.encoding == Encoding::Match { 0.0 } else { variance(one.minus) };
        (variance(one.plus) + minus).sqrt()
    };
    let index: std::collections::BTreeMap<_, _> =
        data.iter().enumerate().map(|(i, d)| ((d.plus, d.minus), i)).collect();
    Margins {
        ideal_ua: 0.5 * (high - low),
        droop_ua: margin(&data, |one| (drooped(one), drooped(one))),
        exact_ua: margin(&data, |one| {
            let [a, b] = exact[index[&(one.plus, one.minus)]];
            (a.min(b), a.max(b))
        }),
        three_sigma_ua: margin(&data, |one| {
            let (at, reach) = (drooped(one), 3.0 * sigma(one));
            (at - reach, at + reach)
        }),
        droop_error_counts: differences.fold(0.0, f64::max),
        array_error_counts: array_error(cell, droop) / step,
    }
}

/// Exact currents of the data in the farthest group of rows: with the high cells nearest to the sense circuit, and with
/// the low ones.
fn exact_ends(cell: &Cell, array: &Array, one: &Data) -> [f64; 2] {
    let (high, low) = (cell.high_ua(), cell.low_ua());
    let lines = Array { word_line_ohm: 0.0, ..*array };
    let line = |(h, l): (usize, usize), high_first: bool| {
        let idle = array.rows - array.rows_at_once;
        let (first, second) = if high_first { ((h, high), (l, low)) } else { ((l, low), (h, high)) };
        let cells = [(idle, 0.0), first, second].into_iter().flat_map(|(n, ua)| std::iter::repeat_n(vec![ua], n));
        let mut cells: Vec<Vec<f64>> = cells.collect();
        cells.resize(array.rows, vec![0.0]);
        exact(&cells, cell.read_v, &lines)[0]
    };
    // The rows whose cell on one line is high have the low one on the other.
    [true, false].map(|near| line(one.plus, near) - line(one.minus, !near))
}

/// Largest difference, in microamperes, of what the columns of a sub-array of nominal cells carry exactly and by the
/// droops.
fn array_error(cell: &Cell, droop: Droop) -> f64 {
    let array = &cell.array;
    let (rows, columns, lines_of) = (array.rows_at_once, array.columns, reader::lines(cell.encoding));
    let (inputs, weights) = (Key::new(1).with("inputs"), Key::new(1).with("weights"));
    let current = |row: usize, line: usize| {
        let input = inputs.u64(row as u64) >> 63 == 1;
        let weight = weights.u64((row * columns + line / lines_of) as u64) >> 63 == 1;
        let (driven, high) = match cell.encoding {
            Encoding::Match => (true, input == weight),
            _ => (input, weight != (lines_of == 2 && line % 2 == 1)),
        };
        let ua = if high { cell.high_ua() } else { cell.low_ua() };
        if driven { ua } else { 0.0 }
    };
    let cells: Vec<Vec<f64>> =
        (0..rows).map(|r| (0..lines_of * columns).map(|line| current(r, line)).collect()).collect();
    // The rows that are not driven are wire.
    let driver_ohm = array.driver_ohm + array.bit_line_ohm * (array.rows - rows) as f64;
    let exact = exact(&cells, cell.read_v, &Array { driver_ohm, ..*array });
    let shares = reader::shares(cell);
    let off = |line: usize| {
        let whole: f64 = cells.iter().map(|row| row[line]).sum();
        exact[line] - droop.apply(shares[line / lines_of] * whole)
    };
    let column =
        |c: usize| (0..lines_of).map(|l| if l == 0 { off(lines_of * c) } else { -off(lines_of * c + l) }).sum::<f64>();
    (0..columns).map(|c| column(c).abs()).fold(0.0, f64::max)
}

/// Mean and variance of a cell's current, in microamperes and their square.
#[derive(Clone, Copy)]
pub(crate) struct Moments {
    pub(crate) mean: f64,
    pub(crate) variance: f64,
}

/// The moments over drawn cells.
pub(crate) fn moments(cell: &Cell, stored: Stored) -> Moments {
    let key = Key::new(1).with("moments").at(stored as u64);
    let n = MOMENT_CELLS as f64;
    let drawn: Vec<f64> = (0..MOMENT_CELLS).map(|i| cell.sample(stored, key.at(i))).collect();
    let mean = drawn.iter().sum::<f64>() / n;
    Moments { mean, variance: drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) }
}

/// The read-disturb margins of a magnetic cell; `None` where reads do not disturb.
pub fn read_disturb(cell: &Cell) -> Option<ReadDisturb> {
    let critical = cell.critical_ua?;
    matches!(cell.storage, Storage::Junction { .. }).then(|| ReadDisturb {
        parallel: 1.0 - cell.high_ua() / critical,
        antiparallel: 1.0 - cell.low_ua() / critical,
    })
}

/// Share of `reads` reads whose level is not the true count, each with cells of its own, fair random inputs and fair
/// random weights, in the middle group of rows and the middle column.
pub fn count_error_rate(cell: &Cell, reads: u64, key: Key) -> f64 {
    let reader = Reader::new(cell);
    let (rows, group, column) = (cell.array.rows_at_once, reader.groups() / 2, reader.columns() / 2);
    let wrong = |read: &u64| {
        let key = key.at(*read);
        let (cells, bits) = (key.with("cells"), key.with("bits"));
        let (mut plus, mut minus, mut count) = (0.0, 0.0, 0);
        for row in 0..rows as u64 {
            let (input, weight) = (bits.u64(row) >> 63 == 1, bits.u64(row) >> 62 & 1 == 1);
            let sample = |one: bool, line: u64| {
                cell.sample(if one { Stored::High } else { Stored::Low }, cells.at(2 * row + line))
            };
            match cell.encoding {
                Encoding::Match => {
                    plus += sample(input == weight, 0);
                    count += i32::from(input == weight);
                }
                Encoding::Differential if input => {
                    plus += sample(weight, 0);
                    minus += sample(!weight, 1);
                    count += if weight { 1 } else { -1 };
                }
                Encoding::And if input => {
                    plus += sample(weight, 0);
                    minus += sample(false, 1);
                    count += i32::from(weight);
                }
                _ => {}
            }
        }
        let thresholds = reader.thresholds(cell.adc.offset_sigma, key.with("converter"));
        reader.level_of(reader.counts(plus, minus, rows, group, column), &thresholds) != count
    };
    (0..reads).filter(wrong).count() as f64 / reads as f64
}
