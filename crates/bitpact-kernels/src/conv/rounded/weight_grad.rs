//! The gradient of a convolution's weight codes from a rounded gradient of its accumulators.

use super::planes::Planes;
use super::{Format, RoundedScratch};
#[cfg(target_arch = "x86_64")]
use crate::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use crate::conv::tiles::{self, Job, Product, Shape, Start};
use crate::conv::{ConvGeometry, LANES};
#[cfg(target_arch = "x86_64")]
use crate::isa::{Amx, AvxVnni, Bf16};
use crate::isa::{Isa, Proof};
use crate::layout::Layout;

/// Plan of the weight gradient; see [`super`]. Images add to a partial sum laid out as `[cout / 16][tap][cin / 16][16][16]`, whose
/// additions happen in one fixed order; [`RoundedWeightGrad::unpack`] brings it to OIHW.
#[derive(Clone, Debug)]
pub struct RoundedWeightGrad {
    geometry: ConvGeometry,
    format: Format,
    planes: Planes,
    isa: Isa,
    proof: Proof,
    /// Largest code of x.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    largest: u8,
    /// Bytes of the tiles' steps.
    #[cfg(target_arch = "x86_64")]
    steps: Vec<usize>,
    /// Bytes in the planes of every (tap, block of input channels).
    sources: Vec<usize>,
    blocks: usize,
}

/// Values of one tile of the partial sum: 16 input channels by 16 output channels.
pub(super) const TILE: usize = LANES * LANES;

impl RoundedWeightGrad {
    /// Border that dz needs.
    pub fn border(geometry: ConvGeometry) -> usize {
        Planes::border(&geometry)
    }

    /// Whether the sums over one image of `pixels` pixels are exact: in 8 bits they must fit i32.
    pub fn fits(format: Format, pixels: usize) -> bool {
        format == Format::Bf16 || pixels <= i32::MAX as usize / (255 * 128)
    }

    /// Plans the gradient on `isa` of codes up to `largest`. `x.cs` is 4 or a multiple of 16, `dz.cs` a multiple of 16, `x.border >= geometry.pad`, dz has at least
    /// [`RoundedWeightGrad::border`].
    ///
    /// # Panics
    /// If the layouts do not fit the geometry, the image is too large, or the machine lacks `isa` or the format on it.
    pub fn new(isa: Isa, format: Format, geometry: ConvGeometry, x: Layout, largest: u8, dz: Layout) -> Self {
        assert!(format.is_available(isa), "{format:?} on {isa}");
        assert!(Self::fits(format, dz.h * dz.w), "{} x {} pixels for {format:?}", dz.h, dz.w);
        let planes = Planes::new(format, &geometry, x, dz);
        let channel_blocks = geometry.cin.div_ceil(LANES);
        let channel = planes.channel();
        let sources =
            planes.taps().flat_map(|tap| (0..channel_blocks).map(move |c| tap + c * LANES * channel)).collect();
        Self {
            geometry,
            format,
            isa,
            proof: isa.prove(),
            largest,
            #[cfg(target_arch = "x86_64")]
            steps: (0..planes.words() / LANES).map(|s| s * LANES * 4).collect(),
            sources,
            blocks: dz.cs / LANES,
            planes,
        }
    }

    /// Elements of a partial sum.
    pub fn partial_len(&self) -> usize {
        self.blocks * self.sources.len() * TILE
    }

    /// Makes `scratch` large enough for [`RoundedWeightGrad::run`].
    pub fn reserve(&self, scratch: &mut RoundedScratch) {
        scratch.planes.reserve(self.planes.planes_len());
        scratch.words.reserve(self.planes.words_len());
        scratch.sums.reserve(4 * TILE);
    }

    /// Brings one image to the order that [`RoundedWeightGrad::run`] reads: codes `x` with zero codes `zero`, which repeat over 16
    /// channels, and `dz`.
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn rearrange(&self, x: &[u8], zero: &[u8; LANES], dz: &[u8], scratch: &mut RoundedScratch) {
        self.planes.fill(self.isa, x, zero, &mut scratch.planes[..self.planes.planes_len()]);
        self.planes.words_of(self.isa, dz, &mut scratch.words[..self.planes.words_len()]);
    }

