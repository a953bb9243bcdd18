//! AVX2 kernels of u8 x s8, 16 channels in two registers: `vpmaddubsw` with sums of 16 bits where the codes are known
//! to be small, `vpmaddwd` over widened codes elsewhere, and AVX-VNNI's `vpdpbusd`.

use super::kernel::{self, Base};
use super::lanes::{Codes, Wide};
use super::sweep::Sweep;
use crate::machine::isa::{Avx2, AvxVnni};
use crate::machine::registers::dot::{Bytes, Narrow};

/// Codes whose products fit 16 bits, `reach` words of four to a sum.
///
/// # Panics
/// If a length is wrong or `reach` is 0.
pub(super) fn sweep_narrow(
    isa: Avx2,
    reach: usize,
    sweep: &Sweep,
    x: &[u8],
    packed: &[i8],
    init: &[i32],
    y: &mut [i32],
) {
    sweep.check(x.len(), y.len());
    assert!(packed.len() == sweep.packed_len() && init.len() == sweep.y_channels() && reach > 0);
    let base = Base::Init(init.as_ptr());
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { narrow_6x16(Codes { dot: Narrow(isa), reach }, sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma")]
unsafe fn narrow_6x16(
    lanes: Codes<Narrow<Avx2>>,
    sweep: &Sweep,
    x: *const u8,
    w: *const i8,
    y: *mut i32,
    base: Base<i32>,
) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 6, 2, 0, 0>(lanes, sweep, x, w, y, base) }
}

/// Codes of any size, over weights widened by [`widen`].
///
/// Both factors are widened to 16 bits, so that every product and every sum of two (at most 255 * 128 * 2) is exact:
/// the AVX2 instruction for bytes would saturate that sum to 16 bits.
pub(super) fn sweep_wide(isa: Avx2, sweep: &Sweep, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
    sweep.check(x.len(), y.len());
    assert_eq!(packed.len(), 2 * sweep.packed_len());
    assert_eq!(init.len(), sweep.y_channels());
    let base = Base::Init(init.as_ptr());
    // SAFETY: the token proves the features, and the lengths are the sweep's, in words of 2-byte weights.
    unsafe { wide_4x16(Wide(isa), sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma")]
unsafe fn wide_4x16(lanes: Wide<Avx2>, sweep: &Sweep, x: *const u8, w: *const i8, y: *mut i32, base: Base<i32>) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 4, 2, 0, 0>(lanes, sweep, x, w, y, base) }
}

/// Brings one word of weights for 16 channels, `[16][4]`, to the order [`sweep_wide`] reads, as 16-bit numbers: 8
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

/// Codes of any size, by AVX-VNNI.
///
/// # Panics
/// If a length is wrong.
pub(super) fn sweep_vnni(isa: AvxVnni, sweep: &Sweep, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
    sweep.check(x.len(), y.len());
    assert!(packed.len() == sweep.packed_len() && init.len() == sweep.y_channels());
    let base = Base::Init(init.as_ptr());
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe {
        vnni_6x16(
            Codes { dot: Bytes(isa), reach: usize::MAX },
            sweep,
            x.as_ptr(),
            packed.as_ptr(),
            y.as_mut_ptr(),
            base,
        )
    }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn vnni_6x16(
    lanes: Codes<Bytes<AvxVnni>>,
    sweep: &Sweep,
    x: *const u8,
    w: *const i8,
    y: *mut i32,
    base: Base<i32>,
) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 6, 2, 0, 0>(lanes, sweep, x, w, y, base) }
}
