//! Groups the nodes of a graph into the layers that training and conversion work in.

use crate::{Graph, GraphError, NodeId, Op};

/// A tensor as a term of a sum or as the input of a product: an earlier layer's output, as it is or with its elements
/// moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Output node of the earlier layer, or the network's input.
    pub tensor: NodeId,
    /// The node that moves its elements ([`Op::moves`]); `None` for the tensor as it is.
    pub node: Option<NodeId>,
}

/// Source of one term of a sum: a product or a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// A convolution or linear layer.
    Product {
        /// Output node of the layer that is read, or the network's input.
        input: NodeId,
        /// The convolution or linear layer.
        node: NodeId,
    },
    /// A tensor, such as a shortcut.
    View(View),
}

impl Factor {
    /// Output node of the layer that the term reads.
    pub fn tensor(&self) -> NodeId {
        match *self {
            Factor::Product { input, .. } => input,
            Factor::View(view) => view.tensor,
        }
    }
}

/// One term of a layer's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Product or view that the term is made of.
    pub factor: Factor,
    /// The batch norm of this term alone.
    pub norm: Option<NodeId>,
}

impl Term {
    /// Output node of the layer that is read and the node of the product, where the term is one.
    pub fn product(&self) -> Option<(NodeId, NodeId)> {
        match self.factor {
            Factor::Product { input, node } => Some((input, node)),
            Factor::View(_) => None,
        }
    }

    /// The view, where the term is one.
    pub fn view(&self) -> Option<View> {
        match self.factor {
            Factor::Product { .. } => None,
            Factor::View(view) => Some(view),
        }
    }
}

/// Form of the output of a sum: codes, a residual stream or the network's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The codes of this activation.
    Act(NodeId),
    /// A tensor wider than codes that later layers read: a residual stream.
    Wide,
    /// An output of the network that nothing reads.
    Output,
}

/// `end(sum of norm(term))`: the layer that training fuses and that becomes one integer layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// At least one: products first, those of main branches before projection shortcuts, then views, each in the order
    /// of the graph.
    pub terms: Vec<Term>,
    /// Form of the output.
    pub end: End,
    /// Last node of the layer, the activation where there is one: its output is the layer's.
    pub output: NodeId,
}

impl Sum {
    /// Every product as the node that it reads, the node itself and its batch norm, in the order of the terms.
    pub fn products(&self) -> impl Iterator<Item = (NodeId, NodeId, Option<NodeId>)> + '_ {
        self.terms.iter().filter_map(|term| term.product().map(|(input, node)| (input, node, term.norm)))
    }

    /// Every view with its batch norm, in the order of the terms.
    pub fn views(&self) -> impl Iterator<Item = (View, Option<NodeId>)> + '_ {
        self.terms.iter().filter_map(|term| term.view().map(|view| (view, term.norm)))
    }

    /// The activation that ends the layer.
    pub fn act(&self) -> Option<NodeId> {
        match self.end {
            End::Act(act) => Some(act),
            End::Wide | End::Output => None,
        }
    }
}

/// One layer of a network, in the order of computation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// A sum of products and tensors.
    Sum(Sum),
    /// A layer of maximum pooling.
    MaxPool {
        /// Output node of the layer that is read.
        input: NodeId,
        /// Name of the node.
        node: NodeId,
    },
    /// A layer of average pooling over windows.
    AvgPool {
        /// Output node of the layer that is read.
        input: NodeId,
        /// Name of the node.
        node: NodeId,
    },
    /// A layer of global average pooling.
    GlobalAvgPool {
        /// Output node of the layer that is read.
        input: NodeId,
        /// Name of the node.
        node: NodeId,
    },
    /// Channels of several layers, one after the other: the inputs of the node.
    Concat {
        /// Name of the node.
        node: NodeId,
    },
    /// Zeros at random while training.
    Dropout {
        /// Output node of the layer that is read.
        input: NodeId,
        /// Name of the node.
        node: NodeId,
    },
    /// A function of one number, element by element.
    Function {
        /// Output node of the layer that is read.
        input: NodeId,
        /// Name of the node.
        node: NodeId,
    },
    /// The product of two tensors, element by element: the inputs of the node.
    Mul {
        /// Name of the node.
        node: NodeId,
    },
    /// A tensor with its elements moved.
    View {
        /// Output node of the layer that is read.
        input: NodeId,
        /// Name of the node.
        node: NodeId,
    },
}

