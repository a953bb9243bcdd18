//! Rows of requantization on AVX2: 16 channels a pixel in two registers of 32-bit integers or four of float64.

use std::arch::x86_64::*;

use super::body::{Block, Constants};
use super::guarded::Guarded;
use super::{BLOCK, Row};
use crate::machine::registers::arrays::{read128, read256};

/// Two registers of eight 32-bit numbers from 16 of them.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn load16(from: &[i32; BLOCK]) -> [__m256i; 2] {
    let halves = from.as_chunks::<8>().0;
    [read256(&halves[0]), read256(&halves[1])]
}

/// Two registers of eight 32-bit numbers from 16 codes.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn widen16(from: &[u8; BLOCK]) -> [__m256i; 2] {
    let codes = read128(from);
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

/// The last instructions of a row: from 32-bit numbers to codes, two pixels at a time.
#[derive(Clone, Copy)]
struct Finish {
    lo: __m256i,
    hi: __m256i,
    mask: __m256i,
    order: __m256i,
}

impl Finish {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn new<S>(block: &Block<S>) -> Finish {
        let [lo, hi, mask] =
            [&block.lo, &block.hi, &block.mask].map(|bytes| _mm256_broadcastsi128_si256(read128(bytes)));
        Finish { lo, hi, mask, order: _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7) }
    }

    /// Stores 16 numbers of each of two pixels as codes. Packing saturates to 0..=255, so that clamping can come after
    /// it.
    ///
    /// # Safety
    /// Each `y` is valid for writes of 16 bytes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn store(self, y: [*mut u8; 2], pixels: [[__m256i; 2]; 2]) {
        // Packing works on halves of registers: quarters of the pixels' numbers come out as 0 2 0 2 and 1 3 1 3.
        let [a, b] = pixels.map(|[low, high]| _mm256_packs_epi32(low, high));
        let codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), self.order);
        let codes = _mm256_and_si256(_mm256_min_epu8(_mm256_max_epu8(codes, self.lo), self.hi), self.mask);
        let codes = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
        for (y, codes) in y.into_iter().zip(codes) {
            // SAFETY: the caller's promise.
            unsafe { _mm_storeu_si128(y.cast(), codes) };
        }
    }
}

/// Pixels two by two, the last one twice where they are odd.
#[inline(always)]
fn pairs(pixels: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..pixels).step_by(2).map(move |first| [first, (first + 1).min(pixels - 1)])
}

/// [`super::body::row`] in 32 bits.
///
/// # Safety
/// The CPU has AVX2 and FMA; the slices of `row` are as long as its strides and pixels say, its `y` is valid for
/// writes.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row_i32(constants: &Constants<i32>, block: usize, row: Row<'_>) {
    let block = &constants.blocks[block];
    let Block { mul, mul2, res_mul, add, .. } = block;
    let (mul, mul2, res_mul, add) = (load16(mul), load16(mul2), load16(res_mul), load16(add));
    let shift = _mm_cvtsi32_si128(constants.shift as i32);
    let finish = Finish::new(block);
    let multiply_add = |sums: [__m256i; 2], x: [__m256i; 2], mul: [__m256i; 2]| {
        [0, 1].map(|v| _mm256_add_epi32(sums[v], _mm256_mullo_epi32(x[v], mul[v])))
    };
    let numbers = |pixel: usize| {
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
        sums.map(|sum| _mm256_sra_epi32(sum, shift))
    };
    for pair in pairs(row.pixels) {
        // SAFETY: the caller's promise.
        unsafe { finish.store(pair.map(|pixel| row.y.wrapping_add(pixel * row.y_stride)), pair.map(numbers)) };
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
    let block = &constants.blocks[block];
    let Block { mul, mul2, res_mul, add, .. } = block;
    // Sums are integers below 2^53 times 2^-shift, exact whether fused or not.
    let load = |from: &[f64; BLOCK]| {
        [0, 4, 8, 12].map(|at| {
            // SAFETY: at + 4 <= 16 numbers are readable.
            unsafe { _mm256_loadu_pd(from.as_ptr().wrapping_add(at)) }
        })
    };
    let (mul, mul2, res_mul, add) = (load(mul), load(mul2), load(res_mul), load(add));
    let finish = Finish::new(block);
    let multiply_add = |sums: [__m256d; 4], x: [__m256d; 4], mul: [__m256d; 4]| {
        [0, 1, 2, 3].map(|v| _mm256_fmadd_pd(x[v], mul[v], sums[v]))
    };
    let numbers = |pixel: usize| {
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
        // Dropping the fraction rounds down but for numbers below 0, which give 0 or less and are clamped to lo >= 0 in
        // both.
        let quarters = sums.map(|sum| _mm256_cvttpd_epi32(sum));
        [0, 2].map(|v| _mm256_set_m128i(quarters[v + 1], quarters[v]))
    };
    for pair in pairs(row.pixels) {
        // SAFETY: the caller's promise.
        unsafe { finish.store(pair.map(|pixel| row.y.wrapping_add(pixel * row.y_stride)), pair.map(numbers)) };
    }
}

/// [`super::body::row`] in float32, pixels that are not decided by it once more in float64.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row_f32(constants: &Guarded, block: usize, row: Row<'_>) {
    let Block { mul, mul2, res_mul, add, .. } = &constants.narrow.blocks[block];
    let load = |from: &[f32; BLOCK]| {
        [0, 8].map(|at| {
            // SAFETY: at + 8 <= 16 numbers are readable.
            unsafe { _mm256_loadu_ps(from.as_ptr().wrapping_add(at)) }
        })
    };
    let (mul, mul2, res_mul, add) = (load(mul), load(mul2), load(res_mul), load(add));
    let finish = Finish::new(&constants.narrow.blocks[block]);
    let width = _mm256_set1_ps(constants.width);
    let multiply_add = |sums: [__m256; 2], x: [__m256i; 2], mul: [__m256; 2]| {
        [0, 1].map(|v| _mm256_fmadd_ps(_mm256_cvtepi32_ps(x[v]), mul[v], sums[v]))
    };
    let numbers = |pixel: usize| {
        let mut sums = add;
        if !row.res.is_empty() {
            // SAFETY: the caller's promise.
            let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
            sums = multiply_add(sums, widen16(res), res_mul);
        }
        if !row.acc2.is_empty() {
            // SAFETY: the caller's promise.
            let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
            sums = multiply_add(sums, load16(acc2), mul2);
        }
        // SAFETY: the caller's promise.
        let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
        let sums = multiply_add(sums, load16(acc), mul);
        let least = sums.map(|sum| _mm256_cvttps_epi32(sum));
        let most = sums.map(|sum| _mm256_cvttps_epi32(_mm256_add_ps(sum, width)));
        let [a, b] = [0, 1].map(|v| _mm256_xor_si256(least[v], most[v]));
        (least, _mm256_or_si256(a, b))
    };
    for pair in pairs(row.pixels) {
        let [(a, open_a), (b, open_b)] = pair.map(numbers);
        let open = _mm256_or_si256(open_a, open_b);
        if _mm256_testz_si256(open, open) == 0 {
            // SAFETY: as for the whole row.
            unsafe { row_f64(&constants.exact, block, row.part(pair[0], pair[1] + 1 - pair[0])) };
            continue;
        }
        // SAFETY: the caller's promise.
        unsafe { finish.store(pair.map(|pixel| row.y.wrapping_add(pixel * row.y_stride)), [a, b]) };
    }
}
