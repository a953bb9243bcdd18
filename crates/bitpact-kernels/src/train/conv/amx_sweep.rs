//! Convolutions over one image on AMX tiles: 16 pixels of a row by 16 channels.
//!
//! Taps whose channels follow each other in memory make one run of words; a run is cut into equal steps of at most 16
//! words, one tile wide. Weights are packed `[channel block][step][word][16][4 bytes]`.

use super::LANES;
use super::amx_tiles::{self, Job, Product, Shape, Start};
use super::filters::Filters;
use super::sweep::Sweep;
use crate::machine::amx::Tiles;
use crate::machine::isa::Amx;

/// Bytes of a word: what one lane of a tile multiplies at a time.
const WORD: usize = 4;

/// The order in which a sweep's words are multiplied, and its tiles.
#[derive(Clone, Debug)]
pub(super) struct TileSweep {
    /// Bytes of an element read.
    element: usize,
    /// Words of a step.
    words: usize,
    /// Bytes from a pixel's base to each step.
    offsets: Vec<usize>,
    /// Elements read at each tap.
    reads: usize,
    /// Pixels of a tile, and those of the last of a row.
    pixels: usize,
    last: usize,
}

impl TileSweep {
    /// The walk over `sweep`, whose elements have `element` bytes.
    ///
    /// # Panics
    /// If `sweep` reads no whole number of words at a tap.
    pub(super) fn new(sweep: &Sweep, element: usize) -> TileSweep {
        let reads = sweep.reads();
        assert!((reads * element).is_multiple_of(WORD), "{reads} elements of {element} bytes are no whole words");
        let lengths: Vec<usize> = sweep.runs().iter().map(|run| run.len() * element / WORD).collect();
        // One configuration serves all runs: the widest step that divides each of them.
        let words = (1..=LANES).rev().find(|w| lengths.iter().all(|n| n.is_multiple_of(*w))).unwrap_or(1);
        let mut offsets = Vec::new();
        for run in sweep.runs() {
            let steps = run.len() * element / (WORD * words);
            offsets.extend((0..steps).map(|s| run.start * element + s * WORD * words));
        }
        let tiles = sweep.cols().div_ceil(LANES).max(1);
        let pixels = sweep.cols().div_ceil(tiles).max(1);
        let last = sweep.cols() - (sweep.cols().div_ceil(pixels).max(1) - 1) * pixels;
        TileSweep { element, words, offsets, reads, pixels, last }
    }

    /// Bytes of a channel block's packed weights.
    fn block_bytes(&self) -> usize {
        self.offsets.len() * self.words * WORD * LANES
    }

    /// Packs the weights of `sweep`, `K` elements to a word; `kw` are the kernel's columns.
    pub(super) fn pack<const K: usize, T: Copy, W: Copy + Default>(
        &self,
        sweep: &Sweep,
        kw: usize,
        out: &mut [W],
        filters: &Filters<T>,
        convert: impl Fn(T) -> W,
    ) {
        debug_assert_eq!(K, WORD / self.element, "elements of a word");
        let words = out.as_chunks_mut::<K>().0.as_chunks_mut::<LANES>().0.chunks_exact_mut(self.reads / K);
        for ((block, tap), words) in sweep.blocks_and_taps().zip(words) {
            filters.words(tap.index(kw), block * LANES, 0, words, &convert);
        }
    }

    /// Runs the sweep. `x`, `y` and `init` are as for [`super::kernel::sweep`]; sums have 4 bytes, and so have the
    /// elements written.
    ///
    /// # Safety
    /// `x` is valid for reads of the sweep's x length, `y` for reads and writes of its y length, `packed` for reads of
    /// the sweep's packed elements, `init` for reads of a value for every channel where `start` is `Init`.
    pub(super) unsafe fn run(
        &self,
        amx: Amx,
        product: Product,
        sweep: &Sweep,
        x: *const u8,
        packed: *const u8,
        y: *mut u8,
        start: Start,
        init: *const u8,
    ) {
        let full = sweep.cols() / self.pixels;
        let place = Place { x, packed, y, start, init };
        if full > 0 {
            let tiles = Tiles::configure(amx, &amx_tiles::config(self.pixels, self.words));
            // SAFETY: the caller's promise; the tiles are configured, and these columns are in the grid.
            unsafe { self.columns(product, sweep, (0, full), place) };
            drop(tiles);
        }
        if full * self.pixels < sweep.cols() {
            let tiles = Tiles::configure(amx, &amx_tiles::config(self.last, self.words));
            // SAFETY: as above.
            unsafe { self.columns(product, sweep, (full, full + 1), place) };
            drop(tiles);
        }
    }

