//! The inverse of a Cholesky factor by blocks: products of blocks, which stay in cache, do nearly all of the work.

use nalgebra::DMatrix;

/// Columns of a block.
const BLOCK: usize = 96;

/// The inverse of L, lower triangular, where `a = L L^T`; of `a` (n x n, symmetric) the lower half is read. `None`
/// where it is not positive definite. Takes 2/3 n^3 multiply-adds.
pub(crate) fn inverse_factor(mut a: DMatrix<f64>) -> Option<DMatrix<f64>> {
    let n = a.nrows();
    let mut inverse = DMatrix::zeros(n, n);
    for first in (0..n).step_by(BLOCK) {
        let (end, len) = (n.min(first + BLOCK), BLOCK.min(n - first));
        // A block of columns less what those before it explain.
        let (before, mut block) = a.columns_range_pair_mut(..first, first..end);
        let top = before.rows_range(first..end).transpose();
        block.rows_range_mut(first..).gemm(-1.0, &before.rows_range(first..), &top, 1.0);
        let diagonal = block.rows_range(first..end).clone_owned().cholesky()?.unpack();
        let own = diagonal.solve_lower_triangular(&DMatrix::identity(len, len))?;
        let below = block.rows_range(end..) * own.transpose();
        block.rows_range_mut(end..).copy_from(&below);
        // The rows of the inverse: -L_ii^-1 (L_i0 X_0 + L_i1 X_1 + ..) before the diagonal.
        let rows = -&own * (before.rows_range(first..end) * inverse.view((0, 0), (first, first)));
        inverse.view_mut((first, 0), (len, first)).copy_from(&rows);
        inverse.view_mut((first, first), (len, len)).copy_from(&own);
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_takes_the_matrix_to_the_identity() {
        for n in [0, 1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5] {
            let x = DMatrix::from_fn(n, 2 * n, |r, c| ((r * 31 + c * 17 + r * c) % 23) as f64 - 11.0);
            let a = &x * x.transpose() + DMatrix::identity(n, n);
            let inverse = inverse_factor(a.clone()).unwrap();
            let unit = &inverse * &a * inverse.transpose();
            assert!((unit - DMatrix::<f64>::identity(n, n)).amax() < 1e-9, "{n}");
            assert!((0..n).all(|c| (0..c).all(|r| inverse[(r, c)] == 0.0)), "{n}: lower triangular");
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_told() {
        let mut a = DMatrix::identity(BLOCK + 3, BLOCK + 3);
        a[(BLOCK + 1, BLOCK + 1)] = -1.0;
        assert!(inverse_factor(a).is_none());
    }
}
