//! What to train and how, as one flat TOML file: every key a field, every field checked, flags over files.
//!
//! A [`Draft`] is a recipe that may still change: built-in text or a file, with flags set on top of it. [`Draft::finish`]
//! checks every value once and gives a [`Recipe`], whose [`Recipe::to_toml`] is the `config.toml` of a run.

mod bits;
mod builtin;
mod draft;
mod effect;
mod error;
mod resolve;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use bitpact_core::{ActQuant, Granularity, Grid, WeightQuant};
use bitpact_graph::{BitSpec, FirstLast, Graph, Override, QuantConfig, QuantPlan, Shape, ShortcutBits, zoo};
use bitpact_model::InputDescription;
use serde::Serialize;

use crate::schedule::{Schedule, ScheduleKind};
use crate::{Gradients, OptimizerConfig, OptimizerKind, ParamGroup};

pub use bits::BitSchedule;
pub use builtin::{BUILTIN_NAMES, builtin_for_dataset, builtin_text};
pub use draft::{Draft, Origin};
pub use error::{RecipeError, nearest};
pub use resolve::read_network;
pub(crate) use values::text_to_path;
pub use values::{Augmentation, ClipInit, GroupRates, InputScale, Precision, path_to_text};

/// Everything that decides the result of a run. Where the data lies, threads, instruction set and output are not here:
/// they do not change what is trained, and no file of a run holds them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Name of the recipe; part of the default output folder.
    pub name: String,
    /// Name of the data set.
    pub dataset: String,
    /// Architecture: a name of [`zoo::NAMES`], or the name of `graph`.
    pub arch: String,
    /// Bits of weights and activations.
    pub bits: BitSchedule,
    /// Activation quantizer.
    pub act_quant: ActQuant,
    /// Weight quantizer.
    pub weight_quant: WeightQuant,
    /// Grid of the weight codes; the quantizer's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_grid: Option<Grid>,
    /// What has a weight scale of its own; the quantizer's usual where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_scale: Option<Granularity>,
    /// What has a clip value of its own.
    #[serde(skip_serializing_if = "is_layer")]
    pub clip_scale: Granularity,
    /// First and last layer.
    pub first_last: FirstLast,
    /// Projection shortcuts.
    pub shortcut: ShortcutBits,
    /// Start of the clip values.
    pub clip_init: ClipInit,
    /// Highest learning rate of the clip values; it takes the same course as `lr`.
    pub clip_lr: f64,
    /// L2 decay of the clip values.
    pub clip_weight_decay: f64,
    /// Passes over the training set.
    pub epochs: u32,
    /// Images in a step.
    pub batch_size: usize,
    /// Numbers of the backward products.
    pub precision: Precision,
    /// Bits of the gradients in the backward products: 8, or those of `precision` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_bits: Option<u32>,
    /// Highest learning rate.
    pub lr: f64,
    /// Rule of the update.
    pub optimizer: OptimizerKind,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// b1 and b2 of Adam.
    pub betas: [f64; 2],
    /// eps of Adam.
    pub eps: f64,
    /// Largest norm of all gradients together; 0 for any.
    pub max_grad_norm: f64,
    /// L2 decay of weights, biases and batch norms.
    pub weight_decay: f64,
    /// Patterns of tensor names without decay; `*` is any run of characters.
    pub no_weight_decay: Vec<String>,
    /// Course of the learning rate.
    pub schedule: ScheduleKind,
    /// Fractions of the run after which a `step` schedule multiplies by `lr_decay`.
    pub milestones: Vec<f64>,
    /// Factor at each milestone.
    pub lr_decay: f64,
    /// Epochs of linear warm-up; may be a fraction.
    pub warmup_epochs: f64,
    /// Share of a target that is spread over all classes.
    pub label_smoothing: f64,
    /// Relative error of sums in training, as of an array that computes them in memory; 0 for none.
    pub sum_noise: f64,
    /// Side of the square that is cut out of training images, in pixels; 0 for none.
    pub cutout: usize,
    /// Parameter of the distribution of the shares in which training images are mixed; 0 for none.
    pub mixup: f64,
    /// Checkpoint or run folder of a network to learn from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Divides the logits of both where the network is compared with its teacher.
    pub distill_temperature: f64,
    /// The teacher's share of the loss.
    pub distill_weight: f64,
    /// Decay of the moving average of all tensors that is evaluated in their place; 0 for none.
    pub ema_decay: f64,
    /// Batches from which batch norm's running statistics are estimated anew after every epoch; 0 for none.
    pub bn_reestimate: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Simulated accuracy every so many epochs besides the last; 0 for the last only.
    pub simulated_every: u32,
    /// First N training images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Training images that are held out to choose the best epoch by; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub holdout: usize,
    /// First N test images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,
    /// Whether the command also trains the float network beside it.
    pub compare_float: bool,
    /// What a pixel means to the network.
    pub input: InputScale,
    /// Random crop and flip of training images.
    pub augment: Augmentation,
    /// Learning rates and decays by pattern of tensor names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub param_groups: BTreeMap<String, GroupRates>,
    /// Exceptions by layer pattern.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Override>,
    /// A network of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_layer(scale: &Granularity) -> bool {
    *scale == Granularity::Layer
}

