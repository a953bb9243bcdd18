//! Matrices of float32.

use bitpact_kernels::float::{View, ViewMut, multiply};
use bitpact_kernels::{Chunked, Pool};

use crate::PtqError;

/// Rows of a product that are one task: fixed, so that the result is the same for any number of threads, and many, as
/// each task packs the whole right factor.
const TASK_ROWS: usize = 256;
/// Outputs of the product with one row that are one task.
const TASK_OUTPUTS: usize = 256;

/// A matrix of float32, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// The matrix whose rows stand one after another in `data`.
    ///
    /// # Errors
    /// [`PtqError::Shape`] where `data` does not hold `rows * cols` numbers.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Result<Matrix, PtqError> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(PtqError::Shape {
                what: "matrix",
                expected: format!("{rows} x {cols} numbers"),
                found: format!("{} numbers", data.len()),
            });
        }
        Ok(Matrix { rows, cols, data })
    }

    /// The matrix with `f(row, column)` at every place.
    pub fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> f32) -> Matrix {
        let data = (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))).map(|(r, c)| f(r, c)).collect();
        Matrix { rows, cols, data }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All numbers, row by row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All numbers, row by row, to be changed.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The numbers without the matrix around them.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..][..self.cols]
    }

    /// Row `r`, to be changed.
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        &mut self.data[r * self.cols..][..self.cols]
    }

    /// Multiplies column `c` by `factors[c]`.
    ///
    /// # Panics
    /// Where `factors` is not one number a column.
    pub fn scale_cols(&mut self, factors: &[f32]) {
        assert_eq!(factors.len(), self.cols, "a factor a column");
        for row in self.data.chunks_exact_mut(self.cols.max(1)) {
            row.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
        }
    }

    /// Multiplies row `r` by `factors[r]`.
    ///
    /// # Panics
    /// Where `factors` is not one number a row.
    pub fn scale_rows(&mut self, factors: &[f32]) {
        assert_eq!(factors.len(), self.rows, "a factor a row");
        for (row, f) in self.data.chunks_exact_mut(self.cols.max(1)).zip(factors) {
            row.iter_mut().for_each(|w| *w *= f);
        }
    }

    /// `self * other^T`: `n x k` times the transpose of `m x k` gives `n x m`. The same bits for any number of threads.
    ///
    /// # Panics
    /// Where the numbers of columns differ.
    pub fn times_transposed(&self, other: &Matrix, pool: &Pool) -> Matrix {
        assert_eq!(self.cols, other.cols, "columns of both factors");
        let mut out = Matrix::zeros(self.rows, other.rows);
        if out.data.is_empty() {
            return out;
        }
        let k = self.cols;
        // One token: the outputs are shared out instead.
        if self.rows == 1 {
            let parts = Chunked::new(&mut out.data, TASK_OUTPUTS);
            pool.run(parts.chunks(), &|task, _| {
                let part = &mut *parts.get(task);
                let n = part.len();
                let weights = &other.data[task * TASK_OUTPUTS * k..][..n * k];
                multiply(View::new(weights, n, k), View::new(&self.data, 1, k).t(), ViewMut::new(part, n, 1));
            });
            return out;
        }
        let parts = Chunked::new(&mut out.data, TASK_ROWS * other.rows);
        pool.run(parts.chunks(), &|task, _| {
            let part = &mut *parts.get(task);
            let rows = part.len() / other.rows;
            let left = View::new(&self.data[task * TASK_ROWS * k..][..rows * k], rows, k);
            multiply(left, View::new(&other.data, other.rows, k).t(), ViewMut::new(part, rows, other.rows));
        });
        out
    }

    /// The lower half of `self^T * self`, with the diagonal; what lies above it is not all computed. The same bits for
    /// any number of threads.
    pub(crate) fn lower_square(&self, pool: &Pool) -> Matrix {
        let (k, n) = (self.rows, self.cols);
        let mut out = Matrix::zeros(n, n);
        if self.data.is_empty() {
            return out;
        }
        let parts = Chunked::new(&mut out.data, TASK_ROWS * n);
        let tasks = parts.chunks();
        pool.run(tasks, &|task, _| {
            // The longest first.
            let task = tasks - 1 - task;
            let part = &mut *parts.get(task);
            let (first, rows) = (task * TASK_ROWS, part.len() / n);
            let left = View::strided(&self.data[first..], k, rows, n).t();
            let right = View::strided(&self.data, k, first + rows, n);
            multiply(left, right, ViewMut::strided(part, rows, first + rows, n));
        });
        out
    }

    /// An error where a number is not finite.
    pub(crate) fn check_finite(&self, what: &'static str) -> Result<(), PtqError> {
        match self.data.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(PtqError::NotFinite { what, index, value: self.data[index].into() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, cols: usize, seed: usize) -> Matrix {
        Matrix::from_fn(rows, cols, |r, c| ((r * 31 + c * 17 + seed * 7) % 23) as f32 - 11.0)
    }

    #[test]
    fn products_are_right_and_equal_for_any_number_of_threads() {
        for (n, k, m) in [(1, 5, 3), (1, 64, 700), (530, 33, 65)] {
            let (a, b) = (matrix(n, k, 1), matrix(m, k, 2));
            let product = a.times_transposed(&b, &Pool::new(1));
            // Small integers: float32 sums are exact.
            let expected = Matrix::from_fn(n, m, |i, j| a.row(i).iter().zip(b.row(j)).map(|(x, y)| x * y).sum());
            assert_eq!(product, expected, "{n} x {k} x {m}");
            assert_eq!(a.times_transposed(&b, &Pool::new(3)), product);
            let transposed = Matrix::from_fn(k, n, |r, c| a.row(c)[r]);
            let (square, half) = (a.times_transposed(&a, &Pool::new(1)), transposed.lower_square(&Pool::new(3)));
            assert!((0..n).all(|r| square.row(r)[..=r] == half.row(r)[..=r]), "{n} x {k}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let error = Matrix::new(2, 3, vec![0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "matrix: expected 2 x 3 numbers, found 5 numbers");
        assert!(Matrix::new(usize::MAX, 2, Vec::new()).is_err());
    }
}
