//! The flags of `bitpact train`, and how they change a recipe.

use std::path::PathBuf;

use anyhow::Result;
use bitpact::train::recipe::path_to_text;
use bitpact::train::{BackendKind, Draft};

use crate::machine::MachineArgs;

/// Trains a network, converts it to integers after every epoch, and reports the accuracy of the integers
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact train
  bitpact train --dataset cifar10 --data cifar-10-batches-bin --bits W2A2 --epochs 20
  bitpact train --dataset fashion-mnist --data data
  bitpact train my-recipe.toml --lr 0.05 --seed 2 --output runs/second
  bitpact train --resume runs/second

Built-in recipes: builtin (the default), cifar10-resnet20 (the PACT paper's hyper-parameters),
cifar10-resnet20-torch (first and last layer in float, clip values from 10), cifar100-resnet20,
mnist-cnn, fashion-mnist-cnn, kmnist-cnn, emnist-cnn and svhn-resnet20; --dataset alone takes the one
made for the set. A recipe is a TOML file whose keys are the flags' names with underscores;
config.toml in a run folder is one. Flags win over the recipe.

Ctrl-C, SIGTERM and SIGHUP save and stop; --resume goes on to the same bytes as if the run had never stopped.
One process at a time trains in a folder; any number may read it meanwhile.")]
pub(crate) struct Args {
    /// A built-in recipe or a TOML file
    pub(super) recipe: Option<PathBuf>,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Start from the weights of a checkpoint or of a safetensors file with PyTorch's names
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
    /// What computes the steps: cpu, or reference, the slow specification of them
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    pub(super) backend: BackendKind,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    #[command(flatten)]
    pub(super) recipe_flags: RecipeFlags,
}

/// Flags that stand for the keys of the recipe that decide what one step computes. Their values are checked where the
/// recipe's are.
#[derive(clap::Args)]
#[command(next_help_heading = "Recipe")]
pub(crate) struct NetworkFlags {
    /// Data set; `bitpact data list` shows them
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// Network: a name such as resnet20, or a TOML or JSON file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) arch: Option<PathBuf>,
    /// Bits of weights and activations, such as W4A4, or float; W8A8@10,W4A4: W8A8 up to epoch 10, then W4A4
    #[arg(long, value_name = "BITS")]
    pub(crate) bits: Option<String>,
    /// Activation quantizer: pact, pact+, lsq, fixed or relu
    #[arg(long, value_name = "NAME")]
    pub(crate) act_quant: Option<String>,
    /// Weight quantizer: dorefa, sawb, sawb+, lsq or minmax
    #[arg(long, value_name = "NAME")]
    pub(crate) weight_quant: Option<String>,
    /// First and last layer: float, 8bit or same
    #[arg(long, value_name = "POLICY")]
    pub(crate) first_last: Option<String>,
    /// Images in a step
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) batch_size: Option<i64>,
    /// Numbers of the backward products: fp32 or bf16
    #[arg(long, value_name = "NAME")]
    pub(crate) precision: Option<String>,
    /// Bits of the gradients in the backward products: 8
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) gradient_bits: Option<i64>,
}

/// Flags that stand for keys of the recipe.
#[derive(clap::Args)]
#[command(next_help_heading = "Recipe")]
pub(super) struct RecipeFlags {
    #[command(flatten)]
    pub(super) network: NetworkFlags,
    /// Start of the clip values: a number, or calibrate
    #[arg(long, value_name = "START")]
    clip_init: Option<String>,
    /// Passes over the training set
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    epochs: Option<i64>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Optimizer: sgd, adam or adamw
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Momentum of SGD
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    momentum: Option<f64>,
    /// Betas of Adam
    #[arg(long, value_name = "B1,B2", value_delimiter = ',', allow_negative_numbers = true)]
    betas: Vec<f64>,
    /// eps of Adam
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    eps: Option<f64>,
    /// Largest norm of all gradients together
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_grad_norm: Option<f64>,
    /// L2 decay of the weights
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Learning rate and decay of the tensors that a pattern matches, such as *.bias:lr=0.01,weight_decay=0; may be repeated
    #[arg(long, value_name = "PATTERN:RATES")]
    param_group: Vec<String>,
    /// Course of the learning rate: constant, step or cosine
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,
    /// Share of a label that is spread over all classes
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    label_smoothing: Option<f64>,
    /// Relative error of sums, as of in-memory arrays: the rms of `accel in-memory` over the root of its rows
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    sum_noise: Option<f64>,
    /// Side of the square that is cut out of training images, in pixels
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    cutout: Option<i64>,
    /// Mix training images, their shares from the distribution Beta(A, A)
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    mixup: Option<f64>,
    /// Checkpoint or run folder of a network to learn from
    #[arg(long, value_name = "FILE|DIR")]
    teacher: Option<PathBuf>,
    /// Divides the logits of network and teacher
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    distill_temperature: Option<f64>,
    /// Share of the teacher in the loss
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    distill_weight: Option<f64>,
    /// Decay of a moving average of all tensors, evaluated in their place
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    ema_decay: Option<f64>,
    /// Batches from which batch norm's statistics are estimated anew after every epoch
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    bn_reestimate: Option<i64>,
    /// Seed of everything random
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Only the first N training images
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    limit_train: Option<i64>,
    /// Only the first N test images
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    limit_test: Option<i64>,
    /// Training images that are held out to choose the best epoch by, the same for every seed
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    holdout: Option<i64>,
    /// Whether the float network is trained too, to compare with
    #[arg(long, value_name = "BOOL")]
    compare_float: Option<bool>,
}

