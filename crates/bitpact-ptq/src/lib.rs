//! Quantization of trained weights without training: round to nearest, GPTQ (arXiv 2210.17323), AWQ (2306.00978), OSAQ
//! (2605.04738), smoothing of activations (2211.10438) and low-rank residuals (CoRa, 2408.00923), each a function of
//! plain matrices; and clip values of activations, functions of a [`Histogram`].
//!
//! A layer is a [`Matrix`] `W` of `outputs x inputs`; what is known of its inputs is their [`Gram`] matrix `X^T X / n`.
//! From these the methods choose codes on a [`Grid`], where groups of neighbouring inputs share a step and a zero
//! point, or on the grid of integer networks, where a row has one step ([`search_steps`], [`Factor::codes`]).
//! Nothing here knows of networks: language models (`bitpact-lm`) and convolutions lowered to matrices use the same
//! functions.

mod awq;
mod cholesky;
mod clip;
mod cora;
mod error;
mod gptq;
mod gram;
mod grid;
mod matrix;
mod osaq;
mod search;
mod smooth;
mod steps;
#[cfg(test)]
mod testing;

pub use awq::{AwqScales, SCALE_STEPS, clip_search, scale_search};
pub use clip::{Calibrate, Histogram};
pub use cora::{LayerRanks, Residual, allocate_ranks, cora_weights};
pub use error::PtqError;
pub use gptq::{Factor, Gptq, Order, Rounded};
pub use gram::Gram;
pub use grid::{Grid, Group, GroupParams, Quantized, Width};
pub use matrix::Matrix;
pub use osaq::{Osaq, OsaqReport, guarded};
pub use smooth::smoothing_scales;
pub use steps::{SHARES, largest_steps, round_rows, row_values, search_steps};
