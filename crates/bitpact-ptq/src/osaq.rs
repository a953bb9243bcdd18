//! OSAQ (arXiv 2605.04738): before rounding, the outliers of a row are pulled in along directions its inputs hardly
//! use.

use bitpact_kernels::float::{View, ViewMut, multiply};
use bitpact_kernels::{Chunked, Pool};
use nalgebra::SymmetricEigen;

use crate::{Gram, Matrix, PtqError};

/// Rows that are one task.
const TASK_ROWS: usize = 32;
/// Bound of the residual of the normal equations, relative to their right side.
const TOLERANCE: f64 = 1e-10;
const MAX_ITERATIONS: usize = 500;
/// More than the search for eigenvalues ever takes.
const EIGEN_ITERATIONS: usize = 1_000_000;

/// How outliers are pulled in. With `n_j` the columns of `N` (the `K` eigenvectors of `G` with the smallest
/// eigenvalues, as rows) and `s` the softmax of `|W_i| / (temperature max|W_i|)`, the change `b_i N` of row i solves
/// `A_i b_i = -rho_i` with `A_i = sum_j s_ij n_j n_j^T + mu1 I + mu2 v v^T + kappa diag(lambda) / mean(lambda)`, `rho_i
/// = sum_j s_ij W_ij n_j` and `v = N 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Osaq {
    /// Share of the eigenvalues' sum that the directions may have: K is the least number whose eigenvalues reach it; 1
    /// takes all.
    pub gamma: f64,
    /// Price of a change.
    pub mu1: f64,
    /// Price of a change of the row's sum.
    pub mu2: f64,
    /// Price of a direction by its eigenvalue, relative to their mean; 0 in the paper.
    pub kappa: f64,
    /// Temperature of the softmax, relative to the row's largest weight.
    pub temperature: f64,
}

impl Osaq {
    /// As the paper prints it: a few directions, no price by curvature. It needs a null space, which small models lack,
    /// and then [`guarded`].
    pub fn paper() -> Osaq {
        Osaq { gamma: 1e-2, mu1: 0.1, mu2: 1e-3, kappa: 0.0, temperature: 0.2 }
    }

    /// All directions, each at the price of its curvature: the trade between outliers and output error is exact, so no
    /// null space is needed.
    pub fn curvature() -> Osaq {
        Osaq { gamma: 1.0, mu1: 0.01, mu2: 1e-3, kappa: 3.0, temperature: 0.2 }
    }
}

/// What pulling in outliers did to a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct OsaqReport {
    /// The changed weights.
    pub weights: Matrix,
    /// Number of directions K.
    pub directions: usize,
}

impl Osaq {
    /// `weights` (`outputs x inputs`) with their outliers pulled in, for inputs with the Gram matrix `gram`. The normal
    /// equations are solved by conjugate gradients, preconditioned with their part that no row changes, to a relative
    /// residual of 1e-10.
    ///
    /// # Errors
    /// Where sizes differ, a number is not finite, or the eigenvalues cannot be found.
    pub fn apply(&self, weights: &Matrix, gram: &Gram, pool: &Pool) -> Result<OsaqReport, PtqError> {
        weights.check_finite("weights")?;
        let cols = weights.cols();
        if gram.inputs() != cols {
            return Err(PtqError::Shape {
                what: "Gram matrix",
                expected: format!("{cols} inputs"),
                found: format!("{} inputs", gram.inputs()),
            });
        }
        if weights.data().is_empty() {
            return Ok(OsaqReport { weights: weights.clone(), directions: 0 });
        }
        let eigen = SymmetricEigen::try_new(gram.mean(), f64::EPSILON, EIGEN_ITERATIONS);
        let eigen = eigen.ok_or(PtqError::Singular { damping: 0.0 })?;
        let values: Vec<f64> = eigen.eigenvalues.iter().map(|v| v.abs()).collect();
        let k = directions(&values, self.gamma);
        let mut order: Vec<usize> = (0..cols).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
        order.truncate(k);
        let vectors = &eigen.eigenvectors;
        let n: Vec<f64> = order.iter().flat_map(|&e| (0..cols).map(move |c| (c, e))).map(|at| vectors[at]).collect();
        let mean = values.iter().sum::<f64>() / cols as f64;
        let price = |&e: &usize| self.mu1 + if mean > 0.0 { self.kappa * values[e] / mean } else { 0.0 };
        let space = Space { cols, k, price: order.iter().map(price).collect(), mu2: self.mu2, n };
        let mut out = weights.clone();
        let parts = Chunked::new(out.data_mut(), TASK_ROWS * cols);
        pool.run(parts.chunks(), &|task, _| space.pull(&mut parts.get(task), self.temperature));
        drop(parts);
        Ok(OsaqReport { weights: out, directions: k })
    }
}

