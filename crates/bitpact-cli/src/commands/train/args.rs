//! The flags of `bitpact train`, and how they change a recipe.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use bitpact::Recipe;
use bitpact::unstable::train::recipe::Key;
use bitpact::unstable::train::{BackendKind, Draft};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, ArgMatches};

use crate::machine::MachineArgs;

/// Trains a network, converts it to integers after every epoch, and reports the accuracy of the integers
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact train
  bitpact train --dataset cifar10 --data cifar-10-batches-bin --bits W2A2 --epochs 20
  bitpact train --dataset fashion-mnist --data data
  bitpact train --dataset folder --data photos --crop 64 --test-share 0.2
  bitpact train --dataset folder --data arrays.npz
  bitpact train my-recipe.toml --lr 0.05 --seed 2 --output runs/second
  bitpact train --init-from resnet20.th --dataset cifar10 --data DIR --bits W4A4 --epochs 10
  bitpact train --resume runs/second

Built-in recipes: builtin (the default), cifar10-resnet20 (the PACT paper's hyper-parameters),
cifar10-resnet20-torch (first and last layer in float, clip values from 10), cifar100-resnet20,
mnist-cnn, fashion-mnist-cnn, kmnist-cnn, emnist-cnn, svhn-resnet20, folder (pictures of your own) and arrays;
--dataset alone takes the one made for the set. A recipe is a TOML file whose keys are the names of the flags under Recipe with underscores;
config.toml in a run folder is one. Flags win over the recipe.

Ctrl-C, SIGTERM and SIGHUP save and stop; --resume goes on to the same bytes as if the run had never stopped.
One process at a time trains in a folder; any number may read it meanwhile.")]
pub(crate) struct Args {
    /// A built-in recipe or a TOML file
    pub(super) recipe: Option<PathBuf>,
    /// Folder that holds the data set; of --dataset folder also a CSV or .npz file
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) data: Option<PathBuf>,
    /// Refuse data of your own (--dataset folder) with a file that cannot be used, instead of leaving it out
    #[arg(long)]
    pub(super) strict: bool,
    /// Start from trained weights: a checkpoint, or a PyTorch, safetensors or ONNX file. Where no recipe is named, the
    /// network and what a pixel means are the file's, and training is short and at a low rate
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(super) init_from: Option<PathBuf>,
    /// Take the weights of --init-from even if they were trained on pixels of another meaning
    #[arg(long, requires = "init_from")]
    pub(super) force: bool,
    /// Go on with the run in this folder; of the recipe only --epochs may change, and where the --teacher lies
    #[arg(long, value_name = "DIR", conflicts_with = "recipe")]
    pub(super) resume: Option<PathBuf>,
    /// Folder of the run; by default runs/RECIPE-BITS-seedSEED and the flags that change the recipe
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub(super) output: Option<PathBuf>,
    /// Write one JSON object to standard output at the end
    #[arg(long)]
    pub(super) json: bool,
    /// Show the run on the terminal while it trains; q leaves, and the run goes on
    #[arg(long)]
    pub(super) tui: bool,
    /// Also write what other viewers read, into the folder of the run: csv, tensorboard, or both with a comma
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    pub(super) log: Vec<LogFormat>,
    /// Backend of the training steps: cpu, or reference (slow, plain loops)
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    pub(super) backend: BackendKind,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    #[command(flatten)]
    pub(super) recipe_flags: RecipeFlags<true>,
}

/// A form in which other programs read the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// epochs.csv and layers.csv
    Csv,
    /// Event files in tensorboard/
    Tensorboard,
}

/// Keys that decide what one step computes and how fast.
const STEP_KEYS: [&str; 9] =
    ["dataset", "arch", "bits", "act_quant", "weight_quant", "first_last", "batch_size", "precision", "gradient_bits"];

/// Flags that stand for the keys of a recipe, all or [`STEP_KEYS`], in the order of the keys. Their values are checked
/// where the recipe's are.
pub(crate) struct RecipeFlags<const ALL: bool>(Vec<(&'static Key, OsString)>);

impl<const ALL: bool> clap::Args for RecipeFlags<ALL> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let keys = Recipe::KEYS.iter().filter(|key| !key.flag_value.is_empty());
        keys.filter(|key| ALL || STEP_KEYS.contains(&key.name)).fold(command, |command, key| {
            let arg = clap::Arg::new(key.name).long(key.flag()).value_name(key.flag_value).help(key.flag_help());
            let repeats = if key.name == "param_groups" { ArgAction::Append } else { ArgAction::Set };
            let arg = arg.action(repeats).value_parser(OsStringValueParser::new().try_map(|text| key.check_flag(text)));
            command.arg(arg.allow_negative_numbers(true).help_heading("Recipe"))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<const ALL: bool> clap::FromArgMatches for RecipeFlags<ALL> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| {
            let texts = matches.try_get_many::<OsString>(key.name).ok().flatten().unwrap_or_default();
            texts.map(move |text| (key, text.clone()))
        };
        Ok(Self(Recipe::KEYS.iter().flat_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const ALL: bool> RecipeFlags<ALL> {
    /// The text that the user gave for `key`, if any.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given.name == key).and_then(|(_, text)| text.to_str())
    }

    /// The keys that were given.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static Key> {
        self.0.iter().map(|(key, _)| *key)
    }

    /// Sets what was given.
    pub(crate) fn apply(&self, draft: &mut Draft) -> Result<()> {
        self.0.iter().try_for_each(|(key, text)| Ok(draft.set_flag(key, text)?))
    }
}
