//! Rows of requantization on AVX-512: 16 channels a pixel in one register of 32-bit integers or two of float64, codes
//! of four pixels packed together.

use std::arch::x86_64::*;

use super::avx2::sixteen;
use super::body::{Block, Constants};
use super::guarded::Guarded;
use super::{BLOCK, Row};
use crate::machine::registers::arrays::{read128, read512};

/// The last instructions of a row: from 32-bit numbers to codes.
#[derive(Clone, Copy)]
struct Finish {
    lo: __m512i,
    hi: __m512i,
    mask: __m512i,
    order: __m512i,
}

impl Finish {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    #[inline]
    fn new<S>(block: &Block<S>) -> Finish {
        let [lo, hi, mask] = [&block.lo, &block.hi, &block.mask].map(|bytes| _mm512_broadcast_i32x4(read128(bytes)));
        Finish { lo, hi, mask, order: _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15) }
    }

    /// Stores the first `n <= 4` of four pixels' numbers as codes. Packing saturates to 0..=255, so that clamping can
    /// come after it.
    ///
    /// # Safety
    /// `y` is valid for writes of 16 bytes at each of `n` pixels, `stride` bytes apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    #[inline]
    unsafe fn store(self, y: *mut u8, stride: usize, n: usize, pixels: [__m512i; 4]) {
        // Packing works on quarters of registers: quarter k gets channels 4k.. of each of the four pixels.
        let words = [_mm512_packs_epi32(pixels[0], pixels[1]), _mm512_packs_epi32(pixels[2], pixels[3])];
        let codes = _mm512_packus_epi16(words[0], words[1]);
        let codes = _mm512_permutexvar_epi32(self.order, codes);
        let codes = _mm512_and_si512(_mm512_min_epu8(_mm512_max_epu8(codes, self.lo), self.hi), self.mask);
        let quarters = [
            _mm512_castsi512_si128(codes),
            _mm512_extracti32x4_epi32::<1>(codes),
            _mm512_extracti32x4_epi32::<2>(codes),
            _mm512_extracti32x4_epi32::<3>(codes),
        ];
        for (i, quarter) in quarters.into_iter().enumerate() {
            if i < n {
                // SAFETY: the caller's promise.
                unsafe { _mm_storeu_si128(y.wrapping_add(i * stride).cast(), quarter) };
            }
        }
    }
}

/// Takes four pixels at a time, the last one more than once where they are no multiple of four, through the macro
/// `numbers` and stores their codes. A closure in its place would be called, not inlined.
macro_rules! quads {
    ($row:ident, $finish:ident, $numbers:ident) => {
        let whole = $row.pixels / 4 * 4;
        for first in (0..whole).step_by(4) {
            let pixels = [$numbers!(first), $numbers!(first + 1), $numbers!(first + 2), $numbers!(first + 3)];
            // SAFETY: the caller's promise.
            unsafe { $finish.store($row.y.wrapping_add(first * $row.y_stride), $row.y_stride, 4, pixels) };
        }
        if whole < $row.pixels {
            let [a, b, c, d] = last($row.pixels);
            let pixels = [$numbers!(a), $numbers!(b), $numbers!(c), $numbers!(d)];
            let y = $row.y.wrapping_add(whole * $row.y_stride);
            // SAFETY: the caller's promise.
            unsafe { $finish.store(y, $row.y_stride, $row.pixels - whole, pixels) };
        }
    };
}

/// The pixels beyond the last multiple of four, the last one repeated.
#[inline(always)]
fn last(pixels: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|i| (pixels / 4 * 4 + i).min(pixels - 1))
}

/// Calls a row function compiled for the inputs that the row has: second accumulators, residual codes.
macro_rules! by_inputs {
    ($of:ident($constants:expr, $block:expr, $row:ident)) => {
        match (!$row.acc2.is_empty(), !$row.res.is_empty()) {
            // SAFETY: the caller's promise.
            (false, false) => unsafe { $of::<false, false>($constants, $block, $row) },
            // SAFETY: the caller's promise.
            (false, true) => unsafe { $of::<false, true>($constants, $block, $row) },
            // SAFETY: the caller's promise.
            (true, false) => unsafe { $of::<true, false>($constants, $block, $row) },
            // SAFETY: the caller's promise.
            (true, true) => unsafe { $of::<true, true>($constants, $block, $row) },
        }
    };
}

