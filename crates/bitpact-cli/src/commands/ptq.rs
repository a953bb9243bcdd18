//! `bitpact ptq`: from a float network and some images to integers, without training.

mod pictures;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bitpact::unstable::data::DatasetName;
use bitpact::unstable::graph::{BitSpec, QuantConfig};
use bitpact::unstable::model::Checkpoint;
use bitpact::unstable::train::ptq::{ClipRule, PtqError, PtqEvent, PtqOptions, Quantized, Row, Steps, draw, quantize};
use bitpact::unstable::train::run_folder::is_file_of_run;
use bitpact::{Dataset, Model};
use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::eval::other_classes;
use super::test_set::TestSetArgs;
use crate::exit::{Interrupted, Usage, or_force};
use crate::interrupt;
use crate::loaded::{Loaded, Network};
use crate::machine::MachineArgs;
use crate::out::{bytes, pasted, percent, print, say, table};
use crate::progress::bar;

/// Quantizes a float network to integers without training, from some images
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact ptq model.safetensors --dataset cifar10 --data DIR --bits W8A8
  bitpact ptq model.safetensors --dataset cifar10 --data DIR --bits W4A4 --steps all --keep w4a4.safetensors -o w4a4.bitpact
  bitpact ptq model.safetensors --unlabelled --data photos --bits W8A8 --quick

MODEL is a float network: what `bitpact import` makes, or a run with --bits float. Clip values and scales come from
training images, drawn by --seed, whose labels are not read; the accuracies are those of the test images. Steps are clip
(clip values by --calibrate), weights (weight scales of least error), equalize (channels rescaled where that is exact),
gptq (weights rounded for the least error of outputs), bias (means of layers corrected) and cora (low-rank adapters);
docs/ptq.md says what each of them brings. The table has them one after the other: float first, the integers' accuracy last.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// Bits of weights and activations, such as W8A8
    #[arg(long, value_name = "BITS")]
    bits: BitSpec,
    /// Images to calibrate on
    #[arg(long, value_name = "N", default_value = "512", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Which images
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// DIR has pictures without labels, in it and in its folders; nothing is evaluated
    #[arg(long, requires = "data", conflicts_with_all = ["dataset", "limit_test"])]
    unlabelled: bool,
    /// Steps with commas between them, all or none
    #[arg(long, value_name = "STEPS", default_value_t)]
    steps: Steps,
    /// Clip values: auto (the best of the others), mse, entropy, largest, percentile (99.9) or another percentile
    #[arg(long, value_name = "RULE", default_value_t = ClipRule::Auto)]
    calibrate: ClipRule,
    /// First and last layer: 8bit, same or float (16-bit weight codes)
    #[arg(long, value_name = "POLICY", default_value = "8bit", value_parser = ["8bit", "same", "float"])]
    first_last: String,
    /// Weights of projection shortcuts: same or 8bit
    #[arg(long, value_name = "POLICY", default_value = "same", value_parser = ["same", "8bit"])]
    shortcut: String,
    /// Whether 0 is a weight code: zero or no_zero; by default it is from 3 bits on
    #[arg(long, value_name = "NAME", value_parser = ["zero", "no_zero"])]
    weight_grid: Option<String>,
    /// What has a clip value of its own: layer or channel
    #[arg(long, value_name = "NAME", default_value = "layer", value_parser = ["layer", "channel"])]
    clip_scale: String,
    /// Parameters of all adapters of cora, as a share of the network's weights
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share)]
    cora_budget: f64,
    /// Measure the float network and the result, not what each step brings
    #[arg(long)]
    quick: bool,
    /// The .bitpact file to write; by default MODEL with this ending
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write a checkpoint of the quantized network, from which `train --init-from` goes on
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Take images of other classes than those the network was made for
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=10.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 10, such as 0.05".to_owned()),
    }
}

