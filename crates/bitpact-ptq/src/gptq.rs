//! GPTQ (Frantar et al., arXiv 2210.17323): column by column, the error of a rounded weight is spread over the columns
//! to come.
//!
//! With `H = R R^T`, R upper triangular in the order of the columns, the error of a row with differences d is
//! `d H d^T = sum over c of (d_c R_cc + sum over r < c of d_r R_rc)^2`. Column after column, the code that makes its
//! term least is that nearest to `w_c - sum over r < c of (q_r - w_r) R_rc / R_cc`, q the rounded weights. These are
//! the codes of the paper's algorithm 1, which takes `U = R^-1` (Chen et al., arXiv 2507.18553); R alone is a quarter
//! of the work, and the terms are the error.

use bitpact_core::WeightSpec;
use bitpact_kernels::float::{View, ViewMut, multiply_add};
use bitpact_kernels::{Chunked, Pool};
use nalgebra::DMatrix;

use crate::cholesky::cholesky;
use crate::steps::{check_steps, code_and_value};
use crate::{Gram, Grid, GroupParams, Matrix, PtqError, Quantized};

/// Columns whose errors are spread over the later ones together (the paper's lazy batches).
const BLOCK: usize = 128;
/// Rows that are one task.
const TASK_ROWS: usize = 128;

/// The order in which columns are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Columns are rounded from the first to the last.
    Natural,
    /// By falling diagonal of the Hessian, so that inputs that matter most are rounded with least error before them.
    /// Steps of groups are then those of the unchanged weights ([`Gptq::static_groups`]): groups stay neighbours and
    /// the codes need no index.
    Activation,
}

/// Settings with which GPTQ rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gptq {
    /// Share of the Hessian's mean diagonal that is added to its diagonal; the paper's is 0.01.
    pub damping: f64,
    /// The order of columns.
    pub order: Order,
    /// Whether steps are fitted to the weights as they were; otherwise to what they are when their group begins.
    pub static_groups: bool,
    /// Whether steps are searched for with the mean squares of the inputs ([`Grid::search`]); otherwise they span the
    /// weights ([`Grid::fit`]).
    pub search: bool,
}

impl Default for Gptq {
    /// As the paper prints it: natural order, and steps that span the weights of a group when it begins.
    fn default() -> Gptq {
        Gptq { damping: 0.01, order: Order::Natural, static_groups: false, search: false }
    }
}

impl Gptq {
    /// The settings that language models need at few bits: columns by falling activation, so that inputs a thousand
    /// times larger than the others are rounded before those that can make good for them, and steps that are searched
    /// for, which heed them.
    pub fn searched() -> Gptq {
        Gptq { order: Order::Activation, static_groups: true, search: true, ..Gptq::default() }
    }

    /// Codes of `weights` (`outputs x inputs`) for inputs with the Gram matrix `gram`, which with the damping is `H`.
    /// The same codes for any number of threads.
    ///
    /// # Errors
    /// Where sizes differ, a number is not finite, or the damped Hessian is singular.
    pub fn quantize(&self, weights: &Matrix, gram: &Gram, grid: Grid, pool: &Pool) -> Result<Quantized, PtqError> {
        let (rows, cols) = (weights.rows(), weights.cols());
        weights.check_finite("weights")?;
        gram.check(weights)?;
        let factor = self.factorize(gram)?;
        let mut out = Quantized::empty(grid, rows, cols);
        if rows == 0 || cols == 0 {
            return Ok(out);
        }
        let static_groups = self.static_groups || self.order == Order::Activation;
        let importance: Option<Vec<f32>> = self.search.then(|| (0..cols).map(|c| gram.at(c, c) as f32).collect());
        let fit = |weights: &[f32], first: usize| match &importance {
            Some(importance) => grid.search(weights, &importance[first..][..weights.len()]),
            None => grid.fit(weights),
        };
        let mut codes = vec![0u8; rows * cols];
        let zero = GroupParams { step: half::f16::ONE, zero: 0 };
        let mut params = vec![zero; rows * grid.groups(cols)];
        {
            let code_parts = Chunked::new(&mut codes, TASK_ROWS * cols);
            let param_parts = Chunked::new(&mut params, TASK_ROWS * grid.groups(cols));
            pool.run(code_parts.chunks(), &|task, _| {
                let (codes, params) = (&mut *code_parts.get(task), &mut *param_parts.get(task));
                let first = task * TASK_ROWS;
                let n = codes.len() / cols;
                let part = &weights.data()[first * cols..][..n * cols];
                rows_of(part, grid, &factor, static_groups, &fit, codes, params);
            });
        }
        for r in 0..rows {
            for g in 0..grid.groups(cols) {
                out.set_params(r, g, params[r * grid.groups(cols) + g]);
            }
            for c in 0..cols {
                out.set_code(r, c, codes[r * cols + c]);
            }
        }
        Ok(out)
    }