/// [`super::body::row`] in 32 bits.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and DQ; the slices of `row` are as long as its strides and pixels say, its `y` is
/// valid for writes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn row_i32(constants: &Constants<i32>, block: usize, row: Row<'_>) {
    by_inputs!(i32_of(constants, block, row));
}

/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn i32_of<const ACC2: bool, const RES: bool>(constants: &Constants<i32>, block: usize, row: Row<'_>) {
    let block = &constants.blocks[block];
    let Block { mul, mul2, res_mul, add, .. } = block;
    let (mul, mul2, res_mul, add) = (read512(mul), read512(mul2), read512(res_mul), read512(add));
    let shift = _mm_cvtsi32_si128(constants.shift as i32);
    let finish = Finish::new(block);
    macro_rules! multiply_add {
        ($sums:expr, $x:expr, $mul:ident) => {
            _mm512_add_epi32($sums, _mm512_mullo_epi32($x, $mul))
        };
    }
    macro_rules! numbers {
        ($pixel:expr) => {{
            let pixel = $pixel;
            // SAFETY: the caller's promise.
            let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
            let mut sums = multiply_add!(add, read512(acc), mul);
            if ACC2 {
                // SAFETY: the caller's promise.
                let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
                sums = multiply_add!(sums, read512(acc2), mul2);
            }
            if RES {
                // SAFETY: the caller's promise.
                let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
                sums = multiply_add!(sums, _mm512_cvtepu8_epi32(read128(res)), res_mul);
            }
            _mm512_sra_epi32(sums, shift)
        }};
    }
    quads!(row, finish, numbers);
}

/// Two registers of float64 from 16 numbers in memory.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
#[inline]
fn double16(from: &[i32; BLOCK]) -> [__m512d; 2] {
    // SAFETY: 8 numbers are readable.
    let low = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
    // SAFETY: 8 more are.
    let high = unsafe { _mm256_loadu_si256(from.as_ptr().wrapping_add(8).cast()) };
    [_mm512_cvtepi32_pd(low), _mm512_cvtepi32_pd(high)]
}

/// The same from 16 codes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
#[inline]
fn double16_codes(from: &[u8; BLOCK]) -> [__m512d; 2] {
    // SAFETY: 8 codes are readable.
    let low = unsafe { _mm_loadl_epi64(from.as_ptr().cast()) };
    // SAFETY: 8 more are.
    let high = unsafe { _mm_loadl_epi64(from.as_ptr().wrapping_add(8).cast()) };
    [_mm512_cvtepi64_pd(_mm512_cvtepu8_epi64(low)), _mm512_cvtepi64_pd(_mm512_cvtepu8_epi64(high))]
}

/// [`super::body::row`] in float64, where the sum of every pixel over 2^shift stays below 2^31.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn row_f64(constants: &Constants<f64>, block: usize, row: Row<'_>) {
    by_inputs!(f64_of(constants, block, row));
}

/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn f64_of<const ACC2: bool, const RES: bool>(constants: &Constants<f64>, block: usize, row: Row<'_>) {
    let block = &constants.blocks[block];
    let Block { mul, mul2, res_mul, add, .. } = block;
    let load = |from: &[f64; BLOCK]| {
        [0, 8].map(|at| {
            // SAFETY: at + 8 <= 16 numbers are readable.
            unsafe { _mm512_loadu_pd(from.as_ptr().wrapping_add(at)) }
        })
    };
    let (mul, mul2, res_mul, add) = (load(mul), load(mul2), load(res_mul), load(add));
    let finish = Finish::new(block);
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    // Added with rounding down, it leaves the whole number in the low 32 bits: a float64 from 2^52 to 2^53 counts in
    // ones.
    let whole = _mm512_set1_pd(1.5 * (1_u64 << 52) as f64);
    let low_words = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    macro_rules! multiply_add {
        ($sums:ident, $x:expr, $mul:ident) => {{
            let x = $x;
            [_mm512_fmadd_pd(x[0], $mul[0], $sums[0]), _mm512_fmadd_pd(x[1], $mul[1], $sums[1])]
        }};
    }
    macro_rules! numbers {
        ($pixel:expr) => {{
            let pixel = $pixel;
            // SAFETY: the caller's promise.
            let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
            let mut sums = multiply_add!(add, double16(acc), mul);
            if ACC2 {
                // SAFETY: the caller's promise.
                let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
                sums = multiply_add!(sums, double16(acc2), mul2);
            }
            if RES {
                // SAFETY: the caller's promise.
                let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
                sums = multiply_add!(sums, double16_codes(res), res_mul);
            }
            let low = _mm512_castpd_si512(_mm512_add_round_pd::<DOWN>(sums[0], whole));
            let high = _mm512_castpd_si512(_mm512_add_round_pd::<DOWN>(sums[1], whole));
            _mm512_permutex2var_epi32(low, low_words, high)
        }};
    }
    quads!(row, finish, numbers);
}

