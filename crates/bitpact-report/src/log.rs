//! What is kept of a run: a folder with the recipe, the records and where the run was trained.
//!
//! | file | holds |
//! |---|---|
//! | `config.toml` | the resolved recipe |
//! | `records.jsonl` | one record a line: every epoch's metrics, layer statistics of the first, every tenth and the
//! last |
//! | `sessions.jsonl` | one [`Session`] a line, where the run was trained by `bitpact reproduce` |
//! | `alpha.jsonl` | one [`Sweep`] a line, where `bitpact reproduce sweep` measured them |

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use bitpact_model::write_atomically;
use bitpact_train::run_folder::{CONFIG, LAST, RECORDS};
use bitpact_train::{EpochRecord, Recipe, Record, RunFolder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ReportError;
use crate::sweep::{self, Sweep};

/// The sessions of a run, in its folder and in its log.
pub const SESSIONS: &str = "sessions.jsonl";

/// Epochs from one record with layer statistics to the next.
const LAYERS_EVERY: u32 = 10;

/// One process that trained a part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Steps that were done when it began.
    pub step: u64,
    /// Commit of the program's source; empty where the build did not know it.
    pub commit: String,
    /// Name of the processor.
    pub machine: String,
    /// Threads that it trained with.
    pub threads: usize,
    /// Instruction set that it evaluated with.
    pub isa: String,
}

impl Session {
    /// Adds it to the sessions of the run in `run`, which exists.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&self, run: &Path) -> Result<(), ReportError> {
        let path = run.join(SESSIONS);
        let line = serde_json::to_string(self).expect("plain values are JSON");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).map_err(io("write", &path))
    }
}

/// A log.
#[derive(Debug, Clone)]
pub struct Log {
    /// The recipe.
    pub recipe: Recipe,
    /// Every epoch that is done.
    pub epochs: Vec<EpochRecord>,
    /// Machines and times of the training; empty where the log does not hold them.
    pub sessions: Vec<Session>,
    /// Loss against the clip value of an activation, where it was measured.
    pub sweeps: Vec<Sweep>,
}

impl Log {
    /// The log in `folder`; a run's folder is one too.
    ///
    /// # Errors
    /// A folder without a recipe, or a file that cannot be read.
    pub fn read(folder: &Path) -> Result<Log, ReportError> {
        let run = RunFolder::open(folder)?;
        let epochs = run.records()?.into_iter().filter_map(|record| match record {
            Record::Epoch(epoch) => Some(epoch),
            Record::Warning(_) => None,
        });
        Ok(Log {
            recipe: run.config()?,
            epochs: epochs.collect(),
            sessions: lines(&folder.join(SESSIONS))?,
            sweeps: sweep::read(folder)?,
        })
    }

    /// Tells whether the last epoch of the run is done.
    pub fn is_finished(&self) -> bool {
        self.epochs.last().is_some_and(|epoch| epoch.epoch >= self.recipe.epochs)
    }

    /// Seconds of training, without evaluation; less where an epoch was interrupted.
    pub fn seconds(&self) -> f64 {
        self.epochs.iter().map(|epoch| epoch.seconds).sum()
    }
}

/// Writes the log of the run in `run` to the folder `to`, over an older one.
///
/// # Errors
/// A run that cannot be read, or a log that cannot be written.
pub fn collect(run: &RunFolder, to: &Path) -> Result<(), ReportError> {
    let recipe = run.config()?;
    let mut lines = Vec::new();
    for mut record in run.records()? {
        if let Record::Epoch(epoch) = &mut record {
            let has_layers = epoch.epoch == 1 || epoch.epoch % LAYERS_EVERY == 0 || epoch.epoch == recipe.epochs;
            epoch.layers.truncate(if has_layers { usize::MAX } else { 0 });
        }
        serde_json::to_writer(&mut lines, &record).expect("a record is JSON");
        lines.push(b'\n');
    }
    fs::create_dir_all(to).map_err(io("make", to))?;
    let write = |name: &str, bytes: &[u8]| -> Result<(), ReportError> {
        let path = to.join(name);
        write_atomically(&path, bytes).map_err(|error| io("write", &path)(std::io::Error::other(error)))
    };
    write(RECORDS, &lines)?;
    let path = run.file(SESSIONS);
    match fs::read(&path) {
        Ok(bytes) => write(SESSIONS, &bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io("read", &path)(error)),
    }
    // The file that makes the folder a log comes last.
    write(CONFIG, recipe.to_toml().as_bytes())
}

/// Progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Epochs that are done.
    Begun(u32),
    /// All epochs are done and saved.
    Finished,
}

/// The folder below `runs` in which `recipe` is trained, under whatever name, with how far it is; of several the one
/// that is furthest.
pub fn find_run(runs: &Path, recipe: &Recipe) -> Option<(RunFolder, State)> {
    let entries = fs::read_dir(runs).ok()?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let found = paths.into_iter().filter_map(|path| {
        let run = RunFolder::open(path).ok()?;
        // The checkpoint has the last word on a run's recipe, but config.toml is quicker read.
        let config =
            run.config().or_else(|error| run.checkpoint().ok().flatten().map(|(_, recipe)| recipe).ok_or(error));
        is_same(recipe, &config.ok()?).then_some(run)
    });
    found.map(|run| (state(&run, recipe), run)).map(|(state, run)| (run, state)).max_by_key(|(_, state)| match state {
        State::Begun(epochs) => *epochs,
        State::Finished => u32::MAX,
    })
}

/// Whether two recipes train the same: names and the place of a teacher do not matter.
pub(crate) fn is_same(a: &Recipe, b: &Recipe) -> bool {
    a.differences(b).iter().all(|(key, ..)| ["name", "teacher"].contains(&key.as_str()))
}

/// Records may be ahead of the checkpoint by an epoch, where a run was killed between them.
fn state(run: &RunFolder, recipe: &Recipe) -> State {
    let epochs = run.records().unwrap_or_default().iter().rev().find_map(|record| match record {
        Record::Epoch(epoch) => Some((epoch.epoch, epoch.step)),
        Record::Warning(_) => None,
    });
    let Some((epochs, step)) = epochs else { return State::Begun(0) };
    let saved = || Some(run.checkpoint().ok()??.0.training?.step);
    match epochs >= recipe.epochs && run.file(LAST).exists() && saved() == Some(step) {
        true => State::Finished,
        false => State::Begun(epochs),
    }
}

/// The values of a file, one a line in JSON; none where there is no such file.
pub(crate) fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", path)(error)),
    };
    let parse = |(i, line)| {
        serde_json::from_str(line).map_err(|source| ReportError::Line { path: path.to_owned(), line: i + 1, source })
    };
    text.lines().enumerate().map(parse).collect()
}

pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> ReportError + 'a {
    move |source| ReportError::Io { what, path: path.to_owned(), source }
}
