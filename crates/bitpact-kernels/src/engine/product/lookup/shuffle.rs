//! The byte permutes of each instruction set.

use std::arch::x86_64::*;

use super::nest::{Panel, run};
use super::places::{Strip, Tables};
use crate::engine::product::tile::{Source, Sums};
use crate::machine::isa::{Avx2, Avx512};

/// The instructions of one path. A value is a proof that the CPU has them, so its safe methods are arithmetic and its
/// unsafe ones are memory accesses. Byte `2 i` of a register belongs to channel `i`, byte `2 i + 1` to channel `BYTES /
/// 2 + i`.
pub(super) trait Shuffle: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// A register.
    type Vector: Copy;
    /// Bytes of a register.
    const BYTES: usize;
    /// Bytes of a table.
    const ENTRIES: usize;
    /// Most tables that are added up to one.
    const MOST_TERMS: usize;
    /// Tile and instructions.
    const NAME: &'static str;

    /// The channel of a byte of several registers.
    fn channel(byte: usize) -> usize {
        let (register, byte) = (byte / Self::BYTES, byte % Self::BYTES);
        register * Self::BYTES + byte / 2 + byte % 2 * (Self::BYTES / 2)
    }

    /// Zeros.
    fn zeros(self) -> Self::Vector;
    /// The entries of `table` that `index` names.
    fn entries(self, table: Self::Vector, index: Self::Vector) -> Self::Vector;
    /// a + b, bytes.
    fn add_bytes(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a + b, 16-bit numbers modulo 2^16.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The odd bytes, as 16-bit numbers.
    fn odd(self, a: Self::Vector) -> Self::Vector;
    /// `both` - 256 * `odd`, 16-bit numbers modulo 2^16.
    fn even(self, both: Self::Vector, odd: Self::Vector) -> Self::Vector;
    /// A table, as often as it fits.
    ///
    /// # Safety
    /// `at` is valid for reads of `ENTRIES` bytes.
    unsafe fn table(self, at: *const u8) -> Self::Vector;
    /// A register from memory.
    ///
    /// # Safety
    /// `at` is valid for reads of `BYTES` bytes.
    unsafe fn load(self, at: *const u8) -> Self::Vector;
    /// Writes `step * sums - less` of `BYTES / 2` sums of 16 bits without sign.
    ///
    /// # Safety
    /// `to` is valid for writes of `BYTES / 2` numbers.
    unsafe fn finish(self, sums: Self::Vector, step: i32, less: i32, to: *mut i32);

    /// Writes the places and the sums of a strip.
    fn fill(self, tables: &Tables, strip: Strip<'_>);

    /// The sums of all pixels for one block; `sizes` are its registers and the terms of a table.
    ///
    /// # Safety
    /// At each of `panel.sums.len()` pixels of `source` the segments' groups are valid for reads of a place of 2 bytes for each term, and at every
    /// place's value `ENTRIES` bytes of tables; the panel has `BYTES` indices for each register and group; `to` is valid for writes of
    /// `BYTES` numbers for each register at each pixel.
    unsafe fn run<S: Source>(self, source: S, panel: Panel<'_>, sizes: (usize, usize), to: Sums);
}

macro_rules! fill {
    ($features:literal) => {
        fn fill(self, tables: &Tables, strip: Strip<'_>) {
            #[target_feature(enable = $features)]
            fn compiled(tables: &Tables, strip: Strip<'_>) {
                tables.fill(strip);
            }
            // SAFETY: self proves the features.
            unsafe { compiled(tables, strip) }
        }
    };
}

macro_rules! run {
    ($shuffle:ident, $features:literal, $(($registers:literal, $terms:literal): $pixels:literal),+) => {
        unsafe fn run<S: Source>(self, source: S, panel: Panel<'_>, sizes: (usize, usize), to: Sums) {
            #[target_feature(enable = $features)]
            unsafe fn compiled<S: Source>(
                s: $shuffle,
                source: S,
                panel: Panel<'_>,
                sizes: (usize, usize),
                to: Sums,
            ) {
                match sizes {
                    // SAFETY: the caller's promise.
                    $(($registers, $terms) => unsafe { run::<_, S, $pixels, $registers, $terms>(s, source, panel, to) },)+
                    sizes => panic!("{sizes:?} registers and terms"),
                }
            }
            // SAFETY: self proves the features; the rest is the caller's promise.
            unsafe { compiled(self, source, panel, sizes, to) }
        }
    };
}

/// AVX2: `vpshufb` on 32 channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2Bytes(pub(super) Avx2);

impl Shuffle for Avx2Bytes {
    type Vector = __m256i;
    const BYTES: usize = 32;
    const ENTRIES: usize = 16;
    const MOST_TERMS: usize = 1;
    const NAME: &'static str = "avx2_vpshufb";

    #[inline(always)]
    fn zeros(self) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn entries(self, table: __m256i, index: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_shuffle_epi8(table, index) }
    }

    #[inline(always)]
    fn add_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_add_epi8(a, b) }
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_add_epi16(a, b) }
    }

    #[inline(always)]
    fn odd(self, a: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_srli_epi16::<8>(a) }
    }

    #[inline(always)]
    fn even(self, both: __m256i, odd: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        let high = unsafe { _mm256_slli_epi16::<8>(odd) };
        // SAFETY: self proves the features.
        unsafe { _mm256_sub_epi16(both, high) }
    }

    #[inline(always)]
    unsafe fn table(self, at: *const u8) -> __m256i {
        // SAFETY: the caller promises 16 readable bytes.
        let table = unsafe { at.cast::<__m128i>().read_unaligned() };
        // SAFETY: self proves the features.
        unsafe { _mm256_broadcastsi128_si256(table) }
    }

    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> __m256i {
        // SAFETY: self proves the features; the caller promises 32 readable bytes.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn finish(self, sums: __m256i, step: i32, less: i32, to: *mut i32) {
        // SAFETY: self proves the features.
        let low = unsafe { _mm256_castsi256_si128(sums) };
        // SAFETY: self proves the features.
        let high = unsafe { _mm256_extracti128_si256::<1>(sums) };
        // SAFETY: self proves the features.
        let step = unsafe { _mm256_set1_epi32(step) };
        // SAFETY: self proves the features.
        let less = unsafe { _mm256_set1_epi32(less) };
        for (i, half) in [low, high].into_iter().enumerate() {
            // SAFETY: self proves the features.
            let wide = unsafe { _mm256_cvtepu16_epi32(half) };
            // SAFETY: self proves the features.
            let scaled = unsafe { _mm256_mullo_epi32(wide, step) };
            // SAFETY: self proves the features.
            let sums = unsafe { _mm256_sub_epi32(scaled, less) };
            // SAFETY: self proves the features; the caller promises 16 writable numbers.
            unsafe { _mm256_storeu_si256(to.wrapping_add(8 * i).cast(), sums) };
        }
    }

    fill!("avx2,fma");
    run!(Avx2Bytes, "avx2,fma", (1, 1): 8, (2, 1): 4);
}

