//! AVX-512 kernels: sixteen channels a register, 16 pixels x 1 or 8 pixels x 2 registers of sums.

use std::ops::Range;

use super::grad_kernel;
use super::kernel::{self, Base};
use super::lanes::{Codes, F32};
use super::sweep::{Images, Sweep};
use crate::machine::isa::Avx512;
use crate::machine::registers::dot::Bytes;

/// f32 sweep; the contract of [`super::scalar_sweep::sweep_f32`].
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

/// u8 x s8 sweep; the contract of [`super::scalar_sweep::sweep_u8s8`].
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
    unsafe { kernel::sweep::<_, 16, 1, 8, 2>(Codes { dot: Bytes(isa), reach: usize::MAX }, sweep, x, w, y, base) }
}

/// f32 weight gradient; the contract of [`super::scalar_sweep::weight_grad_f32`].
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
