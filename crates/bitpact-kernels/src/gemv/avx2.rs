//! AVX2: `vpmaddubsw` sums two products in 16 bits; eight of those of codes below 16 stay within them (8 * 2 * 15 * 127
//! = 30,480). Codes of 8 bits are multiplied as two of 4.

use std::arch::x86_64::*;

use super::layout::{OUTPUTS, Panels};
use super::scalar_panel::half_to_float;
use super::{TILE, TokenTile};
use crate::machine::isa::Avx2;
use crate::machine::registers::arrays::{read256, write256};

type Line = [u8; 64];

pub(super) fn panel(_: Avx2, p: &Panels, panel: &[u8], tile: &TokenTile, y: &mut [f32; TILE * OUTPUTS]) {
    let lines = panel.as_chunks::<64>().0;
    macro_rules! by_tokens {
        ($bits:literal) => {
            match tile.tokens {
                // SAFETY: the token proves the features.
                1 => unsafe { several::<$bits, 1>(p, lines, tile, y) },
                // SAFETY: as above.
                2 => unsafe { several::<$bits, 2>(p, lines, tile, y) },
                // SAFETY: as above.
                4 => unsafe { several::<$bits, 4>(p, lines, tile, y) },
                // SAFETY: as above.
                8 => unsafe { several::<$bits, 8>(p, lines, tile, y) },
                other => unreachable!("a tile of {other} tokens"),
            }
        };
    }
    match p.bits {
        2 => by_tokens!(2),
        3 => by_tokens!(3),
        4 => by_tokens!(4),
        _ => by_tokens!(8),
    }
}

/// Half of a line: 8 outputs.
#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line, half: usize) -> __m256i {
    read256(&line.as_chunks::<32>().0[half])
}

#[inline]
#[target_feature(enable = "avx2")]
fn and(v: __m256i, mask: u8) -> __m256i {
    _mm256_and_si256(v, _mm256_set1_epi8(mask as i8))
}

#[inline]
#[target_feature(enable = "avx2")]
fn or(a: __m256i, b: __m256i) -> __m256i {
    _mm256_or_si256(a, b)
}

/// The eight registers of codes of 8 outputs of a block; of 8 bits, the `plane`th half of each.
#[inline]
#[target_feature(enable = "avx2")]
fn expand<const B: usize>(block: &[Line; B], half: usize, plane: usize) -> [__m256i; 8] {
    let mut w = [_mm256_setzero_si256(); 8];
    match B {
        8 => {
            for s in 0..8 {
                let v = load(&block[s], half);
                w[s] = and(if plane == 0 { v } else { _mm256_srli_epi16::<4>(v) }, 15);
            }
        }
        4 => {
            for r in 0..4 {
                let v = load(&block[r], half);
                w[2 * r] = and(v, 15);
                w[2 * r + 1] = and(_mm256_srli_epi16::<4>(v), 15);
            }
        }
        2 => {
            for r in 0..2 {
                let v = load(&block[r], half);
                w[4 * r] = and(v, 3);
                w[4 * r + 1] = and(_mm256_srli_epi16::<2>(v), 3);
                w[4 * r + 2] = and(_mm256_srli_epi16::<4>(v), 3);
                w[4 * r + 3] = and(_mm256_srli_epi16::<6>(v), 3);
            }
        }
        _ => {
            let mut third = load(&block[2], half);
            for r in 0..2 {
                let v = load(&block[r], half);
                let low = or(and(v, 0x33), and(third, 0x0c));
                let high = or(and(v, 0xcc), and(third, 0x30));
                w[4 * r] = and(low, 7);
                w[4 * r + 1] = and(_mm256_srli_epi16::<2>(high), 7);
                w[4 * r + 2] = and(_mm256_srli_epi16::<3>(low), 7);
                w[4 * r + 3] = and(_mm256_srli_epi16::<5>(high), 7);
                third = or(_mm256_slli_epi32::<4>(third), _mm256_srli_epi32::<28>(third));
            }
        }
    }
    w
}

#[target_feature(enable = "avx2,fma")]
fn several<const B: usize, const T: usize>(
    p: &Panels,
    lines: &[Line],
    tile: &TokenTile,
    y: &mut [f32; TILE * OUTPUTS],
) {
    let words = tile.words.as_chunks::<T>().0;
    let sums = tile.sums.as_chunks::<T>().0;
    let ones = _mm256_set1_epi16(1);
    let mut total = [[_mm256_setzero_ps(); 2]; T];
    let (mut rest, mut header, blocks) = (lines, lines, p.group / 32);
    for (g, (sums, words)) in sums.iter().zip(words.chunks_exact(p.group / 4)).enumerate() {
        let i = g % p.span();
        if i == 0 {
            (header, rest) = rest.split_at(p.header() / 64);
        }
        let mut a = [[_mm256_setzero_si256(); 2]; T];
        let codes;
        (codes, rest) = rest.split_at(blocks * B);
        for (block, x) in codes.as_chunks::<B>().0.iter().zip(words.as_chunks::<8>().0) {
            for half in 0..2 {
                for plane in 0..if B == 8 { 2 } else { 1 } {
                    let w = expand::<B>(block, half, plane);
                    let mut narrow = [_mm256_setzero_si256(); T];
                    for (w, x) in w.iter().zip(x) {
                        for t in 0..T {
                            let products = _mm256_maddubs_epi16(*w, _mm256_set1_epi32(x[t]));
                            narrow[t] = _mm256_add_epi16(narrow[t], products);
                        }
                    }
                    for t in 0..T {
                        let wide = _mm256_madd_epi16(narrow[t], ones);
                        let wide = if plane == 0 { wide } else { _mm256_slli_epi32::<4>(wide) };
                        a[t][half] = _mm256_add_epi32(a[t][half], wide);
                    }
                }
            }
        }
        let step = steps(header, i);
        for half in 0..2 {
            let step = load_floats(&step, half);
            for t in 0..T {
                let sum = _mm256_add_epi32(a[t][half], start(p, header, i, half, sums[t]));
                total[t][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), step, total[t][half]);
            }
        }
    }
    for t in 0..T {
        let step = _mm256_set1_ps(tile.steps[t]);
        for half in 0..2 {
            let to = y[t * OUTPUTS + 8 * half..].first_chunk_mut::<8>().expect("eight outputs");
            let value = _mm256_mul_ps(total[t][half], step);
            write256(to, _mm256_castps_si256(value));
        }
    }
}

/// Steps of group `i` of a span.
#[inline]
fn steps(header: &[Line], i: usize) -> [f32; OUTPUTS] {
    let halves = header[i / 2].as_chunks::<2>().0;
    std::array::from_fn(|o| half_to_float(u16::from_le_bytes(halves[i % 2 * OUTPUTS + o])))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(values: &[f32; OUTPUTS], half: usize) -> __m256 {
    _mm256_castsi256_ps(read256(&values.as_chunks::<8>().0[half]))
}

/// `-zero * sum` of 8 outputs of group `i` of a span.
#[inline]
#[target_feature(enable = "avx2")]
fn start(p: &Panels, header: &[Line], i: usize, half: usize, sum: i32) -> __m256i {
    if let Some(zero) = p.zero {
        return _mm256_set1_epi32(-i32::from(zero) * sum);
    }
    let zeros = i64::from_le_bytes(header[2].as_chunks::<8>().0[2 * i + half]);
    _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_set1_epi64x(zeros)), _mm256_set1_epi32(-sum))
}
