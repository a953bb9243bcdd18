//! The seam between the training loop and the machine that does the arithmetic.
//!
//! It is coarse on purpose: whole steps over whole batches, parameters as named tensors. A GPU engine can stand
//! beside the CPU plan without the loop, the recipes or the checkpoints knowing.

use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::{QuantPlan, Shape};
use bitpact_model::Tensor;
use serde::{Deserialize, Serialize};

use crate::loss::Targets;
use crate::profile::{StepTimes, Work};

/// One image in this many is counted for level occupancy.
pub(crate) const SAMPLED: usize = 16;

/// Momentum of clip values that follow the running maximum (`relu` with bits).
pub(crate) const MAXIMUM_MOMENTUM: f32 = 0.1;

/// Values looked at for one percentile, at the most.
pub(crate) const CALIBRATION_VALUES: usize = 1 << 22;

/// The mean of numbers, summed in float64 in their order; 0 of none.
pub(crate) fn mean(all: &[f32]) -> f32 {
    (all.iter().map(|&x| f64::from(x)).sum::<f64>() / all.len().max(1) as f64) as f32
}

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The graph cannot be fused into layers.
    #[error(transparent)]
    Graph(#[from] bitpact_graph::GraphError),
    /// The plan does not fit the graph.
    #[error(transparent)]
    Plan(#[from] bitpact_graph::PlanError),
    /// The network needs something training cannot do.
    #[error("node `{node}`: {what}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// The thing that is missing, in words.
        what: String,
    },
    /// A tensor to load is missing or has another shape.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// The fault that was found, in words.
        what: String,
    },
    /// The loss is no longer a number.
    #[error("step {step}: the loss is {loss}; lower the learning rate or start from smaller clip values")]
    NotFinite {
        /// Step since the start of training.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A batch norm's statistics or a gradient that float32 cannot hold.
    #[error(
        "step {step}: {what} is beyond float32: values or gradients grow from layer to layer; lower lr, bound the gradients \
         (max_grad_norm), or give the network fewer layers or shortcuts"
    )]
    Overflow {
        /// Step since the start of training.
        step: u64,
        /// The value that cannot be held, with the name of its tensor.
        what: String,
    },
    /// This CPU lacks the instruction set that was asked for.
    #[error("this CPU has no {isa}; it has {available}")]
    Isa {
        /// The value that was asked for.
        isa: String,
        /// Instruction sets that the CPU has.
        available: String,
    },
}

/// What the backward products of quantized layers read: the gradient of their accumulators, as it is or rounded.
///
/// Codes are exact in all three. In a quantized network layers that do not read codes, and layers with groups, stay in
/// float32, rounded to bfloat16 first where it is not `Fp32`. In a network without quantizers `Bf16` rounds what both
/// factors of every product are, in the forward of training too; evaluation stays in float32, and `Int8` changes
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gradients {
    /// Gradients in float32.
    #[default]
    Fp32,
    /// Gradients in bfloat16, rounded half to even, with sums in float32.
    Bf16,
    /// 8-bit integers of one power-of-two unit a layer and step, rounded at random without bias (the idea of DoReFa's
    /// gradient quantizer, arXiv 1606.06160, eq. 12); sums exact.
    Int8,
}

/// Writes image `i` of a batch to its place in the buffer of one image and returns its label. What the image does not
/// cover holds what the backend needs there and is left alone.
pub type Fill<'a> = &'a (dyn Fn(usize, &mut [u8], Placement) -> usize + Sync);

/// Everything that one training step reads.
pub struct StepInput<'a> {
    /// Learning rate of this step.
    pub lr: f32,
    /// The batch.
    pub fill: Fill<'a>,
    /// Random numbers of this step and no other: what dropout and deviations of cells draw from.
    pub key: Key,
    /// Deviation of the cells of an array that computes sums in memory, in counts; 0 for none. Every weight of w bits,
    /// but for layers that read the image or give the logits, is off in this step by a normal number of standard
    /// deviation `sum_noise * sqrt((4^w - 1) / 3)` of its codes, as w cells that count 1, 2, 4 .. are; batch norms
    /// normalize by their running statistics, which stay, and gradients are those without deviations.
    pub sum_noise: f32,
    /// What the loss compares the logits with beside the labels.
    pub loss: LossInput<'a>,
}

