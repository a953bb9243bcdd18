//! What a run writes down: one JSON object a line, an epoch or a warning.

use serde::{Deserialize, Serialize};

use crate::LayerStatistics;
use crate::metric::Metric;

/// One line of `records.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // A run has some hundreds of them.
pub enum Record {
    /// An epoch was trained and evaluated.
    Epoch(EpochRecord),
    /// Something looks wrong.
    Warning(WarningRecord),
}

impl Record {
    /// Optimizer steps done when the line was written.
    pub fn step(&self) -> u64 {
        match self {
            Record::Epoch(record) => record.step,
            Record::Warning(record) => record.step,
        }
    }
}

/// One epoch. Fractions are in 0..=1; `None` stands for what was not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs done, from 1.
    pub epoch: u32,
    /// Bits of weights and activations, in a run in which they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
    /// Optimizer steps done.
    pub step: u64,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Mean loss over the epoch's batches, each before its update.
    pub loss: f64,
    /// Fraction of the epoch's (augmented) training images that were right, each before its update.
    pub train_top1: f64,
    /// Accuracy of the integer network on the test set; none for a float network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integer_top1: Option<f64>,
    /// Share of images whose label is among the five largest logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integer_top5: Option<f64>,
    /// Accuracy of the simulated (for a float network, the only) view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_top1: Option<f64>,
    /// Share of images whose label is among the five largest logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_top5: Option<f64>,
    /// Accuracy on the held-out training images, of the integer network where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_top1: Option<f64>,
    /// Metrics of the integer network where targets are no classes, the one that counts first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub integer: Vec<Metric>,
    /// Metrics of the simulated network, or, for a float network, of the network itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub simulated: Vec<Metric>,
    /// Metrics on the held-out training images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdout: Vec<Metric>,
    /// Test images evaluated.
    pub test_images: usize,
    /// Test images a second, integer where there is an integer network.
    pub test_images_per_s: f64,
    /// Training images a second.
    pub images_per_s: f64,
    /// Seconds of training in this epoch, since the last resume.
    pub seconds: f64,
    /// Largest distance that conversion proved of any layer's integers from its real sum before rounding, in output
    /// codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversion_worst_error: Option<f64>,
    /// Every activation: means over the epoch's steps, alpha and its gradient of the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerStatistics>,
    /// Every convolution and linear layer with weights of 1 to 8 bits, from the second epoch on after the run began or
    /// went on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<WeightStatistics>,
}

/// How the weight codes of one layer moved, from one epoch's integer network to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightStatistics {
    /// Name of the layer.
    pub name: String,
    /// Fraction of the codes that differ from those of the epoch before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<f64>,
    /// Fraction of the codes that moved in each of the last two epochs, in opposite directions: the oscillation of
    /// Nagel et al. 2022 (arXiv 2203.08452, section 3), seen once an epoch and not after every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oscillating: Option<f64>,
}

impl EpochRecord {
    /// The accuracy that counts: the integer network's, or the float network's where there is no other.
    pub fn top1(&self) -> f64 {
        self.integer_top1.or(self.simulated_top1).unwrap_or(0.0)
    }

    /// Metrics that count where targets are no classes: the integer network's, or the float network's.
    pub fn metrics(&self) -> &[Metric] {
        if self.integer.is_empty() { &self.simulated } else { &self.integer }
    }

    /// Share of images whose label is among the five largest logits.
    pub fn top5(&self) -> f64 {
        self.integer_top5.or(self.simulated_top5).unwrap_or(0.0)
    }
}

/// The kinds of warnings, by what each is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// A clip value hardly moves.
    AlphaStill,
    /// A layer clips a large part of its values.
    Clipping,
    /// A clip value was held at its smallest value.
    AlphaMin,
    /// A layer gives almost nothing but zeros.
    Dead,
    /// The loss is far above that of guessing.
    Diverged,
    /// The accuracy in training is far above the evaluated one, of the same images too.
    Gap,
    /// The accuracy in training is far above the evaluated one, but not of the same images.
    Overfit,
}

/// A warning about one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WarningRecord {
    /// Epochs done, from 1.
    pub epoch: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Kind of the warning, by what it is about.
    pub warning: WarningKind,
    /// Name of the activation; empty where it is about the epoch.
    pub layer: String,
    /// Text of the warning for people.
    pub message: String,
}
