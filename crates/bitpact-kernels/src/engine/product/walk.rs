//! Where a product reads: the words of x that its weights meet.

use super::ProductSpec;

/// Consecutive codes of x, `K` of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word<const K: usize> {
    /// Elements from the first element that an output pixel reads.
    pub(super) offset: usize,
    /// Input channel, kernel row and kernel column of each code; none for one that meets no weight here.
    pub(super) places: [Option<[usize; 3]>; K],
}

/// The walk over output pixels in the tensor read.
///
/// Invariant: for every output pixel (r, q) and every word of [`Walk::words`], `at(r, q) + offset + K <= x_len`.
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
    pub(super) fn new(spec: &ProductSpec<'_>) -> Walk {
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
        let last =
            (g.kh - 1) * x.row() + (g.kw - 1) * x.cs + if x.cs == g.cin { g.cin } else { g.cin.next_multiple_of(4) };
        let end = walk.at(height - 1, width - 1) + last;
        assert!(end <= walk.x_len, "{:?} is read {} elements beyond its end", spec.x, end - walk.x_len);
        walk
    }

    /// The walk over a tensor that has `to` elements a pixel where this one has `from`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn repacked(self, from: usize, to: usize) -> Walk {
        let [base, row, col] = [self.base, self.row, self.col].map(|n| n / from * to);
        Walk { base, row, col, ..self }
    }

    /// The words of a window, row by row. Where channels lie without gaps, a row of the window is one run of codes; its
    /// last word is moved back to end with it.
    pub(super) fn words<const K: usize>(spec: &ProductSpec<'_>) -> Vec<Word<K>> {
        let (g, x) = (&spec.geometry, &spec.x);
        let is_dense = x.cs == g.cin;
        let (run, runs) = if is_dense { (g.kw * g.cin, 1) } else { (g.cin.next_multiple_of(4), g.kw) };
        let mut words = Vec::with_capacity(g.kh * runs * run.div_ceil(K));
        for (a, start) in (0..g.kh).flat_map(|a| (0..runs).map(move |b| (a, b * x.cs))) {
            for new in (0..run).step_by(K) {
                let first = new.min(run - K);
                let place = |k: usize| {
                    let (code, i) = (first + k, (first + k) % x.cs);
                    (code >= new && i < g.cin).then_some([i, a, (start + code) / x.cs])
                };
                words.push(Word { offset: a * x.row() + start + first, places: std::array::from_fn(place) });
            }
        }
        words
    }

    /// First element that output pixel (r, q) reads.
    #[inline(always)]
    pub(super) fn at(&self, r: usize, q: usize) -> usize {
        self.base + r * self.row + q * self.col
    }
}

/// The output pixels of a strip in raster order, in the tensor read or in a copy of its elements.
#[cfg(target_arch = "x86_64")]
pub(super) struct Pixels {
    next: *const u8,
    /// The first pixel of the row.
    row: *const u8,
    /// Pixels left in the row.
    left: usize,
    /// Pixels of a row.
    width: usize,
    /// Bytes from one row to the next, and from one pixel to the next.
    steps: [usize; 2],
}

#[cfg(target_arch = "x86_64")]
impl Pixels {
    /// Pixels whose first element lies at `first`, with so many bytes an element.
    #[inline(always)]
    pub(super) fn new(walk: &Walk, first: *const u8, bytes: usize) -> Self {
        let steps = [walk.row * bytes, walk.col * bytes];
        Self { next: first, row: first, left: walk.width, width: walk.width, steps }
    }

    #[inline(always)]
    fn advance(&mut self, pixels: usize) {
        self.next = self.next.wrapping_add(pixels * self.steps[1]);
        self.left -= pixels;
        if self.left == 0 {
            self.row = self.row.wrapping_add(self.steps[0]);
            (self.next, self.left) = (self.row, self.width);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl super::tile::Source for Pixels {
    #[inline(always)]
    fn take<const P: usize>(&mut self, n: usize) -> [*const u8; P] {
        // Nothing is indexed by a variable, lest the addresses stay in memory.
        let (first, step) = (self.next, self.steps[1]);
        if n <= self.left {
            self.advance(n);
            return std::array::from_fn(|p| first.wrapping_add(p.min(n - 1) * step));
        }
        let pixels = std::array::from_fn(|p| {
            let pixel = self.next;
            if p + 1 < n {
                self.advance(1);
            }
            pixel
        });
        self.advance(1);
        pixels
    }
}
