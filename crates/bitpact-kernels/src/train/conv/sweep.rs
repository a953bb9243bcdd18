//! The one walk behind every convolution: a grid of pixels, strides in the tensor read and the one written, and taps.

use std::ops::Range;

use super::{ConvGeometry, LANES};
use crate::Layout;

/// A grid of `rows` x `cols` pixels. Pixel (r, q) reads `words` words of channels from `x_at(r, q) + tap` for every tap
/// and belongs to the vector of channels at `y_at(r, q)`.
///
/// Invariant, checked by [`Sweep::new`]: every word so read ends at or before `x_len`, and every pixel's `y_channels`
/// channels end at or before `y_len`. Kernels rely on it instead of checking each access.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    rows: usize,
    cols: usize,
    x_base: usize,
    x_row: usize,
    x_col: usize,
    y_base: usize,
    y_row: usize,
    y_col: usize,
    taps: Vec<Tap>,
    runs: Vec<Range<usize>>,
    reads: usize,
    x_len: usize,
    y_len: usize,
    y_channels: usize,
}

/// One kernel position of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    /// Kernel row.
    pub(crate) a: usize,
    /// Kernel column.
    pub(crate) b: usize,
    /// Elements from the pixel's base to the pixel this tap reads.
    pub(crate) offset: usize,
}

impl Tap {
    /// Its number in a kernel of `kw` columns, row by row.
    pub(crate) fn index(&self, kw: usize) -> usize {
        self.a * kw + self.b
    }
}

/// Pixels of a sweep in one tensor: start of pixel (0, 0), and distances between rows and columns, in elements.
#[derive(Clone, Copy)]
struct Grid {
    base: isize,
    row: usize,
    col: usize,
}

impl Sweep {
    /// `taps` are (a, b, elements from the grid point in x); `reads` is the number of elements read at each.
    fn new(
        size: (usize, usize),
        x: Layout,
        at_x: Grid,
        taps: &[(usize, usize, isize)],
        reads: usize,
        y: Layout,
        at_y: Grid,
    ) -> Sweep {
        let (rows, cols) = size;
        let first = taps.iter().map(|t| t.2).min().unwrap_or(-at_x.base);
        let x_base = usize::try_from(at_x.base + first)
            .unwrap_or_else(|_| panic!("reads begin before x: its border is too small"));
        let taps: Vec<Tap> =
            taps.iter().map(|&(a, b, offset)| Tap { a, b, offset: (offset - first) as usize }).collect();
        assert!(
            y.cs.is_multiple_of(LANES),
            "channel stride {} of the tensor written: a multiple of {LANES} is needed",
            y.cs
        );
        let y_base = usize::try_from(at_y.base).expect("writes begin before y");
        let (x_len, y_len, y_channels) = (x.len(), y.len(), y.cs);
        let sweep = Sweep {
            rows,
            cols,
            x_base,
            x_row: at_x.row,
            x_col: at_x.col,
            y_base,
            y_row: at_y.row,
            y_col: at_y.col,
            runs: runs(&taps, reads),
            taps,
            reads,
            x_len,
            y_len,
            y_channels,
        };
        if rows > 0 && cols > 0 {
            let last_tap = sweep.taps.iter().map(|t| t.offset).max();
            if let Some(last_tap) = last_tap {
                let end = sweep.x_at(rows - 1, cols - 1) + last_tap + reads;
                assert!(end <= x_len, "reads end {} elements after x: its border is too small", end - x_len);
            }
            assert!(sweep.y_at(rows - 1, cols - 1) + y_channels <= y_len, "writes end after y");
        }
        sweep
    }