impl Default for StepInput<'_> {
    /// Black images of class 0, and nothing learned from them.
    fn default() -> Self {
        Self { lr: 0.0, fill: &|_, _, _| 0, key: Key::new(0), sum_noise: 0.0, loss: LossInput::default() }
    }
}

/// The loss of a step, for logits z of K classes and image i, of n, with label y.
///
/// The target is the distribution q(c) = (1 - label_smoothing) o(c) + label_smoothing / K (Szegedy et al. 2016,
/// arXiv 1512.00567, section 7; PyTorch's `label_smoothing`) with o(c) = [c = y], or with mixup (Zhang et al. 2018,
/// arXiv 1710.09412, eq. 1) o(c) = r [c = y] + (1 - r) [c = label of image n - 1 - i], and the loss its cross entropy,
/// -sum q(c) log softmax(z)(c).
///
/// With a teacher the loss is (1 - weight) times that and weight times T^2 KL(softmax(t / T) || softmax(z / T)) for the
/// teacher's logits t (Hinton et al. 2015, arXiv 1503.02531, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossInput<'a> {
    /// Share of the target that is spread evenly over all classes, in 0..1.
    pub label_smoothing: f32,
    /// Share r in 256ths that is left of an image, the rest being the image as far from the batch's end. [`Fill`] mixes
    /// the pixels.
    pub mixup: Option<u16>,
    /// A network to learn from.
    pub teacher: Option<TeacherInput<'a>>,
    /// Targets of a task other than classification; they replace every field above but the teacher.
    pub targets: Option<Targets<'a>>,
}

/// What a teacher says about a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TeacherInput<'a> {
    /// Logits of the teacher, `[batch][classes]`, or its outputs, `[batch][row][column][channel]`.
    pub logits: &'a [f32],
    /// T, above 0: divides the logits of both.
    pub temperature: f32,
    /// Share of the teacher in the loss, in 0..=1.
    pub weight: f32,
}

/// What an optimizer keeps from step to step beside the parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Updates since it began, where Adam or an average counts them; else 0.
    pub steps: u64,
    /// Momentum, of Adam the first moment, of every parameter that is trained, by the parameter's name.
    pub momentum: BTreeMap<String, Tensor>,
    /// Adam's second moment; empty for SGD.
    pub second_moment: BTreeMap<String, Tensor>,
    /// Exponential moving average of every tensor, running statistics included, where there is one.
    pub average: Option<BTreeMap<String, Tensor>>,
}

/// Loss and counts that one training step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// Images whose largest logit was their label's, before the update.
    pub correct: usize,
}

/// How one activation stands, since the last reset; a line of the records holds one per activation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerStatistics {
    /// Name of the activation.
    pub name: String,
    /// Clip value of the activation; where channels have their own, the largest, which sets the scale.
    pub alpha: f32,
    /// Gradient of the loss with respect to alpha in the last step, decay excluded; of channels with their own, the
    /// sum.
    pub alpha_gradient: f32,
    /// Fraction of values at or above alpha since the last reset.
    pub clipped: f64,
    /// Fraction of codes that are zero.
    pub zero: f64,
    /// Fraction of codes on each of the 2^bits levels, counted in one chunk of images of sixteen.
    pub occupancy: Vec<f64>,
    /// Steps in which alpha was held at its smallest value.
    pub alpha_clamped: u64,
}

/// A machine that trains one network with a fixed batch size.
pub trait TrainBackend {
    /// Images in a training batch.
    fn batch_size(&self) -> usize;

    /// Shape of the images that [`Fill`] writes.
    fn input_shape(&self) -> Shape;

