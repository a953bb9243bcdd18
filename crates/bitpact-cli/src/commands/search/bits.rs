//! `bitpact search bits`: the bits of every layer from what each was measured to cost.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bitpact::unstable::core::Bits;
use bitpact::unstable::graph::BitSpec;
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::search::latency::network_seconds;
use bitpact::unstable::search::{
    Bitwidths, Budget, CPU, Choice, Cost, Limited, Part, Quantity, SearchError, Space, exact, exact_front, greedy,
};
use bitpact::unstable::train::recipe::ClipInit;
use bitpact::unstable::train::{BackendKind, Draft};
use bitpact::{QuantConfig, Recipe};

use super::source::{Source, changes};
use super::text::{Chosen, Found, Uniform};
use super::{cpu, gradient};
use crate::exit::Usage;
use crate::machine::MachineArgs;
use crate::out::{print, say};

/// Chooses the bits of every layer and writes the recipe
#[derive(clap::Args)]
#[command(after_help = "\
Every tensor (the weights of a layer, the codes of an activation) is given few bits alone, everything else having 8, and
the loss is measured on training images that the split of `holdout` keeps apart, as `bitpact sensitivity` does. The
changes are taken to add up. `exact` finds the widths with the smallest sum within the budgets; `greedy` narrows tensor
by tensor and then exchanges, for costs that are no sum over layers. What first_last, shortcut and overrides fix stays.

A budget is QUANTITY=AMOUNT, or QUANTITY=AMOUNT@DEVICE:
  bytes=20k         bytes of weight codes as the file packs them
  bitops=40M        multiply-adds times the bits of both operands
  latency=1.2ms@cpu time of one image on one thread of this machine, timed layer by layer and kept in a file
  latency=3ms@mpic  on a chip (gap8, mpic, ne16), a device of `bitpact accel`, or a file of either or of measured layers
  energy=20uJ@mpic  likewise
  bytes=W3A3        as much as the network takes with these bits everywhere

Examples:
  bitpact search bits runs/builtin-W4A4-seed1 --budget bytes=25k -o small.toml
  bitpact search bits runs/builtin-W4A4-seed1 --budget bytes=W3A3 --budget bitops=W3A3 --sensitivity layers.json
  bitpact search bits runs/builtin-W4A4-seed1 --budget latency=W4A4@mpic --bits 2,4,8
  bitpact search bits runs/builtin-W4A4-seed1 --budget bytes=W8A8 --front 6 -o front
  bitpact search bits runs/builtin-W4A4-seed1 --budget bytes=W3A4 --bits 2,4,8 --gradient --epochs 6 -o mixed.toml")]
pub(crate) struct Args {
    /// The folder of a run or a checkpoint; with --sensitivity FILE also a recipe
    #[arg(value_name = "RUN|RECIPE")]
    from: PathBuf,
    /// Limit on what the network may cost; twice for two limits that must both hold
    #[arg(long, value_name = "BUDGET", required = true)]
    budget: Vec<String>,
    /// Widths to choose from
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_value = "2,3,4,5,6,8", value_parser = parse_bits)]
    bits: Vec<Bits>,
    /// How to choose: exact, greedy, or auto, which is exact where costs are sums over layers
    #[arg(long, value_name = "NAME", default_value = "auto")]
    method: Method,
    /// Train the widths of weights with the weights, as mixtures, with activations at the recipe's bits
    #[arg(long, conflicts_with_all = ["method", "front", "sensitivity", "images", "reestimate", "cache"])]
    gradient: bool,
    /// Epochs of --gradient; the recipe's where not given
    #[arg(long, value_name = "N", requires = "gradient", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) epochs: Option<u32>,
    /// Learning rate of the mixtures of --gradient [default: 0.01]
    #[arg(long, value_name = "RATE", requires = "gradient", value_parser = super::pressed::parse_rate)]
    pub(super) rate: Option<f32>,
    /// Choose for N limits, from the least cost to the first budget, and draw them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=100))]
    front: Option<u16>,
    /// Take the changes of the loss from this file where it is there, else measure them and write it
    #[arg(long, value_name = "FILE")]
    pub(super) sensitivity: Option<PathBuf>,
    /// Training images to measure on
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) images: u64,
    /// Batches of 100 of these images from which batch norm's statistics are estimated anew before each measure; 0 for
    /// those of the run
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub(super) reestimate: u64,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// File of this machine's layer times, for latency=...@cpu [default: bitpact/latency/ in the user's cache folder]
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Recipe to write, with --front the folder of recipes, front.json and front.svg [default: search-NAME.toml, or
    /// search-NAME]
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(super) output: Option<PathBuf>,
    /// Backend of the simulated view: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    pub(super) backend: BackendKind,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    pub(super) json: bool,
}