    /// The sweep of a forward convolution, which the weight gradient shares: over output pixels, reading x.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry.
    pub(crate) fn forward(geometry: &ConvGeometry, x: Layout, y: Layout, reads: usize) -> Sweep {
        let g = geometry;
        check_layouts(g, x, y);
        assert!(x.border >= g.pad, "x has a border of {}, the padding is {}", x.border, g.pad);
        let tap = |a: usize, b: usize| {
            a as isize * x.row() as isize + b as isize * x.cs as isize - (g.pad * (x.row() + x.cs)) as isize
        };
        let taps: Vec<_> = positions(g).map(|(a, b)| (a, b, tap(a, b))).collect();
        let at_x = Grid { base: x.offset(0, 0) as isize, row: x.row() * g.stride, col: x.cs * g.stride };
        let at_y = Grid { base: y.offset(0, 0) as isize, row: y.row(), col: y.cs };
        Sweep::new((y.h, y.w), x, at_x, &taps, reads, y, at_y)
    }

    /// The sweeps of an input gradient, one for each class of input pixels equal modulo the stride: each class meets
    /// its own subset of taps, and no zeros need to be inserted. Classes without a pixel are left out.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or dy's border is less than [`border`].
    pub(crate) fn transposed(geometry: &ConvGeometry, dy: Layout, dx: Layout, reads: usize) -> Vec<Sweep> {
        let g = geometry;
        let s = g.stride;
        check_layouts(g, dx, dy);
        assert!(dy.border >= border(g), "dy has a border of {}, {} is needed", dy.border, border(g));
        let along = |class: usize, k: usize| (class + g.pad) as isize - k as isize;
        let mut sweeps = Vec::new();
        for (u, v) in (0..s.min(dx.h)).flat_map(|u| (0..s.min(dx.w)).map(move |v| (u, v))) {
            // Later taps read earlier pixels; backwards, they read in the order of memory.
            let taps: Vec<_> = positions(g)
                .rev()
                .map(|(a, b)| (a, b, along(u, a), along(v, b)))
                .filter(|&(_, _, r, q)| r % s as isize == 0 && q % s as isize == 0)
                .map(|(a, b, r, q)| (a, b, r / s as isize * dy.row() as isize + q / s as isize * dy.cs as isize))
                .collect();
            let size = ((dx.h - u).div_ceil(s), (dx.w - v).div_ceil(s));
            let at_dy = Grid { base: dy.offset(0, 0) as isize, row: dy.row(), col: dy.cs };
            let at_dx = Grid { base: dx.offset(u, v) as isize, row: dx.row() * s, col: dx.cs * s };
            sweeps.push(Sweep::new(size, dy, at_dy, &taps, reads, dx, at_dx));
        }
        sweeps
    }

    /// Index in the tensor read of pixel (r, q), to which tap offsets are added.
    pub(crate) fn x_at(&self, r: usize, q: usize) -> usize {
        self.x_base + r * self.x_row + q * self.x_col
    }

    /// Index in the tensor written of channel 0 of pixel (r, q).
    pub(crate) fn y_at(&self, r: usize, q: usize) -> usize {
        self.y_base + r * self.y_row + q * self.y_col
    }

    /// Rows of the grid.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the grid.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between columns in the tensor read.
    pub(crate) fn x_col(&self) -> usize {
        self.x_col
    }

    /// Distance between columns in the tensor written.
    pub(crate) fn y_col(&self) -> usize {
        self.y_col
    }

