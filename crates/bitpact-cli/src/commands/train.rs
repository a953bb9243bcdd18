//! `bitpact train`: a recipe, flags over it, and the run they describe.

mod args;
mod output;
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use bitpact::Recipe;
use bitpact::unstable::data::{DatasetName, Limits, Split};
use bitpact::unstable::model::{Tensor, load_weights_and_input};
use bitpact::unstable::train::recipe::builtin_for_dataset;
use bitpact::unstable::train::run_folder::{CONFIG, FLOAT, LAST};
use bitpact::unstable::train::{
    BackendKind, Draft, EpochRecord, Event, Images, Outcome, RunFolder, RunOptions, Start, train,
};

use crate::exit::{Interrupted, Usage, or_force};
use crate::interrupt;
use crate::machine::{Machine, load_images};
use crate::out::{pasted, say};
use crate::progress::Display;

pub(crate) use args::{Args, RecipeFlags};

/// A command line that was found good.
struct Plan {
    recipe: Recipe,
    dataset: DatasetName,
    folder: RunFolder,
    start: Start,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let machine = (args.backend, args.machine.resolve());
    let plan = match &args.resume {
        Some(path) => resume(&args, path)?,
        None => fresh(&args)?,
    };
    let limits = Limits { train: plan.recipe.limit_train, test: plan.recipe.limit_test };
    let split = load_images(plan.dataset, args.data.as_ref(), limits)?;
    let stop = interrupt::stop_flag();
    let compares = plan.recipe.compare_float && !plan.recipe.bits.is_float();
    if compares {
        check_float(&plan.recipe, &plan.folder)?;
    }

    let Plan { recipe, folder, start, .. } = plan;
    let outcome = run_one("training", &recipe, &folder, start, &split, machine, stop, &mut |_| {})?;
    let last = finished(&folder, outcome)?;
    let float = match compares {
        true => Some(compare(&recipe, &folder, &split, machine, stop)?),
        false => None,
    };
    report::print(&recipe, &folder, &last, float.as_ref(), args.json)
}

/// A run from its beginning.
fn fresh(args: &Args) -> Result<Plan> {
    let by_dataset = args.recipe_flags.get("dataset").and_then(builtin_for_dataset);
    let mut draft = Draft::open(args.recipe.as_deref().or(by_dataset.map(Path::new)).unwrap_or(Path::new("builtin")))?;
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
    let weights = args.init_from.as_ref().map(|path| weights(path, &recipe, args.force)).transpose()?;
    Ok(Plan { recipe, dataset, folder, start: Start::Fresh { weights } })
}

/// The weights to start from, which must have been trained on pixels of the recipe's meaning where their file tells.
fn weights(path: &Path, recipe: &Recipe, force: bool) -> Result<BTreeMap<String, Tensor>> {
    let (weights, input) = load_weights_and_input(path)?;
    let difference = input.and_then(|input| input.difference(&recipe.input_description(input.scale.len())));
    if let Some(difference) = difference {
        let file = path.display();
        or_force(
            force,
            format!("{file}: its pixels have another meaning than the recipe's `input`: {difference}"),
            "takes its weights",
        )?;
    }
    Ok(weights)
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
    let changes: Vec<String> = stored
        .differences(&recipe)
        .into_iter()
        .filter(|(key, ..)| !["epochs", "teacher"].contains(&key.as_str()))
        .map(|(key, was, is)| format!("`{key}` is {was} in it, not {is}"))
        .collect();
    if !changes.is_empty() {
        let run = path.display();
        return Err(Usage(format!("--resume {run}: a run goes on as it began: {}", changes.join("; "))).into());
    }
    Ok(Plan { recipe, dataset, folder, start })
}

/// Trains one run; `also` is told what happens before it is shown.
pub(super) fn run_one(
    label: &'static str,
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
    let mut observer = |event: Event<'_>| {
        also(&event);
        display.show(&event);
    };
    let Machine { isa, threads } = machine;
    let options = RunOptions { backend, isa, threads, stop, observer: &mut observer };
    Ok(train(recipe, images, folder, start, options)?)
}

/// The last epoch of a run that went to its end; an error that says how to go on where it did not.
fn finished(folder: &RunFolder, outcome: Outcome) -> Result<EpochRecord> {
    let path = pasted(folder.path());
    if !outcome.finished {
        say!("saved after step {}; go on with: bitpact train --resume {path}", outcome.step);
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
    let changes: Vec<String> = stored
        .differences(&recipe.as_float())
        .into_iter()
        .filter(|(key, ..)| !["epochs", "teacher"].contains(&key.as_str()))
        .map(|(key, was, is)| format!("`{key}` is {was}, not {is}"))
        .collect();
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
    split: &Split,
    machine: (BackendKind, Machine),
    stop: &AtomicBool,
) -> Result<EpochRecord> {
    let (path, float) = (folder.file(FLOAT), recipe.as_float());
    let began = [CONFIG, LAST].iter().any(|name| path.join(name).exists());
    let inner = if began { RunFolder::resume(&path)? } else { RunFolder::create(&path)? };
    let start = match inner.checkpoint()? {
        None => Start::Fresh { weights: None },
        Some((checkpoint, _)) => Start::Resume(Box::new(checkpoint)),
    };
    let outcome = run_one("float", &float, &inner, start, split, machine, stop, &mut |_| {})?;
    if !outcome.finished {
        let run = pasted(folder.path());
        say!("the float run saved after step {}; go on with: bitpact train --resume {run}", outcome.step);
        return Err(Interrupted.into());
    }
    finished(&inner, outcome)
}