/// Bits of a part of which nothing is chosen.
const EIGHT: Bits = Bits::new(8).expect("8 is a width");

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    Auto,
    Exact,
    Greedy,
}

fn parse_bits(text: &str) -> Result<Bits, String> {
    text.parse().ok().and_then(Bits::new).ok_or_else(|| "expected 1 to 8".to_owned())
}

pub(crate) fn run(args: Args) -> Result<()> {
    print(&chosen(args)?)
}

/// Chooses, writes, and gives what is to be shown.
pub(super) fn chosen(args: Args) -> Result<String> {
    let budgets = args.budget.iter().map(|text| text.parse()).collect::<Result<Vec<Budget>, SearchError>>()?;
    let source = Source::open(&args.from)?;
    let recipe = &source.recipe;
    let mut config = recipe.quant_config();
    if config.bits == BitSpec::Float && args.gradient {
        let message = "--gradient: activations have the recipe's bits, and it is float; name a run or recipe with bits";
        return Err(Usage(message.to_owned()).into());
    }
    if config.bits == BitSpec::Float {
        // Any width will do: every tensor gets its own.
        config = QuantConfig { bits: "W8A8".parse().map_err(Usage)?, ..config };
    }
    let mut space = Space::new(&source.graph, &config, &args.bits)?;
    if args.gradient {
        gradient::weights_only(&mut space, &config)?;
    }
    let limited = limited(&args, budgets, &space)?;
    if args.gradient {
        return gradient::run(&args, &source, &config, &mut space, &limited);
    }
    let is_sum = !limited.iter().any(|limited| matches!(limited.cost, Cost::DeviceLatency(_) | Cost::DeviceEnergy(_)));
    let method = match args.method {
        Method::Auto if is_sum && limited.len() <= 2 => Method::Exact,
        Method::Auto => Method::Greedy,
        named => named,
    };
    let sensitivity = source.sensitivity(&args, &args.bits)?;
    space.set_changes(&changes(&sensitivity))?;
    let (choices, named) = choose(&args, method, &space, &limited)?;
    let files = files(&args, recipe, choices.len());
    let mut found = Found {
        space: &space,
        limited: &limited,
        sensitivity: &sensitivity,
        method: named,
        choices: Vec::new(),
        uniform: uniform(&args.bits, &space, &limited)?,
    };
    let isa = args.machine.resolve().isa;
    let is_timed = limited.iter().any(|limited| limited.budget.device.as_deref() == Some(CPU));
    if let Some(folder) = files.first().and_then(|file| file.parent()).filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    }
    let together = choices.iter().map(|choice| &choice.bits).chain(found.uniform.iter().map(|one| &one.bits));
    let untrained = source.untrained(&args, &space, &together.collect::<Vec<_>>())?;
    let untrained_at = |i: usize| untrained.as_ref().map(|losses| losses[i]);
    for (i, one) in found.uniform.iter_mut().enumerate() {
        one.untrained = untrained_at(choices.len() + i);
    }
    for (i, (choice, file)) in choices.into_iter().zip(&files).enumerate() {
        let text = written(&source.recipe, &space, &choice.bits, file)?;
        write_atomically(file, text.as_bytes())?;
        let measured_s =
            is_timed.then(|| network_seconds(&space.graph, &space.plan(&choice.bits)?, isa)).transpose()?;
        let (untrained, recipe) = (untrained_at(i), file.display().to_string());
        found.choices.push(Chosen { choice, recipe, untrained, measured_s });
    }
    let json = found.json().to_string();
    if args.front.is_some() {
        let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
        write_atomically(folder.join("front.json"), format!("{json}\n").as_bytes())?;
        write_atomically(folder.join("front.svg"), found.chart()?.as_bytes())?;
        say!("wrote {} recipes, front.json and front.svg in {}", files.len(), folder.display());
    } else {
        files.iter().for_each(|file| say!("wrote {}; go on with: bitpact train {0}", file.display()));
    }
    Ok(if args.json { json } else { found.text()? })
}

