//! The shape of a convolution, which training and the engine share.

/// The shape of a convolution, apart from image sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Kernel rows.
    pub kh: usize,
    /// Kernel columns.
    pub kw: usize,
    /// Stride, the same in both directions.
    pub stride: usize,
    /// Padding, the same on all four sides.
    pub pad: usize,
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
}

impl ConvGeometry {
    /// Output (rows, columns) for an h x w input: (size + 2 pad - k) / stride + 1.
    ///
    /// # Panics
    /// If a dimension of the kernel or the stride is 0, or the kernel is larger than the padded input.
    pub fn output(&self, h: usize, w: usize) -> (usize, usize) {
        assert!(self.kh > 0 && self.kw > 0 && self.stride > 0, "empty kernel or stride: {self:?}");
        let (h, w) = (h + 2 * self.pad, w + 2 * self.pad);
        assert!(h >= self.kh && w >= self.kw, "kernel larger than the padded {h} x {w} input: {self:?}");
        ((h - self.kh) / self.stride + 1, (w - self.kw) / self.stride + 1)
    }

    /// Number of weights, cout * cin * kh * kw.
    pub fn weights(&self) -> usize {
        self.cout * self.cin * self.kh * self.kw
    }

    /// Index of weight (o, i, a, b) in OIHW order.
    #[cfg(test)]
    pub(crate) fn weight(&self, o: usize, i: usize, a: usize, b: usize) -> usize {
        ((o * self.cin + i) * self.kh + a) * self.kw + b
    }
}
