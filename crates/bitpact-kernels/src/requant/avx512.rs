//! Rows of the integer step on AVX-512: 16 channels a pixel in one register of 32-bit integers or two of float64.

use std::arch::x86_64::*;

use super::avx2::sixteen;
use super::body::{Block, Constants};
use super::{BLOCK, Row};

/// The last instructions of a row: from 32-bit numbers to codes.
#[derive(Clone, Copy)]
struct Finish {
    lo: __m512i,
    hi: __m512i,
    mask: __mmask16,
}

impl Finish {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    #[inline]
    fn new(lo: i32, hi: i32, mask: &[u8; BLOCK]) -> Finish {
        // SAFETY: 16 bytes are readable.
        let mask = unsafe { _mm_loadu_si128(mask.as_ptr().cast()) };
        Finish { lo: _mm512_set1_epi32(lo), hi: _mm512_set1_epi32(hi), mask: _mm_movepi8_mask(mask) }
    }

    /// Stores 16 numbers as codes.
    ///
    /// # Safety
    /// `y` is valid for writes of 16 bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    #[inline]
    unsafe fn store(self, y: *mut u8, codes: __m512i) {
        let codes = _mm512_min_epi32(_mm512_max_epi32(codes, self.lo), self.hi);
        let codes = _mm512_maskz_cvtepi32_epi8(self.mask, codes);
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(y.cast(), codes) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
#[inline]
fn load16(from: &[i32; BLOCK]) -> __m512i {
    // SAFETY: 16 numbers are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
#[inline]
fn widen16(from: &[u8; BLOCK]) -> __m512i {
    // SAFETY: 16 codes are readable.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

/// [`super::body::row`] in 32 bits.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and DQ; the slices of `row` are as long as its strides and pixels say, its `y` is valid for writes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn row_i32(constants: &Constants<i32>, block: usize, row: Row<'_>) {
    let Block { mul, mul2, res_mul, add, mask } = &constants.blocks[block];
    let (mul, mul2, res_mul, add) = (load16(mul), load16(mul2), load16(res_mul), load16(add));
    let shift = _mm_cvtsi32_si128(constants.shift as i32);
    let finish = Finish::new(constants.lo, constants.hi, mask);
    let multiply_add = |sums, x, mul| _mm512_add_epi32(sums, _mm512_mullo_epi32(x, mul));
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
        let codes = _mm512_sra_epi32(sums, shift);
        // SAFETY: the caller's promise.
        unsafe { finish.store(row.y.wrapping_add(pixel * row.y_stride), codes) };
    }
}

/// Two registers of float64 from 16 32-bit numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
#[inline]
fn double16(from: __m512i) -> [__m512d; 2] {
    [_mm512_cvtepi32_pd(_mm512_castsi512_si256(from)), _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64::<1>(from))]
}

/// [`super::body::row`] in float64, where the sum of every pixel over 2^shift stays below 2^31.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn row_f64(constants: &Constants<f64>, block: usize, row: Row<'_>) {
    let Block { mul, mul2, res_mul, add, mask } = &constants.blocks[block];
    // All constants times 2^-shift, which is exact: sums are integers below 2^53 times it, fused or not.
    let scale = _mm512_set1_pd(f64::from_bits(u64::from(1023 - constants.shift) << 52));
    let scaled = |from: &[f64; BLOCK]| {
        [0, 8].map(|at| {
            // SAFETY: at + 8 <= 16 numbers are readable.
            _mm512_mul_pd(unsafe { _mm512_loadu_pd(from.as_ptr().wrapping_add(at)) }, scale)
        })
    };
    let (mul, mul2, res_mul, add) = (scaled(mul), scaled(mul2), scaled(res_mul), scaled(add));
    let finish = Finish::new(constants.lo as i32, constants.hi as i32, mask);
    let multiply_add = |sums: [__m512d; 2], x: [__m512d; 2], mul: [__m512d; 2]| {
        [_mm512_fmadd_pd(x[0], mul[0], sums[0]), _mm512_fmadd_pd(x[1], mul[1], sums[1])]
    };
    for pixel in 0..row.pixels {
        // SAFETY: the caller's promise.
        let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
        let mut sums = multiply_add(add, double16(load16(acc)), mul);
        if !row.acc2.is_empty() {
            // SAFETY: the caller's promise.
            let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
            sums = multiply_add(sums, double16(load16(acc2)), mul2);
        }
        if !row.res.is_empty() {
            // SAFETY: the caller's promise.
            let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
            sums = multiply_add(sums, double16(widen16(res)), res_mul);
        }
        // Dropping the fraction rounds down but for numbers below 0, which give 0 or less and are clamped to lo >= 0 in both.
        let [low, high] = sums.map(|sum| _mm512_cvttpd_epi32(sum));
        let codes = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        // SAFETY: the caller's promise.
        unsafe { finish.store(row.y.wrapping_add(pixel * row.y_stride), codes) };
    }
}
