//! How the gradient of accumulators is stored: float32, bfloat16, or 8 bits rounded at random.

use super::BLOCK;
use super::body::{Lanes, lanes_mut};

/// 1.5 * 2^23: adding it to |x| < 2^22 rounds x half to even into the lowest bits of the sum.
const ROUNDER: f32 = 12_582_912.0;

/// Where the gradient of accumulators goes: block `to` of the tensor, which is block `at` of the image without border.
pub(super) trait Gradient {
    fn put(&mut self, to: usize, at: usize, d: Lanes);
}

/// float32.
pub(super) struct RealGradient<'a>(pub(super) &'a mut [f32]);

impl Gradient for RealGradient<'_> {
    #[inline(always)]
    fn put(&mut self, to: usize, _: usize, d: Lanes) {
        lanes_mut(self.0)[to] = d;
    }
}

/// The bits of a float32 with its mantissa rounded half to even to bfloat16's, the lower half zero. Not a number stays
/// one.
#[inline(always)]
pub(crate) fn to_bf16(d: f32) -> u32 {
    let bits = d.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if d.is_nan() { bits | 0x0040_0000 } else { rounded }) & 0xffff_0000
}

/// bfloat16 stored as float32.
pub(super) struct RoundedGradient<'a>(pub(super) &'a mut [f32]);

impl Gradient for RoundedGradient<'_> {
    #[inline(always)]
    fn put(&mut self, to: usize, _: usize, d: Lanes) {
        let out = &mut lanes_mut(self.0)[to];
        for i in 0..BLOCK {
            out[i] = f32::from_bits(to_bf16(d[i]));
        }
    }
}

/// bfloat16.
pub(super) struct Bf16Gradient<'a>(pub(super) &'a mut [u8]);

impl Gradient for Bf16Gradient<'_> {
    #[inline(always)]
    fn put(&mut self, to: usize, _: usize, d: Lanes) {
        let out = &mut self.0.as_chunks_mut::<{ 2 * BLOCK }>().0[to];
        let mut bits = [0u16; BLOCK];
        for i in 0..BLOCK {
            bits[i] = (to_bf16(d[i]) >> 16) as u16;
        }
        for (out, bits) in out.as_chunks_mut::<2>().0.iter_mut().zip(bits) {
            *out = bits.to_ne_bytes();
        }
    }
}

/// 8-bit integers with 128 added, rounded up or down at random in proportion to the remainder.
pub(super) struct S8Gradient<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) random: u32,
}

/// A mixer of 32 bits (Wellons' search for integer hashes, constants 0x7feb352d and 0x846ca68b): a bijection whose
/// output bits each depend on all input bits.
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

impl Gradient for S8Gradient<'_> {
    #[inline(always)]
    fn put(&mut self, to: usize, at: usize, d: Lanes) {
        let out = &mut lanes_mut(self.bytes)[to];
        let mut codes = [0u8; BLOCK];
        for i in 0..BLOCK {
            // An odd multiple of 2^-17 between -1/2 and 1/2: the sum below is exact for integers up to 127 and never
            // half way.
            let draw = (mix((at * BLOCK + i) as u32 ^ self.random) >> 16) as i32;
            let shift = (2 * draw - 65_535) as f32 * (1.0 / 131_072.0);
            let v = d[i] + shift;
            let v = if v > -127.0 { v } else { -127.0 };
            let v = if v < 127.0 { v } else { 127.0 };
            codes[i] = ((v + ROUNDER).to_bits() as u8).wrapping_add(128);
        }
        *out = codes;
    }
}
