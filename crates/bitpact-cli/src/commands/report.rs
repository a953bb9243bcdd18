//! `bitpact report`: runs as one HTML page.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use bitpact::unstable::accel::Device;
use bitpact::unstable::data::{Dataset, DatasetName, Limits};
use bitpact::unstable::engine::ExecOptions;
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::report::inspect::Drawing;
use bitpact::unstable::report::page::{Network, Subject, render};
use bitpact::unstable::report::{Microscope, Predictions, Run};
use bitpact::unstable::train::run_folder::{FLOAT, LAST};
use bitpact::{Checkpoint, Engine, convert};

use crate::exit::{Interrupted, Usage};
use crate::interrupt;
use crate::machine::{Machine, MachineArgs, load_images};
use crate::out::{bytes, say};
use crate::progress::image_bar;

/// Examples that are shown of mistakes, or of the best and the worst.
const SHOWN: usize = 12;

/// Writes one HTML page about runs, finished or going on: curves, clip values, layers, mistakes, hardware
#[derive(clap::Args)]
#[command(after_help = "\
The page needs no network and no other file. Charts answer the pointer and the arrow keys. What the records of a
run do not hold is computed from its checkpoint: weights on their grid always; what activations see before they are
clipped, the confusion matrix and the mistakes with --data DIR, or without it where the set is drawn. A file
sensitivity.json in the folder of a run (bitpact sensitivity) adds where the accuracy is lost. Runs are only read.

Examples:
  bitpact report runs/builtin-W4A4-seed1
  bitpact report runs/w4 runs/w2 --data cifar-10-batches-bin -o both.html")]
pub(crate) struct Args {
    /// Folders of runs, or of logs that `bitpact reproduce` keeps
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// Folder that holds the data set of the runs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only the first N test images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit_test: Option<u64>,
    /// Device whose roofline is drawn: a built-in one or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "pact-4")]
    device: String,
    #[command(flatten)]
    machine: MachineArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let device = Device::open(&args.device)?;
    let mut subjects = Vec::new();
    for path in &args.runs {
        let run = Run::read(path)?;
        for fault in &run.faults {
            say!("warning: {}: {fault}", run.name());
        }
        let float = Some(path.join(FLOAT)).filter(|path| path.is_dir()).and_then(|path| Run::read(&path).ok());
        let network = match checkpoint(path) {
            None => None,
            Some(Ok(checkpoint)) => Some(look(&args, &run, checkpoint, &device)?),
            Some(Err(error)) => {
                say!("warning: {}: {error:#}", run.name());
                None
            }
        };
        subjects.push(Subject { run, float, network });
    }
    let page = render(&subjects, None)?;
    write_atomically(&args.output, page.as_bytes())?;
    say!("wrote {} ({})", args.output.display(), bytes(page.len() as u64));
    Ok(())
}

/// The last checkpoint of the run in `path`; nothing where there is none, as in a log.
fn checkpoint(path: &Path) -> Option<Result<Checkpoint>> {
    let file = path.join(LAST);
    file.exists().then(|| Ok(Checkpoint::load(&file)?))
}

/// Everything that the checkpoint of a run tells, and the test images where they are at hand.
fn look(args: &Args, run: &Run, checkpoint: Checkpoint, device: &Device) -> Result<Network> {
    let model = checkpoint.model;
    let shape = model.graph.input();
    let integers = if model.plan.is_float() { None } else { Some(convert(&model)?.model) };
    let drawing = match &integers {
        Some(integers) => Drawing::of_integers(integers),
        None => Drawing::of_graph(&model.graph)?,
    };
    let mut network = Network {
        drawing: drawing.text(),
        microscope: None,
        image: [shape.h, shape.w, shape.c],
        targets: None,
        predictions: None,
        device: Some(device.clone()),
        integers,
    };
    let images = images(args, run)?;
    let Some(integers) = &network.integers else { return Ok(network) };
    if let Some(images) = &images {
        let (image, reads) = (images.image_shape(), integers.input_shape);
        if (image.h, image.w, image.c) == (reads.h, reads.w, reads.c) {
            network.targets = Some(images.target_kind());
            network.predictions = Some(predictions(args, integers, &**images, &run.name())?);
        }
    }
    let images = images.as_deref().filter(|_| network.predictions.is_some());
    network.microscope = Some(Microscope::new(&model, integers, images));
    Ok(network)
}

/// The test images of a run: where --data says, or drawn; nothing where they are not at hand.
fn images(args: &Args, run: &Run) -> Result<Option<Box<dyn Dataset>>> {
    let Some(recipe) = &run.recipe else { return Ok(None) };
    let Ok(name) = recipe.dataset.parse::<DatasetName>() else {
        say!("warning: {}: no data set is called {}", run.name(), recipe.dataset);
        return Ok(None);
    };
    let is_drawn = name.is_drawn();
    if !is_drawn && args.data.is_none() {
        return Ok(None);
    }
    let limit = args.limit_test.map(|n| usize::try_from(n).unwrap_or(usize::MAX)).or(recipe.limit_test);
    let data = args.data.as_ref().filter(|_| !is_drawn);
    let (split, _) = load_images(name, data, Limits { train: Some(1), test: limit }, &recipe.own_options())?;
    Ok(Some(split.test))
}

fn predictions(args: &Args, integers: &bitpact::IntegerModel, images: &dyn Dataset, run: &str) -> Result<Predictions> {
    let Machine { isa, threads } = args.machine.resolve();
    let engine = Engine::new(integers, ExecOptions { isa, threads })?;
    let (bar, stop) = (image_bar(run, images.len()), interrupt::stop_flag());
    let found = Predictions::new(&engine, images, SHOWN, &mut |done| {
        bar.set_position(done as u64);
        !stop.load(Ordering::Relaxed)
    });
    let found = found.with_context(|| Usage(format!("{run}: not the data set of this run")))?;
    bar.finish_and_clear();
    Ok(found.ok_or(Interrupted)?)
}
