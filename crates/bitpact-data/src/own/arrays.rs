//! Arrays as data sets: images or signals in one, classes, numbers, masks or images in another.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::layout::{read_names, wrong};
use super::npy::{self, Archive, Array, Values};
use super::{Options, Task};
use crate::target::IGNORED;
use crate::{DataError, Dataset, Examples, ImageShape, InMemory, Limits, TargetKind, epoch_order};

/// Words for what a network reads, and for what it is to give.
const INPUTS: [&str; 4] = ["x", "images", "data", "signals"];
const TARGETS: [&str; 4] = ["y", "labels", "targets", "masks"];
/// Words for the halves, in the order in which they are looked for.
const TRAIN: &[&str] = &["train"];
const TEST: &[&str] = &["val", "valid", "validation", "test"];
/// Most channels where a side of an array can be either rows or channels.
const MOST_CHANNELS: usize = 4;
/// Seed of the permutation by which examples become test examples.
const SHARED: u64 = 0x0061_7272_6179_7368;

const EXPECTED: &str = "expected arrays called x_train, y_train, x_test and y_test (or train_images, train_labels, ...), or x and y with a `test_share`";

/// Arrays by name, in an archive or in files of a folder.
enum Source<'a> {
    Archive(Archive<'a>),
    Files(BTreeMap<String, PathBuf>),
}

impl Source<'_> {
    fn names(&self) -> Vec<String> {
        match self {
            Source::Archive(archive) => archive.names.clone(),
            Source::Files(files) => files.keys().cloned().collect(),
        }
    }

    /// The name of the first of `words` that is there, in either case.
    fn find(&self, words: impl IntoIterator<Item = String>) -> Option<String> {
        let names = self.names();
        words.into_iter().find_map(|word| names.iter().find(|name| name.eq_ignore_ascii_case(&word)).cloned())
    }

    fn read(&mut self, name: &str) -> Result<Array, DataError> {
        match self {
            Source::Archive(archive) => {
                let index = archive.names.iter().position(|own| own == name).expect("a name that was found");
                archive.read(index)
            }
            Source::Files(files) => npy::read(&files[name]),
        }
    }
}

/// What the network reads: codes of one byte, or of two with the low one first.
struct Inputs {
    bytes: Vec<u8>,
    code_bits: u8,
    shape: ImageShape,
    len: usize,
}

/// What the network is to give.
enum Targets {
    Classes(Vec<u16>),
    Dense(TargetKind, usize, Vec<f32>),
}

/// What is known of a half's arrays, in words.
pub(crate) struct Known {
    pub(crate) task: Task,
    pub(crate) names: Vec<String>,
    pub(crate) train: Option<Box<dyn Dataset>>,
    pub(crate) test: Box<dyn Dataset>,
}

/// The data set of the arrays in the `.npz` file or the folder `path`, or its test half alone.
pub(crate) fn load(path: &Path, limits: Limits, options: &Options, test_alone: bool) -> Result<Known, DataError> {
    check_options(path, options)?;
    let mut source = match path.is_dir() {
        false => Source::Archive(Archive::open(path)?),
        true => Source::Files(files(path)?),
    };
    let of = |source: &Source<'_>, words: &[&str], halves: &[&str]| {
        let named = halves
            .iter()
            .flat_map(|half| words.iter().flat_map(move |word| [format!("{word}_{half}"), format!("{half}_{word}")]));
        source.find(named.collect::<Vec<_>>())
    };
    let pair =
        |source: &Source<'_>, halves: &[&str]| Some((of(source, &INPUTS, halves)?, of(source, &TARGETS, halves)?));
    let (train, test) = (pair(&source, TRAIN), pair(&source, TEST));
    let plain = |words: [&str; 4]| source.find(words.map(str::to_owned));
    let whole = plain(INPUTS).zip(plain(TARGETS));
    let mut read = |(x, y): (String, String)| -> Result<(Inputs, Targets), DataError> {
        let at = |what: String, name: &str| wrong(path, format!("{name}: {what}"));
        let inputs = inputs(source.read(&x)?).map_err(|what| at(what, &x))?;
        let targets = targets(source.read(&y)?, options.task).map_err(|what| at(what, &y))?;
        let (n, m) = (inputs.len, targets.1);
        match n == m {
            true => Ok((inputs, targets.0)),
            false => Err(wrong(path, format!("{x} has {n} examples, and {y} {m}: expected as many"))),
        }
    };
    let (train, test) = match (train, test, whole) {
        (_, Some(test), _) if test_alone => (None, read(test)?),
        (Some(train), Some(test), _) => (Some(read(train)?), read(test)?),
        (_, _, Some(whole)) => match options.test_share {
            Some(share) => {
                let (train, test) = parted(read(whole)?, share);
                (Some(train).filter(|_| !test_alone), test)
            }
            None if test_alone => (None, read(whole)?),
            None => {
                let what =
                    "has no test half: expected x_test and y_test, or --test-share 0.2 to keep a fifth out of training";
                return Err(wrong(path, what));
            }
        },
        _ => {
            let names = source.names().join(", ");
            return Err(wrong(path, format!("holds the arrays {names}: {EXPECTED}")));
        }
    };
    let file = if path.is_dir() { path.join("classes.txt") } else { path.with_file_name("classes.txt") };
    let names = if file.is_file() { Some((read_names(&file)?, file)) } else { None };
    finish(path, names, train, test, limits, options)
}

