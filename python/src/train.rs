//! The function `train`: a recipe, arrays or a data set, and the run that they describe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bitpact::unstable::data::load_as;
use bitpact::unstable::data::own::{self, Half, Task};
use bitpact::unstable::graph::Shape;
use bitpact::unstable::interop::weights::remove_other_head;
use bitpact::unstable::kernels::peak::Cpu;
use bitpact::unstable::report::Session;
use bitpact::unstable::train::recipe::builtin_for_dataset;
use bitpact::unstable::train::run_folder::{CONFIG, FLOAT, LAST};
use bitpact::{
    BackendKind, DatasetName, Draft, EpochRecord, Event, Images, Isa, Limits, Outcome, Recipe, RunFolder, RunOptions,
    Split, Start, Tensor, train,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::array::elements;
use crate::error::{Kind, OrRaise, raise, wrong};
use crate::integer::threads_or_all;
use crate::model::Model;
use crate::value::{from_json, to_table, to_toml};
use crate::watch::Watch;

/// Examples in memory.
struct Halves {
    train: Half,
    test: Option<Half>,
    class_names: Option<Vec<String>>,
}

/// Where the examples come from.
enum Source {
    Arrays(Box<Halves>),
    Set(Option<PathBuf>),
}

/// Everything a run is made of.
struct Job {
    draft: Draft,
    source: Source,
    output: PathBuf,
    resume: bool,
    weights: Option<bitpact::Model>,
    backend: BackendKind,
    threads: usize,
}

/// Trains a network; `bitpact.train` is the function for people.
#[pyfunction]
#[pyo3(signature = (recipe, keys, *, train, test, data, class_names, output, resume, init_from, threads, backend, callback))]
pub(crate) fn run_training(
    py: Python<'_>,
    recipe: Option<&Bound<'_, PyAny>>,
    keys: &Bound<'_, PyDict>,
    train: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    test: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    data: Option<PathBuf>,
    class_names: Option<Vec<String>>,
    output: PathBuf,
    resume: bool,
    init_from: Option<PyRef<'_, Model>>,
    threads: Option<usize>,
    backend: &str,
    callback: Option<Py<PyAny>>,
) -> PyResult<()> {
    let half = |(x, y): (Bound<'_, PyAny>, Bound<'_, PyAny>), half: &str| -> PyResult<Half> {
        Ok((elements(&x, &format!("X of {half}"))?, elements(&y, &format!("y of {half}"))?))
    };
    let weights = init_from.map(|model| model.model.clone());
    let stored = if resume && recipe.is_none() && weights.is_none() { stored(&output)? } else { None };
    let mut draft = draft(recipe, stored, keys, weights.as_ref())?;
    let source = match train {
        Some(train) => {
            draft.set("dataset", DatasetName::Folder.as_str(), "train");
            let (train, test) = (half(train, "train")?, test.map(|test| half(test, "test")).transpose()?);
            Source::Arrays(Box::new(Halves { train, test, class_names }))
        }
        None if test.is_some() => return Err(wrong("test is given without train")),
        None => Source::Set(data),
    };
    let backend = backend.parse::<BackendKind>().map_err(|error| wrong(format!("backend = \"{backend}\": {error}")))?;
    let threads = threads_or_all(threads)?;
    let job = Job { draft, source, output, resume, weights, backend, threads };
    let watch = Watch::default();
    let result = py.detach(|| job.run(&watch, callback.as_ref()));
    match watch.cause() {
        Some(error) => Err(error),
        None => result,
    }
}

/// The recipe of the run in `output`, if there is one.
fn stored(output: &Path) -> PyResult<Option<Draft>> {
    if !output.join(CONFIG).exists() {
        return Ok(None);
    }
    let recipe = RunFolder::open(output).and_then(|folder| folder.config()).or_wrong()?;
    Ok(Some(Draft::parse(&recipe.to_toml(), "the run's recipe").or_wrong()?.stored()))
}

/// The recipe by its name, path or dictionary, or that of a run that goes on, with `keys` over it.
fn draft(
    recipe: Option<&Bound<'_, PyAny>>,
    stored: Option<Draft>,
    keys: &Bound<'_, PyDict>,
    weights: Option<&bitpact::Model>,
) -> PyResult<Draft> {
    let mut draft = match recipe {
        None if stored.is_some() => stored.expect("it is there"),
        None => {
            let named = keys.get_item("dataset")?.and_then(|name| name.extract::<String>().ok());
            let name = named.as_deref().and_then(builtin_for_dataset).unwrap_or("builtin");
            let mut draft = Draft::open(name).or_wrong()?;
            if let Some(weights) = weights {
                draft.fine_tune();
                draft.set_graph(&weights.graph, "init_from");
                draft.set_input(&weights.input, "init_from");
            }
            draft
        }
        Some(recipe) => match recipe.cast::<PyDict>() {
            Ok(dict) => {
                let text = toml::to_string(&to_table(dict, "recipe")?).or_wrong()?;
                Draft::parse(&text, "the recipe").or_wrong()?
            }
            Err(_) => Draft::open(recipe.extract::<PathBuf>()?).or_wrong()?,
        },
    };
    for (name, value) in keys {
        let name: String = name.extract()?;
        let Some(key) = Recipe::KEYS.iter().find(|key| key.name == name) else {
            // The reader of recipes knows which key may have been meant.
            let unknown = toml::Table::from_iter([(name, toml::Value::Integer(0))]);
            Draft::parse(&toml::to_string(&unknown).or_wrong()?, "train()").or_wrong()?;
            continue;
        };
        if value.is_none() {
            continue;
        }
        match value.cast::<PyString>() {
            Ok(text) if !key.flag_value.is_empty() => draft.set_flag(key, text.to_string().as_ref()).or_wrong()?,
            _ => draft.set(key.name, to_toml(&value, key.name)?, key.name),
        }
    }
    Ok(draft)
}

impl Job {
    fn run(self, watch: &Watch, callback: Option<&Py<PyAny>>) -> PyResult<()> {
        let Job { draft, source, output, resume, weights, backend, threads } = self;
        let dataset = draft.known_dataset().or_wrong()?;
        let (mut recipe, warnings) = draft.finish_with_warnings().or_wrong()?;
        for text in warnings {
            warn(watch, &text);
        }
        let (split, task) = examples(source, dataset, &recipe, threads)?;
        recipe.task = recipe.task.or(task);
        if let Some(text) = recipe.fit_input(&*split.train) {
            warn(watch, &text);
        }
        let goes_on = resume && [CONFIG, LAST].iter().any(|name| output.join(name).exists());
        let (folder, start) = if goes_on {
            let folder = RunFolder::resume(&output).or_runtime()?;
            let (stored, start) = match folder.checkpoint().or_wrong()? {
                Some((checkpoint, recipe)) => (recipe, Start::Resume(Box::new(checkpoint))),
                None => (folder.config().or_wrong()?, Start::Fresh { weights: None }),
            };
            agree(&output, &stored, &recipe)?;
            (folder, start)
        } else {
            let folder = RunFolder::create(&output).or_runtime()?;
            let weights = weights.map(|model| initial(model, &recipe, &split, watch)).transpose()?;
            (folder, Start::Fresh { weights })
        };
        let machine = Machine { backend, threads };
        let compares = recipe.compare_float && !recipe.bits.is_float();
        let outcome = one(&recipe, &folder, start, &split, machine, false, watch, callback)?;
        if !outcome.finished || !compares || watch.flag().load(Ordering::Relaxed) {
            return Ok(());
        }
        let (path, float) = (folder.file(FLOAT), recipe.as_float());
        let inner = RunFolder::resume_or_create(&path).or_runtime()?;
        let start = match inner.checkpoint().or_wrong()? {
            None => Start::Fresh { weights: None },
            Some((checkpoint, stored)) => {
                agree(&path, &stored, &float)?;
                Start::Resume(Box::new(checkpoint))
            }
        };
        one(&float, &inner, start, &split, machine, true, watch, callback).map(drop)
    }
}

/// A run goes on as it began, but for the number of epochs and where the teacher lies.
fn agree(path: &Path, stored: &Recipe, recipe: &Recipe) -> PyResult<()> {
    let clashes = stored.clashes(recipe).into_iter();
    let changes: Vec<String> = clashes.map(|(key, was, is)| format!("`{key}` is {was} in it, not {is}")).collect();
    match changes.is_empty() {
        true => Ok(()),
        false => Err(wrong(format!("{}: a run goes on as it began: {}", path.display(), changes.join("; ")))),
    }
}

/// Both halves of the data, and the task where they tell it.
fn examples(source: Source, dataset: DatasetName, recipe: &Recipe, threads: usize) -> PyResult<(Split, Option<Task>)> {
    let limits = Limits { train: recipe.limit_train, test: recipe.limit_test };
    let options = own::Options { threads, ..recipe.own_options() };
    let loaded = match (source, dataset) {
        (Source::Arrays(halves), _) => {
            let Halves { train, test, class_names } = *halves;
            own::load_arrays("arrays", Some(train), test, class_names, limits, &options).or_wrong()?
        }
        (Source::Set(Some(path)), DatasetName::Folder) => own::load(&path, limits, &options, &|_, _| {}).or_wrong()?,
        (Source::Set(None), DatasetName::Folder) => {
            return Err(wrong("no examples: expected train=(X, y), or data=PATH"));
        }
        (Source::Set(path), name) => return Ok((load_as(name, path.as_deref(), limits, &options).or_wrong()?, None)),
    };
    let train = loaded.train.expect("both halves were asked for");
    Ok((Split { train, test: loaded.test }, Some(loaded.task)))
}

/// The weights that a run begins with; those of a last layer with other outputs are left out.
fn initial(model: bitpact::Model, recipe: &Recipe, split: &Split, watch: &Watch) -> PyResult<BTreeMap<String, Tensor>> {
    let input = &model.input;
    if let Some(difference) = input.difference(&recipe.input_description(input.scale.len())) {
        return Err(wrong(format!(
            "init_from: its pixels have another meaning than the recipe's `input`: {difference}"
        )));
    }
    let shape = split.train.image_shape();
    let graph = recipe.network(Shape::new(shape.h, shape.w, shape.c), split.train.class_names().len()).or_wrong()?;
    let mut tensors = model.tensors;
    if let Some(note) = remove_other_head(&graph, &mut tensors) {
        warn(watch, &note);
    }
    Ok(tensors)
}

#[derive(Clone, Copy)]
struct Machine {
    backend: BackendKind,
    threads: usize,
}

/// Trains one run.
fn one(
    recipe: &Recipe,
    folder: &RunFolder,
    start: Start,
    split: &Split,
    Machine { backend, threads }: Machine,
    is_float: bool,
    watch: &Watch,
    callback: Option<&Py<PyAny>>,
) -> PyResult<Outcome> {
    let isa = Isa::detect();
    let mut session = Ok(());
    let mut observer = |event: Event<'_>| {
        match event {
            Event::Start { step, .. } if !is_float => {
                let (machine, isa) = (Cpu::detect().model, isa.to_string());
                session = Session { step, commit: String::new(), machine, threads, isa }.append(folder.path());
            }
            Event::Epoch(record) => {
                if let Some(callback) = callback {
                    watch.call(|py| callback.call1(py, (epoch(py, record, is_float)?,)).map(drop));
                }
            }
            Event::Warning(warning) => warn(watch, &warning.message),
            _ => {}
        }
        watch.look();
    };
    let images = Images { train: &*split.train, test: &*split.test };
    let options = RunOptions { backend, isa, threads, stop: watch.flag(), observer: &mut observer };
    let outcome = train(recipe, images, folder, start, options).or_wrong()?;
    session.or_runtime()?;
    if !outcome.finished && watch.flag().load(Ordering::Relaxed) {
        return Ok(outcome);
    }
    match outcome.finished {
        true => Ok(outcome),
        false => Err(raise(Kind::Runtime, format!("{}: stopped after step {}", folder.path().display(), outcome.step))),
    }
}

/// The record of an epoch as a dictionary.
fn epoch<'py>(py: Python<'py>, record: &EpochRecord, is_float: bool) -> PyResult<Bound<'py, PyAny>> {
    let mut value = serde_json::to_value(record).or_runtime()?;
    value["float"] = is_float.into();
    from_json(py, &value)
}

/// A warning of Python.
fn warn(watch: &Watch, text: &str) {
    watch.call(|py| {
        let class = py.import("bitpact._errors")?.getattr("BitpactWarning")?;
        py.import("warnings")?.call_method1("warn", (text, class)).map(drop)
    });
}

/// The names of the keys of a recipe.
#[pyfunction]
pub(crate) fn recipe_keys() -> Vec<&'static str> {
    Recipe::key_names().collect()
}
