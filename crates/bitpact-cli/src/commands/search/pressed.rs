//! The flags, the cost and the run that `search prune` and `search blocks` share: both train numbers beside the
//! weights.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bitpact::unstable::accel::Widths;
use bitpact::unstable::data::{DatasetName, Limits};
use bitpact::unstable::graph::BitSpec;
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::search::{Bitwidths, Budget, CPU, Cost, Limit, Product, Quantity, SearchError};
use bitpact::unstable::train::prune::Pressure;
use bitpact::unstable::train::{BackendKind, Draft};
use bitpact::{
    Checkpoint, Dataset, Graph, Images, Model, QuantConfig, QuantPlan, Recipe, RunFolder, RunOptions, Start,
};

use super::source::Source;
use crate::commands::train::RecipeFlags;
use crate::exit::Usage;
use crate::interrupt;
use crate::machine::{Machine, MachineArgs, load_images};
use crate::progress::Display;

#[derive(clap::Args)]
pub(super) struct PressedArgs {
    /// The folder of a run or a checkpoint, whose weights are the start, or a recipe
    #[arg(value_name = "RUN|RECIPE")]
    pub(super) from: PathBuf,
    /// Cost that the smaller network must keep within, such as params=10k, macs=2M, bytes=7k or bitops=40M
    #[arg(long, value_name = "BUDGET", required_unless_present = "strength", conflicts_with = "strength")]
    pub(super) budget: Option<String>,
    /// Weight of the cost in the loss, as a share of the cost of the whole network
    #[arg(long, value_name = "S", value_parser = parse_strength)]
    strength: Option<f64>,
    /// Cost that --strength lowers: params, macs, bytes or bitops
    #[arg(long, value_name = "QUANTITY", default_value = "params", conflicts_with = "budget")]
    quantity: String,
    /// Bits at which bytes and bitops count where the recipe has none
    #[arg(long, value_name = "BITS", default_value = "W8A8")]
    cost_bits: BitSpec,
    /// Learning rate of the numbers
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = parse_rate)]
    rate: f32,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder to write [default: prune-NAME or blocks-NAME]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Backend of the training steps: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    backend: BackendKind,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    pub(super) json: bool,
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

/// The cost that a search lowers, at the bits of the recipe or of `--cost-bits`.
pub(super) struct Priced {
    cost: Cost,
    pub(super) quantity: Quantity,
    config: QuantConfig,
}

impl Priced {
    fn parts(&self, graph: &Graph) -> Result<(Vec<Product>, Bitwidths), SearchError> {
        Ok((Product::all(graph), Bitwidths::of(&QuantPlan::resolve(graph, &self.config)?)))
    }

    pub(super) fn cost(&self, graph: &Graph) -> Result<f64, SearchError> {
        let (products, bits) = self.parts(graph)?;
        self.cost.network(graph, &products, &bits)
    }

    /// Every product with its cost.
    pub(super) fn costs(&self, graph: &Graph) -> Result<Vec<(Product, f64)>> {
        let (products, bits) = self.parts(graph)?;
        let cost = |product: Product| {
            let widths: Widths = bits.operands(graph, &product);
            match self.cost.product(&product, widths)? {
                Some(cost) => Ok((product, cost)),
                None => bail!(Usage(format!("{}: is no sum over layers on this device", self.quantity.name()))),
            }
        };
        products.into_iter().map(cost).collect()
    }
}

/// A search that is ready to run.
pub(super) struct Job<'a> {
    args: &'a PressedArgs,
    source: Source,
    recipe: Recipe,
    dataset: DatasetName,
    pub(super) priced: Priced,
    strength: Option<Pressure>,
    limit: Limit,
}

/// The recipe, network, images, folder and options that a search trains with.
pub(super) struct Run<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) graph: &'a Graph,
    pub(super) images: Images<'a>,
    pub(super) folder: &'a RunFolder,
    pub(super) start: Start,
    pub(super) options: RunOptions<'a>,
    pub(super) pressure: Pressure,
    pub(super) rate: f32,
}

