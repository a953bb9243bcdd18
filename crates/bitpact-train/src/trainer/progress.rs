//! The trainer's own small numbers, exact through a checkpoint, so that a run stopped anywhere goes on as if it had
//! not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::records::WarningKind;
use crate::{LayerStatistics, StepOutcome};

/// Epochs of which the ends of the clip values are kept.
const ALPHA_HISTORY: usize = 4;

/// An f64 that goes through JSON bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub(super) struct Exact(pub(super) f64);

impl From<u64> for Exact {
    fn from(bits: u64) -> Self {
        Exact(f64::from_bits(bits))
    }
}

impl From<Exact> for u64 {
    fn from(exact: Exact) -> Self {
        exact.0.to_bits()
    }
}

/// What a checkpoint remembers beside tensors and step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Training images, to notice another set on resuming.
    pub(super) train_images: u64,
    /// Test images.
    pub(super) test_images: u64,
    /// Checksums of the training and the test images, to notice others of the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<[u32; 2]>,
    /// Changes of the number of epochs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) lengthened: Vec<Lengthening>,
    /// Epochs trained, evaluated and recorded.
    pub(super) epochs_done: u32,
    /// Test images the best epoch had right; of targets that are no classes, its first metric in the order of goodness.
    pub(super) best_hits: Option<u64>,
    /// Sums over the steps of the epoch under way.
    pub(super) sums: Sums,
    /// Clip values at the ends of the last epochs, oldest first.
    pub(super) alphas: BTreeMap<String, Vec<Exact>>,
    /// Checksum of the teacher, to notice another on resuming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) teacher: Option<u32>,
    /// Warnings given.
    pub(super) warned: BTreeSet<(WarningKind, String)>,
}

