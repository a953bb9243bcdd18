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
    /// The activation; `None` for the logits and for a residual stream.
    pub act: Option<NodeId>,
    /// Last node of the stage: its output is the stage's.
    pub output: NodeId,
}

/// One stage of a network, in the order of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A product with everything up to its activation; without one, the logits or a residual stream.
    Unit(Unit),
    /// `act(norm(input))` of a residual stream or an average pool.
    Act {
        /// Output node of the stage that is read.
        input: NodeId,
        /// The batch norm.
        norm: Option<NodeId>,
        /// The activation.
        act: NodeId,
    },
    /// Maximum pooling.
    MaxPool {
        /// Output node of the stage that is read.
        input: NodeId,
        /// The node.
        node: NodeId,
    },
    /// Average pooling over windows.
    AvgPool {
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
    /// Channels of several stages, one after the other: the inputs of the node.
    Concat {
        /// The node.
        node: NodeId,
    },
    /// Dropout.
    Dropout {
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
            Stage::Act { act, .. } => act,
            Stage::MaxPool { node, .. }
            | Stage::AvgPool { node, .. }
            | Stage::GlobalAvgPool { node, .. }
            | Stage::Concat { node }
            | Stage::Dropout { node, .. } => node,
        }
    }
}

/// What lies between two stages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    /// Codes of an activation.
    Codes,
    /// Sums of codes: an average pool.
    Sums,
    /// A sum of products that no activation has cut: a residual stream.
    Stream,
    /// Behind a dropout.
    Dropped,
}

/// Who may read a node.
#[derive(Clone, Copy)]
enum Readers {
    /// Nobody: the logits.
    None,
    One(NodeId),
    /// Any number: a stream.
    Any,
}

/// Product of one branch of a sum, with its batch norm.
struct Branch {
    product: NodeId,
    norm: Option<NodeId>,
}

/// Groups every node of `graph` into stages.
///
/// A product with its batch norm, or a sum of such with a shortcut, ends in the activation that alone reads it, in the
/// logits, or, where anything else reads it, as a residual stream, which only shortcuts, concatenations and activations
/// (through a batch norm or not) read.
///
/// # Errors
/// Names the node where the graph leaves the form that integers can follow: layers with weights read codes, the image or
/// average pools, pools read codes, what is added or concatenated is all codes or all streams, and the last node is that of
/// a product.
pub fn fuse(graph: &Graph) -> Result<Vec<Stage>, GraphError> {
    let n = graph.nodes().len();
    let mut f = Fuser { graph, kinds: vec![None; n], taken: vec![false; n] };
    f.kinds[0] = Some(Kind::Image);
    f.taken[0] = true;
    let mut stages: Vec<Stage> = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate().skip(1) {
        let (stage, kind) = match node.op {
            Op::MaxPool { .. } => (Stage::MaxPool { input: f.codes(id, node.inputs[0])?, node: id }, Kind::Codes),
            Op::AvgPool { .. } => (Stage::AvgPool { input: f.codes(id, node.inputs[0])?, node: id }, Kind::Sums),
            Op::GlobalAvgPool => (Stage::GlobalAvgPool { input: f.codes(id, node.inputs[0])?, node: id }, Kind::Sums),
            Op::Dropout { .. } => {
                let input = node.inputs[0];
                if !matches!(f.kinds[input], Some(Kind::Codes | Kind::Sums)) {
                    return Err(f.misread(id, input, "an activation or a pool"));
                }
                (Stage::Dropout { input, node: id }, Kind::Dropped)
            }
            Op::Concat => (Stage::Concat { node: id }, f.concat(id)?),
            Op::Act { .. } => {
                let stage = match f.act_of(id)? {
                    Some((input, norm)) => Stage::Act { input, norm, act: id },
                    None => Stage::Unit(f.unit(node.inputs[0], Some(id), Readers::One(id))?),
                };
                (stage, Kind::Codes)
            }
            _ if id == graph.output() => (Stage::Unit(f.unit(id, None, Readers::None)?), Kind::Codes),
            _ if f.is_stream(id) => (Stage::Unit(f.unit(id, None, Readers::Any)?), Kind::Stream),
            _ => continue,
        };
        f.taken[id] = true;
        f.kinds[id] = Some(kind);
        stages.push(stage);
    }
    if let Some(id) = f.taken.iter().position(|&t| !t) {
        return Err(pattern(graph, id, "this node is not part of a product, norm, addition and activation chain"));
    }
    if !matches!(stages.last(), Some(Stage::Unit(Unit { act: None, .. }))) {
        let what = "the last node gives the logits, so it must be a convolution or linear layer, or its batch norm";
        return Err(pattern(graph, graph.output(), what));
    }
    Ok(stages)
}

