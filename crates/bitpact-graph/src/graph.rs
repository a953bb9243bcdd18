//! A network as a checked list of named nodes in the order of computation.

use std::collections::HashMap;

use crate::{Conv, ConvTranspose, GraphError, Op, Shape};

/// Position of a node in its graph.
pub type NodeId = usize;

/// One op and where its inputs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name; tensors of the node are `name.weight`, `name.bias` and so on.
    pub name: String,
    /// The operation that the node computes.
    pub op: Op,
    /// Earlier nodes it reads.
    pub inputs: Vec<NodeId>,
}

/// A network: nodes in the order of computation, the first one the input, and one or more of them outputs. Always
/// valid: names are unique, every input is an earlier node, every shape fits, every node is read or an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    consumers: Vec<Vec<NodeId>>,
    outputs: Vec<NodeId>,
    /// Additions of which one term is to stay.
    choices: Vec<NodeId>,
}

impl Graph {
    /// Checks `nodes`, of which the last is the output, and computes every shape.
    ///
    /// # Errors
    /// Names the first node with a bad name, unknown input, wrong arity, impossible parameter or shape.
    pub fn new(name: impl Into<String>, nodes: Vec<Node>) -> Result<Self, GraphError> {
        let last = nodes.len().saturating_sub(1);
        Self::with_outputs(name, nodes, vec![last])
    }

    /// Checks `nodes` and computes every shape. The first of `outputs` is the main one: training takes its loss, and
    /// classes are its channels.
    ///
    /// # Errors
    /// Those of [`Graph::new`], and outputs that are none, the input, no nodes, or named twice.
    pub fn with_outputs(name: impl Into<String>, nodes: Vec<Node>, outputs: Vec<NodeId>) -> Result<Self, GraphError> {
        let name = name.into();
        let empty = |what| Err(GraphError::Empty { graph: name.clone(), what });
        let mut ids: HashMap<&str, NodeId> = HashMap::new();
        let mut shapes: Vec<Shape> = Vec::with_capacity(nodes.len());
        let mut consumers = vec![Vec::new(); nodes.len()];
        for (id, node) in nodes.iter().enumerate() {
            check_name(&node.name)?;
            if ids.insert(&node.name, id).is_some() {
                return Err(GraphError::Name { node: node.name.clone(), what: "a second node of this name" });
            }
            if matches!(node.op, Op::Input { .. }) != (id == 0) {
                let what = "the input must be the first node, and the only one".to_owned();
                return Err(GraphError::Pattern { node: node.name.clone(), what });
            }
            let (expected, got) = (node.op.arity(), node.inputs.len());
            if got < expected || (got > expected && !matches!(node.op, Op::Add | Op::Concat)) {
                return Err(GraphError::Arity { node: node.name.clone(), op: node.op.name(), expected, got });
            }
            if let Some(&bad) = node.inputs.iter().find(|&&i| i >= id) {
                let input = nodes.get(bad).map_or_else(|| bad.to_string(), |n| n.name.clone());
                return Err(GraphError::UnknownInput { node: node.name.clone(), input });
            }
            let inputs: Vec<Shape> = node.inputs.iter().map(|&i| shapes[i]).collect();
            let shape = node.op.output_shape(&node.name, &inputs)?;
            if shape.c > 1 << 16 || shape.elements() > 1 << 32 {
                let (parameter, expected) = ("elements", "a tensor of at most 2^32 elements and 2^16 channels");
                return Err(GraphError::Parameter {
                    node: node.name.clone(),
                    parameter,
                    got: shape.elements(),
                    expected,
                });
            }
            shapes.push(shape);
            for &i in &node.inputs {
                consumers[i].push(id);
            }
        }
        if !nodes.iter().any(|n| n.op.is_product()) {
            return empty("no layer with weights");
        }
        if outputs.is_empty() {
            return empty("no output");
        }
        for (i, &id) in outputs.iter().enumerate() {
            let fail =
                |node: &str, what: &str| Err(GraphError::Pattern { node: node.to_owned(), what: what.to_owned() });
            match nodes.get(id) {
                None => return fail(&id.to_string(), "no node has this number, so it is no output"),
                Some(node) if id == 0 => return fail(&node.name, "the input cannot be an output"),
                Some(node) if outputs[..i].contains(&id) => return fail(&node.name, "an output that is named twice"),
                Some(_) => {}
            }
        }
        if let Some(id) = (0..nodes.len()).find(|id| consumers[*id].is_empty() && !outputs.contains(id)) {
            let what = "nothing reads this node, and it is no output".to_owned();
            return Err(GraphError::Pattern { node: nodes[id].name.clone(), what });
        }
        Ok(Self { name, nodes, shapes, consumers, outputs, choices: Vec::new() })
    }

