//! From a path to its examples.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::layout::{self, Goal, Item, Plan, Wanted, wrong};
use super::mask::{self, read_mask};
use super::pictures::{Budget, Pictures, Rule};
use super::{Faults, Loaded, Options, Skipped, Task, Told, WHOLE, arrays, holds_arrays, parallel, strict};
use crate::dataset::limited_len;
use crate::picture::{Head, read_head};
use crate::{DataError, Dataset, ImageShape, Limits, TargetKind};

/// Loads both halves of the data at `path`; `told` hears of files that were read.
///
/// # Errors
/// A path that holds no data set, halves with other classes, options that do not go with it, no file that can be used
/// of a half or a class; with [`Options::strict`] any file that cannot be used.
pub fn load(path: &Path, limits: Limits, options: &Options, told: Told<'_>) -> Result<Loaded, DataError> {
    load_halves(path, limits, options, Wanted::Both, told)
}

/// Loads the test half of the data at `path`: `val/` or `test/`, the rows of a table that say so, the stated share of a
/// folder without halves, or all of it where none is stated.
///
/// # Errors
/// Those of [`load`].
pub fn load_test(path: &Path, limit: Option<usize>, options: &Options, told: Told<'_>) -> Result<Loaded, DataError> {
    load_halves(path, Limits { train: None, test: limit }, options, Wanted::Test, told)
}

fn load_halves(
    path: &Path,
    limits: Limits,
    options: &Options,
    wanted: Wanted,
    told: Told<'_>,
) -> Result<Loaded, DataError> {
    if holds_arrays(path) {
        let arrays::Known { task, names: _, train, test } =
            arrays::load(path, limits, options, wanted == Wanted::Test)?;
        let (form, faults) = ("arrays".to_owned(), Arc::default());
        return Ok(Loaded { train, test, task, form, skipped: Vec::new(), odd: Vec::new(), faults });
    }
    let mut plan = layout::plan(path, options, wanted)?;
    let limit = |items: &mut Vec<Item>, what: &str, limit: Option<usize>| -> Result<(), DataError> {
        items.truncate(limited_len(&format!("{}: {what}", path.display()), items.len(), limit)?);
        Ok(())
    };
    match wanted {
        Wanted::Both => limit(&mut plan.train, "the training half", limits.train)?,
        Wanted::Test => plan.train.clear(),
    }
    limit(&mut plan.test, "the test half", limits.test)?;
    let mut looked = look(&mut plan, options, told);
    let rule = rule(path, &mut plan, &looked, options, told)?;
    let (budget, faults) = (Arc::new(Budget::new(options.cache_bytes)), Arc::new(Faults::default()));
    let half = |items: Vec<Item>, rule: Rule| {
        Pictures::new(items, plan.names.clone(), rule, Arc::clone(&budget), Arc::clone(&faults))
    };
    let fixed = Rule { random: None, is_patches: false, ..rule.clone() };
    let mut halves = [half(plan.train, rule), half(plan.test, fixed)];
    if options.strict || looked.bytes <= WHOLE {
        for pictures in &mut halves {
            read_whole(pictures, options, &mut looked.skipped, told);
        }
    }
    let mut skipped = looked.skipped;
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    strict(path, options, &skipped)?;
    let [train, test] = halves;
    if wanted == Wanted::Both {
        check_left(path, &train, "training", &skipped)?;
    }
    check_left(path, &test, "test", &skipped)?;
    let train = (wanted == Wanted::Both).then(|| Box::new(train) as Box<dyn Dataset>);
    let (task, form, odd) = (plan.task, plan.form.to_owned(), plan.odd);
    Ok(Loaded { train, test: Box::new(test), task, form, skipped, odd, faults })
}

/// What the heads of the files say.
pub(super) struct Looked {
    /// Head of every input that is left, and of the picture in high resolution that belongs to it.
    pub(super) heads: [Vec<(Head, Option<Head>)>; 2],
    pub(super) skipped: Vec<Skipped>,
    /// Bytes of all pixels.
    bytes: u64,
}

