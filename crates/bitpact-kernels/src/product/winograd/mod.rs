//! Exact Winograd products F(2x2, 3x3) (Lavin and Gray 2015, arXiv 1509.09308, section 4.1) in integers: 16 products a
//! channel for four output pixels, where the direct product needs 36.
//!
//! With `s` an axis of a 4 x 4 patch `d` of codes, of a 3 x 3 window `g` and of the 16 sums `m`:
//!
//! ```text
//! v = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)         input, along both axes
//! u = (g0, g0 + g1 + g2, g0 - g1 + g2, g2)         weights, along both axes; the middle ones are doubled
//! m = sum over channels of u * v
//! 2 y0 = 2 m0 + m1 + m2,  2 y1 = m1 - m2 - 2 m3    output, along both axes: four times the product in all
//! ```
//!
//! Codes up to `x_max` give v in `[-2 x_max, 2 x_max]`, or `[0, 4 x_max]` in the middle position. Up to 6 bits that fits u8 after
//! `2 x_max` is added, and what this adds to the output is a constant of each channel and place, subtracted at the end. Wider
//! codes take 16 bits. The outputs are exact because everything is linear modulo 2^32 and four times the sum fits.

mod transform;

use std::ops::Range;

use super::dot::{Narrow, Vnni256, Vnni512, Words16};
use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::tile::{Flat, Sums};
use super::{Builder, Product, ProductSpec};
use crate::isa::{Avx2, AvxVnni, Isa, Proof};
use crate::layout::{Aligned, Layout};
use transform::{Elements, Patch, Simd, input, output};

/// Positions of a transformed patch.
const POSITIONS: usize = 16;

/// Input channels from which on the saved products make up for the transforms. Measured on AVX2: at 16 channels these kernels
/// reached 0.65 times the direct ones at 4 bits, at 32 they were even (4 bits) and 1.4 times as fast (8 bits).
pub(super) const LEAST_CHANNELS: usize = 32;

/// The same on AVX-512, where the direct kernels are twice as fast: at 32 channels these reached 0.75 times their speed.
pub(super) const LEAST_CHANNELS_AVX512: usize = 64;

/// Largest code whose transform fits u8.
const BYTE_CODES: u8 = 63;

/// The Winograd kernel for `spec`.
pub(super) fn builder<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> Option<Builder<'a>> {
    let g = &spec.geometry;
    let has_form = (g.kh, g.kw, g.stride, spec.groups) == (3, 3, 1, 1) && spec.x.cs.is_multiple_of(16);
    // Nine weights are added up in 16 bits.
    let fits = spec.codes.iter().all(|&q| 9 * i32::from(q).abs() <= i16::MAX.into());
    if !has_form || !fits || !spec.fits_i32_times(4) {
        return None;
    }
    fn bytes<'a, D: Instructions>(dot: D, simd: Simd, block: usize, spec: &'a ProductSpec<'a>) -> Option<Builder<'a>> {
        Some(Box::new(move || Some(Box::new(Winograd::bytes(dot, simd, block, spec)))))
    }
    let is_bytes = spec.x_max <= BYTE_CODES;
    match isa.prove() {
        Proof::Avx2(token) if is_bytes => match AvxVnni::detect().filter(|_| isa == Isa::AvxVnni) {
            Some(vnni) => bytes(Vnni256(vnni), Simd::Avx2(token), 16, spec),
            None => bytes(Narrow(token), Simd::Avx2(token), 16, spec),
        },
        // With VNNI a product of bytes costs half of one of words, which the fewer products would only just make up.
        Proof::Avx2(token) if isa == Isa::Avx2 => Some(Box::new(move || Some(Box::new(Winograd::words(token, spec))))),
        Proof::Avx512(token) if is_bytes => {
            bytes(Vnni512(token), Simd::Avx512(token), if g.cout > 16 { 32 } else { 16 }, spec)
        }
        _ => None,
    }
}

/// A product by transformed patches.
#[derive(Debug)]
struct Winograd<D> {
    dot: D,
    simd: Simd,
    elements: Elements,
    block: usize,
    /// Panel `block * 16 + position`.
    panels: Panels,
    /// What the offsets of the input add to four times the outputs: `[block][place in 2 x 2][channel]`, then a block of zeros for those
    /// beyond the last.
    constants: Aligned<i32>,
    x: Layout,
    /// Border pixels beyond the padding.
    margin: usize,
    height: usize,
    width: usize,
}

/// Channels whose weights are transformed together: a register of 16-bit numbers.
const LANES: usize = 16;

/// One weight, or transformed weight, of some output channels.
type Lane = [i16; LANES];