/// The data set of arrays in memory, which errors call `path`; without `test`, [`Options::test_share`] of `train` are
/// kept out of it.
pub(super) fn of_memory(
    path: &Path,
    names: Option<Vec<String>>,
    train: Option<(Array, Array)>,
    test: Option<(Array, Array)>,
    limits: Limits,
    options: &Options,
) -> Result<Known, DataError> {
    check_options(path, options)?;
    let read = |(x, y): (Array, Array), half: &str| -> Result<(Inputs, Targets), DataError> {
        for (array, letter) in [(&x, 'X'), (&y, 'y')] {
            let sides = array.shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
            if sides != Some(array.values.len()) {
                let (shape, found) = (&array.shape, array.values.len());
                return Err(wrong(path, format!("{letter} of {half} has {found} elements and the shape {shape:?}")));
            }
        }
        let at = |what: String, letter: char| wrong(path, format!("{letter} of {half} {what}"));
        let inputs = inputs(x).map_err(|what| at(what, 'X'))?;
        let (targets, m) = targets(y, options.task).map_err(|what| at(what, 'y'))?;
        match inputs.len == m {
            true => Ok((inputs, targets)),
            false => {
                let n = inputs.len;
                Err(wrong(path, format!("{half}: X has {n} examples, and y {m}: expected as many")))
            }
        }
    };
    let train = train.map(|half| read(half, "train")).transpose()?;
    let (train, test) = match (train, test, options.test_share) {
        (train, Some(test), _) => (train, read(test, "test")?),
        (Some(train), None, Some(share)) => {
            let (train, test) = parted(train, share);
            (Some(train), test)
        }
        _ => {
            return Err(wrong(
                path,
                "there is no test half: expected `test`, or `test_share` to keep a part of `train`",
            ));
        }
    };
    finish(path, names.map(|names| (names, PathBuf::from("class_names"))), train, test, limits, options)
}

fn check_options(path: &Path, options: &Options) -> Result<(), DataError> {
    let is_set = [options.resize.is_some(), options.random_crop.is_some(), options.upscale.is_some()];
    match is_set.contains(&true) {
        true => Err(wrong(path, "arrays are read as they are: leave out `resize`, `random_crop` and `upscale`")),
        false => Ok(()),
    }
}

fn files(dir: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let io = |source| DataError::Io { path: dir.to_path_buf(), source };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if let Some(stem) =
            path.file_stem().and_then(|stem| stem.to_str()).filter(|_| path.extension().is_some_and(|e| e == "npy"))
        {
            files.insert(stem.to_owned(), path.clone());
        }
    }
    Ok(files)
}

/// Bytes of an array of images or signals, in HWC order.
fn inputs(array: Array) -> Result<Inputs, String> {
    let shape = &array.shape;
    let (n, image, is_planes) = match shape[..] {
        [n, w] => (n, ImageShape { h: 1, w, c: 1 }, false),
        [n, h, w] => (n, ImageShape { h, w, c: 1 }, false),
        [n, a, b, c] => match [a, c].map(|side| side <= MOST_CHANNELS) {
            [false, true] => (n, ImageShape { h: a, w: b, c }, false),
            [true, false] => (n, ImageShape { h: b, w: c, c: a }, true),
            _ => {
                return Err(format!(
                    "has the shape {shape:?}, which does not tell channels from rows: expected N x rows x columns x channels \
                     or N x channels x rows x columns, with 1 to {MOST_CHANNELS} channels and longer sides"
                ));
            }
        },
        _ => return Err(format!("has the shape {shape:?}; expected 2 sides for signals, 3 or 4 for images")),
    };
    if array.values.len() == 0 {
        return Err(format!("has the shape {shape:?}, which holds nothing"));
    }
    let (mut bytes, code_bits) = codes(array.values)?;
    if is_planes && image.c > 1 {
        let (area, c, size) = (image.h * image.w, image.c, usize::from(code_bits / 8));
        let mut out = vec![0; bytes.len()];
        for (to, from) in out.chunks_exact_mut(area * c * size).zip(bytes.chunks_exact(area * c * size)) {
            for (i, code) in to.chunks_exact_mut(size).enumerate() {
                code.copy_from_slice(&from[(i % c * area + i / c) * size..][..size]);
            }
        }
        bytes = out;
    }
    Ok(Inputs { bytes, code_bits, shape: image, len: n })
}

