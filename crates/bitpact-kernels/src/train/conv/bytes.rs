//! AVX2 kernels of u8 x s8, 16 channels in two registers: `vpmaddubsw` with sums of 16 bits where the codes are known
//! to be small, `vpmaddwd` over widened codes elsewhere, and AVX-VNNI's `vpdpbusd`.

use std::arch::x86_64::*;

use super::kernel::{self, Base, Lanes};
use super::sweep::Sweep;
use crate::machine::isa::{Avx2, AvxVnni};

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
    unsafe { narrow_6x16(Narrow { isa, reach }, sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma")]
unsafe fn narrow_6x16(lanes: Narrow, sweep: &Sweep, x: *const u8, w: *const i8, y: *mut i32, base: Base<i32>) {
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
unsafe fn wide_4x16(lanes: Wide, sweep: &Sweep, x: *const u8, w: *const i8, y: *mut i32, base: Base<i32>) {
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
    unsafe { vnni_6x16(Vnni(isa), sweep, x.as_ptr(), packed.as_ptr(), y.as_mut_ptr(), base) }
}

/// # Safety
/// As for [`kernel::sweep`].
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn vnni_6x16(lanes: Vnni, sweep: &Sweep, x: *const u8, w: *const i8, y: *mut i32, base: Base<i32>) {
    // SAFETY: the caller's promise.
    unsafe { kernel::sweep::<_, 6, 2, 0, 0>(lanes, sweep, x, w, y, base) }
}

/// Two sums of 16 bits a lane, of `reach` words.
#[derive(Clone, Copy)]
struct Narrow {
    #[expect(dead_code, reason = "the proof of the features")]
    isa: Avx2,
    reach: usize,
}

/// One sum of 32 bits a lane.
#[derive(Clone, Copy)]
struct Vnni(AvxVnni);

/// Both factors widened to 16 bits.
#[derive(Clone, Copy)]
struct Wide(Avx2);

/// Sums in eight lanes, over words of four codes.
macro_rules! eight_lanes {
    () => {
        type X = u8;
        type W = i8;
        type Y = i32;
        type Sums = __m256i;
        const WIDTH: usize = 8;
        const WORD: usize = 4;
        const UNROLL: bool = false;

        #[inline(always)]
        fn zero(self) -> __m256i {
            // SAFETY: self proves the features.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: self proves the features.
            unsafe { _mm256_add_epi32(a, b) }
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
    };
}

/// Words and weights as they lie in memory.
macro_rules! words_of_bytes {
    () => {
        type Word = __m256i;
        type Weights = __m256i;
        const WEIGHTS: usize = 32;

        #[inline(always)]
        unsafe fn word(self, x: *const u8) -> __m256i {
            // SAFETY: the caller promises 4 readable elements.
            let x = unsafe { x.cast::<i32>().read_unaligned() };
            // SAFETY: self proves the features.
            unsafe { _mm256_set1_epi32(x) }
        }

        #[inline(always)]
        unsafe fn weights(self, w: *const i8) -> __m256i {
            // SAFETY: self proves the features; the caller promises 32 readable elements.
            unsafe { _mm256_loadu_si256(w.cast()) }
        }
    };
}

impl Lanes for Narrow {
    eight_lanes!();
    words_of_bytes!();
    const SHORT: bool = true;

    #[inline(always)]
    fn multiply_add(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        let pairs = unsafe { _mm256_maddubs_epi16(x, w) };
        // SAFETY: self proves the features.
        unsafe { _mm256_add_epi16(sums, pairs) }
    }

    #[inline(always)]
    fn reach(self) -> usize {
        self.reach
    }

    #[inline(always)]
    fn widen(self, sums: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        let ones = unsafe { _mm256_set1_epi16(1) };
        // SAFETY: self proves the features.
        unsafe { _mm256_madd_epi16(sums, ones) }
    }
}

impl Lanes for Vnni {
    eight_lanes!();
    words_of_bytes!();

    #[inline(always)]
    fn multiply_add(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_dpbusd_avx_epi32(sums, x, w) }
    }
}

impl Lanes for Wide {
    eight_lanes!();
    /// Codes 0 and 2 of the word, then codes 1 and 3, as 16-bit pairs.
    type Word = [__m256i; 2];
    /// Weights 0 and 2 of each lane, then weights 1 and 3, as 16-bit pairs.
    type Weights = [__m256i; 2];
    const WEIGHTS: usize = 64;

    #[inline(always)]
    fn multiply_add(self, sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
        // SAFETY: self proves the features.
        let even = unsafe { _mm256_madd_epi16(x[0], w[0]) };
        // SAFETY: self proves the features.
        let odd = unsafe { _mm256_madd_epi16(x[1], w[1]) };
        self.add(self.add(sums, even), odd)
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
}
