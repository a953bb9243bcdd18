//! One's own data: folders of pictures, tables and arrays, read as a data set.
//!
//! What lies at a path decides how it is read:
//!
//! | path | task |
//! |---|---|
//! | `train/<class>/*` and `val/<class>/*` (or `valid`, `validation`, `test`) | classify |
//! | `train/images/*`, `train/masks/*`, `val/images/*`, `val/masks/*`: files of one name are a pair | segment |
//! | `train/LR/*`, `train/HR/*`, `val/LR/*`, `val/HR/*`: files of one name are a pair | restore |
//! | `train/*`, `val/*`: pictures alone, which the network sees smaller by `upscale` | restore |
//! | one of these without `train/` and `val/`, with [`Options::test_share`] | the same |
//! | a `.csv` file with the columns `path`, `label` and perhaps `split` | classify |
//! | a `.csv` file with `path` and columns of numbers | regress |
//! | an `.npz` file, or a folder of `.npy` files: `x_train`, `y_train`, `x_test`, `y_test` | by the shape of y |
//!
//! Files are read on several threads. A file that cannot be used is left out and reported, or an error where
//! [`Options::strict`] says so. Sets of at most [`WHOLE`] bytes of pixels are decoded once while they are loaded, and
//! kept as far as [`Options::cache_bytes`] go; of larger ones a file that turns out to be damaged in training is
//! reported to [`Faults`], and another example of its class stands in for it.

mod arrays;
mod layout;
mod load;
mod mask;
mod memory;
pub(crate) mod npy;
mod pictures;
mod report;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::{DataError, Dataset, TargetKind};

pub use load::{load, load_test};
pub use memory::{Array, Half, Values, load_arrays};
pub use report::{HalfReport, Report, check};

/// Bytes of the pixels of a set up to which it is decoded from first to last while it is loaded.
pub const WHOLE: u64 = 1 << 31;

/// Bytes of decoded pixels that are kept in memory where [`Options::default`] says how many: 2^30, or a quarter of what
/// the process can have where that is less.
pub fn usual_cache_bytes() -> u64 {
    let free = bitpact_kernels::memory::free().unwrap_or(u64::MAX);
    (1 << 30).min(free / 4)
}

/// What a network is to do, and so what targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Tell classes of pictures apart.
    Classify,
    /// Give a class for every pixel.
    Segment,
    /// The network gives a picture.
    Restore,
    /// The network gives numbers.
    Regress,
}

impl Task {
    /// The names of all tasks.
    pub const NAMES: [&str; 4] = ["classify", "segment", "restore", "regress"];

    /// The name of the task.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The task whose targets are of this kind.
    pub fn of(kind: TargetKind) -> Self {
        match kind {
            TargetKind::Class => Task::Classify,
            TargetKind::Mask { .. } => Task::Segment,
            TargetKind::Image(_) => Task::Restore,
            TargetKind::Numbers(_) => Task::Regress,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Task::Classify, Task::Segment, Task::Restore, Task::Regress];
        all.into_iter()
            .find(|task| task.as_str() == text)
            .ok_or_else(|| format!("expected one of {}", Self::NAMES.join(", ")))
    }
}

/// Choices with which one's own data are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The task; `None` for the one that the data tell.
    pub task: Option<Task>,
    /// Rows and columns of the image that the network reads; `None` for those that all pictures have.
    pub crop: Option<[usize; 2]>,
    /// Shorter side that pictures are scaled to before the image is cut out of the middle; `None` for the least one
    /// that fills the image. Pictures to restore are not scaled.
    pub resize: Option<usize>,
    /// Least and largest share of a picture's area that a training image shows, at a random place with a random ratio;
    /// `None` for the middle. Of pictures to restore training images always lie at random places.
    pub random_crop: Option<[f64; 2]>,
    /// Channels: 1 for grey, 3 for colour; `None` for colour where any picture has it.
    pub channels: Option<usize>,
    /// How much larger the network's output is than its input, of pictures that are to be enlarged.
    pub upscale: Option<usize>,
    /// Share of the examples, of every class the same, that become the test half where the data have none.
    pub test_share: Option<f64>,
    /// Fold that is measured on, of a set that is cut into folds.
    pub fold: usize,
    /// Names of the classes of masks, where a network knows them; empty for what the masks tell.
    pub names: Vec<String>,
    /// Whether a file that cannot be used is an error.
    pub strict: bool,
    /// Threads that read.
    pub threads: usize,
    /// Bytes of decoded pixels that are kept in memory.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            task: None,
            crop: None,
            resize: None,
            random_crop: None,
            channels: None,
            upscale: None,
            test_share: None,
            fold: 0,
            names: Vec::new(),
            strict: false,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(64)),
            cache_bytes: usual_cache_bytes(),
        }
    }
}

/// A file that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Path of the file or folder.
    pub path: PathBuf,
    /// The reason: a whole sentence with the path, or the rest of one that begins with it.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display().to_string();
        if self.why.contains(&path) { f.write_str(&self.why) } else { write!(f, "{path} {}", self.why) }
    }
}

/// One's own data, loaded.
pub struct Loaded {
    /// Examples to learn from; none where only the test half was asked for.
    pub train: Option<Box<dyn Dataset>>,
    /// Examples to measure on.
    pub test: Box<dyn Dataset>,
    /// Task that the data are for.
    pub task: Task,
    /// The form that the path was read in, in words.
    pub form: String,
    /// Files that are left out because they cannot be used.
    pub skipped: Vec<Skipped>,
    /// Files and folders that were not looked into.
    pub odd: Vec<Skipped>,
    /// Files that turn out to be damaged later.
    pub faults: Arc<Faults>,
}

/// Files that could not be decoded when an example of them was wanted.
#[derive(Debug, Default)]
pub struct Faults {
    count: AtomicUsize,
    first: Mutex<Vec<String>>,
}

impl Faults {
    const KEPT: usize = 10;

    /// How often an example had to stand in for another.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What is wrong with the first files.
    pub fn first(&self) -> Vec<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, what: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < Self::KEPT && !first.contains(&what) {
            first.push(what);
        }
    }
}

/// Told of files done and files in all, from any thread.
pub type Told<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// `f(0)` to `f(n - 1)` on several threads, in their order.
fn parallel<T: Send + Sync>(n: usize, threads: usize, told: Told<'_>, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let results: Vec<OnceLock<T>> = (0..n).map(|_| OnceLock::new()).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(index) else { return };
            let _ = slot.set(f(index));
            told(done.fetch_add(1, Ordering::Relaxed) + 1, n);
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(n)).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    results.into_iter().map(|slot| slot.into_inner().expect("every place was filled")).collect()
}

/// Tells whether `path`, an `.npz` file or a folder with `.npy` files, is read as arrays rather than pictures.
pub fn holds_arrays(path: &Path) -> bool {
    let is_archive = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    (is_archive && path.is_file()) || (path.is_dir() && layout::has_arrays(path))
}

fn strict(path: &Path, options: &Options, skipped: &[Skipped]) -> Result<(), DataError> {
    match skipped {
        [first, ..] if options.strict => {
            let n = skipped.len();
            Err(layout::wrong(path, format!("{n} files cannot be used, and the reading is strict; the first: {first}")))
        }
        _ => Ok(()),
    }
}
