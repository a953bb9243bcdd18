//! Registers of 32 bytes: AVX2 and FMA, and AVX-VNNI's products of bytes.

use std::arch::x86_64::*;

use super::{ByteDots, Registers, arithmetic, memory};
use crate::machine::isa::{Avx2, AvxVnni};

macro_rules! registers {
    ($token:ident) => {
        impl Registers for $token {
            type Ints = __m256i;
            type Floats = __m256;
            const BYTES: usize = 32;
            const COUNT: usize = 16;

            arithmetic! {
                zeros() -> __m256i = _mm256_setzero_si256();
                splat16(value: i16) -> __m256i = _mm256_set1_epi16(value);
                splat32(value: i32) -> __m256i = _mm256_set1_epi32(value);
                and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
                add8(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi8(a, b);
                add16(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi16(a, b);
                sub16(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi16(a, b);
                twice16(a: __m256i) -> __m256i = _mm256_slli_epi16::<1>(a);
                four_times16(a: __m256i) -> __m256i = _mm256_slli_epi16::<2>(a);
                upper_bytes(a: __m256i) -> __m256i = _mm256_srli_epi16::<8>(a);
                raised_bytes(a: __m256i) -> __m256i = _mm256_slli_epi16::<8>(a);
                add32(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
                sub32(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
                multiply32(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
                twice32(a: __m256i) -> __m256i = _mm256_slli_epi32::<1>(a);
                four_times32(a: __m256i) -> __m256i = _mm256_slli_epi32::<2>(a);
                fourth32(a: __m256i) -> __m256i = _mm256_srai_epi32::<2>(a);
                shift_right32(a: __m256i, shift: i32) -> __m256i = _mm256_sra_epi32(a, _mm_cvtsi32_si128(shift));
                multiply_bytes(x: __m256i, w: __m256i) -> __m256i = _mm256_maddubs_epi16(x, w);
                multiply_words(x: __m256i, w: __m256i) -> __m256i = _mm256_madd_epi16(x, w);
                add_words(sums: __m256i, x: __m256i, w: __m256i) -> __m256i =
                    _mm256_add_epi32(sums, _mm256_madd_epi16(x, w));
                look_up(table: __m256i, index: __m256i) -> __m256i = _mm256_shuffle_epi8(table, index);
                first_words(a: __m256i) -> __m256i = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
                last_words(a: __m256i) -> __m256i = _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(a));
                zeros_f32() -> __m256 = _mm256_setzero_ps();
                splat_f32(value: f32) -> __m256 = _mm256_set1_ps(value);
                add_f32(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
                multiply_add_f32(sums: __m256, x: __m256, w: __m256) -> __m256 = _mm256_fmadd_ps(x, w, sums);
            }

            memory! {
                load<T>(at: *const T) -> __m256i = _mm256_loadu_si256(at.cast());
                store<T>(at: *mut T, value: __m256i) = _mm256_storeu_si256(at.cast(), value);
                splat_sixteen(at: *const u8) -> __m256i = _mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast()));
                load_codes(at: *const u8) -> __m256i = _mm256_cvtepu8_epi16(_mm_loadu_si128(at.cast()));
                load_weights(at: *const i8) -> __m256i = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast()));
                load_f32(at: *const f32) -> __m256 = _mm256_loadu_ps(at);
                store_f32(at: *mut f32, value: __m256) = _mm256_storeu_ps(at, value);
            }
        }
    };
}
registers!(Avx2);
registers!(AvxVnni);

impl ByteDots for AvxVnni {
    arithmetic! {
        add_bytes(sums: __m256i, x: __m256i, w: __m256i) -> __m256i = _mm256_dpbusd_avx_epi32(sums, x, w);
    }
}