    /// Kernel positions, row by row.
    pub(crate) fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// What all taps read, in their order, as ranges of elements from a pixel's base: taps that follow each other in
    /// memory are one range.
    pub(crate) fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }

    /// Every block of 16 channels written with every tap, in the order of packed weights.
    pub(crate) fn blocks_and_taps(&self) -> impl Iterator<Item = (usize, &Tap)> {
        (0..self.y_channels / LANES).flat_map(|block| self.taps.iter().map(move |tap| (block, tap)))
    }

    /// Elements read at each tap.
    pub(crate) fn reads(&self) -> usize {
        self.reads
    }

    /// Channels of the tensor written, a multiple of 16.
    pub(crate) fn y_channels(&self) -> usize {
        self.y_channels
    }

    /// Pixels of the grid.
    pub(crate) fn pixels(&self) -> usize {
        self.rows * self.cols
    }

    /// Weights of the sweep, padded channels included.
    pub(crate) fn packed_len(&self) -> usize {
        self.y_channels * self.taps.len() * self.reads
    }

    /// A cursor at pixel (0, 0).
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { r: 0, q: 0, x: self.x_base, y: self.y_base }
    }

    /// Checks the lengths of one call's tensors.
    ///
    /// # Panics
    /// If one is not as planned.
    pub(crate) fn check(&self, x_len: usize, y_len: usize) {
        assert_eq!(x_len, self.x_len, "elements of the tensor read");
        assert_eq!(y_len, self.y_len, "elements of the tensor written");
    }

    /// Checks the lengths of a weight gradient's images and of its partial sum, and gives the distances of the images.
    ///
    /// # Panics
    /// If one is not as planned, or there are no such blocks or no image.
    pub(crate) fn check_weight_grad(
        &self,
        images: usize,
        x_len: usize,
        y_len: usize,
        blocks: &Range<usize>,
        partial_len: usize,
    ) -> Images {
        assert!(images > 0 && x_len.is_multiple_of(images) && y_len.is_multiple_of(images), "{images} images");
        let images = Images { n: images, x: x_len / images, dy: y_len / images };
        let fits = images.x >= self.x_len && images.dy >= self.y_len;
        assert!(fits, "images of {} and {} elements, {} and {} apart", self.x_len, self.y_len, images.x, images.dy);
        let all = self.y_channels / LANES;
        assert!(blocks.start <= blocks.end && blocks.end <= all, "blocks {blocks:?} of {all}");
        assert_eq!(partial_len, self.packed_len() / all * blocks.len(), "partial sum of blocks {blocks:?}");
        images
    }
}

/// Images that follow each other: as many, and elements from one to the next of x and dy.
#[derive(Clone, Copy)]
pub(crate) struct Images {
    pub(crate) n: usize,
    pub(crate) x: usize,
    pub(crate) dy: usize,
}

/// A place in the raster order of a sweep's pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    r: usize,
    q: usize,
    x: usize,
    y: usize,
}

impl Cursor {
    /// The `x_at` and `y_at` of the next `n <= P` pixels; entries from `n` on repeat the last of them.
    #[inline]
    pub(crate) fn take<const P: usize>(&mut self, sweep: &Sweep, n: usize) -> ([usize; P], [usize; P]) {
        let (mut xs, mut ys) = ([0; P], [0; P]);
        for p in 0..P {
            xs[p] = self.x;
            ys[p] = self.y;
            if p + 1 < n {
                self.advance(sweep);
            }
        }
        self.advance(sweep);
        (xs, ys)
    }

    #[inline]
    fn advance(&mut self, sweep: &Sweep) {
        self.q += 1;
        self.x += sweep.x_col;
        self.y += sweep.y_col;
        if self.q == sweep.cols {
            self.q = 0;
            self.r += 1;
            self.x = sweep.x_at(self.r, 0);
            self.y = sweep.y_at(self.r, 0);
        }
    }
}

/// The ranges of [`Sweep::runs`].
fn runs(taps: &[Tap], reads: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for tap in taps {
        match runs.last_mut() {
            Some(run) if run.end == tap.offset => run.end += reads,
            _ => runs.push(tap.offset..tap.offset + reads),
        }
    }
    runs
}

/// Border that dy needs for an input gradient: how far taps reach over its edges.
pub(crate) fn border(geometry: &ConvGeometry) -> usize {
    let g = geometry;
    let reach = g.kh.max(g.kw).saturating_sub(1 + g.pad);
    reach.div_ceil(g.stride)
}

fn positions(g: &ConvGeometry) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let kw = g.kw;
    (0..g.kh).flat_map(move |a| (0..kw).map(move |b| (a, b)))
}

fn check_layouts(g: &ConvGeometry, x: Layout, y: Layout) {
    assert_eq!(g.output(x.h, x.w), (y.h, y.w), "output size of {g:?} over {x:?}");
    assert_eq!(x.c, g.cin, "input channels of {g:?}");
    assert_eq!(y.c, g.cout, "output channels of {g:?}");
    assert!(
        x.cs.is_multiple_of(4) && y.cs.is_multiple_of(4),
        "channel strides {} and {}: multiples of 4 are needed",
        x.cs,
        y.cs
    );
}
