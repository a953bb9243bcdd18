//! Groups of channels of a network that can only be removed together, and the network without some of them.

use bitpact_core::{ActQuant, Grid};

use crate::{Conv, ConvTranspose, Graph, GraphError, Move, Node, NodeId, Op, QuantPlan, WeightPlan};

/// The channels of a network in groups of which all or none can be removed.
///
/// Channels that are added, multiplied, or read and written by one depthwise kernel are in one group; so are those at
/// the same place of the groups of a convolution, which stay of one size. A group can be removed if every channel of it
/// is 0 once its [`Site`]s are, so that nothing changes when it is gone: channels of the image and of outputs cannot,
/// nor those that a view renumbers or a function with another value at 0 gives to a layer.
#[derive(Debug, Clone)]
pub struct ChannelGroups {
    /// Group of every channel of every node; `None` for what cannot be removed.
    of: Vec<Vec<Option<usize>>>,
    /// Tensors that make the channels of each group 0.
    sites: Vec<Vec<Site>>,
}

/// Elements of a tensor that make a channel 0 when they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Name of the tensor.
    pub tensor: String,
    /// Positions of the elements.
    pub elements: Vec<usize>,
}

/// Sets of channels that are joined pair by pair.
struct Sets {
    parents: Vec<usize>,
    first: Vec<usize>,
}

impl Sets {
    fn find(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    /// Joins two sets; the smaller number stands for both.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b)] = a.min(b);
    }

    fn channel(&self, id: NodeId, c: usize) -> usize {
        self.first[id] + c
    }
}

/// The set of what cannot be removed.
const KEPT: usize = 0;

impl ChannelGroups {
    /// The groups of `graph` at the bits of `plan`.
    pub fn of(graph: &Graph, plan: &QuantPlan) -> Self {
        let mut first = Vec::with_capacity(graph.nodes().len());
        let mut all = 1;
        for id in 0..graph.nodes().len() {
            first.push(all);
            all += graph.shape(id).c;
        }
        let mut sets = Sets { parents: (0..all).collect(), first };
        for id in 0..graph.nodes().len() {
            join_node(&mut sets, graph, id);
            if id == 0 || graph.is_output(id) {
                keep(&mut sets, graph, id);
            }
        }
        keep_what_is_not_zero(&mut sets, graph, plan);
        let mut numbers = vec![None; all];
        let (mut of, mut sites): (Vec<Vec<Option<usize>>>, Vec<Vec<Site>>) = Default::default();
        for id in 0..graph.nodes().len() {
            let mut group = |c: usize| {
                let root = sets.find(sets.channel(id, c));
                if root == KEPT {
                    return None;
                }
                let next = sites.len();
                let number = *numbers[root].get_or_insert(next);
                if number == next {
                    sites.push(Vec::new());
                }
                Some(number)
            };
            let own: Vec<Option<usize>> = (0..graph.shape(id).c).map(&mut group).collect();
            for (c, group) in own.iter().enumerate() {
                if let Some(group) = *group {
                    sites[group].extend(sites_of(graph, id, c));
                }
            }
            of.push(own);
        }
        Self { of, sites }
    }

    /// Number of groups that can be removed.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Tells whether nothing can be removed.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// The group of each channel of a node; `None` for a channel that cannot be removed.
    pub fn node(&self, id: NodeId) -> &[Option<usize>] {
        &self.of[id]
    }

    /// The elements of tensors that, set to 0, make the channels of a group 0.
    pub fn sites(&self, group: usize) -> &[Site] {
        &self.sites[group]
    }

    /// The channels of a node that stay where group g does if `stays[g]`.
    pub fn staying(&self, id: NodeId, stays: &[bool]) -> Vec<usize> {
        let channels = self.of[id].iter().enumerate();
        channels.filter(|(_, group)| group.is_none_or(|group| stays[group])).map(|(c, _)| c).collect()
    }

    /// The network with the groups that `stays` says, of which every layer must have a channel left.
    ///
    /// # Errors
    /// A layer without channels.
    pub fn kept(&self, graph: &Graph, stays: &[bool]) -> Result<Graph, GraphError> {
        let count = |id: NodeId| self.staying(id, stays).len();
        let node = |(id, node): (NodeId, &Node)| {
            let mut node = node.clone();
            match &mut node.op {
                Op::Conv(Conv { out_channels, groups, .. })
                | Op::ConvTranspose(ConvTranspose { out_channels, groups, .. }) => {
                    if *groups > 1 && *groups == graph.input_shape(id).c {
                        *groups = count(node.inputs[0]);
                    }
                    *out_channels = count(id);
                }
                Op::Linear { out_features, .. } => *out_features = count(id),
                _ => {}
            }
            node
        };
        let nodes = graph.nodes().iter().enumerate().map(node).collect();
        Graph::with_outputs(graph.name(), nodes, graph.outputs().to_vec())
    }

    /// Positions, in their order, of the elements of tensor `tensor` of node `id` that belong to channels that stay;
    /// `len` is the number of its elements.
    pub fn elements(&self, graph: &Graph, id: NodeId, tensor: &str, len: usize, stays: &[bool]) -> Vec<usize> {
        let out = self.staying(id, stays);
        let channels = graph.shape(id).c;
        match graph.weight_shape(id) {
            Some(shape) if tensor == "weight" => {
                let inputs = self.staying(graph.node(id).inputs[0], stays);
                weights(graph, id, &shape, &inputs, &out)
            }
            // Shared by all channels.
            _ if len != channels => (0..len).collect(),
            _ => out,
        }
    }
}