/// [`super::body::row`] in float32, pixels that are not decided by it once more in float64.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn row_f32(constants: &Guarded, block: usize, row: Row<'_>) {
    let mut done = 0;
    while done < row.pixels {
        let rest = row.part(done, row.pixels - done);
        done += by_inputs!(decided_of(constants, block, rest));
        if done < row.pixels {
            let n = (row.pixels - done).min(4);
            // SAFETY: as for the whole row.
            unsafe { row_f64(&constants.exact, block, row.part(done, n)) };
            done += n;
        }
    }
}

/// Stores the codes of pixels four by four, up to the first four that float32 does not decide, and says how many those
/// were.
///
/// # Safety
/// As for [`row_i32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn decided_of<const ACC2: bool, const RES: bool>(constants: &Guarded, block: usize, row: Row<'_>) -> usize {
    let Block { mul, mul2, res_mul, add, .. } = &constants.narrow.blocks[block];
    let load = |from: &[f32; BLOCK]| _mm512_castsi512_ps(read512(from));
    let (mul, mul2, res_mul, add) = (load(mul), load(mul2), load(res_mul), load(add));
    let finish = Finish::new(&constants.narrow.blocks[block]);
    let width = _mm512_set1_ps(constants.width);
    macro_rules! multiply_add {
        ($sums:ident, $x:expr, $mul:ident) => {
            _mm512_fmadd_ps(_mm512_cvtepi32_ps($x), $mul, $sums)
        };
    }
    // The numbers of a pixel, and in which channels they are open.
    macro_rules! numbers {
        ($pixel:expr) => {{
            let pixel = $pixel;
            let mut sums = add;
            if RES {
                // SAFETY: the caller's promise.
                let res = unsafe { sixteen(row.res, pixel * row.res_stride) };
                sums = multiply_add!(sums, _mm512_cvtepu8_epi32(read128(res)), res_mul);
            }
            if ACC2 {
                // SAFETY: the caller's promise.
                let acc2 = unsafe { sixteen(row.acc2, pixel * row.stride) };
                sums = multiply_add!(sums, read512(acc2), mul2);
            }
            // SAFETY: the caller's promise.
            let acc = unsafe { sixteen(row.acc, pixel * row.stride) };
            let sums = multiply_add!(sums, read512(acc), mul);
            let least = _mm512_cvttps_epi32(sums);
            let most = _mm512_cvttps_epi32(_mm512_add_ps(sums, width));
            (least, _mm512_xor_si512(least, most))
        }};
    }
    macro_rules! quad {
        ($first:expr, $n:expr, $pixels:expr) => {{
            let [a, b, c, d] = $pixels;
            let [(a, open_a), (b, open_b), (c, open_c), (d, open_d)] =
                [numbers!(a), numbers!(b), numbers!(c), numbers!(d)];
            let open = _mm512_or_si512(_mm512_or_si512(open_a, open_b), _mm512_or_si512(open_c, open_d));
            if _mm512_test_epi32_mask(open, open) != 0 {
                return $first;
            }
            // SAFETY: the caller's promise.
            unsafe { finish.store(row.y.wrapping_add($first * row.y_stride), row.y_stride, $n, [a, b, c, d]) };
        }};
    }
    let whole = row.pixels / 4 * 4;
    for first in (0..whole).step_by(4) {
        quad!(first, 4, [first, first + 1, first + 2, first + 3]);
    }
    if whole < row.pixels {
        quad!(whole, row.pixels - whole, last(row.pixels));
    }
    row.pixels
}