    /// The network without the nodes that the main output does not depend on; `None` where there are none of them.
    pub fn main_part(&self) -> Option<Self> {
        let leads = self.leads_to_output();
        if leads.iter().all(|&leads| leads) {
            return None;
        }
        let mut place = vec![0; leads.len()];
        let mut nodes = Vec::new();
        for (id, node) in self.nodes.iter().enumerate().filter(|(id, _)| leads[*id]) {
            place[id] = nodes.len();
            nodes.push(Node { inputs: node.inputs.iter().map(|&input| place[input]).collect(), ..node.clone() });
        }
        let outputs = self.outputs.iter().filter(|&&id| leads[id]).map(|&id| place[id]).collect();
        Some(Self::with_outputs(self.name.clone(), nodes, outputs).expect("a part of a valid network"))
    }

    /// Tells whether the main output depends on each node.
    fn leads_to_output(&self) -> Vec<bool> {
        let mut leads = vec![false; self.nodes.len()];
        leads[self.output()] = true;
        for id in (0..self.nodes.len()).rev() {
            if leads[id] {
                self.nodes[id].inputs.iter().for_each(|&input| leads[input] = true);
            }
        }
        leads
    }

    /// Returns this network with its channels, hidden features and zero channels of shortcuts divided by `divisor`,
    /// rounded down, but not below what groups need; for trying a network out.
    ///
    /// # Errors
    /// Where the narrower tensors no longer fit each other.
    pub fn narrowed(&self, divisor: usize) -> Result<Self, GraphError> {
        let divisor = divisor.max(1);
        let mut channels: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut nodes = self.nodes.clone();
        for (id, node) in nodes.iter_mut().enumerate() {
            let read = |channels: &[usize]| node.inputs.first().map_or(self.shapes[0].c, |&i| channels[i]);
            let mut c = read(&channels);
            match &mut node.op {
                Op::Conv(Conv { out_channels, groups, .. })
                | Op::ConvTranspose(ConvTranspose { out_channels, groups, .. }) => {
                    if *groups == self.input_shape(id).c {
                        *groups = c;
                    }
                    c = (*out_channels / divisor).next_multiple_of(*groups).max(*groups);
                    *out_channels = c;
                }
                Op::Linear { out_features, .. } => {
                    c = if self.is_output(id) { *out_features } else { (*out_features / divisor).max(1) };
                    *out_features = c;
                }
                Op::Subsample { pad_before, pad_after, .. } => {
                    (*pad_before, *pad_after) = (*pad_before / divisor, *pad_after / divisor);
                    c += *pad_before + *pad_after;
                }
                Op::Concat => c = node.inputs.iter().map(|&i| channels[i]).sum(),
                _ => {}
            }
            channels.push(c);
        }
        Self::with_outputs(self.name.clone(), nodes, self.outputs.clone())
    }