/// Transforms the windows `g[row][column]` of some channels: entry `4 y + x` is position (y, x). At most nine weights
/// are added up, which [`builder`] has checked.
#[inline(always)]
fn transformed(g: &[[Lane; 3]; 3]) -> [Lane; POSITIONS] {
    #[inline(always)]
    fn axis(g: [&Lane; 3]) -> [Lane; 4] {
        let mut out = [*g[0], [0; LANES], [0; LANES], *g[2]];
        for l in 0..LANES {
            let ends = g[0][l] + g[2][l];
            (out[1][l], out[2][l]) = (ends + g[1][l], ends - g[1][l]);
        }
        out
    }
    let columns = [0, 1, 2].map(|b| axis([&g[0][b], &g[1][b], &g[2][b]]));
    let rows = [0, 1, 2, 3].map(|y| axis([&columns[0][y], &columns[1][y], &columns[2][y]]));
    std::array::from_fn(|position| rows[position / 4][position % 4])
}

impl<D: Instructions> Winograd<D> {
    /// Products of transformed codes in u8.
    fn bytes(dot: D, simd: Simd, block: usize, spec: &ProductSpec<'_>) -> Self {
        let mut packer = Packer::<D>::new(block, 4 * spec.x_max);
        let offset = 2 * i32::from(spec.x_max);
        let mut constants = Vec::with_capacity(4 * spec.geometry.cout.next_multiple_of(block));
        let mut transformed = Transformed::<4>::new(block, spec);
        for first in (0..spec.geometry.cout).step_by(block) {
            transformed.fill(first, spec);
            let mut sums = vec![[0; POSITIONS]; block];
            for position in 0..POSITIONS {
                packer.begin();
                for (word, lanes) in transformed.words(position).enumerate() {
                    packer.push(4 * word, lanes);
                    if position != transform::MIDDLE {
                        for (sum, weights) in sums.iter_mut().zip(lanes) {
                            sum[position] += offset * weights.iter().map(|&w| i32::from(w)).sum::<i32>();
                        }
                    }
                }
            }
            let places: Vec<[i32; 4]> = sums.iter().map(transform::combine).collect();
            constants.extend((0..4).flat_map(|place| places.iter().map(move |p| p[place])));
        }
        Self::new(dot, simd, Elements::Bytes { offset: offset as u8 }, block, packer.finish(), constants, spec)
    }

    fn new(
        dot: D,
        simd: Simd,
        elements: Elements,
        block: usize,
        panels: Panels,
        constants: Vec<i32>,
        spec: &ProductSpec<'_>,
    ) -> Self {
        let (height, width) = spec.output();
        let constants = Aligned::from_slice(&[constants, vec![0; 4 * block]].concat());
        let margin = spec.x.border - spec.geometry.pad;
        Self { dot, simd, elements, block, panels, constants, x: spec.x, margin, height, width }
    }

    /// Tile rows of a strip, and tiles.
    fn tiles(&self, rows: usize) -> (usize, usize) {
        (rows.div_ceil(2), rows.div_ceil(2) * self.width.div_ceil(2))
    }

    /// Bytes of the transformed patches of so many tiles, a multiple of the cache line.
    fn patch_bytes(&self, tiles: usize) -> usize {
        (POSITIONS * tiles * self.x.cs * self.elements.bytes()).next_multiple_of(64)
    }
}

impl Winograd<Words16> {
    /// Products of transformed codes in 16 bits.
    fn words(avx2: Avx2, spec: &ProductSpec<'_>) -> Self {
        let block = 16;
        let mut packer = Packer::<Words16>::new(block, spec.x_max);
        let mut transformed = Transformed::<2>::new(block, spec);
        for first in (0..spec.geometry.cout).step_by(block) {
            transformed.fill(first, spec);
            for position in 0..POSITIONS {
                packer.begin();
                for (word, lanes) in transformed.words(position).enumerate() {
                    packer.push16(4 * word, lanes);
                }
            }
        }
        let constants = vec![0; spec.geometry.cout.next_multiple_of(block) * 4];
        Self::new(Words16(avx2), Simd::Avx2(avx2), Elements::Words, block, packer.finish(), constants, spec)
    }
}

/// Transformed weights of one block: `[position][word][channel][K]`.
struct Transformed<const K: usize> {
    block: usize,
    words: usize,
    weights: Vec<[i16; K]>,
}

impl<const K: usize> Transformed<K> {
    fn new(block: usize, spec: &ProductSpec<'_>) -> Self {
        let words = spec.geometry.cin.div_ceil(K);
        Self { block, words, weights: vec![[0; K]; POSITIONS * words * block] }
    }

