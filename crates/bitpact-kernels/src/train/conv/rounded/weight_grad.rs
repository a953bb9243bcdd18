//! The gradient of a convolution's weight codes from a rounded gradient of its accumulators.

use std::ops::Range;

use super::planes::Planes;
use super::{Format, RoundedScratch};
#[cfg(target_arch = "x86_64")]
use crate::machine::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use crate::machine::isa::{Amx, AvxVnni, Bf16};
use crate::machine::isa::{Isa, Proof};
use crate::machine::layout::{Layout, image_distance};
#[cfg(target_arch = "x86_64")]
use crate::train::conv::amx_tiles::{self, Job, Product, Shape, Start};
use crate::train::conv::filters::unpack_sums;
use crate::train::conv::{ConvGeometry, LANES};

/// Plan of the weight gradient; see [`super`]. Images add to a partial sum laid out as `[cout / 16][tap][cin /
/// 16][16][16]`, whose additions happen in one fixed order; [`RoundedWeightGrad::unpack`] brings it to OIHW.
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
    /// Bytes in the planes of so many images to every step of 16 words.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    steps: Vec<usize>,
    /// Images that are rearranged before a run.
    group: usize,
    /// Whole images whose sums stay in registers; 1 where an image is more than that.
    at_once: usize,
    /// Bytes from one rearranged image to the next, of its input and of its gradient.
    apart: [usize; 2],
    /// Bytes in the planes of every (tap, block of input channels).
    sources: Vec<usize>,
    blocks: usize,
}

/// Values of one tile of the partial sum: 16 input channels by 16 output channels.
pub(super) const TILE: usize = LANES * LANES;

/// Bytes of one word of 16 output channels, and of the 16 words of a step of one input channel.
const STEP: usize = 4 * LANES;

/// Steps whose sums stay in registers, and those that the pixels of several images would fill. In 8 bits they are
/// exact: 18 steps of 64 places, 255 * 127 each, are far below 2^31.
const BLOCK_STEPS: usize = 18;

impl RoundedWeightGrad {
    /// Border that dz needs.
    pub fn border(geometry: ConvGeometry) -> usize {
        Planes::border(&geometry)
    }

    /// Plans the gradient on `isa` of codes up to `largest`. `x.cs` is 4 or a multiple of 16, `dz.cs` a multiple of 16,
    /// `x.border >= geometry.pad`, dz has at least [`RoundedWeightGrad::border`].
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
        let at_once = (BLOCK_STEPS * LANES / planes.words_with_pixels()).max(1);
        // Steps of tiles are at one distance, from image to image too.
        let words = if isa == Isa::Amx { planes.words_len() } else { image_distance(planes.words_len(), 1) };
        let apart = [image_distance(planes.planes_len(), 1), words];
        let at = |i: usize| (i / steps) * apart[0] + (i % steps) * STEP;
        Self {
            geometry,
            format,
            group,
            at_once,
            apart,
            steps: (0..at_once * steps).map(at).collect(),
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

    /// Blocks of 16 output channels: equal parts of a partial sum.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Images that are to be rearranged before a run, if there are as many.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Bytes that an image takes when it is rearranged: of its input and of its gradient.
    pub fn rearranged_len(&self) -> [usize; 2] {
        self.apart
    }

    /// Makes `scratch` large enough for [`RoundedWeightGrad::run`].
    pub fn reserve(&self, scratch: &mut RoundedScratch) {
        scratch.planes.reserve(self.group * self.apart[0]);
        scratch.words.reserve(self.group * self.apart[1]);
        self.reserve_sums(scratch);
    }

    /// Makes `scratch` large enough for [`RoundedWeightGrad::run_blocks`].
    pub fn reserve_sums(&self, scratch: &mut RoundedScratch) {
        scratch.sums.reserve(4 * TILE);
    }

    /// Brings one image to the order that [`RoundedWeightGrad::run`] reads, as number `slot` of its group: codes `x`
    /// with zero codes `zero`, a multiple of 16 that repeat, and `dz`.
    ///
    /// # Panics
    /// If a length is wrong, `slot` is not below the group's size, or the scratch memory was not reserved.
    pub fn rearrange(&self, slot: usize, x: &[u8], zero: &[u8], dz: &[u8], scratch: &mut RoundedScratch) {
        assert!(slot < self.group, "image {slot} of a group of {}", self.group);
        let [planes, words] = self.rearranged_len();
        let image = [
            &mut scratch.planes[slot * planes..(slot + 1) * planes],
            &mut scratch.words[slot * words..(slot + 1) * words],
        ];
        self.rearrange_image(x, zero, dz, image);
    }

    /// Rearranges one image to `image`, two pieces of memory of [`RoundedWeightGrad::rearranged_len`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn rearrange_image(&self, x: &[u8], zero: &[u8], dz: &[u8], image: [&mut [u8]; 2]) {
        let [planes, words] = image;
        assert_eq!([planes.len(), words.len()], self.apart, "bytes of a rearranged image");
        self.planes.fill(self.isa, x, zero, &mut planes[..self.planes.planes_len()]);
        self.planes.words_of(self.isa, dz, &mut words[..self.planes.words_len()]);
    }

