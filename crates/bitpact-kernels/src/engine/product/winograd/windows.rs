//! Windows of weights in bytes, transformed for F(4x4, 3x3) by each strip that uses them: 9 bytes a window from beyond
//! the caches in place of 72.

use super::super::tile::{Block, Segment};
use super::four::{POSITIONS, SIDE};
use super::{LANES, ProductSpec, Simd};
use crate::machine::isa::{Avx2, Avx512};
use crate::machine::registers::Registers;
use crate::machine::weights::Weights;

/// Taps of a window.
const TAPS: usize = 9;

/// Positions that are transformed together, two rows of them that share most of their additions: so many that a block
/// of 512 channels stays in a second-level cache.
const PART: usize = 2 * SIDE;

/// The rows of positions of each part.
const PARTS: [[usize; 2]; POSITIONS / PART] = [[0, 5], [1, 2], [3, 4]];

/// Bytes of a word: two 16-bit numbers of each channel.
const WORD: usize = 4 * LANES;

/// Blocks of 16 output channels: `[block][word of two inputs][tap][channel][2]`.
#[derive(Debug)]
pub(super) struct Windows {
    simd: Simd,
    words: usize,
    segment: [Segment; 1],
    bytes: Weights<i8>,
}

impl Windows {
    /// Packs the weights; `None` where they do not fit bytes.
    pub(super) fn new(simd: Simd, spec: &ProductSpec<'_>) -> Option<Windows> {
        let g = &spec.geometry;
        let words = g.cin.div_ceil(2);
        let mut bytes = vec![0; g.cout.div_ceil(LANES) * words * TAPS * 2 * LANES];
        for (o, channel) in spec.codes.chunks_exact(g.cin * TAPS).enumerate() {
            let block = &mut bytes[o / LANES * words * TAPS * 2 * LANES..];
            for (i, window) in channel.as_chunks::<TAPS>().0.iter().enumerate() {
                for (tap, &w) in window.iter().enumerate() {
                    block[((i / 2 * TAPS + tap) * LANES + o % LANES) * 2 + i % 2] = i8::try_from(w).ok()?;
                }
            }
        }
        let segment = [Segment { offset: 0, words: words as u32, flush: true }];
        Some(Windows { simd, words, segment, bytes: spec.arena.keep(&bytes) })
    }

    /// Bytes of weights.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the weights that are transformed at a time.
    pub(super) fn scratch_bytes(&self) -> usize {
        PART * self.distance()
    }

    /// Bytes from one position to the next: an odd number of cache lines, lest all of a word fall into one set of the
    /// caches.
    fn distance(&self) -> usize {
        (self.words | 1) * WORD
    }

    /// Calls `run` with each position and its weights of block `b`, zero sums beyond the last.
    pub(super) fn each(&self, b: usize, scratch: &mut [u8], mut run: impl FnMut(usize, Block<'_>)) {
        let len = self.words * TAPS * 2 * LANES;
        let Some(block) = self.bytes.get(b * len..(b + 1) * len) else {
            let segments = &[Segment { offset: 0, words: 0, flush: true }];
            return (0..POSITIONS)
                .for_each(|position| run(position, Block { channels: LANES, segments, weights: &[] }));
        };
        let scratch = &mut scratch[..self.scratch_bytes()];
        for (part, rows) in PARTS.into_iter().enumerate() {
            let (windows, to) = (block.as_ptr(), scratch.as_mut_ptr());
            match self.simd {
                // SAFETY: the token proves AVX2; a block and the scratch memory hold so many words.
                Simd::Avx2(token) => unsafe { transform256(token, part, windows, self.words, to, self.distance()) },
                // SAFETY: as above, with AVX-512.
                Simd::Avx512(token) => unsafe { transform512(token, part, windows, self.words, to, self.distance()) },
            }
            for (k, panel) in scratch.chunks_exact(self.distance()).enumerate() {
                let panel = &panel[..self.words * WORD];
                // SAFETY: bytes of one sign for those of another.
                let weights = unsafe { std::slice::from_raw_parts(panel.as_ptr().cast(), panel.len()) };
                run(SIDE * rows[k / SIDE] + k % SIDE, Block { channels: LANES, segments: &self.segment, weights });
            }
        }
    }
}

/// [`transform`] compiled for registers of one kind.
macro_rules! compiled {
    ($token:ident, $features:literal, $transform:ident) => {
        /// # Safety
        /// As for [`transform`].
        #[target_feature(enable = $features)]
        unsafe fn $transform(r: $token, part: usize, windows: *const i8, words: usize, to: *mut u8, distance: usize) {
            match part {
                // SAFETY: the caller's promise.
                0 => unsafe { transform::<_, 0>(r, windows, words, to, distance) },
                // SAFETY: the caller's promise.
                1 => unsafe { transform::<_, 1>(r, windows, words, to, distance) },
                // SAFETY: the caller's promise.
                _ => unsafe { transform::<_, 2>(r, windows, words, to, distance) },
            }
        }
    };
}
compiled!(Avx2, "avx2,fma", transform256);
compiled!(Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", transform512);

/// Transforms a block for part `PART_NUMBER`: position k of it goes to `to[k * distance..][word][channel][2]`, in 16
/// bits.
///
/// # Safety
/// `words` words of windows are readable, `words * WORD` bytes of each position writable.
#[inline(always)]
unsafe fn transform<R: Registers, const PART_NUMBER: usize>(
    r: R,
    windows: *const i8,
    words: usize,
    to: *mut u8,
    distance: usize,
) {
    let registers = 2 * LANES / R::WORDS;
    for register in 0..registers * words {
        let (word, part) = (register / registers, register % registers);
        let columns: [[R::Ints; 2]; 3] = std::array::from_fn(|x| {
            let g = std::array::from_fn(|y| {
                let tap = windows.wrapping_add((word * TAPS + 3 * y + x) * 2 * LANES + part * R::WORDS);
                // SAFETY: the caller's promise.
                unsafe { r.load_weights(tap) }
            });
            two_of_axis::<R, PART_NUMBER>(r, g)
        });
        for row in 0..2 {
            for (x, u) in axis(r, std::array::from_fn(|x| columns[x][row])).into_iter().enumerate() {
                let to = to.wrapping_add((SIDE * row + x) * distance + register * 2 * R::WORDS);
                // SAFETY: the caller's promise.
                unsafe { r.store(to, u) };
            }
        }
    }
}

#[inline(always)]
fn six_times<R: Registers>(r: R, a: R::Ints) -> R::Ints {
    r.add16(r.twice16(a), r.four_times16(a))
}

/// The transforms of a part.
#[inline(always)]
fn two_of_axis<R: Registers, const PART_NUMBER: usize>(r: R, g: [R::Ints; 3]) -> [R::Ints; 2] {
    let (ends, middle) = match PART_NUMBER {
        0 => return [six_times(r, g[0]), six_times(r, g[2])],
        1 => (r.add16(g[0], g[2]), g[1]),
        _ => (r.add16(g[0], r.four_times16(g[2])), r.twice16(g[1])),
    };
    [r.add16(ends, middle), r.sub16(ends, middle)]
}

/// All transforms, in their order.
#[inline(always)]
fn axis<R: Registers>(r: R, g: [R::Ints; 3]) -> [R::Ints; SIDE] {
    let [first, last] = two_of_axis::<R, 0>(r, g);
    let [a, b] = two_of_axis::<R, 1>(r, g);
    let [c, d] = two_of_axis::<R, 2>(r, g);
    [first, a, b, c, d, last]
}