impl Recipe {
    /// Every key of a recipe, in the order of `config.toml`.
    pub const KEYS: [&str; 50] = [
        "name",
        "dataset",
        "arch",
        "bits",
        "act_quant",
        "weight_quant",
        "weight_grid",
        "weight_scale",
        "clip_scale",
        "first_last",
        "shortcut",
        "clip_init",
        "clip_lr",
        "clip_weight_decay",
        "epochs",
        "batch_size",
        "precision",
        "gradient_bits",
        "lr",
        "optimizer",
        "momentum",
        "nesterov",
        "betas",
        "eps",
        "max_grad_norm",
        "weight_decay",
        "no_weight_decay",
        "schedule",
        "milestones",
        "lr_decay",
        "warmup_epochs",
        "label_smoothing",
        "sum_noise",
        "cutout",
        "mixup",
        "teacher",
        "distill_temperature",
        "distill_weight",
        "ema_decay",
        "bn_reestimate",
        "seed",
        "simulated_every",
        "limit_train",
        "limit_test",
        "holdout",
        "compare_float",
        "input",
        "augment",
        "param_groups",
        "overrides",
    ];

    /// The recipe of the built-in name, or of the TOML file, `name`.
    ///
    /// # Errors
    /// Neither a built-in nor a readable file, or whatever [`Draft::finish`] finds.
    pub fn open(name: impl AsRef<Path>) -> Result<Self, RecipeError> {
        Draft::open(name)?.finish()
    }

    /// Checks the values of a recipe whose fields were set by hand as [`Draft::finish`] checks those of a file. One
    /// that changes nothing beside the others may stay, as the recipe of an older run may have it.
    ///
    /// # Errors
    /// The first value that its key cannot have.
    pub fn check(&self) -> Result<(), RecipeError> {
        let text = toml::to_string(self).map_err(|error| RecipeError::Syntax {
            origin: Origin::Default,
            message: format!("a recipe that cannot be written as TOML: {error}"),
        })?;
        Draft::parse(&text, "recipe")?.stored().finish().map(drop)
    }

