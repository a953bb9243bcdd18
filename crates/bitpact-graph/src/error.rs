//! The one error of graph building; every variant names the node at fault.

use crate::{Shape, Window};

/// Why a list of nodes is not a network. `node` is always the name of the node at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The graph has no nodes, or no layer with weights.
    #[error("graph `{graph}`: {what}")]
    Empty {
        /// Name of the graph.
        graph: String,
        /// The thing that is missing, in words.
        what: &'static str,
    },
    /// Two nodes share a name, or a name holds characters that checkpoints cannot carry.
    #[error("node `{node}`: {what}")]
    Name {
        /// Name of the node.
        node: String,
        /// The fault that was found, in words.
        what: &'static str,
    },
    /// A node names an input that does not exist before it.
    #[error("node `{node}`: input `{input}` is not the name of an earlier node")]
    UnknownInput {
        /// Name of the node.
        node: String,
        /// The name it asks for.
        input: String,
    },
    /// A node has another number of inputs than its op takes.
    #[error("node `{node}`: {op} takes {expected} input(s), got {got}")]
    Arity {
        /// Name of the node.
        node: String,
        /// Op of the node.
        op: &'static str,
        /// Inputs the op takes.
        expected: usize,
        /// Inputs the node has.
        got: usize,
    },
    /// A parameter of the op is zero, or larger than any real network needs.
    #[error("node `{node}`: {parameter} = {got}, expected {expected}")]
    Parameter {
        /// Name of the node.
        node: String,
        /// Name of the parameter.
        parameter: &'static str,
        /// The value that was found.
        got: usize,
        /// The values that are allowed, in words.
        expected: &'static str,
    },
    /// The window of a convolution or pool does not fit its padded input.
    #[error("node `{node}`: a window of {window} does not fit an input of {input}")]
    Window {
        /// Name of the node.
        node: String,
        /// The window.
        window: Box<Window>,
        /// Shape of the input.
        input: Shape,
    },
    /// The groups of a convolution do not divide its channels.
    #[error("node `{node}`: {groups} groups do not divide {inputs} input and {outputs} output channels")]
    Groups {
        /// Name of the node.
        node: String,
        /// Groups of the convolution.
        groups: usize,
        /// Channels of its input.
        inputs: usize,
        /// Output channels of the convolution.
        outputs: usize,
    },
    /// The inputs of an addition or multiplication do not fit each other.
    #[error("node `{node}`: inputs of {left} and {right} cannot be {op}")]
    Shapes {
        /// Name of the node.
        node: String,
        /// Shape of the first input.
        left: Shape,
        /// Shape of the first input that differs.
        right: Shape,
        /// The operation as a participle: `added` or `multiplied`.
        op: &'static str,
    },
    /// The inputs of a concatenation differ in height or width.
    #[error("node `{node}`: inputs of {first} and {other} cannot be concatenated, their sides differ")]
    ConcatShapes {
        /// Name of the node.
        node: String,
        /// Shape of the first input.
        first: Shape,
        /// Shape of the input that differs.
        other: Shape,
    },
    /// The nodes are a valid graph, but not one that can be trained and converted as fused layers.
    #[error("node `{node}`: {what}")]
    Pattern {
        /// Name of the node.
        node: String,
        /// The parts that were expected around the node.
        what: String,
    },
}
