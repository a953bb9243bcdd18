//! Exact Winograd products (Lavin and Gray 2015, arXiv 1509.09308, section 4) in integers, for 3 x 3 windows with
//! stride 1: patches of codes and windows of weights are transformed, multiplied position by position, and the sums
//! transformed to a tile of outputs.
//!
//! The transforms are those of the paper without its fractions: rows are multiplied until they are integers, and what
//! that makes of the outputs, a power of two times a power of three, is divided out at the end. Everything is linear
//! modulo 2^32, so the outputs are exact where they fit 32 bits times the power of two.

mod four;
mod two;
mod windows;

use std::ops::Range;

use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::tile::{Block, Flat, Sums};
use super::{Builder, Product, ProductSpec};
use crate::machine::isa::{Avx2, Avx512, AvxVnni, Isa, Proof};
use crate::machine::layout::{Aligned, Layout};
use crate::machine::registers::dot::{Bytes, Narrow, Words};
use four::Four;
use two::{Elements, Two};
use windows::Windows;

/// The instructions of the transforms.
#[derive(Debug, Clone, Copy)]
enum Simd {
    Avx2(Avx2),
    Avx512(Avx512),
}

/// Input channels from which on the saved products make up for the transforms, for codes of bytes. Measured on AVX2: at
/// 16 channels F(2x2) reached 0.65 times the direct kernel, at 32 they were even. Wider codes gain from the first
/// register of channels on.
const LEAST_CHANNELS: usize = 32;

/// The same on AVX-512, where the direct kernels are twice as fast: at 32 channels these reached 0.75 times their
/// speed.
const LEAST_CHANNELS_AVX512: usize = 64;

/// Most bytes of transformed weights of F(4x4) that are kept: more come from beyond the second-level cache, and
/// transforming their bytes again takes less time.
const MOST_BYTES_FOUR: usize = 2 << 20;

/// Largest code whose transform fits u8.
const BYTE_CODES: u8 = 63;

/// Whether a kernel of [`builders`] is faster than a direct one.
pub(super) fn is_best(isa: Isa, spec: &ProductSpec<'_>) -> bool {
    let (wide, channels, pixels) = (spec.x_max > BYTE_CODES, spec.geometry.cin, spec.x.h * spec.x.w);
    match isa >= Isa::Avx512 {
        // Transforming windows takes as long as 5 tiles, and a tile as long as 8 pixels of the direct kernel.
        true if wide && keeps_windows(spec) => 8 * (spec.x.h.div_ceil(4) * spec.x.w.div_ceil(4) + 5) < pixels,
        true if wide => channels >= LEAST_CHANNELS,
        true => channels >= LEAST_CHANNELS_AVX512,
        false => wide || channels >= LEAST_CHANNELS,
    }
}

/// Tells whether transformed weights of F(4x4) are too many to be kept.
fn keeps_windows(spec: &ProductSpec<'_>) -> bool {
    2 * four::POSITIONS * spec.geometry.cin * spec.geometry.cout > MOST_BYTES_FOUR
}

