//! The files of a run, and the order in which they may be written.
//!
//! | file | holds |
//! |---|---|
//! | `config.toml` | the resolved recipe |
//! | `records.jsonl` | one [`Record`] a line |
//! | `best.safetensors` | the network of the best epoch, chosen on the held-out images, or else on the test set |
//! | `model.bitpact` | the integer network of the last epoch |
//! | `last.safetensors` | the checkpoint: everything needed to go on |
//!
//! `last.safetensors` is the truth and is written last. Whatever else a stopped process left behind is either older,
//! and then complete, or newer, and then a resumed run writes the same bytes again; lines of `records.jsonl` beyond the
//! checkpoint are cut off. So a run may be killed at any moment.
//!
//! Readers write nothing. A run owns its folder from its first write to its end, by a lock on the file `.lock` that a
//! process cannot keep when it dies; a second owner is refused. So is one of the float run in `float/` while another
//! process trains the run around it, and the other way round.

mod lock;

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bitpact_model::{Checkpoint, remove_leftovers, write_atomically};

use self::lock::{Lock, Refused, other_owner};

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

/// Folder of the float network's run inside the run that it is compared with.
pub const FLOAT: &str = "float";

/// What `best.safetensors` says about itself.
pub const BEST_NOTE: &str = "the epoch with the highest top-1 on the test set: chosen on the test set, so its accuracy is \
                             optimistic; last.safetensors is the result of the run";

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Whether there must be no run in it yet.
    is_new: Cell<bool>,
    lock: RefCell<Option<Lock>>,
    #[cfg(test)]
    pub(crate) fault: RefCell<Option<Fault>>,
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

/// Tells whether `path` names a file that a run writes, in the folder of a run.
pub fn is_file_of_run(path: &Path) -> bool {
    let own = [CONFIG, RECORDS, LAST, BEST, MODEL, lock::LOCK];
    let name = path.file_name().and_then(OsStr::to_str);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    name.is_some_and(|name| own.contains(&name)) && RunFolder::open(folder).is_ok()
}

/// Note in `best.safetensors` of a run with held-out training images.
pub const BEST_HELD_OUT_NOTE: &str =
    "the epoch with the highest top-1 on the held-out training images; the test set had no part in the choice";

