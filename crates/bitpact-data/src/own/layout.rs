//! What lies at a path: which files are examples of which half, and what a network is to give for each.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::table;
use super::{Options, Skipped, Task};
use crate::{DataError, PICTURE_ENDINGS, epoch_order};

/// What a network is to give for a picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Goal {
    /// A class by its number.
    Class(u16),
    /// Numbers.
    Numbers(Vec<f32>),
    /// The picture's mask.
    Mask(PathBuf),
    /// The picture in high resolution.
    High(PathBuf),
    /// The picture itself, of which the network sees a smaller copy.
    Itself,
}

/// A picture file and what a network is to give for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) input: PathBuf,
    pub(crate) goal: Goal,
}

/// The examples of both halves, by their files alone.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) task: Task,
    /// How the path is read, in words.
    pub(crate) form: &'static str,
    /// Names of classes or numbers, where the path tells them.
    pub(crate) names: Vec<String>,
    pub(crate) train: Vec<Item>,
    pub(crate) test: Vec<Item>,
    /// Where the test examples come from, in words.
    pub(crate) test_from: String,
    /// Files and folders that are not read.
    pub(crate) odd: Vec<Skipped>,
}

/// Which halves are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Both,
    /// The test half alone; a folder without halves is one.
    Test,
}

/// Names of the folder of test examples, in the order in which they are looked for.
const TEST_NAMES: [&str; 4] = ["val", "valid", "validation", "test"];
/// How deep files of a class may lie below its folder.
const DEEPEST: usize = 8;
/// Seed of the permutations by which examples of a folder without halves become test examples.
const SHARED: u64 = 0x0074_6573_7473_6861;

const EXPECTED: &str = "expected train/ and val/ (or test/) with a folder of pictures for each class, or with images/ and masks/, \
     or with LR/ and HR/; one folder of these without halves and --test-share; a CSV file with the columns path, label and perhaps split; \
     an .npz file, or a folder of .npy files, with x_train, y_train, x_test and y_test";

pub(crate) fn wrong(path: &Path, message: impl Into<String>) -> DataError {
    DataError::Format { path: path.to_path_buf(), message: message.into() }
}

/// The files and folders of a folder by their names, without those whose names begin with a dot.
struct Listing {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Listing {
    fn of(dir: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: dir.to_path_buf(), source };
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
        folders.sort();
        files.sort();
        Ok(Self { folders, files })
    }