/// Registers of 64 bytes, the common part.
macro_rules! zmm {
    () => {
        type Vector = __m512i;
        const BYTES: usize = 64;

        #[inline(always)]
        fn zeros(self) -> __m512i {
            // SAFETY: self proves the features.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        fn add_bytes(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: self proves the features.
            unsafe { _mm512_add_epi8(a, b) }
        }

        #[inline(always)]
        fn add(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: self proves the features.
            unsafe { _mm512_add_epi16(a, b) }
        }

        #[inline(always)]
        fn odd(self, a: __m512i) -> __m512i {
            // SAFETY: self proves the features.
            unsafe { _mm512_srli_epi16::<8>(a) }
        }

        #[inline(always)]
        fn even(self, both: __m512i, odd: __m512i) -> __m512i {
            // SAFETY: self proves the features.
            let high = unsafe { _mm512_slli_epi16::<8>(odd) };
            // SAFETY: self proves the features.
            unsafe { _mm512_sub_epi16(both, high) }
        }

        #[inline(always)]
        unsafe fn load(self, at: *const u8) -> __m512i {
            // SAFETY: self proves the features; the caller promises 64 readable bytes.
            unsafe { _mm512_loadu_si512(at.cast()) }
        }

        #[inline(always)]
        unsafe fn finish(self, sums: __m512i, step: i32, less: i32, to: *mut i32) {
            // SAFETY: self proves the features.
            let low = unsafe { _mm512_castsi512_si256(sums) };
            // SAFETY: self proves the features.
            let high = unsafe { _mm512_extracti64x4_epi64::<1>(sums) };
            // SAFETY: self proves the features.
            let step = unsafe { _mm512_set1_epi32(step) };
            // SAFETY: self proves the features.
            let less = unsafe { _mm512_set1_epi32(less) };
            for (i, half) in [low, high].into_iter().enumerate() {
                // SAFETY: self proves the features.
                let wide = unsafe { _mm512_cvtepu16_epi32(half) };
                // SAFETY: self proves the features.
                let scaled = unsafe { _mm512_mullo_epi32(wide, step) };
                // SAFETY: self proves the features.
                let sums = unsafe { _mm512_sub_epi32(scaled, less) };
                // SAFETY: self proves the features; the caller promises 32 writable numbers.
                unsafe { _mm512_storeu_si512(to.wrapping_add(16 * i).cast(), sums) };
            }
        }
    };
}

