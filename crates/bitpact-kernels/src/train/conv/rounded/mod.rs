//! Backward products over gradients rounded to bfloat16 or to 8-bit integers, codes being exact in both.
//!
//! With integer codes q of the input (zero code `zero`), integer weight codes k, and a rounded gradient dz of the
//! accumulators, over one image, geometry as in [`super`]:
//!
//! ```text
//! dq[i, u, v]  = sum over o, a, b of k[o, i, a, b] * dz[o, r, q]      r*s + a - p = u, q*s + b - p = v
//! dk[o,i,a,b]  = sum over r, q    of dz[o, r, q] * (q[i, r*s + a - p, q*s + b - p] - zero[i])
//! ```
//!
//! A word is 4 bytes: 2 values of bfloat16 or 4 of 8 bits, what one lane of `vdpbf16ps`, `vpdpbusd` and of AMX's tiles
//! multiplies. The input gradient's words are channels, as in every sweep. The weight gradient's are pixels: `planes`
//! holds q channel by channel, so that any run of neighbours is a run of words, and dz as `[word][channel][pixel of the
//! word]`.
//!
//! Float networks have real numbers in place of codes, rounded to bfloat16 like the gradient; their forward convolution
//! is here too.
//!
//! bfloat16: products are exact, sums float32 in an order that depends on the path. 8 bits: sums are exact integers,
//! the same on every path, and are turned to float32 once a block of pixels.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod forward;
mod input_grad;
mod planes;
#[cfg(test)]
mod tests;
mod weight_grad;

pub use forward::ConvBf16;
pub use input_grad::RoundedInputGrad;
pub use weight_grad::RoundedWeightGrad;

use crate::machine::isa::{Bf16, Isa};
use crate::machine::layout::Aligned;
use crate::machine::on_isa;
use crate::train::norm::gradient::to_bf16;

/// How a gradient is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// bfloat16: the upper half of a float32, rounded half to even.
    Bf16,
    /// `128 + n` for an integer n from -127 to 127.
    S8,
}

impl Format {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Format::Bf16 => 2,
            Format::S8 => 1,
        }
    }

    /// Values of a word.
    fn per_word(self) -> usize {
        4 / self.bytes()
    }

    /// Tells whether there are kernels of this format on `isa`: bfloat16 needs AMX or AVX-512 BF16.
    pub fn is_available(self, isa: Isa) -> bool {
        match self {
            Format::Bf16 => isa == Isa::Amx || isa == Isa::Avx512 && Bf16::detect().is_some(),
            Format::S8 => true,
        }
    }

    /// Tells whether they are there and outrun those of float32.
    pub fn pays(self, isa: Isa) -> bool {
        self.is_available(isa) && (self == Format::S8 || isa == Isa::Amx || Bf16::detect().is_some_and(Bf16::is_fast))
    }

    /// The byte that fills a gradient's border: that of zero.
    pub fn zero(self) -> u8 {
        match self {
            Format::Bf16 => 0,
            Format::S8 => 128,
        }
    }
}

/// Memory of one thread for the backward products of one layer after another; a plan reserves it once, a run allocates
/// nothing.
#[derive(Debug, Default)]
pub struct RoundedScratch {
    planes: Aligned<u8>,
    words: Aligned<u8>,
    sums: Aligned<i32>,
}

/// An integer of at most 8 bits and its sign in bfloat16; exact.
fn bf16(n: i16) -> u16 {
    (f32::from(n).to_bits() >> 16) as u16
}

/// A real number in bfloat16, rounded half to even, as it is stored.
#[inline(always)]
fn bf16_bytes(value: f32) -> [u8; 2] {
    ((to_bf16(value) >> 16) as u16).to_ne_bytes()
}

/// Rounds real numbers half to even to bfloat16, stored as float32.
pub fn round_bf16(isa: Isa, values: &mut [f32]) {
    on_isa!(isa, |_FMA| values.iter_mut().for_each(|v| *v = f32::from_bits(to_bf16(*v))))
}
