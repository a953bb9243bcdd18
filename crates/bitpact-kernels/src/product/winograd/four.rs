//! F(4x4, 3x3): 36 products a channel for sixteen outputs, in words of 16 bits on AVX2.
//!
//! With points 0, 1, -1, 2, -2 and infinity, along each axis of a 6 x 6 patch `d` of codes, of a window `g` and of the 36 sums `m`:
//!
//! ```text
//! v = (4 d0 - 5 d2 + d4,
//!      d4 - 4 d2 + (d3 - 4 d1),  d4 - 4 d2 - (d3 - 4 d1),
//!      d4 - d2 + 2 (d3 - d1),    d4 - d2 - 2 (d3 - d1),
//!      4 d1 - 5 d3 + d5)
//! u = (6 g0,  g0 + g1 + g2,  g0 - g1 + g2,  g0 + 2 g1 + 4 g2,  g0 - 2 g1 + 4 g2,  6 g2)
//! m = sum over channels of u * v
//! 24 y0 = m0 - 4 (m1 + m2) + (m3 + m4)
//! 12 y1 = (m3 - m4) - 2 (m1 - m2)
//!  6 y2 = (m3 + m4) - (m1 + m2)
//!  6 y3 = 2 (m3 - m4) - (m1 - m2) + m5
//! ```
//!
//! Along both axes v stays below 68 times the largest code, 17,340, and u at 49 times the largest weight. The outputs come times 9 and a power of two up to 64;
//! nine has an inverse modulo 2^32, so they are exact where 64 times each fits 32 bits.

use std::arch::x86_64::*;

use super::{Form, LANES, Lane, Patch, Place};
use crate::isa::Avx2;

/// Positions along an axis.
pub(super) const SIDE: usize = 6;

/// Positions of a transformed patch.
pub(super) const POSITIONS: usize = SIDE * SIDE;

/// Outputs along an axis.
const TILE: usize = 4;

/// Largest multiple of a weight in a transformed window.
pub(super) const WEIGHTS: i32 = 49;

/// Largest power of two in the outputs.
pub(super) const OUTPUTS: i64 = 64;

/// The power of two in each output along an axis.
const SHIFTS: [i32; TILE] = [3, 2, 1, 1];

/// 9 times this is 1 modulo 2^32.
const NINTH: i32 = 954_437_177;

#[derive(Debug, Clone, Copy)]
pub(super) struct Four(pub(super) Avx2);

impl Form<POSITIONS> for Four {
    const NAME: &'static str = "winograd4";
    const TILE: usize = TILE;

    fn element_bytes(self) -> usize {
        2
    }

    /// Sums take 36 numbers of 32 bits a tile and channel of a block: of few input channels they are most of the memory.
    fn strip_pixels(cs: usize) -> usize {
        if cs < 32 { 224 } else { 448 }
    }

    #[inline(always)]
    fn weights(g: &[[Lane; 3]; 3]) -> [Lane; POSITIONS] {
        #[inline(always)]
        fn axis(g: [&Lane; 3]) -> [Lane; SIDE] {
            let mut out = [[0; LANES]; SIDE];
            for l in 0..LANES {
                let [a, b, c] = g.map(|g| g[l]);
                let u = [6 * a, a + c + b, a + c - b, a + 4 * c + 2 * b, a + 4 * c - 2 * b, 6 * c];
                out.iter_mut().zip(u).for_each(|(out, u)| out[l] = u);
            }
            out
        }
        let columns = [0, 1, 2].map(|b| axis([&g[0][b], &g[1][b], &g[2][b]]));
        let rows: [_; SIDE] = std::array::from_fn(|y| axis([&columns[0][y], &columns[1][y], &columns[2][y]]));
        std::array::from_fn(|position| rows[position / SIDE][position % SIDE])
    }

    fn input(self, patch: Patch<'_>, to: &mut [u8], distance: usize) {
        let cs = patch.layout.cs;
        let pixel = |y: usize, x: usize| patch.rows[y] * patch.layout.row() + patch.columns[x] * cs;
        assert!(pixel(SIDE - 1, SIDE - 1) + cs <= patch.x.len() && cs.is_multiple_of(16), "pixels of a patch");
        assert!(2 * ((POSITIONS - 1) * distance + cs) <= to.len(), "transformed patch");
        let pixels: [[*const u8; SIDE]; SIDE] =
            std::array::from_fn(|y| std::array::from_fn(|x| patch.x.as_ptr().wrapping_add(pixel(y, x))));
        // SAFETY: the token proves AVX2. Rows and columns do not decrease, so the pixel checked is the last; `to` was checked too.
        unsafe { input(&pixels, cs, to.as_mut_ptr().cast(), distance) }
    }

    fn output(self, sums: &[i32], distance: usize, _constants: &[i32], block: usize, to: Place<'_>) {
        let last = (to.rows - 1) * to.row + (to.columns - 1) * to.column;
        assert!(block.is_multiple_of(8) && sums.len() >= (POSITIONS - 1) * distance + block, "sums of a tile");
        assert!(to.acc.len() >= last + block, "outputs of a tile");
        // SAFETY: the token proves AVX2; the lengths were checked.
        unsafe { output(sums.as_ptr(), distance, block, to) }
    }
}

