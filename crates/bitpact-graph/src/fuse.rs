//! Groups the nodes of a graph into the stages that training and conversion work in.

use crate::{Graph, GraphError, NodeId, Op};

/// What is added before the activation of a [`Unit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// The tensor of an earlier stage as it is.
    Identity {
        /// Output node of the earlier stage.
        tensor: NodeId,
    },
    /// The tensor of an earlier stage, subsampled and channel-padded (option A).
    Subsample {
        /// Output node of the earlier stage.
        tensor: NodeId,
        /// The [`Op::Subsample`] node.
        node: NodeId,
    },
    /// A second product of an earlier stage's tensor with its own batch norm.
    Projection {
        /// Output node of the earlier stage.
        tensor: NodeId,
        /// The product.
        product: NodeId,
        /// Its batch norm.
        norm: Option<NodeId>,
    },
}

impl Residual {
    /// Output node of the stage the shortcut starts from.
    pub fn tensor(&self) -> NodeId {
        match *self {
            Residual::Identity { tensor }
            | Residual::Subsample { tensor, .. }
            | Residual::Projection { tensor, .. } => tensor,
        }
    }
}

/// `act(norm(product(input)) + residual)`: the step that training fuses and that becomes one integer layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Output node of the stage that is read, or the network's input.
    pub input: NodeId,
    /// The convolution or linear layer.
    pub product: NodeId,
    /// Batch norm of the product.
    pub norm: Option<NodeId>,
    /// Second branch of the sum.
    pub residual: Option<Residual>,
    /// The activation; `None` only for the logits.
    pub act: Option<NodeId>,
    /// Last node of the stage: its output is the stage's.
    pub output: NodeId,
}

/// One stage of a network, in the order of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A product with everything up to its activation.
    Unit(Unit),
    /// Maximum pooling.
    MaxPool {
        /// Output node of the stage that is read.
        input: NodeId,
        /// The node.
        node: NodeId,
    },
    /// Global average pooling.
    GlobalAvgPool {
        /// Output node of the stage that is read.
        input: NodeId,
        /// The node.
        node: NodeId,
    },
}

impl Stage {
    /// Node whose output is the stage's.
    pub fn output(&self) -> NodeId {
        match *self {
            Stage::Unit(unit) => unit.output,
            Stage::MaxPool { node, .. } | Stage::GlobalAvgPool { node, .. } => node,
        }
    }
}

/// Product of one branch of a sum, with its batch norm.
struct Branch {
    product: NodeId,
    norm: Option<NodeId>,
}

/// Groups every node of `graph` into stages.
///
/// # Errors
/// Names the node where the graph leaves the form that integers can follow: every product is followed by an optional
/// batch norm, an optional addition and an activation (the logits by none), and a global average pool is read by the
/// last layer alone.
pub fn fuse(graph: &Graph) -> Result<Vec<Stage>, GraphError> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut is_tensor = vec![false; graph.nodes().len()];
    is_tensor[0] = true;
    let mut taken = vec![false; graph.nodes().len()];
    taken[0] = true;
    for (id, node) in graph.nodes().iter().enumerate().skip(1) {
        let stage = match node.op {
            Op::MaxPool { .. } => Stage::MaxPool { input: tensor(graph, &is_tensor, id, node.inputs[0])?, node: id },
            Op::GlobalAvgPool => {
                let input = tensor(graph, &is_tensor, id, node.inputs[0])?;
                if let Some(&reader) = graph.consumers(id).iter().find(|&&c| !graph.node(c).op.is_product()) {
                    return Err(pattern(graph, reader, "only a layer with weights can read a global average pool"));
                }
                Stage::GlobalAvgPool { input, node: id }
            }
            Op::Act { .. } => Stage::Unit(unit_before(graph, &is_tensor, &mut taken, node.inputs[0], Some(id))?),
            _ if id == graph.output() => Stage::Unit(unit_before(graph, &is_tensor, &mut taken, id, None)?),
            _ => continue,
        };
        taken[id] = true;
        is_tensor[id] = true;
        stages.push(stage);
    }
    if let Some(id) = taken.iter().position(|&t| !t) {
        return Err(pattern(graph, id, "this node is not part of a product, norm, addition and activation chain"));
    }
    Ok(stages)
}