    /// Sets every clip value to the given percentile (0..100) of its inputs over one batch, layer by layer from the
    /// image on, each layer seeing the already calibrated ones before it. Returns the values by tensor name.
    ///
    /// # Errors
    /// A network that gives values that are not numbers.
    fn calibrate(&mut self, percentile: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError>;

    /// Forward, backward and update on one batch.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] and [`TrainError::Overflow`], with the parameters as before the step.
    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError>;

    /// Outputs of up to a batch of images in the simulated view: codes and clips with real scales and running
    /// statistics. `logits` holds `[images][classes]` after, or outputs of many positions, HWC.
    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>);

    /// Replaces `all` by the statistics of every activation since the last reset, in the memory that `all` has.
    fn write_statistics(&self, all: &mut Vec<LayerStatistics>);

    /// Statistics of every activation since the last reset.
    fn statistics(&self) -> Vec<LayerStatistics> {
        let mut all = Vec::new();
        self.write_statistics(&mut all);
        all
    }

    /// Starts the counts of [`TrainBackend::statistics`] anew.
    fn reset_statistics(&mut self);

    /// Every parameter and running statistic by name, in PyTorch's shapes.
    fn tensors(&self) -> BTreeMap<String, Tensor>;

    /// The values of a trained parameter, to be changed, with its gradient in the last step; `None` for another name.
    fn parameter_mut(&mut self, name: &str) -> Option<(&mut [f32], &[f32])>;

    /// State that the optimizer keeps beside the parameters.
    fn optimizer_state(&self) -> OptimizerState;

    /// Replaces parameters, statistics and the optimizer's state; where that is `None`, it begins anew, an average from
    /// `tensors`.
    ///
    /// # Errors
    /// Names the tensor that is missing or has another shape.
    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError>;

    /// Plans anew for other bits. All tensors are zero until [`TrainBackend::load`].
    ///
    /// # Errors
    /// A plan that does not fit the network or cannot be trained; then nothing has changed.
    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError>;

    /// Exchanges every tensor for its average, so that the average can be read and evaluated; called again, it puts
    /// them back. Nothing happens where there is no average. No step may come in between.
    fn swap_average(&mut self);

    /// Forward on one batch, dropout off, to estimate the running statistics anew: after call `batch` (0, 1, ...) each
    /// is the mean of those of the batches 0 to `batch`, variances unbiased (PyTorch's `momentum=None`).
    fn reestimate(&mut self, batch: u64, fill: Fill);

    /// Starts to measure where the time of steps goes, or stops it and forgets what was measured; nothing where a
    /// backend cannot tell.
    fn set_profile(&mut self, _on: bool) {}

    /// Times measured since [`TrainBackend::set_profile`]; `None` where no profile runs.
    fn profile(&self) -> Option<StepTimes> {
        None
    }

    /// The multiply-adds of every product of a step, where a backend counts them.
    fn work(&self) -> Vec<Work> {
        Vec::new()
    }
}

/// The calls of [`TrainBackend`] that a backend passes on unchanged to the one in its field `$inner`.
macro_rules! pass_on {
    ($inner:ident) => {
        fn batch_size(&self) -> usize {
            self.$inner.batch_size()
        }

        fn input_shape(&self) -> bitpact_graph::Shape {
            self.$inner.input_shape()
        }

        fn reset_statistics(&mut self) {
            self.$inner.reset_statistics();
        }

        fn parameter_mut(&mut self, name: &str) -> Option<(&mut [f32], &[f32])> {
            self.$inner.parameter_mut(name)
        }

        fn optimizer_state(&self) -> $crate::OptimizerState {
            self.$inner.optimizer_state()
        }

        fn swap_average(&mut self) {
            self.$inner.swap_average();
        }

        fn set_profile(&mut self, on: bool) {
            self.$inner.set_profile(on);
        }

        fn profile(&self) -> Option<$crate::StepTimes> {
            self.$inner.profile()
        }

        fn work(&self) -> Vec<$crate::Work> {
            self.$inner.work()
        }
    };
}
pub(crate) use pass_on;