    /// Rearranges as [`RoundedWeightGrad::rearrange`], but real numbers in place of codes, which are rounded half to
    /// even to bfloat16.
    ///
    /// # Panics
    /// If a length is wrong, `slot` is not below the group's size, the scratch memory was not reserved, or the format
    /// is another.
    pub fn rearrange_real(&self, slot: usize, x: &[f32], dz: &[u8], scratch: &mut RoundedScratch) {
        assert!(slot < self.group, "image {slot} of a group of {}", self.group);
        let [planes, words] = self.rearranged_len();
        let image = [
            &mut scratch.planes[slot * planes..(slot + 1) * planes],
            &mut scratch.words[slot * words..(slot + 1) * words],
        ];
        self.rearrange_real_image(x, dz, image);
    }

    /// Rearranges one image to `image`, two pieces of memory of [`RoundedWeightGrad::rearranged_len`].
    ///
    /// # Panics
    /// If a length is wrong, or the format is another.
    pub fn rearrange_real_image(&self, x: &[f32], dz: &[u8], image: [&mut [u8]; 2]) {
        assert_eq!(self.format, Format::Bf16, "real numbers are those of bfloat16");
        let [planes, words] = image;
        assert_eq!([planes.len(), words.len()], self.apart, "bytes of a rearranged image");
        self.planes.fill_real(self.isa, x, &mut planes[..self.planes.planes_len()]);
        self.planes.words_of(self.isa, dz, &mut words[..self.planes.words_len()]);
    }

    /// Adds to `partial` the weight gradient of the first `images` images that were rearranged into `scratch`.
    ///
    /// # Panics
    /// If a length is wrong, there are more images than in a group, or the scratch memory was not reserved.
    pub fn run(&self, images: usize, zero: &[u8], partial: &mut [f32], scratch: &mut RoundedScratch) {
        assert!(images <= self.group, "{images} images in a group of {}", self.group);
        let [planes, words] = self.rearranged_len();
        let RoundedScratch { planes: all_planes, words: all_words, sums } = scratch;
        let rearranged = [&all_planes[..images * planes], &all_words[..images * words]];
        self.sum(images, zero, rearranged, 0..self.blocks, partial, sums);
    }

    /// Adds to `partial` the weight gradient of `images` images, `rearranged` one after the other; `partial` holds the
    /// blocks `blocks`.
    ///
    /// # Panics
    /// If a length is wrong, there are no such blocks, or the scratch memory was not reserved.
    pub fn run_blocks(
        &self,
        images: usize,
        zero: &[u8],
        rearranged: [&[u8]; 2],
        blocks: Range<usize>,
        partial: &mut [f32],
        scratch: &mut RoundedScratch,
    ) {
        self.sum(images, zero, rearranged, blocks, partial, &mut scratch.sums);
    }

