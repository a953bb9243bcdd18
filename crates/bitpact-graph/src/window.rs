//! The window of a convolution or pool: which elements each output position sees.

use crate::{Place, Shape};

/// Rows and columns of padding beside a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Padding {
    /// Rows that are inserted above.
    pub top: usize,
    /// Columns that are inserted to the left.
    pub left: usize,
    /// Rows that are inserted below.
    pub bottom: usize,
    /// Columns that are inserted to the right.
    pub right: usize,
}

impl Padding {
    /// Padding of the same width on every side.
    pub const fn all(n: usize) -> Self {
        Self { top: n, left: n, bottom: n, right: n }
    }

    /// The largest of the four.
    pub fn most(&self) -> usize {
        self.top.max(self.left).max(self.bottom).max(self.right)
    }

    /// Tells whether the padding of all four sides is 0.
    pub fn is_none(&self) -> bool {
        self.most() == 0
    }
}

/// A window of `kernel` rows and columns that moves over a padded tensor by `stride`, sees every `dilation`-th row and
/// column, and takes the tensor as if `spread - 1` rows and columns of padding lay between each two of its own (a
/// transposed convolution of that stride). Pairs are rows first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Rows and columns that are seen.
    pub kernel: [usize; 2],
    /// Distance from one output position to the next.
    pub stride: [usize; 2],
    /// Padding beside the tensor, after it was spread.
    pub padding: Padding,
    /// Distance from one row or column that is seen to the next.
    pub dilation: [usize; 2],
    /// Distance from one row or column of the tensor to the next.
    pub spread: [usize; 2],
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ([rows, columns], Padding { top, left, bottom, right }) = (self.kernel, self.padding);
        write!(f, "{rows}x{columns}")?;
        for (name, [rows, columns], none) in
            [("stride", self.stride, 1), ("dilation", self.dilation, 1), ("spread", self.spread, 1)]
        {
            match rows == columns {
                true if rows == none => {}
                true => write!(f, ", {name} {rows}")?,
                false => write!(f, ", {name} {rows}x{columns}")?,
            }
        }
        match (top, left) == (bottom, right) && top == left {
            true if top == 0 => Ok(()),
            true => write!(f, ", padding {top}"),
            false => write!(f, ", padding {top}, {left}, {bottom}, {right}"),
        }
    }
}

impl Window {
    /// A square window with the same stride in both directions and the same padding on every side.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: Padding::all(padding),
            dilation: [1; 2],
            spread: [1; 2],
        }
    }

    /// Stride and padding where both directions and all sides are alike and nothing is dilated or spread.
    pub fn plain(&self) -> Option<(usize, usize)> {
        let (stride, padding) = (self.stride[0], self.padding.top);
        let plain = Self { kernel: self.kernel, ..Self::square(1, stride, padding) };
        (*self == plain).then_some((stride, padding))
    }

    /// The window with one position over all of `shape`: of a linear layer or a global pool.
    pub const fn whole(shape: Shape) -> Self {
        Self { kernel: [shape.h, shape.w], ..Self::square(1, 1, 0) }
    }

    /// Rows and columns that the window covers, those between the ones it sees included.
    pub fn extent(&self) -> [usize; 2] {
        [0, 1].map(|i| (self.kernel[i] - 1) * self.dilation[i] + 1)
    }

    /// Rows and columns of a tensor once it is spread and padded.
    pub fn padded(&self, shape: Shape) -> [usize; 2] {
        let Padding { top, left, bottom, right } = self.padding;
        let spread = |side: usize, by: usize| (side - 1) * by + 1;
        [spread(shape.h, self.spread[0]) + top + bottom, spread(shape.w, self.spread[1]) + left + right]
    }

    /// Rows and columns of output positions over a tensor of `shape`; `None` where the window does not fit.
    pub fn positions(&self, shape: Shape) -> Option<[usize; 2]> {
        let (padded, extent) = (self.padded(shape), self.extent());
        let side = |i: usize| padded[i].checked_sub(extent[i]).map(|left| left / self.stride[i] + 1);
        Some([side(0)?, side(1)?])
    }

    /// The element of a tensor of `shape` that output position `(y, x)` sees at row and column `(ky, kx)` of the
    /// window; `None` where that is padding.
    pub fn source(&self, shape: Shape, (y, x): (usize, usize), (ky, kx): (usize, usize)) -> Option<(usize, usize)> {
        let along = |i: usize, position: usize, k: usize, before: usize, side: usize| {
            let at = (position * self.stride[i] + k * self.dilation[i]).checked_sub(before)?;
            (at.is_multiple_of(self.spread[i]) && at / self.spread[i] < side).then(|| at / self.spread[i])
        };
        let Padding { top, left, .. } = self.padding;
        Some((along(0, y, ky, top, shape.h)?, along(1, x, kx, left, shape.w)?))
    }

    /// The element of a tensor of `shape` that stands at a place of its columns: at each output position the channels
    /// `[input channel][row][column]` that the window sees there, so that a convolution is one of 1x1 with the same
    /// weights. `None` where that is padding.
    pub fn column_source(&self, shape: Shape, (y, x, c): Place) -> Option<Place> {
        let [rows, columns] = self.kernel;
        let (channel, tap) = (c / (rows * columns), c % (rows * columns));
        self.source(shape, (y, x), (tap / columns, tap % columns)).map(|(y, x)| (y, x, channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_sources_of_known_windows() {
        let shape = Shape::new(5, 4, 1);
        assert_eq!(Window::square(3, 2, 1).positions(shape), Some([3, 2]));
        assert_eq!(Window::whole(shape).positions(shape), Some([1, 1]));
        assert_eq!(Window::square(6, 1, 0).positions(shape), None);
        let window =
            Window { dilation: [2, 1], padding: Padding { top: 1, ..Padding::default() }, ..Window::square(3, 1, 0) };
        assert_eq!(window.positions(shape), Some([2, 2]));
        assert_eq!(window.source(shape, (0, 1), (0, 0)), None);
        assert_eq!(window.source(shape, (1, 1), (2, 2)), Some((4, 3)));
        // A transposed convolution of stride 2 and kernel 2: every output sees one element.
        let up = Window { spread: [2; 2], ..Window::square(2, 1, 1) };
        assert_eq!(up.positions(shape), Some([10, 8]));
        for (y, x) in (0..10).flat_map(|y| (0..8).map(move |x| (y, x))) {
            let seen = (0..2).flat_map(|ky| (0..2).map(move |kx| (ky, kx)));
            let seen: Vec<_> = seen.filter_map(|k| up.source(shape, (y, x), k)).collect();
            assert_eq!(seen, [(y / 2, x / 2)]);
        }
    }
}
