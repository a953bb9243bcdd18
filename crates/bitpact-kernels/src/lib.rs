//! Everything SIMD, the thread pool and the only `unsafe` of bitpact, in four folders: `machine` is what kernels run
//! on, `train` computes training steps, `engine` integer layers and [`gemv`] language models.
//!
//! Every kernel has a scalar reference, and every path of every kernel is tested against it.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_macros, unused_variables))]

mod engine;
pub mod gemv;
mod machine;
pub mod testing;
mod train;

pub use engine::fused::{Base, FusedLayer, LayerInputs, Shortcut, SumSpec, Unfusable, Written};
pub use engine::product::ProductSpec;
pub use engine::requant::RequantU8;
pub use engine::{linear, product};
pub use gemv::{attention, float};
pub use machine::isa::{Isa, UnknownIsa};
pub use machine::layout::{Aligned, Layout, image_distance};
pub use machine::pool::{Chunk, Chunked, Pool};
pub use machine::weights::WeightArena;
pub use machine::workers::{Scratch, ScratchSize, Workers};
pub use machine::{ConvGeometry, layout, memory, peak};
pub use train::conv::{CodeLimits, ConvF32, ConvInputGradF32, ConvU8S8, ConvWeightGradF32};
pub use train::grouped::{GroupConvF32, GroupConvU8S8, GroupInputGradF32, GroupScratch, GroupWeightGradF32};
pub use train::{conv, elements, grouped, norm, pool2d};
