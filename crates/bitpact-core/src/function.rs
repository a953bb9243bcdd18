//! Functions of one number that integer networks read from tables.

use serde::{Deserialize, Serialize};

/// A function that is applied element by element. Integer networks hold the codes that it gives for the codes that it
/// may read, so its numbers are those of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case", deny_unknown_fields)]
pub enum Function {
    /// `x` where positive, else `slope * x`, with a trained slope for each channel (He et al. 2015, arXiv 1502.01852).
    Prelu,
    /// `x` where positive, else `slope * x`.
    LeakyRelu {
        /// Slope of the negative side.
        #[serde(default = "leaky")]
        slope: f64,
    },
    /// `min(max(x, 0), limit)`; with the limit 6, ReLU6.
    ClippedRelu {
        /// Largest value.
        #[serde(default = "six")]
        limit: f64,
    },
    /// `x` where positive, else `scale * (exp(x) - 1)` (Clevert et al. 2015, arXiv 1511.07289).
    Elu {
        /// Minus the limit at minus infinity.
        #[serde(default = "unit")]
        scale: f64,
    },
    /// `x * hard_sigmoid(x)` (Howard et al. 2019, arXiv 1905.02244).
    HardSwish,
    /// `min(max(x / 6 + 1/2, 0), 1)`, PyTorch's.
    HardSigmoid,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    Gelu,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
}

fn leaky() -> f64 {
    0.01
}

fn unit() -> f64 {
    1.0
}

fn six() -> f64 {
    6.0
}

impl Function {
    /// The function's name as it stands in files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Function::Prelu => "prelu",
            Function::LeakyRelu { .. } => "leaky_relu",
            Function::ClippedRelu { .. } => "clipped_relu",
            Function::Elu { .. } => "elu",
            Function::HardSwish => "hard_swish",
            Function::HardSigmoid => "hard_sigmoid",
            Function::Sigmoid => "sigmoid",
            Function::Tanh => "tanh",
            Function::Gelu => "gelu",
            Function::Silu => "silu",
        }
    }

    /// The parameter of the function, where it has one in its definition, with its name.
    pub const fn parameter(self) -> Option<(&'static str, f64)> {
        match self {
            Function::LeakyRelu { slope } => Some(("slope", slope)),
            Function::ClippedRelu { limit } => Some(("limit", limit)),
            Function::Elu { scale } => Some(("scale", scale)),
            _ => None,
        }
    }

    /// Tells whether the function has a trained slope for each channel.
    pub const fn is_learned(self) -> bool {
        matches!(self, Function::Prelu)
    }

    /// The function at `x`, computed in float64 and rounded once; `slope` is that of the channel where it
    /// [is learned](Self::is_learned), and is not read elsewhere. The bits are the same on every machine.
    pub fn value(self, x: f32, slope: f32) -> f32 {
        let x = f64::from(x);
        let y = match self {
            Function::Prelu => bent(x, f64::from(slope)),
            Function::LeakyRelu { slope } => bent(x, slope),
            Function::ClippedRelu { limit } => x.max(0.0).min(limit),
            Function::Elu { scale } => {
                if x > 0.0 {
                    x
                } else {
                    scale * libm::expm1(x)
                }
            }
            Function::HardSwish => x * hard_sigmoid(x),
            Function::HardSigmoid => hard_sigmoid(x),
            Function::Sigmoid => sigmoid(x),
            Function::Tanh => libm::tanh(x),
            Function::Gelu => x * gauss(x),
            Function::Silu => x * sigmoid(x),
        };
        y as f32
    }

    /// The derivative at `x`; where there are two, that of the left side, of [`Function::HardSwish`],
    /// [`Function::HardSigmoid`] and [`Function::ClippedRelu`] 0 and 1 at their ends as in PyTorch.
    pub fn derivative(self, x: f32, slope: f32) -> f32 {
        let x = f64::from(x);
        let bent = |slope: f64| if x > 0.0 { 1.0 } else { slope };
        let y = match self {
            Function::Prelu => bent(f64::from(slope)),
            Function::LeakyRelu { slope } => bent(slope),
            Function::ClippedRelu { limit } => f64::from(u8::from(x > 0.0 && x < limit)),
            Function::Elu { scale } => bent(scale * libm::exp(x.min(0.0))),
            Function::HardSwish if x <= -3.0 => 0.0,
            Function::HardSwish if x >= 3.0 => 1.0,
            Function::HardSwish => x / 3.0 + 0.5,
            Function::HardSigmoid => {
                if x > -3.0 && x < 3.0 {
                    1.0 / 6.0
                } else {
                    0.0
                }
            }
            Function::Sigmoid => sigmoid(x) * sigmoid(-x),
            Function::Tanh => 1.0 - libm::tanh(x).powi(2),
            Function::Gelu => {
                let density = libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt();
                gauss(x) + x * density
            }
            Function::Silu => sigmoid(x) * (1.0 + x * sigmoid(-x)),
        };
        y as f32
    }
}