struct Fuser<'a> {
    graph: &'a Graph,
    /// Of the nodes that are outputs of stages.
    kinds: Vec<Option<Kind>>,
    /// Nodes that are part of a stage.
    taken: Vec<bool>,
}

impl Fuser<'_> {
    /// Whether a product, its norm or a sum ends here without an activation of its own.
    fn is_stream(&self, id: NodeId) -> bool {
        let graph = self.graph;
        let node = graph.node(id);
        let is_branch = |id: NodeId| match graph.node(id).op {
            Op::BatchNorm => graph.node(graph.node(id).inputs[0]).op.is_product(),
            op => op.is_product(),
        };
        let [reader] = *graph.consumers(id) else { return node.op == Op::Add || is_branch(id) };
        match (node.op, graph.node(reader).op) {
            (Op::Add, Op::Act { .. }) => node.inputs.iter().any(|&i| self.is_stream_shortcut(i)),
            (Op::Add, _) => true,
            (_, Op::Act { .. } | Op::Add) => false,
            (op, Op::BatchNorm) if op.is_product() => false,
            _ => is_branch(id),
        }
    }

    /// Whether a node is a residual stream, subsampled or not.
    fn is_stream_shortcut(&self, id: NodeId) -> bool {
        let from = match self.graph.node(id).op {
            Op::Subsample { .. } => self.graph.node(id).inputs[0],
            _ => id,
        };
        self.kinds[from] == Some(Kind::Stream)
    }

    /// What an activation reads that no product of its own stage makes, and the batch norm between.
    fn act_of(&mut self, act: NodeId) -> Result<Option<(NodeId, Option<NodeId>)>, GraphError> {
        let graph = self.graph;
        let wide = |id: NodeId| matches!(self.kinds[id], Some(Kind::Stream | Kind::Sums));
        let input = graph.node(act).inputs[0];
        if wide(input) {
            return Ok(Some((input, None)));
        }
        if graph.node(input).op != Op::BatchNorm || !wide(graph.node(input).inputs[0]) {
            return Ok(None);
        }
        only_reader(graph, input, Readers::One(act))?;
        self.taken[input] = true;
        Ok(Some((graph.node(input).inputs[0], Some(input))))
    }

    fn concat(&self, id: NodeId) -> Result<Kind, GraphError> {
        let graph = self.graph;
        let inputs = &graph.node(id).inputs;
        let kind = self.kinds[inputs[0]];
        let Some(kind @ (Kind::Codes | Kind::Stream)) = kind else {
            return Err(self.misread(id, inputs[0], "activations, max pools or sums of products"));
        };
        if let Some(&other) = inputs.iter().find(|&&i| self.kinds[i] != Some(kind)) {
            let what = "a concatenation reads activations and max pools, or sums of products, but not both";
            return Err(pattern(graph, other, what));
        }
        let signed = |act: NodeId| graph.node(act).op == Op::Act { signed: true };
        let acts = graph.source_acts(id);
        if acts.iter().any(|&act| signed(act) != signed(acts[0])) {
            return Err(pattern(graph, id, "activations that are concatenated are all signed or all unsigned"));
        }
        Ok(kind)
    }

    fn unit(&mut self, last: NodeId, act: Option<NodeId>, readers: Readers) -> Result<Unit, GraphError> {
        let graph = self.graph;
        let (main, residual) = if graph.node(last).op == Op::Add {
            self.taken[last] = true;
            only_reader(graph, last, readers)?;
            let [a, b] = [graph.node(last).inputs[0], graph.node(last).inputs[1]];
            self.sum(last, a, b)?
        } else {
            (self.branch(last, readers)?, None)
        };
        let input = self.product_input(main.product)?;
        Ok(Unit { input, product: main.product, norm: main.norm, residual, act, output: act.unwrap_or(last) })
    }

    /// Tells the main branch of an addition from its shortcut.
    fn sum(&mut self, add: NodeId, a: NodeId, b: NodeId) -> Result<(Branch, Option<Residual>), GraphError> {
        let graph = self.graph;
        let shortcut_of = |id: NodeId| -> Option<Residual> {
            let is_shortcut =
                |id: NodeId| matches!(self.kinds[id], Some(Kind::Image | Kind::Codes | Kind::Sums | Kind::Stream));
            match graph.node(id).op {
                _ if is_shortcut(id) => Some(Residual::Identity { tensor: id }),
                Op::Subsample { .. } if is_shortcut(graph.node(id).inputs[0]) => {
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
                let one = Readers::One(add);
                let (first, second) = (self.branch(a, one)?, self.branch(b, one)?);
                let (main, side) = match (graph.is_projection(first.product), graph.is_projection(second.product)) {
                    (false, true) => (first, second),
                    (true, false) => (second, first),
                    _ => return Err(pattern(graph, add, "neither branch of this addition is a shortcut of the other")),
                };
                let tensor = self.product_input(side.product)?;
                return Ok((main, Some(Residual::Projection { tensor, product: side.product, norm: side.norm })));
            }
        };
        let (reader, tensor) = match shortcut {
            Residual::Subsample { tensor, node } => (node, tensor),
            _ => (add, shortcut.tensor()),
        };
        match self.kinds[tensor] {
            Some(Kind::Codes | Kind::Stream) => {}
            Some(Kind::Sums) => {
                return Err(pattern(graph, reader, "a shortcut cannot start from an average pool"));
            }
            _ => return Err(pattern(graph, reader, "a shortcut must start from an activation, not from the image")),
        }
        if let Residual::Subsample { node, .. } = shortcut {
            only_reader(graph, node, Readers::One(add))?;
            self.taken[node] = true;
        }
        Ok((self.branch(main, Readers::One(add))?, Some(shortcut)))
    }

    /// The product, and its batch norm, that end in `last`.
    fn branch(&mut self, last: NodeId, readers: Readers) -> Result<Branch, GraphError> {
        let graph = self.graph;
        only_reader(graph, last, readers)?;
        let norm = (graph.node(last).op == Op::BatchNorm).then_some(last);
        let product = norm.map_or(last, |n| graph.node(n).inputs[0]);
        if !graph.node(product).op.is_product() {
            let what = format!("expected a convolution or linear layer here, found {}", graph.node(product).op.name());
            return Err(pattern(graph, product, &what));
        }
        if let Some(norm) = norm {
            only_reader(graph, product, Readers::One(norm))?;
            self.taken[norm] = true;
        }
        self.taken[product] = true;
        Ok(Branch { product, norm })
    }

    /// What a layer with weights reads.
    fn product_input(&self, product: NodeId) -> Result<NodeId, GraphError> {
        let id = self.graph.node(product).inputs[0];
        match self.kinds[id] {
            Some(Kind::Image | Kind::Codes | Kind::Sums | Kind::Dropped) => Ok(id),
            _ => Err(self.misread(product, id, "an activation or a pool")),
        }
    }

    /// What a pool reads.
    fn codes(&self, reader: NodeId, id: NodeId) -> Result<NodeId, GraphError> {
        match self.kinds[id] {
            Some(Kind::Codes) => Ok(id),
            _ => Err(self.misread(reader, id, "an activation or a pool")),
        }
    }

    fn misread(&self, reader: NodeId, id: NodeId, expected: &str) -> GraphError {
        let found = match self.kinds[id] {
            Some(Kind::Stream) => "a sum of products that no activation follows",
            Some(Kind::Sums) => "an average pool, which only layers with weights, dropout and activations read",
            Some(Kind::Dropped) => "a dropout, which only layers with weights read",
            _ => self.graph.node(id).op.name(),
        };
        pattern(self.graph, id, &format!("`{}` must read {expected}, found {found}", self.graph.node(reader).name))
    }
}

fn only_reader(graph: &Graph, id: NodeId, readers: Readers) -> Result<(), GraphError> {
    match (graph.consumers(id), readers) {
        (_, Readers::Any) | ([], Readers::None) => Ok(()),
        ([one], Readers::One(reader)) if *one == reader => Ok(()),
        _ => Err(pattern(graph, id, "only an activation or a pool may be read by more than one node")),
    }
}

fn pattern(graph: &Graph, id: NodeId, what: &str) -> GraphError {
    GraphError::Pattern { node: graph.node(id).name.clone(), what: what.to_owned() }
}