    /// The recipe as TOML; reading it back gives an equal recipe.
    ///
    /// # Panics
    /// If a field set by hand has a value that TOML cannot hold; see [`Recipe::check`].
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe holds nothing that TOML cannot write")
    }

    /// The network for images of shape `input` and `classes` classes.
    ///
    /// # Errors
    /// A network of one's own made for other images or classes, or one that these images are too small for.
    pub fn network(&self, input: Shape, classes: usize) -> Result<Graph, RecipeError> {
        let misfit = |message| RecipeError::Network { arch: self.arch.clone(), dataset: self.dataset.clone(), message };
        if let Some(graph) = &self.graph {
            if graph.input() != input || graph.classes() != classes {
                let (has, is) = (graph.input(), graph.classes());
                return Err(misfit(format!(
                    "the network reads {has} and gives {is} classes, the data set has {input} and {classes} classes"
                )));
            }
            return Ok(graph.clone());
        }
        let built = zoo::build(&self.arch, input, classes).ok_or_else(|| misfit("no such network".to_owned()))?;
        built.map_err(|error| misfit(error.to_string()))
    }

    /// What the backward products read.
    pub fn gradients(&self) -> Gradients {
        match (self.gradient_bits, self.precision) {
            (Some(_), _) => Gradients::Int8,
            (None, Precision::Bf16) => Gradients::Bf16,
            (None, Precision::Fp32) => Gradients::Fp32,
        }
    }

    /// The recipe's words about bits, at the end of the run.
    pub fn quant_config(&self) -> QuantConfig {
        QuantConfig {
            bits: self.bits.last(),
            weight_quant: self.weight_quant,
            weight_grid: self.weight_grid,
            weight_scale: self.weight_scale,
            act_quant: self.act_quant,
            clip_scale: self.clip_scale,
            first_last: self.first_last,
            shortcut: self.shortcut,
            overrides: self.overrides.clone(),
        }
    }

    /// Bits of every layer of `graph` at the end of the run.
    ///
    /// # Errors
    /// See [`QuantPlan::resolve`].
    pub fn plan(&self, graph: &Graph) -> Result<QuantPlan, RecipeError> {
        self.plan_of(graph, self.bits.last())
    }

    /// Bits of every layer of `graph` where the recipe's are `bits`.
    pub(crate) fn plan_of(&self, graph: &Graph, bits: BitSpec) -> Result<QuantPlan, RecipeError> {
        QuantPlan::resolve(graph, &QuantConfig { bits, ..self.quant_config() }).map_err(RecipeError::Plan)
    }

    /// The optimizer's settings.
    pub fn optimizer_config(&self) -> OptimizerConfig {
        let positive = |value: f64| (value > 0.0).then_some(value);
        let group = |(pattern, rates): (&String, &GroupRates)| ParamGroup {
            pattern: pattern.clone(),
            lr_scale: rates.lr.map(|lr| (lr / self.lr) as f32),
            weight_decay: rates.weight_decay.map(|decay| decay as f32),
        };
        OptimizerConfig {
            kind: self.optimizer,
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
            betas: self.betas,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
            no_weight_decay: self.no_weight_decay.clone(),
            clip_lr_scale: (self.clip_lr / self.lr) as f32,
            clip_weight_decay: self.clip_weight_decay as f32,
            groups: self.param_groups.iter().map(group).collect(),
            max_grad_norm: positive(self.max_grad_norm),
            ema_decay: positive(self.ema_decay),
        }
    }

    /// What a pixel means, for each of `channels` channels; where the recipe tells fewer apart, its last for those
    /// beyond.
    pub fn input_description(&self, channels: usize) -> InputDescription {
        let InputScale { zero_point, scale } = &self.input;
        InputDescription {
            zero_point: (0..channels).map(|c| zero_point[c.min(zero_point.len() - 1)]).collect(),
            scale: (0..channels).map(|c| scale[c.min(scale.len() - 1)] as f32).collect(),
        }
    }

    /// The learning rate of every step.
    pub fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        Schedule {
            kind: self.schedule,
            lr: self.lr,
            total_steps: u64::from(self.epochs) * steps_per_epoch,
            warmup_steps: (self.warmup_epochs * steps_per_epoch as f64).round() as u64,
            milestones: self.milestones.clone(),
            lr_decay: self.lr_decay,
        }
    }

    /// The keys in which `other` says something else, each with what this recipe and `other` say.
    pub fn differences(&self, other: &Recipe) -> Vec<(String, String, String)> {
        let table = |recipe: &Recipe| toml::Table::try_from(recipe).expect("a recipe is TOML");
        let (own, others) = (table(self), table(other));
        let keys: std::collections::BTreeSet<&String> = own.keys().chain(others.keys()).collect();
        let says = |table: &toml::Table, key: &str| table.get(key).map_or("nothing".to_owned(), draft::short);
        keys.into_iter()
            .filter(|key| own.get(*key) != others.get(*key))
            .map(|key| (key.clone(), says(&own, key), says(&others, key)))
            .collect()
    }

    /// The same recipe for the network without quantizers, to compare with. Where the overrides and the rest of the
    /// quantization keys stand, they mean nothing to it.
    pub fn as_float(&self) -> Recipe {
        let mut float = self.clone();
        float.bits = BitSpec::Float.into();
        float.compare_float = false;
        float.overrides.clear();
        float
    }
}
