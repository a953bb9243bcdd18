//! What is said about nodes that have no counterpart.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Names of nodes that are told of each kind.
const NAMED: usize = 4;

/// A node that is not read, and why.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) op: String,
    pub(super) node: String,
    pub(super) why: String,
}

/// What comes closest to an operator that is not read.
fn nearest(op: &str) -> Option<&'static str> {
    Some(match op {
        "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "LRN"
        | "MeanVarianceNormalization"
        | "RMSNormalization"
        | "LpNormalization" => "BatchNormalization",
        "Softplus" | "Mish" | "Softsign" | "Swish" | "ThresholdedRelu" | "Shrink" => {
            "HardSwish, Gelu, or x * Sigmoid(x)"
        }
        "LpPool" => "AveragePool",
        "GlobalLpPool" => "GlobalAveragePool",
        "MaxUnpool" | "MaxRoiPool" | "RoiAlign" | "GridSample" | "AffineGrid" => "Resize by whole factors",
        "DeformConv" => "Conv",
        "ConvInteger" => "QLinearConv, or DequantizeLinear before a Conv",
        "MatMulInteger" => "QLinearMatMul, or DequantizeLinear before a MatMul",
        "DynamicQuantizeLinear" => "QuantizeLinear",
        "Einsum" => "MatMul with constant weights",
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" => {
            "ReduceMean over height and width"
        }
        "If" | "Loop" | "Scan" => "a network exported with fixed sizes, in which no branch is left",
        "NonMaxSuppression" | "TopK" | "NonZero" => "the network without what follows its last layer",
        "Softmax" | "LogSoftmax" | "ArgMax" | "ArgMin" => "the same at the end of the network",
        _ => return None,
    })
}

/// One message about all nodes that are not read.
pub(super) fn message(refusals: &[Refusal]) -> String {
    let mut kinds: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Refusal { op, node, why } in refusals {
        kinds.entry((op, why)).or_default().push(node);
    }
    let count = refusals.len();
    let mut text = match count {
        1 => "1 node has no counterpart here:".to_owned(),
        _ => format!("{count} nodes have no counterpart here:"),
    };
    for ((op, why), nodes) in kinds {
        let named: Vec<String> = nodes.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
        let more = if nodes.len() > NAMED { ", ..." } else { "" };
        let nearest = nearest(op).map(|form| format!("; nearest: {form}")).unwrap_or_default();
        write!(text, "\n  {} {} ({}{more}): {why}{nearest}", nodes.len(), op.escape_debug(), named.join(", "))
            .expect("a string takes everything");
    }
    text
}
