//! AVX2 kernels of the 8-bit weight gradient: 16 output channels a word in two registers.

use std::arch::x86_64::*;

use super::weight_grad::{TILE, Words};
use crate::machine::isa::{Avx2, AvxVnni};
use crate::machine::registers::arrays::{read256, write256};
use crate::train::conv::LANES;

/// Channels of x whose sums are in registers at once.
const ROWS: usize = 4;

/// Largest code whose products with -127..127 the 16-bit sums of pairs hold: 2 * 127 * 127 < 2^15.
pub(super) const LARGEST_NARROW: u8 = 127;

/// tile += the products, by `vpmaddubsw` with sums of pairs kept in 16 bits for as many words as codes up to `largest`
/// allow.
///
/// # Panics
/// If a length is wrong or `largest` is 0 or above [`LARGEST_NARROW`].
pub(super) fn weights_narrow(isa: Avx2, w: &Words, largest: u8, tile: &mut [i32; TILE]) {
    w.check();
    assert!((1..=LARGEST_NARROW).contains(&largest), "codes up to {largest}");
    let _ = isa;
    // SAFETY: the token proves the features, and the lengths are those checked.
    unsafe { narrow_4x16(w, i16::MAX as usize / (2 * 127 * usize::from(largest)), tile) }
}

/// # Safety
/// The lengths are as [`Words::check`] says.
#[target_feature(enable = "avx2,fma")]
unsafe fn narrow_4x16(w: &Words, flush: usize, tile: &mut [i32; TILE]) {
    let ones = _mm256_set1_epi16(1);
    for (quarter, out) in tile.as_chunks_mut::<{ ROWS * LANES }>().0.iter_mut().enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        let mut short = sums;
        // Words that the short sums still hold.
        let mut room = flush;
        for image in 0..w.images {
            let x = w.x.as_ptr().wrapping_add(image * w.apart[0] + quarter * ROWS * w.channel);
            let mut word = 0;
            while word < w.words {
                let end = (word + room).min(w.words);
                room -= end - word;
                while word < end {
                    // SAFETY: the caller's promise.
                    let d = unsafe { gradient(w, image, word) };
                    for c in 0..ROWS {
                        // SAFETY: the caller's promise.
                        let x = unsafe { code_word(x.wrapping_add(c * w.channel + 4 * word)) };
                        for k in 0..2 {
                            short[c][k] = _mm256_add_epi16(short[c][k], _mm256_maddubs_epi16(x, d[k]));
                        }
                    }
                    word += 1;
                }
                if room == 0 || (image + 1 == w.images && word == w.words) {
                    room = flush;
                    for c in 0..ROWS {
                        for k in 0..2 {
                            sums[c][k] = _mm256_add_epi32(sums[c][k], _mm256_madd_epi16(short[c][k], ones));
                            short[c][k] = _mm256_setzero_si256();
                        }
                    }
                }
            }
        }
        add(out, &sums);
    }
}

/// tile += the products of codes up to 255, both factors widened to 16 bits.
///
/// # Panics
/// If a length is wrong.
pub(super) fn weights_wide(isa: Avx2, w: &Words, tile: &mut [i32; TILE]) {
    w.check();
    let _ = isa;
    // SAFETY: the token proves the features, and the lengths are those checked.
    unsafe { wide_4x16(w, tile) }
}

/// # Safety
/// The lengths are as [`Words::check`] says.
#[target_feature(enable = "avx2,fma")]
unsafe fn wide_4x16(w: &Words, tile: &mut [i32; TILE]) {
    let low = _mm256_set1_epi16(0xff);
    for (quarter, out) in tile.as_chunks_mut::<{ ROWS * LANES }>().0.iter_mut().enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (image, word) in images_and_words(w) {
            let x = w.x.as_ptr().wrapping_add(image * w.apart[0] + quarter * ROWS * w.channel);
            // SAFETY: the caller's promise.
            let d = unsafe { gradient(w, image, word) };
            // Pixels 0 and 2 of every word, then 1 and 3.
            let even = d.map(|d| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(d)));
            let odd = d.map(|d| _mm256_srai_epi16::<8>(d));
            for c in 0..ROWS {
                // SAFETY: the caller's promise.
                let x = unsafe { code_word(x.wrapping_add(c * w.channel + 4 * word)) };
                let (x_even, x_odd) = (_mm256_and_si256(x, low), _mm256_srli_epi16::<8>(x));
                for k in 0..2 {
                    let pairs = _mm256_add_epi32(_mm256_madd_epi16(x_even, even[k]), _mm256_madd_epi16(x_odd, odd[k]));
                    sums[c][k] = _mm256_add_epi32(sums[c][k], pairs);
                }
            }
        }
        add(out, &sums);
    }
}

/// tile += the products, by AVX-VNNI's `vpdpbusd`.
///
/// # Panics
/// If a length is wrong.
pub(super) fn weights_vnni(isa: AvxVnni, w: &Words, tile: &mut [i32; TILE]) {
    w.check();
    let _ = isa;
    // SAFETY: the token proves the features, and the lengths are those checked.
    unsafe { vnni_4x16(w, tile) }
}

/// # Safety
/// The lengths are as [`Words::check`] says.
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn vnni_4x16(w: &Words, tile: &mut [i32; TILE]) {
    for (quarter, out) in tile.as_chunks_mut::<{ ROWS * LANES }>().0.iter_mut().enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (image, word) in images_and_words(w) {
            let x = w.x.as_ptr().wrapping_add(image * w.apart[0] + quarter * ROWS * w.channel);
            // SAFETY: the caller's promise.
            let d = unsafe { gradient(w, image, word) };
            for c in 0..ROWS {
                // SAFETY: the caller's promise.
                let x = unsafe { code_word(x.wrapping_add(c * w.channel + 4 * word)) };
                for k in 0..2 {
                    sums[c][k] = _mm256_dpbusd_avx_epi32(sums[c][k], x, d[k]);
                }
            }
        }
        add(out, &sums);
    }
}

fn images_and_words(w: &Words) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (images, words) = (w.images, w.words);
    (0..images).flat_map(move |image| (0..words).map(move |word| (image, word)))
}

/// One word of the gradient of 16 channels.
///
/// # Safety
/// Word `word` of image `image` lies within the gradient.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn gradient(w: &Words, image: usize, word: usize) -> [__m256i; 2] {
    let at = w.dz.as_ptr().wrapping_add(image * w.apart[1] + word * w.word);
    // SAFETY: the caller's promise; a word of 16 channels has 64 bytes.
    let first = unsafe { _mm256_loadu_si256(at.cast()) };
    // SAFETY: as above.
    let second = unsafe { _mm256_loadu_si256(at.wrapping_add(32).cast()) };
    [first, second]
}

/// One word of codes in every lane.
///
/// # Safety
/// 4 bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn code_word(x: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let word = unsafe { x.cast::<i32>().read_unaligned() };
    _mm256_set1_epi32(word)
}

/// Adds the sums of four channels of x to their rows.
#[inline]
#[target_feature(enable = "avx2")]
fn add(out: &mut [i32; ROWS * LANES], sums: &[[__m256i; 2]; ROWS]) {
    for (out, sum) in out.as_chunks_mut::<8>().0.iter_mut().zip(sums.as_flattened()) {
        write256(out, _mm256_add_epi32(read256(out), *sum));
    }
}
