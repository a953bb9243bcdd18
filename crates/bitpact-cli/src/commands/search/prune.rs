//! `bitpact search prune`: fewer channels, by masks that are trained with the weights.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bitpact::unstable::accel::Widths;
use bitpact::unstable::data::Limits;
use bitpact::unstable::graph::{BitSpec, counts};
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::search::{Bitwidths, Budget, CPU, Cost, Limit, Product, Quantity, SearchError};
use bitpact::unstable::train::prune::{Pressure, PruneOptions, Pruned, prune};
use bitpact::unstable::train::{BackendKind, Draft};
use bitpact::{
    Checkpoint, Dataset, Graph, Images, QuantConfig, QuantPlan, Recipe, RunError, RunFolder, RunOptions, Start,
};
use serde_json::json;

use super::source::Source;
use crate::commands::train::RecipeFlags;
use crate::exit::{Interrupted, Usage};
use crate::interrupt;
use crate::machine::{MachineArgs, load_images};
use crate::out::{print, say};
use crate::progress::Display;

/// Removes channels by masks that are trained with the weights, and writes the smaller network with its weights
#[derive(clap::Args)]
#[command(after_help = "\
Channels that stand or fall together have one mask, a number from 0 to 1 that is trained with the weights; where it is
below 1/2 they are gone. The loss gains the cost of what is left: `--strength` times its share of the whole, or with a
budget as much as meets it. Channels of the image, of the outputs, and those that a view renumbers stay.

Written into the output folder: the run with masks, pruned.safetensors with the smaller network, and pruned.toml, the
recipe that trains it on. Flags of `bitpact train` change the recipe of the run.

Examples:
  bitpact search prune runs/builtin-float-seed1 --budget params=20k --epochs 6 -o small
  bitpact train small/pruned.toml --init-from small/pruned.safetensors --bits W8A8
  bitpact search prune cifar10-resnet20 --bits float --strength 0.5 --data DIR")]
pub(crate) struct Args {
    /// The folder of a run or a checkpoint, whose weights are the start, or a recipe
    #[arg(value_name = "RUN|RECIPE")]
    from: PathBuf,
    /// Cost that the smaller network must keep within, such as params=10k, macs=2M, bytes=7k or bitops=40M
    #[arg(long, value_name = "BUDGET", required_unless_present = "strength", conflicts_with = "strength")]
    budget: Option<String>,
    /// Weight of the cost in the loss, as a share of the cost of the whole network
    #[arg(long, value_name = "S", value_parser = parse_strength)]
    strength: Option<f64>,
    /// Cost that --strength lowers: params, macs, bytes or bitops
    #[arg(long, value_name = "QUANTITY", default_value = "params", conflicts_with = "budget")]
    quantity: String,
    /// Bits at which bytes and bitops count where the recipe has none
    #[arg(long, value_name = "BITS", default_value = "W8A8")]
    cost_bits: BitSpec,
    /// Learning rate of the masks
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = parse_rate)]
    rate: f32,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder to write [default: prune-NAME]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Backend of the training steps: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    backend: BackendKind,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    recipe_flags: RecipeFlags<true>,
}

fn parse_strength(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "expected a number of 0 or more".to_owned())
}