    /// What rounding on inputs with the Gram matrix `gram` needs of them, once for any weights.
    ///
    /// # Errors
    /// Where the damped Hessian is singular.
    pub fn factorize(&self, gram: &Gram) -> Result<Factor, PtqError> {
        let n = gram.inputs();
        let mut order: Vec<usize> = (0..n).collect();
        if self.order == Order::Activation {
            order.sort_by(|&a, &b| gram.at(b, b).total_cmp(&gram.at(a, a)).then(a.cmp(&b)));
        }
        let live: Vec<bool> = order.iter().map(|&c| gram.at(c, c) != 0.0).collect();
        let mean = (0..n).map(|i| gram.at(i, i)).sum::<f64>() / n.max(1) as f64;
        let added = self.damping * mean;
        // With the columns in reverse, H = L L^T is R R^T with R upper triangular in their right order.
        let h = DMatrix::from_fn(n, n, |r, c| {
            let (row, column) = (n - 1 - r, n - 1 - c);
            let value = gram.at(order[row], order[column]);
            match (r == c, live[row]) {
                (false, _) => value,
                (true, true) => value + added,
                (true, false) => 1.0,
            }
        });
        let singular = || PtqError::Singular { damping: self.damping };
        let lower = cholesky(h).ok_or_else(singular)?;
        let diagonal: Vec<f64> = (0..n).map(|c| lower[(n - 1 - c, n - 1 - c)]).collect();
        let mut spread = vec![0.0f32; n * n];
        for (r, row) in spread.chunks_exact_mut(n.max(1)).enumerate() {
            let at = |c: usize| (lower[(n - 1 - r, n - 1 - c)] / diagonal[c]) as f32;
            row.iter_mut().enumerate().skip(r).for_each(|(c, to)| *to = at(c));
        }
        if spread.iter().any(|v| !v.is_finite()) {
            return Err(singular());
        }
        // Inputs that are never anything but 0 make no error.
        let of_error = diagonal.iter().zip(&live).map(|(d, &live)| if live { d * d } else { 0.0 });
        Ok(Factor { order, spread, of_error: of_error.collect() })
    }
}

/// The order of columns and the triangular factor R of a layer's inputs.
#[derive(Clone, Debug)]
pub struct Factor {
    order: Vec<usize>,
    /// `R_rc / R_cc`, row by row, in that order.
    spread: Vec<f32>,
    /// `R_cc^2`: what the square of a column's rounding error counts; 0 for inputs that are always 0.
    of_error: Vec<f64>,
}

/// Codes of a layer and what they lose.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// Codes, row by row.
    pub codes: Vec<i16>,
    /// Mean squared error of each row's output.
    pub errors: Vec<f64>,
}

impl Factor {
    /// Codes of `weights` (`outputs x inputs`) on the grid of `spec`, an `lsq` quantizer, where row r has the step
    /// `steps[r]`; the method is that of [`Gptq::quantize`], with steps that stay. Errors are those of the damped Gram
    /// matrix. The same codes for any number of threads.
    ///
    /// # Errors
    /// Where sizes differ, or a number is not finite.
    pub fn codes(&self, weights: &Matrix, spec: &WeightSpec, steps: &[f32], pool: &Pool) -> Result<Rounded, PtqError> {
        check_steps(spec, weights, steps)?;
        weights.check_finite("weights")?;
        if self.order.len() != weights.cols() {
            return Err(PtqError::Shape {
                what: "factor",
                expected: format!("one of {} inputs", weights.cols()),
                found: format!("one of {}", self.order.len()),
            });
        }
        let (rows, cols) = (weights.rows(), weights.cols());
        let (mut codes, mut errors) = (vec![0; rows * cols], vec![0.0; rows]);
        if codes.is_empty() {
            return Ok(Rounded { codes, errors });
        }
        let (parts, of_rows) = (Chunked::new(&mut codes, TASK_ROWS * cols), Chunked::new(&mut errors, TASK_ROWS));
        pool.run(parts.chunks(), &|task, _| {
            let (codes, errors) = (&mut *parts.get(task), &mut *of_rows.get(task));
            let first = task * TASK_ROWS;
            let part = &weights.data()[first * cols..][..codes.len()];
            self.round(part, |r, i, row| {
                let (code, value) = code_and_value(spec, steps[first + r], row[i]);
                codes[r * cols + self.order[i]] = code;
                errors[r] += self.of_error[i] * f64::from(row[i] - value).powi(2);
                value
            });
        });
        Ok(Rounded { codes, errors })
    }

