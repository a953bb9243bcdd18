//! F(2x2, 3x3): 16 products a channel for four outputs, in bytes or in words of 16 bits. Transforms of 16 channels of
//! the input or 8 of the output at a time.
//!
//! With `s` an axis of a 4 x 4 patch `d` of codes, of a 3 x 3 window `g` and of the 16 sums `m`:
//!
//! ```text
//! v = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)         input, along both axes
//! u = (g0, g0 + g1 + g2, g0 - g1 + g2, g2)         weights, along both axes; the middle ones are doubled
//! m = sum over channels of u * v
//! 2 y0 = 2 m0 + m1 + m2,  2 y1 = m1 - m2 - 2 m3    output, along both axes: four times the product in all
//! ```
//!
//! Codes up to `x_max` give v in `[-2 x_max, 2 x_max]`, or `[0, 4 x_max]` in the middle position. Up to 6 bits that
//! fits u8 after `2 x_max` is added, and what this adds to the output is a constant of each channel and place,
//! subtracted at the end. Wider codes take 16 bits.

use std::arch::x86_64::*;

use super::{Form, LANES, Lane, Patch, Place, Simd};
use crate::machine::isa::{Avx2, Avx512};
use crate::machine::layout::Layout;
use crate::machine::registers::Registers;

/// Positions of a transformed patch.
pub(super) const POSITIONS: usize = 16;

/// The form on the instructions `simd`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Two {
    pub(super) simd: Simd,
    pub(super) elements: Elements,
}

impl Form<POSITIONS> for Two {
    const NAME: &'static str = "winograd";
    const TILE: usize = 2;

    fn element_bytes(self) -> usize {
        match self.elements {
            Elements::Bytes { .. } => 1,
            Elements::Words => 2,
        }
    }

    /// The patches are four times as large as the codes they come from, and the weights nearly twice: few strips where
    /// both are large.
    fn strip_pixels(cs: usize) -> usize {
        if cs < 128 { 112 } else { 256 }
    }

    #[inline(always)]
    fn weights(g: &[[Lane; 3]; 3]) -> [Lane; POSITIONS] {
        #[inline(always)]
        fn axis(g: [&Lane; 3]) -> [Lane; 4] {
            let mut out = [*g[0], [0; LANES], [0; LANES], *g[2]];
            for l in 0..LANES {
                let ends = g[0][l] + g[2][l];
                (out[1][l], out[2][l]) = (ends + g[1][l], ends - g[1][l]);
            }
            out
        }
        let columns = [0, 1, 2].map(|b| axis([&g[0][b], &g[1][b], &g[2][b]]));
        let rows = [0, 1, 2, 3].map(|y| axis([&columns[0][y], &columns[1][y], &columns[2][y]]));
        std::array::from_fn(|position| rows[position / 4][position % 4])
    }

    fn input(self, patch: Patch<'_>, to: &mut [u8], distance: usize) {
        input(self.simd, self.elements, patch, to, distance);
    }

    fn output(self, sums: &[i32], distance: usize, constants: &[i32], block: usize, to: Place<'_>) {
        output(self.simd, sums, distance, constants, block, to);
    }
}

/// The position whose transformed codes are sums only, and need no offset.
pub(super) const MIDDLE: usize = 5;

/// What transformed codes are stored as.
#[derive(Debug, Clone, Copy)]
pub(super) enum Elements {
    /// u8, with an offset everywhere but in the middle.
    Bytes { offset: u8 },
    /// i16.
    Words,
}

/// Four times the outputs (0, 0), (0, 1), (1, 0), (1, 1) from the sums at every position.
pub(super) fn combine(m: &[i32; POSITIONS]) -> [i32; 4] {
    let axis = |m: [i32; 4]| [2 * m[0] + m[1] + m[2], m[1] - m[2] - 2 * m[3]];
    let columns = [0, 1, 2, 3].map(|j| axis([m[j], m[4 + j], m[8 + j], m[12 + j]]));
    let rows = [0, 1].map(|k| axis([columns[0][k], columns[1][k], columns[2][k], columns[3][k]]));
    [rows[0][0], rows[0][1], rows[1][0], rows[1][1]]
}