impl RunFolder {
    /// The folder of a new run. It is made, and owned, when the run writes its first file.
    ///
    /// # Errors
    /// A folder that holds a run already, or in which another process trains.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, RunError> {
        let folder = Self::at(path.into(), true);
        folder.check_owner(&folder.path)?;
        folder.check_relatives()?;
        folder.check_new()?;
        Ok(folder)
    }

    /// Opens the folder of a run to read from. Nothing is written to it, unless a run goes on in it.
    ///
    /// # Errors
    /// A folder that does not exist or holds no run.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RunError> {
        let folder = Self::at(path.into(), false);
        fs::read_dir(&folder.path).map_err(|source| folder.io("read the folder", source))?;
        if ![CONFIG, LAST].iter().any(|name| folder.file(name).exists()) {
            return Err(RunError::NoRun { path: folder.path });
        }
        Ok(folder)
    }

    /// Opens the folder of a run to go on with: owns it from now on, and removes what an interrupted write left in it.
    ///
    /// # Errors
    /// A folder that does not exist, holds no run, or in which another process trains.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self, RunError> {
        let folder = Self::open(path)?;
        folder.own()?;
        Ok(folder)
    }

    /// Opens the folder of a run to go on with where one has begun in it, else makes a folder for a new one.
    ///
    /// # Errors
    /// Those of [`RunFolder::resume`] and [`RunFolder::create`].
    pub fn resume_or_create(path: impl Into<PathBuf>) -> Result<Self, RunError> {
        let path = path.into();
        match [CONFIG, LAST].iter().any(|name| path.join(name).exists()) {
            true => Self::resume(path),
            false => Self::create(path),
        }
    }

    /// Makes the folder, owns it and removes what an interrupted write left in it; nothing where it is owned already.
    pub(crate) fn own(&self) -> Result<(), RunError> {
        if self.lock.borrow().is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.path).map_err(|source| self.io("make the folder", source))?;
        let lock = Lock::take(&self.path).map_err(|refused| match refused {
            Refused::Held(process) => RunError::Busy { path: self.path.clone(), process },
            Refused::Io(source) => self.io("lock", source),
        })?;
        self.check_relatives()?;
        if self.is_new.replace(false) {
            // Another run may have come and gone since the folder was found free.
            self.check_new().inspect_err(|_| self.is_new.set(true))?;
        }
        remove_leftovers(&self.path);
        *self.lock.borrow_mut() = Some(lock);
        Ok(())
    }

    fn check_new(&self) -> Result<(), RunError> {
        match [LAST, BEST, MODEL, RECORDS].iter().any(|name| self.file(name).exists()) {
            true => Err(RunError::HoldsRun { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Nobody else may train the float run inside, or the run that this is the float run of.
    fn check_relatives(&self) -> Result<(), RunError> {
        self.check_owner(&self.file(FLOAT))?;
        match self.path.parent() {
            Some(around) if self.path.file_name() == Some(OsStr::new(FLOAT)) => self.check_owner(around),
            _ => Ok(()),
        }
    }

    fn check_owner(&self, path: &Path) -> Result<(), RunError> {
        match other_owner(path) {
            Some(process) => Err(RunError::Busy { path: path.to_owned(), process }),
            None => Ok(()),
        }
    }

    /// Gives the folder up at the end of a run.
    pub(crate) fn release(&self) {
        self.lock.take();
    }

    fn io(&self, what: &'static str, source: io::Error) -> RunError {
        RunError::Io { what, path: self.path.clone(), source }
    }

    fn at(path: PathBuf, is_new: bool) -> Self {
        Self {
            path,
            is_new: Cell::new(is_new),
            lock: RefCell::new(None),
            #[cfg(test)]
            fault: RefCell::new(None),
        }
    }

    /// Path of the folder.
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
        Ok(Draft::read(&self.file(CONFIG))?.stored().finish()?)
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
        let recipe = Draft::parse(&training.recipe, &format!("{}, recipe", path.display()))?.stored().finish()?;
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

    /// Writes `config.toml` unless it already says the same, in whatever words.
    pub(crate) fn write_config(&self, recipe: &Recipe) -> Result<(), RunError> {
        if self.config().is_ok_and(|old| old == *recipe) {
            return self.own();
        }
        self.write(CONFIG, recipe.to_toml().as_bytes())
    }

    /// Whether `config.toml`, where there is one, says what the run `began` with, or one of the numbers of epochs that
    /// it had `before`.
    pub(crate) fn check_config(&self, began: &Recipe, before: impl Iterator<Item = u32>) -> Result<(), RunError> {
        let path = self.file(CONFIG);
        if !path.exists() {
            return Ok(());
        }
        let mut written = self.config()?;
        if before.into_iter().any(|epochs| epochs == written.epochs) {
            written.epochs = began.epochs;
        }
        let changes = began.differences(&written);
        let changes = changes.iter().filter(|(key, ..)| key != "teacher");
        let changes: Vec<String> = changes.map(|(key, was, is)| format!("`{key}` is {is}, not {was}")).collect();
        match changes.is_empty() {
            true => Ok(()),
            false => Err(RunError::Edited { path, changes: changes.join("; ") }),
        }
    }

    /// Owns the folder for a run of `recipe` from its beginning: where nothing is that a checkpoint would have to stand
    /// beside, and no other recipe.
    pub(crate) fn begin(&self, recipe: &Recipe) -> Result<(), RunError> {
        self.own()?;
        self.check_config(recipe, std::iter::empty())?;
        match [RECORDS, BEST, MODEL].into_iter().find(|name| self.file(name).exists()) {
            Some(found) if !self.file(LAST).exists() => Err(RunError::NoCheckpoint { path: self.file(LAST), found }),
            _ => self.check_new(),
        }
    }

    /// Writes one of the files that are replaced as a whole.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        #[cfg(test)]
        self.strike(name)?;
        self.own()?;
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