    fn sum(
        &self,
        images: usize,
        zero: &[u8],
        [planes, words]: [&[u8]; 2],
        blocks: Range<usize>,
        partial: &mut [f32],
        sums: &mut [i32],
    ) {
        let [planes_len, words_len] = self.rearranged_len();
        assert!(planes.len() == images * planes_len && words.len() == images * words_len, "{images} rearranged images");
        assert!(blocks.start <= blocks.end && blocks.end <= self.blocks, "blocks {blocks:?} of {}", self.blocks);
        assert_eq!(partial.len(), self.partial_len() / self.blocks * blocks.len(), "partial sum of blocks {blocks:?}");
        let per_image = self.planes.words() / LANES;
        for first in (0..images).step_by(self.at_once) {
            let n = self.at_once.min(images - first);
            let planes = &planes[first * planes_len..(first + n) * planes_len];
            let words = &words[first * words_len..(first + n) * words_len];
            if self.format == Format::S8 && zero.iter().any(|z| *z != 0) {
                self.take_off_zero(zero, words, blocks.clone(), partial);
            }
            let steps = n * per_image;
            let pieces = if n > 1 { 1 } else { steps.div_ceil(BLOCK_STEPS) };
            for piece in 0..pieces {
                let steps = piece * steps / pieces..(piece + 1) * steps / pieces;
                #[cfg(target_arch = "x86_64")]
                if let Some(amx) = Amx::detect().filter(|_| self.isa == Isa::Amx) {
                    self.on_tiles(amx, steps, planes, words, blocks.clone(), partial, sums);
                    continue;
                }
                self.on_vectors(steps, planes, words, blocks.clone(), partial);
            }
        }
    }

