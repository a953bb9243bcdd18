//! What an optimizer is told.

use serde::{Deserialize, Serialize};

/// The rule of the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    #[default]
    Sgd,
    /// Adam with L2 decay (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).
    Adam,
    /// Adam with decoupled decay (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2).
    AdamW,
}

impl OptimizerKind {
    /// The names in recipes.
    pub const NAMES: [&str; 3] = ["sgd", "adam", "adamw"];
}

/// The settings of an optimizer; every rule is PyTorch's.
///
/// All gradients are first scaled by min(1, max_grad_norm / (|g| + 1e-6)), |g| being the Euclidean norm of all of them
/// together (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1). Then, for a tensor w with gradient g, learning rate lr
/// and decay l,
///
/// - `sgd`: d = g + l w; v = momentum v + d, the first v being d; w -= lr (d + momentum v with Nesterov, v without);
/// - `adam`, in update t = 1, 2, ...: d = g + l w; m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d^2;
///   w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps);
/// - `adamw`: w -= lr l w; the rest as `adam` with d = g.
///
/// Clip values and weight steps are then held at their smallest value or above.
///
/// With an average, update t then moves the average a of every tensor, running statistics and clip values too, by
/// a += (1 - D) (w - a) with D = min(ema_decay, (1 + t) / (10 + t)), so that the start is forgotten soon.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerConfig {
    /// Rule by which parameters move.
    pub kind: OptimizerKind,
    /// Momentum of SGD, in 0..1.
    pub momentum: f32,
    /// Nesterov's form of it.
    pub nesterov: bool,
    /// Decay rates b1 and b2 of Adam's means, in 0..1.
    pub betas: [f64; 2],
    /// Constant eps that Adam adds to the root, above 0.
    pub eps: f32,
    /// Decay of weights, biases and batch norms.
    pub weight_decay: f32,
    /// Patterns (`*` for any run) of tensor names that do not decay.
    pub no_weight_decay: Vec<String>,
    /// Learning rate of clip values, as a factor of the step's.
    pub clip_lr_scale: f32,
    /// Decay of clip values.
    pub clip_weight_decay: f32,
    /// Exceptions by pattern, over all of the above; where several match a tensor, the longest has the last word.
    pub groups: Vec<ParamGroup>,
    /// Largest norm of all gradients together; none where absent.
    pub max_grad_norm: Option<f64>,
    /// Decay of the exponential moving average of all tensors; none is kept where absent.
    pub ema_decay: Option<f64>,
}

/// Tensors with a learning rate or decay of their own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParamGroup {
    /// Names of tensors, such as `layer3.0.conv1.weight`; `*` for any run of characters.
    pub pattern: String,
    /// Learning rate, as a factor of the step's.
    pub lr_scale: Option<f32>,
    /// Weight decay of the group.
    pub weight_decay: Option<f32>,
}

impl Default for OptimizerConfig {
    /// SGD with momentum 0.9, no decay, clip values at the rate of the weights; Adam's usual constants.
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            momentum: 0.9,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            no_weight_decay: Vec::new(),
            clip_lr_scale: 1.0,
            clip_weight_decay: 0.0,
            groups: Vec::new(),
            max_grad_norm: None,
            ema_decay: None,
        }
    }
}

impl OptimizerConfig {
    /// Whether updates are counted: nothing but Adam and the average asks for their number.
    pub(crate) fn counts_steps(&self) -> bool {
        self.kind != OptimizerKind::Sgd || self.ema_decay.is_some()
    }
}
