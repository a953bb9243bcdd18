//! The byte permutes of each instruction set.

use std::arch::x86_64::{__m512i, _mm512_permutexvar_epi8};

use super::nest::{Panel, run};
use super::places::{Strip, Tables};
use crate::engine::product::tile::{Source, Sums};
use crate::machine::isa::{Avx2, Avx512};
use crate::machine::registers::Registers;

/// The instructions of one path. A value is a proof that the CPU has them, so its safe methods are arithmetic and its
/// unsafe ones are memory accesses. Byte `2 i` of a register belongs to channel `i`, byte `2 i + 1` to channel `BYTES /
/// 2 + i`.
pub(super) trait Shuffle: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The registers it works on.
    type Isa: Registers;
    /// Bytes of a table.
    const ENTRIES: usize;
    /// Most tables that are added up to one.
    const MOST_TERMS: usize;
    /// Tile and instructions.
    const NAME: &'static str;

    /// The channel of a byte of several registers.
    fn channel(byte: usize) -> usize {
        let (register, byte) = (byte / Self::Isa::BYTES, byte % Self::Isa::BYTES);
        register * Self::Isa::BYTES + byte / 2 + byte % 2 * (Self::Isa::BYTES / 2)
    }

    /// The proof that the CPU has the registers.
    fn isa(self) -> Self::Isa;
    /// The entries of `table` that `index` names.
    fn entries(
        self,
        table: <Self::Isa as Registers>::Ints,
        index: <Self::Isa as Registers>::Ints,
    ) -> <Self::Isa as Registers>::Ints;
    /// A table, as often as it fits.
    ///
    /// # Safety
    /// `at` is valid for reads of `ENTRIES` bytes.
    unsafe fn table(self, at: *const u8) -> <Self::Isa as Registers>::Ints;

    /// Writes the places and the sums of a strip.
    fn fill(self, tables: &Tables, strip: Strip<'_>);

    /// The sums of all pixels for one block; `sizes` are its registers and the terms of a table.
    ///
    /// # Safety
    /// At each of `panel.sums.len()` pixels of `source` the segments' groups are valid for reads of a place of 2 bytes
    /// for each term, and at every place's value `ENTRIES` bytes of tables; the panel has `BYTES` indices for each
    /// register and group; `to` is valid for writes of `BYTES` numbers for each register at each pixel.
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
    ($shuffle:ty, $features:literal, $(($registers:literal, $terms:literal): $pixels:literal),+) => {
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

/// `vpshufb`: tables of 16 entries, a channel for each byte of a register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sixteen<I>(pub(super) I);

macro_rules! sixteen {
    ($isa:ident, $name:literal, $features:literal, $($tile:tt)+) => {
        impl Shuffle for Sixteen<$isa> {
            type Isa = $isa;
            const ENTRIES: usize = 16;
            const MOST_TERMS: usize = 1;
            const NAME: &'static str = $name;

            #[inline(always)]
            fn isa(self) -> $isa {
                self.0
            }

            #[inline(always)]
            fn entries(
                self,
                table: <$isa as Registers>::Ints,
                index: <$isa as Registers>::Ints,
            ) -> <$isa as Registers>::Ints {
                self.0.look_up(table, index)
            }

            #[inline(always)]
            unsafe fn table(self, at: *const u8) -> <$isa as Registers>::Ints {
                // SAFETY: the caller promises 16 readable bytes.
                unsafe { self.0.splat_sixteen(at) }
            }

            fill!($features);
            run!(Sixteen<$isa>, $features, $($tile)+);
        }
    };
}
sixteen!(Avx2, "avx2_vpshufb", "avx2,fma", (1, 1): 8, (2, 1): 4);
sixteen!(Avx512, "avx512_vpshufb", "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", (1, 1): 8, (2, 1): 5);

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
    type Isa = Avx512;
    const ENTRIES: usize = 64;
    const MOST_TERMS: usize = 2;
    const NAME: &'static str = "avx512_vpermb";

    #[inline(always)]
    fn isa(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn entries(self, table: __m512i, index: __m512i) -> __m512i {
        // SAFETY: a `Vbmi` exists only where the CPU has the instruction, which touches no memory.
        unsafe { _mm512_permutexvar_epi8(index, table) }
    }

    #[inline(always)]
    unsafe fn table(self, at: *const u8) -> __m512i {
        // SAFETY: the caller promises 64 readable bytes.
        unsafe { self.0.load(at) }
    }

    fn fill(self, tables: &Tables, strip: Strip<'_>) {
        match tables.codes {
            3 => tables.fill_threes(self, strip),
            _ => Sixteen(self.0).fill(tables, strip),
        }
    }

    run!(
        Vbmi, "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,fma",
        (1, 1): 8, (2, 1): 5, (1, 2): 8, (2, 2): 5
    );
}
