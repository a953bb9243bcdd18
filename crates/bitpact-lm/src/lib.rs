//! Decoder-only language models of the Llama family: reading them, computing them in float32, quantizing them layer by
//! layer with `bitpact-ptq`, and measuring what that costs.
//!
//! A [`Source`] gives a network layer by layer, so that quantization needs one layer in memory; [`Model`] is a network
//! in memory. [`Model::hidden`] is the float reference. [`quantize_layer`] rounds a layer while the hidden states of a
//! [`Calibration`] pass it.

mod config;
mod error;
mod export;
pub mod forward;
mod gguf;
mod huggingface;
mod llama2c;
mod model;
mod packed;
mod quantize;
mod random;
mod rope;
mod sample;
mod score;
mod shard;
mod tensors;
#[cfg(test)]
mod testing;
mod text;
mod tokenizer;

pub use config::{Config, RopeScaling};
pub use error::LmError;
pub use export::{Layout, export};
pub use forward::Cache;
pub use gguf::{Gguf, check_gguf};
pub use huggingface::HuggingFace;
pub use llama2c::{Llama2c, ScoredPieces};
pub use model::{Layer, Linear, Model, Outer, Packed, Part, Source, Weights, load_packed};
pub use packed::{PackedFile, PackedWriter};
pub use quantize::{Calibration, Method, PartReport, Recipe, quantize_layer, quantize_layer_each};
pub use random::{random_layer, random_outer};
pub use sample::{Sampler, Sampling};
pub use score::{Reference, Score, Window, largest, score, windows};
pub use text::ascii_blocks;
pub use tokenizer::Tokenizer;