/// Reads the head of every file, and leaves out of `plan` the examples of which one cannot be read.
pub(super) fn look(plan: &mut Plan, options: &Options, told: Told<'_>) -> Looked {
    let mut looked = Looked { heads: [Vec::new(), Vec::new()], skipped: Vec::new(), bytes: 0 };
    for (items, heads) in [&mut plan.train, &mut plan.test].into_iter().zip(&mut looked.heads) {
        let look = |i: usize| -> Result<(Head, Option<Head>), Skipped> {
            let item: &Item = &items[i];
            let head = |path: &Path| {
                read_head(path).map_err(|error| Skipped { path: path.to_path_buf(), why: error.to_string() })
            };
            let high = match &item.goal {
                Goal::High(path) => Some(head(path)?),
                _ => None,
            };
            Ok((head(&item.input)?, high))
        };
        let mut results = parallel(items.len(), options.threads, told, look).into_iter();
        items.retain(|_| match results.next().expect("a result for every item") {
            Ok(found) => {
                let bytes = |head: Head| (head.h * head.w * 3) as u64;
                looked.bytes += bytes(found.0) + found.1.map_or(0, bytes);
                heads.push(found);
                true
            }
            Err(skipped) => {
                looked.skipped.push(skipped);
                false
            }
        });
    }
    looked
}

/// Settings that a path needs and nobody has given, each as the flag that gives it.
pub(super) fn needed(plan: &Plan, looked: &Looked, options: &Options) -> Vec<String> {
    let mut needed = Vec::new();
    let all = || plan.train.iter().chain(&plan.test);
    if options.upscale.is_none() && all().any(|item| item.goal == Goal::Itself) {
        needed.push("--upscale 2, how much larger the network's output is than its input".to_owned());
    }
    if options.crop.is_none() && sizes(looked).len() > 1 {
        let found = sizes(looked);
        let (least, most) = (found.first().expect("several"), found.last().expect("several"));
        let (least, most) = (format!("{}x{}", least.0, least.1), format!("{}x{}", most.0, most.1));
        needed.push(format!("--crop 64 or another size, as its pictures have many, from {least} to {most}"));
    }
    needed
}

/// Sizes of the inputs.
fn sizes(looked: &Looked) -> BTreeSet<(usize, usize)> {
    looked.heads.iter().flatten().map(|(head, _)| (head.h, head.w)).collect()
}

/// How the files of `plan` become examples.
pub(super) fn rule(
    path: &Path,
    plan: &mut Plan,
    looked: &Looked,
    options: &Options,
    told: Told<'_>,
) -> Result<Rule, DataError> {
    if looked.heads.iter().all(Vec::is_empty) {
        let first = looked.skipped.first().map_or(String::new(), |skipped| format!(", the first: {skipped}"));
        return Err(wrong(path, format!("none of its {} pictures can be used{first}", looked.skipped.len())));
    }
    if let [first, ..] = &needed(plan, looked, options)[..] {
        return Err(wrong(path, format!("needs {first}")));
    }
    let scale = scale(path, plan, looked, options)?;
    let shrink = if plan.train.iter().chain(&plan.test).any(|item| item.goal == Goal::Itself) { scale } else { 1 };
    let [h, w] = match options.crop {
        Some(crop) => crop,
        None => sizes(looked).first().map_or([1, 1], |&(h, w)| [h / shrink, w / shrink]),
    };
    let is_colour = looked.heads.iter().flatten().any(|(head, _)| head.color.has_color());
    let c = options.channels.unwrap_or(if is_colour { 3 } else { 1 });
    if !matches!(c, 1 | 3) {
        return Err(wrong(path, format!("its pictures have 1 channel or 3, and `channels` is {c}")));
    }
    let shape = ImageShape { h, w, c };
    if shape.len() == 0 {
        return Err(DataError::EmptyShape { h, w, c });
    }
    let mut classes: [u8; 256] = std::array::from_fn(|value| value as u8);
    let kind = match plan.task {
        Task::Classify => TargetKind::Class,
        Task::Regress => TargetKind::Numbers(plan.names.len()),
        Task::Restore => {
            plan.names =
                if c == 1 { vec!["grey".to_owned()] } else { ["red", "green", "blue"].map(str::to_owned).to_vec() };
            TargetKind::Image(ImageShape { h: h * scale, w: w * scale, c })
        }
        Task::Segment => {
            classes = mask_classes(path, plan, options, told)?;
            TargetKind::Mask { h, w }
        }
    };
    let is_patches = plan.task == Task::Restore;
    let classes = Arc::new(classes);
    Ok(Rule { shape, kind, resize: options.resize, random: options.random_crop, is_patches, scale, classes })
}