fn unit_before(
    graph: &Graph,
    is_tensor: &[bool],
    taken: &mut [bool],
    last: NodeId,
    act: Option<NodeId>,
) -> Result<Unit, GraphError> {
    let (main, residual) = if graph.node(last).op == Op::Add {
        taken[last] = true;
        only_reader(graph, last, act)?;
        let [a, b] = [graph.node(last).inputs[0], graph.node(last).inputs[1]];
        sum(graph, is_tensor, taken, last, a, b)?
    } else {
        (branch(graph, taken, last, act)?, None)
    };
    let input = tensor(graph, is_tensor, main.product, graph.node(main.product).inputs[0])?;
    let output = act.unwrap_or(last);
    Ok(Unit { input, product: main.product, norm: main.norm, residual, act, output })
}

/// Tells the main branch of an addition from its shortcut.
fn sum(
    graph: &Graph,
    is_tensor: &[bool],
    taken: &mut [bool],
    add: NodeId,
    a: NodeId,
    b: NodeId,
) -> Result<(Branch, Option<Residual>), GraphError> {
    let shortcut_of = |id: NodeId| -> Option<Residual> {
        match graph.node(id).op {
            _ if is_tensor[id] => Some(Residual::Identity { tensor: id }),
            Op::Subsample { .. } if is_tensor[graph.node(id).inputs[0]] => {
                Some(Residual::Subsample { tensor: graph.node(id).inputs[0], node: id })
            }
            _ => None,
        }
    };
    let (main, shortcut) = match (shortcut_of(a), shortcut_of(b)) {
        (None, Some(s)) => (a, s),
        (Some(s), None) => (b, s),
        (Some(_), Some(_)) => return Err(pattern(graph, add, "one branch of an addition must end in a product")),
        (None, None) => {
            let (first, second) = (branch(graph, taken, a, Some(add))?, branch(graph, taken, b, Some(add))?);
            let (main, side) = match (graph.is_projection(first.product), graph.is_projection(second.product)) {
                (false, true) => (first, second),
                (true, false) => (second, first),
                _ => return Err(pattern(graph, add, "neither branch of this addition is a shortcut of the other")),
            };
            let tensor = tensor(graph, is_tensor, side.product, graph.node(side.product).inputs[0])?;
            return Ok((main, Some(Residual::Projection { tensor, product: side.product, norm: side.norm })));
        }
    };
    if let Residual::Subsample { tensor, node } = shortcut {
        if tensor == 0 {
            return Err(pattern(graph, node, "a shortcut must start from an activation, not from the image"));
        }
        only_reader(graph, node, Some(add))?;
        taken[node] = true;
    }
    if shortcut == (Residual::Identity { tensor: 0 }) {
        return Err(pattern(graph, add, "a shortcut must start from an activation, not from the image"));
    }
    Ok((branch(graph, taken, main, Some(add))?, Some(shortcut)))
}

/// The product, and its batch norm, that end in `last`.
fn branch(graph: &Graph, taken: &mut [bool], last: NodeId, reader: Option<NodeId>) -> Result<Branch, GraphError> {
    only_reader(graph, last, reader)?;
    let norm = (graph.node(last).op == Op::BatchNorm).then_some(last);
    let product = norm.map_or(last, |n| graph.node(n).inputs[0]);
    if !graph.node(product).op.is_product() {
        let what = format!("expected a convolution or linear layer here, found {}", graph.node(product).op.name());
        return Err(pattern(graph, product, &what));
    }
    if let Some(norm) = norm {
        only_reader(graph, product, Some(norm))?;
        taken[norm] = true;
    }
    taken[product] = true;
    Ok(Branch { product, norm })
}

fn tensor(graph: &Graph, is_tensor: &[bool], reader: NodeId, id: NodeId) -> Result<NodeId, GraphError> {
    let image = id == 0;
    if is_tensor[id] && (!image || graph.node(reader).op.is_product()) {
        return Ok(id);
    }
    let what =
        format!("`{}` must read an activation or a pool, found {}", graph.node(reader).name, graph.node(id).op.name());
    Err(pattern(graph, id, &what))
}

fn only_reader(graph: &Graph, id: NodeId, reader: Option<NodeId>) -> Result<(), GraphError> {
    match (graph.consumers(id), reader) {
        ([], None) => Ok(()),
        ([one], Some(reader)) if *one == reader => Ok(()),
        _ => Err(pattern(graph, id, "only an activation or a pool may be read by more than one node")),
    }
}

fn pattern(graph: &Graph, id: NodeId, what: &str) -> GraphError {
    GraphError::Pattern { node: graph.node(id).name.clone(), what: what.to_owned() }
}