    /// partial += the weight gradient of the image that was last rearranged into `scratch`.
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn run(&self, zero: &[u8; LANES], partial: &mut [f32], scratch: &mut RoundedScratch) {
        assert_eq!(partial.len(), self.partial_len(), "partial sum");
        let (planes, words) = (&scratch.planes[..self.planes.planes_len()], &scratch.words[..self.planes.words_len()]);
        if self.format == Format::S8 && zero.iter().any(|z| *z != 0) {
            self.take_off_zero(zero, words, partial);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(amx) = Amx::detect().filter(|_| self.isa == Isa::Amx) {
            return self.on_tiles(amx, planes, words, partial, &mut scratch.sums);
        }
        let (channel, count) = (self.planes.channel(), self.planes.words());
        for block in 0..self.blocks {
            let partial = &mut partial[block * self.sources.len() * TILE..][..self.sources.len() * TILE];
            for (&source, tile) in self.sources.iter().zip(partial.as_chunks_mut::<TILE>().0) {
                let (x, dz) = (&planes[source..], &words[block * LANES * 4..]);
                let words = Words { x, channel, dz, word: 4 * LANES * self.blocks, words: count };
                match (self.format, self.proof) {
                    #[cfg(target_arch = "x86_64")]
                    (Format::Bf16, _) => {
                        super::avx512::weights_bf16(Bf16::detect().expect("the format is available"), &words, tile);
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Format::S8, Proof::Avx512(token)) => super::avx512::weights_s8(token, &words, tile),
                    #[cfg(target_arch = "x86_64")]
                    (Format::S8, Proof::Avx2(token)) => match AvxVnni::detect().filter(|_| self.isa == Isa::AvxVnni) {
                        Some(token) => super::avx2::weights_vnni(token, &words, tile),
                        None if (1..=super::avx2::LARGEST_NARROW).contains(&self.largest) => {
                            super::avx2::weights_narrow(token, &words, self.largest, tile);
                        }
                        None => super::avx2::weights_wide(token, &words, tile),
                    },
                    _ => weights_s8(&words, tile),
                }
            }
        }
    }

    /// Takes the zero code's part off: zero[i] times the sum of the gradient over all pixels, the same for every tap.
    fn take_off_zero(&self, zero: &[u8; LANES], words: &[u8], partial: &mut [f32]) {
        for block in 0..self.blocks {
            let mut sums = [0i32; LANES];
            for word in words.as_chunks::<{ 4 * LANES }>().0.iter().skip(block).step_by(self.blocks) {
                for (sum, quad) in sums.iter_mut().zip(word.as_chunks::<4>().0) {
                    *sum += quad.iter().map(|&n| i32::from(n as i8)).sum::<i32>();
                }
            }
            let partial = &mut partial[block * self.sources.len() * TILE..][..self.sources.len() * TILE];
            for tile in partial.as_chunks_mut::<TILE>().0 {
                for (row, &zero) in tile.as_chunks_mut::<LANES>().0.iter_mut().zip(zero) {
                    row.iter_mut().zip(sums).for_each(|(out, sum)| *out -= (i32::from(zero) * sum) as f32);
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn on_tiles(&self, amx: Amx, planes: &[u8], words: &[u8], partial: &mut [f32], sums: &mut [i32]) {
        let sums = &mut sums[..4 * TILE];
        let product = match self.format {
            Format::Bf16 => Product::Bf16,
            Format::S8 => Product::U8S8,
        };
        let tiles = Tiles::configure(amx, &tiles::config(LANES, LANES));
        let mut block = 0;
        while block < self.blocks {
            let shape = if self.blocks - block >= 2 { Shape::TwoByTwo } else { Shape::FourByOne };
            let (rows, cols) = shape.tiles();
            let mut source = 0;
            while source < self.sources.len() {
                let (shape, rows, cols_once) =
                    if self.sources.len() - source >= rows { (shape, rows, cols) } else { (Shape::One, 1, 1) };
                for first in (0..cols).step_by(cols_once) {
                    // Index of the tile of source i and block j in the partial sum.
                    let tile = |i: usize, j: usize| (block + first + j) * self.sources.len() + source + i;
                    let mut job = Job {
                        offsets: self.steps.as_ptr(),
                        steps: self.steps.len(),
                        a: [planes.as_ptr(); 4],
                        a_row: self.planes.channel(),
                        b: [words.as_ptr(); 2],
                        b_row: 4 * LANES * self.blocks,
                        b_step: 4 * LANES * self.blocks * LANES,
                        start: if product == Product::Bf16 { Start::Old } else { Start::Zero },
                        init: [std::ptr::null(); 2],
                        c: [std::ptr::null_mut(); 4],
                        c_row: 4 * LANES,
                    };
                    for i in 0..rows {
                        job.a[i] = planes[self.sources[source + i]..].as_ptr();
                        for j in 0..cols_once {
                            job.b[j] = words[(block + first + j) * 4 * LANES..].as_ptr();
                            let at = i * cols_once + j;
                            job.c[at] = match product {
                                Product::Bf16 => partial[tile(i, j) * TILE..][..TILE].as_mut_ptr().cast(),
                                Product::U8S8 => sums[at * TILE..][..TILE].as_mut_ptr().cast(),
                            };
                        }
                    }
                    // SAFETY: the tiles are configured; the planes hold every source's 16 channels of all steps, the words all steps
                    // of every block, and every c is a tile of its own.
                    unsafe { tiles::run(product, shape, &job) };
                    if product == Product::U8S8 {
                        for (i, j) in (0..rows).flat_map(|i| (0..cols_once).map(move |j| (i, j))) {
                            let sums = &sums[(i * cols_once + j) * TILE..][..TILE];
                            let out = &mut partial[tile(i, j) * TILE..][..TILE];
                            out.iter_mut().zip(sums).for_each(|(out, &sum)| *out += sum as f32);
                        }
                    }
                }
                source += rows;
            }
            block += cols;
        }
        drop(tiles);
    }

    /// Copies a partial sum to OIHW order.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn unpack(&self, partial: &[f32], dw_oihw: &mut [f32]) {
        let g = &self.geometry;
        assert_eq!(partial.len(), self.partial_len(), "partial sum");
        assert_eq!(dw_oihw.len(), g.weights(), "weights of {g:?}");
        let channel_blocks = g.cin.div_ceil(LANES);
        for (index, row) in partial.as_chunks::<LANES>().0.iter().enumerate() {
            let (source, lane) = (index / LANES, index % LANES);
            let (block, source) = (source / self.sources.len(), source % self.sources.len());
            let (tap, i) = (source / channel_blocks, source % channel_blocks * LANES + lane);
            if i < g.cin {
                for (o, &sum) in (block * LANES..g.cout).zip(row) {
                    dw_oihw[g.weight(o, i, tap / g.kw, tap % g.kw)] = sum;
                }
            }
        }
    }
}

/// What one tile is summed from: 16 channels of x, `channel` bytes apart, and the 16 channels of dz's words, `word` bytes apart.
pub(super) struct Words<'a> {
    pub(super) x: &'a [u8],
    pub(super) channel: usize,
    pub(super) dz: &'a [u8],
    pub(super) word: usize,
    pub(super) words: usize,
}

impl Words<'_> {
    /// # Panics
    /// If a slice is shorter than what is read: `words` words of every channel, and 16 words at each place of dz.
    pub(super) fn check(&self) {
        let (x, dz) = ((LANES - 1) * self.channel + 4 * self.words, (self.words - 1) * self.word + 4 * LANES);
        assert!(self.words > 0 && self.x.len() >= x && self.dz.len() >= dz, "{} words", self.words);
    }
}

/// One tile in plain Rust.
fn weights_s8(w: &Words, tile: &mut [f32; TILE]) {
    for (c, out) in tile.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sums = [0i32; LANES];
        for (word, x) in w.x[c * w.channel..][..4 * w.words].as_chunks::<4>().0.iter().enumerate() {
            let dz = w.dz[word * w.word..].first_chunk::<{ 4 * LANES }>().expect("a word of 16 channels");
            for (sum, dz) in sums.iter_mut().zip(dz.as_chunks::<4>().0) {
                *sum += x.iter().zip(dz).map(|(&x, &n)| i32::from(x) * i32::from(n as i8)).sum::<i32>();
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum as f32);
    }
}
