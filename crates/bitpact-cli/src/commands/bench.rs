//! `bitpact bench`: how fast a network runs or trains here, and where its time goes.

mod candidates;
mod memory;
mod row;
mod target;
mod train;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bitpact::unstable::engine::{ExecOptions, LayerProfile};
use bitpact::unstable::kernels::peak::int8_rate;
use bitpact::{Executor, IntegerModel};
use serde_json::{Value, json};

use self::candidates::Candidates;
use self::row::Row;
use self::target::Target;
use super::train::RecipeFlags;
use crate::exit::{Usage, report_part};
use crate::machine::parse_isa;
use crate::out::{bytes, count, print, say, table};

/// Measures the speed of a network: of a file, of an architecture with random weights, or of training one
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact bench runs/builtin-W4A4-seed1
  bitpact bench resnet18 --bits W2A2 --threads 1,2 --batch 1,64
  bitpact bench resnet20 --bits W8A8 --weight-quant minmax --isa avx2 --json
  bitpact bench --train cifar10-resnet20 --bits W4A4 --layers
  bitpact bench --train cifar10-resnet20 --arch resnet18 --image-size 64 --batch-size 32 --threads 2

An architecture gets He-normal random weights, quantized as a recipe would; the same command gives the same network
everywhere. Each row is measured in a process of its own that loads the model file, runs one batch to warm up, and then
runs batches for --seconds: median and spread (90th minus 10th percentile, as a share of the median) of the time of a
batch. Resident bytes are all of that process: program, packed weights, activations, and the images of the batch.
The layers are those of one image on one thread, the median of many runs, against this machine's highest int8
multiply-add rate with the same instructions on one thread (`bitpact kernels`); algorithms that need fewer multiply-adds can exceed it.

With --train, whole training steps of a recipe on random pixels of its data set's shape, which need no data: images/s of the
median step of --seconds, and the peak memory of the process. Then, with a profile running, what the time of a step
consists of: every row is the time that the workers spend on a pass divided by their number, and the time in which they wait for
each other while it is under way (kernels that run as one pass wait in one row), so that the rows add up to the step. A product is compared with this machine's highest multiply-add
rate of its kind of number on as many threads. Busy is the share of the step that a worker does not wait.")]
pub(crate) struct Args {
    /// A .bitpact file, a checkpoint, the folder of a run, the name of an architecture, or a TOML or JSON file with a
    /// network
    #[arg(required_unless_present = "train")]
    model: Option<PathBuf>,
    /// Measure training steps of this recipe, a built-in one or a TOML file
    #[arg(long, value_name = "RECIPE", conflicts_with_all = ["model", "batch", "all_kernels"])]
    train: Option<PathBuf>,
    /// Show the passes of every layer of a training step
    #[arg(long)]
    layers: bool,
    /// Height and width of the images [default: the architecture's own, with --train the data set's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    image_size: Option<u32>,
    /// Numbers of threads, a row for each [default: 1 and all of the machine's; with --train, which takes one number,
    /// all]
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Images computed at once, a row for each
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,64",
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Instruction set: auto, amx, avx512, avxvnni, avx2 or scalar
    #[arg(long, value_name = "ISA", default_value = "auto", value_parser = parse_isa)]
    isa: bitpact::Isa,
    /// With --train, what computes the steps: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t)]
    backend: bitpact::unstable::train::BackendKind,
    /// Time measured for each row and for the layers
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    seconds: f64,
    /// Time every kernel that can compute a layer, and mark the one that is picked
    #[arg(long)]
    all_kernels: bool,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
    /// Measure one row for the process of this id and write it as JSON: how the command calls itself
    #[arg(long, hide = true)]
    row: Option<u32>,
    #[command(flatten)]
    flags: RecipeFlags<false>,
}

impl Args {
    /// What is measured, where it is not training.
    fn model(&self) -> &Path {
        self.model.as_deref().unwrap_or(Path::new(""))
    }

