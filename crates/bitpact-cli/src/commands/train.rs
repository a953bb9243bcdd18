//! `bitpact train`: a recipe, flags over it, and the run they describe.

mod args;
mod initial;
mod logs;
mod output;
mod report;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use bitpact::Recipe;
use bitpact::unstable::data::own::{Options, holds_arrays};
use bitpact::unstable::data::{DatasetName, Limits, Split};
use bitpact::unstable::model::Pixels;
use bitpact::unstable::train::recipe::builtin_for_dataset;
use bitpact::unstable::train::run_folder::{FLOAT, LAST};
use bitpact::unstable::train::{
    BackendKind, Draft, EpochRecord, Event, Images, Outcome, RunFolder, RunOptions, Start, train,
};

use crate::exit::{Interrupted, Usage};
use crate::interrupt;
use crate::machine::{Machine, load_images};
use crate::out::{pasted, say};
use crate::progress::Display;
use crate::tui::{self, Tui};

pub(crate) use args::{Args, RecipeFlags};
use initial::Initial;
use logs::Logs;

/// A command line that was found good.
struct Plan {
    recipe: Recipe,
    dataset: DatasetName,
    folder: RunFolder,
    start: Start,
    /// Weights that a fresh start takes.
    initial: Option<Initial>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let json = args.json;
    let Trained { recipe, folder, last, float } = trained(args)?;
    report::print(&recipe, &folder, &last, float.as_ref(), json)
}

/// A run that went to its end.
pub(crate) struct Trained {
    recipe: Recipe,
    folder: RunFolder,
    last: EpochRecord,
    /// The last epoch of the float network trained beside it.
    float: Option<EpochRecord>,
}

/// Trains what the arguments say.
pub(crate) fn trained(args: Args) -> Result<Trained> {
    let machine = (args.backend, args.machine.resolve());
    if args.tui {
        tui::check()?;
    }
    let mut plan = match &args.resume {
        Some(path) => resume(&args, path)?,
        None => fresh(&args)?,
    };
    let limits = Limits { train: plan.recipe.limit_train, test: plan.recipe.limit_test };
    if args.strict && plan.dataset != DatasetName::Folder {
        say!("warning: --strict changes nothing: only the data set `folder` leaves files out");
    }
    let options = Options { strict: args.strict, threads: machine.1.threads, ..plan.recipe.own_options() };
    let (split, reading) = load_images(plan.dataset, args.data.as_ref(), limits, &options)?;
    // Whoever opens the run later need not have the data to know what they are for.
    plan.recipe.task = plan.recipe.task.or(reading.as_ref().map(|reading| reading.task));
    if let Some(warning) = plan.recipe.fit_input(&*split.train) {
        say!("warning: {warning}");
    }
    let stop = interrupt::stop_flag();
    let compares = plan.recipe.compare_float && !plan.recipe.bits.is_float();
    if compares {
        check_float(&plan.recipe, &plan.folder)?;
    }

    let Plan { recipe, folder, mut start, initial, .. } = plan;
    if let Some(initial) = initial {
        start = Start::Fresh { weights: Some(initial.tensors(&recipe, &*split.train)?) };
    }
    let looks = args.tui;
    if cfg!(feature = "tui") && !looks && std::io::stderr().is_terminal() {
        say!("to see it live: bitpact watch {}, or train with --tui", pasted(folder.path()));
    }
    let mut logs = Logs::new(&args.log, &folder);
    let outcome = run_one("training", looks, &recipe, &folder, start, &split, machine, stop, &mut |event| {
        if let Event::Start { step, .. } = event {
            logs.tell(machine.1.session(*step).append(folder.path()));
        }
        logs.take(event);
    })?;
    let data = args.data.as_deref();
    let last = finished("saved", &folder, data, outcome)?;
    let float = match compares {
        true => Some(compare(&recipe, &folder, data, looks, &split, machine, stop)?),
        false => None,
    };
    Ok(Trained { recipe, folder, last, float })
}

/// The built-in recipe for the data that the flags name.
fn recipe_of_data(args: &Args) -> &'static str {
    match args.recipe_flags.get("dataset").and_then(builtin_for_dataset) {
        Some("folder") if args.data.as_deref().is_some_and(holds_arrays) => "arrays",
        by_dataset => by_dataset.unwrap_or("builtin"),
    }
}