impl Layer {
    /// Node whose output is the layer's.
    pub fn output(&self) -> NodeId {
        match *self {
            Layer::Sum(Sum { output, .. }) => output,
            Layer::MaxPool { node, .. }
            | Layer::AvgPool { node, .. }
            | Layer::GlobalAvgPool { node, .. }
            | Layer::Concat { node }
            | Layer::Dropout { node, .. }
            | Layer::Function { node, .. }
            | Layer::Mul { node }
            | Layer::View { node, .. } => node,
        }
    }

    /// The sum, where the layer is one.
    pub fn sum(&self) -> Option<&Sum> {
        match self {
            Layer::Sum(sum) => Some(sum),
            _ => None,
        }
    }
}

/// Kind of a tensor between two layers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    /// Codes of an activation.
    Codes,
    /// Sums of codes: an average pool.
    Sums,
    /// A sum of terms that no activation has cut: a residual stream.
    Wide,
    /// A product of two tensors of codes.
    Multiplied,
    /// A function of codes.
    Function,
    /// Behind a dropout.
    Dropped,
}

/// Who may read a node.
#[derive(Clone, Copy)]
enum Readers {
    /// Nobody: the output of the network.
    None,
    One(NodeId),
    /// Any number: a stream.
    Any,
}

/// Groups every node of `graph` into layers that have an integer form.
///
/// A sum of products and tensors, each with its batch norm or not, ends in the activation that alone reads it, in the
/// output of the network, or, where anything else reads it, as a residual stream, which sums, maximum pools, views,
/// concatenations and activations (through a batch norm or not) read.
///
/// # Errors
/// Names the node where the graph leaves the form that integers can follow: layers with weights read codes, the image
/// or average pools, average pools and functions read codes, only activations read functions, what is concatenated is
/// all codes or all streams, and the main output is that of a sum.
pub fn fuse(graph: &Graph) -> Result<Vec<Layer>, GraphError> {
    let layers = Fuser::run(graph, false)?;
    let ends = |id: NodeId| layers.iter().find(|layer| layer.output() == id);
    for (i, &id) in graph.outputs().iter().enumerate() {
        let (fits, what) = match ends(id) {
            // The main output has numbers of its own, which a loss compares with the target.
            layer if i == 0 => (
                layer.and_then(Layer::sum).is_some_and(|sum| sum.end == End::Output),
                "the main output must be a convolution or linear layer, its batch norm, a sum, or a view of one, which nothing reads",
            ),
            layer => (
                layer.is_some_and(|layer| {
                    !matches!(layer, Layer::Function { .. } | Layer::Mul { .. } | Layer::Dropout { .. })
                }),
                "an output must be a sum of products, an activation, a pool, a view or a concatenation",
            ),
        };
        if !fits {
            return Err(pattern(graph, id, what));
        }
    }
    Ok(layers)
}

/// Groups every node of `graph` into layers of real numbers, as [`fuse`] does, but lets everything read everything.
///
/// # Errors
/// Names a node that is not a layer with weights and reads the input.
pub fn fuse_float(graph: &Graph) -> Result<Vec<Layer>, GraphError> {
    Fuser::run(graph, true)
}

struct Fuser<'a> {
    graph: &'a Graph,
    is_float: bool,
    /// Kind of each node's tensor; `None` for nodes that end no layer.
    kinds: Vec<Option<Kind>>,
    /// Nodes that are part of a layer.
    taken: Vec<bool>,
}

impl<'a> Fuser<'a> {
    fn run(graph: &'a Graph, is_float: bool) -> Result<Vec<Layer>, GraphError> {
        let n = graph.nodes().len();
        let mut f = Fuser { graph, is_float, kinds: vec![None; n], taken: vec![false; n] };
        f.kinds[0] = Some(Kind::Image);
        f.taken[0] = true;
        let mut layers: Vec<Layer> = Vec::new();
        for id in 1..n {
            let Some((layer, kind)) = f.layer(id)? else { continue };
            f.taken[id] = true;
            f.kinds[id] = Some(kind);
            layers.push(layer);
        }
        match f.taken.iter().position(|&t| !t) {
            None => Ok(layers),
            Some(id) => {
                Err(pattern(graph, id, "this node is not part of a product, norm, addition and activation chain"))
            }
        }
    }