    /// The columns from `first` on, in natural order, as they are before any of them is rounded: the values that make
    /// the error of the columns before least, which are the current weights of the paper's algorithm. `row` takes each
    /// column's differences before `first` alone into account; those within follow from each other.
    fn free(&self, weights: &[f32], row: &[f32], first: usize) -> Vec<f32> {
        let mut free = row.to_vec();
        for i in 0..free.len() {
            let difference = weights[i] - free[i];
            let spread = &self.spread[(first + i) * self.order.len() + first..][i + 1..free.len()];
            free[i + 1..].iter_mut().zip(spread).for_each(|(w, s)| *w += difference * s);
        }
        free
    }

    /// Rounds the rows of `weights` column by column, and spreads each difference over the columns to come: `round(r,
    /// i, row)` gives the value that `row[i]`, the weight of row r in the i-th column of the order, is rounded to.
    fn round(&self, weights: &[f32], mut round: impl FnMut(usize, usize, &[f32]) -> f32) {
        let cols = self.order.len();
        let n = weights.len() / cols;
        let mut w: Vec<f32> = weights.chunks_exact(cols).flat_map(|row| self.order.iter().map(|&c| row[c])).collect();
        let mut differences = vec![0.0f32; n * BLOCK];
        for start in (0..cols).step_by(BLOCK) {
            let end = cols.min(start + BLOCK);
            for r in 0..n {
                let row = &mut w[r * cols..][..cols];
                for i in start..end {
                    let difference = weights[r * cols + self.order[i]] - round(r, i, row);
                    differences[r * BLOCK + i - start] = difference;
                    let spread = &self.spread[i * cols..][i + 1..end];
                    row[i + 1..end].iter_mut().zip(spread).for_each(|(w, s)| *w += difference * s);
                }
            }
            if end < cols {
                let left = View::strided(&differences, n, end - start, BLOCK);
                let right = View::strided(&self.spread[start * cols + end..], end - start, cols - end, cols);
                multiply_add(1.0, left, right, ViewMut::strided(&mut w[end..], n, cols - end, cols));
            }
        }
    }
}