/// What a network reads of an array, and the bits of a code: bytes, also where another type holds them, and unsigned
/// integers of 16 bits, the low byte first.
fn codes(values: Values) -> Result<(Vec<u8>, u8), String> {
    match values {
        Values::Bytes(bytes) => Ok((bytes, 8)),
        Values::Unsigned16(values) => Ok((values.into_iter().flat_map(u16::to_le_bytes).collect(), 16)),
        Values::Integers(values) => {
            let byte = |value: i64| {
                u8::try_from(value).map_err(|_| {
                    format!("holds {value}; expected numbers from 0 to 255, or an array of the type uint16")
                })
            };
            Ok((values.into_iter().map(byte).collect::<Result<_, _>>()?, 8))
        }
        Values::Floats(_) => {
            Err("holds floats; a network reads integers: expected uint8, uint16 or integers from 0 to 255".to_owned())
        }
    }
}

/// Targets and how many there are.
fn targets(array: Array, task: Option<Task>) -> Result<(Targets, usize), String> {
    let Array { shape, values } = array;
    let Some(&n) = shape.first() else { return Err("is one number; expected one or more for each example".to_owned()) };
    let is_single = shape[1..].iter().all(|&side| side == 1) && shape.len() <= 2;
    let is_float = matches!(values, Values::Floats(_));
    let found = match shape.len() {
        1 | 2 if is_single && !is_float && task != Some(Task::Regress) => Task::Classify,
        1 | 2 => Task::Regress,
        3 => Task::Segment,
        4 => Task::Restore,
        _ => return Err(format!("has the shape {shape:?}; expected 1 or 2 sides, 3 for masks, 4 for images")),
    };
    if let Some(asked) = task.filter(|asked| *asked != found) {
        let kind = values.kind();
        return Err(format!("has {kind} of the shape {shape:?}, which are to {found}, and the task is to {asked}"));
    }
    if found == Task::Restore {
        let Inputs { bytes, code_bits, shape, len } = inputs(Array { shape, values })?;
        let values = match code_bits {
            8 => bytes.iter().map(|&pixel| f32::from(pixel) / 255.0).collect(),
            _ => {
                bytes.chunks_exact(2).map(|code| f32::from(u16::from_le_bytes([code[0], code[1]])) / 65_535.0).collect()
            }
        };
        return Ok((Targets::Dense(TargetKind::Image(shape), shape.c, values), len));
    }
    let numbers = values.numbers();
    let class = |&value: &f64| value >= 0.0 && value < f64::from(u16::MAX) && value.fract() == 0.0;
    let not_class = |value: &f64| format!("holds {value}; expected classes from 0 to 65534");
    match found {
        Task::Classify => match numbers.iter().find(|value| !class(value)) {
            Some(value) => Err(not_class(value)),
            None => Ok((Targets::Classes(numbers.into_iter().map(|value| value as u16).collect()), n)),
        },
        Task::Segment => {
            let is_ignored = |value: f64| value == 255.0 || value == -1.0;
            match numbers.iter().find(|&&value| !is_ignored(value) && !class(&value)) {
                Some(value) => Err(not_class(value)),
                None => {
                    let kind = TargetKind::Mask { h: shape[1], w: shape[2] };
                    let values = numbers.iter().map(|&value| if is_ignored(value) { IGNORED } else { value as f32 });
                    let values: Vec<f32> = values.collect();
                    Ok((Targets::Dense(kind, 0, values), n))
                }
            }
        }
        _ => match numbers.iter().find(|value| !(**value as f32).is_finite()) {
            Some(value) => Err(format!("holds {value}; expected finite numbers")),
            None => {
                let width: usize = shape[1..].iter().product();
                let values = numbers.into_iter().map(|value| value as f32).collect();
                Ok((Targets::Dense(TargetKind::Numbers(width), width, values), n))
            }
        },
    }
}

impl Inputs {
    fn take(&self, indices: &[u32]) -> Self {
        let size = self.example_bytes();
        let bytes = indices.iter().flat_map(|&i| &self.bytes[i as usize * size..][..size]).copied().collect();
        Self { bytes, len: indices.len(), ..*self }
    }