    /// The layer that ends in a node, and what it gives; `None` where a later node ends it.
    fn layer(&mut self, id: NodeId) -> Result<Option<(Layer, Kind)>, GraphError> {
        let graph = self.graph;
        let node = graph.node(id);
        let input = node.inputs.first().copied().unwrap_or(0);
        Ok(Some(match node.op {
            Op::MaxPool(_) => {
                let kind = self.one_of(id, input, &[Kind::Codes, Kind::Wide], "an activation, a pool or a sum")?;
                (Layer::MaxPool { input, node: id }, kind)
            }
            Op::AvgPool(_) | Op::GlobalAvgPool => {
                self.one_of(id, input, &[Kind::Codes], "an activation or a pool")?;
                let layer = match node.op {
                    Op::AvgPool(_) => Layer::AvgPool { input, node: id },
                    _ => Layer::GlobalAvgPool { input, node: id },
                };
                (layer, Kind::Sums)
            }
            Op::Dropout { .. } => {
                self.one_of(id, input, &[Kind::Codes, Kind::Sums], "an activation or a pool")?;
                (Layer::Dropout { input, node: id }, Kind::Dropped)
            }
            Op::Function(_) => {
                self.one_of(id, input, &[Kind::Codes], "an activation (signed, where negative values count)")?;
                (Layer::Function { input, node: id }, Kind::Function)
            }
            Op::Mul => {
                for &factor in &node.inputs {
                    self.one_of(id, factor, &[Kind::Codes], "activations")?;
                }
                (Layer::Mul { node: id }, Kind::Multiplied)
            }
            Op::View(_) | Op::Subsample { .. } => {
                if self.is_shortcut(id) {
                    return Ok(None);
                }
                let kinds = [Kind::Codes, Kind::Wide, Kind::Sums];
                let kind = self.one_of(id, input, &kinds, "an activation, a pool or a sum of products")?;
                // The main output has numbers of its own, those of a sum: here of one moved tensor.
                if id == graph.output() && graph.consumers(id).is_empty() && !self.is_float {
                    let factor = Factor::View(View { tensor: input, node: Some(id) });
                    let sum = Sum { terms: vec![Term { factor, norm: None }], end: End::Output, output: id };
                    return Ok(Some((Layer::Sum(sum), Kind::Codes)));
                }
                (Layer::View { input, node: id }, kind)
            }
            Op::Concat => (Layer::Concat { node: id }, self.concat(id)?),
            Op::Act { .. } => (Layer::Sum(self.act(id)?), Kind::Codes),
            _ if graph.consumers(id).is_empty() => (Layer::Sum(self.sum(id, End::Output, Readers::None)?), Kind::Codes),
            _ if self.is_stream(id) => (Layer::Sum(self.sum(id, End::Wide, Readers::Any)?), Kind::Wide),
            _ => return Ok(None),
        }))
    }

    /// Kind of the tensor of `input`, or an error where `reader` cannot read that kind.
    fn one_of(&self, reader: NodeId, input: NodeId, kinds: &[Kind], expected: &str) -> Result<Kind, GraphError> {
        match self.kinds[input] {
            Some(kind) if kinds.contains(&kind) || (self.is_float && kind != Kind::Image) => Ok(kind),
            _ => Err(self.misread(reader, input, expected)),
        }
    }

    /// Tells whether a node gives a tensor, and not a part of a sum.
    fn is_tensor(&self, id: NodeId) -> bool {
        self.kinds[id].is_some_and(|kind| kind != Kind::Image)
    }