impl NetworkFlags {
    /// Keys, flags and texts that were given.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let texts = [
            ("dataset", "--dataset", &self.dataset),
            ("bits", "--bits", &self.bits),
            ("act_quant", "--act-quant", &self.act_quant),
            ("weight_quant", "--weight-quant", &self.weight_quant),
            ("first_last", "--first-last", &self.first_last),
            ("precision", "--precision", &self.precision),
        ];
        texts.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value.as_deref()?)))
    }

    /// Keys, flags and numbers that were given.
    fn numbers(&self) -> impl Iterator<Item = (&'static str, &'static str, i64)> {
        let numbers =
            [("batch_size", "--batch-size", self.batch_size), ("gradient_bits", "--gradient-bits", self.gradient_bits)];
        numbers.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value?)))
    }

    /// The flags that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let mut given: Vec<&str> = self.texts().map(|(_, flag, _)| flag).collect();
        given.extend(self.arch.as_ref().map(|_| "--arch"));
        given.extend(self.numbers().map(|(_, flag, _)| flag));
        given
    }

    /// Sets what was given.
    pub(crate) fn apply(&self, draft: &mut Draft) -> Result<()> {
        for (key, flag, value) in self.texts() {
            draft.set(key, value, flag);
        }
        for (key, flag, value) in self.numbers() {
            draft.set(key, value, flag);
        }
        if let Some(arch) = &self.arch {
            draft.set_arch(arch, "--arch")?;
        }
        Ok(())
    }
}

impl RecipeFlags {
    /// Sets what was given.
    pub(super) fn apply(&self, draft: &mut Draft) -> Result<()> {
        self.network.apply(draft)?;
        for (key, flag, value) in
            [("optimizer", "--optimizer", &self.optimizer), ("schedule", "--schedule", &self.schedule)]
        {
            if let Some(value) = value {
                draft.set(key, value.as_str(), flag);
            }
        }
        if let Some(teacher) = &self.teacher {
            draft.set("teacher", path_to_text(teacher), "--teacher");
        }
        let whole = [
            ("epochs", "--epochs", self.epochs),
            ("cutout", "--cutout", self.cutout),
            ("bn_reestimate", "--bn-reestimate", self.bn_reestimate),
            ("seed", "--seed", self.seed),
            ("limit_train", "--limit-train", self.limit_train),
            ("limit_test", "--limit-test", self.limit_test),
            ("holdout", "--holdout", self.holdout),
        ];
        for (key, flag, value) in whole {
            if let Some(value) = value {
                draft.set(key, value, flag);
            }
        }
        let numbers = [
            ("lr", "--lr", self.lr),
            ("momentum", "--momentum", self.momentum),
            ("eps", "--eps", self.eps),
            ("max_grad_norm", "--max-grad-norm", self.max_grad_norm),
            ("weight_decay", "--weight-decay", self.weight_decay),
            ("label_smoothing", "--label-smoothing", self.label_smoothing),
            ("sum_noise", "--sum-noise", self.sum_noise),
            ("mixup", "--mixup", self.mixup),
            ("distill_temperature", "--distill-temperature", self.distill_temperature),
            ("distill_weight", "--distill-weight", self.distill_weight),
            ("ema_decay", "--ema-decay", self.ema_decay),
        ];
        for (key, flag, value) in numbers {
            if let Some(value) = value {
                draft.set(key, value, flag);
            }
        }
        if !self.betas.is_empty() {
            draft.set("betas", self.betas.clone(), "--betas");
        }
        for group in &self.param_group {
            draft.add_param_group(group, "--param-group")?;
        }
        if let Some(start) = &self.clip_init {
            match start.parse::<f64>() {
                Ok(number) => draft.set("clip_init", number, "--clip-init"),
                Err(_) => draft.set("clip_init", start.as_str(), "--clip-init"),
            }
        }
        if let Some(compare) = self.compare_float {
            draft.set("compare_float", compare, "--compare-float");
        }
        Ok(())
    }
}