/// AVX-512: `vpshufb` on 64 channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512Bytes(pub(super) Avx512);

impl Shuffle for Avx512Bytes {
    zmm!();
    const ENTRIES: usize = 16;
    const MOST_TERMS: usize = 1;
    const NAME: &'static str = "avx512_vpshufb";

    #[inline(always)]
    fn entries(self, table: __m512i, index: __m512i) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_shuffle_epi8(table, index) }
    }

    #[inline(always)]
    unsafe fn table(self, at: *const u8) -> __m512i {
        // SAFETY: the caller promises 16 readable bytes.
        let table = unsafe { at.cast::<__m128i>().read_unaligned() };
        // SAFETY: self proves the features.
        unsafe { _mm512_broadcast_i32x4(table) }
    }

    fill!("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma");
    run!(Avx512Bytes, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", (1, 1): 8, (2, 1): 5);
}

/// AVX-512 VBMI: `vpermb` on 64 channels, tables of 64 entries. Exists only where the CPU has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vbmi(Avx512);

impl Vbmi {
    /// The token, where the CPU has the features.
    pub(super) fn detect(token: Avx512) -> Option<Vbmi> {
        is_x86_feature_detected!("avx512vbmi").then_some(Vbmi(token))
    }
}

impl Shuffle for Vbmi {
    zmm!();
    const ENTRIES: usize = 64;
    const MOST_TERMS: usize = 2;
    const NAME: &'static str = "avx512_vpermb";

    #[inline(always)]
    fn entries(self, table: __m512i, index: __m512i) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_permutexvar_epi8(index, table) }
    }

    #[inline(always)]
    unsafe fn table(self, at: *const u8) -> __m512i {
        // SAFETY: self proves the features; the caller promises 64 readable bytes.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    fn fill(self, tables: &Tables, strip: Strip<'_>) {
        match tables.codes {
            3 => tables.fill_threes(self, strip),
            _ => Avx512Bytes(self.0).fill(tables, strip),
        }
    }

    run!(
        Vbmi, "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,fma",
        (1, 1): 8, (2, 1): 5, (1, 2): 8, (2, 2): 5
    );
}