    /// Name of the architecture, such as `resnet20`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All nodes in the order of computation.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node at `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node called `name`.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.name == name)
    }

    /// Shape of a node's output.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.shapes[id]
    }

    /// Shape of a node's first input.
    ///
    /// # Panics
    /// If the node has no input.
    pub fn input_shape(&self, id: NodeId) -> Shape {
        self.shapes[self.nodes[id].inputs[0]]
    }

    /// Nodes that read a node's output.
    pub fn consumers(&self, id: NodeId) -> &[NodeId] {
        &self.consumers[id]
    }

    /// Shape of the network's input.
    pub fn input(&self) -> Shape {
        self.shapes[0]
    }

    /// The main output: the logits of a classifier.
    pub fn output(&self) -> NodeId {
        self.outputs[0]
    }

    /// All outputs, the main one first.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// The additions that are marked as choices, in ascending order.
    pub(crate) fn choice_nodes(&self) -> &[NodeId] {
        &self.choices
    }

    pub(crate) fn set_choice_nodes(&mut self, nodes: Vec<NodeId>) {
        self.choices = nodes;
    }

    /// Tells whether a node is an output of the network.
    pub fn is_output(&self, id: NodeId) -> bool {
        self.outputs.contains(&id)
    }

    /// Tells whether the main output is one row of logits, at one position.
    pub fn is_classifier(&self) -> bool {
        let output = self.shapes[self.output()];
        (output.h, output.w) == (1, 1)
    }

    /// Number of classes, or of whatever else the channels of the main output are.
    pub fn classes(&self) -> usize {
        self.shapes[self.output()].c
    }

    /// Shape of a product's weight tensor in PyTorch's order: OIHW, with I the inputs of one group; IOHW of a
    /// transposed convolution, with O the outputs of one group; `[out, in]` of a linear layer. `None` for other ops.
    pub fn weight_shape(&self, id: NodeId) -> Option<Vec<usize>> {
        match self.nodes[id].op {
            Op::Conv(Conv { out_channels, kernel: [kh, kw], groups, .. }) => {
                Some(vec![out_channels, self.input_shape(id).c / groups, kh, kw])
            }
            Op::ConvTranspose(ConvTranspose { out_channels, kernel: [kh, kw], groups, .. }) => {
                Some(vec![self.input_shape(id).c, out_channels / groups, kh, kw])
            }
            Op::Linear { out_features, .. } => Some(vec![out_features, self.input_shape(id).elements()]),
            _ => None,
        }
    }

    /// For a transposed convolution, the position in its weight tensor of every weight of the convolution that reads
    /// the spread input ([`Op::window`]), in OIHW order: `[o][i][y][x]` is `[i][o][kh - 1 - y][kw - 1 - x]`. `None`
    /// where the tensor is in OIHW order itself.
    pub fn weight_order(&self, id: NodeId) -> Option<Vec<usize>> {
        let Op::ConvTranspose(ConvTranspose { kernel, groups, .. }) = self.nodes[id].op else { return None };
        let plane = kernel[0] * kernel[1];
        let (inputs, outputs) = (self.input_shape(id).c / groups, self.shapes[id].c / groups);
        let of_output = |o: usize| {
            let (group, o) = (o / outputs, o % outputs);
            (0..inputs * plane).map(move |i| {
                let (input, tap) = (group * inputs + i / plane, i % plane);
                (input * outputs + o) * plane + plane - 1 - tap
            })
        };
        Some((0..self.shapes[id].c).flat_map(of_output).collect())
    }

    /// Tells whether a product is a projection shortcut: its sum (through a batch norm, if any) is an [`Op::Add`] whose
    /// other branch starts from the same tensor and has more layers.
    pub fn is_projection(&self, id: NodeId) -> bool {
        if !matches!(self.nodes[id].op, Op::Conv(_)) {
            return false;
        }
        let Some((branch, add)) = self.sum_of(id) else { return false };
        let other = self.nodes[add].inputs.iter().copied().find(|&i| i != branch);
        other.is_some_and(|other| {
            let own_input = self.nodes[id].inputs[0];
            other != own_input && self.ancestors_contain(other, own_input) && self.depth(other) > self.depth(branch)
        })
    }

    /// The addition that reads `id` directly or through one batch norm, with the node it reads.
    fn sum_of(&self, id: NodeId) -> Option<(NodeId, NodeId)> {
        let mut branch = id;
        loop {
            let &[next] = self.consumers(branch) else { return None };
            match self.nodes[next].op {
                Op::BatchNorm(_) if branch == id => branch = next,
                Op::Add => return Some((branch, next)),
                _ => return None,
            }
        }
    }

    fn ancestors_contain(&self, from: NodeId, wanted: NodeId) -> bool {
        let mut stack = vec![from];
        let mut seen = vec![false; self.nodes.len()];
        while let Some(id) = stack.pop() {
            if id == wanted {
                return true;
            }
            for &i in &self.nodes[id].inputs {
                if i >= wanted && !std::mem::replace(&mut seen[i], true) {
                    stack.push(i);
                }
            }
        }
        false
    }

    /// Products on the longest path from the input to `id`.
    fn depth(&self, id: NodeId) -> usize {
        let mut depths = vec![0usize; id + 1];
        for n in 1..=id {
            let before = self.nodes[n].inputs.iter().map(|&i| depths[i]).max().unwrap_or(0);
            depths[n] = before + usize::from(self.nodes[n].op.is_product());
        }
        depths[id]
    }
}

/// Bytes of a node's name at the most.
const LONGEST_NAME: usize = 1024;

fn check_name(name: &str) -> Result<(), GraphError> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        let what = "a name has 1 to 1024 bytes and no control characters";
        return Err(GraphError::Name { node: name.escape_debug().take(128).collect(), what });
    }
    Ok(())
}
