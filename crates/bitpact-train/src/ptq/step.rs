//! The steps of post-training quantization by name.

use std::fmt;
use std::str::FromStr;

use bitpact_ptq::Calibrate;

/// One step. Without any, clip values and weight scales are those of the largest values, and weights are rounded to the
/// nearest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Clip values that are chosen by a [`ClipRule`].
    Clip,
    /// Weight steps with the least squared error of the outputs of each channel.
    Weights,
    /// Cross-layer equalization, where it is exact.
    Equalize,
    /// GPTQ's rounding of weights, on the inputs that the quantized layers before give.
    Gptq,
    /// Means of sums moved to those of the float network.
    Bias,
    /// Low-rank adapters of convolutions (CoRa).
    Cora,
}

impl Step {
    /// Every step, in the order in which they are added.
    pub const ALL: [Step; 6] = [Step::Clip, Step::Weights, Step::Equalize, Step::Gptq, Step::Bias, Step::Cora];

    /// The name that `--steps` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Clip => "clip",
            Step::Weights => "weights",
            Step::Equalize => "equalize",
            Step::Gptq => "gptq",
            Step::Bias => "bias",
            Step::Cora => "cora",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which steps are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// [`Step::Clip`].
    pub clip: bool,
    /// [`Step::Weights`].
    pub weights: bool,
    /// [`Step::Equalize`].
    pub equalize: bool,
    /// [`Step::Gptq`].
    pub gptq: bool,
    /// [`Step::Bias`].
    pub bias: bool,
    /// [`Step::Cora`].
    pub cora: bool,
}

impl Default for Steps {
    /// All but adapters, which make the network larger.
    fn default() -> Self {
        Steps::of(&Step::ALL[..5])
    }
}

impl Steps {
    /// These steps.
    pub fn of(steps: &[Step]) -> Self {
        let has = |step: Step| steps.contains(&step);
        Self {
            clip: has(Step::Clip),
            weights: has(Step::Weights),
            equalize: has(Step::Equalize),
            gptq: has(Step::Gptq),
            bias: has(Step::Bias),
            cora: has(Step::Cora),
        }
    }

    /// The steps in their order.
    pub fn list(&self) -> Vec<Step> {
        let has = |step: &Step| match step {
            Step::Clip => self.clip,
            Step::Weights => self.weights,
            Step::Equalize => self.equalize,
            Step::Gptq => self.gptq,
            Step::Bias => self.bias,
            Step::Cora => self.cora,
        };
        Step::ALL.into_iter().filter(has).collect()
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.list()[..] {
            [] => f.pad("none"),
            steps => f.pad(&steps.iter().map(|step| step.name()).collect::<Vec<_>>().join(",")),
        }
    }
}

impl FromStr for Steps {
    type Err = String;

    /// Names with commas between them, `none` or `all`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Steps::of(&[])),
            "all" => return Ok(Steps::of(&Step::ALL)),
            _ => {}
        }
        let one = |name: &str| Step::ALL.into_iter().find(|step| step.name() == name.trim());
        let expected = Step::ALL.map(Step::name).join(", ");
        let parsed = text.split(',').map(|name| one(name).ok_or_else(|| format!("`{name}`: expected {expected}")));
        Ok(Steps::of(&parsed.collect::<Result<Vec<_>, _>>()?))
    }
}

/// How clip values are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClipRule {
    /// By the one of [`ClipRule::CANDIDATES`] whose quantized network has outputs nearest to the float one's.
    Auto,
    /// By this rule.
    Rule(Calibrate),
}

impl ClipRule {
    /// Rules that are tried; the first of equal ones is taken.
    pub const CANDIDATES: [Calibrate; 6] = [
        Calibrate::Mse,
        Calibrate::Entropy,
        Calibrate::Percentile(99.9),
        Calibrate::Percentile(99.99),
        Calibrate::Percentile(99.999),
        Calibrate::Largest,
    ];
}

impl fmt::Display for ClipRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClipRule::Auto => f.pad("auto"),
            ClipRule::Rule(rule) => rule.fmt(f),
        }
    }
}

impl FromStr for ClipRule {
    type Err = String;

    /// `auto`, `percentile` (of 99.9 percent), or a [`Calibrate`].
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(ClipRule::Auto),
            "percentile" => Ok(ClipRule::Rule(Calibrate::Percentile(99.9))),
            rule => rule.parse().map(ClipRule::Rule).map_err(|_| {
                format!("`{text}`: expected auto, mse, entropy, largest, percentile, or a percentile such as 99.99")
            }),
        }
    }
}