/// Rounds rows, which do not depend on each other. `fit` has the step of a group from its weights and its first column.
fn rows_of(
    weights: &[f32],
    grid: Grid,
    factor: &Factor,
    static_groups: bool,
    fit: &dyn Fn(&[f32], usize) -> GroupParams,
    codes: &mut [u8],
    params: &mut [GroupParams],
) {
    let cols = factor.order.len();
    let (len, groups) = (grid.group_len(cols), grid.groups(cols));
    if static_groups {
        for (row, params) in weights.chunks_exact(cols).zip(params.chunks_exact_mut(groups)) {
            row.chunks(len).zip(params).enumerate().for_each(|(g, (group, p))| *p = fit(group, g * len));
        }
    }
    factor.round(weights, |r, i, row| {
        let column = factor.order[i];
        // In natural order a group begins here; the columns of its part of the block carry all earlier errors.
        if !static_groups && i.is_multiple_of(len) {
            let end = cols.min(i + len);
            let free = factor.free(&weights[r * cols + i..][..end - i], &row[i..end], i);
            params[r * groups + i / len] = fit(&free, i);
        }
        let p = params[r * groups + column / len];
        let code = grid.code(p, row[i]);
        codes[r * cols + column] = code;
        p.value(code)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{inputs, lsq, normal};
    use crate::{Group, Width, largest_steps, round_rows};

    fn gram(x: &Matrix) -> Gram {
        let mut gram = Gram::new(x.cols());
        gram.add(x, &Pool::new(1)).unwrap();
        gram
    }

    fn error(gram: &Gram, w: &Matrix, q: &Quantized) -> f64 {
        gram.output_errors(w, &q.dequantize(), &Pool::new(1)).iter().sum()
    }

    #[test]
    fn errors_are_below_rounding_on_correlated_inputs_in_every_order() {
        let (w, g) = (normal(24, 160, 1), gram(&inputs(400, 160, 1.0, 2)));
        for (width, symmetric) in [(Width::Bits(4), false), (Width::Bits(3), true), (Width::Ternary, true)] {
            let grid = Grid::new(width, Group::Of(32), symmetric).unwrap();
            let rounded = error(&g, &w, &grid.round(&w).unwrap());
            for (order, static_groups) in [(Order::Natural, false), (Order::Natural, true), (Order::Activation, true)] {
                let q = Gptq { order, static_groups, ..Gptq::default() }.quantize(&w, &g, grid, &Pool::new(1)).unwrap();
                let after = error(&g, &w, &q);
                assert!(after < 0.8 * rounded, "{width} {order:?}: {after} against {rounded}");
            }
        }
    }

    #[test]
    fn huge_inputs_are_rounded_first_and_on_steps_that_heed_them() {
        // A massive activation: one token in fifty drives one input, the last of its row, to a thousand times the rest.
        let mut x = inputs(400, 128, 0.7, 21);
        (0..400).step_by(50).for_each(|t| x.row_mut(t)[127] = 1000.0);
        let (w, g) = (normal(24, 128, 22), gram(&x));
        let grid = Grid::new(Width::Bits(3), Group::Of(64), false).unwrap();
        let of = |gptq: Gptq| error(&g, &w, &gptq.quantize(&w, &g, grid, &Pool::new(1)).unwrap());
        let (plain, searched) = (of(Gptq::default()), of(Gptq::searched()));
        assert!(searched < 0.1 * plain, "{searched} against {plain}");
        let natural = of(Gptq { search: true, ..Gptq::default() });
        assert!(natural < plain, "{natural} against {plain}");
    }

    #[test]
    fn independent_inputs_give_rounding() {
        let mut x = Matrix::zeros(96, 96);
        (0..96).for_each(|i| x.row_mut(i)[i] = 1.0 + i as f32 / 96.0);
        let (w, grid) = (normal(5, 96, 3), Grid::new(Width::Bits(3), Group::Of(32), false).unwrap());
        for order in [Order::Natural, Order::Activation] {
            let q = Gptq { order, ..Gptq::default() }.quantize(&w, &gram(&x), grid, &Pool::new(1)).unwrap();
            assert_eq!(q, grid.round(&w).unwrap());
        }
    }

    #[test]
    fn blocks_equal_the_plain_algorithm_and_threads_do_not_matter() {
        let (w, g) = (normal(40, 300, 4), gram(&inputs(500, 300, 0.7, 5)));
        let grid = Grid::new(Width::Bits(4), Group::Of(64), false).unwrap();
        let gptq = Gptq::default();
        let q = gptq.quantize(&w, &g, grid, &Pool::new(1)).unwrap();
        assert_eq!(gptq.quantize(&w, &g, grid, &Pool::new(3)).unwrap(), q);

        // Algorithm 1 of the paper: the upper Cholesky factor of the inverse of the damped Hessian.
        let mean = (0..300).map(|i| g.at(i, i)).sum::<f64>() / 300.0;
        let h = DMatrix::from_fn(300, 300, |r, c| 2.0 * (g.at(r, c) + if r == c { 0.01 * mean } else { 0.0 }));
        let u = h.try_inverse().unwrap().cholesky().unwrap().l().transpose();
        let mut differ = 0;
        for r in 0..40 {
            let mut row: Vec<f64> = w.row(r).iter().map(|&v| v.into()).collect();
            for i in 0..300usize {
                if i % 64 == 0 {
                    let now: Vec<f32> = row[i..300.min(i + 64)].iter().map(|&v| v as f32).collect();
                    let (fitted, found) = (grid.fit(&now), q.params()[r * 5 + i / 64]);
                    let apart = (fitted.step.to_f32() / found.step.to_f32() - 1.0).abs();
                    assert!(apart < 2e-3 && fitted.zero.abs_diff(found.zero) <= 1, "{fitted:?} {found:?}");
                }
                // The algorithm goes on from the code that was chosen: one that differs would change all later ones.
                let (params, chosen) = (q.params()[r * 5 + i / 64], q.codes()[r * 300 + i]);
                differ += usize::from(grid.code(params, row[i] as f32) != chosen);
                let e = (row[i] - f64::from(params.value(chosen))) / u[(i, i)];
                (i + 1..300).for_each(|j| row[j] -= e * u[(i, j)]);
            }
        }
        // Sums in another order may move a weight across a boundary, hardly ever.
        assert!(differ <= 12, "{differ} of 12,000 codes differ");
    }

    #[test]
    fn codes_of_rows_are_near_the_best_of_all_codes() {
        // Two bits and four correlated inputs: all 3^4 code vectors of a row can be tried.
        let spec = lsq(2, bitpact_core::Grid::WithZero);
        let (w, g) = (normal(20, 4, 11), gram(&inputs(60, 4, 1.5, 12)));
        let steps = largest_steps(&spec, &w).unwrap();
        let gptq = Gptq { damping: 1e-6, order: Order::Activation, ..Gptq::default() };
        let factor = gptq.factorize(&g).unwrap();
        let Rounded { codes, errors } = factor.codes(&w, &spec, &steps, &Pool::new(1)).unwrap();
        let again = factor.codes(&w, &spec, &steps, &Pool::new(3)).unwrap();
        assert_eq!(again, Rounded { codes: codes.clone(), errors: errors.clone() });
        let rounded = round_rows(&spec, &w, &steps).unwrap();
        let error = |r: usize, codes: &[i16]| -> f64 {
            let row = Matrix::new(1, 4, w.row(r).to_vec()).unwrap();
            let other = Matrix::from_fn(1, 4, |_, c| steps[r] * f32::from(codes[c]));
            g.output_errors(&row, &other, &Pool::new(1))[0]
        };
        let (mut found, mut nearest, mut best) = (0.0, 0.0, 0.0);
        for r in 0..20 {
            let all = (0..81i16).map(|n| [n % 3 - 1, n / 3 % 3 - 1, n / 9 % 3 - 1, n / 27 - 1]);
            let least = all.map(|codes| error(r, &codes)).fold(f64::INFINITY, f64::min);
            found += error(r, &codes[4 * r..][..4]);
            assert!((errors[r] / error(r, &codes[4 * r..][..4]) - 1.0).abs() < 1e-3, "row {r}");
            nearest += error(r, &rounded[4 * r..][..4]);
            best += least;
        }
        assert!(best <= found && found < 0.7 * nearest && found < 1.6 * best, "{best} {found} {nearest}");
    }

    #[test]
    fn codes_of_independent_inputs_are_rounded_and_on_the_grid() {
        let mut x = Matrix::zeros(30, 30);
        (0..30).for_each(|i| x.row_mut(i)[i] = 1.0);
        let w = normal(3, 30, 13);
        let factor = Gptq::default().factorize(&gram(&x)).unwrap();
        for (bits, grid) in [(1, bitpact_core::Grid::WithoutZero), (3, bitpact_core::Grid::WithZero)] {
            let spec = lsq(bits, grid);
            let steps = largest_steps(&spec, &w).unwrap();
            let codes = factor.codes(&w, &spec, &steps, &Pool::new(1)).unwrap().codes;
            assert_eq!(codes, round_rows(&spec, &w, &steps).unwrap());
            assert!(codes.iter().all(|&code| grid.contains(code.into(), spec.bits)));
        }
        let three = lsq(3, bitpact_core::Grid::WithZero);
        assert!(factor.codes(&w, &three, &[1.0], &Pool::new(1)).is_err());
        assert!(factor.codes(&Matrix::zeros(1, 2), &three, &[1.0], &Pool::new(1)).is_err());
    }

    #[test]
    fn inputs_that_are_always_zero_are_rounded_and_singular_ones_are_told() {
        let mut x = inputs(50, 32, 0.5, 6);
        (0..50).for_each(|t| x.row_mut(t)[3] = 0.0);
        let (w, grid) = (normal(3, 32, 7), Grid::new(Width::Bits(4), Group::Of(32), true).unwrap());
        assert!(Gptq::default().quantize(&w, &gram(&x), grid, &Pool::new(1)).is_ok());
        let one_token = gram(&inputs(1, 32, 0.5, 8));
        let undamped = Gptq { damping: 0.0, ..Gptq::default() };
        let error = undamped.quantize(&w, &one_token, grid, &Pool::new(1)).unwrap_err();
        assert!(matches!(error, PtqError::Singular { .. }), "{error}");
        assert!(undamped.quantize(&w, &Gram::new(31), grid, &Pool::new(1)).is_err());
    }
}
