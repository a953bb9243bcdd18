//! Direct products of bytes on AVX2 for codes too wide for sums of many products in 16 bits: eight pixels to a
//! register, two output channels at a time.
//!
//! `vpmaddubsw` is exact where the weights of one sign of each pair, times the largest code, stay within 16 bits: 128
//! for 8-bit codes, which most pairs of weights keep, but hardly ever all those that sixteen channels have at one
//! place. Here the lanes are pixels, which share the weights, so every two channels have an order of their own, in
//! which two words of four codes share their 16-bit sums wherever they fit together ([`pack`]): five instructions for
//! 64 products, where words of 16 bits take eight.

mod pack;
mod simd;

use std::ops::Range;

use super::walk::Walk;
use super::{Product, ProductSpec};
use crate::machine::isa::Avx2;
use crate::machine::layout::Layout;
use pack::{CHUNK, GROUP, Lists};
use simd::{CHANNELS, LANES, Sums, TILE};

/// Channels of a block: what a line of accumulators holds.
const BLOCK: usize = 16;

/// Output pixels from which on their tiles are full enough.
const LEAST_PIXELS: usize = 16;

/// A plane holds one word of four codes of every pixel of a phase (row and column modulo the stride) that a strip
/// reads, `[row][pixel][4]` with `pitch` pixels a row; planes of a phase follow each other. A tap of the window is a
/// distance in a plane.
#[derive(Debug)]
pub(super) struct PixelLanes {
    simd: Avx2,
    walk: Walk,
    x: Layout,
    stride: usize,
    /// Rows and columns of the window.
    window: [usize; 2],
    words: Vec<Place>,
    lists: Lists,
}

/// Where a word of the window is found.
#[derive(Debug, Clone, Copy)]
struct Place {
    plane: usize,
    /// Rows and columns of the plane that it lies behind its pixel.
    row: usize,
    column: usize,
}

impl PixelLanes {
    /// Packs the weights, which fit bytes; `None` where pixels are too few, or no whole registers of channels.
    pub(super) fn new(simd: Avx2, spec: &ProductSpec<'_>) -> Option<Self> {
        let (g, x, s) = (&spec.geometry, spec.x, spec.geometry.stride);
        let (height, width) = spec.output();
        if height * width < LEAST_PIXELS || !x.cs.is_multiple_of(CHANNELS) {
            return None;
        }
        let words = Walk::words::<4>(spec);
        let window = [g.kh, g.kw];
        let mut placed: Vec<(Place, _)> = words
            .iter()
            .map(|word| {
                let (row, within) = (word.offset / x.row(), word.offset % x.row());
                let (column, channel) = (within / x.cs, within % x.cs);
                let phase = (row % s) * window[1].min(s) + column % s;
                (Place { plane: phase * (x.cs / 4) + channel / 4, row: row / s, column: column / s }, word)
            })
            .collect();
        // Words of a plane follow each other, so that a chunk reads few planes.
        placed.sort_by_key(|(place, _)| (place.plane, place.row, place.column));
        let lists = Lists::pack(spec, BLOCK, placed.iter().map(|(_, word)| *word));
        let words = placed.into_iter().map(|(place, _)| place).collect();
        Some(Self { simd, walk: Walk::new(spec), x, stride: s, window, words, lists })
    }

    /// Rows and columns of a plane beyond those of the output.
    fn reach(&self) -> [usize; 2] {
        self.window.map(|k| (k - 1) / self.stride)
    }

    /// Pixels of a row of planes.
    fn pitch(&self) -> usize {
        self.walk.width + self.reach()[1]
    }

    /// Pixels of a strip, those between its rows included.
    fn pixels(&self, rows: usize) -> usize {
        rows * self.pitch() - self.reach()[1]
    }

    /// Bytes from one plane to the next: an odd number of cache lines.
    fn plane_bytes(&self, rows: usize) -> usize {
        let [row, column] = self.reach();
        let pixels = row * self.pitch() + column + self.pixels(rows).next_multiple_of(LANES);
        64 * ((4 * pixels).div_ceil(64) | 1)
    }

    /// Bytes of the distances of the words, at the begin of the scratch memory.
    fn table_bytes(&self) -> usize {
        (4 * self.words.len()).next_multiple_of(64)
    }
}

