//! `bitpact verify`: proof on real images that every path computes the same integers.

use anyhow::{Context, Result, bail};
use bitpact::unstable::engine::{FormulaCheck, Verification, VerifyOptions, check_formula, verify};
use bitpact::{Checkpoint, Dataset, convert};
use serde_json::{Value, json};

use super::test_set::TestSetArgs;
use crate::loaded::{Loaded, Network, open_checkpoint};
use crate::out::{print, table};
use crate::progress::image_bar;

/// Multiply-adds of the images that are held against the formula of training: some seconds in float64.
const FORMULA_MACS: u64 = 1 << 30;
/// Images of these at most.
const FORMULA_IMAGES: u64 = 16;

/// Compares every code of every layer that this machine's paths compute with the reference interpreter, on a test set
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact verify runs/builtin-W4A4-seed1
  bitpact verify model.bitpact --dataset cifar10 --data cifar-10-batches-bin --json

A path is an instruction set with a number of threads. Each one runs the network after it was written to bytes and read
again, half of the images in batches and half alone. Of a run or a checkpoint, each layer is also fed the integer
network's own codes and held against the formula of training in float64: a code may be the neighbour of the rounded
formula only within the error that conversion proved. Exit status 1 where a code differs.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// Paths have 1 to N threads; all of the machine's where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let loaded = args.on.network()?;
    let model = loaded.integers()?;
    let (name, test) = args.on.images(&loaded)?;
    let (shape, reads) = (test.image_shape(), model.input_shape);
    if (shape.h, shape.w, shape.c) != (reads.h, reads.w, reads.c) {
        let file = loaded.file.display();
        bail!("{file}: reads images of {reads}, but those of {name} are {}x{}x{}", shape.h, shape.w, shape.c);
    }
    let all = || std::thread::available_parallelism().map_or(1, |n| n.get().min(1024));
    let options = VerifyOptions::up_to(args.threads.map_or_else(all, usize::from));
    let bar = image_bar("verifying", test.len());
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        for (i, image) in range.zip(pixels.chunks_exact_mut(test.bytes_shape().len())) {
            test.image(i, image);
        }
    };
    let found = verify(model, &options, test.len(), load, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let formula = match checkpoint_of(&args.on, loaded)? {
        Some(checkpoint) => Some(against_formula(&checkpoint, &*test)?),
        None => None,
    };
    if args.json {
        print(&json_object(&found, formula.as_ref(), name.as_str()).to_string())?;
    } else if found.different == 0 {
        print(&report(&found, formula.as_ref(), name.as_str()))?;
    }
    if let Some(first) = &found.first {
        bail!("{} of {} codes differ; the first: {first}", found.different, found.codes);
    }
    match formula.as_ref().and_then(|formula| formula.first.as_ref().map(|first| (formula, first))) {
        None => Ok(()),
        Some((formula, first)) => bail!(
            "conversion: {} of {} values are not the formula of training's; the first: {first}",
            formula.wrong,
            formula.values
        ),
    }
}

/// The checkpoint that the integers of a run were converted from; `None` for a .bitpact file.
fn checkpoint_of(on: &TestSetArgs, loaded: Loaded) -> Result<Option<Box<Checkpoint>>> {
    match loaded.network {
        Network::Integer { checkpoint: Some(checkpoint), .. } => Ok(Some(checkpoint)),
        _ if on.model().is_dir() => Ok(Some(Box::new(open_checkpoint(on.model())?.1))),
        _ => Ok(None),
    }
}

fn against_formula(checkpoint: &Checkpoint, test: &dyn Dataset) -> Result<FormulaCheck> {
    let conversion = convert(&checkpoint.model)?;
    let layers = conversion.model.layers.iter();
    let macs = |layer: &bitpact::unstable::model::IntegerLayer| -> u64 {
        let pixels = (layer.shape.h * layer.shape.w) as u64;
        layer.op.products().map(|product| pixels * product.codes.len() as u64).sum()
    };
    let macs = layers.map(macs).sum::<u64>().max(1);
    let images = (FORMULA_MACS / macs).clamp(1, FORMULA_IMAGES).min(test.len() as u64) as usize;
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| test.image(range.start, pixels);
    check_formula(&checkpoint.model, &conversion, images, load).context("the formula of training")
}

fn report(found: &Verification, formula: Option<&FormulaCheck>, dataset: &str) -> String {
    let mut rows = vec![["path", "threads", "codes", "different"].map(str::to_owned).to_vec()];
    for path in &found.paths {
        let numbers = [path.threads.to_string(), path.codes.to_string(), path.different.to_string()];
        rows.push([vec![path.isa.to_string()], numbers.to_vec()].concat());
    }
    let Verification { images, codes, different, .. } = found;
    let formula = formula.filter(|formula| formula.wrong == 0).map_or(String::new(), |formula| {
        let FormulaCheck { images, values, at_boundaries, .. } = formula;
        format!(
            "\n{values} values of {images} images follow the formula of training, {at_boundaries} of them rounded the other \
             way at a boundary"
        )
    });
    let table = table(&rows, &[0]);
    let probed = match found.probed {
        0 => String::new(),
        n => format!(", and {n} codes of its layers at odd sizes"),
    };
    format!("{table}\n{different} of {codes} codes differ: {images} images of {dataset}, every layer{probed}{formula}")
}

fn json_object(found: &Verification, formula: Option<&FormulaCheck>, dataset: &str) -> Value {
    let paths = found.paths.iter().map(|path| {
        json!({
            "isa": path.isa.to_string(),
            "threads": path.threads,
            "codes": path.codes,
            "different": path.different,
        })
    });
    let first = found.first.as_ref().map(|d| {
        json!({
            "isa": d.isa.to_string(),
            "threads": d.threads,
            "batch": d.batch,
            "image": d.image,
            "layer": d.layer,
            "y": d.y,
            "x": d.x,
            "channel": d.channel,
            "expected": d.expected,
            "got": d.got,
        })
    });
    json!({
        "codes": found.codes,
        "different": found.different,
        "images": found.images,
        "probed": found.probed,
        "dataset": dataset,
        "paths": paths.collect::<Vec<_>>(),
        "first": first,
        "formula": formula.map(|formula| json!({
            "images": formula.images,
            "values": formula.values,
            "at_boundaries": formula.at_boundaries,
            "wrong": formula.wrong,
            "first": formula.first.as_ref().map(ToString::to_string),
        })),
    })
}
