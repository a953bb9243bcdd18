//! A Cholesky factor by blocks: products of blocks, which stay in cache, do nearly all of the work.

use nalgebra::DMatrix;

/// Columns of a block.
const BLOCK: usize = 96;

/// L, lower triangular, with `a = L L^T`; of `a` (n x n, symmetric) the lower half is read. `None` where it is not
/// positive definite. Takes n^3 / 6 multiply-adds.
pub(crate) fn cholesky(mut a: DMatrix<f64>) -> Option<DMatrix<f64>> {
    let n = a.nrows();
    for first in (0..n).step_by(BLOCK) {
        let (end, len) = (n.min(first + BLOCK), BLOCK.min(n - first));
        // A block of columns less what those before it explain.
        let (before, mut block) = a.columns_range_pair_mut(..first, first..end);
        let top = before.rows_range(first..end).transpose();
        block.rows_range_mut(first..).gemm(-1.0, &before.rows_range(first..), &top, 1.0);
        let diagonal = block.rows_range(first..end).clone_owned().cholesky()?.unpack();
        let inverse = diagonal.solve_lower_triangular(&DMatrix::identity(len, len))?;
        let below = block.rows_range(end..) * inverse.transpose();
        block.rows_range_mut(end..).copy_from(&below);
        block.rows_range_mut(first..end).copy_from(&diagonal);
        block.rows_range_mut(..first).fill(0.0);
    }
    Some(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_times_its_transpose_is_the_matrix() {
        for n in [0, 1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5] {
            let x = DMatrix::from_fn(n, 2 * n, |r, c| ((r * 31 + c * 17 + r * c) % 23) as f64 - 11.0);
            let a = &x * x.transpose() + DMatrix::identity(n, n);
            let l = cholesky(a.clone()).unwrap();
            assert!((&l * l.transpose() - &a).amax() <= 1e-12 * a.amax(), "{n}");
            assert!((0..n).all(|c| (0..c).all(|r| l[(r, c)] == 0.0)), "{n}: lower triangular");
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_told() {
        let mut a = DMatrix::identity(BLOCK + 3, BLOCK + 3);
        a[(BLOCK + 1, BLOCK + 1)] = -1.0;
        assert!(cholesky(a).is_none());
    }
}