    /// Some steps, tile by tile.
    fn on_vectors(&self, steps: Range<usize>, planes: &[u8], words: &[u8], blocks: Range<usize>, partial: &mut [f32]) {
        let (per_image, word) = (self.planes.words() / LANES, STEP * self.blocks);
        let [planes_len, words_len] = self.rearranged_len();
        let tiles = partial.as_chunks_mut::<TILE>().0;
        // All taps of some channels read the same lines of the planes.
        let channel_blocks = self.geometry.cin.div_ceil(LANES);
        let order = (0..channel_blocks).flat_map(|c| (c..self.sources.len()).step_by(channel_blocks));
        for i in order {
            let source = self.sources[i];
            for (at, block) in blocks.clone().enumerate() {
                let tile = &mut tiles[at * self.sources.len() + i];
                let mut sums = [0i32; TILE];
                let mut step = steps.start;
                while step < steps.end {
                    // The steps of one image follow each other, and whole images do.
                    let first = step % per_image;
                    let images = if first == 0 { (steps.end - step) / per_image } else { 0 };
                    let count = if images > 0 { per_image } else { (per_image - first).min(steps.end - step) };
                    let images = images.max(1);
                    let words = Words {
                        x: &planes[step / per_image * planes_len + first * STEP + source..],
                        channel: self.planes.channel(),
                        dz: &words[step / per_image * words_len + first * LANES * word + block * STEP..],
                        word,
                        words: (count * LANES).min(self.planes.words_with_pixels() - first * LANES),
                        images,
                        apart: [planes_len, words_len],
                    };
                    match self.format {
                        Format::Bf16 => words.each(|words| add_bf16(words, tile)),
                        Format::S8 => self.add_s8(&words, &mut sums),
                    }
                    step += images * count;
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
            Proof::Avx512(token) => words.each(|words| super::avx512::weights_s8(token, words, sums)),
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(token) => match AvxVnni::detect().filter(|_| self.isa == Isa::AvxVnni) {
                Some(token) => super::avx2::weights_vnni(token, words, sums),
                None if (1..=super::avx2::LARGEST_NARROW).contains(&self.largest) => {
                    super::avx2::weights_narrow(token, words, self.largest, sums);
                }
                None => super::avx2::weights_wide(token, words, sums),
            },
            _ => words.each(|words| weights_s8(words, sums)),
        }
    }

    /// Takes the zero code's part off: zero[i] times the sum of the gradient over all pixels, the same for every tap.
    fn take_off_zero(&self, zero: &[u8], words: &[u8], blocks: Range<usize>, partial: &mut [f32]) {
        let (zeros, channel_blocks) = (zero.as_chunks::<LANES>().0, self.geometry.cin.div_ceil(LANES));
        for (block, partial) in blocks.zip(partial.chunks_exact_mut(self.sources.len() * TILE)) {
            let mut sums = [0i32; LANES];
            for image in words.chunks_exact(self.apart[1]) {
                let words = image[..self.planes.words_len()].as_chunks::<STEP>().0;
                for word in words.iter().skip(block).step_by(self.blocks) {
                    for (sum, quad) in sums.iter_mut().zip(word.as_chunks::<4>().0) {
                        *sum += quad.iter().map(|&n| i32::from(n as i8)).sum::<i32>();
                    }
                }
            }
            // Tiles come tap by tap, of each all channels.
            for (i, tile) in partial.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let zero = &zeros[i % channel_blocks % zeros.len()];
                for (row, &zero) in tile.as_chunks_mut::<LANES>().0.iter_mut().zip(zero) {
                    row.iter_mut().zip(sums).for_each(|(out, sum)| *out -= (i64::from(zero) * i64::from(sum)) as f32);
                }
            }
        }
    }

    /// Some steps, four tiles at a time.
    #[cfg(target_arch = "x86_64")]
    fn on_tiles(
        &self,
        amx: Amx,
        steps: Range<usize>,
        planes: &[u8],
        words: &[u8],
        blocks: Range<usize>,
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
        let tiles = Tiles::configure(amx, &amx_tiles::config(LANES, LANES));
        let mut block = blocks.start;
        while block < blocks.end {
            let wide = if blocks.end - block >= 2 { Shape::TwoByTwo } else { Shape::FourByOne };
            let (rows, cols) = wide.tiles();
            let mut source = 0;
            while source < self.sources.len() {
                let whole = self.sources.len() - source >= rows;
                let (shape, rows, step) = if whole { (wide, rows, cols) } else { (Shape::One, 1, 1) };
                for first in (0..cols).step_by(step) {
                    // Where the tile of source i and block j lies in the partial sum.
                    let tile = |i: usize, j: usize| {
                        ((block - blocks.start + first + j) * self.sources.len() + source + i) * TILE
                    };
                    for (i, j) in (0..rows).flat_map(|i| (0..step).map(move |j| (i, j))) {
                        job.a[i] = planes[self.sources[source + i]..].as_ptr();
                        job.b[j] = words[(block + first + j) * STEP..].as_ptr();
                        job.c[i * step + j] = match product {
                            Product::Bf16 => partial[tile(i, j)..][..TILE].as_mut_ptr().cast(),
                            Product::U8S8 => sums[(i * step + j) * TILE..][..TILE].as_mut_ptr().cast(),
                        };
                    }
                    // SAFETY: the tiles are configured; the planes hold every source's 16 channels of all steps, the
                    // words all steps of every block, and every c is a tile of its own.
                    unsafe { amx_tiles::run(product, shape, &job) };
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
        unpack_sums(&self.geometry, self.geometry.cin.next_multiple_of(LANES), partial, dw_oihw);
    }
}

/// What one tile is summed from: 16 channels of x, `channel` bytes apart, and the 16 channels of dz's words, `word`
/// bytes apart, of `images` images, which lie `apart` bytes from each other in x and in dz.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) x: &'a [u8],
    pub(super) channel: usize,
    pub(super) dz: &'a [u8],
    pub(super) word: usize,
    pub(super) words: usize,
    pub(super) images: usize,
    pub(super) apart: [usize; 2],
}

impl Words<'_> {
    /// # Panics
    /// If a slice is shorter than what is read: at every image, `words` words of every channel, and 16 words at each
    /// place of dz.
    pub(super) fn check(&self) {
        assert!(self.words > 0 && self.images > 0, "{} words of {} images", self.words, self.images);
        let last = self.apart.map(|apart| (self.images - 1) * apart);
        let (x, dz) = ((LANES - 1) * self.channel + 4 * self.words, (self.words - 1) * self.word + 4 * LANES);
        assert!(self.x.len() >= last[0] + x && self.dz.len() >= last[1] + dz, "{} words", self.words);
    }

    /// Calls `f` for every image alone.
    fn each(&self, mut f: impl FnMut(&Words)) {
        for image in 0..self.images {
            let [x, dz] = self.apart.map(|apart| image * apart);
            f(&Words { x: &self.x[x..], dz: &self.dz[dz..], images: 1, ..*self });
        }
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
