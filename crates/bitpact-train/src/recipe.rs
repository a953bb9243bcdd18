//! What to train and how, as one flat TOML file: every key a field, every field checked, flags over files.
//!
//! A [`Draft`] is a recipe that may still change: built-in text or a file, with flags set on top of it.
//! [`Draft::finish`] checks every value once and gives a [`Recipe`], whose [`Recipe::to_toml`] is the `config.toml` of
//! a run.

mod bits;
mod builtin;
mod check;
mod draft;
mod effect;
mod error;
mod key;
mod keys;
mod resolve;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

use bitpact_data::{ColorJitter, Dataset, own};
use bitpact_graph::{BitSpec, Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::InputDescription;

use crate::schedule::Schedule;
use crate::{Gradients, OptimizerConfig, ParamGroup};

pub use bits::BitSchedule;
pub use builtin::{BUILTIN_NAMES, builtin_for_dataset, builtin_text};
pub(crate) use draft::read_text;
pub use draft::{Draft, Origin};
pub use error::{RecipeError, nearest};
pub use key::Key;
pub use keys::Recipe;
pub use resolve::read_network;
pub(crate) use values::text_to_path;
pub use values::{Augmentation, ClipInit, Crop, GroupRates, InputScale, Precision, path_to_text};

impl Recipe {
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

    /// Scale and zero point of pixels for each of `channels` channels; where the recipe has fewer, its last for those
    /// beyond.
    pub fn input_description(&self, channels: usize) -> InputDescription {
        let InputScale { bits, zero_point, scale } = &self.input;
        InputDescription {
            bits: *bits,
            zero_point: (0..channels).map(|c| zero_point[c.min(zero_point.len() - 1)]).collect(),
            scale: (0..channels).map(|c| scale[c.min(scale.len() - 1)] as f32).collect(),
        }
    }

    /// Makes `input`, where it says what pixels mean and `images` have codes of 16 bits, say it of those codes: code
    /// 257 p means what pixel p means. Gives a warning where they reach a small part of the 16 bits, so that they are
    /// hardly such pixels.
    pub fn fit_input(&mut self, images: &dyn Dataset) -> Option<String> {
        if images.code_bits() == self.input.bits || self.input.bits != 8 {
            return None;
        }
        self.input = self.input.widened();
        let mut bytes = vec![0; images.bytes_shape().len()];
        let largest = (0..images.len()).map(|index| {
            images.image(index, &mut bytes);
            bytes.chunks_exact(2).map(|code| u16::from_le_bytes([code[0], code[1]])).max().unwrap_or(0)
        });
        let reach = largest.max().unwrap_or(0);
        (reach < 1 << 14).then(|| {
            format!(
                "the training images have codes of 16 bits that reach {reach} of 65535: where they are no pixels, say what \
                 a code means, such as input = {{ bits = 16, zero_point = {}, scale = {:.1e} }}",
                reach / 2,
                4.0 / f64::from(reach.max(1))
            )
        })
    }

    /// How one's own data are read for this recipe.
    pub fn own_options(&self) -> own::Options {
        own::Options {
            task: self.task,
            crop: self.crop.map(|Crop(sides)| sides),
            resize: self.resize,
            random_crop: self.random_crop,
            channels: self.channels,
            upscale: self.upscale,
            test_share: self.test_share,
            fold: self.fold.unwrap_or(0),
            ..own::Options::default()
        }
    }

    /// How the colours of training images move.
    pub fn jitter(&self) -> ColorJitter {
        let [brightness, contrast, saturation, hue] = self.color_jitter.unwrap_or_default().map(|reach| reach as f32);
        ColorJitter { brightness, contrast, saturation, hue }
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

    /// The keys for which a run of this recipe cannot go on as `other`, each with what both say: all that differ but
    /// the number of epochs and where the teacher lies.
    pub fn clashes(&self, other: &Recipe) -> Vec<(String, String, String)> {
        let mut differences = self.differences(other);
        differences.retain(|(key, ..)| !["epochs", "teacher"].contains(&key.as_str()));
        differences
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
