//! Adapters in a graph: beside a convolution a narrower one with the same window, an activation of signed 8-bit codes,
//! and a convolution of 1x1 that is added to what the first one gives.

use std::collections::BTreeMap;

use bitpact_core::{ActQuant, Bits, Granularity, Grid, WeightQuant, WeightSpec};
use bitpact_graph::{ActPlan, Conv, Graph, GraphError, Node, NodeId, Op, QuantPlan, WeightPlan};

/// Bits of an adapter's weights and codes.
const BITS: Bits = Bits::new(8).expect("8 is a width");

/// The nodes of one adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Adapter {
    /// The convolution to r channels, A.
    pub(super) down: NodeId,
    /// The convolution of 1x1 from r channels, B.
    pub(super) up: NodeId,
    /// r.
    pub(super) rank: usize,
}

/// A graph with adapters.
pub(super) struct Adapted {
    pub(super) graph: Graph,
    /// For each node, the node of the original network whose float value it approximates; `None` inside of adapters.
    pub(super) origins: Vec<Option<NodeId>>,
    /// By the convolution that they correct.
    pub(super) adapters: BTreeMap<NodeId, Adapter>,
}

/// Convolutions that may have adapters: of one group, and not those that give an output.
pub(super) fn candidates(graph: &Graph) -> Vec<NodeId> {
    let gives_output =
        |id: NodeId| graph.is_output(id) || graph.consumers(id).iter().any(|&reader| graph.is_output(reader));
    let is_plain = |id: &NodeId| matches!(graph.node(*id).op, Op::Conv(Conv { groups: 1, .. })) && !gives_output(*id);
    (0..graph.nodes().len()).filter(is_plain).collect()
}

/// `graph` with an adapter of each rank above 0, by the name of the convolution. It is added after the batch norm of
/// the convolution where it has one, so its weights hold the gain of the norm.
///
/// # Errors
/// None for ranks of [`candidates`].
pub(super) fn adapt(graph: &Graph, ranks: &BTreeMap<String, usize>) -> Result<Adapted, GraphError> {
    let (mut nodes, mut origins, mut adapters) = (Vec::new(), Vec::new(), BTreeMap::new());
    // Node that readers of an original node read.
    let mut read: Vec<NodeId> = Vec::new();
    let mut open: BTreeMap<NodeId, (NodeId, String)> = BTreeMap::new();
    for (id, node) in graph.nodes().iter().enumerate() {
        let mut push = |node: Node, origin: Option<NodeId>| -> NodeId {
            nodes.push(node);
            origins.push(origin);
            nodes.len() - 1
        };
        let inputs: Vec<NodeId> = node.inputs.iter().map(|&i| read[i]).collect();
        let own = push(Node { inputs: inputs.clone(), ..node.clone() }, Some(id));
        read.push(own);
        let rank = ranks.get(&node.name).copied().unwrap_or(0);
        if let (Op::Conv(conv), true) = (node.op, rank > 0) {
            let name = |part: &str| format!("{}.cora_{part}", node.name);
            let down = Op::Conv(Conv { out_channels: rank, bias: false, ..conv });
            let down = push(Node { name: name("down"), op: down, inputs }, None);
            let act = push(Node { name: name("act"), op: Op::Act { signed: true }, inputs: vec![down] }, None);
            let up = Op::Conv(Conv::square(conv.out_channels, 1, 1, 0));
            let up = push(Node { name: name("up"), op: up, inputs: vec![act] }, None);
            adapters.insert(own, Adapter { down, up, rank });
            let end = match *graph.consumers(id) {
                [norm] if graph.node(norm).op.is_norm() => norm,
                _ => id,
            };
            open.insert(end, (up, name("add")));
        }
        if let Some((up, name)) = open.remove(&id) {
            read[id] = push(Node { name, op: Op::Add, inputs: vec![own, up] }, Some(id));
            origins[own] = None;
        }
    }
    let outputs = graph.outputs().iter().map(|&id| read[id]).collect();
    Ok(Adapted { graph: Graph::with_outputs(graph.name(), nodes, outputs)?, origins, adapters })
}

/// The plan of a graph with adapters: theirs have 8 bits, the other layers those of `plan`.
pub(super) fn adapted_plan(plan: &QuantPlan, adapted: &Adapted) -> QuantPlan {
    let mut plan = plan.clone();
    let spec = WeightSpec { bits: BITS, quant: WeightQuant::Lsq, grid: Grid::WithZero, scale: Granularity::Channel };
    let act = ActPlan { bits: BITS, quant: ActQuant::PactSym, clip_scale: Granularity::Layer };
    for adapter in adapted.adapters.values() {
        for product in [adapter.down, adapter.up] {
            plan.weights.insert(adapted.graph.node(product).name.clone(), WeightPlan::Quantized(spec));
        }
        let up = adapted.graph.node(adapter.up);
        plan.activations.insert(adapted.graph.node(up.inputs[0]).name.clone(), act);
    }
    plan
}
