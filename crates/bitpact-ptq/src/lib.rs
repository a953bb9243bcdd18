//! Quantization of trained weights without training: round to nearest, GPTQ (arXiv 2210.17323), AWQ (2306.00978), OSAQ
//! (2605.04738) and smoothing of activations (2211.10438), each a function of plain matrices.
//!
//! A layer is a [`Matrix`] `W` of `outputs x inputs`; what is known of its inputs is their [`Gram`] matrix `X^T X / n`.
//! From these the methods choose codes on a [`Grid`]: groups of neighbouring inputs share a step and a zero point.
//! Nothing here knows of networks: language models (`bitpact-lm`) and convolutions lowered to matrices use the same
//! functions.

mod awq;
mod error;
mod gptq;
mod gram;
mod grid;
mod matrix;
mod osaq;
mod smooth;
#[cfg(test)]
mod testing;

pub use awq::{AwqScales, SCALE_STEPS, clip_search, scale_search};
pub use error::PtqError;
pub use gptq::{Gptq, Order};
pub use gram::Gram;
pub use grid::{Grid, Group, GroupParams, Quantized, Width};
pub use matrix::Matrix;
pub use osaq::{Osaq, OsaqReport, guarded};
pub use smooth::smoothing_scales;
