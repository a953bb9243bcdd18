//! Everything SIMD, the thread pool and the only `unsafe` of bitpact: one folder per op, each with a scalar reference.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub mod attention;
pub mod conv;
pub mod depthwise;
pub mod elements;
pub mod float;
pub mod fused;
pub mod gemv;
pub mod grouped;
pub mod isa;
pub mod layout;
pub mod linear;
pub mod memory;
pub mod norm;
pub mod peak;
pub mod pool;
pub mod pool2d;
pub mod product;
pub mod requant;
mod shares;
mod weights;
mod workers;

pub use conv::{CodeLimits, ConvF32, ConvGeometry, ConvInputGradF32, ConvU8S8, ConvWeightGradF32};
pub use fused::{Base, FusedLayer, LayerInputs, Shortcut, SumSpec, Unfusable, Written};
pub use grouped::{GroupConvF32, GroupConvU8S8, GroupInputGradF32, GroupScratch, GroupWeightGradF32};
pub use isa::{Isa, UnknownIsa};
pub use layout::{Aligned, Layout, image_distance};
pub use pool::{Chunk, Chunked, Pool};
pub use product::ProductSpec;
pub use requant::RequantU8;
pub use weights::begin_network;
pub use workers::{Scratch, ScratchSize, Workers};
