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
pub(super) unsafe fn sixteen<T>(slice: &[T], at: usize) -> &[T; BLOCK] {
    // SAFETY: the caller's promise.
    unsafe { &*slice.as_ptr().wrapping_add(at).cast::<[T; BLOCK]>() }
}

/// The last instructions of a row: from 32-bit numbers to codes.
#[derive(Clone, Copy)]
struct Finish {
    lo: __m128i,
    hi: __m128i,
    mask: __m128i,
}

impl Finish {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn new(lo: u8, hi: u8, mask: &[u8; BLOCK]) -> Finish {
        // SAFETY: 16 bytes are readable.
        let mask = unsafe { _mm_loadu_si128(mask.as_ptr().cast()) };
        Finish { lo: _mm_set1_epi8(lo as i8), hi: _mm_set1_epi8(hi as i8), mask }
    }

    /// Stores 16 numbers as codes. Packing saturates to 0..=255, so that clamping can come after it.
    ///
    /// # Safety
    /// `y` is valid for writes of 16 bytes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn store(self, y: *mut u8, [low, high]: [__m256i; 2]) {
        // Packing works on halves of registers: the four quarters come out as 0 2 1 3.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
        let codes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        let codes = _mm_and_si128(_mm_min_epu8(_mm_max_epu8(codes, self.lo), self.hi), self.mask);
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(y.cast(), codes) };
    }
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
    let finish = Finish::new(constants.lo as u8, constants.hi as u8, mask);
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
        let codes = sums.map(|sum| _mm256_sra_epi32(sum, shift));
        // SAFETY: the caller's promise.
        unsafe { finish.store(row.y.wrapping_add(pixel * row.y_stride), codes) };
    }
}

/// Four registers of float64 from 16 32-bit numbers.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn double16(from: &[i32; BLOCK]) -> [__m256d; 4] {
    [0, 4, 8, 12].map(|at| {
        // SAFETY: at + 4 <= 16 numbers are readable.
        let quarter = unsafe { _mm_loadu_si128(from.as_ptr().wrapping_add(at).cast()) };
        _mm256_cvtepi32_pd(quarter)
    })
}

/// [`super::body::row`] in float64, where the sum of every pixel over 2^shift stays below 2^31.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row_f64(constants: &Constants<f64>, block: usize, row: Row<'_>) {
    let Block { mul, mul2, res_mul, add, mask } = &constants.blocks[block];
    // All constants times 2^-shift, which is exact: sums are integers below 2^53 times it, fused or not.
    let scale = _mm256_set1_pd(f64::from_bits(u64::from(1023 - constants.shift) << 52));
    let scaled = |from: &[f64; BLOCK]| {
        [0, 4, 8, 12].map(|at| {
            // SAFETY: at + 4 <= 16 numbers are readable.
            _mm256_mul_pd(unsafe { _mm256_loadu_pd(from.as_ptr().wrapping_add(at)) }, scale)
        })
    };
    let (mul, mul2, res_mul, add) = (scaled(mul), scaled(mul2), scaled(res_mul), scaled(add));
    let finish = Finish::new(constants.lo as u8, constants.hi as u8, mask);
    let multiply_add = |sums: [__m256d; 4], x: [__m256d; 4], mul: [__m256d; 4]| {
        [0, 1, 2, 3].map(|v| _mm256_fmadd_pd(x[v], mul[v], sums[v]))
    };
    for pixel in 0..row.pixels {
        // SAFETY: the caller's promise.
        let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
        let mut sums = multiply_add(add, double16(acc), mul);
        if !row.acc2.is_empty() {
            // SAFETY: the caller's promise.
            let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
            sums = multiply_add(sums, double16(acc2), mul2);
        }
        if !row.res.is_empty() {
            // SAFETY: the caller's promise.
            let res = widen16(unsafe { sixteen(row.res, pixel * row.res_stride) });
            let halves = |v: usize| [_mm256_castsi256_si128(res[v]), _mm256_extracti128_si256::<1>(res[v])];
            let ([a, b], [c, d]) = (halves(0), halves(1));
            sums = multiply_add(sums, [a, b, c, d].map(|quarter| _mm256_cvtepi32_pd(quarter)), res_mul);
        }
        // Dropping the fraction rounds down but for numbers below 0, which give 0 or less and are clamped to lo >= 0 in both.
        let quarters = sums.map(|sum| _mm256_cvttpd_epi32(sum));
        let codes = [0, 2].map(|v| _mm256_set_m128i(quarters[v + 1], quarters[v]));
        // SAFETY: the caller's promise.
        unsafe { finish.store(row.y.wrapping_add(pixel * row.y_stride), codes) };
    }
}
