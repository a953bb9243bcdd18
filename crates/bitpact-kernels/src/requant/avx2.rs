//! Rows of the integer step on AVX2: 16 channels a pixel in two registers of 32-bit integers or four of float64.

use std::arch::x86_64::*;

use super::body::{Block, Constants};
use super::{BLOCK, Row};

/// Two registers of eight 32-bit numbers from 16 of them.
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn load16(from: &[i32; BLOCK]) -> [__m256i; 2] {
    let at: *const i32 = from.as_ptr();
    // SAFETY: 16 numbers are readable.
    let low = unsafe { _mm256_loadu_si256(at.cast()) };
    // SAFETY: as above.
    let high = unsafe { _mm256_loadu_si256(at.wrapping_add(8).cast()) };
    [low, high]
}

/// Two registers of eight 32-bit numbers from 16 codes.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn widen16(from: &[u8; BLOCK]) -> [__m256i; 2] {
    // SAFETY: 16 codes are readable.
    let codes = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
    [_mm256_cvtepu8_epi32(codes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(codes))]
}

/// 16 numbers of `slice` from `at`.
///
/// # Safety
/// They are inside the slice.
#[inline(always)]
unsafe fn sixteen<T>(slice: &[T], at: usize) -> &[T; BLOCK] {
    // SAFETY: the caller's promise.
    unsafe { &*slice.as_ptr().wrapping_add(at).cast::<[T; BLOCK]>() }
}

/// Stores 16 numbers in 0..=255 as codes.
///
/// # Safety
/// `y` is valid for writes of 16 bytes.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn store16(y: *mut u8, [low, high]: [__m256i; 2], mask: &[u8; BLOCK]) {
    // Packing works on halves of registers: the four quarters come out as 0 2 1 3.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
    let codes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
    // SAFETY: 16 bytes are readable.
    let mask = unsafe { _mm_loadu_si128(mask.as_ptr().cast()) };
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(y.cast(), _mm_and_si128(codes, mask)) };
}

/// [`super::body::row`] in 32 bits.
///
/// # Safety
/// The CPU has AVX2 and FMA; the slices of `row` are as long as its strides and pixels say, its `y` is valid for writes.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row_i32(constants: &Constants<i32>, block: usize, row: Row<'_>) {
    let Block { mul, mul2, res_mul, add, mask } = &constants.blocks[block];
    let (mul, mul2, res_mul, add) = (load16(mul), load16(mul2), load16(res_mul), load16(add));
    let shift = _mm_cvtsi32_si128(constants.shift as i32);
    let (lo, hi) = (_mm256_set1_epi32(constants.lo), _mm256_set1_epi32(constants.hi));
    let multiply_add = |sums: [__m256i; 2], x: [__m256i; 2], mul: [__m256i; 2]| {
        [0, 1].map(|v| _mm256_add_epi32(sums[v], _mm256_mullo_epi32(x[v], mul[v])))
    };
    for pixel in 0..row.pixels {
        // SAFETY: the caller's promise.
        let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
        let mut sums = multiply_add(add, load16(acc), mul);
        if !row.acc2.is_empty() {
            // SAFETY: the caller's promise.
            let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
            sums = multiply_add(sums, load16(acc2), mul2);
        }
        if !row.res.is_empty() {
            // SAFETY: the caller's promise.
            let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
            sums = multiply_add(sums, widen16(res), res_mul);
        }
        let codes = sums.map(|sum| _mm256_min_epi32(_mm256_max_epi32(_mm256_sra_epi32(sum, shift), lo), hi));
        // SAFETY: the caller's promise.
        unsafe { store16(row.y.wrapping_add(pixel * row.y_stride), codes, mask) };
    }
}

/// [`super::body::row`] in float64.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row_f64(constants: &Constants<f64>, block: usize, row: Row<'_>) {
    let Block { mul, mul2, res_mul, add, mask } = &constants.blocks[block];
    let quarter = |from: &[f64; BLOCK], v: usize| {
        // SAFETY: v is below 4.
        unsafe { _mm256_loadu_pd(from.as_ptr().wrapping_add(4 * v)) }
    };
    // 2^-shift; dropping the fraction of a number that is at least lo >= 0 is rounding down.
    let scale = _mm256_set1_pd(f64::from_bits(u64::from(1023 - constants.shift) << 52));
    let (lo, hi) = (_mm256_set1_pd(constants.lo), _mm256_set1_pd(constants.hi));
    // Products and sums are integers below 2^53, so that fused or not makes no difference.
    let multiply_add = |sums: [__m256d; 4], x: [__m256i; 2], mul: &[f64; BLOCK]| {
        let halves = [
            _mm256_castsi256_si128(x[0]),
            _mm256_extracti128_si256::<1>(x[0]),
            _mm256_castsi256_si128(x[1]),
            _mm256_extracti128_si256::<1>(x[1]),
        ];
        [0, 1, 2, 3].map(|v| _mm256_fmadd_pd(_mm256_cvtepi32_pd(halves[v]), quarter(mul, v), sums[v]))
    };
    for pixel in 0..row.pixels {
        // SAFETY: the caller's promise.
        let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
        let mut sums = multiply_add([0, 1, 2, 3].map(|v| quarter(add, v)), load16(acc), mul);
        if !row.acc2.is_empty() {
            // SAFETY: the caller's promise.
            let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
            sums = multiply_add(sums, load16(acc2), mul2);
        }
        if !row.res.is_empty() {
            // SAFETY: the caller's promise.
            let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
            sums = multiply_add(sums, widen16(res), res_mul);
        }
        let quarters = sums.map(|sum| {
            _mm256_cvttpd_epi32(_mm256_min_pd(_mm256_max_pd(_mm256_mul_pd(sum, scale), lo), hi))
        });
        let codes = [0, 2].map(|v| _mm256_set_m128i(quarters[v + 1], quarters[v]));
        // SAFETY: the caller's promise.
        unsafe { store16(row.y.wrapping_add(pixel * row.y_stride), codes, mask) };
    }
}