    /// Tells whether a product, its norm or a sum ends here without an activation of its own.
    fn is_stream(&self, id: NodeId) -> bool {
        let graph = self.graph;
        let node = graph.node(id);
        let normalizes_tensor = node.op.is_norm() && self.is_tensor(node.inputs[0]);
        let is_branch = |id: NodeId| {
            let node = graph.node(id);
            node.op.is_product() || (node.op.is_norm() && graph.node(node.inputs[0]).op.is_product())
        };
        let reader = match *graph.consumers(id) {
            [reader] if !graph.is_output(id) => reader,
            _ => return node.op == Op::Add || normalizes_tensor || is_branch(id),
        };
        match (node.op, graph.node(reader).op) {
            (_, Op::Act { .. }) if normalizes_tensor => false,
            _ if normalizes_tensor => true,
            (Op::Add, Op::Act { .. } | Op::Add) => self.adds_stream(id),
            (Op::Add, _) => true,
            (_, Op::Act { .. } | Op::Add) => false,
            (op, Op::BatchNorm(_)) if op.is_product() => false,
            _ => is_branch(id),
        }
    }

    /// Tells whether a view is read by an addition alone, which then reads the tensor itself.
    fn is_shortcut(&self, id: NodeId) -> bool {
        let from = self.graph.node(id).inputs[0];
        matches!(*self.graph.consumers(id), [reader] if self.graph.node(reader).op == Op::Add)
            && !self.graph.is_output(id)
            && matches!(self.kinds[from], Some(Kind::Codes | Kind::Wide))
    }

    /// Whether a residual stream, moved or not, is among the terms of an addition: what is added to it keeps its scale.
    fn adds_stream(&self, add: NodeId) -> bool {
        self.graph.node(add).inputs.iter().any(|&id| {
            let from = if self.kinds[id].is_none() && self.graph.node(id).op.moves().is_some() {
                self.graph.node(id).inputs[0]
            } else {
                id
            };
            self.kinds[from] == Some(Kind::Wide)
        })
    }

    /// The layer that an activation ends.
    fn act(&mut self, act: NodeId) -> Result<Sum, GraphError> {
        let graph = self.graph;
        let input = graph.node(act).inputs[0];
        let (tensor, norm) = match graph.node(input).op {
            _ if self.is_tensor(input) => (input, None),
            Op::BatchNorm(_) if self.is_tensor(graph.node(input).inputs[0]) => {
                (graph.node(input).inputs[0], Some(input))
            }
            _ => return self.sum(input, End::Act(act), Readers::One(act)),
        };
        let kinds = [Kind::Codes, Kind::Sums, Kind::Wide, Kind::Multiplied, Kind::Function];
        let kinds = if norm.is_some() { &kinds[..4] } else { &kinds };
        self.one_of(norm.unwrap_or(act), tensor, kinds, "an activation, a pool or a sum of products")?;
        if let Some(norm) = norm {
            only_reader(graph, norm, Readers::One(act))?;
            self.taken[norm] = true;
        }
        let factor = Factor::View(View { tensor, node: None });
        Ok(Sum { terms: vec![Term { factor, norm }], end: End::Act(act), output: act })
    }