/// `x` where positive, else `slope * x`.
fn bent(x: f64, slope: f64) -> f64 {
    if x > 0.0 { x } else { slope * x }
}

fn hard_sigmoid(x: f64) -> f64 {
    ((x + 3.0) / 6.0).clamp(0.0, 1.0)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// Share of the normal distribution below `x`.
fn gauss(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Function; 10] = [
        Function::Prelu,
        Function::LeakyRelu { slope: 0.1 },
        Function::ClippedRelu { limit: 3.0 },
        Function::Elu { scale: 1.5 },
        Function::HardSwish,
        Function::HardSigmoid,
        Function::Sigmoid,
        Function::Tanh,
        Function::Gelu,
        Function::Silu,
    ];

    /// PyTorch 2.12 (`torch.nn.functional`, float64) at -4, -1.5, -0.25, 0, 0.5, 2 and 5.
    #[test]
    fn values_are_those_of_pytorch() {
        let at = [-4.0f32, -1.5, -0.25, 0.0, 0.5, 2.0, 5.0];
        let known: [(Function, [f64; 7]); 7] = [
            (Function::LeakyRelu { slope: 0.1 }, [-0.4, -0.15, -0.025, 0.0, 0.5, 2.0, 5.0]),
            (Function::ClippedRelu { limit: 4.0 }, [0.0, 0.0, 0.0, 0.0, 0.5, 2.0, 4.0]),
            (Function::HardSwish, [0.0, -0.375, -0.114_583_333, 0.0, 0.291_666_667, 1.666_666_667, 5.0]),
            (Function::HardSigmoid, [0.0, 0.25, 0.458_333_333, 0.5, 0.583_333_333, 0.833_333_333, 1.0]),
            (
                Function::Sigmoid,
                [0.017_986_210, 0.182_425_524, 0.437_823_499, 0.5, 0.622_459_331, 0.880_797_078, 0.993_307_149],
            ),
            (
                Function::Gelu,
                [-0.000_126_685, -0.100_210_802, -0.100_323_414, 0.0, 0.345_731_231, 1.954_499_736, 4.999_998_567],
            ),
            (
                Function::Silu,
                [-0.071_944_840, -0.273_638_286, -0.109_455_875, 0.0, 0.311_229_666, 1.761_594_156, 4.966_535_746],
            ),
        ];
        for (function, values) in known {
            for (x, y) in at.into_iter().zip(values) {
                let got = f64::from(function.value(x, 9.0));
                assert!((got - y).abs() < 5e-7 * y.abs().max(1.0), "{} at {x}: {got}, expected {y}", function.name());
            }
        }
        assert_eq!([Function::Prelu.value(-2.0, 0.25), Function::Prelu.value(3.0, 0.25)], [-0.5, 3.0]);
        assert_eq!(Function::Elu { scale: 2.0 }.value(-1.0, 0.0), (2.0 * (1f64 / std::f64::consts::E - 1.0)) as f32);
    }

    #[test]
    fn derivatives_are_those_of_the_values() {
        for function in ALL {
            for x in [-5.0f32, -2.3, -0.7, -0.1, 0.2, 1.1, 2.4, 4.0] {
                let h = 1.0 / 256.0;
                let slope = f64::from(function.value(x + h, 0.3)) - f64::from(function.value(x - h, 0.3));
                let (expected, got) = (slope / (2.0 * f64::from(h)), f64::from(function.derivative(x, 0.3)));
                assert!((expected - got).abs() < 2e-4, "{} at {x}: {got}, expected {expected}", function.name());
            }
        }
    }

    #[test]
    fn far_out_they_stay_finite() {
        for function in ALL {
            for x in [f32::MIN, -1e4, 1e4, f32::MAX] {
                let (y, slope) = (function.value(x, 0.1), function.derivative(x, 0.1));
                assert!(y.is_finite() && slope.is_finite(), "{} at {x}: {y}, {slope}", function.name());
            }
        }
    }
}
