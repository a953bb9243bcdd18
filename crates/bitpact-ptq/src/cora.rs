//! Low-rank residual adapters: CoRa (Luo et al., arXiv 2408.00923). What quantization took from a layer, `W - Q(W)`,
//! comes back in part as a product `B A` of rank r.

use bitpact_kernels::float::{View, ViewMut, multiply};
use nalgebra::DMatrix;

use crate::{Gram, Matrix, PtqError};

/// A residual `R = W - Q(W)` (`outputs x inputs`), with the directions of its outputs in the order of what they hold.
#[derive(Clone, Debug)]
pub struct Residual {
    residual: Matrix,
    /// Columns are left singular vectors.
    directions: DMatrix<f64>,
    energies: Vec<f64>,
}

impl Residual {
    /// The singular values of `R G^(1/2)` and its left singular vectors `U`, from the eigenvectors of `R G R^T`.
    /// Without a Gram matrix, `G` is the identity, as in the paper; with one, energies are mean squared errors of the
    /// outputs.
    ///
    /// # Errors
    /// A number that is not finite, or a `gram` of other inputs.
    pub fn new(residual: Matrix, gram: Option<&Gram>) -> Result<Residual, PtqError> {
        residual.check_finite("residual")?;
        let (rows, cols) = (residual.rows(), residual.cols());
        let r: Vec<f64> = residual.data().iter().map(|&v| v.into()).collect();
        let mut by_gram = r.clone();
        if let Some(gram) = gram {
            if gram.inputs() != cols {
                return Err(PtqError::Shape {
                    what: "Gram matrix",
                    expected: format!("{cols} inputs"),
                    found: format!("{} inputs", gram.inputs()),
                });
            }
            let mean = gram.mean();
            multiply(
                View::new(&r, rows, cols),
                View::new(mean.as_slice(), cols, cols),
                ViewMut::new(&mut by_gram, rows, cols),
            );
        }
        let mut square = vec![0.0; rows * rows];
        if !square.is_empty() {
            let right = View::new(&r, rows, cols).t();
            multiply(View::new(&by_gram, rows, cols), right, ViewMut::new(&mut square, rows, rows));
        }
        let at = |a: usize, b: usize| (square[a * rows + b] + square[b * rows + a]) / 2.0;
        let eigen = DMatrix::from_fn(rows, rows, at).symmetric_eigen();
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]).then(a.cmp(&b)));
        let energies = order.iter().map(|&i| eigen.eigenvalues[i].max(0.0)).collect();
        let directions = DMatrix::from_fn(rows, rows, |r, c| eigen.eigenvectors[(r, order[c])]);
        Ok(Residual { residual, directions, energies })
    }

    /// The squared singular values, the largest first: what each rank brings back.
    pub fn energies(&self) -> &[f64] {
        &self.energies
    }

    /// `(B, A)` of rank `r`, `outputs x r` and `r x inputs`, with `B A` the nearest matrix of that rank: `B` is the
    /// first r directions `U_r`, and `A = U_r^T R`.
    ///
    /// # Panics
    /// Where `r` is more than the outputs.
    pub fn factors(&self, r: usize) -> (Matrix, Matrix) {
        let (rows, cols) = (self.residual.rows(), self.residual.cols());
        assert!(r <= rows, "rank {r} of {rows} outputs");
        let b = Matrix::from_fn(rows, r, |o, i| self.directions[(o, i)] as f32);
        let mut a = vec![0.0; r * cols];
        if !a.is_empty() {
            let right = View::new(self.residual.data(), rows, cols);
            multiply(View::new(b.data(), rows, r).t(), right, ViewMut::new(&mut a, r, cols));
        }
        (b, Matrix::new(r, cols, a).expect("as many numbers as were made"))
    }
}

/// What adapters of a layer cost and bring.
#[derive(Clone, Debug)]
pub struct LayerRanks {
    /// What each rank brings, falling.
    pub gains: Vec<f64>,
    /// Parameters of one rank: those of one row of A and one column of B.
    pub parameters: usize,
}

