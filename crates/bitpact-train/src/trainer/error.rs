//! Why a run cannot start or go on.

use std::path::PathBuf;

use bitpact_data::DataError;
use bitpact_engine::{Difference, EngineError};
use bitpact_model::{ConvertError, ModelError};

use crate::TrainError;
use crate::memory::TooMuch;
use crate::recipe::RecipeError;

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The arithmetic of training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A model or a file of one.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The conversion to integers.
    #[error("conversion to integers: {0}")]
    Convert(#[from] ConvertError),
    /// The integer engine.
    #[error("integer network: {0}")]
    Engine(#[from] EngineError),
    /// A kernel gave other integers than the reference interpreter: a defect of bitpact or of the machine.
    #[error("integer network: {0}; this is a defect, and no accuracy is given")]
    Differs(Difference),
    /// Channels, widths or blocks that cannot be searched as asked.
    #[error("search: {what}")]
    Search {
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The system refused something about a file or folder.
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        /// Action that failed, such as `read`.
        what: &'static str,
        /// Path of the file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A new run would write over another.
    #[error("{}: holds a run already; go on with it (--resume) or name another folder (--output)", path.display())]
    HoldsRun {
        /// Path of the folder.
        path: PathBuf,
    },
    /// Another process trains in the folder.
    #[error(
        "{}: {} trains in this folder; wait for it, stop it, or name another folder (--output)",
        path.display(),
        process.map_or("another process".to_owned(), |id| format!("process {id}"))
    )]
    Busy {
        /// Path of the folder.
        path: PathBuf,
        /// The id of the process, where it can be read.
        process: Option<u32>,
    },
    /// A config.toml that is not what the run began with.
    #[error(
        "{}: {changes}, as the run in this folder began; put that back to go on, or begin another run with this recipe \
         (--output)",
        path.display()
    )]
    Edited {
        /// Path of the file.
        path: PathBuf,
        /// Keys with what they are and were.
        changes: String,
    },
    /// The checkpoint of a run is gone, and other files of it are there.
    #[error(
        "{}: missing, though {found} is there: without it the run cannot go on; put it back, or begin another run (--output)",
        path.display()
    )]
    NoCheckpoint {
        /// The file that is missing.
        path: PathBuf,
        /// A file that a run writes after it.
        found: &'static str,
    },
    /// A file that a run wrote before its checkpoint is not what it was.
    #[error(
        "{}: {what}; without it the run is not what it was: put the file back, or begin another run (--output)",
        path.display()
    )]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Fault of the file.
        what: String,
    },
    /// There is nothing to go on with.
    #[error("{}: holds no run: neither config.toml nor last.safetensors is there", path.display())]
    NoRun {
        /// Path of the folder.
        path: PathBuf,
    },
    /// A checkpoint without the state of a run.
    #[error("{}: a network without the state of its training, which cannot be resumed", path.display())]
    NotResumable {
        /// Path of the file.
        path: PathBuf,
    },
    /// A line that is no record.
    #[error("{}, line {line}: not a record: {source}", path.display())]
    Records {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, counted from 1.
        line: usize,
        /// The parser's own message.
        source: serde_json::Error,
    },
    /// A checkpoint that does not fit its recipe or data.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// Path of the file.
        path: PathBuf,
        /// The misfit that was found, in words.
        what: String,
    },
    /// The data set has fewer images than a batch.
    #[error("a batch of {batch_size} images is larger than the training set of {images}; lower batch_size")]
    Batch {
        /// Number of images in a batch.
        batch_size: usize,
        /// Number of images that there are.
        images: usize,
    },
    /// Batches that do not fit into memory.
    #[error(
        "batches of {batch_size} images need about {}, and {} can be had here; {}",
        megabytes(too_much.needed),
        megabytes(too_much.free),
        match too_much.fits {
            0 => "not even one image fits".to_owned(),
            fits => format!("a batch size of {fits} would fit"),
        }
    )]
    Memory {
        /// Number of images in a batch.
        batch_size: usize,
        /// Bytes needed and bytes there are.
        too_much: TooMuch,
    },
    /// A set that cannot be trained or tested on.
    #[error("the {half} images: {what}")]
    Images {
        /// `training` or `test`.
        half: &'static str,
        /// The fault that was found, in words.
        what: String,
    },
    /// A teacher that does not fit.
    #[error("the teacher {}: {what}", path.display())]
    Teacher {
        /// Path of the file.
        path: PathBuf,
        /// The misfit that was found, in words.
        what: String,
    },
    /// Weights to start from that do not fit.
    #[error("weights to start from: {what}")]
    Init {
        /// The misfit that was found, in words.
        what: String,
    },
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
