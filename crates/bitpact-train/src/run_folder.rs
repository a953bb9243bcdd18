//! The files of a run, and the order in which they may be written.
//!
//! | file | holds |
//! |---|---|
//! | `config.toml` | the resolved recipe |
//! | `records.jsonl` | one [`Record`] a line |
//! | `best.safetensors` | the network of the best epoch, chosen on the test set |
//! | `model.bitpact` | the integer network of the last epoch |
//! | `last.safetensors` | the checkpoint: everything needed to go on |
//!
//! `last.safetensors` is the truth and is written last. Whatever else a stopped process left behind is either older, and
//! then complete, or newer, and then a resumed run writes the same bytes again; lines of `records.jsonl` beyond the
//! checkpoint are cut off. So a run may be killed at any moment.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bitpact_model::{Checkpoint, write_atomically};

use crate::RunError;
use crate::recipe::{Draft, Recipe};
use crate::records::Record;

/// The resolved recipe.
pub const CONFIG: &str = "config.toml";
/// The records.
pub const RECORDS: &str = "records.jsonl";
/// The checkpoint.
pub const LAST: &str = "last.safetensors";
/// The best epoch's network.
pub const BEST: &str = "best.safetensors";
/// The last epoch's integer network.
pub const MODEL: &str = "model.bitpact";

/// What `best.safetensors` says about itself.
pub const BEST_NOTE: &str = "the epoch with the highest top-1 on the test set: chosen on the test set, so its accuracy is \
                             optimistic; last.safetensors is the result of the run";

/// Prefix of the temporary files of [`write_atomically`], which a killed process may leave behind.
const TEMPORARY: &str = ".bitpact-";

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    #[cfg(test)]
    pub(crate) fault: std::cell::RefCell<Option<Fault>>,
}

/// Stops a run at a chosen write, as a kill would.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Writes that still happen whole.
    pub(crate) writes: usize,
    /// Whether the write after them happens in part, where a write can.
    pub(crate) torn: bool,
}

impl RunFolder {
    /// The folder of a new run. It is made when the run writes its first file.
    ///
    /// # Errors
    /// A folder that holds a run already.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, RunError> {
        let folder = Self::at(path.into());
        if [LAST, BEST, MODEL, RECORDS].iter().any(|name| folder.file(name).exists()) {
            return Err(RunError::HoldsRun { path: folder.path });
        }
        Ok(folder)
    }

    /// Opens the folder of a run to go on with, and removes what an interrupted write left in it.
    ///
    /// # Errors
    /// A folder that does not exist or holds no run.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RunError> {
        let folder = Self::at(path.into());
        let listed = fs::read_dir(&folder.path);
        let listed =
            listed.map_err(|source| RunError::Io { what: "read the folder", path: folder.path.clone(), source })?;
        if ![CONFIG, LAST].iter().any(|name| folder.file(name).exists()) {
            return Err(RunError::NoRun { path: folder.path });
        }
        for entry in listed.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
                // A leftover that cannot be removed harms nothing.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(folder)
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            #[cfg(test)]
            fault: std::cell::RefCell::new(None),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The recipe in `config.toml`.
    ///
    /// # Errors
    /// A file that is missing or no recipe.
    pub fn config(&self) -> Result<Recipe, RunError> {
        let path = self.file(CONFIG);
        Ok(Recipe::open(path.to_str().unwrap_or(CONFIG))?)
    }

    /// The checkpoint, if the run got as far as its first one, with the recipe in it.
    ///
    /// # Errors
    /// A file that is damaged or cannot be resumed from.
    pub fn checkpoint(&self) -> Result<Option<(Checkpoint, Recipe)>, RunError> {
        let path = self.file(LAST);
        if !path.exists() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::load(&path)?;
        let Some(training) = &checkpoint.training else { return Err(RunError::NotResumable { path }) };
        let recipe = Draft::parse(&training.recipe, &format!("{}, recipe", path.display()))?.finish()?;
        Ok(Some((checkpoint, recipe)))
    }

    /// Every whole line of `records.jsonl`; a torn last line is passed over.
    ///
    /// # Errors
    /// A file that cannot be read, or a whole line that is no record.
    pub fn records(&self) -> Result<Vec<Record>, RunError> {
        Ok(self.lines()?.into_iter().map(|(record, _)| record).collect())
    }

    fn lines(&self) -> Result<Vec<(Record, String)>, RunError> {
        let path = self.file(RECORDS);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(RunError::Io { what: "read", path, source }),
        };
        let whole = text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n'));
        whole
            .map(|(i, line)| match serde_json::from_str(line) {
                Ok(record) => Ok((record, line.to_owned())),
                Err(source) => Err(RunError::Records { path: path.clone(), line: i + 1, source }),
            })
            .collect()
    }

    /// Writes `config.toml` unless it already says the same.
    pub(crate) fn write_config(&self, recipe: &Recipe) -> Result<(), RunError> {
        let text = recipe.to_toml();
        if fs::read_to_string(self.file(CONFIG)).is_ok_and(|old| old == text) {
            return Ok(());
        }
        self.write(CONFIG, text.as_bytes())
    }

    /// Writes one of the files that are replaced as a whole.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        #[cfg(test)]
        self.strike(name)?;
        fs::create_dir_all(&self.path).map_err(|source| RunError::Io {
            what: "make the folder",
            path: self.path.clone(),
            source,
        })?;
        Ok(write_atomically(self.file(name), bytes)?)
    }

    /// Adds a line to `records.jsonl`.
    pub(crate) fn append(&self, record: &Record) -> Result<(), RunError> {
        let path = self.file(RECORDS);
        let mut line = serde_json::to_vec(record).map_err(|e| RunError::Io {
            what: "write",
            path: path.clone(),
            source: io::Error::other(e),
        })?;
        line.push(b'\n');
        let add = |bytes: &[u8]| -> io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(bytes)?;
            file.sync_data()
        };
        #[cfg(test)]
        if let Err(error) = self.strike(RECORDS) {
            if self.fault.borrow().as_ref().is_some_and(|fault| fault.torn) {
                add(&line[..line.len() / 2]).expect("a writable test folder");
            }
            return Err(error);
        }
        add(&line).map_err(|source| RunError::Io { what: "write", path: path.clone(), source })
    }

    /// Cuts `records.jsonl` back to the lines up to `step`.
    pub(crate) fn cut_records(&self, step: u64) -> Result<(), RunError> {
        let path = self.file(RECORDS);
        let kept: String =
            self.lines()?.into_iter().take_while(|(record, _)| record.step() <= step).map(|(_, line)| line).collect();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() == kept.len() as u64 => Ok(()),
            Err(_) if kept.is_empty() => Ok(()),
            _ => self.write(RECORDS, kept.as_bytes()),
        }
    }

    #[cfg(test)]
    fn strike(&self, name: &str) -> Result<(), RunError> {
        if let Some(fault) = self.fault.borrow_mut().as_mut() {
            if fault.writes == 0 {
                let path = self.file(name);
                return Err(RunError::Io { what: "write", path, source: io::Error::other("killed by the test") });
            }
            fault.writes -= 1;
        }
        Ok(())
    }
}
