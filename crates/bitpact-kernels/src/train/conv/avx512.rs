//! AVX-512 kernels: sixteen channels a register, 16 pixels x 1 or 8 pixels x 2 registers of sums.

use std::arch::x86_64::*;
use std::ops::Range;

use super::grad_kernel;
use super::kernel::{self, Base, Lanes};
use super::sweep::{Images, Sweep};
use crate::machine::isa::Avx512;

/// f32 sweep; the contract of [`super::reference::sweep_f32`].
pub(super) fn sweep_f32(isa: Avx512, sweep: &Sweep, x: &[f32], packed: &[f32], y: &mut [f32], accumulate: bool) {
    sweep.check(x.len(), y.len());
    assert_eq!(packed.len(), sweep.packed_len());
    let base = if accumulate { Base::Old } else { Base::Zero };
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { sweep_f32_16x16_8x32(isa, sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn sweep_f32_16x16_8x32(isa: Avx512, sweep: &Sweep, x: *const f32, w: *const f32, y: *mut f32, base: Base<f32>) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 16, 1, 8, 2>(F32(isa), sweep, x, w, y, base) }
}

/// u8 x s8 sweep; the contract of [`super::reference::sweep_u8s8`].
pub(super) fn sweep_u8s8(isa: Avx512, sweep: &Sweep, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
    sweep.check(x.len(), y.len());
    assert_eq!(packed.len(), sweep.packed_len());
    assert_eq!(init.len(), sweep.y_channels());
    let base = Base::Init(init.as_ptr());
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { sweep_u8s8_16x16_8x32(isa, sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn sweep_u8s8_16x16_8x32(isa: Avx512, sweep: &Sweep, x: *const u8, w: *const i8, y: *mut i32, base: Base<i32>) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 16, 1, 8, 2>(U8S8(isa), sweep, x, w, y, base) }
}

/// f32 weight gradient; the contract of [`super::reference::weight_grad_f32`].
pub(super) fn weight_grad_f32(
    isa: Avx512,
    sweep: &Sweep,
    images: usize,
    x: &[f32],
    dy: &[f32],
    blocks: Range<usize>,
    partial: &mut [f32],
) {
    let images = sweep.check_weight_grad(images, x.len(), dy.len(), &blocks, partial.len());
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { weight_grad_f32_16x16_8x32(isa, sweep, images, x.as_ptr(), dy.as_ptr(), partial.as_mut_ptr(), blocks) }
}

/// # Safety
/// As for [`grad_kernel::weight_grad`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn weight_grad_f32_16x16_8x32(
    isa: Avx512,
    sweep: &Sweep,
    images: Images,
    x: *const f32,
    dy: *const f32,
    partial: *mut f32,
    blocks: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { grad_kernel::weight_grad::<_, 16, 1, 8, 2>(F32(isa), sweep, images, x, dy, partial, blocks) }
}

#[derive(Clone, Copy)]
struct F32(Avx512);

impl Lanes for F32 {
    type X = f32;
    type W = f32;
    type Y = f32;
    type Sums = __m512;
    type Word = __m512;
    type Weights = __m512;
    const WIDTH: usize = 16;
    const WORD: usize = 1;
    const WEIGHTS: usize = 16;
    const UNROLL: bool = true;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn multiply_add(self, sums: __m512, x: __m512, w: __m512) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_fmadd_ps(x, w, sums) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn word(self, x: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        let x = unsafe { *x };
        // SAFETY: self proves the features.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const f32) -> __m512 {
        // SAFETY: self proves the features; the caller promises 16 readable elements.
        unsafe { _mm512_loadu_ps(w) }
    }

    #[inline(always)]
    unsafe fn load(self, y: *const f32) -> __m512 {
        // SAFETY: self proves the features; the caller promises 16 readable elements.
        unsafe { _mm512_loadu_ps(y) }
    }

    #[inline(always)]
    unsafe fn store(self, y: *mut f32, sums: __m512) {
        // SAFETY: self proves the features; the caller promises 16 writable elements.
        unsafe { _mm512_storeu_ps(y, sums) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct U8S8(pub(super) Avx512);

impl Lanes for U8S8 {
    type X = u8;
    type W = i8;
    type Y = i32;
    type Sums = __m512i;
    type Word = __m512i;
    type Weights = __m512i;
    const WIDTH: usize = 16;
    const WORD: usize = 4;
    const WEIGHTS: usize = 64;
    const UNROLL: bool = true;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn multiply_add(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_dpbusd_epi32(sums, x, w) }
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn word(self, x: *const u8) -> __m512i {
        // SAFETY: the caller promises 4 readable elements.
        let x = unsafe { x.cast::<i32>().read_unaligned() };
        // SAFETY: self proves the features.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const i8) -> __m512i {
        // SAFETY: self proves the features; the caller promises 64 readable elements.
        unsafe { _mm512_loadu_epi8(w) }
    }

    #[inline(always)]
    unsafe fn load(self, y: *const i32) -> __m512i {
        // SAFETY: self proves the features; the caller promises 16 readable elements.
        unsafe { _mm512_loadu_epi32(y) }
    }

    #[inline(always)]
    unsafe fn store(self, y: *mut i32, sums: __m512i) {
        // SAFETY: self proves the features; the caller promises 16 writable elements.
        unsafe { _mm512_storeu_epi32(y, sums) }
    }
}
