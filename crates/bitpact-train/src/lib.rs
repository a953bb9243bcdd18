//! Quantization-aware training on the CPU: a plan of fused steps over fixed buffers, and the loop that drives it.
//!
//! | module | holds |
//! |---|---|
//! | [`recipe`] | what to train and how: TOML, built-in recipes, checks |
//! | [`catalogue`] | named recipes with the results that are expected of them |
//! | [`schedule`] | the learning rate of every step |
//! | [`trainer`] | the loop: steps, integer accuracy every epoch, checkpoints |
//! | [`run_folder`] | the files of a run and how they survive a kill |
//! | [`records`] | what a run writes down |
//! | [`ptq`] | a float network to integers without training |
//!
//! [`train()`] does the whole job; [`TrainBackend`] is the seam to the machine that does the arithmetic, and
//! [`BackendKind`] names those there are.
//!
//! A run is decided by its recipe:
//!
//! ```
//! use bitpact_train::Draft;
//!
//! let mut draft = Draft::open("cifar10-resnet20")?;
//! draft.set("bits", "W2A2", "--bits");
//! let recipe = draft.finish()?;
//! assert_eq!((recipe.epochs, recipe.bits.to_string().as_str()), (200, "W2A2"));
//! # Ok::<(), bitpact_train::RecipeError>(())
//! ```

mod backend;
mod beside;
pub mod blocks;
pub mod catalogue;
mod cpu;
mod factory;
mod init;
mod loss;
pub mod memory;
mod metric;
pub mod mix;
mod numbers;
mod optimizer;
mod params;
mod profile;
pub mod prune;
pub mod ptq;
pub mod recipe;
pub mod records;
mod reference;
mod rehearsal;
pub mod run_folder;
pub mod schedule;
pub mod trainer;

pub use backend::{
    Fill, Gradients, LayerStatistics, LossInput, OptimizerState, StepInput, StepOutcome, TeacherInput, TrainBackend,
    TrainError,
};
pub use catalogue::Catalogue;
pub use factory::{BackendKind, BackendSpec};
pub use init::initial_tensors;
pub use loss::{DenseLoss, Targets};
pub use metric::{Metric, example_metrics};
pub use optimizer::{OptimizerConfig, OptimizerKind, ParamGroup};
pub use profile::{Pass, StepTimes, Work};
pub use recipe::{Draft, Recipe, RecipeError};
pub use records::{EpochRecord, Record, WarningKind, WarningRecord, WeightStatistics};
pub use rehearsal::{Rehearsal, random_images};
pub use run_folder::RunFolder;
pub use trainer::{
    Evaluation, Event, Images, Outcome, RunError, RunOptions, Setup, Start, Teacher, Trainer, evaluate_integer,
    evaluate_simulated, simulated_loss, simulated_measures, train,
};