/// The Winograd kernels for `spec`, the best first.
pub(super) fn builders<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> Vec<Builder<'a>> {
    let g = &spec.geometry;
    let has_form = (g.kh, g.kw, g.stride, spec.groups) == (3, 3, 1, 1) && spec.x.cs.is_multiple_of(16);
    let fits = |weights: i32, outputs: i64| {
        spec.codes.iter().all(|&q| weights * i32::from(q).abs() <= i16::MAX.into()) && spec.fits_i32_times(outputs)
    };
    // Nine weights are added up in 16 bits.
    if !has_form || !fits(9, 4) {
        return Vec::new();
    }
    fn bytes<'a, D: Instructions>(dot: D, simd: Simd, block: usize, spec: &'a ProductSpec<'a>) -> Builder<'a> {
        Box::new(move || Some(Box::new(Winograd::bytes(dot, simd, block, spec))))
    }
    let is_bytes = spec.x_max <= BYTE_CODES;
    let has_four = fits(four::WEIGHTS, four::OUTPUTS);
    match isa.prove() {
        Proof::Avx2(token) => {
            let (simd, vnni) = (Simd::Avx2(token), AvxVnni::detect().filter(|_| isa == Isa::AvxVnni));
            let two: Option<Builder<'a>> = match vnni {
                Some(vnni) if is_bytes => Some(bytes(Bytes(vnni), simd, 16, spec)),
                // With VNNI a product of bytes costs half of one of words, which the fewer products would only just
                // make up.
                Some(_) => None,
                None if is_bytes => Some(bytes(Narrow(token), simd, 16, spec)),
                None => {
                    let form = Two { simd, elements: Elements::Words };
                    Some(Box::new(move || Some(Box::new(Winograd::words(Words(token), form, 16, spec)))))
                }
            };
            let four = if has_four && vnni.is_none() { fours(Words(token), simd, 16, spec) } else { Vec::new() };
            if is_bytes { two.into_iter().chain(four).collect() } else { four.into_iter().chain(two).collect() }
        }
        Proof::Avx512(token) => {
            let (simd, block) = (Simd::Avx512(token), if g.cout > 16 { 32 } else { 16 });
            match is_bytes {
                true => vec![bytes(Bytes(token), simd, block, spec)],
                false if has_four => fours(Words(token), simd, block, spec),
                false => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// The kernels of F(4x4), the best first.
fn fours<'a, D: Instructions>(dot: D, simd: Simd, block: usize, spec: &'a ProductSpec<'a>) -> Vec<Builder<'a>> {
    let mut four: Vec<Builder<'a>> = vec![
        Box::new(move || Some(Box::new(Winograd::words(dot, Four(simd), block, spec)))),
        Box::new(move || Some(Box::new(Winograd::windows(dot, simd, Windows::new(simd, spec)?, spec)))),
    ];
    if keeps_windows(spec) {
        four.reverse();
    }
    four
}

/// One way to cut outputs into tiles of `TILE` x `TILE` that `N` products a channel make.
trait Form<const N: usize>: Copy + std::fmt::Debug + Send + Sync + 'static {
    const NAME: &'static str;
    const TILE: usize;

    /// Bytes of a transformed code.
    fn element_bytes(self) -> usize;

    /// Pixels of a strip, for `cs` channels.
    fn strip_pixels(cs: usize) -> usize;

    /// The transforms of the windows `g[row][column]` of some channels.
    fn weights(g: &[[Lane; 3]; 3]) -> [Lane; N];

    /// Transforms all channels of a patch: position k goes to `to[k * distance..]`, in elements.
    ///
    /// # Panics
    /// If a pixel is outside the tensor or `to` too short.
    fn input(self, patch: Patch<'_>, to: &mut [u8], distance: usize);

    /// The outputs of one tile: `sums[k * distance..]` are those of position k, `block` channels; `constants` are what
    /// the offsets of transformed codes have added, `[place][block]`, zeros without offsets.
    ///
    /// # Panics
    /// If a slice is too short.
    fn output(self, sums: &[i32], distance: usize, constants: &[i32], block: usize, to: Place<'_>);
}

/// A patch of `TILE + 2` pixels each way, rows and columns counted from the border's first.
#[derive(Clone, Copy)]
struct Patch<'a> {
    x: &'a [u8],
    rows: [usize; 6],
    columns: [usize; 6],
    layout: Layout,
}

/// Where the outputs of a tile go: `rows` x `columns` of them, with so many numbers from one to the next.
struct Place<'a> {
    acc: &'a mut [i32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl Place<'_> {
    /// Where output (i, j) goes, if anywhere.
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> Option<usize> {
        (i < self.rows && j < self.columns).then_some(i * self.row + j * self.column)
    }
}

/// How weights are kept.
#[derive(Debug)]
enum Kept {
    /// Transformed: panel `block * N + position`.
    Panels(Panels),
    /// As they are, for F(4x4).
    Windows(Windows),
}

/// A product by transformed patches.
#[derive(Debug)]
struct Winograd<D, F, const N: usize> {
    dot: D,
    form: F,
    block: usize,
    weights: Kept,
    /// What the offsets of the input add to the outputs: `[block][place of the tile][channel]`, then a block of zeros
    /// for those beyond the last; that alone without offsets.
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

impl<D: Instructions> Winograd<D, Two, { two::POSITIONS }> {
    /// Products of transformed codes in u8.
    fn bytes(dot: D, simd: Simd, block: usize, spec: &ProductSpec<'_>) -> Self {
        let mut packer = Packer::<D>::new(block, 4 * spec.x_max);
        let offset = 2 * i32::from(spec.x_max);
        let mut constants = Vec::with_capacity(4 * spec.geometry.cout.next_multiple_of(block));
        let mut transformed = Transformed::<4, { two::POSITIONS }>::new(block, spec);
        for first in (0..spec.geometry.cout).step_by(block) {
            transformed.fill(first, spec, Two::weights);
            let mut sums = vec![[0; two::POSITIONS]; block];
            for position in 0..two::POSITIONS {
                packer.begin();
                for (word, lanes) in transformed.words(position).enumerate() {
                    packer.push(4 * word, lanes);
                    if position != two::MIDDLE {
                        for (sum, weights) in sums.iter_mut().zip(lanes) {
                            sum[position] += offset * weights.iter().map(|&w| i32::from(w)).sum::<i32>();
                        }
                    }
                }
            }
            let places: Vec<[i32; 4]> = sums.iter().map(two::combine).collect();
            constants.extend((0..4).flat_map(|place| places.iter().map(move |p| p[place])));
        }
        constants.extend(vec![0; 4 * block]);
        let form = Two { simd, elements: Elements::Bytes { offset: offset as u8 } };
        Self::new(dot, form, block, Kept::Panels(packer.finish(spec.arena)), &constants, spec)
    }
}

impl<D: Instructions, F: Form<N>, const N: usize> Winograd<D, F, N> {
    /// Products of transformed codes in 16 bits, for instructions that multiply words of two numbers.
    fn words(dot: D, form: F, block: usize, spec: &ProductSpec<'_>) -> Self {
        let mut packer = Packer::<D>::new(block, spec.x_max);
        let mut transformed = Transformed::<2, N>::new(block, spec);
        for first in (0..spec.geometry.cout).step_by(block) {
            transformed.fill(first, spec, F::weights);
            for position in 0..N {
                packer.begin();
                for (word, lanes) in transformed.words(position).enumerate() {
                    packer.push16(4 * word, lanes);
                }
            }
        }
        let constants = vec![0; F::TILE * F::TILE * block];
        Self::new(dot, form, block, Kept::Panels(packer.finish(spec.arena)), &constants, spec)
    }
}

impl<D: Instructions> Winograd<D, Four, { four::POSITIONS }> {
    /// Products in 16 bits of weights kept in bytes.
    fn windows(dot: D, simd: Simd, windows: Windows, spec: &ProductSpec<'_>) -> Self {
        let constants = [0; Four::TILE * Four::TILE * LANES];
        Self::new(dot, Four(simd), LANES, Kept::Windows(windows), &constants, spec)
    }
}

impl<D: Instructions, F: Form<N>, const N: usize> Winograd<D, F, N> {
    fn new(dot: D, form: F, block: usize, weights: Kept, constants: &[i32], spec: &ProductSpec<'_>) -> Self {
        let (height, width) = spec.output();
        let margin = spec.x.border - spec.geometry.pad;
        Self { dot, form, block, weights, constants: Aligned::from_slice(constants), x: spec.x, margin, height, width }
    }

    /// Tile rows of a strip, and tiles.
    fn tiles(&self, rows: usize) -> (usize, usize) {
        (rows.div_ceil(F::TILE), rows.div_ceil(F::TILE) * self.width.div_ceil(F::TILE))
    }

    /// Bytes from one position of the transformed patches of so many tiles to the next: an odd number of cache lines,
    /// lest all positions of a channel fall into one set of the caches.
    fn distance(&self, tiles: usize) -> usize {
        64 * ((tiles * self.x.cs * self.form.element_bytes()).div_ceil(64) | 1)
    }

    /// Bytes of the transformed patches of so many tiles.
    fn patch_bytes(&self, tiles: usize) -> usize {
        N * self.distance(tiles)
    }
}

/// Transformed weights of one block: `[position][word][channel][K]`.
struct Transformed<const K: usize, const N: usize> {
    block: usize,
    words: usize,
    weights: Vec<[i16; K]>,
}

impl<const K: usize, const N: usize> Transformed<K, N> {
    fn new(block: usize, spec: &ProductSpec<'_>) -> Self {
        let words = spec.geometry.cin.div_ceil(K);
        Self { block, words, weights: vec![[0; K]; N * words * block] }
    }

    /// Transforms the weights of channels `first..first + block`.
    fn fill(&mut self, first: usize, spec: &ProductSpec<'_>, transform: impl Fn(&[[Lane; 3]; 3]) -> [Lane; N]) {
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
                for (position, u) in transform(&window).iter().enumerate() {
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

impl<D: Instructions, F: Form<N>, const N: usize> Product for Winograd<D, F, N> {
    fn name(&self) -> String {
        let kept = match &self.weights {
            Kept::Panels(_) => "",
            Kept::Windows(_) => "_w8",
        };
        format!("{} {}{kept}", F::NAME, D::NAME)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn strip_pixels(&self) -> usize {
        F::strip_pixels(self.x.cs)
    }

    fn row_step(&self) -> usize {
        F::TILE
    }

    fn scratch_bytes(&self, rows: usize) -> usize {
        let (_, tiles) = self.tiles(rows);
        let sums = N * tiles * self.block * size_of::<i32>();
        let windows = match &self.weights {
            Kept::Panels(_) => 0,
            Kept::Windows(windows) => windows.scratch_bytes(),
        };
        self.patch_bytes(tiles) + sums + windows
    }

    fn weight_bytes(&self) -> usize {
        let weights = match &self.weights {
            Kept::Panels(panels) => panels.bytes(),
            Kept::Windows(windows) => windows.bytes(),
        };
        weights + size_of_val(&*self.constants)
    }

    fn prepare(&self, x: &[u8], rows: Range<usize>, scratch: &mut [u8]) {
        assert_eq!(x.len(), self.x.len(), "elements of the tensor read");
        assert!(rows.start.is_multiple_of(F::TILE) && rows.end <= self.height, "rows {rows:?} of {}", self.height);
        let (tile_rows, tiles) = self.tiles(rows.len());
        let scratch = &mut scratch[..self.patch_bytes(tiles)];
        let columns = self.width.div_ceil(F::TILE);
        let side = |size: usize| size + 2 * self.x.border;
        for tile in 0..tile_rows * columns {
            let (row, column) = (rows.start + F::TILE * (tile / columns), F::TILE * (tile % columns));
            // What lies beyond the border only meets outputs that nobody reads.
            let ys = std::array::from_fn(|i| (self.margin + row + i).min(side(self.x.h) - 1));
            let xs = std::array::from_fn(|j| (self.margin + column + j).min(side(self.x.w) - 1));
            let patch = Patch { x, rows: ys, columns: xs, layout: self.x };
            let to = &mut scratch[tile * self.x.cs * self.form.element_bytes()..];
            self.form.input(patch, to, self.distance(tiles) / self.form.element_bytes());
        }
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.x.len(), "elements of the tensor read");
        let (_, tiles) = self.tiles(rows.len());
        let (stride, columns) = (channels.len(), self.width.div_ceil(F::TILE));
        assert!(
            channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block),
            "channels {channels:?}"
        );
        assert_eq!(acc.len(), rows.len() * self.width * stride, "accumulators");
        let (patches, sums) = scratch[..self.scratch_bytes(rows.len())].split_at_mut(self.patch_bytes(tiles));
        let (sums, windows) = sums.split_at_mut(N * tiles * self.block * size_of::<i32>());
        let pixel = self.x.cs * self.form.element_bytes();
        let sums: *mut i32 = sums.as_mut_ptr().cast();
        assert!(sums.is_aligned(), "scratch memory begins on a cache line");
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let run = |position: usize, panel: Block<'_>| {
                let source = Flat { next: patches[position * self.distance(tiles)..].as_ptr(), stride: pixel };
                let to = Sums { first: sums.wrapping_add(position * tiles * self.block), stride: self.block };
                // SAFETY: `patches` holds N * tiles pixels, and words of panels lie within a pixel; `sums` holds
                // N * tiles * block numbers.
                unsafe { self.dot.run(source, tiles, panel, to) };
            };
            match &self.weights {
                Kept::Panels(panels) => (0..N).for_each(|position| run(position, panels.get(b * N + position))),
                Kept::Windows(kept) => kept.each(b, windows, run),
            }
            // SAFETY: the dot products above have written these numbers, and nothing else refers to them.
            let sums = unsafe { std::slice::from_raw_parts(sums, N * tiles * self.block) };
            let places = F::TILE * F::TILE * self.block;
            let at = (places * b).min(self.constants.len() - places);
            let constants = &self.constants[at..];
            for tile in 0..tiles {
                let (row, column) = (F::TILE * (tile / columns), F::TILE * (tile % columns));
                let at = (row * self.width + column) * stride + i * self.block;
                let to = Place {
                    acc: &mut acc[at..],
                    rows: F::TILE.min(rows.len() - row),
                    columns: F::TILE.min(self.width - column),
                    row: self.width * stride,
                    column: stride,
                };
                self.form.output(&sums[tile * self.block..], tiles * self.block, constants, self.block, to);
            }
        }
    }
}
