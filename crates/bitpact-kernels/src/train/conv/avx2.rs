//! AVX2 kernels in f32: eight channels a register, 6 pixels x one block of 16 channels.

use std::arch::x86_64::*;
use std::ops::Range;

use super::grad_kernel;
use super::kernel::{self, Base, Lanes};
use super::sweep::{Images, Sweep};
use crate::machine::isa::Avx2;

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

/// f32 weight gradient; the contract of [`super::reference::weight_grad_f32`].
pub(super) fn weight_grad_f32(
    isa: Avx2,
    sweep: &Sweep,
    images: usize,
    x: &[f32],
    dy: &[f32],
    blocks: Range<usize>,
    partial: &mut [f32],
) {
    let images = sweep.check_weight_grad(images, x.len(), dy.len(), &blocks, partial.len());
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { weight_grad_f32_4x16(isa, sweep, images, x.as_ptr(), dy.as_ptr(), partial.as_mut_ptr(), blocks) }
}

/// # Safety
/// As for [`grad_kernel::weight_grad`].
#[target_feature(enable = "avx2,fma")]
unsafe fn weight_grad_f32_4x16(
    isa: Avx2,
    sweep: &Sweep,
    images: Images,
    x: *const f32,
    dy: *const f32,
    partial: *mut f32,
    blocks: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { grad_kernel::weight_grad::<_, 4, 2, 0, 0>(F32(isa), sweep, images, x, dy, partial, blocks) }
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