impl Product for PixelLanes {
    fn name(&self) -> String {
        "direct 32x2_avx2_u8s8".to_owned()
    }

    fn block(&self) -> usize {
        BLOCK
    }

    /// Whole tiles for images of 7, 14, 28 and 56 pixels a row.
    fn strip_pixels(&self) -> usize {
        7 * TILE * LANES
    }

    fn row_gap(&self) -> usize {
        self.reach()[1]
    }

    fn scratch_bytes(&self, rows: usize) -> usize {
        let phases = self.window.map(|k| k.min(self.stride));
        self.table_bytes() + phases[0] * phases[1] * (self.x.cs / 4) * self.plane_bytes(rows)
    }

    fn weight_bytes(&self) -> usize {
        self.lists.bytes()
    }

    fn prepare(&self, x: &[u8], rows: Range<usize>, scratch: &mut [u8]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        let (pitch, plane_bytes) = (self.pitch(), self.plane_bytes(rows.len()));
        let (table, planes) = scratch.split_at_mut(self.table_bytes());
        for (to, word) in table.as_chunks_mut::<4>().0.iter_mut().zip(&self.words) {
            let at = word.plane * plane_bytes + 4 * (word.row * pitch + word.column);
            *to = (at as u32).to_ne_bytes();
        }
        let (s, step) = (self.stride, self.stride * self.x.cs);
        let [phase_rows, phase_columns] = self.window.map(|k| k.min(s));
        let first = self.walk.at(rows.start, 0);
        let is_one_run = self.window == [1, 1] && s == 1 && self.x.border == 0;
        let phase_bytes = self.x.cs / 4 * plane_bytes;
        for (phase, planes) in planes.chunks_mut(phase_bytes).take(phase_rows * phase_columns).enumerate() {
            let (a, b) = (phase / phase_columns, phase % phase_columns);
            let n_rows = rows.len() + (self.window[0] - 1 - a) / s;
            let n_columns = self.walk.width + (self.window[1] - 1 - b) / s;
            let (n_rows, n_columns) = if is_one_run { (1, n_rows * n_columns) } else { (n_rows, n_columns) };
            for row in 0..n_rows {
                let from = &x[first + (row * s + a) * self.x.row() + b * self.x.cs..];
                simd::spread(
                    self.simd,
                    from,
                    (step, self.x.cs),
                    n_columns,
                    &mut planes[4 * row * pitch..],
                    plane_bytes,
                );
            }
        }
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        let (stride, pixels) = (channels.len(), self.pixels(rows.len()));
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(scratch.len() >= self.scratch_bytes(rows.len()), "planes of {rows:?}");
        assert!(channels.start.is_multiple_of(BLOCK) && stride.is_multiple_of(BLOCK), "channels {channels:?}");
        assert_eq!(acc.len(), pixels * stride, "accumulators");
        let (table, planes) = scratch.split_at(self.table_bytes());
        let table = &table.as_chunks::<4>().0[..self.words.len()];
        let registers = pixels.div_ceil(LANES);
        let farthest = table.iter().map(|&distance| u32::from_ne_bytes(distance)).max().unwrap_or(0) as usize;
        assert!(farthest + 4 * LANES * registers <= planes.len(), "distances that `prepare` has written for {rows:?}");
        let tiles = registers.div_ceil(TILE);
        let mut sums = Sums::default();
        for (i, block) in (channels.start / BLOCK..channels.end / BLOCK).enumerate() {
            let mut done = 0;
            for tile in 0..tiles {
                let n = (registers - done).div_ceil(tiles - tile);
                for (c, chunk) in table.chunks(CHUNK).enumerate() {
                    for (g, sums) in sums.groups().iter_mut().enumerate() {
                        let list = self.lists.get(block * (BLOCK / GROUP) + g, c);
                        // SAFETY: lists hold words of their chunk; from the farthest of them on, all pixels lie inside
                        // the planes.
                        unsafe {
                            simd::group(self.simd, planes[4 * done * LANES..].as_ptr(), chunk, list, n, c > 0, sums)
                        };
                    }
                }
                let first = done * LANES;
                let inside = (pixels - first).min(n * LANES);
                sums.store(self.simd, inside, &mut acc[first * stride + i * BLOCK..], stride);
                done += n;
            }
        }
    }
}
