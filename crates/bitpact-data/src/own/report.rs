//! What a path would be read as, without training on it.

use std::path::Path;
use std::sync::Arc;

use image::ColorType;

use super::layout::{self, Item, Plan, Wanted};
use super::load::{look, needed, read_whole, rule};
use super::pictures::{Budget, Pictures, Rule};
use super::{Faults, Options, Skipped, Task, Told, arrays, holds_arrays};
use crate::picture::Head;
use crate::{DataError, Dataset, ImageShape, Limits};

/// One half of the data at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfReport {
    /// Its name: `train`, or where the test examples come from.
    pub name: String,
    /// Examples that can be used.
    pub examples: usize,
    /// Examples of each class, where targets are classes.
    pub per_class: Vec<usize>,
}

/// A report of the examples that lie at a path.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How it is read, in words; empty where it is not.
    pub form: String,
    /// Task that the data are for.
    pub task: Option<Task>,
    /// Names of classes, or of what a network gives.
    pub names: Vec<String>,
    /// The halves, to learn from first.
    pub halves: Vec<HalfReport>,
    /// Rows and columns of the picture of the least, the middle and the largest area.
    pub sizes: Option<[[usize; 2]; 3]>,
    /// Kinds of pixels in words, with the number of pictures of each.
    pub pixels: Vec<(String, usize)>,
    /// Image that a network would read, where nothing else is needed.
    pub shape: Option<ImageShape>,
    /// Flags that training needs besides the path.
    pub needed: Vec<String>,
    /// Files and folders that are not read.
    pub odd: Vec<Skipped>,
    /// Files that cannot be used.
    pub skipped: Vec<Skipped>,
    /// Reason why training would fail.
    pub problem: Option<String>,
}

