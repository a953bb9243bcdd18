//! Why there is no choice; every message names the budget, model, layer or file at fault.

use std::path::PathBuf;

use bitpact_accel::{AccelError, Widths};
use bitpact_engine::EngineError;
use bitpact_graph::{GraphError, PlanError};
use bitpact_model::{ConvertError, ModelError};

/// Why a cost is not known, or bits cannot be chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A budget that is not one.
    #[error("budget `{text}`: {message}")]
    Budget {
        /// The text.
        text: String,
        /// What was expected.
        message: String,
    },
    /// A device that is neither built in nor a file.
    #[error("`{name}` is neither a device nor a file; there are cpu, {known}")]
    UnknownDevice {
        /// The value that was asked for.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// A file that cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{place}: {message}")]
    Syntax {
        /// The file, or what stands for it.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A model that says nothing about a layer.
    #[error("layer `{layer}` at {widths}: {model} has no figure for it: {message}")]
    NoFigure {
        /// Name of the layer.
        layer: String,
        /// Bits of its operands.
        widths: Widths,
        /// Name of the model.
        model: String,
        /// What it has figures for.
        message: String,
    },
    /// A device without energies.
    #[error("device `{device}` has no energies")]
    NoEnergy {
        /// Name of the device.
        device: String,
    },
    /// A budget below the least cost.
    #[error("budget `{budget}` cannot be met: the least that these widths take is {least}")]
    NotMet {
        /// The budget.
        budget: String,
        /// The least cost there is.
        least: String,
    },
    /// Budgets that no choice was found for, each of which can be met alone.
    #[error("no choice was found that meets {budgets} together")]
    NotMetTogether {
        /// The budgets.
        budgets: String,
    },
    /// A cost that does not depend on bits.
    #[error("budget `{budget}`: its cost is {cost} at every width, so it chooses nothing")]
    Indifferent {
        /// The budget.
        budget: String,
        /// The cost.
        cost: String,
    },
    /// A network in which nothing may be chosen.
    #[error("network `{network}`: {message}")]
    Empty {
        /// The network.
        network: String,
        /// The reason.
        message: String,
    },
    /// A width of a tensor that was not measured.
    #[error("{part} of `{layer}` at {bits} bits: the change of the loss was not measured")]
    NotMeasured {
        /// Name of the layer or activation.
        layer: String,
        /// The part of it.
        part: crate::Part,
        /// The width.
        bits: u8,
    },
    /// A cost that is no sum over layers, which the exact method needs.
    #[error("budget `{budget}`: its cost is no sum over layers, so only the greedy method takes it")]
    NoSum {
        /// The budget.
        budget: String,
    },
    /// The device model refuses.
    #[error(transparent)]
    Accel(#[from] AccelError),
    /// The graph cannot be grouped into layers.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The bits do not fit the network or its quantizers.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The network cannot be converted to be measured.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The network cannot be run to be measured.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A network or file that cannot be made.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl SearchError {
    /// Tells whether what was asked for is at fault, and not a file or this machine.
    pub fn is_usage(&self) -> bool {
        use SearchError as E;
        matches!(
            self,
            E::Budget { .. }
                | E::UnknownDevice { .. }
                | E::NoFigure { .. }
                | E::NoEnergy { .. }
                | E::NotMet { .. }
                | E::NotMetTogether { .. }
                | E::Indifferent { .. }
                | E::Empty { .. }
                | E::NoSum { .. }
                | E::Plan(_)
        )
    }
}
