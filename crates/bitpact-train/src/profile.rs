//! What a backend tells of the time of its steps, where it can.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bitpact_kernels::peak::Number;

/// Part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Pass {
    /// Fetches, augments and places the batch's images.
    Images,
    /// Folds, quantizes and packs weights.
    Weights,
    /// Codes or pixels become the numbers that a float product reads.
    Widen,
    /// Forward product.
    Product,
    /// Sums of the accumulators for batch norm.
    Statistics,
    /// Normalization, residual, clip and rounding.
    Apply,
    /// Pools, concatenations and dropout, forward and backward.
    Pooling,
    /// Cross entropy and its gradient.
    Loss,
    /// Masks the gradient and sums it.
    Reduce,
    /// Per-channel coefficients from the sums of all images.
    Coefficients,
    /// Gradient of the shortcut's tensor.
    Shortcut,
    /// Gradient of the accumulators.
    AccumulatorGradient,
    /// Product with the weights: the gradient of the input.
    InputGradient,
    /// Product with the input: the gradient of the weights.
    WeightGradient,
    /// Clears and adds up the weight gradients of chunks of images.
    PartialSums,
    /// Backward of the weight quantizers.
    WeightQuantizer,
    /// Update of parameters, running statistics and running maxima.
    Optimizer,
}

impl Pass {
    /// Every pass, about in the order of a step.
    pub const ALL: [Pass; 17] = [
        Pass::Images,
        Pass::Weights,
        Pass::Widen,
        Pass::Product,
        Pass::Statistics,
        Pass::Apply,
        Pass::Pooling,
        Pass::Loss,
        Pass::Reduce,
        Pass::Coefficients,
        Pass::Shortcut,
        Pass::AccumulatorGradient,
        Pass::InputGradient,
        Pass::WeightGradient,
        Pass::PartialSums,
        Pass::WeightQuantizer,
        Pass::Optimizer,
    ];

    /// Name of the pass in tables.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Images => "images",
            Pass::Weights => "quantize and pack weights",
            Pass::Widen => "widen codes",
            Pass::Product => "forward product",
            Pass::Statistics => "statistics",
            Pass::Apply => "norm, clip and round",
            Pass::Pooling => "pools",
            Pass::Loss => "loss",
            Pass::Reduce => "mask and sum gradient",
            Pass::Coefficients => "coefficients",
            Pass::Shortcut => "shortcut gradient",
            Pass::AccumulatorGradient => "norm gradient",
            Pass::InputGradient => "input gradient",
            Pass::WeightGradient => "weight gradient",
            Pass::PartialSums => "add partial sums",
            Pass::WeightQuantizer => "weight quantizer gradient",
            Pass::Optimizer => "optimizer",
        }
    }

    /// Tells whether the pass is one of the three products of a layer.
    pub fn is_product(self) -> bool {
        matches!(self, Pass::Product | Pass::InputGradient | Pass::WeightGradient)
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A product of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Name of the layer.
    pub layer: String,
    /// The product of the layer: forward, gradient of the input or of the weights.
    pub pass: Pass,
    /// Number format of the factors.
    pub number: Number,
    /// Multiply-adds of the batch.
    pub macs: u64,
}

/// Time of all workers, summed over the steps of a profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepTimes {
    /// Number of steps.
    pub steps: u64,
    /// Time of the passes on the clock.
    pub wall: Duration,
    /// Time by layer (empty where a pass has none) and pass, all workers together.
    pub passes: BTreeMap<(String, Pass), Duration>,
    /// Time in which workers had nothing to do, all together, by the layer and the pass that was under way.
    pub waits: BTreeMap<(String, Pass), Duration>,
    /// Time in which each worker did something, the rest being waits; worker 0 is the thread that calls the step.
    pub busy: Vec<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_numbered_as_they_are_listed() {
        for (i, pass) in Pass::ALL.into_iter().enumerate() {
            assert_eq!(pass as usize, i);
        }
    }
}