/// A run from its beginning.
fn fresh(args: &Args) -> Result<Plan> {
    let mut draft = Draft::open(args.recipe.as_deref().unwrap_or(Path::new(recipe_of_data(args))))?;
    let given = |key: &str| args.recipe_flags.get(key).is_some();
    let mut initial = None;
    // A recipe that is named says everything.
    if let (Some(path), None) = (&args.init_from, &args.recipe) {
        let opened = Initial::open(path, args.recipe_flags.get("input").and_then(|text| Pixels::parse(text).ok()))?;
        draft.fine_tune();
        opened.describe(&mut draft, given("arch"), given("input"))?;
        initial = Some(opened);
    }
    let before = draft.clone();
    args.recipe_flags.apply(&mut draft)?;
    let (dataset, flagged) = (draft.known_dataset()?, draft.flagged());
    let (recipe, warnings) = draft.finish_with_warnings()?;
    for warning in warnings {
        say!("warning: {warning}");
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => output::default_folder(before, &flagged, &recipe, args.init_from.as_deref()),
    };
    let folder = RunFolder::create(path)?;
    if let (Some(path), Some(_)) = (&args.init_from, &args.recipe) {
        initial = Some(Initial::open(path, initial::pixels_of(&recipe))?);
    }
    if let Some(initial) = &initial {
        initial.check_pixels(&recipe, args.force)?;
    }
    Ok(Plan { recipe, dataset, folder, start: Start::Fresh { weights: None }, initial })
}

/// A run from where it stopped.
fn resume(args: &Args, path: &Path) -> Result<Plan> {
    let folder = RunFolder::resume(path)?;
    let (stored, start) = match folder.checkpoint()? {
        Some((checkpoint, recipe)) => (recipe, Start::Resume(Box::new(checkpoint))),
        None => (folder.config()?, Start::Fresh { weights: None }),
    };
    let mut draft = Draft::parse(&stored.to_toml(), "the run's recipe")?.stored();
    args.recipe_flags.apply(&mut draft)?;
    let dataset = draft.known_dataset()?;
    let recipe = draft.finish()?;
    let clashes = stored.clashes(&recipe).into_iter();
    let changes: Vec<String> = clashes.map(|(key, was, is)| format!("`{key}` is {was} in it, not {is}")).collect();
    if !changes.is_empty() {
        let run = path.display();
        return Err(Usage(format!("--resume {run}: a run goes on as it began: {}", changes.join("; "))).into());
    }
    Ok(Plan { recipe, dataset, folder, start, initial: None })
}

/// Trains one run, on a dashboard where someone `looks`; `also` is told what happens before it is shown.
pub(super) fn run_one(
    label: &'static str,
    looks: bool,
    recipe: &Recipe,
    folder: &RunFolder,
    start: Start,
    split: &Split,
    (backend, machine): (BackendKind, Machine),
    stop: &AtomicBool,
    also: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome> {
    let images = Images { train: &*split.train, test: &*split.test };
    let mut display = Display::new(label, recipe.epochs, recipe.batch_size);
    let tui = looks.then(|| Tui::open(recipe, folder)).flatten();
    let mut observer = |event: Event<'_>| {
        also(&event);
        match &tui {
            Some(tui) if tui.is_open() => tui.take(&event, recipe.batch_size),
            _ => display.show(&event),
        }
    };
    let Machine { isa, threads } = machine;
    let options = RunOptions { backend, isa, threads, stop, observer: &mut observer };
    Ok(train(recipe, images, folder, start, options)?)
}

/// The last epoch of a run that went to its end; an error that says how to go on with `run` where it did not.
fn finished(saved: &str, run: &RunFolder, data: Option<&Path>, outcome: Outcome) -> Result<EpochRecord> {
    let path = pasted(run.path());
    if !outcome.finished {
        let data = data.map(|data| format!(" --data {}", pasted(data))).unwrap_or_default();
        say!("{saved} after step {}; go on with: bitpact train --resume {path}{data}", outcome.step);
        return Err(Interrupted.into());
    }
    outcome.last.with_context(|| format!("{path}: records.jsonl has no epoch"))
}

/// A float run that is there already must be that of the recipe; better said before the training than after it.
fn check_float(recipe: &Recipe, folder: &RunFolder) -> Result<()> {
    let path = folder.file(FLOAT);
    if !path.join(LAST).exists() {
        return Ok(());
    }
    let Some((_, stored)) = RunFolder::open(&path)?.checkpoint()? else { return Ok(()) };
    let clashes = stored.clashes(&recipe.as_float()).into_iter();
    let changes: Vec<String> = clashes.map(|(key, was, is)| format!("`{key}` is {was}, not {is}")).collect();
    if !changes.is_empty() {
        let (path, changes) = (path.display(), changes.join("; "));
        bail!("{path}: holds another run than the float network of this one: {changes}");
    }
    Ok(())
}

/// Trains the float network beside a run, or goes on with it.
fn compare(
    recipe: &Recipe,
    folder: &RunFolder,
    data: Option<&Path>,
    looks: bool,
    split: &Split,
    machine: (BackendKind, Machine),
    stop: &AtomicBool,
) -> Result<EpochRecord> {
    let (path, float) = (folder.file(FLOAT), recipe.as_float());
    let inner = RunFolder::resume_or_create(&path)?;
    let start = match inner.checkpoint()? {
        None => Start::Fresh { weights: None },
        Some((checkpoint, _)) => Start::Resume(Box::new(checkpoint)),
    };
    let outcome = run_one("float", looks, &float, &inner, start, split, machine, stop, &mut |_| {})?;
    finished("the float run saved", folder, data, outcome)
}