/// The least K whose K smallest of `values` add up to `gamma` of all; at least 1.
fn directions(values: &[f64], gamma: f64) -> usize {
    if gamma >= 1.0 {
        return values.len();
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let total: f64 = sorted.iter().sum();
    let mut sum = 0.0;
    let below = sorted.iter().take_while(|&&v| {
        sum += v;
        sum < gamma * total
    });
    (below.count() + 1).min(values.len())
}

/// The directions `N` (`k x cols`, row by row) and what a change along them costs.
struct Space {
    cols: usize,
    k: usize,
    n: Vec<f64>,
    price: Vec<f64>,
    mu2: f64,
}

impl Space {
    /// Changes rows in place.
    fn pull(&self, rows: &mut [f32], temperature: f64) {
        let count = rows.len() / self.cols;
        let s: Vec<f64> = rows.chunks_exact(self.cols).flat_map(|row| softmax(row, temperature)).collect();
        let weighted: Vec<f64> = rows.iter().zip(&s).map(|(&w, s)| -s * f64::from(w)).collect();
        let right = self.to_directions(&weighted, count);
        let b = self.solve(&right, &s, count);
        let change = self.to_inputs(&b, count);
        rows.iter_mut().zip(change).for_each(|(w, c)| *w = (f64::from(*w) + c) as f32);
    }

    /// `x N^T`.
    fn to_directions(&self, x: &[f64], rows: usize) -> Vec<f64> {
        let mut out = vec![0.0; rows * self.k];
        let n = View::new(&self.n, self.k, self.cols);
        multiply(View::new(x, rows, self.cols), n.t(), ViewMut::new(&mut out, rows, self.k));
        out
    }

    /// `b N`.
    fn to_inputs(&self, b: &[f64], rows: usize) -> Vec<f64> {
        let mut out = vec![0.0; rows * self.cols];
        let n = View::new(&self.n, self.k, self.cols);
        multiply(View::new(b, rows, self.k), n, ViewMut::new(&mut out, rows, self.cols));
        out
    }

    /// `A_i b_i` for every row.
    fn apply(&self, b: &[f64], s: &[f64], rows: usize) -> Vec<f64> {
        let mut inputs = self.to_inputs(b, rows);
        for (row, s) in inputs.chunks_exact_mut(self.cols).zip(s.chunks_exact(self.cols)) {
            let sum = self.mu2 * row.iter().sum::<f64>();
            row.iter_mut().zip(s).for_each(|(v, s)| *v = *v * s + sum);
        }
        let mut out = self.to_directions(&inputs, rows);
        for (out, b) in out.chunks_exact_mut(self.k).zip(b.chunks_exact(self.k)) {
            out.iter_mut().zip(b).zip(&self.price).for_each(|((o, b), p)| *o += p * b);
        }
        out
    }

    /// The `b_i` of all rows together; rows that are done stay as they are.
    fn solve(&self, right: &[f64], s: &[f64], rows: usize) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let k = self.k;
        let typical = 1.0 / self.cols as f64;
        let scaled = |r: &[f64]| -> Vec<f64> { r.iter().zip(&self.price).map(|(r, p)| r / (p + typical)).collect() };
        let mut b = vec![0.0; rows * k];
        let mut residual = right.to_vec();
        let mut direction: Vec<f64> = residual.chunks_exact(k).flat_map(scaled).collect();
        let mut energy: Vec<f64> =
            residual.chunks_exact(k).zip(direction.chunks_exact(k)).map(|(r, d)| dot(r, d)).collect();
        let goal: Vec<f64> = right.chunks_exact(k).map(|r| TOLERANCE * TOLERANCE * dot(r, r)).collect();
        for _ in 0..MAX_ITERATIONS {
            let product = self.apply(&direction, s, rows);
            let mut open = false;
            for i in 0..rows {
                let at = i * k..(i + 1) * k;
                let curvature = dot(&direction[at.clone()], &product[at.clone()]);
                if dot(&residual[at.clone()], &residual[at.clone()]) <= goal[i] || curvature <= 0.0 {
                    continue;
                }
                open = true;
                let step = energy[i] / curvature;
                for j in at.clone() {
                    b[j] += step * direction[j];
                    residual[j] -= step * product[j];
                }
                let z = scaled(&residual[at.clone()]);
                let next = dot(&residual[at.clone()], &z);
                let ratio = next / energy[i];
                energy[i] = next;
                direction[at].iter_mut().zip(z).for_each(|(d, z)| *d = z + ratio * *d);
            }
            if !open {
                break;
            }
        }
        b
    }
}

