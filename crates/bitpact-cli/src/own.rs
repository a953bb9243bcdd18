//! One's own data on the command line: loading with a bar, and what is told of files.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bitpact::unstable::data::own::{self, Faults, Loaded, Options, Skipped, Task};
use bitpact::unstable::data::{Dataset, Limits, Split};

use crate::out::say;
use crate::progress::bar;

/// Files that are named where several cannot be used.
const NAMED: usize = 5;

/// What was read besides the images.
pub(crate) struct Reading {
    pub(crate) task: Task,
    faults: Arc<Faults>,
}

impl Drop for Reading {
    /// Tells of files that turned out to be damaged after loading.
    fn drop(&mut self) {
        let count = self.faults.count();
        if count > 0 {
            let first = self.faults.first().join("; ");
            say!("warning: {count} times another picture stood in for a damaged one: {first}");
        }
    }
}

/// Loads both halves of the data at `path`.
pub(crate) fn load(path: &Path, limits: Limits, options: &Options) -> Result<(Split, Reading)> {
    let mut loaded = with_bar(|told| own::load(path, limits, options, told))?;
    let train = loaded.train.take().expect("both halves were asked for");
    let (train_len, test_len) = (train.len(), loaded.test.len());
    let shape = train.image_shape();
    say!(
        "{}: {}, {train_len} examples to learn from and {test_len} to measure on, images of {}x{}x{}",
        path.display(),
        loaded.form,
        shape.h,
        shape.w,
        shape.c
    );
    let (test, reading) = told(loaded);
    Ok((Split { train, test }, reading))
}

/// Loads the test half of the data at `path`.
pub(crate) fn load_test(path: &Path, limit: Option<usize>, options: &Options) -> Result<(Box<dyn Dataset>, Reading)> {
    Ok(told(with_bar(|told| own::load_test(path, limit, options, told))?))
}

fn told(loaded: Loaded) -> (Box<dyn Dataset>, Reading) {
    if !loaded.skipped.is_empty() {
        say!("warning: {} files cannot be used and are left out:", loaded.skipped.len());
        listed(&loaded.skipped).into_iter().for_each(|line| say!("{line}"));
    }
    let Loaded { test, task, faults, .. } = loaded;
    (test, Reading { task, faults })
}

/// The first files, a line each.
pub(crate) fn listed(files: &[Skipped]) -> Vec<String> {
    let mut lines: Vec<String> = files.iter().take(NAMED).map(|file| format!("  {file}")).collect();
    if files.len() > NAMED {
        lines.push(format!("  and {} more", files.len() - NAMED));
    }
    lines
}

/// Calls `f` with a bar that shows how many files it has read.
pub(crate) fn with_bar<T>(f: impl FnOnce(own::Told<'_>) -> T) -> T {
    let bar = bar("reading", 0, "files");
    let result = f(&|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    result
}