/// Reads the data at `path` from the first file to the last; `told` hears of files.
///
/// # Errors
/// A path that cannot be read. What is wrong with the data is part of the report.
pub fn check(path: &Path, options: &Options, told: Told<'_>) -> Result<Report, DataError> {
    std::fs::metadata(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let mut report = Report::default();
    match if holds_arrays(path) {
        of_arrays(path, options, &mut report)
    } else {
        of_files(path, options, told, &mut report)
    } {
        Err(DataError::Io { path, source }) => return Err(DataError::Io { path, source }),
        Err(error) => report.problem = Some(error.to_string()),
        Ok(()) => {}
    }
    if let (None, true, [first, ..]) = (&report.problem, options.strict, &report.skipped[..]) {
        report.problem = Some(format!(
            "{} files cannot be used, and the reading is strict; the first: {first}",
            report.skipped.len()
        ));
    }
    Ok(report)
}

const SHARE: &str = "--test-share 0.2, the part of it that is kept out of training to measure on";

fn of_arrays(path: &Path, options: &Options, report: &mut Report) -> Result<(), DataError> {
    report.form = "arrays".to_owned();
    let known = match arrays::load(path, Limits::default(), options, false) {
        Err(error) if options.test_share.is_none() => {
            let known = arrays::load(path, Limits::default(), options, true).map_err(|_| error)?;
            report.needed.push(SHARE.to_owned());
            known
        }
        known => known?,
    };
    report.task = Some(known.task);
    let halves = [("train", known.train.as_deref()), ("test", Some(&*known.test))];
    for (name, set) in halves.into_iter().filter_map(|(name, set)| Some((name, set?))) {
        report.halves.push(half(name, set, known.task));
    }
    let shape = known.test.image_shape();
    report.sizes = Some([[shape.h, shape.w]; 3]);
    let examples = report.halves.iter().map(|half| half.examples).sum();
    report.pixels = vec![(format!("of {} bits", known.test.code_bits()), examples)];
    (report.shape, report.names) = (Some(shape), known.names);
    Ok(())
}

fn half(name: &str, set: &dyn Dataset, task: Task) -> HalfReport {
    let mut per_class = vec![0; if task == Task::Classify { set.class_names().len() } else { 0 }];
    if task == Task::Classify {
        (0..set.len()).for_each(|i| per_class[set.label(i)] += 1);
    }
    HalfReport { name: name.to_owned(), examples: set.len(), per_class }
}

fn of_files(path: &Path, options: &Options, told: Told<'_>, report: &mut Report) -> Result<(), DataError> {
    let mut plan = match layout::plan(path, options, Wanted::Both) {
        Err(error) if options.test_share.is_none() => {
            let plan = layout::plan(path, options, Wanted::Test).map_err(|_| error)?;
            if !plan.train.is_empty() {
                return Err(layout::plan(path, options, Wanted::Both).err().unwrap_or(DataError::NoClasses));
            }
            report.needed.push(SHARE.to_owned());
            plan
        }
        plan => plan?,
    };
    (report.form, report.task, report.names) = (plan.form.to_owned(), Some(plan.task), plan.names.clone());
    report.odd = std::mem::take(&mut plan.odd);
    let looked = look(&mut plan, options, told);
    report.skipped.clone_from(&looked.skipped);
    let heads: Vec<Head> = looked.heads.iter().flatten().map(|(head, _)| *head).collect();
    (report.sizes, report.pixels) = (sizes(&heads), pixels(&heads));
    let missing = needed(&plan, &looked, options);
    // What is missing is assumed to be something, so that every file is looked at.
    let assumed = Options {
        crop: options.crop.or(missing.iter().any(|what| what.starts_with("--crop")).then_some([1, 1])),
        upscale: options.upscale.or(missing.iter().any(|what| what.starts_with("--upscale")).then_some(1)),
        ..options.clone()
    };
    let rule = rule(path, &mut plan, &looked, &assumed, told)?;
    report.names.clone_from(&plan.names);
    report.shape = missing.is_empty().then_some(rule.shape);
    report.needed.extend(missing);
    let (names, task, test_from) = (plan.names.clone(), plan.task, plan.test_from.clone());
    let rule = Rule { random: None, is_patches: false, ..rule };
    let Plan { train, test, .. } = plan;
    for (name, items) in [("train", train), (test_from.as_str(), test)] {
        if items.is_empty() && name == "train" {
            continue;
        }
        let set = examples(items, &names, &rule, options, &mut report.skipped, told);
        report.halves.push(half(name, &set, task));
    }
    report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    let empty = report.halves.iter().find_map(|half| {
        let class = half.per_class.iter().position(|&n| n == 0).map(|class| format!(" of class `{}`", names[class]));
        class
            .or((half.examples == 0).then(String::new))
            .map(|of| format!("no picture{of} in {} can be used", half.name))
    });
    report.problem = empty.map(|what| format!("{}: {what}", path.display()));
    Ok(())
}

/// The examples of `items` that can be used, none of them kept.
fn examples(
    items: Vec<Item>,
    names: &[String],
    rule: &Rule,
    options: &Options,
    skipped: &mut Vec<Skipped>,
    told: Told<'_>,
) -> Pictures {
    let (budget, faults) = (Arc::new(Budget::new(0)), Arc::new(Faults::default()));
    let mut pictures = Pictures::new(items, names.to_vec(), rule.clone(), budget, faults);
    read_whole(&mut pictures, options, skipped, told);
    pictures
}

fn sizes(heads: &[Head]) -> Option<[[usize; 2]; 3]> {
    let mut sizes: Vec<[usize; 2]> = heads.iter().map(|head| [head.h, head.w]).collect();
    sizes.sort_by_key(|[h, w]| (h * w, *h));
    Some([*sizes.first()?, sizes[sizes.len() / 2], *sizes.last()?])
}

fn pixels(heads: &[Head]) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for head in heads {
        let colour = if head.color.has_color() { "colour" } else { "grey" };
        let alpha = if head.color.has_alpha() { ", alpha" } else { "" };
        let is_deep = matches!(head.color, ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16);
        let name = format!("{colour}{alpha}{}", if is_deep { ", 16 bits" } else { "" });
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => counts.push((name, 1)),
        }
    }
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    counts
}