    /// The tiles of pixels `columns.0..columns.1` of every row.
    ///
    /// # Safety
    /// As for [`TileSweep::run`], and the tiles are configured for pixels of those columns.
    unsafe fn columns(&self, product: Product, sweep: &Sweep, columns: (usize, usize), p: Place) {
        let per_row = columns.1 - columns.0;
        let places = sweep.rows() * per_row;
        let blocks = sweep.y_channels() / LANES;
        let block_bytes = self.block_bytes();
        let at = |place: usize| {
            let (r, q) = (place / per_row, (columns.0 + place % per_row) * self.pixels);
            (p.x.wrapping_add(sweep.x_at(r, q) * self.element), p.y.wrapping_add(sweep.y_at(r, q) * 4))
        };
        let mut job = Job {
            offsets: self.offsets.as_ptr(),
            steps: self.offsets.len(),
            a: [p.x; 4],
            a_row: sweep.x_col() * self.element,
            b: [p.packed; 2],
            b_row: WORD * LANES,
            b_step: WORD * LANES * self.words,
            start: p.start,
            init: [p.init; 2],
            c: [p.y; 4],
            c_row: sweep.y_col() * 4,
        };
        let mut block = 0;
        while block < blocks {
            let wide = blocks - block >= 2;
            let shape = if wide { Shape::TwoByTwo } else { Shape::FourByOne };
            for j in 0..2 {
                job.b[j] = p.packed.wrapping_add((block + j) * block_bytes);
                job.init[j] = p.init.wrapping_add((block + j) * LANES * 4);
            }
            let (rows, cols) = shape.tiles();
            let mut place = 0;
            while place + rows <= places {
                for i in 0..rows {
                    let (a, c) = at(place + i);
                    job.a[i] = a;
                    (0..cols).for_each(|j| job.c[i * cols + j] = c.wrapping_add((block + j) * LANES * 4));
                }
                // SAFETY: the caller's promise: these pixels are in the grid, these blocks among the sweep's.
                unsafe { amx_tiles::run(product, shape, &job) };
                place += rows;
            }
            for place in place..places {
                let (a, c) = at(place);
                for j in 0..cols {
                    let mut one = job;
                    (one.a[0], one.b[0], one.init[0]) = (a, job.b[j], job.init[j]);
                    one.c[0] = c.wrapping_add((block + j) * LANES * 4);
                    // SAFETY: as above.
                    unsafe { amx_tiles::run(product, Shape::One, &one) };
                }
            }
            block += cols;
        }
    }
}

/// Where a sweep reads and writes.
#[derive(Clone, Copy)]
struct Place {
    x: *const u8,
    packed: *const u8,
    y: *mut u8,
    start: Start,
    init: *const u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::ConvGeometry;
    use crate::machine::layout::Layout;

    /// Only then do neighbours make runs.
    #[test]
    fn taps_come_in_the_order_of_memory() {
        for (k, stride) in [(1, 1), (3, 1), (3, 2), (5, 2), (7, 2)] {
            let g = ConvGeometry { kh: k, kw: k, stride, pad: k / 2, cin: 16, cout: 16 };
            let (h, w) = g.output(9, 11);
            let (x, y) = (Layout::new(9, 11, 16, g.pad), Layout::new(h, w, 16, k));
            for sweep in
                Sweep::transposed(&g, y, Layout { border: 0, ..x }, 16).iter().chain([&Sweep::forward(&g, x, y, 16)])
            {
                assert!(sweep.taps().is_sorted_by_key(|tap| tap.offset), "{g:?}");
                assert_eq!(sweep.runs().iter().map(|run| run.len()).sum::<usize>(), sweep.taps().len() * 16, "{g:?}");
            }
        }
    }

    /// Packing needs no AMX: step by step, the words at a step's offsets meet their own weights.
    #[test]
    fn packed_words_follow_the_steps() {
        for (cin, cout, stride) in [(16, 16, 1), (32, 20, 2), (4, 33, 1)] {
            let g = ConvGeometry { kh: 3, kw: 3, stride, pad: 1, cin, cout };
            let (h, w) = g.output(8, 9);
            let (x, y) = (Layout::with_cs(8, 9, cin, cin, 1), Layout::new(h, w, cout, 0));
            let sweep = Sweep::forward(&g, x, y, cin);
            let tiles = TileSweep::new(&sweep, 1);
            let weights: Vec<i16> = (1..=g.weights() as i16).collect();
            let mut packed = vec![0; sweep.packed_len()];
            tiles.pack::<4, _, _>(&sweep, g.kw, &mut packed, &Filters::forward(&g, &weights), |w| w);
            let words = packed.as_chunks::<4>().0.as_chunks::<LANES>().0;
            let per_block = words.len() / (sweep.y_channels() / LANES);
            for (i, word) in words.iter().enumerate() {
                let (block, i) = (i / per_block, i % per_block);
                let at = tiles.offsets[i / tiles.words] + i % tiles.words * WORD;
                let tap =
                    sweep.taps().iter().find(|t| (t.offset..t.offset + cin).contains(&at)).expect("a tap reads it");
                for (lane, codes) in word.iter().enumerate() {
                    for (k, &code) in codes.iter().enumerate() {
                        let (o, row) = (block * LANES + lane, at + k - tap.offset);
                        let expected = if o < cout { weights[(o * 9 + tap.index(g.kw)) * cin + row] } else { 0 };
                        assert_eq!(code, expected, "{g:?}, output {o}, element {}", at + k);
                    }
                }
            }
        }
    }
}