/// `exp(|w| / t) / sum`, t the temperature times the largest `|w|`.
fn softmax(row: &[f32], temperature: f64) -> Vec<f64> {
    let peak = f64::from(row.iter().fold(0.0f32, |m, w| m.max(w.abs())));
    if peak == 0.0 {
        return vec![1.0 / row.len() as f64; row.len()];
    }
    let e: Vec<f64> = row.iter().map(|w| ((f64::from(w.abs()) - peak) / (temperature * peak)).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// Row by row, `changed` where it lowers the output error after quantization, otherwise `weights`; and the rows that
/// changed. `quantized` turns weights into what stands for them. Methods that round rows on their own (all of this
/// crate do) keep the promise for the result: no row's error on the inputs of `gram` is above what it is without the
/// change.
///
/// # Errors
/// The first error of `quantized`.
pub fn guarded<E>(
    weights: &Matrix,
    changed: &Matrix,
    gram: &Gram,
    pool: &Pool,
    mut quantized: impl FnMut(&Matrix) -> Result<Matrix, E>,
) -> Result<(Matrix, usize), E> {
    let before = gram.output_errors(weights, &quantized(weights)?, pool);
    let after = gram.output_errors(weights, &quantized(changed)?, pool);
    let mut out = weights.clone();
    let mut kept = 0;
    for r in 0..weights.rows() {
        if after[r] < before[r] {
            out.row_mut(r).copy_from_slice(changed.row(r));
            kept += 1;
        }
    }
    Ok((out, kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{inputs, normal};
    use crate::{Gptq, Grid, Group, Width};

    fn gram(tokens: usize, cols: usize, power: f32, seed: u64) -> Gram {
        let mut gram = Gram::new(cols);
        gram.add(&inputs(tokens, cols, power, seed), &Pool::new(1)).unwrap();
        gram
    }

    fn outliers(rows: usize, cols: usize) -> Matrix {
        let mut w = normal(rows, cols, 9);
        (0..rows).for_each(|r| w.row_mut(r)[(r * 7) % cols] *= 8.0);
        w
    }

    #[test]
    fn the_number_of_directions_follows_the_share() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.1, 0.3, 0.31, 0.6, 0.99, 1.0].map(|g| directions(&values, g)), [1, 1, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn changes_solve_their_normal_equations_within_the_span() {
        let (w, g) = (outliers(6, 24), gram(60, 24, 1.5, 1));
        for osaq in [Osaq { gamma: 0.05, ..Osaq::paper() }, Osaq::curvature()] {
            let eigen = SymmetricEigen::new(g.mean());
            let mut order: Vec<usize> = (0..24).collect();
            order.sort_by(|&a, &b| eigen.eigenvalues[a].total_cmp(&eigen.eigenvalues[b]));
            let vector = |e: usize| eigen.eigenvectors.column(order[e]);
            let report = osaq.apply(&w, &g, &Pool::new(2)).unwrap();
            let k = report.directions;
            assert_eq!(k == 24, osaq.gamma == 1.0);
            let mean = eigen.eigenvalues.sum() / 24.0;
            for r in 0..6 {
                let s = softmax(w.row(r), osaq.temperature);
                let change: Vec<f64> =
                    (0..24).map(|c| f64::from(report.weights.row(r)[c]) - f64::from(w.row(r)[c])).collect();
                let along = |e: usize| (0..24).map(|c| change[c] * vector(e)[c]).sum::<f64>();
                (k..24).for_each(|e| assert!(along(e).abs() < 1e-5, "direction {e}: {}", along(e)));
                let total: f64 = change.iter().sum();
                for e in 0..k {
                    // Row e of A b + rho, from the weights that came out.
                    let pull: f64 = (0..24)
                        .map(|c| vector(e)[c] * (s[c] * f64::from(report.weights.row(r)[c]) + osaq.mu2 * total))
                        .sum();
                    let gradient = pull + (osaq.mu1 + osaq.kappa * eigen.eigenvalues[order[e]] / mean) * along(e);
                    assert!(gradient.abs() < 1e-5, "direction {e}: {gradient}");
                }
            }
        }
    }

    #[test]
    fn the_solver_reaches_its_tolerance() {
        let (rows, k) = (3, 20);
        let eye: Vec<f64> = (0..k * k).map(|i| f64::from(i / k == i % k)).collect();
        let price = (0..k).map(|i| 0.01 + 10f64.powi(i as i32 / 5)).collect();
        let space = Space { cols: k, k, n: eye, price, mu2: 0.3 };
        let w = outliers(rows, k);
        let s: Vec<f64> = (0..rows).flat_map(|r| softmax(w.row(r), 0.2)).collect();
        let right: Vec<f64> = w.data().iter().map(|&v| v.into()).collect();
        let b = space.solve(&right, &s, rows);
        let back = space.apply(&b, &s, rows);
        back.iter().zip(&right).for_each(|(a, b)| assert!((a - b).abs() < 1e-8, "{a} against {b}"));
    }

    #[test]
    fn a_high_price_changes_nothing_and_the_guard_never_loses() {
        let (w, g) = (outliers(20, 64), gram(200, 64, 2.0, 3));
        let rigid = Osaq { kappa: 1e12, mu1: 1e12, ..Osaq::curvature() }.apply(&w, &g, &Pool::new(1)).unwrap();
        assert_eq!(rigid.weights, w);
        let grid = Grid::new(Width::Bits(3), Group::Of(32), false).unwrap();
        let pool = Pool::new(1);
        for osaq in [Osaq::paper(), Osaq::curvature(), Osaq { gamma: 0.5, mu1: 1e-3, ..Osaq::paper() }] {
            let changed = osaq.apply(&w, &g, &pool).unwrap().weights;
            let quantize = |w: &Matrix| Ok::<_, PtqError>(Gptq::default().quantize(w, &g, grid, &pool)?.dequantize());
            let (kept, _) = guarded(&w, &changed, &g, &pool, quantize).unwrap();
            let plain = g.output_errors(&w, &quantize(&w).unwrap(), &pool);
            let after = g.output_errors(&w, &quantize(&kept).unwrap(), &pool);
            plain.iter().zip(&after).for_each(|(p, a)| assert!(a <= &(p * (1.0 + 1e-9)), "{a} above {p}"));
        }
    }

    #[test]
    fn a_decaying_spectrum_gains_on_other_tokens() {
        // Less error of 3 bits on tokens that were not seen, eigenvalues i^-2.
        let all = inputs(1200, 96, 2.0, 5);
        let pool = Pool::new(1);
        let half = |from: usize| {
            let mut gram = Gram::new(96);
            gram.add(&Matrix::new(600, 96, all.data()[from * 96..(from + 600) * 96].to_vec()).unwrap(), &pool).unwrap();
            gram
        };
        let (seen, unseen) = (half(0), half(600));
        let w = outliers(48, 96);
        let grid = Grid::new(Width::Bits(3), Group::Of(32), false).unwrap();
        let error = |w_q: &Matrix| {
            let q = Gptq::default().quantize(w_q, &seen, grid, &pool).unwrap().dequantize();
            unseen.output_errors(&w, &q, &pool).iter().sum::<f64>()
        };
        let changed = Osaq { kappa: 30.0, mu1: 0.1, ..Osaq::curvature() }.apply(&w, &seen, &pool).unwrap().weights;
        let quantize = |w: &Matrix| Ok::<_, PtqError>(Gptq::default().quantize(w, &seen, grid, &pool)?.dequantize());
        let (kept, rows) = guarded(&w, &changed, &seen, &pool, quantize).unwrap();
        assert!(rows > 12, "{rows} of 48 rows");
        assert!(error(&kept) < 0.85 * error(&w), "{} against {}", error(&kept), error(&w));
        assert!(Osaq::paper().apply(&w, &Gram::new(3), &pool).is_err());
    }
}