    /// Transforms the weights of channels `first..first + block`.
    fn fill(&mut self, first: usize, spec: &ProductSpec<'_>) {
        let g = &spec.geometry;
        self.weights.fill([0; K]);
        for lanes in (0..self.block).step_by(LANES) {
            let channels: Vec<_> = (first + lanes..(first + lanes + LANES).min(g.cout))
                .map(|o| spec.codes[o * g.cin * 9..(o + 1) * g.cin * 9].as_chunks::<9>().0)
                .collect();
            for i in 0..g.cin {
                let mut window = [[[0; LANES]; 3]; 3];
                for (lane, channel) in channels.iter().enumerate() {
                    for (to, w) in window.as_flattened_mut().iter_mut().zip(channel[i]) {
                        to[lane] = w;
                    }
                }
                for (position, u) in transformed(&window).iter().enumerate() {
                    let to = &mut self.weights[(position * self.words + i / K) * self.block + lanes..][..LANES];
                    for (to, &u) in to.iter_mut().zip(u) {
                        to[i % K] = u;
                    }
                }
            }
        }
    }

    fn words(&self, position: usize) -> impl Iterator<Item = &[[i16; K]]> {
        let panel = self.words * self.block;
        self.weights[position * panel..(position + 1) * panel].chunks_exact(self.block)
    }
}

impl<D: Instructions> Product for Winograd<D> {
    fn name(&self) -> String {
        format!("winograd {}", D::NAME)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn strip_pixels(&self) -> usize {
        // The patches are four times as large as the codes they come from, and the weights nearly twice: few strips where
        // both are large.
        if self.x.cs < 128 { 112 } else { 256 }
    }

    fn row_step(&self) -> usize {
        2
    }

    fn scratch_bytes(&self, rows: usize) -> usize {
        let (_, tiles) = self.tiles(rows);
        self.patch_bytes(tiles) + POSITIONS * tiles * self.block * size_of::<i32>()
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes() + size_of_val(&*self.constants)
    }

    fn prepare(&self, x: &[u8], rows: Range<usize>, scratch: &mut [u8]) {
        assert_eq!(x.len(), self.x.len(), "elements of the tensor read");
        assert!(rows.start.is_multiple_of(2) && rows.end <= self.height, "rows {rows:?} of {}", self.height);
        let (tile_rows, tiles) = self.tiles(rows.len());
        let scratch = &mut scratch[..self.patch_bytes(tiles)];
        let columns = self.width.div_ceil(2);
        let side = |size: usize| size + 2 * self.x.border;
        for tile in 0..tile_rows * columns {
            let (row, column) = (rows.start + 2 * (tile / columns), 2 * (tile % columns));
            // What lies beyond the border only meets outputs that nobody reads.
            let ys = std::array::from_fn(|i| (self.margin + row + i).min(side(self.x.h) - 1));
            let xs = std::array::from_fn(|j| (self.margin + column + j).min(side(self.x.w) - 1));
            let patch = Patch { x, rows: ys, columns: xs, layout: self.x };
            let to = &mut scratch[tile * self.x.cs * self.elements.bytes()..];
            input(self.simd, self.elements, patch, to, tiles * self.x.cs);
        }
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.x.len(), "elements of the tensor read");
        let (_, tiles) = self.tiles(rows.len());
        let (stride, columns) = (channels.len(), self.width.div_ceil(2));
        assert!(
            channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block),
            "channels {channels:?}"
        );
        assert_eq!(acc.len(), rows.len() * self.width * stride, "accumulators");
        let (patches, sums) = scratch[..self.scratch_bytes(rows.len())].split_at_mut(self.patch_bytes(tiles));
        let pixel = self.x.cs * self.elements.bytes();
        let sums: *mut i32 = sums.as_mut_ptr().cast();
        assert!(sums.is_aligned(), "scratch memory begins on a cache line");
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            for position in 0..POSITIONS {
                let source = Flat { first: patches[position * tiles * pixel..].as_ptr(), stride: pixel };
                let to = Sums { first: sums.wrapping_add(position * tiles * self.block), stride: self.block };
                // SAFETY: `patches` holds 16 * tiles pixels, and words of panels lie within a pixel; `sums` holds
                // 16 * tiles * block numbers.
                unsafe { self.dot.run(source, tiles, self.panels.get(b * POSITIONS + position), to) };
            }
            // SAFETY: the dot products above have written these numbers, and nothing else refers to them.
            let sums = unsafe { std::slice::from_raw_parts(sums, POSITIONS * tiles * self.block) };
            let at = (4 * b * self.block).min(self.constants.len() - 4 * self.block);
            let constants = &self.constants[at..][..4 * self.block];
            for tile in 0..tiles {
                let (row, column) = (2 * (tile / columns), 2 * (tile % columns));
                let at = (row * self.width + column) * stride + i * self.block;
                let to = transform::Place {
                    acc: &mut acc[at..],
                    down: (row + 1 < rows.len()).then_some(self.width * stride),
                    right: (column + 1 < self.width).then_some(stride),
                };
                let distance = tiles * self.block;
                output(self.simd, &sums[tile * self.block..], distance, constants, self.block, to);
            }
        }
    }
}
