//! Networks of other programs.
//!
//! [`import`] makes a [`Model`](bitpact_model::Model) of a file, whatever the file is:
//!
//! - [`weights`] reads named tensors of PyTorch and safetensors files and puts them into a network of the zoo.
//! - [`onnx`] reads ONNX files: the graph, its tensors and its bits.
//!
//! [`mod@export`] writes an integer network for other programs: dialects of ONNX, plain integers, and safetensors.

pub mod error;
pub mod export;
mod import;
mod kind;
pub mod onnx;
pub mod source;
pub mod weights;

pub use error::InteropError;
pub use import::{ImportOptions, Imported, Source, import};
pub use kind::Kind;

pub use bitpact_model::Pixels;
