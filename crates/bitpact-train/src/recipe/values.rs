//! Values of a recipe that are more than a number or a name.

use bitpact_graph::BitSpec;
use serde::{Deserialize, Serialize};

/// Where the clip values start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClipInit {
    /// All at one value (the paper: 10).
    Fixed(f64),
    /// At a percentile of the pre-activations of the first batches.
    Calibrate {
        /// 0 to 100.
        percentile: f64,
        /// Number of batches whose percentiles are averaged.
        batches: u32,
    },
}

impl ClipInit {
    /// What `clip_init = "calibrate"` stands for at these bits: the percentile of the clip value that rounds a
    /// half-normal input with the least mean square error, 1.2, 1.95, 2.5 and about 3 standard deviations for activations
    /// of 1, 2, 3 and more bits; the first 8 batches.
    pub fn calibrate(bits: BitSpec) -> ClipInit {
        let percentile = match bits {
            BitSpec::Bits { activations, .. } if activations.get() <= 3 => {
                [89.0, 97.5, 99.3][activations.get() as usize - 1]
            }
            _ => 99.9,
        };
        ClipInit::Calibrate { percentile, batches: 8 }
    }
}

/// The table form of a calibrated start, as files have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Calibration {
    pub(super) percentile: Option<f64>,
    pub(super) batches: Option<u32>,
}

/// Numbers of the backward products of quantized layers, and of all products that train a float network; see [`Gradients`](crate::Gradients).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    Fp32,
    /// Gradients rounded to bfloat16, sums in float32.
    Bf16,
}

/// What a pixel p means to the network: x = scale * (p - zero_point), the same for every channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputScale {
    /// The pixel that stands for 0.
    #[serde(default = "InputScale::zero_point")]
    pub zero_point: u8,
    /// Real value of one step of a pixel.
    #[serde(default = "InputScale::scale")]
    pub scale: f64,
}

impl InputScale {
    fn zero_point() -> u8 {
        128
    }
    fn scale() -> f64 {
        1.0 / 64.0
    }
}

impl Default for InputScale {
    /// (p - 128) / 64: about zero mean and unit deviation on photographs.
    fn default() -> Self {
        Self { zero_point: Self::zero_point(), scale: Self::scale() }
    }
}

/// Learning rate and decay of the tensors that a pattern matches; what is absent is as for other tensors.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRates {
    /// Highest learning rate; it takes the same course as the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// Random changes of a training image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Pixels the crop moves by at most.
    #[serde(default)]
    pub pad: usize,
    /// Whether half of the images are mirrored.
    #[serde(default)]
    pub flip: bool,
}
