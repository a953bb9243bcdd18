//! AVX2 kernels: eight channels a register, 6 pixels (f32) or 4 pixels (u8 x s8) x one block of 16 channels.

use std::arch::x86_64::*;

use super::grad_kernel;
use super::kernel::{self, Base, Lanes};
use super::sweep::Sweep;
use crate::isa::Avx2;

/// f32 sweep; the contract of [`super::reference::sweep_f32`].
pub(super) fn sweep_f32(isa: Avx2, sweep: &Sweep, x: &[f32], packed: &[f32], y: &mut [f32], accumulate: bool) {
    sweep.check(x.len(), y.len());
    assert_eq!(packed.len(), sweep.packed_len());
    let base = if accumulate { Base::Old } else { Base::Zero };
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { sweep_f32_6x16(isa, sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma")]
unsafe fn sweep_f32_6x16(isa: Avx2, sweep: &Sweep, x: *const f32, w: *const f32, y: *mut f32, base: Base<f32>) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 6, 2, 0, 0>(F32(isa), sweep, x, w, y, base) }
}

/// u8 x s8 sweep; the contract of [`super::reference::sweep_u8s8`], over weights widened by [`widen`].
///
/// Both factors are widened to 16 bits, so that every product and every sum of two (at most 255 * 128 * 2) is exact:
/// the AVX2 instruction for bytes would saturate that sum to 16 bits.
pub(super) fn sweep_u8s8(isa: Avx2, sweep: &Sweep, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
    sweep.check(x.len(), y.len());
    assert_eq!(packed.len(), 2 * sweep.packed_len());
    assert_eq!(init.len(), sweep.y_channels());
    let base = Base::Init(init.as_ptr());
    // SAFETY: the token proves the features, and the lengths are the sweep's, in words of 2-byte weights.
    unsafe { sweep_u8s8_4x16(isa, sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma")]
unsafe fn sweep_u8s8_4x16(isa: Avx2, sweep: &Sweep, x: *const u8, w: *const i8, y: *mut i32, base: Base<i32>) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 4, 2, 0, 0>(U8S8(isa), sweep, x, w, y, base) }
}

/// Brings one word of weights for 16 channels, `[16][4]`, to the order [`sweep_u8s8`] reads, as 16-bit numbers: 8
/// channels at a time, first weights 0 and 2 of each, then weights 1 and 3.
pub(super) fn widen(word: &[i8], out: &mut [i8]) {
    for (lane, weights) in word.chunks_exact(4).enumerate() {
        for (k, &w) in weights.iter().enumerate() {
            let at = (lane / 8) * 32 + (k % 2) * 16 + (lane % 8) * 2 + k / 2;
            let [low, high] = i16::from(w).to_le_bytes();
            out[2 * at] = low as i8;
            out[2 * at + 1] = high as i8;
        }
    }
}

/// f32 weight gradient; the contract of [`super::reference::weight_grad_f32`].
pub(super) fn weight_grad_f32(isa: Avx2, sweep: &Sweep, x: &[f32], dy: &[f32], partial: &mut [f32]) {
    sweep.check(x.len(), dy.len());
    assert_eq!(partial.len(), sweep.packed_len());
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { weight_grad_f32_4x16(isa, sweep, x.as_ptr(), dy.as_ptr(), partial.as_mut_ptr()) }
}

/// # Safety
/// As for [`grad_kernel::weight_grad`].
#[target_feature(enable = "avx2,fma")]
unsafe fn weight_grad_f32_4x16(isa: Avx2, sweep: &Sweep, x: *const f32, dy: *const f32, partial: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { grad_kernel::weight_grad::<_, 4, 2, 0, 0>(F32(isa), sweep, x, dy, partial) }
}

#[derive(Clone, Copy)]
struct F32(Avx2);

impl Lanes for F32 {
    type X = f32;
    type W = f32;
    type Y = f32;
    type Sums = __m256;
    type Word = __m256;
    type Weights = __m256;
    const WIDTH: usize = 8;
    const WORD: usize = 1;
    const WEIGHTS: usize = 8;
    const UNROLL: bool = false;

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn multiply_add(self, sums: __m256, x: __m256, w: __m256) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_fmadd_ps(x, w, sums) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn word(self, x: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        let x = unsafe { *x };
        // SAFETY: self proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const f32) -> __m256 {
        // SAFETY: self proves the features; the caller promises 8 readable elements.
        unsafe { _mm256_loadu_ps(w) }
    }

    #[inline(always)]
    unsafe fn load(self, y: *const f32) -> __m256 {
        // SAFETY: self proves the features; the caller promises 8 readable elements.
        unsafe { _mm256_loadu_ps(y) }
    }

    #[inline(always)]
    unsafe fn store(self, y: *mut f32, sums: __m256) {
        // SAFETY: self proves the features; the caller promises 8 writable elements.
        unsafe { _mm256_storeu_ps(y, sums) }
    }
}

#[derive(Clone, Copy)]
struct U8S8(Avx2);

impl Lanes for U8S8 {
    type X = u8;
    type W = i8;
    type Y = i32;
    type Sums = __m256i;
    /// Codes 0 and 2 of the word, then codes 1 and 3, as 16-bit pairs.
    type Word = [__m256i; 2];
    /// Weights 0 and 2 of each lane, then weights 1 and 3, as 16-bit pairs.
    type Weights = [__m256i; 2];
    const WIDTH: usize = 8;
    const WORD: usize = 4;
    const WEIGHTS: usize = 64;
    const UNROLL: bool = false;

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn multiply_add(self, sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
        // SAFETY: self proves the features.
        let even = unsafe { _mm256_madd_epi16(x[0], w[0]) };
        // SAFETY: self proves the features.
        let odd = unsafe { _mm256_madd_epi16(x[1], w[1]) };
        self.add(self.add(sums, even), odd)
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn word(self, x: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller promises 4 readable elements.
        let x = unsafe { x.cast::<i32>().read_unaligned() };
        // SAFETY: self proves the features.
        let x = unsafe { _mm256_set1_epi32(x) };
        // SAFETY: self proves the features.
        let mask = unsafe { _mm256_set1_epi16(255) };
        // SAFETY: self proves the features.
        let even = unsafe { _mm256_and_si256(x, mask) };
        // SAFETY: self proves the features.
        let odd = unsafe { _mm256_srli_epi16::<8>(x) };
        [even, odd]
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const i8) -> [__m256i; 2] {
        // SAFETY: self proves the features; the caller promises 64 readable elements.
        let even = unsafe { _mm256_loadu_si256(w.cast()) };
        // SAFETY: as above, for the second half.
        let odd = unsafe { _mm256_loadu_si256(w.wrapping_add(32).cast()) };
        [even, odd]
    }

    #[inline(always)]
    unsafe fn load(self, y: *const i32) -> __m256i {
        // SAFETY: self proves the features; the caller promises 8 readable elements.
        unsafe { _mm256_loadu_si256(y.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, y: *mut i32, sums: __m256i) {
        // SAFETY: self proves the features; the caller promises 8 writable elements.
        unsafe { _mm256_storeu_si256(y.cast(), sums) }
    }
}
