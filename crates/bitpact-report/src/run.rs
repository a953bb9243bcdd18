//! A run as far as its files can be read: whatever is damaged, foreign or cut off is said, and the rest is used.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bitpact_train::run_folder::{CONFIG, LAST, MODEL, RECORDS};
use bitpact_train::{EpochRecord, Recipe, Record, RunFolder, WarningRecord};

use crate::ReportError;
use crate::log::{SESSIONS, Session, io, lines};
use crate::sensitivity::{self, Sensitivity};

/// Lines that are no records and are told one by one; of more only the number is.
const TOLD: usize = 5;

/// Longest line that is taken for a record, in bytes.
const LONGEST_LINE: usize = 64 << 20;

/// A run to look at.
#[derive(Debug, Clone)]
pub struct Run {
    /// Folder of the run.
    pub path: PathBuf,
    /// The recipe, where `config.toml` or the checkpoint has one.
    pub recipe: Option<Recipe>,
    /// What the records say.
    pub records: Records,
    /// Who trained the run: empty where that was not recorded.
    pub sessions: Vec<Session>,
    /// Sensitivity of the layers, where it was measured.
    pub sensitivity: Option<Sensitivity>,
    /// Bytes of the integer network's file, where there is one.
    pub model_bytes: Option<u64>,
    /// Faults of files that could not be read, a sentence each.
    pub faults: Vec<String>,
}

impl Run {
    /// Reads the folder of a run or a log. Nothing is written.
    ///
    /// # Errors
    /// A folder that cannot be opened, or one that holds neither records, a recipe nor a checkpoint.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        std::fs::read_dir(path).map_err(io("read the folder", path))?;
        let is_run = [RECORDS, CONFIG, LAST].iter().any(|name| path.join(name).exists());
        if !is_run {
            return Err(ReportError::NoRun { path: path.to_owned() });
        }
        let mut faults = Vec::new();
        let recipe = recipe(path, &mut faults);
        let mut follower = Follower::new(path);
        follower.read().map_err(io("read", &path.join(RECORDS)))?;
        let mut or_fault = |error: ReportError| faults.push(error.to_string());
        let sessions = lines(&path.join(SESSIONS)).unwrap_or_else(|error| {
            or_fault(error);
            Vec::new()
        });
        let sensitivity = sensitivity::read(path).unwrap_or_else(|error| {
            or_fault(error);
            None
        });
        faults.extend(follower.records.faults());
        let model_bytes = std::fs::metadata(path.join(MODEL)).ok().map(|metadata| metadata.len());
        let records = follower.records;
        Ok(Self { path: path.to_owned(), recipe, records, sessions, sensitivity, model_bytes, faults })
    }

    /// Name to tell the run by: that of its folder.
    pub fn name(&self) -> String {
        let absolute = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        absolute.file_name().map_or_else(|| self.path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// The last epoch that is done.
    pub fn last(&self) -> Option<&EpochRecord> {
        self.records.epochs.last()
    }
}

/// The recipe of a folder: of `config.toml`, or else of the checkpoint.
fn recipe(path: &Path, faults: &mut Vec<String>) -> Option<Recipe> {
    let folder = match RunFolder::open(path) {
        Ok(folder) => folder,
        Err(_) => {
            faults.push(format!("{}: missing, so the settings of the run are not known", path.join(CONFIG).display()));
            return None;
        }
    };
    match folder.config() {
        Ok(recipe) => Some(recipe),
        Err(error) => {
            faults.push(error.to_string());
            folder.checkpoint().ok().flatten().map(|(_, recipe)| recipe)
        }
    }
}

/// What `records.jsonl` says, as far as it could be read.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Epochs in ascending order.
    pub epochs: Vec<EpochRecord>,
    /// Warnings in the order in which they were given.
    pub warnings: Vec<WarningRecord>,
    /// Lines that are no records, with the reason, [`TOLD`] of them at the most.
    unread: Vec<(usize, String)>,
    /// How many there are in all.
    unread_lines: usize,
    /// Epochs that stood twice; the later line counts.
    repeated: usize,
    /// Whether the file ends in the middle of a line.
    torn: bool,
}

impl Records {
    fn add(&mut self, line: usize, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        if text.trim().is_empty() {
            return;
        }
        match serde_json::from_str(&text) {
            Ok(Record::Epoch(epoch)) => {
                let at = self.epochs.partition_point(|other| other.epoch < epoch.epoch);
                if at < self.epochs.len() {
                    self.repeated += 1;
                    self.epochs.truncate(at);
                }
                self.epochs.push(epoch);
            }
            Ok(Record::Warning(warning)) => self.warnings.push(warning),
            Err(error) => {
                self.unread_lines += 1;
                if self.unread.len() < TOLD {
                    self.unread.push((line, error.to_string()));
                }
            }
        }
    }

    /// Faults of lines that were passed over, a sentence each.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.unread.iter().map(|(line, why)| format!("{RECORDS}, line {line}: passed over, {why}")).collect();
        if self.unread_lines > self.unread.len() {
            faults.push(format!("{RECORDS}: {} more lines are no records", self.unread_lines - self.unread.len()));
        }
        if self.repeated > 0 {
            faults.push(format!("{RECORDS}: goes back to an earlier epoch {} times; later lines count", self.repeated));
        }
        if self.torn {
            faults.push(format!("{RECORDS}: ends in the middle of a line, which is passed over"));
        }
        faults
    }
}