/// Rows of the output for a row of the input: what is asked for, or what the first pair has.
fn scale(path: &Path, plan: &Plan, looked: &Looked, options: &Options) -> Result<usize, DataError> {
    if plan.task != Task::Restore {
        return Ok(1);
    }
    let pair = looked.heads.iter().flatten().find_map(|(low, high)| high.map(|high| (*low, high)));
    let Some((low, high)) = pair else { return Ok(options.upscale.unwrap_or(1)) };
    let scale = high.h / low.h;
    if scale == 0 || (high.h, high.w) != (low.h * scale, low.w * scale) {
        let (a, b) = (format!("{}x{}", low.h, low.w), format!("{}x{}", high.h, high.w));
        return Err(wrong(
            path,
            format!("its first pair has {a} and {b} pixels; expected a whole number of times as many rows and columns"),
        ));
    }
    match options.upscale {
        Some(asked) if asked != scale => Err(wrong(
            path,
            format!("its pictures in high resolution are {scale} times as large; `upscale` is {asked}"),
        )),
        _ => Ok(scale),
    }
}

/// The class of every value of the masks, and their names where `plan` has none. Values are classes, 255 is no class;
/// of masks with only 0 and 255, 255 is the second class.
fn mask_classes(path: &Path, plan: &mut Plan, options: &Options, told: Told<'_>) -> Result<[u8; 256], DataError> {
    let masks: Vec<&Path> = plan
        .train
        .iter()
        .chain(&plan.test)
        .filter_map(|item| match &item.goal {
            Goal::Mask(path) => Some(path.as_path()),
            _ => None,
        })
        .collect();
    let values = parallel(masks.len(), options.threads, told, |i| {
        let mut used = [false; 256];
        if let Ok(mask) = read_mask(masks[i]) {
            mask.pixels.iter().for_each(|&value| used[usize::from(value)] = true);
        }
        used
    });
    let used: Vec<usize> = (0..256).filter(|&value| values.iter().any(|used| used[value])).collect();
    let most = used.iter().copied().filter(|&value| value < usize::from(mask::IGNORED)).max();
    let is_binary = used == [0, 255] && plan.names.len() != 1;
    let needed = if is_binary { 2 } else { most.map_or(0, |most| most + 1) };
    if plan.names.is_empty() {
        plan.names.clone_from(&options.names);
    }
    if plan.names.is_empty() {
        plan.names = (0..needed).map(|class| class.to_string()).collect();
    }
    let n = plan.names.len();
    if !(2..=255).contains(&n) {
        return Err(wrong(
            path,
            format!("its masks have {n} classes; expected 2 to 255, by their numbers in the pixels"),
        ));
    }
    Ok(std::array::from_fn(|value| match value {
        255 if is_binary => 1,
        value if value < n => value as u8,
        _ => mask::IGNORED,
    }))
}

/// Decodes every example, and leaves out those that cannot be used.
pub(super) fn read_whole(pictures: &mut Pictures, options: &Options, skipped: &mut Vec<Skipped>, told: Told<'_>) {
    let results = parallel(pictures.items.len(), options.threads, told, |i| pictures.read(i).err());
    let bad: Vec<bool> = results.iter().map(Option::is_some).collect();
    for (item, why) in pictures.items.iter().zip(results) {
        skipped.extend(why.map(|why| Skipped { path: item.input.clone(), why }));
    }
    if bad.contains(&true) {
        let empty = Pictures::new(
            Vec::new(),
            Vec::new(),
            pictures.rule.clone(),
            Arc::clone(&pictures.budget),
            Arc::clone(&pictures.faults),
        );
        *pictures = std::mem::replace(pictures, empty).without(&bad);
    }
}

/// Every half, and every class of it, must have something left.
fn check_left(path: &Path, pictures: &Pictures, half: &str, skipped: &[Skipped]) -> Result<(), DataError> {
    let because = || match skipped {
        [] => String::new(),
        [first, ..] => format!("; {} files cannot be used, the first: {first}", skipped.len()),
    };
    if pictures.items.is_empty() {
        return Err(wrong(path, format!("none of its {half} pictures can be used{}", because())));
    }
    if pictures.rule.kind != TargetKind::Class || skipped.is_empty() {
        return Ok(());
    }
    let mut counts = vec![0usize; pictures.names.len()];
    (0..pictures.len()).for_each(|i| counts[pictures.label(i)] += 1);
    // A limit may leave out classes; files that cannot be used may not.
    let emptied = |class: &usize| {
        let folder = std::ffi::OsStr::new(&pictures.names[*class]);
        counts[*class] == 0 && skipped.iter().any(|skipped| skipped.path.iter().any(|part| part == folder))
    };
    match (0..counts.len()).find(emptied) {
        Some(class) => {
            let name = &pictures.names[class];
            Err(wrong(path, format!("none of the {half} pictures of class `{name}` can be used{}", because())))
        }
        None => Ok(()),
    }
}
