//! `bitpact sweep`: a recipe at several widths, each run an ordinary `bitpact train`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bitpact::unstable::accel::Device;
use bitpact::unstable::engine::ExecOptions;
use bitpact::unstable::graph::BitSpec;
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::report::page::{Subject, render};
use bitpact::unstable::report::{Family, Run};
use bitpact::unstable::train::run_folder::{CONFIG, LAST};
use clap::Parser;

use super::train;
use crate::exit::{Interrupted, Usage, report_part};
use crate::machine::{Machine, MachineArgs};
use crate::out::{pasted, print, say, table};

/// Trains a recipe at several widths and lines up what each reaches and costs
#[derive(clap::Args)]
#[command(after_help = "\
Runs are trained width by width in the order given, each with every seed, in folders OUTPUT/BITS-seedN. What is
finished is left alone and what has begun goes on, so that a sweep can be stopped and started again. Each run is one
`bitpact train` command; --print lists them for a cluster's own scheduler, in an order in which they can be run, and
--collect lines up whatever is done of them. Words after -- are flags of `bitpact train` for every run.

Written into OUTPUT: sweep.csv, sweep.json, sweep.md and report.html with the front of size and accuracy.

Examples:
  bitpact sweep builtin --bits 2,3,4,5,8 --seeds 3
  bitpact sweep cifar10-resnet20 --bits 2,4,float --data DIR --float-start -- --epochs 20
  bitpact sweep builtin --bits 2,4 --print | parallel
  bitpact sweep --collect runs/sweep-builtin")]
pub(crate) struct Args {
    /// A built-in recipe or a TOML file
    #[arg(required_unless_present = "collect")]
    recipe: Option<PathBuf>,
    /// Widths: a number for weights and activations alike, a form like W2A4, or float
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_value = "2,3,4,5,8", value_parser = parse_bits)]
    bits: Vec<BitSpec>,
    /// Seeds of every width, from 1 on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Train a float network of every seed first, and start every width from its weights
    #[arg(long)]
    float_start: bool,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the runs and tables; by default runs/sweep-RECIPE
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only print the commands
    #[arg(long, conflicts_with = "collect")]
    print: bool,
    /// Only line up the runs in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "output"])]
    collect: Option<PathBuf>,
    /// Device that is modelled: a built-in one or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "pact-4")]
    device: String,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write the table as one JSON object to standard output
    #[arg(long)]
    json: bool,
    /// Flags of `bitpact train`
    #[arg(last = true)]
    flags: Vec<String>,
}

/// The flags of one run, as `bitpact train` reads them.
#[derive(Parser)]
#[command(name = "bitpact train", no_binary_name = true)]
struct TrainLine {
    #[command(flatten)]
    args: train::Args,
}

fn parse_bits(text: &str) -> Result<BitSpec, String> {
    match text.parse::<u8>() {
        Ok(bits) => format!("W{bits}A{bits}").parse(),
        Err(_) => text.parse(),
    }
}

/// One run of a sweep.
struct Cell {
    folder: PathBuf,
    /// What `bitpact train` is called with.
    words: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let device = Device::open(&args.device)?;
    if let Some(folder) = &args.collect {
        return collect(&args, folder, &device);
    }
    let recipe = args.recipe.as_deref().context("a recipe is needed")?;
    let name = recipe.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let output = args.output.clone().unwrap_or_else(|| Path::new("runs").join(format!("sweep-{name}")));
    let cells = cells(&args, recipe, &output)?;
    if args.print {
        let line = |cell: &Cell| {
            let words: Vec<String> = cell.words.iter().map(|word| pasted_word(word)).collect();
            format!("bitpact train {}\n", words.join(" "))
        };
        return print(&cells.iter().map(line).collect::<String>());
    }
    // All lines are checked before the first one is trained.
    for cell in &cells {
        parsed(&cell.words)?;
    }
    let mut failed = Vec::new();
    for (i, cell) in cells.iter().enumerate() {
        let place = cell.folder.display();
        if is_finished(&cell.folder) {
            say!("{} of {}: {place} is done", i + 1, cells.len());
            continue;
        }
        say!("{} of {}: {place}", i + 1, cells.len());
        match train::trained(parsed(&resumed(&args, cell))?) {
            Ok(_) => {}
            Err(error) if error.is::<Interrupted>() || error.is::<Usage>() => return Err(error),
            // A run that fails is no reason to leave the others.
            Err(error) => {
                report_part(&error);
                failed.push(place.to_string());
            }
        }
    }
    collect(&args, &output, &device)?;
    if failed.is_empty() { Ok(()) } else { bail!("these runs are still missing: {}", failed.join(", ")) }
}

