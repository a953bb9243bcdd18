//! Windows of weights in bytes, transformed for F(4x4, 3x3) by each strip that uses them: 9 bytes a window from beyond the caches in
//! place of 72.

use std::arch::x86_64::*;

use super::super::tile::{Block, Segment};
use super::four::{POSITIONS, SIDE};
use super::{LANES, ProductSpec};
use crate::isa::Avx2;
use crate::weights::Weights;

/// Taps of a window.
const TAPS: usize = 9;

/// Positions that are transformed together, two rows of them that share most of their additions: so many that a block of 512
/// channels stays in a second-level cache.
const PART: usize = 2 * SIDE;

/// The rows of positions of each part.
const PARTS: [[usize; 2]; POSITIONS / PART] = [[0, 5], [1, 2], [3, 4]];

/// Bytes of a word: two 16-bit numbers of each channel.
const WORD: usize = 4 * LANES;

/// Blocks of 16 output channels: `[block][word of two inputs][tap][channel][2]`.
#[derive(Debug)]
pub(super) struct Windows {
    simd: Avx2,
    words: usize,
    segment: [Segment; 1],
    bytes: Weights<i8>,
}

impl Windows {
    /// Packs the weights; `None` where they do not fit bytes.
    pub(super) fn new(simd: Avx2, spec: &ProductSpec<'_>) -> Option<Windows> {
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
        Some(Windows { simd, words, segment, bytes: Weights::from_slice(&bytes) })
    }

    /// Bytes of weights.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the weights that are transformed at a time.
    pub(super) fn scratch_bytes(&self) -> usize {
        PART * self.distance()
    }

    /// Bytes from one position to the next: an odd number of cache lines, lest all of a word fall into one set of the caches.
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
            let transform: unsafe fn(_, _, _, _) = match part {
                0 => transform::<0>,
                1 => transform::<1>,
                _ => transform::<2>,
            };
            let _ = self.simd;
            // SAFETY: the token proves AVX2; a block and the scratch memory hold so many words.
            unsafe { transform(block.as_ptr(), self.words, scratch.as_mut_ptr(), self.distance()) };
            for (k, panel) in scratch.chunks_exact(self.distance()).enumerate() {
                let panel = &panel[..self.words * WORD];
                // SAFETY: bytes of one sign for those of another.
                let weights = unsafe { std::slice::from_raw_parts(panel.as_ptr().cast(), panel.len()) };
                run(SIDE * rows[k / SIDE] + k % SIDE, Block { channels: LANES, segments: &self.segment, weights });
            }
        }
    }
}

/// Transforms a block for part `PART_NUMBER`: position k of it goes to `to[k * distance..][word][channel][2]`, in 16 bits.
///
/// # Safety
/// The CPU has AVX2; `words` words of windows are readable, `words * WORD` bytes of each position writable.
#[target_feature(enable = "avx2,fma")]
unsafe fn transform<const PART_NUMBER: usize>(windows: *const i8, words: usize, to: *mut u8, distance: usize) {
    let (add, sub) = (|a, b| _mm256_add_epi16(a, b), |a, b| _mm256_sub_epi16(a, b));
    let (two, four) = (|a| _mm256_slli_epi16::<1>(a), |a| _mm256_slli_epi16::<2>(a));
    let six = |a| add(two(a), four(a));
    for half_word in 0..2 * words {
        let (word, half) = (half_word / 2, half_word % 2);
        let column = |x: usize| {
            let g = [0, 1, 2].map(|y| {
                let tap = windows.wrapping_add(((word * TAPS + 3 * y + x) * 2 + half) * LANES);
                // SAFETY: the caller's promise.
                _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(tap.cast()) })
            });
            match PART_NUMBER {
                0 => [six(g[0]), six(g[2])],
                1 => {
                    let ends = add(g[0], g[2]);
                    [add(ends, g[1]), sub(ends, g[1])]
                }
                _ => {
                    let (ends, middle) = (add(g[0], four(g[2])), two(g[1]));
                    [add(ends, middle), sub(ends, middle)]
                }
            }
        };
        let columns = [column(0), column(1), column(2)];
        for row in 0..2 {
            let g = [columns[0][row], columns[1][row], columns[2][row]];
            let (near, far, middle) = (add(g[0], g[2]), add(g[0], four(g[2])), two(g[1]));
            let u = [six(g[0]), add(near, g[1]), sub(near, g[1]), add(far, middle), sub(far, middle), six(g[2])];
            for (x, u) in u.into_iter().enumerate() {
                let to = to.wrapping_add((SIDE * row + x) * distance + half_word * WORD / 2);
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_si256(to.cast(), u) };
            }
        }
    }
}
