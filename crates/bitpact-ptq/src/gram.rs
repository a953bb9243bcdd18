//! What quantization knows of a layer's inputs: `G = X^T X / n`.

use bitpact_core::WeightSpec;
use bitpact_kernels::float::{View, ViewMut, multiply};
use bitpact_kernels::{Chunked, Pool};
use nalgebra::DMatrix;

use crate::{Matrix, PtqError, Rounded, round_rows, row_values};

/// Rows and columns of a tile.
const TILE: usize = 64;
/// Rows whose errors are one task: fixed, so that they are the same for any number of threads.
const TASK_ROWS: usize = 64;

/// The mean of `x x^T` over tokens `x`, an `inputs x inputs` matrix of float64, and the mean of `|x|` an input.
#[derive(Clone, Debug)]
pub struct Gram {
    sum: DMatrix<f64>,
    magnitude: Vec<f64>,
    largest: Vec<f32>,
    tokens: usize,
}

impl Gram {
    /// A Gram matrix of no tokens yet.
    pub fn new(inputs: usize) -> Gram {
        Gram {
            sum: DMatrix::zeros(inputs, inputs),
            magnitude: vec![0.0; inputs],
            largest: vec![0.0; inputs],
            tokens: 0,
        }
    }

    /// Adds the tokens that are the rows of `x`.
    ///
    /// # Errors
    /// Where `x` has another number of columns than there are inputs, or a number that is not finite.
    pub fn add(&mut self, x: &Matrix, pool: &Pool) -> Result<(), PtqError> {
        let inputs = self.inputs();
        if x.cols() != inputs {
            return Err(PtqError::Shape {
                what: "inputs",
                expected: format!("{inputs} columns"),
                found: format!("{} columns", x.cols()),
            });
        }
        x.check_finite("inputs")?;
        let product = x.lower_square(pool);
        for c in 0..inputs {
            let upper = self.sum.column_mut(c);
            upper.into_iter().zip(&product.row(c)[..=c]).for_each(|(sum, &p)| *sum += f64::from(p));
        }
        self.mirror();
        for r in 0..x.rows() {
            for (c, &v) in x.row(r).iter().enumerate() {
                self.magnitude[c] += f64::from(v.abs());
                self.largest[c] = self.largest[c].max(v.abs());
            }
        }
        self.tokens += x.rows();
        Ok(())
    }

    /// Copies the upper half to the lower one, tile by tile, so that a tile stays in cache.
    fn mirror(&mut self) {
        let n = self.inputs();
        for (left, top) in (0..n).step_by(TILE).flat_map(|top| (top..n).step_by(TILE).map(move |left| (left, top))) {
            for r in top..n.min(top + TILE) {
                for c in left.max(r)..n.min(left + TILE) {
                    let value = self.sum[(r, c)];
                    self.sum[(c, r)] = value;
                }
            }
        }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.magnitude.len()
    }

    /// Number of tokens added.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Mean magnitude of every input, what AWQ scales by.
    pub fn mean_magnitude(&self) -> Vec<f32> {
        let n = self.tokens.max(1) as f64;
        self.magnitude.iter().map(|m| (m / n) as f32).collect()
    }

    /// Largest magnitude of every input, what smoothing of activations scales by.
    pub fn largest_magnitude(&self) -> &[f32] {
        &self.largest
    }

    /// `G = X^T X / n`.
    pub(crate) fn mean(&self) -> DMatrix<f64> {
        let n = self.tokens.max(1) as f64;
        DMatrix::from_fn(self.inputs(), self.inputs(), |r, c| self.sum[(r, c)] / n)
    }

    /// `G_rc` over the tokens added.
    pub(crate) fn at(&self, r: usize, c: usize) -> f64 {
        self.sum[(r, c)] / self.tokens.max(1) as f64
    }

    /// Mean squared error of every output when `other` stands for `weights`: `d G d^T` for the rows `d` of their
    /// difference.
    ///
    /// # Panics
    /// Where the matrices differ in size, or their columns are not the inputs.
    pub fn output_errors(&self, weights: &Matrix, other: &Matrix, pool: &Pool) -> Vec<f64> {
        let (rows, inputs) = (weights.rows(), self.inputs());
        assert_eq!((rows, inputs), (other.rows(), other.cols()), "sizes of both");
        assert_eq!(weights.cols(), inputs, "columns");
        let mut errors = vec![0.0; rows];
        let parts = Chunked::new(&mut errors, TASK_ROWS);
        let (gram, n) = (View::new(self.sum.as_slice(), inputs, inputs), self.tokens.max(1) as f64);
        pool.run(parts.chunks(), &|task, _| {
            let errors = &mut *parts.get(task);
            let len = errors.len();
            let of_task = |m: &'_ Matrix| m.data()[task * TASK_ROWS * inputs..][..len * inputs].to_vec();
            let pairs = of_task(weights).into_iter().zip(of_task(other));
            let d: Vec<f64> = pairs.map(|(a, b)| f64::from(a) - f64::from(b)).collect();
            let mut product = vec![0.0; len * inputs];
            multiply(View::new(&d, len, inputs), gram, ViewMut::new(&mut product, len, inputs));
            let rows = d.chunks_exact(inputs.max(1)).zip(product.chunks_exact(inputs.max(1)));
            for (error, (a, b)) in errors.iter_mut().zip(rows) {
                *error = (a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() / n).max(0.0);
            }
        });
        errors
    }