    /// The folder with one of these names, letters of either case.
    fn folder(&self, names: &[&str]) -> Option<&PathBuf> {
        names.iter().find_map(|name| self.folders.iter().find(|path| file_name(path).eq_ignore_ascii_case(name)))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    PICTURE_ENDINGS.contains(&extension.as_str())
}

/// Whether `dir` has `.npy` files, whatever else it has.
pub(crate) fn has_arrays(dir: &Path) -> bool {
    Listing::of(dir).is_ok_and(|list| list.files.iter().any(|path| path.extension().is_some_and(|e| e == "npy")))
}

/// Examples of one half, as its folder has them.
enum Half {
    Classes(Vec<(String, Vec<PathBuf>)>),
    Masks(Vec<Item>),
    Pairs(Vec<Item>),
    Flat(Vec<Item>),
}

impl Half {
    fn form(&self) -> (&'static str, Task) {
        match self {
            Half::Classes(_) => ("a folder of pictures for each class", Task::Classify),
            Half::Masks(_) => ("pictures and their masks", Task::Segment),
            Half::Pairs(_) => ("pictures in low and in high resolution", Task::Restore),
            Half::Flat(_) => ("pictures to enlarge", Task::Restore),
        }
    }
}

/// Reads the layout of `path`.
pub(crate) fn plan(path: &Path, options: &Options, wanted: Wanted) -> Result<Plan, DataError> {
    let metadata = fs::metadata(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let mut plan = match metadata.is_dir() {
        true => plan_folder(path, options, wanted)?,
        false if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) => plan_table(path, options, wanted)?,
        false => return Err(wrong(path, format!("is no data set: {EXPECTED}"))),
    };
    if let Some(asked) = options.task.filter(|asked| *asked != plan.task) {
        let (form, task) = (plan.form, plan.task);
        return Err(wrong(path, format!("holds {form}, which is to {task}, and the task is to {asked}")));
    }
    if plan.task != Task::Restore {
        if options.upscale.is_some() {
            return Err(wrong(path, format!("holds {}: `upscale` is for pictures to enlarge", plan.form)));
        }
    } else if options.random_crop.is_some() || options.resize.is_some() {
        let what = "pictures to restore keep their pixels: leave out `random_crop` and `resize`; their crops lie at random places anyway";
        return Err(wrong(path, what));
    }
    plan.odd.sort_by(|a, b| a.path.cmp(&b.path));
    if wanted == Wanted::Both && plan.train.is_empty() {
        return Err(wrong(path, format!("has no training pictures: {EXPECTED}")));
    }
    if plan.test.is_empty() {
        return Err(wrong(path, "has no test pictures: expected some in val/ or test/, or a larger `test_share`"));
    }
    Ok(plan)
}

fn plan_folder(path: &Path, options: &Options, wanted: Wanted) -> Result<Plan, DataError> {
    let list = Listing::of(path)?;
    let mut odd: Vec<Skipped> = list.files.iter().filter(|file| !is_picture(file)).map(|path| not_read(path)).collect();
    let classes_file = path.join("classes.txt");
    let (train, test, test_from) = match (list.folder(&["train"]), list.folder(&TEST_NAMES)) {
        (Some(train), test) => {
            let halves: Vec<&PathBuf> = [Some(train), test].into_iter().flatten().collect();
            odd.extend(list.folders.iter().filter(|folder| !halves.contains(folder)).map(|folder| Skipped {
                path: folder.clone(),
                why: "is not read beside train/ and the test folder".to_owned(),
            }));
            odd.extend(list.files.iter().filter(|file| is_picture(file)).map(|path| not_read(path)));
            let test_from = test.map(|test| format!("{}/", file_name(test)));
            let test = test.map(|test| half(test, options, &mut odd)).transpose()?;
            (half(train, options, &mut odd)?, test, test_from)
        }
        (None, Some(test)) if list.folders.len() == 1 => {
            let what = format!("has {}/ without train/: {EXPECTED}", file_name(test));
            return Err(wrong(path, what));
        }
        (None, _) => (half(path, options, &mut odd)?, None, None),
    };
    let (form, task) = train.form();
    if let Some(other) = test.as_ref().map(|test| test.form().0).filter(|other| *other != form) {
        let test_from = test_from.unwrap_or_default();
        return Err(wrong(path, format!("train/ holds {form}, and {test_from} {other}")));
    }
    let from = test_from.clone().unwrap_or_default();
    let mut plan =
        Plan { task, form, names: Vec::new(), train: Vec::new(), test: Vec::new(), test_from: from, odd: Vec::new() };
    match (train, test) {
        (Half::Classes(train), None) => {
            let (names, groups): (Vec<_>, Vec<_>) = train.into_iter().unzip();
            plan.names = names;
            let groups = groups.into_iter().enumerate().map(|(class, files)| items_of(class, files)).collect();
            share(path, &mut plan, groups, options, wanted)?;
        }
        (Half::Classes(train), Some(Half::Classes(test))) => {
            let names = |half: &[(String, Vec<PathBuf>)]| half.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            plan.names = names(&train);
            same_classes(path, &plan.names, &names(&test), ["train/", &plan.test_from])?;
            let groups = |half: Vec<(String, Vec<PathBuf>)>| {
                half.into_iter().enumerate().map(|(class, (_, files))| items_of(class, files)).collect()
            };
            (plan.train, plan.test) = (in_turns(groups(train)), in_turns(groups(test)));
        }
        (Half::Masks(train) | Half::Pairs(train) | Half::Flat(train), test) => match test {
            Some(Half::Masks(test) | Half::Pairs(test) | Half::Flat(test)) => (plan.train, plan.test) = (train, test),
            _ => share(path, &mut plan, vec![train], options, wanted)?,
        },
        (Half::Classes(_), Some(_)) => unreachable!("both halves have one form"),
    }
    if task == Task::Segment && classes_file.is_file() {
        plan.names = read_names(&classes_file)?;
        odd.retain(|odd| odd.path != classes_file);
    }
    if task == Task::Classify {
        check_names(path, &plan.names)?;
    }
    plan.odd = odd;
    Ok(plan)
}

fn plan_table(path: &Path, options: &Options, wanted: Wanted) -> Result<Plan, DataError> {
    let table = table::read(path, options.task)?;
    let (form, task) = match table.is_numbers {
        false => ("a table of pictures and their classes", Task::Classify),
        true => ("a table of pictures and numbers", Task::Regress),
    };
    let odd = table
        .unread
        .iter()
        .map(|column| Skipped { path: path.to_path_buf(), why: format!("the column `{column}` is not read") });
    let mut plan = Plan {
        task,
        form,
        names: table.names.clone(),
        train: Vec::new(),
        test: Vec::new(),
        test_from: "the column `split`".to_owned(),
        odd: odd.collect(),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut halves: [Vec<(usize, Item)>; 2] = [Vec::new(), Vec::new()];
    for row in table.rows {
        let class = match &row.goal {
            Goal::Class(class) => usize::from(*class),
            _ => 0,
        };
        let item = Item { input: folder.join(&row.path), goal: row.goal };
        halves[usize::from(row.is_test.unwrap_or(false))].push((class, item));
    }
    let classes = if task == Task::Classify { plan.names.len() } else { 1 };
    let grouped = |half: Vec<(usize, Item)>| {
        let mut groups = vec![Vec::new(); classes];
        half.into_iter().for_each(|(class, item)| groups[class].push(item));
        groups
    };
    let [train, test] = halves.map(grouped);
    if table.has_split {
        if task == Task::Classify {
            let present = |groups: &[Vec<Item>]| -> Vec<String> {
                plan.names
                    .iter()
                    .zip(groups)
                    .filter(|(_, group)| !group.is_empty())
                    .map(|(name, _)| name.clone())
                    .collect()
            };
            let (in_train, in_test) = (present(&train), present(&test));
            if wanted == Wanted::Both {
                same_classes(path, &in_train, &in_test, ["the training rows", "the test rows"])?;
            }
        }
        (plan.train, plan.test) = (in_turns(train), in_turns(test));
    } else {
        share(path, &mut plan, train, options, wanted)?;
    }
    if task == Task::Classify {
        check_names(path, &plan.names)?;
    }
    Ok(plan)
}

fn not_read(path: &Path) -> Skipped {
    Skipped { path: path.to_path_buf(), why: "is not read".to_owned() }
}

/// The examples of a folder that is a half, or all there is.
fn half(dir: &Path, options: &Options, odd: &mut Vec<Skipped>) -> Result<Half, DataError> {
    let list = Listing::of(dir)?;
    let pictures: Vec<PathBuf> = list.files.iter().filter(|file| is_picture(file)).cloned().collect();
    let pair = |a: &[&str], b: &[&str]| Some((list.folder(a)?.clone(), list.folder(b)?.clone()));
    if let Some((images, masks)) = pair(&["images"], &["masks"]) {
        return Ok(Half::Masks(pairs(&images, &masks, "mask", Goal::Mask, odd)?));
    }
    if let Some((low, high)) = pair(&["LR"], &["HR"]) {
        return Ok(Half::Pairs(pairs(&low, &high, "picture in high resolution", Goal::High, odd)?));
    }
    if list.folders.is_empty() && (!pictures.is_empty() || options.task == Some(Task::Restore)) {
        return Ok(Half::Flat(pictures.into_iter().map(|input| Item { input, goal: Goal::Itself }).collect()));
    }
    odd.extend(
        pictures.iter().map(|path| Skipped { path: path.clone(), why: "lies in no folder of a class".to_owned() }),
    );
    let mut classes = Vec::new();
    for folder in &list.folders {
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| !name.chars().any(char::is_control)) else {
            return Err(wrong(folder, "is no name of a class: expected UTF-8 without control characters"));
        };
        let mut files = Vec::new();
        walk(folder, 0, &mut files, odd)?;
        if files.is_empty() {
            return Err(wrong(folder, "is the folder of a class without pictures: add some, or remove it"));
        }
        classes.push((name.to_owned(), files));
    }
    match classes.is_empty() {
        true => Err(wrong(dir, format!("has no pictures: {EXPECTED}"))),
        false => Ok(Half::Classes(classes)),
    }
}

/// Adds the pictures of a class, those of folders within its folder too.
fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>, odd: &mut Vec<Skipped>) -> Result<(), DataError> {
    let list = Listing::of(dir)?;
    for file in list.files {
        if is_picture(&file) { files.push(file) } else { odd.push(not_read(&file)) }
    }
    for folder in list.folders {
        match folder.is_symlink() || depth == DEEPEST {
            true => odd.push(not_read(&folder)),
            false => walk(&folder, depth + 1, files, odd)?,
        }
    }
    Ok(())
}

