//! The shape of a tensor.

use serde::{Deserialize, Serialize};

/// Height, width and channels of one example's tensor; tensors are NHWC. A signal of one dimension has height 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Number of rows.
    pub h: usize,
    /// Number of columns.
    pub w: usize,
    /// Number of channels.
    pub c: usize,
}

impl Shape {
    /// A shape of `h` rows, `w` columns and `c` channels.
    pub const fn new(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c }
    }

    /// Elements of one example: `h * w * c`.
    pub const fn elements(&self) -> usize {
        self.h * self.w * self.c
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.h, self.w, self.c)
    }
}