    fn concat(&self, id: NodeId) -> Result<Kind, GraphError> {
        let graph = self.graph;
        let inputs = &graph.node(id).inputs;
        let expected = "activations, max pools or sums of products";
        let kind = self.one_of(id, inputs[0], &[Kind::Codes, Kind::Wide], expected)?;
        for &input in inputs {
            self.one_of(id, input, &[Kind::Codes, Kind::Wide], expected)?;
        }
        if self.is_float {
            return Ok(Kind::Wide);
        }
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

    /// The sum that ends in `last`, before its activation.
    fn sum(&mut self, last: NodeId, end: End, readers: Readers) -> Result<Sum, GraphError> {
        let mut terms = Vec::new();
        self.terms(last, readers, &mut terms)?;
        let rank = |term: &Term| match term.factor {
            Factor::Product { node, .. } if self.graph.is_projection(node) => 1,
            Factor::Product { .. } => 0,
            Factor::View(_) => 2,
        };
        terms.sort_by_key(rank);
        let output = if let End::Act(act) = end { act } else { last };
        Ok(Sum { terms, end, output })
    }

    /// The terms of the sum that ends in `last`: of an addition those of all its inputs.
    fn terms(&mut self, last: NodeId, readers: Readers, terms: &mut Vec<Term>) -> Result<(), GraphError> {
        let graph = self.graph;
        if graph.node(last).op != Op::Add {
            terms.push(self.branch(last, readers)?);
            return Ok(());
        }
        self.taken[last] = true;
        only_reader(graph, last, readers)?;
        for &input in &graph.node(last).inputs {
            match self.shortcut(input, last)? {
                Some(view) => terms.push(Term { factor: Factor::View(view), norm: None }),
                None => self.terms(input, Readers::One(last), terms)?,
            }
        }
        Ok(())
    }

    /// The tensor that an addition reads at `id`, if it is one.
    fn shortcut(&mut self, id: NodeId, add: NodeId) -> Result<Option<View>, GraphError> {
        let graph = self.graph;
        let view = match self.kinds[id] {
            Some(_) => View { tensor: id, node: None },
            None if graph.node(id).op.moves().is_some() && self.is_shortcut(id) => {
                View { tensor: graph.node(id).inputs[0], node: Some(id) }
            }
            None => return Ok(None),
        };
        let kinds = [Kind::Codes, Kind::Wide, Kind::Sums, Kind::Multiplied];
        self.one_of(view.node.unwrap_or(add), view.tensor, &kinds, "activations, pools or sums of products")?;
        if let Some(node) = view.node {
            self.taken[node] = true;
        }
        Ok(Some(view))
    }

    /// The product, and its batch norm, that end in `last`, or a batch norm of a tensor.
    fn branch(&mut self, last: NodeId, readers: Readers) -> Result<Term, GraphError> {
        let graph = self.graph;
        only_reader(graph, last, readers)?;
        let norm = graph.node(last).op.is_norm().then_some(last);
        let node = norm.map_or(last, |n| graph.node(n).inputs[0]);
        if let (Some(norm), true) = (norm, self.is_tensor(node)) {
            let kinds = [Kind::Codes, Kind::Wide, Kind::Sums, Kind::Multiplied];
            self.one_of(norm, node, &kinds, "an activation, a pool or a sum of products")?;
            self.taken[norm] = true;
            return Ok(Term { factor: Factor::View(View { tensor: node, node: None }), norm: Some(norm) });
        }
        if !graph.node(node).op.is_product() {
            let what = format!("expected a convolution or linear layer here, found {}", graph.node(node).op.name());
            return Err(pattern(graph, node, &what));
        }
        if let Some(norm) = norm {
            only_reader(graph, node, Readers::One(norm))?;
            self.taken[norm] = true;
        }
        self.taken[node] = true;
        Ok(Term { factor: Factor::Product { input: self.product_input(node)?, node }, norm })
    }

    /// What a layer with weights reads.
    fn product_input(&self, product: NodeId) -> Result<NodeId, GraphError> {
        let id = self.graph.node(product).inputs[0];
        if self.kinds[id] != Some(Kind::Image) {
            self.one_of(product, id, &[Kind::Codes, Kind::Sums, Kind::Dropped], "an activation or a pool")?;
        }
        Ok(id)
    }

    fn misread(&self, reader: NodeId, id: NodeId, expected: &str) -> GraphError {
        let found = match self.kinds[id] {
            Some(Kind::Wide) => "a sum of products that no activation follows",
            Some(Kind::Sums) => "an average pool, which only layers with weights, dropout, sums and activations read",
            Some(Kind::Dropped) => "a dropout, which only layers with weights read",
            Some(Kind::Multiplied) => "a multiplication, which only sums and activations read",
            Some(Kind::Function) => "a function, which only activations read",
            Some(Kind::Image) => "the input, which only layers with weights read",
            _ => self.graph.node(id).op.name(),
        };
        pattern(self.graph, id, &format!("`{}` must read {expected}, found {found}", self.graph.node(reader).name))
    }
}

fn only_reader(graph: &Graph, id: NodeId, readers: Readers) -> Result<(), GraphError> {
    match (graph.consumers(id), readers) {
        (_, Readers::Any) | ([], Readers::None) => Ok(()),
        ([one], Readers::One(reader)) if *one == reader && !graph.is_output(id) => Ok(()),
        _ => Err(pattern(
            graph,
            id,
            "only an activation or a pool may be read by more than one node or be an output too",
        )),
    }
}

fn pattern(graph: &Graph, id: NodeId, what: &str) -> GraphError {
    GraphError::Pattern { node: graph.node(id).name.clone(), what: what.to_owned() }
}
