//! The loop nest of look-ups, and the byte permutes of each instruction set.

use std::arch::x86_64::*;

use super::places::{Strip, Tables};
use crate::isa::{Avx2, Avx512};
use crate::product::tile::{Segment, Source, Sums};

/// One block of channels.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// Offsets and lengths in groups.
    pub(super) segments: &'a [Segment],
    pub(super) indices: &'a [u8],
    pub(super) tables: &'a [u8],
    pub(super) step: i32,
    pub(super) zero: i32,
    /// Sum of the codes each pixel reads, little-endian.
    pub(super) sums: &'a [[u8; 4]],
}

/// The instructions of one path. A value is a proof that the CPU has them, so its safe methods are arithmetic and its unsafe
/// ones are memory accesses. Byte `2 i` of a register belongs to channel `i`, byte `2 i + 1` to channel `BYTES / 2 + i`.
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

    /// The sums of all pixels for one block of `registers` registers, with tables of `terms` terms.
    ///
    /// # Safety
    /// At each of `panel.sums.len()` pixels of `source` the segments' groups are valid for reads of `terms` places of 2 bytes each, and at every
    /// place's value `ENTRIES` bytes of tables; the panel has `registers * BYTES` indices for each group; `to` is valid for writes of `registers * BYTES` numbers at
    /// each pixel.
    unsafe fn run<S: Source>(self, source: S, panel: Panel<'_>, sizes: (usize, usize), to: Sums);
}

/// Adds the entries of `N` groups of `T` terms, at most two places at `xs`. Where registers have 64 bytes a pixel waits for its loads, and
/// reading two places at once saves one.
///
/// # Safety
/// `N * T` places are readable at each pixel, `ENTRIES` bytes of tables at each place's value, `N * V` registers at `index`.
#[inline(always)]
unsafe fn add<S: Shuffle, const P: usize, const V: usize, const T: usize, const N: usize>(
    s: S,
    tables: &[u8],
    xs: [*const u8; P],
    index: *const u8,
    bytes: &mut [[S::Vector; V]; P],
) {
    let indices: [[S::Vector; V]; N] = std::array::from_fn(|group| {
        std::array::from_fn(|v| {
            // SAFETY: the caller's promise.
            unsafe { s.load(index.wrapping_add((group * V + v) * S::BYTES)) }
        })
    });
    for p in 0..P {
        let places = match N * T {
            // SAFETY: the caller's promise: one place.
            1 => u32::from(unsafe { xs[p].cast::<u16>().read_unaligned() }),
            // SAFETY: the caller's promise: two places.
            _ => unsafe { xs[p].cast::<u32>().read_unaligned() },
        };
        for group in 0..N {
            let term = |t: usize| {
                let place = usize::from((places >> (16 * (group * T + t))) as u16);
                // SAFETY: the caller's promise: a place is that of a table.
                unsafe { s.table(tables.as_ptr().wrapping_add(place)) }
            };
            let table = (1..T).fold(term(0), |table, t| s.add_bytes(table, term(t)));
            for v in 0..V {
                bytes[p][v] = s.add_bytes(bytes[p][v], s.entries(table, indices[group][v]));
            }
        }
    }
}

/// The sums of `n` of at most `P` pixels from number `done`.
///
/// # Safety
/// As for [`Shuffle::run`].
#[inline(always)]
unsafe fn tile<S: Shuffle, const P: usize, const V: usize, const T: usize>(
    s: S,
    panel: Panel<'_>,
    xs: [*const u8; P],
    (done, n): (usize, usize),
    to: Sums,
) {
    let mut index = panel.indices.as_ptr();
    let mut bytes = [[s.zeros(); V]; P];
    // Both bytes of each 16 bits as one number, and the odd bytes.
    let mut both = [[s.zeros(); V]; P];
    let mut odd = [[s.zeros(); V]; P];
    for segment in panel.segments {
        let mut at = 2 * T * segment.offset as usize;
        let mut left = segment.words as usize;
        while T == 1 && S::BYTES == 64 && left >= 2 {
            // SAFETY: the caller's promise; two groups are left.
            unsafe { add::<S, P, V, 1, 2>(s, panel.tables, xs.map(|x| x.wrapping_add(at)), index, &mut bytes) };
            (index, at, left) = (index.wrapping_add(2 * V * S::BYTES), at + 4, left - 2);
        }
        while left > 0 {
            // SAFETY: the caller's promise.
            unsafe { add::<S, P, V, T, 1>(s, panel.tables, xs.map(|x| x.wrapping_add(at)), index, &mut bytes) };
            (index, at, left) = (index.wrapping_add(V * S::BYTES), at + 2 * T, left - 1);
        }
        if segment.flush {
            for p in 0..P {
                for v in 0..V {
                    both[p][v] = s.add(both[p][v], bytes[p][v]);
                    odd[p][v] = s.add(odd[p][v], s.odd(bytes[p][v]));
                    bytes[p][v] = s.zeros();
                }
            }
        }
    }
    for p in 0..n {
        let less = panel.zero * u32::from_le_bytes(panel.sums[done + p]) as i32;
        for v in 0..V {
            let even = s.even(both[p][v], odd[p][v]);
            let to = to.first.wrapping_add((done + p) * to.stride + v * S::BYTES);
            // SAFETY: the caller's promise.
            unsafe { s.finish(even, panel.step, less, to) };
            // SAFETY: the caller's promise.
            unsafe { s.finish(odd[p][v], panel.step, less, to.wrapping_add(S::BYTES / 2)) };
        }
    }
}

/// The sums of all pixels, in tiles of `P`.
///
/// # Safety
/// As for [`Shuffle::run`].
#[inline(always)]
unsafe fn run<S: Shuffle, X: Source, const P: usize, const V: usize, const T: usize>(
    s: S,
    mut source: X,
    panel: Panel<'_>,
    to: Sums,
) {
    let pixels = panel.sums.len();
    let mut done = 0;
    while done < pixels {
        let n = (pixels - done).min(P);
        match n {
            // SAFETY: the caller's promise; these n pixels are among `pixels`.
            1 => unsafe { tile::<S, 1, V, T>(s, panel, source.take(n), (done, n), to) },
            // SAFETY: as above.
            2 => unsafe { tile::<S, 2, V, T>(s, panel, source.take(n), (done, n), to) },
            // SAFETY: as above.
            3..=4 => unsafe { tile::<S, 4, V, T>(s, panel, source.take(n), (done, n), to) },
            // SAFETY: as above.
            _ => unsafe { tile::<S, P, V, T>(s, panel, source.take(n), (done, n), to) },
        }
        done += n;
    }
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
pub(super) struct Vbmi(());

impl Vbmi {
    /// The token, where the CPU has the features.
    pub(super) fn detect(_: Avx512) -> Option<Vbmi> {
        is_x86_feature_detected!("avx512vbmi").then_some(Vbmi(()))
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
            _ => tables.fill(strip),
        }
    }

    run!(
        Vbmi, "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,fma",
        (1, 1): 8, (2, 1): 5, (1, 2): 8, (2, 2): 5
    );
}
