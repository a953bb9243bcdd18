//! Wires: the exact network of resistors, solved as a banded system, and the linear droop that stands for it.

use super::cell::Array;

/// Ohm times microampere, in volts.
const OHM_UA: f64 = 1e-6;
/// Wires without resistance have this one in ohm, so that every node has an equation.
const LEAST_OHM: f64 = 1e-6;

/// A symmetric positive definite system whose row `i` has no elements left of `i - band`, solved by Cholesky's method
/// within the band.
struct Banded {
    band: usize,
    /// `lower[i][k]` is the element of row `i` and column `i - band + k`.
    lower: Vec<Vec<f64>>,
}

impl Banded {
    fn new(n: usize, band: usize) -> Self {
        Self { band, lower: vec![vec![0.0; band + 1]; n] }
    }

    fn add(&mut self, i: usize, j: usize, value: f64) {
        let (i, j) = (i.max(j), i.min(j));
        let at = j + self.band - i;
        self.lower[i][at] += value;
    }

    /// A resistor of conductance `g` between nodes `i` and `j`.
    fn connect(&mut self, i: usize, j: usize, g: f64) {
        self.add(i, i, g);
        self.add(j, j, g);
        self.add(i, j, -g);
    }

    fn solve(mut self, mut b: Vec<f64>) -> Vec<f64> {
        let (n, band) = (b.len(), self.band);
        for i in 0..n {
            let first = i.saturating_sub(band);
            for j in first..=i {
                let from = first.max(j.saturating_sub(band));
                let dot: f64 = (from..j).map(|k| self.lower[i][k + band - i] * self.lower[j][k + band - j]).sum();
                let rest = self.lower[i][j + band - i] - dot;
                self.lower[i][j + band - i] = if j == i { rest.sqrt() } else { rest / self.lower[j][band] };
            }
            let dot: f64 = (first..i).map(|k| self.lower[i][k + band - i] * b[k]).sum();
            b[i] = (b[i] - dot) / self.lower[i][band];
        }
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n.min(i + band + 1)).map(|k| self.lower[k][i + band - k] * b[k]).sum();
            b[i] = (b[i] - dot) / self.lower[i][band];
        }
        b
    }
}

/// Currents in microamperes that reach the sense circuits of every bit line, exactly.
///
/// `cells[row][line]` are the currents in microamperes that the cells carry at the whole read voltage, 0 where they are
/// not driven; row 0 is next to the sense circuits and line 0 next to the word lines' drivers. Cells are taken as
/// resistors. Nodes are the crossings of both kinds of wires, `2 rows lines` of them with a band of `2 lines`; word
/// lines without resistance leave bit lines that do not see each other, with a band of 1.
///
/// # Panics
/// If the rows are not equally long.
pub fn exact(cells: &[Vec<f64>], read_v: f64, array: &Array) -> Vec<f64> {
    let (rows, lines) = (cells.len(), cells.first().map_or(0, Vec::len));
    assert!(cells.iter().all(|row| row.len() == lines), "every row has a cell at every line");
    let siemens = |ohm: f64| 1.0 / (ohm.max(LEAST_OHM) * OHM_UA);
    let bit = siemens(array.bit_line_ohm);
    let end = siemens(array.bit_line_ohm + array.driver_ohm);
    if array.word_line_ohm == 0.0 {
        let line = |j: usize| {
            let mut system = Banded::new(rows, 1);
            let mut b = vec![0.0; rows];
            for i in 0..rows {
                let g = cells[i][j] / read_v;
                system.add(i, i, g);
                b[i] = g * read_v;
                if i > 0 {
                    system.connect(i, i - 1, bit);
                }
            }
            system.add(0, 0, end);
            system.solve(b)[0] * end
        };
        return (0..lines).map(line).collect();
    }
    let word = siemens(array.word_line_ohm);
    let node = |i: usize, j: usize, bit_line: usize| 2 * (i * lines + j) + bit_line;
    let mut system = Banded::new(2 * rows * lines, 2 * lines);
    let mut b = vec![0.0; 2 * rows * lines];
    for i in 0..rows {
        for j in 0..lines {
            system.connect(node(i, j, 0), node(i, j, 1), cells[i][j] / read_v);
            match j {
                0 => {
                    system.add(node(i, 0, 0), node(i, 0, 0), word);
                    b[node(i, 0, 0)] = word * read_v;
                }
                _ => system.connect(node(i, j, 0), node(i, j - 1, 0), word),
            }
            match i {
                0 => system.add(node(0, j, 1), node(0, j, 1), end),
                _ => system.connect(node(i, j, 1), node(i - 1, j, 1), bit),
            }
        }
    }
    let v = system.solve(b);
    (0..lines).map(|j| v[node(0, j, 1)] * end).collect()
}

/// The linear droop of bit lines: a line whose cells would carry `I` carries `I (1 - kappa I)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Droop {
    /// `kappa` in 1 / microampere.
    pub kappa: f64,
}

impl Droop {
    /// Computes the droop of the cells in rows `first..first + rows`: `kappa = R / V`, with R the mean resistance that
    /// two of them share, `driver + bit (1 + min(i, j))`.
    pub fn new(array: &Array, read_v: f64, first: usize, rows: usize) -> Self {
        let n = rows as f64;
        // Of n^2 pairs, 2 (n - k) - 1 have the k-th row as the nearer one.
        let nearer: f64 = (0..rows).map(|k| (2.0 * (n - k as f64) - 1.0) * (first + k + 1) as f64).sum();
        let shared = array.driver_ohm + array.bit_line_ohm * nearer / (n * n);
        Self { kappa: shared * OHM_UA / read_v }
    }

    /// Share of a current that the droop takes, for each microampere of it.
    pub fn kappa(self) -> f64 {
        self.kappa
    }

    /// Current in microamperes that reaches the sense circuit where the cells alone would carry `ua`.
    #[inline]
    pub fn apply(self, ua: f64) -> f64 {
        ua * (1.0 - self.kappa * ua)
    }
}

/// Share of the read voltage that reaches line `line` of `lines`, whose word line carries `mean_ua` into each of them:
/// the linear droop of word lines, with the other columns' cells at their mean.
pub fn word_line_share(array: &Array, read_v: f64, mean_ua: f64, line: usize, lines: usize) -> f64 {
    let at = line + 1;
    let shared = at * (at + 1) / 2 + at * (lines - at);
    1.0 - array.word_line_ohm * OHM_UA * mean_ua * shared as f64 / read_v
}