/// The budgets with their costs, each of which can be met.
fn limited(args: &Args, budgets: Vec<Budget>, space: &Space) -> Result<Vec<Limited>> {
    let mut limited = Vec::new();
    let mut table = None;
    for budget in budgets {
        let is_timed = budget.quantity == Quantity::Latency && budget.device.as_deref() == Some(CPU);
        if table.is_none() && is_timed {
            table = Some(cpu::table(space, args.machine.resolve().isa, args.cache.as_ref())?);
        }
        let cost = Cost::of(&budget, table.as_ref())?;
        limited.push(Limited::new(budget, cost, space)?);
    }
    if args.cache.is_some() && table.is_none() {
        return Err(Usage("--cache: only budgets of latency=...@cpu use it".to_owned()).into());
    }
    Ok(limited)
}

fn choose(args: &Args, method: Method, space: &Space, limited: &[Limited]) -> Result<(Vec<Choice>, &'static str)> {
    let Some(count) = args.front.map(usize::from) else {
        return Ok(match method {
            Method::Greedy => (vec![greedy(space, limited)?], "greedy"),
            _ => (vec![exact(space, limited)?], "exact"),
        });
    };
    if method != Method::Greedy {
        return Ok((exact_front(space, limited, count)?, "exact"));
    }
    let (least, most) = (limited[0].least, limited[0].limit.min(limited[0].most));
    let mut choices: Vec<Choice> = Vec::new();
    for i in 0..count {
        let mut limited = limited.to_vec();
        limited[0].limit = least * (most / least).powf(i as f64 / (count - 1) as f64);
        match greedy(space, &limited) {
            Ok(choice) if choices.last().is_none_or(|last| last.bits != choice.bits) => choices.push(choice),
            Ok(_) | Err(SearchError::NotMetTogether { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((choices, "greedy"))
}

/// The costs and losses of networks with one width everywhere, for each width that every variable can have.
fn uniform(bits: &[Bits], space: &Space, limited: &[Limited]) -> Result<Vec<Uniform>> {
    let mut rows = Vec::new();
    for &bits in bits {
        let spec = BitSpec::Bits { weights: bits, activations: bits };
        let bits = space.uniform(spec)?;
        let cost = |limited: &Limited| limited.cost.network(&space.graph, &space.products, &bits);
        let costs = limited.iter().map(cost).collect::<Result<Vec<_>, SearchError>>()?;
        if let Some(loss_change) = space.change(&bits) {
            rows.push(Uniform { spec, bits, costs, loss_change, untrained: None });
        }
    }
    Ok(rows)
}

/// The files that the recipes are written to.
fn files(args: &Args, recipe: &Recipe, count: usize) -> Vec<PathBuf> {
    let usual = format!("search-{}", recipe.name);
    if args.front.is_none() {
        return vec![args.output.clone().unwrap_or_else(|| PathBuf::from(usual + ".toml"))];
    }
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from(usual));
    (1..=count).map(|i| folder.join(format!("{i:02}.toml"))).collect()
}

/// The recipe with an override for every tensor that was chosen. Its own bits are the median of those, which decide at
/// which percentile clip values start.
fn written(recipe: &Recipe, space: &Space, bits: &Bitwidths, file: &Path) -> Result<String> {
    let median = |part: Part| {
        let own = space.variables.iter().filter(|variable| variable.part == part);
        let mut own: Vec<u8> = own.map(|variable| variable.of(bits)).collect();
        own.sort_unstable();
        own.get(own.len() / 2).and_then(|&bits| Bits::new(bits)).unwrap_or(EIGHT)
    };
    let spec = BitSpec::Bits { weights: median(Part::Weights), activations: median(Part::Activations) };
    let mut recipe = recipe.clone();
    let first = recipe.bits.first_quantized();
    if recipe.clip_init == ClipInit::calibrate(first) {
        recipe.clip_init = ClipInit::calibrate(spec);
    }
    recipe.bits = spec.into();
    recipe.overrides = space.overrides(bits);
    recipe.name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("search").to_owned();
    let text = recipe.to_toml();
    // What is written must be what `bitpact train` takes.
    Draft::parse(&text, &file.display().to_string())?.finish()?;
    Ok(text)
}