    /// The numbers of threads.
    fn threads(&self) -> Vec<u16> {
        let all = std::thread::available_parallelism().map_or(1, |n| n.get().min(1024)) as u16;
        match &self.threads[..] {
            [] if self.train.is_some() => vec![all],
            [] => vec![1, all],
            threads => threads.to_vec(),
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.0..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 0 to 3600 seconds".to_owned()) }
}

pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(recipe) = &args.train {
        return train::run(&args, recipe);
    }
    if args.layers {
        return Err(Usage("--layers: only bench --train takes it".to_owned()).into());
    }
    let random = ["bits", "first_last", "weight_quant"];
    if let Some(key) = args.flags.given().find(|key| !random.contains(&key.name)) {
        return Err(Usage(format!("--{}: only bench --train takes it", key.flag())).into());
    }
    if let Some(waiting) = args.row {
        let (&[threads], &[batch]) = (&args.threads[..], &args.batch[..]) else { bail!("one row is one combination") };
        let row = Row::measure(args.model(), args.isa, threads.into(), batch as usize, args.seconds, waiting)?;
        return print(&row.to_json().to_string());
    }
    let target = Target::open(&args)?;
    let mut threads = args.threads();
    threads.dedup();
    let (mut rows, mut failed) = (Vec::new(), 0);
    for &threads in &threads {
        for &batch in &args.batch {
            say!("measuring {} with {threads} threads, batch {batch}", target.name);
            match measure(&args, &target, threads, batch) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    failed += 1;
                    report_part(&error);
                }
            }
        }
    }
    if rows.is_empty() {
        bail!("no row could be measured");
    }
    let peak = int8_rate(args.isa, 1);
    let layers = profile(&target.model, &args, 0)?;
    let candidates =
        if args.all_kernels { Candidates::measure(&target.model, &args, &layers)? } else { Candidates::default() };
    let total: f64 = layers.iter().map(|layer| layer.time.as_secs_f64()).sum();
    let macs: u64 = layers.iter().map(|layer| layer.macs).sum();
    let share_of_peak = |layer: &LayerProfile| {
        let rate = layer.macs as f64 / layer.time.as_secs_f64().max(1e-9);
        (layer.macs > 0).then_some(100.0 * rate / peak)
    };
    if args.json {
        let layers = layers.iter().enumerate().map(|(i, layer)| {
            let mut object = json!({
                "name": layer.name,
                "ms": layer.time.as_secs_f64() * 1e3,
                "share": layer.time.as_secs_f64() / total,
                "macs": layer.macs,
                "kernel": layer.kernel,
                "percent_of_peak": share_of_peak(layer),
            });
            if args.all_kernels {
                object["candidates"] = candidates.to_json(i);
            }
            object
        });
        let object = json!({
            "network": target.name,
            "bits": target.bits,
            "input": target.model.input_shape.to_string(),
            "isa": args.isa.to_string(),
            "file_bytes": target.file_bytes,
            "macs": macs,
            "peak_macs_per_s": peak,
            "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "layers": layers.collect::<Vec<Value>>(),
        });
        print(&object.to_string())?;
        return all_measured(failed);
    }
    let mut text = format!(
        "{}{}, images of {}, {}; {} multiply-adds an image, a file of {}\n\n",
        target.name,
        target.bits.as_ref().map_or(String::new(), |bits| format!(" at {bits}")),
        target.model.input_shape,
        args.isa,
        count(macs),
        bytes(target.file_bytes)
    );
    let mut lines =
        vec![["threads", "batch", "median ms", "spread", "images/s", "resident"].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(Row::cells));
    text += &table(&lines, &[]);
    text += &format!("\none image on one thread; peak {:.1} G multiply-adds/s\n", peak / 1e9);
    let mut lines = vec![["layer", "ms", "share", "macs", "of peak", "kernel"].map(str::to_owned).to_vec()];
    for layer in &layers {
        let ms = layer.time.as_secs_f64() * 1e3;
        lines.push(vec![
            layer.name.clone(),
            format!("{ms:.4}"),
            format!("{:.1} %", 100.0 * layer.time.as_secs_f64() / total),
            count(layer.macs),
            share_of_peak(layer).map_or(String::new(), |share| format!("{share:.0} %")),
            layer.kernel.clone(),
        ]);
    }
    let sum = format!("{:.4}", total * 1e3);
    lines.push(vec!["total".to_owned(), sum, "100.0 %".to_owned(), count(macs)]);
    text += &table(&lines, &[0, 5]);
    if args.all_kernels {
        text +=
            &format!("\nevery kernel of the layers that have several, the one picked marked *\n{}", candidates.table());
    }
    print(&text)?;
    all_measured(failed)
}

fn all_measured(failed: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} rows could not be measured"),
    }
}

/// Measures one row in a process of its own, whose memory holds nothing else.
fn measure(args: &Args, target: &Target, threads: u16, batch: u32) -> Result<Row> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("bench");
    target.file.give_to(&mut command).context("cannot read a temporary file")?;
    let output = command
        .args([
            "--row",
            &std::process::id().to_string(),
            "--threads",
            &threads.to_string(),
            "--batch",
            &batch.to_string(),
        ])
        .args(["--isa", &args.isa.to_string(), "--seconds", &args.seconds.to_string()])
        .output()
        .context("cannot start a process for a row")?;
    if !output.status.success() {
        bail!("{threads} threads, batch {batch}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let row: Value = serde_json::from_slice(&output.stdout).context("a row that is no JSON")?;
    Row::from_json(&row).ok_or_else(|| anyhow!("a row without its numbers: {row}"))
}

/// The median time of every layer of one image on one thread, with the kernels of one rank.
fn profile(model: &IntegerModel, args: &Args, rank: usize) -> Result<Vec<LayerProfile>> {
    let mut executor = Executor::with_candidate(model, ExecOptions { isa: args.isa, threads: 1 }, rank)?;
    let pixels = row::pixels(executor.image_len());
    let mut runs = vec![executor.profile(&pixels)];
    let begin = Instant::now();
    while runs.len() < 3 || (begin.elapsed().as_secs_f64() < args.seconds && runs.len() < 10_000) {
        runs.push(executor.profile(&pixels));
    }
    let mut layers = runs.swap_remove(0);
    for (i, layer) in layers.iter_mut().enumerate() {
        let mut times: Vec<Duration> = runs.iter().map(|run| run[i].time).collect();
        times.sort();
        layer.time = times[times.len() / 2];
    }
    Ok(layers)
}