impl<'a> Job<'a> {
    /// Reads the recipe and the budget.
    pub(super) fn open(args: &'a PressedArgs) -> Result<Self> {
        let (budget, strength) = match (&args.budget, args.strength) {
            (Some(text), _) => (text.parse::<Budget>()?, None),
            (None, strength) => (format!("{}=1", args.quantity).parse::<Budget>()?, strength.map(Pressure::Strength)),
        };
        if budget.device.as_deref() == Some(CPU) {
            let message = "latency=...@cpu: this search needs a cost of layers of any shape; expected params, macs, \
                           bytes, bitops, or a chip";
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
        Ok(Self { args, source, recipe, dataset, priced, strength, limit: budget.limit })
    }

    /// How cost weighs in a search of `graph`.
    fn pressure(&self, graph: &Graph) -> Result<Pressure> {
        Ok(match (self.strength, self.limit) {
            (Some(strength), _) => strength,
            (None, Limit::Value(value)) => Pressure::Target(value),
            (None, Limit::Like(bits)) => {
                let Priced { cost, quantity, config } = &self.priced;
                let config = QuantConfig { bits, ..config.clone() };
                Pressure::Target(Priced { config, cost: cost.clone(), quantity: *quantity }.cost(graph)?)
            }
        })
    }

    /// Loads the images and runs `search` in the output folder, whose path is returned too; `command` is in the name of
    /// the folder where none was named, `doing` on the progress bar.
    pub(super) fn run<T>(
        &self,
        command: &str,
        doing: &'static str,
        search: impl FnOnce(Run<'_>) -> Result<T>,
    ) -> Result<(T, PathBuf)> {
        let (args, recipe) = (self.args, &self.recipe);
        let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{command}-{}", recipe.name)));
        let folder = RunFolder::create(&output)?;
        let limits = Limits { train: recipe.limit_train, test: recipe.limit_test };
        let (split, _reading) = load_images(self.dataset, args.data.as_ref(), limits, &recipe.own_options())?;
        let graph = network(recipe, &*split.train)?;
        let pressure = self.pressure(&graph)?;
        let mut display = Display::new(doing, recipe.epochs, recipe.batch_size);
        let Machine { isa, threads } = args.machine.resolve();
        let stop = interrupt::stop_flag();
        let observer = &mut |event: bitpact::Event<'_>| display.show(&event);
        let found = search(Run {
            recipe,
            graph: &graph,
            images: Images { train: &*split.train, test: &*split.test },
            folder: &folder,
            start: Start::Fresh { weights: self.source.tensors() },
            options: RunOptions { backend: args.backend, isa, threads, stop, observer },
            pressure,
            rate: args.rate,
        })?;
        Ok((found, folder.path().to_owned()))
    }

    /// Writes `model` under the name of the whole network with `what` behind it, and the recipe that trains it on:
    /// `what`.safetensors and `what`.toml in `folder`.
    pub(super) fn write(&self, model: &Model, what: &str, note: &str, folder: &Path) -> Result<()> {
        let named = |name: &str| format!("{}-{what}", name.trim_end_matches(&format!("-{what}")));
        let whole = &model.graph;
        let graph = Graph::with_outputs(named(whole.name()), whole.nodes().to_vec(), whole.outputs().to_vec())?;
        let mut recipe = self.recipe.clone();
        graph.name().clone_into(&mut recipe.arch);
        recipe.graph = Some(graph.clone());
        recipe.name = named(&recipe.name);
        let text = recipe.to_toml();
        let file = folder.join(what).with_extension("toml");
        // What is written must be what `bitpact train` takes.
        Draft::parse(&text, &file.display().to_string())?.stored().finish()?;
        let model = Model { graph, ..model.clone() };
        Checkpoint { model, training: None, note: Some(note.to_owned()) }.save(file.with_extension("safetensors"))?;
        write_atomically(&file, text.as_bytes())?;
        Ok(())
    }
}

/// The lines that say how to go on with what [`Job::write`] wrote.
pub(super) fn next(what: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "wrote {folder}/{what}.safetensors and {folder}/{what}.toml; go on with:\n  bitpact train {folder}/{what}.toml \
         --init-from {folder}/{what}.safetensors"
    )
}

/// The network of a recipe for these images.
fn network(recipe: &Recipe, images: &dyn Dataset) -> Result<Graph> {
    let shape = images.image_shape();
    let shape = bitpact::unstable::graph::Shape::new(shape.h, shape.w, shape.c);
    Ok(recipe.network(shape, images.class_names().len())?)
}
