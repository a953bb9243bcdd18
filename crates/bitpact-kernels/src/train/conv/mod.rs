//! Convolutions over one image: forward, input gradient and weight gradient in f32, and exact u8 x s8 to i32.
//!
//! Shapes: images are NHWC [`Layout`](crate::Layout)s, weights OIHW `[cout][cin][kh][kw]`. With stride s and padding p,
//!
//! ```text
//! y[o, r, q]   = sum over i, a, b of w[o, i, a, b] * x[i, r*s + a - p, q*s + b - p]      out = (h + 2p - k) / s + 1
//! dx[i, u, v]  = sum over o, a, b of w[o, i, a, b] * dy[o, r, q]   where r*s + a - p = u, q*s + b - p = v
//! dw[o,i,a,b]  = sum over r, q    of dy[o, r, q] * x[i, r*s + a - p, q*s + b - p]
//! ```
//!
//! All of them are walked as `Sweep`s: a grid of pixels with its own strides in the tensor read and in the one
//! written, and a list of taps. A plan is built once per layer; `run` allocates nothing, works on one image on the
//! calling thread, and its result depends on shapes, values and the instruction set only. In f32 every output is one
//! chain of multiply-adds over taps (row by row), then input channels; the weight gradient's over pixels.
//!
//! The exact product multiplies by the instructions of [`product`](crate::product), the engine's, in a walk of its own:
//! the plan, the packing and the run of a product that is packed in every step and writes its sums to memory. By
//! `examples/pack_speed.rs` (Zen 4, AVX-512, one thread, the 3x3 layers of a ResNet-20 at W4A4) the engine's direct
//! kernels take 8 to 28 us to pack a layer, this one 0.4 to 3.6, and with 128 images 0.89 to 0.99 times its time, their
//! sums left in the cache; Winograd's kernels take 0.74 times its time with 64 channels and more with fewer.

#[cfg(target_arch = "x86_64")]
mod amx_sweep;
#[cfg(target_arch = "x86_64")]
mod amx_tiles;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bytes;
mod filters;
mod forward;
#[cfg(target_arch = "x86_64")]
mod grad_kernel;
mod input_grad;
mod int8;
mod int_sweep;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod rounded;
mod scalar_sweep;
pub(crate) mod sweep;
mod weight_grad;

#[cfg(test)]
mod tests;

pub use forward::ConvF32;
pub use input_grad::ConvInputGradF32;
pub use int8::ConvU8S8;
pub use weight_grad::ConvWeightGradF32;

use crate::machine::ConvGeometry;

/// Output channels in one packed block: the lanes of a 512-bit register of 32-bit numbers.
const LANES: usize = 16;

/// Largest codes that a plan meets. The smaller they are, the more products sums of 16 bits hold, where a path has
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeLimits {
    /// Largest code read.
    pub x: u8,
    /// Largest magnitude of a weight.
    pub w: u8,
}

impl CodeLimits {
    /// All codes.
    pub const NONE: CodeLimits = CodeLimits { x: u8::MAX, w: 128 };

    /// # Panics
    /// If a weight is above the limit.
    fn check(self, weights: &[i8]) {
        // A maximum has no early end and is taken many weights at a time.
        let largest = weights.iter().fold(0, |largest, w| w.unsigned_abs().max(largest));
        assert!(largest <= self.w, "a weight of magnitude {largest}, of at most {}", self.w);
    }

    /// Words of four products that a sum of 16 bits holds if each of its halves adds up two of them: 2 x w a word.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    fn words(self) -> usize {
        i16::MAX as usize / (2 * usize::from(self.x) * usize::from(self.w)).max(1)
    }
}