/// Reads the records of a run that may be going on, again and again, each line once.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// The records that were read so far.
    pub records: Records,
    /// Bytes of whole lines that were read.
    offset: u64,
    line: usize,
}

impl Follower {
    /// Follows the run in the folder `run`.
    pub fn new(run: &Path) -> Self {
        Self { path: run.join(RECORDS), records: Records::default(), offset: 0, line: 0 }
    }

    /// Reads what was added, everything anew where the file was cut back. Says whether something was read; a file that
    /// is not there has nothing.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let is_cut = length < self.offset;
        if is_cut {
            (self.records, self.offset, self.line) = (Records::default(), 0, 0);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(length - self.offset).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
            self.line += 1;
            self.records.add(self.line, &line[..line.len().min(LONGEST_LINE)]);
        }
        self.offset += whole as u64;
        let was_torn = std::mem::replace(&mut self.records.torn, whole < bytes.len());
        Ok(is_cut || whole > 0 || was_torn != self.records.torn)
    }

    /// When the records were last written.
    pub fn modified(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.path).ok()?.modified().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = r#"{"kind":"epoch","epoch":N,"step":10,"lr":0.1,"loss":1.5,"train_top1":0.4,"integer_top1":0.5,"test_images":10,"test_images_per_s":1.0,"images_per_s":2.0,"seconds":3.0}"#;

    fn epoch(n: u32) -> String {
        EPOCH.replace('N', &n.to_string()) + "\n"
    }

    fn folder(records: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RECORDS), records).unwrap();
        folder
    }

    fn read(records: &[u8]) -> Run {
        Run::read(folder(records).path()).unwrap()
    }

    #[track_caller]
    fn told(run: &Run, parts: &[&str]) {
        for part in parts {
            assert!(run.faults.iter().any(|fault| fault.contains(part)), "no {part:?} in {:?}", run.faults);
        }
    }

    #[test]
    fn a_line_cut_off_and_lines_of_others_cost_only_themselves() {
        let torn = format!("{}{}{}", epoch(1), epoch(2), &epoch(3)[..40]);
        let run = read(torn.as_bytes());
        assert_eq!(run.records.epochs.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), [1, 2]);
        told(&run, &["middle of a line", "config.toml"]);

        let foreign = format!("{}{{\"step\":1}}\nnot json\n{}", epoch(1), epoch(2));
        let run = read(foreign.as_bytes());
        assert_eq!(run.records.epochs.len(), 2);
        told(&run, &["line 2: passed over, missing field `kind`", "line 3: passed over"]);

        let run = read(&[epoch(1).as_bytes(), &[0xff, 0xfe, 0, b'\n'], epoch(2).as_bytes()].concat());
        assert_eq!(run.records.epochs.len(), 2);
        told(&run, &["line 2"]);
    }

    #[test]
    fn many_foreign_lines_are_counted_and_not_listed() {
        let run = read("{}\n".repeat(100).as_bytes());
        assert!(run.records.epochs.is_empty() && run.faults.len() == TOLD + 2, "{:?}", run.faults);
        told(&run, &["95 more lines are no records"]);
    }

    #[test]
    fn fields_of_newer_versions_are_passed_over_and_kinds_of_them_are_told() {
        let newer = epoch(1).replace("\"lr\"", "\"of_tomorrow\":[1,2],\"lr\"");
        let run = read(format!("{newer}{{\"kind\":\"dream\",\"step\":2}}\n{}", epoch(2)).as_bytes());
        assert_eq!(run.records.epochs.len(), 2);
        told(&run, &["unknown variant `dream`"]);
    }

    #[test]
    fn of_an_epoch_that_stands_twice_the_later_line_counts() {
        let again = epoch(2).replace("1.5", "0.5");
        let run = read(format!("{}{}{}{again}", epoch(1), epoch(2), epoch(3)).as_bytes());
        let losses: Vec<f64> = run.records.epochs.iter().map(|epoch| epoch.loss).collect();
        assert_eq!(losses, [1.5, 0.5]);
        told(&run, &["goes back to an earlier epoch 1 times"]);
    }

    #[test]
    fn a_folder_without_a_run_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Run::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("holds no run"), "{error}");
        assert!(Run::read(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_follower_reads_every_line_once_and_starts_anew_where_the_file_was_cut_back() {
        use std::io::Write;
        let folder = folder(&epoch(1).as_bytes()[..20]);
        let path = folder.path().join(RECORDS);
        let mut follower = Follower::new(folder.path());
        assert!(follower.read().unwrap() && follower.records.epochs.is_empty() && follower.records.torn);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&epoch(1).as_bytes()[20..]).unwrap();
        assert!(follower.read().unwrap() && follower.records.epochs.len() == 1 && !follower.records.torn);
        assert!(!follower.read().unwrap());
        file.write_all(epoch(2).as_bytes()).unwrap();
        assert!(follower.read().unwrap() && follower.records.epochs.len() == 2);
        std::fs::write(&path, epoch(1)).unwrap();
        assert!(follower.read().unwrap() && follower.records.epochs.len() == 1);
    }
}
