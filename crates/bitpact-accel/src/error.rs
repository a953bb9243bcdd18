//! Why a question has no answer; every message names the device, file, key or layer at fault.

use std::path::PathBuf;

use bitpact_graph::GraphError;
use bitpact_model::ModelError;

use crate::Widths;

/// Why a device, workload, synthesis or comparison cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccelError {
    /// A constant that no machine has.
    #[error("device `{device}`: {key} = {got}, expected {expected}")]
    Constant {
        /// Name of the device.
        device: String,
        /// Name of the key.
        key: &'static str,
        /// The value that was found.
        got: String,
        /// The values that are possible, in words.
        expected: &'static str,
    },
    /// A source for a key that the device does not have.
    #[error("device `{device}`: [sources] names `{key}`, which is not a key of the device")]
    Source {
        /// Name of the device.
        device: String,
        /// Name of the key.
        key: String,
    },
    /// Neither a built-in device nor a file.
    #[error("`{name}` is neither a built-in device nor a file; built in are {known}")]
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
        /// The parser's own message.
        message: String,
    },
    /// Operands wider than the units, on a device without a rule for them.
    #[error(
        "layer `{layer}` needs {needed}, the units of device `{device}` are {units}, and its rule is `wider = \"refuse\"`"
    )]
    Wider {
        /// Name of the device.
        device: String,
        /// Name of the layer.
        layer: String,
        /// Widths of the layer.
        needed: Widths,
        /// Widths of the units.
        units: Widths,
    },
    /// A layer whose tiles do not fit on the chip.
    #[error(
        "layer `{layer}` cannot be mapped: two tiles of weights take {needed} bytes, device `{device}` has {on_chip} on chip"
    )]
    Memory {
        /// Name of the device.
        device: String,
        /// Name of the layer.
        layer: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        on_chip: u64,
    },
    /// A batch of no images, or of more than is sensible.
    #[error("batch = {got}, expected 1 to 65536")]
    Batch {
        /// The value that was asked for.
        got: u64,
    },
    /// A network without quantizers.
    #[error("network `{network}` is float: name the bits it should have")]
    Float {
        /// The network.
        network: String,
    },
    /// Sums of codes too wide for an operand.
    #[error("layer `{layer}` reads sums of {bits} bits, expected at most 16")]
    Sums {
        /// Name of the layer.
        layer: String,
        /// Width of the operands in bits.
        bits: u8,
    },
    /// A layer that in-memory arrays cannot compute.
    #[error("layer `{layer}` cannot be mapped on arrays: {what}")]
    Array {
        /// Name of the layer.
        layer: String,
        /// Reason for the failure.
        what: String,
    },
    /// A network that in-memory arrays cannot compute as asked for.
    #[error("network `{network}` on arrays: {what}")]
    OnArrays {
        /// Name of the network.
        network: String,
        /// Reason for the failure.
        what: String,
    },
    /// The graph cannot be grouped into steps.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] ModelError),
    /// A program that is not there, failed, or said something unexpected.
    #[error("{program}: {message}")]
    Tool {
        /// The program.
        program: &'static str,
        /// The event that made it fail, in words.
        message: String,
    },
    /// Measured times that do not belong to the network.
    #[error("{place}: {message}")]
    Measured {
        /// The file.
        place: String,
        /// The misfit that was found, in words.
        message: String,
    },
    /// A chart that cannot be drawn.
    #[error("chart `{chart}`: {message}")]
    Chart {
        /// The chart.
        chart: &'static str,
        /// The drawing library's own message.
        message: String,
    },
}
