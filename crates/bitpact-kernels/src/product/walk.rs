//! Where a product reads: the words of x that its weights meet.

use super::ProductSpec;

/// Four consecutive codes of x.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Elements from the first element that an output pixel reads.
    pub(super) offset: usize,
    /// First input channel, kernel row and kernel column.
    pub(super) place: [usize; 3],
}

/// The walk over output pixels in the tensor read.
///
/// Invariant: for every output pixel (r, q) the window ends before `x_len`, and where the channel stride is a multiple of 4, so
/// does every word: `at(r, q) + offset + 4 <= x_len`.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    base: usize,
    row: usize,
    col: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) x_len: usize,
}

impl Walk {
    pub(super) fn new(spec: &ProductSpec<'_>) -> (Walk, Vec<Word>) {
        let (g, x) = (&spec.geometry, &spec.x);
        let (height, width) = spec.output();
        let walk = Walk {
            base: (x.border - g.pad) * (x.row() + x.cs),
            row: x.row() * g.stride,
            col: x.cs * g.stride,
            height,
            width,
            x_len: x.len(),
        };
        let mut words = Vec::with_capacity(g.kh * g.kw * g.cin.div_ceil(4));
        for (a, b) in (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b))) {
            for first in (0..g.cin).step_by(4) {
                words.push(Word { offset: a * x.row() + b * x.cs + first, place: [first, a, b] });
            }
        }
        let last = ((g.kh - 1) * x.row() + (g.kw - 1) * x.cs) + if x.cs.is_multiple_of(4) { g.cin.next_multiple_of(4) } else { g.cin };
        let end = walk.at(height - 1, width - 1) + last;
        assert!(end <= walk.x_len, "{:?} is read {} elements beyond its end", spec.x, end - walk.x_len);
        (walk, words)
    }

    /// First element that output pixel (r, q) reads.
    #[inline(always)]
    pub(super) fn at(&self, r: usize, q: usize) -> usize {
        self.base + r * self.row + q * self.col
    }
}

/// The output pixels of a strip in raster order, in the tensor read.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Pixels<'a> {
    pub(super) walk: &'a Walk,
    pub(super) x: *const u8,
    pub(super) first_row: usize,
}

#[cfg(target_arch = "x86_64")]
impl super::tile::Source for Pixels<'_> {
    #[inline(always)]
    fn take<const P: usize>(self, first: usize, n: usize) -> [*const u8; P] {
        let walk = self.walk;
        let (mut r, mut q) = (self.first_row + first / walk.width, first % walk.width);
        let mut at = walk.at(r, q);
        std::array::from_fn(|p| {
            let this = at;
            if p + 1 < n {
                (q, at) = (q + 1, at + walk.col);
                if q == walk.width {
                    (r, q) = (r + 1, 0);
                    at = walk.at(r, 0);
                }
            }
            self.x.wrapping_add(this)
        })
    }
}
