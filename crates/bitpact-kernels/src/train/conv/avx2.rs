//! AVX2 kernels in f32: eight channels a register, 6 pixels x one block of 16 channels.

use std::ops::Range;

use super::grad_kernel;
use super::kernel::{self, Base};
use super::lanes::F32;
use super::sweep::{Images, Sweep};
use crate::machine::isa::Avx2;

/// f32 sweep; the contract of [`super::scalar_sweep::sweep_f32`].
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

/// f32 weight gradient; the contract of [`super::scalar_sweep::weight_grad_f32`].
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