/// Transforms all channels of a patch: position k goes to `to[k * distance..]`, in elements.
///
/// # Panics
/// If a pixel is outside the tensor or `to` too short.
fn input(isa: Simd, elements: Elements, patch: Patch<'_>, to: &mut [u8], distance: usize) {
    let Layout { cs, .. } = patch.layout;
    let pixel = |y: usize, x: usize| patch.rows[y] * patch.layout.row() + patch.columns[x] * cs;
    assert!(pixel(3, 3) + cs <= patch.x.len() && cs.is_multiple_of(16), "pixels of a patch");
    let size = if matches!(elements, Elements::Words) { 2 } else { 1 };
    assert!(((POSITIONS - 1) * distance + cs) * size <= to.len(), "transformed patch");
    let pixels: [*const u8; POSITIONS] = std::array::from_fn(|i| patch.x.as_ptr().wrapping_add(pixel(i / 4, i % 4)));
    match (elements, isa) {
        // SAFETY: the token proves AVX-512. Rows and columns do not decrease, so the pixel checked is the last; `to`
        // was checked too.
        (Elements::Bytes { offset }, Simd::Avx512(_)) => unsafe {
            bytes512(&pixels, cs, to.as_mut_ptr(), distance, offset);
        },
        // SAFETY: as above, with AVX2.
        (Elements::Bytes { offset }, Simd::Avx2(_)) => unsafe {
            bytes(&pixels, cs, to.as_mut_ptr(), distance, offset);
        },
        // SAFETY: as above, AVX-512 comes with AVX2; memory for i16 need not be aligned here.
        (Elements::Words, _) => unsafe { words(&pixels, cs, to.as_mut_ptr().cast(), distance) },
    }
}

/// The transform along one axis.
macro_rules! axis {
    ($d:expr, $add:ident, $sub:ident) => {{
        let d = $d;
        [$sub(d[0], d[2]), $add(d[1], d[2]), $sub(d[2], d[1]), $sub(d[1], d[3])]
    }};
}

/// # Safety
/// The CPU has AVX2; `cs` codes are readable at every pixel, `cs` writable at every position of `to`.
#[target_feature(enable = "avx2,fma")]
unsafe fn bytes(pixels: &[*const u8; POSITIONS], cs: usize, to: *mut u8, distance: usize, offset: u8) {
    let offset = _mm_set1_epi8(offset as i8);
    for c in (0..cs).step_by(16) {
        let load = |i: usize| {
            // SAFETY: the caller's promise.
            unsafe { _mm_loadu_si128(pixels[i].wrapping_add(c).cast()) }
        };
        let columns: [[__m128i; 4]; 4] = std::array::from_fn(|j| {
            axis!([load(j), load(4 + j), load(8 + j), load(12 + j)], _mm_add_epi8, _mm_sub_epi8)
        });
        for i in 0..4 {
            let row = axis!([columns[0][i], columns[1][i], columns[2][i], columns[3][i]], _mm_add_epi8, _mm_sub_epi8);
            for (j, v) in row.into_iter().enumerate() {
                let position = 4 * i + j;
                let v = if position == MIDDLE { v } else { _mm_add_epi8(v, offset) };
                // SAFETY: the caller's promise.
                unsafe { _mm_storeu_si128(to.wrapping_add(position * distance + c).cast(), v) };
            }
        }
    }
}

/// # Safety
/// As for [`bytes`], with AVX-512 F, BW, VL and DQ.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn bytes512(pixels: &[*const u8; POSITIONS], cs: usize, to: *mut u8, distance: usize, offset: u8) {
    let offset = _mm512_set1_epi8(offset as i8);
    for c in (0..cs).step_by(64) {
        let mask = u64::MAX >> (64 - (cs - c).min(64));
        let load = |i: usize| {
            // SAFETY: the caller's promise; channels beyond the last are masked.
            unsafe { _mm512_maskz_loadu_epi8(mask, pixels[i].wrapping_add(c).cast()) }
        };
        let columns: [[__m512i; 4]; 4] = std::array::from_fn(|j| {
            axis!([load(j), load(4 + j), load(8 + j), load(12 + j)], _mm512_add_epi8, _mm512_sub_epi8)
        });
        for i in 0..4 {
            let row =
                axis!([columns[0][i], columns[1][i], columns[2][i], columns[3][i]], _mm512_add_epi8, _mm512_sub_epi8);
            for (j, v) in row.into_iter().enumerate() {
                let position = 4 * i + j;
                let v = if position == MIDDLE { v } else { _mm512_add_epi8(v, offset) };
                // SAFETY: the caller's promise.
                unsafe { _mm512_mask_storeu_epi8(to.wrapping_add(position * distance + c).cast(), mask, v) };
            }
        }
    }
}

/// # Safety
/// As for [`bytes`], in 16-bit elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn words(pixels: &[*const u8; POSITIONS], cs: usize, to: *mut i16, distance: usize) {
    for c in (0..cs).step_by(16) {
        let load = |i: usize| {
            // SAFETY: the caller's promise.
            _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(pixels[i].wrapping_add(c).cast()) })
        };
        let columns: [[__m256i; 4]; 4] = std::array::from_fn(|j| {
            axis!([load(j), load(4 + j), load(8 + j), load(12 + j)], _mm256_add_epi16, _mm256_sub_epi16)
        });
        for i in 0..4 {
            let row =
                axis!([columns[0][i], columns[1][i], columns[2][i], columns[3][i]], _mm256_add_epi16, _mm256_sub_epi16);
            for (j, v) in row.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_si256(to.wrapping_add((4 * i + j) * distance + c).cast(), v) };
            }
        }
    }
}

