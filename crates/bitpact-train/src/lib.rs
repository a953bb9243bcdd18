//! Quantization-aware training on the CPU: a plan of fused steps over fixed buffers, and the loop that drives it.

mod backend;
mod cpu;

pub use backend::{Fill, LayerStatistics, OptimizerConfig, StepInput, StepOutcome, TrainBackend, TrainError};
pub use cpu::{CpuBackend, initial_tensors};
