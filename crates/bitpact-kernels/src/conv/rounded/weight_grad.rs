//! The gradient of a convolution's weight codes from a rounded gradient of its accumulators.

use std::ops::Range;

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
    /// Bytes in the planes of a group's images to every step of 16 words.
    steps: Vec<usize>,
    /// Images whose sums are taken together.
    group: usize,
    /// Bytes in the planes of every (tap, block of input channels).
    sources: Vec<usize>,
    blocks: usize,
}

/// Values of one tile of the partial sum: 16 input channels by 16 output channels.
pub(super) const TILE: usize = LANES * LANES;

/// Bytes of one word of 16 output channels, and of the 16 words of a step of one input channel.
const STEP: usize = 4 * LANES;

/// Steps whose sums stay in registers. In 8 bits they are exact: 18 steps of 64 places, 255 * 127 each, are far below 2^31.
const BLOCK_STEPS: usize = 18;

impl RoundedWeightGrad {
    /// Border that dz needs.
    pub fn border(geometry: ConvGeometry) -> usize {
        Planes::border(&geometry)
    }

    /// Plans the gradient on `isa` of codes up to `largest`. `x.cs` is 4 or a multiple of 16, `dz.cs` a multiple of 16, `x.border >= geometry.pad`, dz has at least
    /// [`RoundedWeightGrad::border`].
    ///
    /// # Panics
    /// If the layouts do not fit the geometry, or the machine lacks `isa` or the format on it.
    pub fn new(isa: Isa, format: Format, geometry: ConvGeometry, x: Layout, largest: u8, dz: Layout) -> Self {
        assert!(format.is_available(isa), "{format:?} on {isa}");
        let planes = Planes::new(format, &geometry, x, dz);
        let channel_blocks = geometry.cin.div_ceil(LANES);
        let channel = planes.channel();
        let sources =
            planes.taps().flat_map(|tap| (0..channel_blocks).map(move |c| tap + c * LANES * channel)).collect();
        // Enough steps for the sums to be worth fetching, few enough for their operands to stay in the first cache.
        let steps = planes.words() / LANES;
        let group = (BLOCK_STEPS * 2 / 3).div_ceil(steps);
        let at = |i: usize| (i / steps) * planes.planes_len() + (i % steps) * STEP;
        Self {
            geometry,
            format,
            group,
            steps: (0..group * steps).map(at).collect(),
            isa,
            proof: isa.prove(),
            largest,
            sources,
            blocks: dz.cs / LANES,
            planes,
        }
    }

    /// Elements of a partial sum.
    pub fn partial_len(&self) -> usize {
        self.blocks * self.sources.len() * TILE
    }

    /// Images that are to be rearranged before a run, if there are as many.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Makes `scratch` large enough for [`RoundedWeightGrad::run`].
    pub fn reserve(&self, scratch: &mut RoundedScratch) {
        scratch.planes.reserve(self.group * self.planes.planes_len());
        scratch.words.reserve(self.group * self.planes.words_len());
        scratch.sums.reserve(4 * TILE);
    }

    /// Brings one image to the order that [`RoundedWeightGrad::run`] reads, as number `slot` of its group: codes `x` with zero codes
    /// `zero`, which repeat over 16 channels, and `dz`.
    ///
    /// # Panics
    /// If a length is wrong, `slot` is not below the group's size, or the scratch memory was not reserved.
    pub fn rearrange(&self, slot: usize, x: &[u8], zero: &[u8; LANES], dz: &[u8], scratch: &mut RoundedScratch) {
        assert!(slot < self.group, "image {slot} of a group of {}", self.group);
        let (planes, words) = (self.planes.planes_len(), self.planes.words_len());
        self.planes.fill(self.isa, x, zero, &mut scratch.planes[slot * planes..(slot + 1) * planes]);
        self.planes.words_of(self.isa, dz, &mut scratch.words[slot * words..(slot + 1) * words]);
    }