/// The runs in the order in which they are trained.
fn cells(args: &Args, recipe: &Path, output: &Path) -> Result<Vec<Cell>> {
    let taken = ["--bits", "--seed", "--output", "--resume", "--init-from", "--json", "--tui", "--compare-float"];
    let clash = |flag: &&String| taken.iter().any(|taken| *flag == taken || flag.starts_with(&format!("{taken}=")));
    if let Some(flag) = args.flags.iter().find(clash) {
        return Err(Usage(format!("{flag}: a sweep sets this flag of its runs itself")).into());
    }
    let path = |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{}: not UTF-8", path.display()));
    let folder = |bits: BitSpec, seed: u64| output.join(format!("{bits}-seed{seed}"));
    let seeds = 1..=args.seeds;
    let floats = seeds.clone().filter(|_| args.float_start).map(|seed| (BitSpec::Float, seed));
    let rest = args.bits.iter().flat_map(|&bits| seeds.clone().map(move |seed| (bits, seed)));
    let mut places: Vec<(BitSpec, u64)> = Vec::new();
    for place in floats.chain(rest) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut cells = Vec::new();
    for (bits, seed) in places {
        let own = folder(bits, seed);
        let mut words =
            vec![path(recipe)?, "--bits".to_owned(), bits.to_string(), "--seed".to_owned(), seed.to_string()];
        words.extend(["--compare-float".to_owned(), "false".to_owned(), "--output".to_owned(), path(&own)?]);
        if args.float_start && bits != BitSpec::Float {
            words.extend(["--init-from".to_owned(), path(&folder(BitSpec::Float, seed).join(LAST))?]);
        }
        if let Some(data) = &args.data {
            words.extend(["--data".to_owned(), path(data)?]);
        }
        words.extend(args.flags.iter().cloned());
        cells.push(Cell { folder: own, words });
    }
    Ok(cells)
}

fn parsed(words: &[String]) -> Result<train::Args> {
    let told = |error: clap::Error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        Usage(format!("bitpact train {}: {}", words.join(" "), first.trim_start_matches("error: ")))
    };
    Ok(TrainLine::try_parse_from(words).map_err(told)?.args)
}

/// The words of a run that may have begun: then it goes on.
fn resumed(args: &Args, cell: &Cell) -> Vec<String> {
    let has_begun = cell.folder.join(CONFIG).exists();
    if !has_begun {
        return cell.words.clone();
    }
    let mut words = vec!["--resume".to_owned(), cell.folder.display().to_string()];
    if let Some(data) = &args.data {
        words.extend(["--data".to_owned(), data.display().to_string()]);
    }
    words
}

fn is_finished(folder: &Path) -> bool {
    Run::read(folder).is_ok_and(|run| {
        let epochs = run.recipe.as_ref().map(|recipe| recipe.epochs);
        run.last().zip(epochs).is_some_and(|(last, epochs)| last.epoch >= epochs) && folder.join(LAST).exists()
    })
}

/// Lines up the runs below `folder` and writes the tables and the page.
fn collect(args: &Args, folder: &Path, device: &Device) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot read the folder", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let runs = paths.iter().filter(|path| path.join(CONFIG).exists()).map(|path| Run::read(path));
    let runs: Vec<Run> = runs.collect::<Result<_, _>>()?;
    if runs.is_empty() {
        bail!("{}: holds no run", folder.display());
    }
    for run in &runs {
        run.faults.iter().for_each(|fault| say!("warning: {}: {fault}", run.name()));
    }
    let Machine { isa, threads } = args.machine.resolve();
    let family = Family::collect(&runs, device, ExecOptions { isa, threads })?;
    let json = serde_json::to_string(&family)?;
    let subjects: Vec<Subject> = runs.into_iter().map(|run| Subject { run, float: None, network: None }).collect();
    let files = [
        ("sweep.csv", family.to_csv()),
        ("sweep.json", format!("{json}\n")),
        ("sweep.md", family.to_markdown()),
        ("report.html", render(&subjects, Some(&family))?),
    ];
    for (name, text) in files {
        write_atomically(folder.join(name), text.as_bytes())?;
    }
    say!("wrote sweep.csv, sweep.json, sweep.md and report.html in {}", folder.display());
    print(&if args.json { json } else { table(&family.table(), &[0]) })
}

/// A word of a command line, in quotes where it needs them.
fn pasted_word(word: &str) -> String {
    if word.starts_with('-') { word.to_owned() } else { pasted(Path::new(word)) }
}