/// The pictures of `inputs` with those of `targets` that have the same names but for their ends.
fn pairs(
    inputs: &Path,
    targets: &Path,
    what: &str,
    goal: fn(PathBuf) -> Goal,
    odd: &mut Vec<Skipped>,
) -> Result<Vec<Item>, DataError> {
    let mut by_name = |dir: &Path| -> Result<BTreeMap<std::ffi::OsString, PathBuf>, DataError> {
        let mut named = BTreeMap::new();
        let list = Listing::of(dir)?;
        odd.extend(list.folders.iter().map(|path| not_read(path)));
        for file in list.files {
            let stem = file.file_stem().unwrap_or_default().to_owned();
            match named.entry(stem) {
                _ if !is_picture(&file) => odd.push(not_read(&file)),
                Entry::Vacant(free) => {
                    free.insert(file);
                }
                Entry::Occupied(_) => {
                    odd.push(Skipped { path: file, why: "another file has its name with another end".to_owned() });
                }
            }
        }
        Ok(named)
    };
    let (inputs_by, mut targets_by) = (by_name(inputs)?, by_name(targets)?);
    let mut items = Vec::new();
    for (stem, input) in inputs_by {
        match targets_by.remove(&stem) {
            Some(target) => items.push(Item { input, goal: goal(target) }),
            None => odd.push(Skipped { path: input, why: format!("has no {what} in {}/", file_name(targets)) }),
        }
    }
    let alone = |path| Skipped { path, why: format!("has no picture in {}/", file_name(inputs)) };
    odd.extend(targets_by.into_values().map(alone));
    Ok(items)
}