    fn example_bytes(&self) -> usize {
        self.shape.len() * usize::from(self.code_bits / 8)
    }
}

impl Targets {
    fn take(&self, indices: &[u32]) -> Self {
        match self {
            Targets::Classes(classes) => Targets::Classes(indices.iter().map(|&i| classes[i as usize]).collect()),
            Targets::Dense(kind, channels, values) => {
                let of = indices.iter().flat_map(|&i| &values[i as usize * kind.len()..][..kind.len()]);
                Targets::Dense(*kind, *channels, of.copied().collect())
            }
        }
    }
}

/// Splits examples into those to learn from and a share of others.
fn parted((x, y): (Inputs, Targets), share: f64) -> ((Inputs, Targets), (Inputs, Targets)) {
    let kept = x.len - ((share * x.len as f64).round() as usize).min(x.len);
    let mut train = epoch_order(SHARED, 0, x.len);
    let mut test = train.split_off(kept);
    train.sort_unstable();
    test.sort_unstable();
    ((x.take(&train), y.take(&train)), (x.take(&test), y.take(&test)))
}

fn finish(
    path: &Path,
    named: Option<(Vec<String>, PathBuf)>,
    train: Option<(Inputs, Targets)>,
    test: (Inputs, Targets),
    limits: Limits,
    options: &Options,
) -> Result<Known, DataError> {
    let halves = || train.iter().chain([&test]);
    let kinds: Vec<_> = halves()
        .map(|(x, y)| match y {
            Targets::Classes(_) => ((x.shape, x.code_bits), TargetKind::Class, 0),
            Targets::Dense(kind, channels, _) => ((x.shape, x.code_bits), *kind, *channels),
        })
        .collect();
    if kinds.iter().any(|kind| *kind != kinds[0]) {
        let (a, b) = (kinds[0], kinds[1]);
        return Err(wrong(
            path,
            format!("its halves differ in shape or bits: {:?} to {:?}, and {:?} to {:?}", a.0, a.1, b.0, b.1),
        ));
    }
    let ((shape, code_bits), kind, _) = kinds[0];
    if let Some([h, w]) = options.crop.filter(|crop| *crop != [shape.h, shape.w]) {
        let (own_h, own_w) = (shape.h, shape.w);
        let what =
            format!("its images have {own_h}x{own_w} pixels, and `crop` is {h}x{w}: arrays are read as they are");
        return Err(wrong(path, what));
    }
    if options.channels.is_some_and(|c| c != shape.c) {
        return Err(wrong(path, format!("its images have {} channels: arrays are read as they are", shape.c)));
    }
    let most = |y: &Targets| match y {
        Targets::Classes(classes) => classes.iter().copied().max().map_or(0, |most| usize::from(most) + 1),
        Targets::Dense(TargetKind::Mask { .. }, _, values) => {
            values.iter().fold(0.0f32, |most, &class| most.max(class + 1.0)) as usize
        }
        Targets::Dense(_, channels, _) => *channels,
    };
    let needed = halves().map(|(_, y)| most(y)).max().unwrap_or(0);
    let (names, file) = named.unwrap_or_else(|| ((0..needed).map(|i| i.to_string()).collect(), path.to_owned()));
    let is_exact = matches!(kind, TargetKind::Numbers(_) | TargetKind::Image(_));
    if names.len() < needed || (is_exact && names.len() != needed) {
        let named = names.len();
        return Err(wrong(&file, format!("names {named} classes, and the arrays have {needed}")));
    }
    if !is_exact && names.len() < 2 {
        return Err(wrong(path, "has one class; expected two at least"));
    }
    let set = |(x, y): (Inputs, Targets), limit: Option<usize>, what: &str| -> Result<Box<dyn Dataset>, DataError> {
        let n = crate::dataset::limited_len(&format!("{}: the {what} half", path.display()), x.len, limit)?;
        let size = x.example_bytes();
        let mut bytes = x.bytes;
        bytes.truncate(n * size);
        Ok(match y {
            Targets::Classes(mut classes) => {
                classes.truncate(n);
                Box::new(InMemory::of_bits(bytes, classes, (shape, code_bits), names.clone())?)
            }
            Targets::Dense(kind, _, mut values) => {
                values.truncate(n * kind.len());
                Box::new(Examples::of_bits(bytes, values, (shape, code_bits), kind, names.clone())?)
            }
        })
    };
    let task = Task::of(kind);
    let train = train.map(|half| set(half, limits.train, "training")).transpose()?;
    let test = set(test, limits.test, "test")?;
    Ok(Known { task, names, train, test })
}
