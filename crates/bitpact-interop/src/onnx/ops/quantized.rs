//! Graphs that are quantized already.

use super::super::importer::Importer;
use super::super::node::NodeView;
use super::super::tensor::Array;
use super::super::value::Value;

/// Operators of quantized graphs.
pub(super) const OPERATORS: [&str; 0] = [];

/// Whether the operator belongs to a quantized graph.
pub(in crate::onnx) fn is_known(_node: NodeView) -> bool {
    false
}

/// Whether the operator is folded where all it reads is constant.
pub(in crate::onnx) fn folds(_node: NodeView) -> bool {
    false
}

/// The outputs of a quantizing operator on constants.
pub(in crate::onnx) fn fold(_node: NodeView, _inputs: &[Option<&Array>]) -> Result<Vec<Array>, String> {
    Err("not read".to_owned())
}

/// The outputs of an operator of a quantized graph.
pub(in crate::onnx) fn read(_importer: &mut Importer, _node: NodeView) -> Result<Vec<Value>, String> {
    Err("not read".to_owned())
}
