//! Runs integer networks: the reference interpreter, which is the specification, and the SIMD executor, which must give
//! the same integers.

mod engine;
mod evaluate;
mod executor;
mod interpreter;
mod predict;
mod profile;
mod verify;

pub use engine::{Engine, Output};
pub use evaluate::evaluate;
pub use executor::{EngineError, ExecOptions, Executor};
pub use interpreter::{Interpreter, Sums, Trace};
pub use predict::{Accuracy, predict, softmax, top_k, top_k_hits};
pub use profile::LayerProfile;
pub use verify::{
    Difference, FormulaCheck, FormulaDifference, PathCount, Verification, VerifyOptions, check_formula, verify,
    verify_until,
};
