//! What people see of runs: logs small enough to be kept beside the source, the book of results made from them, and a
//! page that shows a run, its layers and its mistakes.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | a run as far as its files can be read, and followed while it goes on |
//! | [`page`] | runs as one HTML page |
//! | `dashboard` | a run on the terminal, with the feature `tui` |
//! | [`microscope`] | what quantization does to the weights and activations of each layer |
//! | [`predictions`] | what an integer network makes of a test set |
//! | [`sensitivity`] | loss and metric when one tensor alone has few bits |
//! | [`family`] | a recipe at several widths |
//! | [`layers`] | what is in a network, layer by layer |
//! | [`log`] | a run's log: its recipe, its records without most layer statistics, where it was trained |
//! | [`book`] | results of the rows of a [`Catalogue`](bitpact_train::Catalogue) beside those that were expected, as a
//! page |
//! | [`plots`] | the same as figures in SVG |
//! | [`sweep`] | loss against clip values |
//! | [`viewers`] | tables and event files for viewers of others |

pub mod book;
#[cfg(feature = "tui")]
pub mod dashboard;
pub mod family;
pub mod layers;
pub mod log;
pub mod microscope;
pub mod page;
pub mod plots;
pub mod predictions;
pub mod run;
pub mod sensitivity;
pub mod sweep;
pub mod viewers;

use std::path::PathBuf;

pub use book::Book;
#[cfg(feature = "tui")]
pub use dashboard::Dashboard;
pub use family::Family;
pub use log::{Log, Session};
pub use microscope::Microscope;
pub use predictions::Predictions;
pub use run::{Follower, Records, Run};
pub use sensitivity::Sensitivity;
pub use sweep::Sweep;

/// Error of reading logs or writing the book.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A run or log cannot be read or written.
    #[error(transparent)]
    Run(#[from] bitpact_train::RunError),
    /// A row has no recipe.
    #[error(transparent)]
    Recipe(#[from] bitpact_train::RecipeError),
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Action that failed, such as `read`.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of a file that is not what it should be.
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Error of the JSON parser.
        source: serde_json::Error,
    },
    /// A log that lies in the place of another run.
    #[error("{}: not a log of this row: {changes}", path.display())]
    Misfit {
        /// The log.
        path: PathBuf,
        /// The keys in which its recipe differs.
        changes: String,
    },
    /// A figure cannot be drawn.
    #[error(transparent)]
    Chart(#[from] bitpact_accel::AccelError),
    /// A chart of a page cannot be drawn.
    #[error("cannot draw a chart: {message}")]
    Drawing {
        /// The drawing library's reason.
        message: String,
    },
    /// The page's template cannot be filled in.
    #[error("cannot write the page: {0:#}")]
    Page(#[from] minijinja::Error),
    /// A folder without records, recipe and checkpoint.
    #[error("{}: holds no run: no records.jsonl, config.toml or last.safetensors", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Images that the network does not read, or with other targets than it was made for.
    #[error("the test images are {what}")]
    Images {
        /// Sizes of the images and of what the network reads.
        what: String,
    },
    /// A network that the engine refuses.
    #[error(transparent)]
    Engine(#[from] bitpact_engine::EngineError),
}