/// Ranks of all layers with the largest sum of gains for at most `budget` parameters, up to one rank: again and again
/// the rank with the largest gain a parameter among those that still fit. As gains of a layer fall, no exchange of
/// ranks of layers with one price gains anything.
///
/// The paper learns a cutoff for each layer by gradients from labels (a Butterworth filter over the singular values,
/// and a penalty on parameters); with gains that add up, the search needs neither.
pub fn allocate_ranks(layers: &[LayerRanks], budget: usize) -> Vec<usize> {
    let (mut ranks, mut left) = (vec![0; layers.len()], budget);
    loop {
        let worth = |l: usize| {
            let layer = &layers[l];
            let gain = *layer.gains.get(ranks[l])?;
            (gain > 0.0 && layer.parameters <= left).then(|| gain / layer.parameters.max(1) as f64)
        };
        let open = (0..layers.len()).filter_map(|l| Some((worth(l)?, l)));
        let Some((_, best)) = open.reduce(|a, b| if b.0 > a.0 { b } else { a }) else { return ranks };
        ranks[best] += 1;
        left -= layers[best].parameters;
    }
}

/// The weights of a layer on CoRa's own grid, that of its published figures: `bits` bits for the whole matrix, within k
/// standard deviations of the mean, or from the smallest to the largest weight where there is no `k`, with the zero
/// point cut off to an integer. With `s` the range over `2^bits - 1`, `lo` its lower end and `z = trunc(-lo / s)`, a
/// weight becomes `s (clamp(round(w / s + z), 0, 2^bits - 1) - z)`.
pub fn cora_weights(weights: &Matrix, bits: u32, k: Option<f64>) -> Matrix {
    let all = || weights.data().iter().map(|&w| f64::from(w));
    let n = weights.data().len().max(1) as f64;
    let mean = all().sum::<f64>() / n;
    let square = all().map(|w| (w - mean).powi(2)).sum::<f64>();
    let deviation = (square / (n - 1.0).max(1.0)).sqrt();
    let ends = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let (lo, hi) = k.map_or(ends, |k| (mean - k * deviation, mean + k * deviation));
    let most = f64::from((1u32 << bits) - 1);
    let scale = (hi - lo) / most;
    if scale.is_nan() || scale <= 0.0 {
        return weights.clone();
    }
    let zero = (-lo / scale).clamp(0.0, most).trunc();
    let value = |w: f32| (scale * ((f64::from(w) / scale + zero).round_ties_even().clamp(0.0, most) - zero)) as f32;
    Matrix::from_fn(weights.rows(), weights.cols(), |r, c| value(weights.row(r)[c]))
}

#[cfg(test)]
mod tests {
    use bitpact_kernels::Pool;

    use super::*;
    use crate::testing::{inputs, normal};

    fn difference(a: &Matrix, b: &Matrix) -> Matrix {
        Matrix::from_fn(a.rows(), a.cols(), |r, c| a.row(r)[c] - b.row(r)[c])
    }

    fn energy(m: &Matrix) -> f64 {
        m.data().iter().map(|&v| f64::from(v).powi(2)).sum()
    }

    fn product((b, a): &(Matrix, Matrix)) -> Matrix {
        Matrix::from_fn(b.rows(), a.cols(), |r, c| (0..a.rows()).map(|i| b.row(r)[i] * a.row(i)[c]).sum())
    }

    #[test]
    fn all_ranks_give_the_weights_back_and_few_the_energy_they_say() {
        let w = normal(24, 60, 1);
        let quantized = cora_weights(&w, 3, None);
        let residual = difference(&w, &quantized);
        let of = Residual::new(residual.clone(), None).unwrap();
        let total = energy(&residual);
        assert!((of.energies().iter().sum::<f64>() / total - 1.0).abs() < 1e-6);
        for r in [0, 1, 7, 24] {
            let left = energy(&difference(&residual, &product(&of.factors(r))));
            let said = total - of.energies()[..r].iter().sum::<f64>();
            assert!((left - said).abs() < 1e-5 * total, "rank {r}: {left}, {said}");
        }
        let back = product(&of.factors(24));
        let whole = Matrix::from_fn(24, 60, |r, c| quantized.row(r)[c] + back.row(r)[c]);
        assert!(difference(&w, &whole).data().iter().all(|d| d.abs() < 1e-5));
    }

