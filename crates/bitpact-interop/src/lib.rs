//! Networks of other programs.
//!
//! - [`weights`] reads named tensors of PyTorch and safetensors files.
//! - [`onnx`] reads ONNX files: the graph, its tensors and its bits.

pub mod error;
pub mod onnx;
pub mod weights;

pub use error::InteropError;
