//! Registers of x86-64 from arrays and to arrays of the same size, which needs no promise of a caller.

use std::arch::x86_64::*;

use crate::machine::layout::Plain;

/// An array is as large as the register, which the compiler checks.
macro_rules! read {
    ($name:ident, $bytes:literal, $vector:ident, $load:ident, $features:literal) => {
        #[doc = concat!("The ", $bytes, " bytes of an array.")]
        #[target_feature(enable = $features)]
        #[inline]
        pub(crate) fn $name<T: Plain, const N: usize>(from: &[T; N]) -> $vector {
            const { assert!(size_of::<T>() * N == $bytes) };
            // SAFETY: the array is as large as the register, and any bits are integers.
            unsafe { $load(from.as_ptr().cast()) }
        }
    };
}
read!(read128, 16, __m128i, _mm_loadu_si128, "sse2");
read!(read256, 32, __m256i, _mm256_loadu_si256, "avx");
read!(read512, 64, __m512i, _mm512_loadu_si512, "avx512f");

macro_rules! write {
    ($name:ident, $bytes:literal, $vector:ident, $store:ident, $features:literal) => {
        #[doc = concat!("Writes the ", $bytes, " bytes of an array.")]
        #[target_feature(enable = $features)]
        #[inline]
        pub(crate) fn $name<T: Plain, const N: usize>(to: &mut [T; N], value: $vector) {
            const { assert!(size_of::<T>() * N == $bytes) };
            // SAFETY: the array is as large as the register, and its numbers may have any bits.
            unsafe { $store(to.as_mut_ptr().cast(), value) }
        }
    };
}
write!(write256, 32, __m256i, _mm256_storeu_si256, "avx");
write!(write512, 64, __m512i, _mm512_storeu_si512, "avx512f");