/// # Safety
/// The CPU has AVX2; `cs` codes are readable at every pixel, `cs` words writable at every position of `to`.
#[target_feature(enable = "avx2,fma")]
unsafe fn input(pixels: &[[*const u8; SIDE]; SIDE], cs: usize, to: *mut i16, distance: usize) {
    let axis = |d: [__m256i; SIDE]| {
        let (add, sub) = (|a, b| _mm256_add_epi16(a, b), |a, b| _mm256_sub_epi16(a, b));
        let four = |a| _mm256_slli_epi16::<2>(a);
        let (p, q, r) = (sub(d[4], four(d[2])), sub(d[3], four(d[1])), sub(d[4], d[2]));
        let s = sub(d[3], d[1]);
        let s = add(s, s);
        let first = add(four(sub(d[0], d[2])), r);
        let last = sub(sub(d[5], d[3]), add(s, s));
        [first, add(p, q), sub(p, q), add(r, s), sub(r, s), last]
    };
    for c in (0..cs).step_by(16) {
        let columns: [[__m256i; SIDE]; SIDE] = std::array::from_fn(|x| {
            axis(std::array::from_fn(|y| {
                // SAFETY: the caller's promise.
                _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(pixels[y][x].wrapping_add(c).cast()) })
            }))
        });
        for y in 0..SIDE {
            for (x, v) in axis(std::array::from_fn(|x| columns[x][y])).into_iter().enumerate() {
                let to = to.wrapping_add((SIDE * y + x) * distance + c);
                // SAFETY: the caller's promise; memory for i16 need not be aligned here.
                unsafe { _mm256_storeu_si256(to.cast(), v) };
            }
        }
    }
}

/// # Safety
/// The CPU has AVX2; `block` sums, a multiple of 8, are readable at every position, and writable at every output of `to`.
#[target_feature(enable = "avx2,fma")]
unsafe fn output(sums: *const i32, distance: usize, block: usize, to: Place<'_>) {
    let axis = |m: [__m256i; SIDE]| {
        let (add, sub) = (|a, b| _mm256_add_epi32(a, b), |a, b| _mm256_sub_epi32(a, b));
        let double = |a| _mm256_slli_epi32::<1>(a);
        let (a, b) = (add(m[1], m[2]), sub(m[1], m[2]));
        let (c, d) = (add(m[3], m[4]), sub(m[3], m[4]));
        [sub(add(m[0], c), _mm256_slli_epi32::<2>(a)), sub(d, double(b)), sub(c, a), add(sub(double(d), b), m[5])]
    };
    let ninth = _mm256_set1_epi32(NINTH);
    let acc = to.acc.as_mut_ptr();
    for c in (0..block).step_by(8) {
        let columns: [[__m256i; TILE]; SIDE] = std::array::from_fn(|x| {
            axis(std::array::from_fn(|y| {
                // SAFETY: the caller's promise.
                unsafe { _mm256_loadu_si256(sums.wrapping_add((SIDE * y + x) * distance + c).cast()) }
            }))
        });
        for i in 0..to.rows {
            for (j, times) in axis(std::array::from_fn(|x| columns[x][i])).into_iter().enumerate() {
                let Some(at) = to.at(i, j) else { continue };
                let shift = _mm_cvtsi32_si128(SHIFTS[i] + SHIFTS[j]);
                let y = _mm256_sra_epi32(_mm256_mullo_epi32(times, ninth), shift);
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_si256(acc.wrapping_add(at + c).cast(), y) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_has_an_inverse() {
        assert_eq!(NINTH.wrapping_mul(9), 1);
    }

    /// The formulas above, one weight and one code at a time: every tap and every place of the patch by itself.
    #[test]
    fn formulas_are_those_of_a_window_of_three() {
        for tap in 0..3 {
            for place in 0..SIDE {
                let (mut g, mut d) = ([0; 3], [0; SIDE]);
                (g[tap], d[place]) = (1, 1);
                let u = [
                    6 * g[0],
                    g[0] + g[1] + g[2],
                    g[0] - g[1] + g[2],
                    g[0] + 2 * g[1] + 4 * g[2],
                    g[0] - 2 * g[1] + 4 * g[2],
                    6 * g[2],
                ];
                let v = [
                    4 * d[0] - 5 * d[2] + d[4],
                    d[4] - 4 * d[2] + (d[3] - 4 * d[1]),
                    d[4] - 4 * d[2] - (d[3] - 4 * d[1]),
                    d[4] - d[2] + 2 * (d[3] - d[1]),
                    d[4] - d[2] - 2 * (d[3] - d[1]),
                    4 * d[1] - 5 * d[3] + d[5],
                ];
                let m: [i32; SIDE] = std::array::from_fn(|k| u[k] * v[k]);
                let y = [
                    m[0] - 4 * (m[1] + m[2]) + (m[3] + m[4]),
                    (m[3] - m[4]) - 2 * (m[1] - m[2]),
                    (m[3] + m[4]) - (m[1] + m[2]),
                    2 * (m[3] - m[4]) - (m[1] - m[2]) + m[5],
                ];
                let expected: [i32; TILE] = std::array::from_fn(|i| (3 * i32::from(place == i + tap)) << SHIFTS[i]);
                assert_eq!(y, expected, "tap {tap}, place {place}");
            }
        }
    }
}
