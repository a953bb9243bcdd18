//! AVX2 kernels over bytes: `vpmaddubsw` with sums of 16 bits where the codes are known to be small, AVX-VNNI's `vpdpbusd`.

use std::arch::x86_64::*;

use super::kernel::{self, Base, Lanes};
use super::sweep::Sweep;
use crate::isa::{Avx2, AvxVnni};

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

/// Words of four bytes in eight lanes.
macro_rules! words_of_bytes {
    () => {
        type X = u8;
        type W = i8;
        type Y = i32;
        type Sums = __m256i;
        type Word = __m256i;
        type Weights = __m256i;
        const WIDTH: usize = 8;
        const WORD: usize = 4;
        const WEIGHTS: usize = 32;
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

impl Lanes for Narrow {
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
    words_of_bytes!();

    #[inline(always)]
    fn multiply_add(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_dpbusd_avx_epi32(sums, x, w) }
    }
}
