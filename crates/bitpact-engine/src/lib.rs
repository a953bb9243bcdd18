//! Runs integer networks: the reference interpreter, which is the specification, and the SIMD executor, which must give
//! the same integers.

mod evaluate;
mod executor;
mod interpreter;
mod predict;

pub use evaluate::evaluate;
pub use executor::{EngineError, ExecOptions, Executor};
pub use interpreter::{Interpreter, Trace};
pub use predict::{Accuracy, predict, top_k_hits};