    /// The codes nearest to `weights` on the grid of `spec`, an `lsq` quantizer, where row r has the step `steps[r]`,
    /// and the mean squared error of each row's output.
    ///
    /// # Errors
    /// Where sizes differ, or a number is not finite.
    pub fn round(&self, spec: &WeightSpec, weights: &Matrix, steps: &[f32], pool: &Pool) -> Result<Rounded, PtqError> {
        self.check(weights)?;
        let codes = round_rows(spec, weights, steps)?;
        let values = Matrix::new(weights.rows(), weights.cols(), row_values(spec, &codes, steps))?;
        Ok(Rounded { errors: self.output_errors(weights, &values, pool), codes })
    }

    /// An error where the columns of `weights` are not the inputs.
    pub(crate) fn check(&self, weights: &Matrix) -> Result<(), PtqError> {
        if self.inputs() == weights.cols() {
            return Ok(());
        }
        Err(PtqError::Shape {
            what: "Gram matrix",
            expected: format!("{} inputs", weights.cols()),
            found: format!("{} inputs", self.inputs()),
        })
    }

    /// The Gram matrix after input `c` was divided by `scales[c]`.
    ///
    /// # Panics
    /// Where `scales` is not one number an input.
    pub fn divided(&self, scales: &[f32]) -> Gram {
        assert_eq!(scales.len(), self.inputs(), "a scale an input");
        let s: Vec<f64> = scales.iter().map(|&v| v.into()).collect();
        Gram {
            sum: DMatrix::from_fn(s.len(), s.len(), |r, c| self.sum[(r, c)] / (s[r] * s[c])),
            magnitude: self.magnitude.iter().zip(&s).map(|(m, s)| m / s).collect(),
            largest: self.largest.iter().zip(scales).map(|(m, s)| m / s).collect(),
            tokens: self.tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_batches_are_those_over_all_tokens() {
        let x = Matrix::from_fn(7, 5, |r, c| ((r * 5 + c * 3) % 11) as f32 - 5.0);
        let part = |from: usize, to: usize| Matrix::new(to - from, 5, x.data()[from * 5..to * 5].to_vec()).unwrap();
        let pool = Pool::new(1);
        let mut gram = Gram::new(5);
        gram.add(&part(0, 3), &pool).unwrap();
        gram.add(&part(3, 7), &pool).unwrap();
        let expected: f32 = (0..7).map(|t| x.row(t)[1] * x.row(t)[4]).sum();
        assert_eq!(gram.at(1, 4), f64::from(expected) / 7.0);
        assert_eq!(gram.mean_magnitude()[2], (0..7).map(|t| x.row(t)[2].abs()).sum::<f32>() / 7.0);

        let (w, q) = (Matrix::from_fn(2, 5, |r, c| (r + c) as f32), Matrix::from_fn(2, 5, |r, c| (r * c) as f32));
        let product = |m: &Matrix, r: usize, t: usize| m.row(r).iter().zip(x.row(t)).map(|(a, b)| a * b).sum::<f32>();
        let expected = (0..7).map(|t| (product(&w, 1, t) - product(&q, 1, t)).powi(2)).sum::<f32>() / 7.0;
        assert!((gram.output_errors(&w, &q, &pool)[1] - f64::from(expected)).abs() < 1e-4 * f64::from(expected));
        let halved = gram.divided(&[2.0; 5]);
        assert_eq!((halved.at(1, 4), halved.largest_magnitude()[0]), (gram.at(1, 4) / 4.0, gram.largest[0] / 2.0));
    }

    #[test]
    fn inputs_of_another_size_or_not_finite_are_refused() {
        let (mut gram, pool) = (Gram::new(3), Pool::new(1));
        assert!(matches!(gram.add(&Matrix::zeros(2, 4), &pool), Err(PtqError::Shape { .. })));
        let bad = Matrix::new(1, 3, vec![0.0, f32::NAN, 1.0]).unwrap();
        assert!(gram.add(&bad, &pool).unwrap_err().to_string().contains("value 1 is NaN"));
        assert_eq!(gram.tokens(), 0);
    }
}
