//! The multiply-add of each instruction set: four codes of x with four weights in every lane.

use std::arch::x86_64::*;

use crate::machine::isa::{Avx2, Avx512, AvxVnni};

/// The instructions of one path. A value is a proof that the CPU has them, so its safe methods are arithmetic and its
/// unsafe ones are memory accesses. A lane of 32 bits belongs to one output channel.
pub(super) trait Dot: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// A register.
    type Vector: Copy;
    /// Lanes of a register.
    const LANES: usize;
    /// Most that the positive, or the negative, products of a 16-bit half lane may sum up to before [`Dot::widen`];
    /// `None` where sums have 32 bits from the start.
    const REACH: Option<i64>;

    /// Zero sums.
    fn zero(self) -> Self::Vector;
    /// `sums` + the products of the four codes in `x` with the four weights in `w`.
    fn dot(self, sums: Self::Vector, x: Self::Vector, w: Self::Vector) -> Self::Vector;
    /// Sums as 32-bit numbers.
    fn widen(self, sums: Self::Vector) -> Self::Vector;
    /// a + b, 32-bit numbers.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Four codes in every lane.
    ///
    /// # Safety
    /// `x` is valid for reads of 4 bytes.
    unsafe fn broadcast(self, x: *const u8) -> Self::Vector;
    /// A register from memory.
    ///
    /// # Safety
    /// `at` is valid for reads of `4 * LANES` bytes.
    unsafe fn load<T>(self, at: *const T) -> Self::Vector;
    /// A register to memory.
    ///
    /// # Safety
    /// `at` is valid for writes of `4 * LANES` bytes.
    unsafe fn store(self, at: *mut i32, value: Self::Vector);
}

/// Registers of 8 lanes, the common part.
macro_rules! ymm {
    () => {
        type Vector = __m256i;
        const LANES: usize = 8;

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
        unsafe fn broadcast(self, x: *const u8) -> __m256i {
            // SAFETY: the caller promises 4 readable bytes.
            let x = unsafe { x.cast::<i32>().read_unaligned() };
            // SAFETY: self proves the features.
            unsafe { _mm256_set1_epi32(x) }
        }

        #[inline(always)]
        unsafe fn load<T>(self, at: *const T) -> __m256i {
            // SAFETY: self proves the features; the caller promises 32 readable bytes.
            unsafe { _mm256_loadu_si256(at.cast()) }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut i32, value: __m256i) {
            // SAFETY: self proves the features; the caller promises 32 writable bytes.
            unsafe { _mm256_storeu_si256(at.cast(), value) }
        }
    };
}

/// AVX2 with sums of 16 bits, two a lane: `vpmaddubsw` and an addition for 32 products, where the range of the codes
/// proves that many of them fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow(pub(super) Avx2);

impl Dot for Narrow {
    ymm!();
    const REACH: Option<i64> = Some(i16::MAX as i64);

    #[inline(always)]
    fn dot(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        let products = unsafe { _mm256_maddubs_epi16(x, w) };
        // SAFETY: self proves the features.
        unsafe { _mm256_add_epi16(sums, products) }
    }

    #[inline(always)]
    fn widen(self, sums: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        let ones = unsafe { _mm256_set1_epi16(1) };
        // SAFETY: self proves the features.
        unsafe { _mm256_madd_epi16(sums, ones) }
    }
}

/// AVX2 on words of two signed 16-bit numbers: `vpmaddwd`. Sums wrap around modulo 2^32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words16(pub(super) Avx2);

impl Dot for Words16 {
    ymm!();
    const REACH: Option<i64> = None;

    #[inline(always)]
    fn dot(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        self.add(sums, unsafe { _mm256_madd_epi16(x, w) })
    }

    #[inline(always)]
    fn widen(self, sums: __m256i) -> __m256i {
        sums
    }
}

/// AVX-VNNI: `vpdpbusd` on 8 lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vnni256(pub(super) AvxVnni);

impl Dot for Vnni256 {
    ymm!();
    const REACH: Option<i64> = None;

    #[inline(always)]
    fn dot(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_dpbusd_avx_epi32(sums, x, w) }
    }

    #[inline(always)]
    fn widen(self, sums: __m256i) -> __m256i {
        sums
    }
}

/// Registers of 16 lanes, the common part.
macro_rules! zmm {
    () => {
        type Vector = __m512i;
        const LANES: usize = 16;
        const REACH: Option<i64> = None;

        #[inline(always)]
        fn zero(self) -> __m512i {
            // SAFETY: self proves the features.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        fn widen(self, sums: __m512i) -> __m512i {
            sums
        }

        #[inline(always)]
        fn add(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: self proves the features.
            unsafe { _mm512_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn broadcast(self, x: *const u8) -> __m512i {
            // SAFETY: the caller promises 4 readable bytes.
            let x = unsafe { x.cast::<i32>().read_unaligned() };
            // SAFETY: self proves the features.
            unsafe { _mm512_set1_epi32(x) }
        }

        #[inline(always)]
        unsafe fn load<T>(self, at: *const T) -> __m512i {
            // SAFETY: self proves the features; the caller promises 64 readable bytes.
            unsafe { _mm512_loadu_si512(at.cast()) }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut i32, value: __m512i) {
            // SAFETY: self proves the features; the caller promises 64 writable bytes.
            unsafe { _mm512_storeu_si512(at.cast(), value) }
        }
    };
}

/// AVX-512 VNNI: `vpdpbusd` on 16 lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vnni512(pub(super) Avx512);

impl Dot for Vnni512 {
    zmm!();

    #[inline(always)]
    fn dot(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_dpbusd_epi32(sums, x, w) }
    }
}

/// AVX-512 VNNI on words of two signed 16-bit numbers: `vpdpwssd`. Sums wrap around modulo 2^32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words512(pub(super) Avx512);

impl Dot for Words512 {
    zmm!();

    #[inline(always)]
    fn dot(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_dpwssd_epi32(sums, x, w) }
    }
}
