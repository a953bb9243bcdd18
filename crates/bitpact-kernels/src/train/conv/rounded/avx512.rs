//! AVX-512 kernels: one word of the input against one word of 16 output channels.

use std::arch::x86_64::*;

use super::weight_grad::{TILE, Words};
use crate::machine::isa::{Avx512, Bf16};
use crate::train::conv::LANES;
use crate::train::conv::kernel::{self, Base, Lanes};
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
            // SAFETY: 16 elements.
            let old = unsafe { _mm512_loadu_ps(out.as_ptr()) };
            let new = _mm512_add_ps(old, sum);
            // SAFETY: 16 elements.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), new) };
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
        let sums = unsafe { words_of(crate::train::conv::avx512::U8S8(isa), w, half * ROWS) };
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: 16 elements.
            let old = unsafe { _mm512_loadu_epi32(out.as_ptr()) };
            let new = _mm512_add_epi32(old, sum);
            // SAFETY: 16 elements.
            unsafe { _mm512_storeu_epi32(out.as_mut_ptr(), new) };
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

/// Pairs of bfloat16, kept as bytes.
#[derive(Clone, Copy)]
struct Pairs(Bf16);

impl Lanes for Pairs {
    type X = [u8; 2];
    type W = [u8; 2];
    type Y = f32;
    type Sums = __m512;
    type Word = __m512i;
    type Weights = __m512i;
    const WIDTH: usize = 16;
    const WORD: usize = 2;
    const WEIGHTS: usize = 32;
    const UNROLL: bool = true;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn multiply_add(self, sums: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: the types have the same size and no invalid bit pattern.
        let x: __m512bh = unsafe { std::mem::transmute(x) };
        // SAFETY: as above.
        let w: __m512bh = unsafe { std::mem::transmute(w) };
        // SAFETY: self proves the features.
        unsafe { _mm512_dpbf16_ps(sums, x, w) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn word(self, x: *const [u8; 2]) -> __m512i {
        // SAFETY: the caller promises 2 readable elements.
        let x = unsafe { x.cast::<i32>().read_unaligned() };
        // SAFETY: self proves the features.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const [u8; 2]) -> __m512i {
        // SAFETY: self proves the features; the caller promises 32 readable elements.
        unsafe { _mm512_loadu_epi8(w.cast()) }
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
