//! The nodes of our graph as they come, with their shapes and tensors.

use std::collections::BTreeMap;

use bitpact_core::{Bits, Function};
use bitpact_graph::{BatchNorm, Conv, Node, NodeId, Op, Shape};
use bitpact_model::Tensor;

use super::names::Names;
use super::value::Affine;

/// eps of a batch norm that stands for a multiplication and an addition: so small that it changes nothing.
pub(super) const NO_EPS: f64 = 1e-12;

/// Nodes, shapes and tensors so far.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) nodes: Vec<Node>,
    pub(super) shapes: Vec<Shape>,
    /// Tensors by their node and what they are called there.
    pub(super) tensors: BTreeMap<(NodeId, &'static str), Tensor>,
    /// Bits of weights and activations that are codes in the file.
    pub(super) bits: BTreeMap<NodeId, Bits>,
    pub(super) names: Names,
}

impl Builder {
    /// Adds a node.
    pub(super) fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, String> {
        let shapes: Vec<Shape> = inputs.iter().map(|&i| self.shapes[i]).collect();
        let name = self.names.unique(name);
        self.shapes.push(op.output_shape(&name, &shapes).map_err(|error| error.to_string())?);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec() });
        Ok(self.nodes.len() - 1)
    }

    /// Gives a node a tensor.
    pub(super) fn set(&mut self, node: NodeId, name: &'static str, shape: Vec<usize>, data: Vec<f32>) {
        self.tensors.insert((node, name), Tensor { shape, data });
    }

    pub(super) fn shape(&self, node: NodeId) -> Shape {
        self.shapes[node]
    }

    /// A batch norm that multiplies and adds.
    pub(super) fn affine(&mut self, name: &str, input: NodeId, affine: &Affine) -> Result<NodeId, String> {
        let channels = self.shape(input).c;
        let (scale, shift) = affine.spread(channels)?;
        let op = Op::BatchNorm(BatchNorm { eps: NO_EPS, ..BatchNorm::default() });
        let id = self.push(name, op, &[input])?;
        self.set(id, "weight", vec![channels], scale);
        self.set(id, "bias", vec![channels], shift);
        self.set(id, "running_mean", vec![channels], vec![0.0; channels]);
        self.set(id, "running_var", vec![channels], vec![1.0; channels]);
        Ok(id)
    }

    /// A convolution of single pixels and channels that multiplies and adds.
    pub(super) fn pixelwise(&mut self, name: &str, input: NodeId, affine: &Affine) -> Result<NodeId, String> {
        let channels = self.shape(input).c;
        let (scale, shift) = affine.spread(channels)?;
        let bias = shift.iter().any(|&t| t != 0.0);
        let id =
            self.push(name, Op::Conv(Conv { groups: channels, bias, ..Conv::square(channels, 1, 1, 0) }), &[input])?;
        self.set(id, "weight", vec![channels, 1, 1, 1], scale);
        if bias {
            self.set(id, "bias", vec![channels], shift);
        }
        Ok(id)
    }

    pub(super) fn function(&mut self, name: &str, function: Function, input: NodeId) -> Result<NodeId, String> {
        self.push(name, Op::Function(function), &[input])
    }

    /// Whether no value of a node's output is negative.
    pub(super) fn is_nonnegative(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        match node.op {
            Op::Act { signed } => !signed || self.is_nonnegative(node.inputs[0]),
            Op::Function(Function::Sigmoid | Function::HardSigmoid | Function::ClippedRelu { .. }) => true,
            Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::View(_)
            | Op::Subsample { .. }
            | Op::Dropout { .. }
            | Op::Concat
            | Op::Mul
            | Op::Add => node.inputs.iter().all(|&input| self.is_nonnegative(input)),
            _ => false,
        }
    }
}