/// Positions of the weights between the channels that stay.
fn weights(graph: &Graph, id: NodeId, shape: &[usize], inputs: &[usize], out: &[usize]) -> Vec<usize> {
    let from = graph.input_shape(id);
    let (groups, is_transposed) = match graph.node(id).op {
        Op::Conv(Conv { groups, .. }) => (groups, false),
        Op::ConvTranspose(ConvTranspose { groups, .. }) => (groups, true),
        _ => (1, false),
    };
    let (all_in, all_out) = (from.c / groups, graph.shape(id).c / groups);
    // A linear layer has the positions of a channel side by side.
    let window: usize = if shape.len() == 2 { from.h * from.w } else { shape[2..].iter().product() };
    let mut found = Vec::new();
    let (rows, columns) = if is_transposed { (inputs, out) } else { (out, inputs) };
    let (row_size, column_size) = if is_transposed { (all_in, all_out) } else { (all_out, all_in) };
    for &row in rows {
        let group = row / row_size;
        for &column in columns.iter().filter(|&&column| column / column_size == group) {
            let at = (row * column_size + column % column_size) * window;
            found.extend(at..at + window);
        }
    }
    found
}

fn keep(sets: &mut Sets, graph: &Graph, id: NodeId) {
    for c in 0..graph.shape(id).c {
        let channel = sets.channel(id, c);
        sets.join(KEPT, channel);
    }
}

/// Joins the channels of a node with those that it reads and with each other, as its op ties them.
fn join_node(sets: &mut Sets, graph: &Graph, id: NodeId) {
    let node = graph.node(id);
    let channels = graph.shape(id).c;
    let same = |sets: &mut Sets, input: NodeId, from: usize| {
        for c in 0..graph.shape(input).c {
            let (a, b) = (sets.channel(input, c), sets.channel(id, from + c));
            sets.join(a, b);
        }
    };
    match node.op {
        Op::Input { .. } | Op::Linear { .. } => {}
        Op::Conv(Conv { groups, .. }) | Op::ConvTranspose(ConvTranspose { groups, .. }) => {
            let input = node.inputs[0];
            let inputs = graph.shape(input).c;
            if groups > 1 && groups == inputs {
                for c in 0..channels {
                    let (a, b) = (sets.channel(input, c * inputs / channels), sets.channel(id, c));
                    sets.join(a, b);
                }
            } else if groups > 1 {
                for (node, size) in [(input, inputs / groups), (id, channels / groups)] {
                    for c in size..size * groups {
                        let (a, b) = (sets.channel(node, c % size), sets.channel(node, c));
                        sets.join(a, b);
                    }
                }
            }
        }
        Op::Concat => {
            let mut from = 0;
            for &input in &node.inputs {
                same(sets, input, from);
                from += graph.shape(input).c;
            }
        }
        Op::View(Move::Channels { .. } | Move::ChannelShuffle { .. })
        | Op::View(Move::PixelShuffle { .. } | Move::PixelUnshuffle { .. })
        | Op::Subsample { .. } => {
            keep(sets, graph, id);
            node.inputs.iter().for_each(|&input| keep(sets, graph, input));
        }
        Op::View(Move::Insert { before, after, .. }) if before + after > 0 => {
            keep(sets, graph, id);
            keep(sets, graph, node.inputs[0]);
        }
        _ => node.inputs.iter().for_each(|&input| same(sets, input, 0)),
    }
}

/// Keeps the channels that a layer reads and that are not 0 once their sites are.
fn keep_what_is_not_zero(sets: &mut Sets, graph: &Graph, plan: &QuantPlan) {
    let mut is_zero = vec![false; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        let all = || node.inputs.iter().all(|&input| is_zero[input]);
        is_zero[id] = match node.op {
            Op::Input { .. } => false,
            Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } => {
                only_norm(graph, id) || keeps_zero(plan.weights.get(&node.name))
            }
            Op::BatchNorm(_) => true,
            Op::Act { .. } => all() && plan.activations.get(&node.name).is_none_or(|act| act.quant != ActQuant::Sign),
            Op::Function(function) => all() && function.value(0.0, 0.0) == 0.0,
            Op::Mul => node.inputs.iter().any(|&input| is_zero[input]),
            _ => all(),
        };
        if node.op.is_product() && !is_zero[id] {
            keep(sets, graph, id);
        }
        if node.op.is_product() && !is_zero[node.inputs[0]] {
            keep(sets, graph, node.inputs[0]);
        }
    }
}

/// Whether weights of 0 stay 0.
fn keeps_zero(plan: Option<&WeightPlan>) -> bool {
    match plan {
        Some(WeightPlan::Quantized(spec)) => spec.grid == Grid::WithZero && spec.bits.get() > 1,
        _ => true,
    }
}

/// Whether a batch norm, which makes a channel 0, is all that reads a node.
fn only_norm(graph: &Graph, id: NodeId) -> bool {
    !graph.is_output(id) && graph.consumers(id).iter().all(|&reader| matches!(graph.node(reader).op, Op::BatchNorm(_)))
}

/// What makes channel `c` of a node 0, of nodes that hold such a thing.
fn sites_of(graph: &Graph, id: NodeId, c: usize) -> Vec<Site> {
    let node = graph.node(id);
    let site = |tensor: &str, elements: Vec<usize>| Site { tensor: format!("{}.{tensor}", node.name), elements };
    match node.op {
        Op::BatchNorm(_) => vec![site("weight", vec![c]), site("bias", vec![c])],
        op if op.is_product() && !only_norm(graph, id) => {
            let shape = graph.weight_shape(id).expect("a product has weights");
            let inputs: Vec<usize> = (0..graph.input_shape(id).c).collect();
            let mut sites = vec![site("weight", weights(graph, id, &shape, &inputs, &[c]))];
            if op.has_bias() {
                sites.push(site("bias", vec![c]));
            }
            sites
        }
        _ => Vec::new(),
    }
}
