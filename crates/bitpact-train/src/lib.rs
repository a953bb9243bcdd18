//! Quantization-aware training on the CPU: a plan of fused steps over fixed buffers, and the loop that drives it.

mod backend;

pub use backend::{Fill, LayerStatistics, OptimizerConfig, StepInput, StepOutcome, TrainBackend, TrainError};
