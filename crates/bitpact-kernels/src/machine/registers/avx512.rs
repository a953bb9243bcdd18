//! Registers of 64 bytes: AVX-512 with VNNI, and the products of bfloat16.

use std::arch::x86_64::*;

use super::{ByteDots, Registers, arithmetic, memory};
use crate::machine::isa::{Avx512, Bf16};

impl Registers for Avx512 {
    type Ints = __m512i;
    type Floats = __m512;
    const BYTES: usize = 64;
    const COUNT: usize = 32;

    arithmetic! {
        zeros() -> __m512i = _mm512_setzero_si512();
        splat16(value: i16) -> __m512i = _mm512_set1_epi16(value);
        splat32(value: i32) -> __m512i = _mm512_set1_epi32(value);
        and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        add8(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi8(a, b);
        add16(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi16(a, b);
        sub16(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi16(a, b);
        twice16(a: __m512i) -> __m512i = _mm512_slli_epi16::<1>(a);
        four_times16(a: __m512i) -> __m512i = _mm512_slli_epi16::<2>(a);
        upper_bytes(a: __m512i) -> __m512i = _mm512_srli_epi16::<8>(a);
        raised_bytes(a: __m512i) -> __m512i = _mm512_slli_epi16::<8>(a);
        add32(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        sub32(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        multiply32(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        twice32(a: __m512i) -> __m512i = _mm512_slli_epi32::<1>(a);
        four_times32(a: __m512i) -> __m512i = _mm512_slli_epi32::<2>(a);
        fourth32(a: __m512i) -> __m512i = _mm512_srai_epi32::<2>(a);
        shift_right32(a: __m512i, shift: i32) -> __m512i = _mm512_sra_epi32(a, _mm_cvtsi32_si128(shift));
        multiply_bytes(x: __m512i, w: __m512i) -> __m512i = _mm512_maddubs_epi16(x, w);
        multiply_words(x: __m512i, w: __m512i) -> __m512i = _mm512_madd_epi16(x, w);
        add_words(sums: __m512i, x: __m512i, w: __m512i) -> __m512i = _mm512_dpwssd_epi32(sums, x, w);
        look_up(table: __m512i, index: __m512i) -> __m512i = _mm512_shuffle_epi8(table, index);
        first_words(a: __m512i) -> __m512i = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(a));
        last_words(a: __m512i) -> __m512i = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(a));
        zeros_f32() -> __m512 = _mm512_setzero_ps();
        splat_f32(value: f32) -> __m512 = _mm512_set1_ps(value);
        add_f32(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        multiply_add_f32(sums: __m512, x: __m512, w: __m512) -> __m512 = _mm512_fmadd_ps(x, w, sums);
    }

    memory! {
        load<T>(at: *const T) -> __m512i = _mm512_loadu_si512(at.cast());
        store<T>(at: *mut T, value: __m512i) = _mm512_storeu_si512(at.cast(), value);
        splat_sixteen(at: *const u8) -> __m512i = _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast()));
        load_codes(at: *const u8) -> __m512i = _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.cast()));
        load_weights(at: *const i8) -> __m512i = _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast()));
        load_f32(at: *const f32) -> __m512 = _mm512_loadu_ps(at);
        store_f32(at: *mut f32, value: __m512) = _mm512_storeu_ps(at, value);
    }
}

impl ByteDots for Avx512 {
    arithmetic! {
        add_bytes(sums: __m512i, x: __m512i, w: __m512i) -> __m512i = _mm512_dpbusd_epi32(sums, x, w);
    }
}

impl Bf16 {
    /// `sums` + the products of the two bfloat16 in `x` with the two in `w`.
    #[inline(always)]
    pub(crate) fn add_pairs(self, sums: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: the types have the same size and no invalid bit pattern.
        let [x, w]: [__m512bh; 2] = unsafe { std::mem::transmute([x, w]) };
        // SAFETY: `self` exists only where the CPU has the instruction.
        unsafe { _mm512_dpbf16_ps(sums, x, w) }
    }
}
