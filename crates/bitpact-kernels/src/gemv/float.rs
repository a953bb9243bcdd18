//! Products of matrices in float32 and float64: the `matrixmultiply` library behind checked views.

/// A matrix inside a slice: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// `rows x cols` elements, row by row.
    ///
    /// # Panics
    /// Where the slice is too short.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> View<'a, T> {
        View::strided(data, rows, cols, cols)
    }

    /// `rows x cols` elements, rows `stride` elements apart.
    ///
    /// # Panics
    /// Where the slice is too short or rows overlap.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, stride: usize) -> View<'a, T> {
        check(data.len(), rows, cols, stride);
        View { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transpose of the matrix.
    pub fn t(self) -> View<'a, T> {
        View { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// A matrix inside a slice that is written, rows `stride` elements apart.
#[derive(Debug)]
pub struct ViewMut<'a, T = f32> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T> ViewMut<'a, T> {
    /// `rows x cols` elements, row by row.
    ///
    /// # Panics
    /// Where the slice is too short.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> ViewMut<'a, T> {
        ViewMut::strided(data, rows, cols, cols)
    }

    /// `rows x cols` elements, rows `stride` elements apart.
    ///
    /// # Panics
    /// Where the slice is too short or rows overlap.
    pub fn strided(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> ViewMut<'a, T> {
        check(data.len(), rows, cols, stride);
        ViewMut { data, rows, cols, stride }
    }
}

fn check(len: usize, rows: usize, cols: usize, stride: usize) {
    assert!(stride >= cols, "rows of {cols} elements, {stride} apart");
    if rows > 0 && cols > 0 {
        let end = (rows - 1).checked_mul(stride).and_then(|at| at.checked_add(cols));
        assert!(end.is_some_and(|end| end <= len), "{rows} x {cols} elements, rows {stride} apart, in {len}");
    }
}

/// An element type of float products: float32 or float64.
pub trait Element: Copy + Sealed {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
}

impl Element for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
}

use sealed::Sealed;

mod sealed {
    /// `m, k, n, alpha, a, row and column stride of a, b, .., beta, c, ..` of `matrixmultiply`.
    pub(super) type Gemm<T> =
        unsafe fn(usize, usize, usize, T, *const T, isize, isize, *const T, isize, isize, T, *mut T, isize, isize);

    pub trait Sealed: Sized {
        const GEMM: Gemm<Self>;
    }

    impl Sealed for f32 {
        const GEMM: Gemm<f32> = matrixmultiply::sgemm;
    }

    impl Sealed for f64 {
        const GEMM: Gemm<f64> = matrixmultiply::dgemm;
    }
}

/// `to = left * right`.
///
/// # Panics
/// Where the sizes do not belong together.
pub fn multiply<T: Element>(left: View<'_, T>, right: View<'_, T>, to: ViewMut<'_, T>) {
    gemm(T::ONE, left, right, T::ZERO, to);
}

/// `to += factor * left * right`.
///
/// # Panics
/// Where the sizes do not belong together.
pub fn multiply_add<T: Element>(factor: T, left: View<'_, T>, right: View<'_, T>, to: ViewMut<'_, T>) {
    gemm(factor, left, right, T::ONE, to);
}

fn gemm<T: Element>(alpha: T, left: View<'_, T>, right: View<'_, T>, beta: T, to: ViewMut<'_, T>) {
    let (m, k, n) = (left.rows, left.cols, right.cols);
    assert_eq!((k, m, n), (right.rows, to.rows, to.cols), "inner sizes, and rows and columns of the result");
    let stride = |s: usize| isize::try_from(s).expect("a stride within a slice");
    let (a, b) =
        ((stride(left.row_stride), stride(left.col_stride)), (stride(right.row_stride), stride(right.col_stride)));
    let (c, row) = (to.data.as_mut_ptr(), stride(to.stride));
    // SAFETY: views hold every element that their sizes and strides reach (`check`), rows of `to` do not overlap, and
    // `to` is borrowed exclusively.
    unsafe { T::GEMM(m, k, n, alpha, left.data.as_ptr(), a.0, a.1, right.data.as_ptr(), b.0, b.1, beta, c, row, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_strided_parts_are_exact_and_touch_nothing_else() {
        // Small integers: sums are exact.
        for (m, k, n, gap) in [(1, 1, 1, 0), (2, 5, 1, 0), (3, 7, 5, 2), (9, 16, 24, 1), (33, 20, 17, 5)] {
            let value = |i: usize| (i * 31 % 17) as f64 - 8.0;
            let a: Vec<f64> = (0..m * (k + gap)).map(value).collect();
            let b: Vec<f64> = (0..n * k).map(|i| value(i + 3)).collect();
            let mut c = vec![100.0; m * (n + gap)];
            let left = View::strided(&a, m, k, k + gap);
            multiply(left, View::new(&b, n, k).t(), ViewMut::strided(&mut c, m, n, n + gap));
            let expected = |i: usize, j: usize| (0..k).map(|l| a[i * (k + gap) + l] * b[j * k + l]).sum::<f64>();
            let check = |c: &[f64], times: f64| {
                for (at, &v) in c.iter().enumerate() {
                    let (i, j) = (at / (n + gap), at % (n + gap));
                    assert_eq!(v, if j < n { times * expected(i, j) } else { 100.0 }, "{m} x {k} x {n}: ({i}, {j})");
                }
            };
            check(&c, 1.0);
            multiply_add(-3.0, left, View::new(&b, n, k).t(), ViewMut::strided(&mut c, m, n, n + gap));
            check(&c, -2.0);
        }
    }

    #[test]
    #[should_panic(expected = "2 x 3 elements")]
    fn short_slices_are_refused() {
        View::new(&[0.0f32; 5], 2, 3);
    }

    #[test]
    #[should_panic(expected = "inner sizes")]
    fn sizes_that_do_not_fit_are_refused() {
        let x = [0.0f32; 6];
        multiply(View::new(&x, 2, 3), View::new(&x, 2, 3), ViewMut::new(&mut [0.0; 4], 2, 2));
    }
}