    /// partial += the weight gradient of the first `images` images that were rearranged into `scratch`.
    ///
    /// # Panics
    /// If a length is wrong, there are more images than in a group, or the scratch memory was not reserved.
    pub fn run(&self, images: usize, zero: &[u8; LANES], partial: &mut [f32], scratch: &mut RoundedScratch) {
        assert!(images <= self.group, "{images} images in a group of {}", self.group);
        assert_eq!(partial.len(), self.partial_len(), "partial sum");
        let planes = &scratch.planes[..images * self.planes.planes_len()];
        let words = &scratch.words[..images * self.planes.words_len()];
        if self.format == Format::S8 && zero.iter().any(|z| *z != 0) {
            self.take_off_zero(zero, words, partial);
        }
        let steps = images * self.planes.words() / LANES;
        let blocks = steps.div_ceil(BLOCK_STEPS);
        for block in 0..blocks {
            let steps = block * steps / blocks..(block + 1) * steps / blocks;
            #[cfg(target_arch = "x86_64")]
            if let Some(amx) = Amx::detect().filter(|_| self.isa == Isa::Amx) {
                self.on_tiles(amx, steps, planes, words, partial, &mut scratch.sums);
                continue;
            }
            self.on_vectors(steps, planes, words, partial);
        }
    }

