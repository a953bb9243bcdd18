//! AVX-512 kernels: one word of the input against one word of 16 output channels.

use std::arch::x86_64::*;

use super::weight_grad::{TILE, Words};
use crate::machine::isa::{Avx512, Bf16};
use crate::machine::registers::arrays::{read512, write512};
use crate::machine::registers::dot::Bytes;
use crate::train::conv::LANES;
use crate::train::conv::kernel::{self, Base, Lanes};
use crate::train::conv::lanes::{Codes, Pairs};
use crate::train::conv::sweep::Sweep;

/// Channels of x whose sums are in registers at once.
const ROWS: usize = 8;

/// bfloat16 sweep: `packed` is `[channel block][tap][2 channels read][16][2]`.
pub(super) fn sweep_bf16(isa: Bf16, sweep: &Sweep, x: &[u8], packed: &[u8], y: &mut [f32], accumulate: bool) {
    sweep.check(x.len() / 2, y.len());
    assert_eq!(packed.len(), 2 * sweep.packed_len());
    let base = if accumulate { Base::Old } else { Base::Zero };
    // SAFETY: the token proves the features, and the lengths are the sweep's.
    unsafe { sweep_bf16_16x16_8x32(isa, sweep, x.as_ptr().cast(), packed.as_ptr().cast(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn sweep_bf16_16x16_8x32(
    isa: Bf16,
    sweep: &Sweep,
    x: *const [u8; 2],
    w: *const [u8; 2],
    y: *mut f32,
    base: Base<f32>,
) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 16, 1, 8, 2>(Pairs(isa), sweep, x, w, y, base) }
}

/// tile += the products of bfloat16 words.
///
/// # Panics
/// If a length is wrong.
pub(super) fn weights_bf16(isa: Bf16, w: &Words, tile: &mut [f32; TILE]) {
    w.check();
    // SAFETY: the token proves the features, and the lengths are those checked.
    unsafe { weights_bf16_8x16(isa, w, tile) }
}

/// # Safety
/// The lengths are as [`Words::check`] says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn weights_bf16_8x16(isa: Bf16, w: &Words, tile: &mut [f32; TILE]) {
    for (half, out) in tile.as_chunks_mut::<{ ROWS * LANES }>().0.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let sums = unsafe { words_of(Pairs(isa), w, half * ROWS) };
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            let new = _mm512_add_ps(_mm512_castsi512_ps(read512(out)), sum);
            write512(out, _mm512_castps_si512(new));
        }
    }
}

/// As [`weights_bf16`], over u8 x and s8 dz to exact sums.
///
/// # Panics
/// If a length is wrong.
pub(super) fn weights_s8(isa: Avx512, w: &Words, tile: &mut [i32; TILE]) {
    w.check();
    // SAFETY: the token proves the features, and the lengths are those checked.
    unsafe { weights_s8_8x16(isa, w, tile) }
}

/// # Safety
/// The lengths are as [`Words::check`] says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn weights_s8_8x16(isa: Avx512, w: &Words, tile: &mut [i32; TILE]) {
    for (half, out) in tile.as_chunks_mut::<{ ROWS * LANES }>().0.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let sums = unsafe { words_of(Codes { dot: Bytes(isa), reach: usize::MAX }, w, half * ROWS) };
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            write512(out, _mm512_add_epi32(read512(out), sum));
        }
    }
}

/// Sums of [`ROWS`] channels of x from channel `first` on.
///
/// # Safety
/// The lengths are as [`Words::check`] says.
#[inline(always)]
unsafe fn words_of<L: Lanes>(lanes: L, w: &Words, first: usize) -> [L::Sums; ROWS] {
    let mut sums = [lanes.zero(); ROWS];
    let (x, mut dz) = (w.x.as_ptr().wrapping_add(first * w.channel), w.dz.as_ptr());
    for word in 0..w.words {
        // SAFETY: the caller's promise.
        let d = unsafe { lanes.weights(dz.cast()) };
        for (c, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let x = unsafe { lanes.word(x.wrapping_add(c * w.channel + 4 * word).cast()) };
            *sum = lanes.multiply_add(*sum, x, d);
        }
        dz = dz.wrapping_add(w.word);
    }
    sums
}
