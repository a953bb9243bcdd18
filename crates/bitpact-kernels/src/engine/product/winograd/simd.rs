//! The registers in which patches, windows and outputs are transformed.

use std::arch::x86_64::*;

use crate::machine::isa::{Avx2, Avx512};

/// The instructions of the transforms.
#[derive(Debug, Clone, Copy)]
pub(super) enum Simd {
    Avx2(Avx2),
    Avx512(Avx512),
}

/// One kind of registers. A value is a proof that the CPU has them, so safe methods are arithmetic and unsafe ones
/// memory accesses.
pub(super) trait Registers: Copy {
    /// A register.
    type Vector: Copy;
    /// 16-bit numbers of a register.
    const WORDS: usize;
    /// 32-bit numbers of a register.
    const SUMS: usize = Self::WORDS / 2;

    /// a + b in 16 bits.
    fn add16(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a - b in 16 bits.
    fn sub16(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// 2 a in 16 bits.
    fn twice16(self, a: Self::Vector) -> Self::Vector;
    /// 4 a in 16 bits.
    fn four_times16(self, a: Self::Vector) -> Self::Vector;
    /// a + b in 32 bits.
    fn add32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a - b in 32 bits.
    fn sub32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// 2 a in 32 bits.
    fn twice32(self, a: Self::Vector) -> Self::Vector;
    /// 4 a in 32 bits.
    fn four_times32(self, a: Self::Vector) -> Self::Vector;
    /// a >> 2 in 32 bits.
    fn fourth32(self, a: Self::Vector) -> Self::Vector;
    /// `(a * factor) >> shift` in 32 bits, the product modulo 2^32.
    fn scale32(self, a: Self::Vector, factor: i32, shift: i32) -> Self::Vector;
    /// Codes as 16-bit numbers.
    ///
    /// # Safety
    /// `at` is valid for reads of `WORDS` bytes.
    unsafe fn codes(self, at: *const u8) -> Self::Vector;
    /// Weights as 16-bit numbers.
    ///
    /// # Safety
    /// `at` is valid for reads of `WORDS` bytes.
    unsafe fn weights(self, at: *const i8) -> Self::Vector;
    /// 32-bit numbers.
    ///
    /// # Safety
    /// `at` is valid for reads of a register.
    unsafe fn load(self, at: *const i32) -> Self::Vector;
    /// A register to memory.
    ///
    /// # Safety
    /// `at` is valid for writes of a register.
    unsafe fn store<T>(self, at: *mut T, value: Self::Vector);
}

macro_rules! registers {
    ($token:ident, $vector:ident, $half:ident, $words:literal,
     $add16:ident $sub16:ident $shift16:ident $add32:ident $sub32:ident $shift32:ident,
     $multiply:ident $right:ident $fourth:ident $set:ident,
     $load_half:ident $codes:ident $weights:ident $load:ident $store:ident) => {
        impl Registers for $token {
            type Vector = $vector;
            const WORDS: usize = $words;

            #[inline(always)]
            fn add16(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $add16(a, b) }
            }

            #[inline(always)]
            fn sub16(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $sub16(a, b) }
            }

            #[inline(always)]
            fn twice16(self, a: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $shift16::<1>(a) }
            }

            #[inline(always)]
            fn four_times16(self, a: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $shift16::<2>(a) }
            }

            #[inline(always)]
            fn add32(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $add32(a, b) }
            }

            #[inline(always)]
            fn sub32(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $sub32(a, b) }
            }

            #[inline(always)]
            fn twice32(self, a: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $shift32::<1>(a) }
            }

            #[inline(always)]
            fn four_times32(self, a: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $shift32::<2>(a) }
            }

            #[inline(always)]
            fn fourth32(self, a: $vector) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $fourth::<2>(a) }
            }

            #[inline(always)]
            fn scale32(self, a: $vector, factor: i32, shift: i32) -> $vector {
                // SAFETY: self proves the features.
                unsafe { $right($multiply(a, $set(factor)), _mm_cvtsi32_si128(shift)) }
            }

            #[inline(always)]
            unsafe fn codes(self, at: *const u8) -> $vector {
                // SAFETY: the caller promises so many bytes.
                let codes: $half = unsafe { $load_half(at.cast()) };
                // SAFETY: self proves the features.
                unsafe { $codes(codes) }
            }

            #[inline(always)]
            unsafe fn weights(self, at: *const i8) -> $vector {
                // SAFETY: the caller promises so many bytes.
                let weights: $half = unsafe { $load_half(at.cast()) };
                // SAFETY: self proves the features.
                unsafe { $weights(weights) }
            }

            #[inline(always)]
            unsafe fn load(self, at: *const i32) -> $vector {
                // SAFETY: self proves the features; the caller promises so many bytes.
                unsafe { $load(at.cast()) }
            }

            #[inline(always)]
            unsafe fn store<T>(self, at: *mut T, value: $vector) {
                // SAFETY: self proves the features; the caller promises so many bytes.
                unsafe { $store(at.cast(), value) }
            }
        }
    };
}

registers!(
    Avx2, __m256i, __m128i, 16,
    _mm256_add_epi16 _mm256_sub_epi16 _mm256_slli_epi16 _mm256_add_epi32 _mm256_sub_epi32 _mm256_slli_epi32,
    _mm256_mullo_epi32 _mm256_sra_epi32 _mm256_srai_epi32 _mm256_set1_epi32,
    _mm_loadu_si128 _mm256_cvtepu8_epi16 _mm256_cvtepi8_epi16 _mm256_loadu_si256 _mm256_storeu_si256
);
registers!(
    Avx512, __m512i, __m256i, 32,
    _mm512_add_epi16 _mm512_sub_epi16 _mm512_slli_epi16 _mm512_add_epi32 _mm512_sub_epi32 _mm512_slli_epi32,
    _mm512_mullo_epi32 _mm512_sra_epi32 _mm512_srai_epi32 _mm512_set1_epi32,
    _mm256_loadu_si256 _mm512_cvtepu8_epi16 _mm512_cvtepi8_epi16 _mm512_loadu_si512 _mm512_storeu_si512
);