/// A change of the number of epochs of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lengthening {
    /// Steps that were done.
    pub(super) step: u64,
    /// Epochs the run was to have.
    pub(super) from: u32,
    /// Epochs it has from then on.
    pub(super) to: u32,
}

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sums {
    steps: u64,
    loss: Exact,
    correct: u64,
    layers: Vec<LayerSums>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerSums {
    name: String,
    alpha: Exact,
    alpha_gradient: Exact,
    clipped: Exact,
    zero: Exact,
    occupancy: Vec<Exact>,
    alpha_clamped: u64,
}

impl Sums {
    /// Adds one step and the statistics of that step alone.
    pub(super) fn add(&mut self, outcome: &StepOutcome, statistics: &[LayerStatistics]) {
        self.steps += 1;
        self.loss.0 += outcome.loss;
        self.correct += outcome.correct as u64;
        for (i, layer) in statistics.iter().enumerate() {
            if self.layers.len() <= i {
                self.layers.push(LayerSums::new(layer));
            }
            self.layers[i].add(layer);
        }
    }

    /// Mean loss of a step.
    pub(super) fn loss(&self) -> f64 {
        self.loss.0 / self.steps.max(1) as f64
    }

    /// Fraction of `images` that were right.
    pub(super) fn accuracy(&self, batch_size: usize) -> f64 {
        self.correct as f64 / (self.steps.max(1) * batch_size as u64) as f64
    }

    /// Means over the steps.
    pub(super) fn layers(&self) -> Vec<LayerStatistics> {
        let mean = |sum: Exact| sum.0 / self.steps.max(1) as f64;
        let record = |layer: &LayerSums| LayerStatistics {
            name: layer.name.clone(),
            alpha: layer.alpha.0 as f32,
            alpha_gradient: layer.alpha_gradient.0 as f32,
            clipped: rounded(mean(layer.clipped)),
            zero: rounded(mean(layer.zero)),
            occupancy: layer.occupancy.iter().map(|&level| rounded(mean(level))).collect(),
            alpha_clamped: layer.alpha_clamped,
        };
        self.layers.iter().map(record).collect()
    }
}

/// To a millionth: more digits of a fraction say nothing.
fn rounded(fraction: f64) -> f64 {
    (fraction * 1e6).round() / 1e6
}

impl LayerSums {
    fn new(layer: &LayerStatistics) -> Self {
        Self {
            name: layer.name.clone(),
            alpha: Exact::default(),
            alpha_gradient: Exact::default(),
            clipped: Exact::default(),
            zero: Exact::default(),
            occupancy: vec![Exact::default(); layer.occupancy.len()],
            alpha_clamped: 0,
        }
    }

    fn add(&mut self, layer: &LayerStatistics) {
        self.alpha.0 = f64::from(layer.alpha);
        self.alpha_gradient.0 = f64::from(layer.alpha_gradient);
        self.clipped.0 += layer.clipped;
        self.zero.0 += layer.zero;
        for (sum, level) in self.occupancy.iter_mut().zip(&layer.occupancy) {
            sum.0 += level;
        }
        self.alpha_clamped += layer.alpha_clamped;
    }
}

impl Progress {
    /// Remembers the clip values at the end of an epoch: those of the first and of the newest epochs.
    pub(super) fn remember_alphas(&mut self, layers: &[LayerStatistics]) {
        for layer in layers {
            let history = self.alphas.entry(layer.name.clone()).or_default();
            history.push(Exact(f64::from(layer.alpha)));
            if history.len() > ALPHA_HISTORY {
                history.remove(1);
            }
        }
    }

    /// Whether the clip value of `layer` has stayed within `tolerance`, relative, since the end of the first epoch.
    pub(super) fn alpha_still(&self, layer: &str, tolerance: f64) -> bool {
        let Some(history) = self.alphas.get(layer).filter(|h| h.len() == ALPHA_HISTORY) else { return false };
        let least = history.iter().fold(f64::INFINITY, |a, b| a.min(b.0));
        let most = history.iter().fold(0.0f64, |a, b| a.max(b.0));
        most <= least * (1.0 + tolerance)
    }

    /// Epochs after the first before a clip value can be called still.
    pub(super) const ALPHA_EPOCHS: usize = ALPHA_HISTORY - 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(clipped: f64) -> Vec<LayerStatistics> {
        vec![LayerStatistics {
            name: "act1".to_owned(),
            alpha: 1.1,
            alpha_gradient: -0.3,
            clipped,
            zero: 1.0 / 3.0,
            occupancy: vec![0.7, 0.1, 0.1, 0.1],
            alpha_clamped: 1,
        }]
    }

    #[test]
    fn sums_go_through_json_bit_for_bit() {
        let mut progress = Progress { best_hits: Some(3), ..Progress::default() };
        progress.warned.insert((WarningKind::Clipping, "act1".to_owned()));
        for i in 0..10 {
            let outcome = StepOutcome { loss: 1.0 / f64::from(i + 3), correct: 2 };
            progress.sums.add(&outcome, &statistics(0.1 / f64::from(i + 7)));
            progress.remember_alphas(&progress.sums.layers());
            let text = serde_json::to_string(&serde_json::to_value(&progress).unwrap()).unwrap();
            progress = serde_json::from_value(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(serde_json::to_string(&serde_json::to_value(&progress).unwrap()).unwrap(), text);
        }
        let loss: f64 = (0..10).map(|i| 1.0 / f64::from(i + 3)).sum::<f64>() / 10.0;
        assert_eq!(progress.sums.loss(), loss);
        assert_eq!(progress.sums.accuracy(4), 0.5);
        let layer = &progress.sums.layers()[0];
        assert_eq!((layer.alpha, layer.alpha_gradient, layer.alpha_clamped), (1.1, -0.3, 10));
        assert_eq!((layer.zero, layer.occupancy.as_slice()), (0.333333, &[0.7, 0.1, 0.1, 0.1][..]));
    }

    #[test]
    fn a_clip_value_is_still_where_it_never_moved() {
        let mut progress = Progress::default();
        let mut end = |alpha: f32| {
            let mut layer = Sums::default();
            layer.add(&StepOutcome { loss: 0.0, correct: 0 }, &statistics(0.0));
            let mut layers = layer.layers();
            layers[0].alpha = alpha;
            progress.remember_alphas(&layers);
            progress.alpha_still("act1", 0.01)
        };
        let still: Vec<bool> = [1.0, 1.001, 1.002, 1.0, 1.009, 1.02, 1.02, 1.02, 1.02].map(&mut end).to_vec();
        assert_eq!(still, [false, false, false, true, true, false, false, false, false], "it moved, and may rest");
    }
}
