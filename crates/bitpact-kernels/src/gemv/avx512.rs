//! AVX-512 VNNI: a code is the unsigned operand of `vpdpbusd`, four activations of a token, repeated, the signed one.

use std::arch::x86_64::*;

use super::layout::{OUTPUTS, Panels};
use super::{TILE, TokenTile};
use crate::machine::isa::Avx512;
use crate::machine::registers::arrays::{read128, read256, read512, write512};

/// 64 bytes.
type Line = [u8; 64];

pub(super) fn panel(_: Avx512, p: &Panels, panel: &[u8], tile: &TokenTile, y: &mut [f32; TILE * OUTPUTS]) {
    let lines = panel.as_chunks::<64>().0;
    macro_rules! by_tokens {
        ($bits:literal) => {
            match tile.tokens {
                // SAFETY: the token proves the features.
                1 => unsafe { one::<$bits>(p, lines, tile, y) },
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

#[inline]
#[target_feature(enable = "avx512f")]
fn bytes(value: u8) -> __m512i {
    _mm512_set1_epi8(value as i8)
}

/// Bits of `a` where `mask` is set, of `b` elsewhere.
#[inline]
#[target_feature(enable = "avx512f")]
fn select(mask: u8, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(bytes(mask), a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn and(v: __m512i, mask: u8) -> __m512i {
    _mm512_and_si512(v, bytes(mask))
}

/// Steps of group `i` of a span.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn steps(header: &[Line], i: usize) -> __m512 {
    let half: &[[u8; 32]] = header[i / 2].as_chunks::<32>().0;
    _mm512_cvtph_ps(read256(&half[i % 2]))
}

/// `-zero * sum` of group `i` of a span.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn start(p: &Panels, header: &[Line], i: usize, sum: i32) -> __m512i {
    if let Some(zero) = p.zero {
        return _mm512_set1_epi32(-i32::from(zero) * sum);
    }
    let zeros: &[[u8; 16]] = header[2].as_chunks::<16>().0;
    _mm512_mullo_epi32(_mm512_cvtepu8_epi32(read128(&zeros[i])), _mm512_set1_epi32(-sum))
}

/// The eight registers of codes of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn expand<const B: usize>(block: &[Line; B]) -> [__m512i; 8] {
    let mut w = [_mm512_setzero_si512(); 8];
    match B {
        8 => (0..8).for_each(|s| w[s] = read512(&block[s])),
        4 => {
            for r in 0..4 {
                let v = read512(&block[r]);
                w[2 * r] = and(v, 15);
                w[2 * r + 1] = and(_mm512_srli_epi16::<4>(v), 15);
            }
        }
        2 => {
            for r in 0..2 {
                let v = read512(&block[r]);
                w[4 * r] = and(v, 3);
                w[4 * r + 1] = and(_mm512_srli_epi16::<2>(v), 3);
                w[4 * r + 2] = and(_mm512_srli_epi16::<4>(v), 3);
                w[4 * r + 3] = and(_mm512_srli_epi16::<6>(v), 3);
            }
        }
        _ => {
            let mut third = read512(&block[2]);
            for r in 0..2 {
                let v = read512(&block[r]);
                let (low, high) = (select(0x33, v, third), select(0xcc, v, third));
                w[4 * r] = and(low, 7);
                w[4 * r + 1] = and(_mm512_srli_epi16::<2>(high), 7);
                w[4 * r + 2] = and(_mm512_srli_epi16::<3>(low), 7);
                w[4 * r + 3] = and(_mm512_srli_epi16::<5>(high), 7);
                third = _mm512_rol_epi32::<4>(third);
            }
        }
    }
    w
}

/// Two to eight tokens: codes are expanded once and multiplied for every token.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn several<const B: usize, const T: usize>(
    p: &Panels,
    lines: &[Line],
    tile: &TokenTile,
    y: &mut [f32; TILE * OUTPUTS],
) {
    let words = tile.words.as_chunks::<T>().0;
    let sums = tile.sums.as_chunks::<T>().0;
    let mut total = [_mm512_setzero_ps(); T];
    let (mut rest, mut header, blocks) = (lines, lines, p.group / 32);
    for (g, (sums, words)) in sums.iter().zip(words.chunks_exact(p.group / 4)).enumerate() {
        let i = g % p.span();
        if i == 0 {
            (header, rest) = rest.split_at(p.header() / 64);
        }
        let mut a = [_mm512_setzero_si512(); T];
        (0..T).for_each(|t| a[t] = start(p, header, i, sums[t]));
        let codes;
        (codes, rest) = rest.split_at(blocks * B);
        for (block, x) in codes.as_chunks::<B>().0.iter().zip(words.as_chunks::<8>().0) {
            if T >= 4 {
                // From four tokens on the multiplications leave memory idle for long enough to lose its pace.
                block.iter().for_each(|line| _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(2048).cast()));
            }
            let w = expand::<B>(block);
            for (w, x) in w.iter().zip(x) {
                for t in 0..T {
                    a[t] = _mm512_dpbusd_epi32(a[t], *w, _mm512_set1_epi32(x[t]));
                }
            }
        }
        let step = steps(header, i);
        (0..T).for_each(|t| total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(a[t]), step, total[t]));
    }
    for t in 0..T {
        store(&mut y[t * OUTPUTS..], _mm512_mul_ps(total[t], _mm512_set1_ps(tile.steps[t])));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [f32], value: __m512) {
    write512::<f32, 16>(to.first_chunk_mut().expect("sixteen outputs"), _mm512_castps_si512(value));
}

/// One token: codes are masked where they stand, not shifted; sums of codes that stand higher are shifted down,
/// exactly, once a group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn one<const B: usize>(p: &Panels, lines: &[Line], tile: &TokenTile, y: &mut [f32; TILE * OUTPUTS]) {
    let words = tile.words.as_chunks::<8>().0;
    let mut total = _mm512_setzero_ps();
    let (mut rest, mut header, blocks) = (lines, lines, p.group / 32);
    for (g, (&sum, words)) in tile.sums.iter().zip(words.chunks_exact(blocks)).enumerate() {
        let i = g % p.span();
        if i == 0 {
            (header, rest) = rest.split_at(p.header() / 64);
        }
        let mut a = [_mm512_setzero_si512(); 4];
        let codes;
        (codes, rest) = rest.split_at(blocks * B);
        for (block, x) in codes.as_chunks::<B>().0.iter().zip(words) {
            let mut third = read512(&block[B - 1]);
            for r in 0..8 / per_register(B) {
                let v = read512(&block[r]);
                match B {
                    8 => dot(&mut a[r % 4], v, x[r]),
                    4 => {
                        dot(&mut a[r % 2], and(v, 0x0f), x[2 * r]);
                        dot(&mut a[2 + r % 2], and(v, 0xf0), x[2 * r + 1]);
                    }
                    2 => {
                        dot(&mut a[0], and(v, 0x03), x[4 * r]);
                        dot(&mut a[1], and(v, 0x0c), x[4 * r + 1]);
                        dot(&mut a[2], and(v, 0x30), x[4 * r + 2]);
                        dot(&mut a[3], and(v, 0xc0), x[4 * r + 3]);
                    }
                    _ => {
                        let (low, high) = (select(0x33, v, third), select(0xcc, v, third));
                        dot(&mut a[0], and(low, 0x07), x[4 * r]);
                        dot(&mut a[1], and(high, 0x1c), x[4 * r + 1]);
                        dot(&mut a[2], and(low, 0x38), x[4 * r + 2]);
                        dot(&mut a[3], and(high, 0xe0), x[4 * r + 3]);
                        third = _mm512_rol_epi32::<4>(third);
                    }
                }
            }
        }
        let add = |a, b| _mm512_add_epi32(a, b);
        let sum = add(
            start(p, header, i, sum),
            match B {
                8 => add(add(a[0], a[1]), add(a[2], a[3])),
                4 => add(add(a[0], a[1]), _mm512_srai_epi32::<4>(add(a[2], a[3]))),
                2 => add(
                    add(a[0], _mm512_srai_epi32::<2>(a[1])),
                    add(_mm512_srai_epi32::<4>(a[2]), _mm512_srai_epi32::<6>(a[3])),
                ),
                _ => add(
                    add(a[0], _mm512_srai_epi32::<2>(a[1])),
                    add(_mm512_srai_epi32::<3>(a[2]), _mm512_srai_epi32::<5>(a[3])),
                ),
            },
        );
        total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), steps(header, i), total);
    }
    store(y, _mm512_mul_ps(total, _mm512_set1_ps(tile.steps[0])));
}

/// Registers of codes that stand in one of memory.
const fn per_register(bits: usize) -> usize {
    match bits {
        8 => 1,
        4 => 2,
        _ => 4,
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(sums: &mut __m512i, codes: __m512i, word: i32) {
    *sums = _mm512_dpbusd_epi32(*sums, codes, _mm512_set1_epi32(word));
}