    /// The steps of one block, tile by tile.
    fn on_vectors(&self, steps: Range<usize>, planes: &[u8], words: &[u8], partial: &mut [f32]) {
        let (per_image, word) = (self.planes.words() / LANES, STEP * self.blocks);
        for block in 0..self.blocks {
            let partial = &mut partial[block * self.sources.len() * TILE..][..self.sources.len() * TILE];
            for (&source, tile) in self.sources.iter().zip(partial.as_chunks_mut::<TILE>().0) {
                let mut sums = [0i32; TILE];
                let mut step = steps.start;
                while step < steps.end {
                    // The steps of one image follow each other.
                    let end = (step / per_image + 1) * per_image;
                    let count = end.min(steps.end) - step;
                    let first = step % per_image * LANES;
                    let words = Words {
                        x: &planes[self.steps[step] + source..],
                        channel: self.planes.channel(),
                        dz: &words[step * LANES * word + block * STEP..],
                        word,
                        words: (count * LANES).min(self.planes.words_with_pixels() - first),
                    };
                    match self.format {
                        Format::Bf16 => add_bf16(&words, tile),
                        Format::S8 => self.add_s8(&words, &mut sums),
                    }
                    step += count;
                }
                if self.format == Format::S8 {
                    tile.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum as f32);
                }
            }
        }
    }

    fn add_s8(&self, words: &Words, sums: &mut [i32; TILE]) {
        match self.proof {
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(token) => super::avx512::weights_s8(token, words, sums),
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(token) => match AvxVnni::detect().filter(|_| self.isa == Isa::AvxVnni) {
                Some(token) => super::avx2::weights_vnni(token, words, sums),
                None if (1..=super::avx2::LARGEST_NARROW).contains(&self.largest) => {
                    super::avx2::weights_narrow(token, words, self.largest, sums);
                }
                None => super::avx2::weights_wide(token, words, sums),
            },
            _ => weights_s8(words, sums),
        }
    }

    /// Takes the zero code's part off: zero[i] times the sum of the gradient over all pixels, the same for every tap.
    fn take_off_zero(&self, zero: &[u8; LANES], words: &[u8], partial: &mut [f32]) {
        for block in 0..self.blocks {
            let mut sums = [0i32; LANES];
            for word in words.as_chunks::<STEP>().0.iter().skip(block).step_by(self.blocks) {
                for (sum, quad) in sums.iter_mut().zip(word.as_chunks::<4>().0) {
                    *sum += quad.iter().map(|&n| i32::from(n as i8)).sum::<i32>();
                }
            }
            let partial = &mut partial[block * self.sources.len() * TILE..][..self.sources.len() * TILE];
            for tile in partial.as_chunks_mut::<TILE>().0 {
                for (row, &zero) in tile.as_chunks_mut::<LANES>().0.iter_mut().zip(zero) {
                    row.iter_mut().zip(sums).for_each(|(out, sum)| *out -= (i64::from(zero) * i64::from(sum)) as f32);
                }
            }
        }
    }

    /// The steps of one block, four tiles at a time.
    #[cfg(target_arch = "x86_64")]
    fn on_tiles(
        &self,
        amx: Amx,
        steps: Range<usize>,
        planes: &[u8],
        words: &[u8],
        partial: &mut [f32],
        sums: &mut [i32],
    ) {
        let sums = &mut sums[..4 * TILE];
        let product = match self.format {
            Format::Bf16 => Product::Bf16,
            Format::S8 => Product::U8S8,
        };
        let words = &words[steps.start * LANES * STEP * self.blocks..];
        let offsets = &self.steps[steps];
        let mut job = Job {
            offsets: offsets.as_ptr(),
            steps: offsets.len(),
            a: [planes.as_ptr(); 4],
            a_row: self.planes.channel(),
            b: [words.as_ptr(); 2],
            b_row: STEP * self.blocks,
            b_step: STEP * self.blocks * LANES,
            start: if product == Product::Bf16 { Start::Old } else { Start::Zero },
            init: [std::ptr::null(); 2],
            c: [std::ptr::null_mut(); 4],
            c_row: STEP,
        };
        let tiles = Tiles::configure(amx, &tiles::config(LANES, LANES));
        let mut block = 0;
        while block < self.blocks {
            let wide = if self.blocks - block >= 2 { Shape::TwoByTwo } else { Shape::FourByOne };
            let (rows, cols) = wide.tiles();
            let mut source = 0;
            while source < self.sources.len() {
                let whole = self.sources.len() - source >= rows;
                let (shape, rows, step) = if whole { (wide, rows, cols) } else { (Shape::One, 1, 1) };
                for first in (0..cols).step_by(step) {
                    // Where the tile of source i and block j lies in the partial sum.
                    let tile = |i: usize, j: usize| ((block + first + j) * self.sources.len() + source + i) * TILE;
                    for (i, j) in (0..rows).flat_map(|i| (0..step).map(move |j| (i, j))) {
                        job.a[i] = planes[self.sources[source + i]..].as_ptr();
                        job.b[j] = words[(block + first + j) * STEP..].as_ptr();
                        job.c[i * step + j] = match product {
                            Product::Bf16 => partial[tile(i, j)..][..TILE].as_mut_ptr().cast(),
                            Product::U8S8 => sums[(i * step + j) * TILE..][..TILE].as_mut_ptr().cast(),
                        };
                    }
                    // SAFETY: the tiles are configured; the planes hold every source's 16 channels of all steps, the words all steps
                    // of every block, and every c is a tile of its own.
                    unsafe { tiles::run(product, shape, &job) };
                    if product == Product::U8S8 {
                        for (i, j) in (0..rows).flat_map(|i| (0..step).map(move |j| (i, j))) {
                            let sums = &sums[(i * step + j) * TILE..][..TILE];
                            let out = &mut partial[tile(i, j)..][..TILE];
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

/// tile += the products of bfloat16 words.
fn add_bf16(words: &Words, tile: &mut [f32; TILE]) {
    #[cfg(target_arch = "x86_64")]
    super::avx512::weights_bf16(Bf16::detect().expect("the format is available"), words, tile);
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("bfloat16: {} words, {} sums", words.words, tile.len());
}

/// One tile in plain Rust.
fn weights_s8(w: &Words, tile: &mut [i32; TILE]) {
    for (c, out) in tile.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        for (word, x) in w.x[c * w.channel..][..4 * w.words].as_chunks::<4>().0.iter().enumerate() {
            let dz = w.dz[word * w.word..].first_chunk::<STEP>().expect("a word of 16 channels");
            for (sum, dz) in out.iter_mut().zip(dz.as_chunks::<4>().0) {
                *sum += x.iter().zip(dz).map(|(&x, &n)| i32::from(x) * i32::from(n as i8)).sum::<i32>();
            }
        }
    }
}
