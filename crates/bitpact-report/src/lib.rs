//! Logs of runs, small enough to be kept beside the source, and the book of results that is made from them.
//!
//! | module | holds |
//! |---|---|
//! | [`log`] | a run's log: its recipe, its records without most layer statistics, where it was trained |
//! | [`book`] | results of the rows of a [`Catalogue`](bitpact_train::Catalogue) beside those that were expected, as a
//! page |
//! | [`plots`] | the same as figures in SVG |
//! | [`sweep`] | loss against clip values |

pub mod book;
pub mod log;
pub mod plots;
pub mod sweep;

use std::path::PathBuf;

pub use book::Book;
pub use log::{Log, Session};
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
}
