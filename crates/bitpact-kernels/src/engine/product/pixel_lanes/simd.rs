//! Planes of words and sums of pixels on AVX2.

use std::arch::x86_64::*;

use super::BLOCK;
use super::pack::{GROUP, List, Pair, Single};
use crate::machine::isa::Avx2;

/// Pixels of a register.
pub(super) const LANES: usize = 8;

/// Most registers of a tile: what the sixteen have room for, for each channel of a group, beside codes and products.
pub(super) const TILE: usize = 4;

/// Channels that are spread together.
pub(super) const CHANNELS: usize = 16;

/// Puts the words of a row of pixels of `cs` channels into their planes: word k of pixel q, which begins at `from[q *
/// step]`, at `to[k * plane + 4 * q]`.
///
/// # Panics
/// If a pixel leaves `from` or a plane `to`.
pub(super) fn spread(_simd: Avx2, from: &[u8], (step, cs): (usize, usize), pixels: usize, to: &mut [u8], plane: usize) {
    assert!(cs.is_multiple_of(CHANNELS) && (pixels - 1) * step + cs <= from.len(), "pixels of a row");
    assert!((cs / 4 - 1) * plane + 4 * pixels <= to.len(), "planes of a row");
    if pixels >= LANES {
        // SAFETY: the token proves AVX2; the lengths were checked.
        return unsafe { spread8(from.as_ptr(), step, pixels, cs / CHANNELS, to.as_mut_ptr(), plane) };
    }
    for (q, pixel) in from.chunks(step).take(pixels).enumerate() {
        for (k, word) in pixel[..cs].as_chunks::<4>().0.iter().enumerate() {
            to[k * plane + 4 * q..][..4].copy_from_slice(word);
        }
    }
}

/// [`spread`] of `groups` times sixteen channels.
///
/// # Safety
/// The CPU has AVX2; there are at least eight pixels, readable and writable.
#[target_feature(enable = "avx2,fma")]
unsafe fn spread8(from: *const u8, step: usize, pixels: usize, groups: usize, to: *mut u8, plane: usize) {
    for q in (0..pixels).step_by(LANES) {
        // The last eight end with the row.
        let q = q.min(pixels - LANES);
        for group in 0..groups {
            let half = |p: usize| from.wrapping_add((q + p) * step + CHANNELS * group);
            let rows = [0, 1, 2, 3].map(|p| {
                // SAFETY: sixteen bytes of a pixel.
                let low = unsafe { _mm_loadu_si128(half(p).cast()) };
                // SAFETY: as above.
                let high = unsafe { _mm_loadu_si128(half(p + 4).cast()) };
                _mm256_set_m128i(high, low)
            });
            let [a, b] = [0, 2].map(|p| _mm256_unpacklo_epi32(rows[p], rows[p + 1]));
            let [c, d] = [0, 2].map(|p| _mm256_unpackhi_epi32(rows[p], rows[p + 1]));
            let words = [
                _mm256_unpacklo_epi64(a, b),
                _mm256_unpackhi_epi64(a, b),
                _mm256_unpacklo_epi64(c, d),
                _mm256_unpackhi_epi64(c, d),
            ];
            for (k, word) in words.into_iter().enumerate() {
                let to = to.wrapping_add((4 * group + k) * plane + 4 * q);
                // SAFETY: eight pixels of a plane.
                unsafe { _mm256_storeu_si256(to.cast(), word) };
            }
        }
    }
}

/// Sums of one channel for the pixels of a tile.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Channel([[i32; LANES]; TILE]);

/// Sums of a block of channels for the pixels of a tile.
#[derive(Debug, Default)]
pub(super) struct Sums([Channel; BLOCK]);

impl Sums {
    /// By groups of channels.
    pub(super) fn groups(&mut self) -> &mut [[Channel; GROUP]] {
        self.0.as_chunks_mut().0
    }

    /// Writes the sums of so many pixels to `acc[pixel * stride + channel]`.
    ///
    /// # Panics
    /// If `acc` is too short.
    pub(super) fn store(&self, _simd: Avx2, pixels: usize, acc: &mut [i32], stride: usize) {
        assert!(pixels <= TILE * LANES && (pixels - 1) * stride + BLOCK <= acc.len(), "accumulators of a tile");
        // SAFETY: the token proves AVX2; the length was checked.
        unsafe { store(&self.0, pixels, acc.as_mut_ptr(), stride) }
    }
}

/// Eight registers of eight numbers, rows for columns.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    let low = [0, 2, 4, 6].map(|r| _mm256_unpacklo_epi32(rows[r], rows[r + 1]));
    let high = [0, 2, 4, 6].map(|r| _mm256_unpackhi_epi32(rows[r], rows[r + 1]));
    // Four numbers of columns j and j + 4 of rows 0 to 3, or 4 to 7.
    let quarter = |r: usize| {
        [
            _mm256_unpacklo_epi64(low[r], low[r + 1]),
            _mm256_unpackhi_epi64(low[r], low[r + 1]),
            _mm256_unpacklo_epi64(high[r], high[r + 1]),
            _mm256_unpackhi_epi64(high[r], high[r + 1]),
        ]
    };
    let (top, bottom) = (quarter(0), quarter(2));
    std::array::from_fn(|j| {
        if j < 4 {
            _mm256_permute2x128_si256::<0x20>(top[j], bottom[j])
        } else {
            _mm256_permute2x128_si256::<0x31>(top[j - 4], bottom[j - 4])
        }
    })
}