pub(super) fn parse_rate(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// The cost that a pruning lowers, at the bits of the recipe or of `--cost-bits`.
struct Priced {
    cost: Cost,
    quantity: Quantity,
    config: QuantConfig,
}

impl Priced {
    fn parts(&self, graph: &Graph) -> Result<(Vec<Product>, Bitwidths), SearchError> {
        Ok((Product::all(graph), Bitwidths::of(&QuantPlan::resolve(graph, &self.config)?)))
    }

    fn cost(&self, graph: &Graph) -> Result<f64, SearchError> {
        let (products, bits) = self.parts(graph)?;
        self.cost.network(graph, &products, &bits)
    }

    /// Cost of a weight of every product.
    fn prices(&self, graph: &Graph) -> Result<Vec<(String, f64)>> {
        let (products, bits) = self.parts(graph)?;
        let price = |product: &Product| {
            let widths: Widths = bits.operands(graph, product);
            match self.cost.product(product, widths)? {
                Some(cost) => Ok((product.name.clone(), cost / product.weights as f64)),
                None => bail!(Usage(format!("{}: is no sum over layers on this device", self.quantity.name()))),
            }
        };
        products.iter().map(price).collect()
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    print(&pruned(args)?)
}

/// Prunes, writes, and gives what is to be shown.
pub(super) fn pruned(args: Args) -> Result<String> {
    let (budget, pressure) = match (&args.budget, args.strength) {
        (Some(text), _) => (text.parse::<Budget>()?, None),
        (None, strength) => (format!("{}=1", args.quantity).parse::<Budget>()?, strength.map(Pressure::Strength)),
    };
    if budget.device.as_deref() == Some(CPU) {
        let message = "latency=...@cpu: masks need a cost of every layer at any number of channels; expected params, \
                       macs, bytes, bitops, or a chip";
        return Err(Usage(message.to_owned()).into());
    }
    let source = Source::open(&args.from)?;
    let mut draft = Draft::parse(&source.recipe.to_toml(), &args.from.display().to_string())?.stored();
    args.recipe_flags.apply(&mut draft)?;
    let dataset = draft.known_dataset()?;
    let recipe = draft.finish()?;
    let mut config = recipe.quant_config();
    if config.bits == BitSpec::Float {
        config = QuantConfig { bits: args.cost_bits, overrides: Default::default(), ..config };
    }
    let priced = Priced { cost: Cost::of(&budget, None)?, quantity: budget.quantity, config };
    let pressure = match (pressure, budget.limit) {
        (Some(pressure), _) => pressure,
        (None, Limit::Value(value)) => Pressure::Target(value),
        (None, Limit::Like(bits)) => {
            let whole =
                Priced { config: QuantConfig { bits, ..priced.config.clone() }, cost: priced.cost.clone(), ..priced };
            Pressure::Target(whole.cost(&source.graph)?)
        }
    };
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("prune-{}", recipe.name)));
    let folder = RunFolder::create(&output)?;
    let limits = Limits { train: recipe.limit_train, test: recipe.limit_test };
    let (split, _reading) = load_images(dataset, args.data.as_ref(), limits, &recipe.own_options())?;
    let graph = network(&recipe, &*split.train)?;
    let options = PruneOptions { prices: priced.prices(&graph)?.into_iter().collect(), pressure, rate: args.rate };
    let exact = |graph: &Graph| priced.cost(graph).map_err(|error| RunError::Prune { what: error.to_string() });
    let mut display = Display::new("pruning", recipe.epochs, recipe.batch_size);
    let machine = args.machine.resolve();
    let run = RunOptions {
        backend: args.backend,
        isa: machine.isa,
        threads: machine.threads,
        stop: interrupt::stop_flag(),
        observer: &mut |event| display.show(&event),
    };
    let images = Images { train: &*split.train, test: &*split.test };
    let start = Start::Fresh { weights: source.tensors() };
    let (outcome, pruned) = prune(&recipe, images, &folder, start, run, &options, &exact)?;
    drop(display);
    let Some(pruned) = pruned else {
        say!("stopped after step {}; masks are not kept: begin again in another folder", outcome.step);
        return Err(Interrupted.into());
    };
    written(&recipe, &pruned, folder.path())?;
    Ok(shown(&args, &priced, &graph, &pruned, folder.path()))
}

/// The network of a recipe for these images.
fn network(recipe: &Recipe, images: &dyn Dataset) -> Result<Graph> {
    let shape = images.image_shape();
    let shape = bitpact::unstable::graph::Shape::new(shape.h, shape.w, shape.c);
    Ok(recipe.network(shape, images.class_names().len())?)
}

/// Writes the network and the recipe that trains it on.
fn written(recipe: &Recipe, pruned: &Pruned, folder: &Path) -> Result<()> {
    let whole = &pruned.model.graph;
    let name = format!("{}-pruned", whole.name().trim_end_matches("-pruned"));
    let graph = Graph::with_outputs(&name, whole.nodes().to_vec(), whole.outputs().to_vec())?;
    let mut recipe = recipe.clone();
    recipe.arch.clone_from(&name);
    recipe.graph = Some(graph.clone());
    recipe.name = format!("{}-pruned", recipe.name.trim_end_matches("-pruned"));
    let text = recipe.to_toml();
    let file = folder.join("pruned.toml");
    // What is written must be what `bitpact train` takes.
    Draft::parse(&text, &file.display().to_string())?.stored().finish()?;
    let model = bitpact::Model { graph, ..pruned.model.clone() };
    let note = Some("channels were removed by bitpact search prune".to_owned());
    Checkpoint { model, training: None, note }.save(folder.join("pruned.safetensors"))?;
    write_atomically(&file, text.as_bytes())?;
    Ok(())
}

fn shown(args: &Args, priced: &Priced, graph: &Graph, pruned: &Pruned, folder: &Path) -> String {
    let [before, after] = [graph, &pruned.model.graph].map(counts::parameters);
    let [whole, left] = pruned.costs;
    if args.json {
        let layers = pruned.model.graph.nodes().iter().enumerate().filter(|(_, node)| node.op.is_product());
        let channels: serde_json::Map<_, _> =
            layers.map(|(id, node)| (node.name.clone(), json!(pruned.model.graph.shape(id).c))).collect();
        let object = json!({
            "network": graph.name(),
            "quantity": priced.quantity.name(),
            "cost": { "whole": whole, "left": left },
            "parameters": { "whole": before, "left": after },
            "groups": pruned.groups,
            "removed": pruned.removed,
            "trimmed": pruned.trimmed,
            "channels": channels,
            "folder": folder.display().to_string(),
        });
        return object.to_string();
    }
    let folder = folder.display();
    let show = |value: f64| priced.quantity.show(value);
    let trimmed = match pruned.trimmed {
        0 => String::new(),
        n => format!(", {n} of them at the end, to meet the budget"),
    };
    format!(
        "{}: {} of {} groups of channels removed{trimmed}\n{}: {} of {}\nparameters with batch norms: {after} of {before}, \
         {:.2} times fewer\n\nwrote {folder}/pruned.safetensors and {folder}/pruned.toml; go on with:\n  \
         bitpact train {folder}/pruned.toml --init-from {folder}/pruned.safetensors",
        graph.name(),
        pruned.removed,
        pruned.groups,
        priced.quantity.name(),
        show(left),
        show(whole),
        before as f64 / after as f64,
    )
}