/// The outputs of one tile: `sums[k * distance..]` are those of position k, `block` channels; `constants` are what is
/// to be subtracted from four times the outputs, `[place][block]`.
///
/// # Panics
/// If a slice is too short.
fn output(isa: Simd, sums: &[i32], distance: usize, constants: &[i32], block: usize, to: Place<'_>) {
    let last = (to.rows - 1) * to.row + (to.columns - 1) * to.column;
    assert!(block.is_multiple_of(8) && sums.len() >= (POSITIONS - 1) * distance + block, "sums of a tile");
    assert!(constants.len() >= 4 * block && to.acc.len() >= last + block, "outputs of a tile");
    match isa {
        // SAFETY: the token proves AVX-512; the lengths were checked above.
        Simd::Avx512(token) if block.is_multiple_of(16) => unsafe {
            combined512(token, sums.as_ptr(), distance, constants.as_ptr(), block, to);
        },
        // SAFETY: as above, with AVX2, which comes with AVX-512.
        Simd::Avx512(token) => unsafe {
            combined256(token.avx2(), sums.as_ptr(), distance, constants.as_ptr(), block, to);
        },
        // SAFETY: as above.
        Simd::Avx2(token) => unsafe { combined256(token, sums.as_ptr(), distance, constants.as_ptr(), block, to) },
    }
}

/// The output transform compiled for registers of one kind.
macro_rules! compiled {
    ($token:ident, $features:literal, $combined:ident) => {
        /// # Safety
        /// As for [`combined`].
        #[target_feature(enable = $features)]
        unsafe fn $combined(
            r: $token,
            sums: *const i32,
            distance: usize,
            constants: *const i32,
            block: usize,
            to: Place<'_>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { combined(r, sums, distance, constants, block, to) }
        }
    };
}
compiled!(Avx2, "avx2,fma", combined256);
compiled!(Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", combined512);

/// # Safety
/// The lengths are as [`output`] checks them, `block` is a multiple of a register.
#[inline(always)]
unsafe fn combined<R: Registers>(
    r: R,
    sums: *const i32,
    distance: usize,
    constants: *const i32,
    block: usize,
    to: Place<'_>,
) {
    let first = |m: [R::Ints; 4]| r.add32(r.add32(r.twice32(m[0]), m[1]), m[2]);
    let second = |m: [R::Ints; 4]| r.sub32(r.sub32(m[1], m[2]), r.twice32(m[3]));
    let acc = to.acc.as_mut_ptr();
    for c in (0..block).step_by(R::LANES) {
        let m = |position: usize| {
            // SAFETY: the caller's promise.
            unsafe { r.load(sums.wrapping_add(position * distance + c)) }
        };
        let columns: [[R::Ints; 4]; 2] = {
            let column = |j: usize| [m(j), m(4 + j), m(8 + j), m(12 + j)];
            let columns = [column(0), column(1), column(2), column(3)];
            [columns.map(first), columns.map(second)]
        };
        let outputs = [first(columns[0]), second(columns[0]), first(columns[1]), second(columns[1])];
        for (place, four_times) in outputs.into_iter().enumerate() {
            let Some(at) = to.at(place / 2, place % 2) else { continue };
            // SAFETY: the caller's promise.
            let constant = unsafe { r.load(constants.wrapping_add(place * block + c)) };
            let y = r.fourth32(r.sub32(four_times, constant));
            // SAFETY: the caller's promise.
            unsafe { r.store(acc.wrapping_add(at + c), y) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combine_inverts_the_transforms_of_a_window() {
        // d and g with distinct entries; m = u * v position by position.
        let d: [[i32; 4]; 4] = std::array::from_fn(|y| std::array::from_fn(|x| (7 * y * y + 3 * x + y * x) as i32));
        let g = |a: usize, b: usize| (5 * a + 2 * b * b) as i32 - 4;
        let axis = |d: [i32; 4]| [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]];
        let columns: [[i32; 4]; 4] = std::array::from_fn(|j| axis([d[0][j], d[1][j], d[2][j], d[3][j]]));
        let u = Two::weights(&[0, 1, 2].map(|a| [0, 1, 2].map(|b| [g(a, b) as i16; 16])));
        let m = std::array::from_fn(|k| {
            let row = axis([columns[0][k / 4], columns[1][k / 4], columns[2][k / 4], columns[3][k / 4]]);
            i32::from(u[k][5]) * row[k % 4]
        });
        let y = |r: usize, q: usize| (0..9).map(|t| g(t / 3, t % 3) * d[r + t / 3][q + t % 3]).sum::<i32>();
        assert_eq!(combine(&m), [4 * y(0, 0), 4 * y(0, 1), 4 * y(1, 0), 4 * y(1, 1)]);
    }
}