/// [`Sums::store`].
///
/// # Safety
/// The CPU has AVX2; `acc` is valid for writes of a block of numbers at each of so many pixels.
#[target_feature(enable = "avx2,fma")]
unsafe fn store(sums: &[Channel; BLOCK], pixels: usize, acc: *mut i32, stride: usize) {
    for first in (0..pixels).step_by(LANES) {
        for half in [0, BLOCK / 2] {
            let rows = std::array::from_fn(|c| {
                // SAFETY: eight numbers are readable.
                unsafe { _mm256_load_si256(sums[half + c].0[first / LANES].as_ptr().cast()) }
            });
            for (p, column) in transposed(rows).into_iter().enumerate().take(pixels - first) {
                let to = acc.wrapping_add((first + p) * stride + half);
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_si256(to.cast(), column) };
            }
        }
    }
}

/// Sums of a group of channels over the words of a list, for `registers` times eight pixels from `planes` on, added to
/// `sums` if `is_added`.
///
/// # Safety
/// The words of the list are in `table`; from each of its distances on, so many pixels of `planes` are readable.
///
/// # Panics
/// If there is no such tile.
pub(super) unsafe fn group(
    _simd: Avx2,
    planes: *const u8,
    table: &[[u8; 4]],
    list: List<'_>,
    registers: usize,
    is_added: bool,
    sums: &mut [Channel; GROUP],
) {
    match registers {
        // SAFETY: the token proves AVX2; the rest is the caller's promise.
        1 => unsafe { pair_tile::<1>(planes, table, list, is_added, sums) },
        // SAFETY: as above.
        2 => unsafe { pair_tile::<2>(planes, table, list, is_added, sums) },
        // SAFETY: as above.
        3 => unsafe { pair_tile::<3>(planes, table, list, is_added, sums) },
        // SAFETY: as above.
        4 => unsafe { pair_tile::<4>(planes, table, list, is_added, sums) },
        _ => panic!("no tile of {registers} registers"),
    }
}

/// [`group`] with `N` registers.
///
/// # Safety
/// As for [`group`]; the CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
unsafe fn pair_tile<const N: usize>(
    planes: *const u8,
    table: &[[u8; 4]],
    list: List<'_>,
    is_added: bool,
    sums: &mut [Channel; GROUP],
) {
    let word = |at: u8| {
        // SAFETY: the caller's promise.
        let distance = unsafe { *table.get_unchecked(usize::from(at)) };
        planes.wrapping_add(u32::from_ne_bytes(distance) as usize)
    };
    // SAFETY: the caller's promise.
    let codes = |x: *const u8, n: usize| unsafe { _mm256_loadu_si256(x.wrapping_add(4 * LANES * n).cast()) };
    // One load each: taken as an array, they come in larger numbers that have to be taken apart.
    // SAFETY: four bytes are readable.
    let broadcast = |weights: &[i8; 4]| _mm256_set1_epi32(unsafe { weights.as_ptr().cast::<i32>().read_unaligned() });
    let ones = _mm256_set1_epi16(1);
    let mut totals = [[_mm256_setzero_si256(); N]; GROUP];
    if is_added {
        for (totals, sums) in totals.iter_mut().zip(&*sums) {
            for (total, sum) in totals.iter_mut().zip(&sums.0) {
                // SAFETY: eight numbers are readable.
                *total = unsafe { _mm256_load_si256(sum.as_ptr().cast()) };
            }
        }
    }
    for Pair { words, weights } in list.pairs {
        let x = words.map(word);
        let w = weights.each_ref().map(|weights| weights.each_ref().map(broadcast));
        for n in 0..N {
            let x = x.map(|x| codes(x, n));
            for c in 0..GROUP {
                let [a, b] = [0, 1].map(|i| _mm256_maddubs_epi16(x[i], w[i][c]));
                totals[c][n] = _mm256_add_epi32(totals[c][n], _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
            }
        }
    }
    for Single { word: at, weights } in list.singles {
        let (x, w) = (word(*at), weights.each_ref().map(broadcast));
        for n in 0..N {
            let x = codes(x, n);
            for c in 0..GROUP {
                let products = _mm256_madd_epi16(_mm256_maddubs_epi16(x, w[c]), ones);
                totals[c][n] = _mm256_add_epi32(totals[c][n], products);
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(totals) {
        for (to, total) in sums.0.iter_mut().zip(totals) {
            // SAFETY: eight numbers are writable.
            unsafe { _mm256_store_si256(to.as_mut_ptr().cast(), total) };
        }
    }
}
