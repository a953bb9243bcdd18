//! Operators of the network: what each becomes.

mod elementwise;
mod join;
mod places;
mod pool;
mod product;
pub(super) mod quantized;
mod resize;
mod usual;
mod window;

use super::fold::{ALSO_FOLDED, FOLDED};
use super::importer::Importer;
use super::node::NodeView;
use super::tensor;
use super::value::Value;

/// Operators that are read where they reach the network's tensors, beside those on constants.
const READ: [&str; 62] = [
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "QuantizeLinear",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Selu",
    "Shape",
    "Sigmoid",
    "Size",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Upsample",
    "ThresholdedRelu",
];

/// Every operator of ONNX that is read in one form or another, on constants or in a network, in no order.
pub fn operators() -> impl Iterator<Item = &'static str> {
    READ.into_iter().chain(FOLDED).chain(ALSO_FOLDED).chain(quantized::OPERATORS)
}

/// Whether anything is known of a node's operator.
pub(super) fn is_known(node: NodeView) -> bool {
    let own = matches!(node.node.domain.as_deref(), None | Some("" | "ai.onnx"));
    let op = node.op();
    (own && (READ.contains(&op) || FOLDED.contains(&op) || ALSO_FOLDED.contains(&op))) || quantized::is_known(node)
}

/// What is said of a node whose operator is not known.
pub(super) fn unknown(node: NodeView) -> String {
    match node.node.domain.as_deref() {
        None | Some("" | "ai.onnx") => "the operator has no counterpart".to_owned(),
        Some(domain) => format!("operators of the domain `{}` have no counterpart", domain.escape_debug()),
    }
}

/// Whether a node may read what an operator at the network's end gives.
pub(super) fn may_follow_end(node: NodeView) -> bool {
    matches!(
        node.op(),
        "Identity"
            | "Cast"
            | "ArgMax"
            | "Reshape"
            | "Flatten"
            | "Squeeze"
            | "Unsqueeze"
            | "Transpose"
            | "Softmax"
            | "LogSoftmax"
            | "Dropout"
    )
}

/// The outputs of a node that reads the network's tensors, or nothing.
pub(super) fn read<'a>(importer: &mut Importer<'a>, node: NodeView<'a>) -> Result<Vec<Value>, String> {
    if quantized::is_known(node) {
        return quantized::read(importer, node);
    }
    let one = |tensor| Ok(vec![Value::Data(tensor)]);
    match node.op() {
        "Constant" => constant(importer, node),
        "Shape" | "Size" => places::sizes(importer, node),
        "Conv" => one(product::conv(importer, node)?),
        "ConvTranspose" => one(product::conv_transpose(importer, node)?),
        "Gemm" => one(product::gemm(importer, node)?),
        "MatMul" => one(product::mat_mul(importer, node)?),
        "BatchNormalization" => one(elementwise::batch_norm(importer, node)?),
        "Relu" | "Clip" | "HardSigmoid" | "Sigmoid" | "Erf" | "Tanh" | "LeakyRelu" | "Elu" | "Selu" | "Celu"
        | "HardSwish" | "Gelu" | "PRelu" | "Swish" | "ThresholdedRelu" => one(elementwise::function(importer, node)?),
        "Neg" | "Mul" | "Div" | "Add" | "Sub" | "Sum" | "Max" | "Min" => one(elementwise::arithmetic(importer, node)?),
        "MaxPool" => one(pool::max_pool(importer, node)?),
        "AveragePool" => one(pool::average_pool(importer, node)?),
        "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" | "ReduceSum" => {
            one(pool::reduce(importer, node)?)
        }
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Expand" => {
            one(places::layout(importer, node)?)
        }
        "Pad" => one(places::pad(importer, node)?),
        "Slice" => one(places::slice(importer, node)?),
        "Gather" => one(places::gather(importer, node)?),
        "Split" => places::split(importer, node),
        "DepthToSpace" | "SpaceToDepth" => one(places::depth(importer, node)?),
        "Concat" => one(join::concat(importer, node)?),
        "Resize" | "Upsample" => one(resize::resize(importer, node)?),
        "Identity" | "Dropout" | "Cast" | "CastLike" => one(elementwise::same(importer, node)?),
        "Softmax" | "LogSoftmax" | "ArgMax" => one(elementwise::end(importer, node)?),
        other => Err(format!("{other} of a tensor that the network computes; only constants are folded")),
    }
}

fn constant(importer: &Importer, node: NodeView) -> Result<Vec<Value>, String> {
    use super::tensor::Array;
    let array = if let Some(tensor) = node.tensor("value") {
        tensor::read(tensor, importer.folder)?
    } else if node.has("value_float") {
        Array::floats(vec![], vec![node.float("value_float", 0.0)])
    } else if let Some(floats) = node.floats("value_floats") {
        Array::floats(vec![floats.len()], floats.to_vec())
    } else if node.has("value_int") {
        Array::ints(vec![], vec![node.int("value_int", 0)])
    } else if let Some(ints) = node.ints("value_ints") {
        Array::ints(vec![ints.len()], ints.to_vec())
    } else {
        return Err("a constant of text or of few elements other than 0".to_owned());
    };
    Ok(vec![Value::Const(array.into())])
}
