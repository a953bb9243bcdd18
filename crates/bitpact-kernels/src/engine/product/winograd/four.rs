//! F(4x4, 3x3): 36 products a channel for sixteen outputs, in words of 16 bits.
//!
//! With points 0, 1, -1, 2, -2 and infinity, along each axis of a 6 x 6 patch `d` of codes, of a window `g` and of the
//! 36 sums `m`:
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
//! Along both axes v stays below 68 times the largest code, 17,340, and u at 49 times the largest weight. The outputs
//! come times 9 and a power of two up to 64; nine has an inverse modulo 2^32, so they are exact where 64 times each
//! fits 32 bits.

use std::ops::Range;

use super::{Form, LANES, Lane, Patch, Place, Simd};
use crate::machine::isa::{Avx2, Avx512};
use crate::machine::registers::Registers;

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
pub(super) struct Four(pub(super) Simd);

impl Form<POSITIONS> for Four {
    const NAME: &'static str = "winograd4";
    const TILE: usize = TILE;

    fn element_bytes(self) -> usize {
        2
    }

    /// Sums take 36 numbers of 32 bits a tile and channel of a block: of few input channels they are most of the
    /// memory.
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
        let to = to.as_mut_ptr().cast();
        // The last sixteen channels of an odd number of them fill a register of AVX2 only.
        let (token, rest) = match self.0 {
            Simd::Avx512(token) => {
                // SAFETY: the token proves AVX-512. Rows and columns do not decrease, so the pixel checked is the last;
                // `to` was checked too.
                unsafe { input512(token, &pixels, 0..cs / 32 * 32, to, distance) };
                (token.avx2(), cs / 32 * 32..cs)
            }
            Simd::Avx2(token) => (token, 0..cs),
        };
        // SAFETY: as above; AVX2 comes with AVX-512.
        unsafe { input256(token, &pixels, rest, to, distance) }
    }

    fn output(self, sums: &[i32], distance: usize, _constants: &[i32], block: usize, to: Place<'_>) {
        let last = (to.rows - 1) * to.row + (to.columns - 1) * to.column;
        assert!(block.is_multiple_of(16) && sums.len() >= (POSITIONS - 1) * distance + block, "sums of a tile");
        assert!(to.acc.len() >= last + block, "outputs of a tile");
        match self.0 {
            // SAFETY: the token proves AVX2; the lengths were checked.
            Simd::Avx2(token) => unsafe { output256(token, sums.as_ptr(), distance, block, to) },
            // SAFETY: as above, with AVX-512.
            Simd::Avx512(token) => unsafe { output512(token, sums.as_ptr(), distance, block, to) },
        }
    }
}

/// The transforms compiled for registers of one kind.
macro_rules! compiled {
    ($token:ident, $features:literal, $input:ident, $output:ident) => {
        /// # Safety
        /// As for [`input`].
        #[target_feature(enable = $features)]
        unsafe fn $input(
            r: $token,
            pixels: &[[*const u8; SIDE]; SIDE],
            channels: Range<usize>,
            to: *mut i16,
            distance: usize,
        ) {
            // SAFETY: the caller's promise.
            unsafe { input(r, pixels, channels, to, distance) }
        }

        /// # Safety
        /// As for [`output`].
        #[target_feature(enable = $features)]
        unsafe fn $output(r: $token, sums: *const i32, distance: usize, block: usize, to: Place<'_>) {
            // SAFETY: the caller's promise.
            unsafe { output(r, sums, distance, block, to) }
        }
    };
}
compiled!(Avx2, "avx2,fma", input256, output256);
compiled!(Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", input512, output512);

/// Transforms the codes of some channels, a multiple of a register.
///
/// # Safety
/// The channels are readable at every pixel, and writable as words at every position of `to`.
#[inline(always)]
unsafe fn input<R: Registers>(
    r: R,
    pixels: &[[*const u8; SIDE]; SIDE],
    channels: Range<usize>,
    to: *mut i16,
    distance: usize,
) {
    for c in channels.step_by(R::WORDS) {
        let columns: [[R::Ints; SIDE]; SIDE] = std::array::from_fn(|x| {
            let column = std::array::from_fn(|y| {
                // SAFETY: the caller's promise.
                unsafe { r.load_codes(pixels[y][x].wrapping_add(c)) }
            });
            input_axis(r, column)
        });
        for y in 0..SIDE {
            let row = input_axis(r, std::array::from_fn(|x| columns[x][y]));
            for (x, v) in row.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { r.store(to.wrapping_add((SIDE * y + x) * distance + c), v) };
            }
        }
    }
}

#[inline(always)]
fn input_axis<R: Registers>(r: R, d: [R::Ints; SIDE]) -> [R::Ints; SIDE] {
    let far = r.sub16(d[4], r.four_times16(d[2]));
    let far_odd = r.sub16(d[3], r.four_times16(d[1]));
    let near = r.sub16(d[4], d[2]);
    let near_odd = r.twice16(r.sub16(d[3], d[1]));
    [
        r.add16(r.four_times16(r.sub16(d[0], d[2])), near),
        r.add16(far, far_odd),
        r.sub16(far, far_odd),
        r.add16(near, near_odd),
        r.sub16(near, near_odd),
        r.sub16(r.sub16(d[5], d[3]), r.twice16(near_odd)),
    ]
}

/// The outputs of a tile from its sums.
///
/// # Safety
/// `block` sums, a multiple of 16, are readable at every position, and writable at every output of `to`.
#[inline(always)]
unsafe fn output<R: Registers>(r: R, sums: *const i32, distance: usize, block: usize, to: Place<'_>) {
    let acc = to.acc.as_mut_ptr();
    for c in (0..block).step_by(R::LANES) {
        let columns: [[R::Ints; TILE]; SIDE] = std::array::from_fn(|x| {
            let column = std::array::from_fn(|y| {
                // SAFETY: the caller's promise.
                unsafe { r.load(sums.wrapping_add((SIDE * y + x) * distance + c)) }
            });
            output_axis(r, column)
        });
        for i in 0..to.rows {
            let row = output_axis(r, std::array::from_fn(|x| columns[x][i]));
            for (j, times) in row.into_iter().enumerate() {
                let Some(at) = to.at(i, j) else { continue };
                let y = r.shift_right32(r.multiply32(times, r.splat32(NINTH)), SHIFTS[i] + SHIFTS[j]);
                // SAFETY: the caller's promise.
                unsafe { r.store(acc.wrapping_add(at + c), y) };
            }
        }
    }
}

#[inline(always)]
fn output_axis<R: Registers>(r: R, m: [R::Ints; SIDE]) -> [R::Ints; TILE] {
    let (near, near_odd) = (r.add32(m[1], m[2]), r.sub32(m[1], m[2]));
    let (far, far_odd) = (r.add32(m[3], m[4]), r.sub32(m[3], m[4]));
    [
        r.sub32(r.add32(m[0], far), r.four_times32(near)),
        r.sub32(far_odd, r.twice32(near_odd)),
        r.sub32(far, near),
        r.add32(r.sub32(r.twice32(far_odd), near_odd), m[5]),
    ]
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