/// A value whose name clap has checked.
fn named<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(json!(name)).expect("one of the names there are")
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.bits == BitSpec::Float {
        return Err(Usage("--bits float: expected a form like W8A8".to_owned()).into());
    }
    let loaded = args.on.network()?;
    let Network::Float(checkpoint) = &loaded.network else {
        bail!(
            "{}: is quantized already; expected a float network, as `bitpact import` and `train --bits float` make it",
            loaded.file.display()
        );
    };
    let output = args.output.clone().unwrap_or_else(|| beside(args.on.model()));
    for (flag, path) in [("--output", Some(&output)), ("--keep", args.keep.as_ref())] {
        let Some(path) = path else { continue };
        check_output(flag, path, &loaded.file)?;
    }
    if args.keep.as_ref() == Some(&output) {
        return Err(Usage(format!("--keep {}: that is the .bitpact file itself", output.display())).into());
    }
    let (name, calibration, test) = images(&args, &loaded, &checkpoint.model)?;
    let machine = args.machine.resolve();
    let quant = QuantConfig {
        first_last: named(&args.first_last),
        shortcut: named(&args.shortcut),
        weight_grid: args.weight_grid.as_deref().map(named),
        clip_scale: named(&args.clip_scale),
        ..QuantConfig::new(args.bits)
    };
    let options = PtqOptions {
        quant,
        steps: args.steps,
        rule: args.calibrate,
        adapter_budget: args.cora_budget,
        measures_steps: !args.quick,
        isa: machine.isa,
        threads: machine.threads,
    };
    let bar = bar("", 1, "nodes");
    let mut observer = |event: PtqEvent<'_>| show(&bar, event);
    let stop = interrupt::stop_flag();
    let quantized = match quantize(&checkpoint.model, &*calibration, test.as_deref(), &options, stop, &mut observer) {
        Err(PtqError::Stopped) => return Err(Interrupted.into()),
        other => other?,
    };
    bar.finish_and_clear();
    quantized.integers.save(&output)?;
    if let Some(keep) = &args.keep {
        let note = Some(format!("quantized after training: {}, {}", args.bits, args.steps));
        Checkpoint { model: quantized.model.clone(), training: None, note }.save(keep)?;
    }
    match args.json {
        true => print(&object(&args, &quantized, &output, name).to_string()),
        false => print(&report(&args, &quantized, &output, name)?),
    }
}

/// `MODEL.bitpact` beside MODEL.
fn beside(model: &Path) -> PathBuf {
    match model.is_dir() {
        true => PathBuf::from(format!("{}.bitpact", model.display().to_string().trim_end_matches(['/', '\\']))),
        false => model.with_extension("bitpact"),
    }
}

fn check_output(flag: &str, path: &Path, model: &Path) -> Result<()> {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(path, model) {
        return Err(Usage(format!("{flag} {}: that is the float network itself", path.display())).into());
    }
    let ends_at = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if is_file_of_run(&ends_at) || is_file_of_run(path) {
        return Err(Usage(format!("{flag} {}: that is a file of a run", path.display())).into());
    }
    Ok(())
}

type Set = Box<dyn Dataset>;

/// The name of the set, the images to calibrate on, and the test images.
fn images(args: &Args, loaded: &Loaded, model: &Model) -> Result<(Option<DatasetName>, Set, Option<Set>)> {
    let count = args.images as usize;
    if args.unlabelled {
        let folder = args.on.data().expect("--unlabelled requires --data");
        return Ok((None, Box::new(pictures::load(folder, model, count, args.seed)?), None));
    }
    let (name, split) = args.on.split(loaded)?;
    if let Some(difference) = other_classes(loaded.class_names(), split.test.class_names()) {
        let text = format!("{}: made for other classes than those of {name}: {difference}", loaded.file.display());
        or_force(args.force, text, "takes its images")?;
    }
    Ok((Some(name), Box::new(draw(split.train, count, args.seed)), Some(split.test)))
}

