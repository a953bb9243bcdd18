//! Trained and integer networks as values, their files, and the conversion between them.
//!
//! - A [`Model`] is a trained network: graph, bits of every layer, named tensors, what a pixel means, class names.
//!   A [`Checkpoint`] is its file, a safetensors file, with the state of an unfinished training run where there is one.
//! - An [`IntegerModel`] is the network that is shipped and run: integers only, stored in a `.bitpact` file
//!   (docs/format.md).
//! - [`convert`] makes the second from the first; it is the only place where batch norm is folded.
//!
//! Every write goes through [`write_atomically`]; every reader takes its bytes for hostile, and no
//! control character of a file reaches a name or an error message.

mod checkpoint;
mod convert;
mod error;
mod file;
mod format;
mod integer;
mod kind;
mod model;
mod pixels;
mod random;

pub use checkpoint::{Checkpoint, TrainingState};
pub use convert::{ActReport, Conversion, ConvertError, LayerReport, convert};
pub use error::ModelError;
pub use file::{hold_writes, read_model_file, remove_leftovers, write_atomically};
pub use format::{MAGIC as BITPACT_MAGIC, VERSION as BITPACT_VERSION};
pub use integer::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum, IntegerTerm,
    IntegerView, TensorId, TensorKind,
};
pub use kind::unreadable_kind;
pub use model::{InputDescription, Model, Tensor, are_numbers};
pub use pixels::Pixels;
