//! Why a float network cannot be quantized.

use bitpact_engine::EngineError;
use bitpact_graph::{GraphError, PlanError};
use bitpact_kernels::memory::Shortage;
use bitpact_model::{ConvertError, ModelError};

use crate::TrainError;
use crate::trainer::RunError;

/// Why a float network cannot be quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PtqError {
    /// The network has quantizers already.
    #[error(
        "`{arch}` is quantized already ({bits} activations and weights have bits): expected a float network, as `bitpact import` and `train --bits \
         float` make it"
    )]
    Quantized {
        /// Name of the architecture.
        arch: String,
        /// Layers and activations with bits.
        bits: usize,
    },
    /// `float` was asked for.
    #[error("bits `float` quantize nothing: expected a form like W8A8")]
    Float,
    /// There are no images, or of another shape than the network reads.
    #[error("the images to calibrate on: {what}")]
    Images {
        /// What is wrong.
        what: String,
    },
    /// The float network gives what is no number.
    #[error(
        "the float network gives {value} for image {image}: expected finite outputs; its weights or the scale of its pixels are wrong"
    )]
    Output {
        /// Number of the image.
        image: usize,
        /// What it gives.
        value: f32,
    },
    /// The values of that many images need more memory than there is.
    #[error("{images} images at once: {shortage}; take fewer (--images)")]
    Memory {
        /// Images.
        images: usize,
        /// What is missing.
        shortage: Shortage,
    },
    /// The user stopped it.
    #[error("stopped; nothing was written")]
    Stopped,
    /// Bits that do not fit the network.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A graph without an integer form.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A tensor that does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layer's matrix.
    #[error(transparent)]
    Matrix(#[from] bitpact_ptq::PtqError),
    /// The conversion to integers.
    #[error("conversion to integers: {0}")]
    Convert(#[from] ConvertError),
    /// The integer engine.
    #[error("integer network: {0}")]
    Engine(#[from] EngineError),
    /// The evaluation.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<TrainError> for PtqError {
    fn from(error: TrainError) -> Self {
        RunError::from(error).into()
    }
}