fn show(bar: &ProgressBar, event: PtqEvent<'_>) {
    let begin = |prefix: String, length: usize| {
        bar.set_length(length as u64);
        bar.set_prefix(prefix);
        bar.set_position(0);
    };
    match event {
        PtqEvent::Walk { what, nodes } => begin(what.to_owned(), nodes),
        PtqEvent::Node { done } => bar.set_position(done as u64),
        PtqEvent::Evaluating { done, images } => {
            if bar.length() != Some(images as u64) {
                begin("evaluating".to_owned(), images);
            }
            bar.set_position(done as u64);
        }
        PtqEvent::Row(row) => {
            let line = format!("{}: {}", row_name(row), cells(row)[1..].join(", "));
            match bar.is_hidden() {
                true => say!("{line}"),
                false => bar.println(line),
            }
        }
        _ => {}
    }
}

fn row_name(row: &Row) -> String {
    if row.step.is_some() { format!("+ {}", row.name()) } else { row.name() }
}

/// Name, ratio of signal to noise, and metrics of a row.
fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![row_name(row), if row.is_float { String::new() } else { format!("{:.2} dB", row.snr_db) }];
    if row.is_float {
        cells[1] = "exact".to_owned();
    }
    match &row.evaluation {
        None => {}
        Some(evaluation) if evaluation.metrics.is_empty() => cells.push(percent(evaluation.top1)),
        Some(evaluation) => cells.extend(evaluation.metrics.iter().map(ToString::to_string)),
    }
    cells
}

fn report(args: &Args, quantized: &Quantized, output: &Path, name: Option<DatasetName>) -> Result<String> {
    let on = name.map_or_else(String::new, |name| format!(" on {name}"));
    let mut head = vec!["step".to_owned(), "outputs".to_owned()];
    if name.is_some() {
        head.push(format!("accuracy{on}"));
        head.push("gain".to_owned());
    }
    let mut rows = vec![head];
    for (i, row) in quantized.rows.iter().enumerate() {
        let mut cells = cells(row);
        if args.quick && i > 0 {
            cells[0] = args.bits.to_string();
        }
        let score = |row: &Row| row.evaluation.as_ref().filter(|e| e.metrics.is_empty()).map(|e| e.top1);
        if let (Some(before), Some(now)) = (i.checked_sub(1).and_then(|i| score(&quantized.rows[i])), score(row)) {
            cells.push(format!("{:+.2}", 100.0 * (now - before)));
        }
        rows.push(cells);
    }
    let mut text = table(&rows, &[0]);
    text += &format!(
        "\n{} images, steps {}{}\n",
        quantized.images,
        args.steps,
        quantized.rule.map_or_else(String::new, |rule| format!(", clip values by {rule}"))
    );
    if !quantized.equalized.is_empty() {
        let names: Vec<&str> = quantized.equalized.iter().map(|e| e.act.as_str()).collect();
        text += &format!("equalized: {}\n", names.join(", "));
    }
    if !quantized.ranks.is_empty() {
        let ranks: Vec<String> = quantized.ranks.iter().map(|(name, rank)| format!("{name} {rank}")).collect();
        text += &format!("ranks of adapters: {}\n", ranks.join(", "));
    }
    let size = quantized.integers.to_bytes()?.len() as u64;
    text += &format!("{}: {} {}, {}\n", output.display(), quantized.integers.arch, args.bits, bytes(size));
    if let Some(keep) = &args.keep {
        text += &format!("{}: checkpoint of the quantized network\n", pasted(keep));
    }
    Ok(text)
}

fn object(args: &Args, quantized: &Quantized, output: &Path, name: Option<DatasetName>) -> Value {
    let equalized = quantized.equalized.iter().map(|e| json!({ "activation": e.act, "expected_error": e.error }));
    json!({
        "output": output.display().to_string(),
        "keep": args.keep.as_ref().map(|keep| keep.display().to_string()),
        "bits": args.bits.to_string(),
        "steps": args.steps.list().iter().map(|step| step.name()).collect::<Vec<_>>(),
        "dataset": name.map(DatasetName::as_str),
        "calibration_images": quantized.images,
        "clip_rule": quantized.rule.map(|rule| rule.to_string()),
        "rows": quantized.rows.iter().map(Row::json).collect::<Vec<_>>(),
        "equalized": equalized.collect::<Vec<_>>(),
        "ranks": quantized.ranks,
    })
}