fn items_of(class: usize, files: Vec<PathBuf>) -> Vec<Item> {
    files.into_iter().map(|input| Item { input, goal: Goal::Class(class as u16) }).collect()
}

/// Items one of each group after the other, so that the first ones are of all groups.
fn in_turns(groups: Vec<Vec<Item>>) -> Vec<Item> {
    let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
    let mut groups: Vec<_> = groups.into_iter().map(Vec::into_iter).collect();
    (0..longest).flat_map(|_| groups.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()).collect()
}

/// Makes the stated share of every group test examples: the last ones of a permutation that depends on the group and
/// its size alone.
fn share(
    path: &Path,
    plan: &mut Plan,
    groups: Vec<Vec<Item>>,
    options: &Options,
    wanted: Wanted,
) -> Result<(), DataError> {
    let Some(part) = options.test_share else {
        if wanted == Wanted::Test {
            (plan.test, plan.test_from) = (in_turns(groups), "the whole of it".to_owned());
            return Ok(());
        }
        let what = "has no test half: expected val/ or test/ beside train/ (or the column `split`), or --test-share 0.2 to keep a fifth out of training";
        return Err(wrong(path, what));
    };
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (group, items) in groups.into_iter().enumerate() {
        let kept = items.len() - ((part * items.len() as f64).round() as usize).min(items.len());
        let out: BTreeSet<u32> = epoch_order(SHARED, group as u64, items.len())[kept..].iter().copied().collect();
        let (held, own): (Vec<_>, Vec<_>) =
            items.into_iter().enumerate().partition(|(i, _)| out.contains(&(*i as u32)));
        train.push(own.into_iter().map(|(_, item)| item).collect::<Vec<_>>());
        test.push(held.into_iter().map(|(_, item)| item).collect::<Vec<_>>());
    }
    if plan.task == Task::Classify
        && let Some(class) = (0..train.len()).find(|&class| train[class].is_empty() || test[class].is_empty())
    {
        let (name, n) = (&plan.names[class], train[class].len() + test[class].len());
        let what = format!("`test_share = {part}` leaves a half of class `{name}` empty, which has {n} pictures");
        return Err(wrong(path, what));
    }
    (plan.train, plan.test) = (in_turns(train), in_turns(test));
    plan.test_from = format!("a share of {part} of it");
    Ok(())
}

/// The halves must have the same classes.
fn same_classes(path: &Path, train: &[String], test: &[String], at: [&str; 2]) -> Result<(), DataError> {
    let missing = |from: &[String], of: &[String]| from.iter().find(|name| !of.contains(name)).cloned();
    let near = |name: &str, of: &[String]| {
        let plain = |name: &str| name.to_lowercase().replace(['_', '-', ' '], "");
        of.iter().find(|other| plain(other) == plain(name)).map(|other| format!("; `{other}` is there"))
    };
    let found = missing(train, test).map(|name| (name, at, test));
    let found = found.or_else(|| missing(test, train).map(|name| (name, [at[1], at[0]], train)));
    let Some((name, [here, there], of)) = found else { return Ok(()) };
    let hint = near(&name, of).unwrap_or_default();
    Err(wrong(path, format!("class `{name}` is in {here} and not in {there}{hint}: expected the same classes in both")))
}

fn check_names(path: &Path, names: &[String]) -> Result<(), DataError> {
    match names.len() {
        0 | 1 => {
            let name = names.first().map_or("", |name| name);
            Err(wrong(path, format!("has one class, `{name}`; expected two at least: {EXPECTED}")))
        }
        2..=0xffff => Ok(()),
        n => Err(wrong(path, format!("has {n} classes; expected at most 65535"))),
    }
}

/// Names of classes, one a line.
pub(crate) fn read_names(path: &Path) -> Result<Vec<String>, DataError> {
    let bytes = bitpact_kernels::memory::read_at_most(path, 1 << 20)
        .map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let text =
        String::from_utf8(bytes).map_err(|_| wrong(path, "is not UTF-8; expected the name of a class a line"))?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    match names.iter().position(|name| name.is_empty() || name.chars().any(char::is_control)) {
        Some(line) => Err(wrong(path, format!("line {}: expected the name of a class", line + 1))),
        None if names.is_empty() => Err(wrong(path, "is empty; expected the name of a class a line")),
        None => Ok(names),
    }
}
