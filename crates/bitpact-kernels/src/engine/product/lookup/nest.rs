//! The loop nest of look-ups: tiles of pixels times registers of channels, over segments of groups.

use super::shuffle::Shuffle;
use crate::engine::product::tile::{Segment, Source, Sums};
use crate::machine::registers::Registers;

/// A register of a [`Shuffle`].
type Vector<S> = <<S as Shuffle>::Isa as Registers>::Ints;

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

/// Adds the entries of `N` groups of `T` terms, at most two places at `xs`. Where registers have 64 bytes a pixel waits
/// for its loads, and reading two places at once saves one.
///
/// # Safety
/// `N * T` places are readable at each pixel, `ENTRIES` bytes of tables at each place's value, `N * V` registers at
/// `index`.
#[inline(always)]
unsafe fn add<S: Shuffle, const P: usize, const V: usize, const T: usize, const N: usize>(
    s: S,
    tables: &[u8],
    xs: [*const u8; P],
    index: *const u8,
    bytes: &mut [[Vector<S>; V]; P],
) {
    let indices: [[Vector<S>; V]; N] = std::array::from_fn(|group| {
        std::array::from_fn(|v| {
            // SAFETY: the caller's promise.
            unsafe { s.isa().load(index.wrapping_add((group * V + v) * S::Isa::BYTES)) }
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
            let table = (1..T).fold(term(0), |table, t| s.isa().add8(table, term(t)));
            for v in 0..V {
                bytes[p][v] = s.isa().add8(bytes[p][v], s.entries(table, indices[group][v]));
            }
        }
    }
}

/// The sums of `n` of at most `P` pixels from number `done`.
///
/// # Safety
/// As for [`Shuffle::run`].
#[inline(always)]
unsafe fn lookup_tile<S: Shuffle, const P: usize, const V: usize, const T: usize>(
    s: S,
    panel: Panel<'_>,
    xs: [*const u8; P],
    (done, n): (usize, usize),
    to: Sums,
) {
    let mut index = panel.indices.as_ptr();
    let mut bytes = [[s.isa().zeros(); V]; P];
    // Both bytes of each 16 bits as one number, and the odd bytes.
    let mut both = [[s.isa().zeros(); V]; P];
    let mut odd = [[s.isa().zeros(); V]; P];
    for segment in panel.segments {
        let mut at = 2 * T * segment.offset as usize;
        let mut left = segment.words as usize;
        while T == 1 && S::Isa::BYTES == 64 && left >= 2 {
            // SAFETY: the caller's promise; two groups are left.
            unsafe { add::<S, P, V, 1, 2>(s, panel.tables, xs.map(|x| x.wrapping_add(at)), index, &mut bytes) };
            (index, at, left) = (index.wrapping_add(2 * V * S::Isa::BYTES), at + 4, left - 2);
        }
        while left > 0 {
            // SAFETY: the caller's promise.
            unsafe { add::<S, P, V, T, 1>(s, panel.tables, xs.map(|x| x.wrapping_add(at)), index, &mut bytes) };
            (index, at, left) = (index.wrapping_add(V * S::Isa::BYTES), at + 2 * T, left - 1);
        }
        if segment.flush {
            for p in 0..P {
                for v in 0..V {
                    both[p][v] = s.isa().add16(both[p][v], bytes[p][v]);
                    odd[p][v] = s.isa().add16(odd[p][v], s.isa().upper_bytes(bytes[p][v]));
                    bytes[p][v] = s.isa().zeros();
                }
            }
        }
    }
    for p in 0..n {
        let less = panel.zero * u32::from_le_bytes(panel.sums[done + p]) as i32;
        for v in 0..V {
            let even = s.isa().sub16(both[p][v], s.isa().raised_bytes(odd[p][v]));
            let to = to.first.wrapping_add((done + p) * to.stride + v * S::Isa::BYTES);
            // SAFETY: the caller's promise.
            unsafe { finish(s.isa(), even, panel.step, less, to) };
            // SAFETY: the caller's promise.
            unsafe { finish(s.isa(), odd[p][v], panel.step, less, to.wrapping_add(S::Isa::BYTES / 2)) };
        }
    }
}

/// Writes `step * sums - less` of `WORDS` sums of 16 bits without sign.
///
/// # Safety
/// `to` is valid for writes of `WORDS` numbers.
#[inline(always)]
unsafe fn finish<R: Registers>(r: R, sums: R::Ints, step: i32, less: i32, to: *mut i32) {
    let halves = [r.first_words(sums), r.last_words(sums)];
    for (i, half) in halves.into_iter().enumerate() {
        let sums = r.sub32(r.multiply32(half, r.splat32(step)), r.splat32(less));
        // SAFETY: the caller's promise, half of it.
        unsafe { r.store(to.wrapping_add(R::LANES * i), sums) };
    }
}

/// The sums of all pixels, in tiles of `P`.
///
/// # Safety
/// As for [`Shuffle::run`].
#[inline(always)]
pub(super) unsafe fn run<S: Shuffle, X: Source, const P: usize, const V: usize, const T: usize>(
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
            1 => unsafe { lookup_tile::<S, 1, V, T>(s, panel, source.take(n), (done, n), to) },
            // SAFETY: as above.
            2 => unsafe { lookup_tile::<S, 2, V, T>(s, panel, source.take(n), (done, n), to) },
            // SAFETY: as above.
            3..=4 => unsafe { lookup_tile::<S, 4, V, T>(s, panel, source.take(n), (done, n), to) },
            // SAFETY: as above.
            _ => unsafe { lookup_tile::<S, P, V, T>(s, panel, source.take(n), (done, n), to) },
        }
        done += n;
    }
}