    #[test]
    fn energies_are_those_of_a_singular_value_decomposition() {
        let m = normal(5, 9, 4);
        let svd = DMatrix::from_fn(5, 9, |r, c| f64::from(m.row(r)[c])).svd(false, false);
        let of = Residual::new(m, None).unwrap();
        for (energy, s) in of.energies().iter().zip(svd.singular_values.iter()) {
            assert!((energy - s * s).abs() < 1e-9 * svd.singular_values[0].powi(2));
        }
    }

    #[test]
    fn with_a_gram_matrix_the_error_of_outputs_is_least() {
        let (residual, x) = (normal(12, 30, 5), inputs(300, 30, 1.5, 6));
        let mut gram = Gram::new(30);
        gram.add(&x, &Pool::new(1)).unwrap();
        let error =
            |of: &Residual| gram.output_errors(&residual, &product(&of.factors(3)), &Pool::new(1)).iter().sum::<f64>();
        let by_outputs = Residual::new(residual.clone(), Some(&gram)).unwrap();
        let by_weights = Residual::new(residual.clone(), None).unwrap();
        let said: f64 = by_outputs.energies()[3..].iter().sum();
        assert!((error(&by_outputs) - said).abs() < 1e-4 * said, "{} {said}", error(&by_outputs));
        assert!(error(&by_outputs) < 0.9 * error(&by_weights));
        assert!(Residual::new(residual, Some(&Gram::new(29))).is_err());
        let zeros = Residual::new(Matrix::zeros(3, 4), None).unwrap();
        assert_eq!(zeros.energies(), [0.0; 3]);
    }

    #[test]
    fn a_budget_of_five_percent_captures_little_of_a_white_residual() {
        // The published reading for Gaussian weights of 128 x 1152 at 4 bits is 6.6 %.
        let w = normal(128, 1152, 7);
        let of = Residual::new(difference(&w, &cora_weights(&w, 4, None)), None).unwrap();
        let r = 128 * 1152 / 20 / (128 + 1152);
        let captured = of.energies()[..r].iter().sum::<f64>() / of.energies().iter().sum::<f64>();
        assert!((0.05..0.10).contains(&captured), "{captured}");
    }

    #[test]
    fn ranks_respect_the_budget_and_are_the_best_where_prices_agree() {
        let layer = |gains: &[f64], parameters| LayerRanks { gains: gains.to_vec(), parameters };
        let layers = [layer(&[5.0, 3.0, 1.0], 2), layer(&[4.0, 0.5, 0.0], 2), layer(&[2.0, 2.0], 2)];
        for budget in 0..20 {
            let ranks = allocate_ranks(&layers, budget);
            let gain = |ranks: &[usize]| -> f64 {
                ranks.iter().zip(&layers).map(|(&r, layer)| layer.gains[..r].iter().sum::<f64>()).sum()
            };
            let fits = |ranks: &[usize]| ranks.iter().sum::<usize>() * 2 <= budget;
            let all = (0..36).map(|i| [i % 4, i / 4 % 3, i / 12]).filter(|ranks| fits(ranks));
            let best = all.map(|ranks| gain(&ranks)).fold(0.0, f64::max);
            assert!(fits(&ranks) && (gain(&ranks) - best).abs() < 1e-12, "{budget}: {ranks:?}");
        }
        assert_eq!(allocate_ranks(&layers, 100), [3, 2, 2]);
        assert_eq!(allocate_ranks(&[], 5), [0; 0]);
    }

    #[test]
    fn the_published_grid_has_its_levels() {
        let w = Matrix::new(1, 4, vec![-1.0, 0.0, 0.5, 2.0]).unwrap();
        // Steps of 1 from -1 on: zero point 1; a half is rounded to the even code.
        assert_eq!(cora_weights(&w, 2, None).data(), [-1.0, 0.0, 1.0, 2.0]);
        assert_eq!(cora_weights(&Matrix::zeros(1, 3), 4, None), Matrix::zeros(1, 3));
    }
}
