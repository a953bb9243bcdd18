//! Names of nodes, from those of weights and nodes of the file.

use std::collections::HashMap;

use super::node::NodeView;

/// Bytes of a name at the most, so that tensors' names and numbers behind it fit too.
const LONGEST: usize = 200;

/// Ends of names of weights, which their node's name goes without.
const ENDS: [&str; 17] = [
    ".weight",
    ".kernel",
    "/kernel",
    ".gamma",
    "/gamma",
    ".scale",
    "_weight",
    "_W",
    ".W",
    "/weights",
    "_scale",
    ".bias",
    ":0",
    "_DequantizeLinear_Output",
    "_dequantized",
    "_quantized",
    "/ReadVariableOp",
];

/// Names given so far, each with the last number that was put behind it.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashMap<String, usize>,
}

impl Names {
    /// `name`, or where it is taken `name_1` and so on.
    pub(super) fn unique(&mut self, name: &str) -> String {
        let clean: String = name.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
        let end = (0..=clean.len().min(LONGEST)).rev().find(|&end| clean.is_char_boundary(end)).unwrap_or(0);
        let clean = if end == 0 { "node" } else { &clean[..end] };
        let mut number = self.taken.get(clean).map_or(0, |last| last + 1);
        let numbered = |number: usize| if number == 0 { clean.to_owned() } else { format!("{clean}_{number}") };
        while self.taken.contains_key(&numbered(number)) {
            number += 1;
        }
        let unique = numbered(number);
        self.taken.insert(unique.clone(), 0);
        self.taken.insert(clean.to_owned(), number);
        unique
    }
}

/// Name of a node that has the weights called `weights` in the file: `layer1.0.conv1` for `layer1.0.conv1.weight`.
pub(super) fn of_weights(weights: &str, node: NodeView) -> String {
    let mut name = weights;
    while let Some(shorter) = ENDS.iter().find_map(|end| name.strip_suffix(end)) {
        name = shorter;
    }
    let is_anonymous = name.is_empty() || name.contains("::") || name.bytes().all(|b| b.is_ascii_digit());
    if is_anonymous || (name.len() == weights.len() && !of_node(node).is_empty() && has_path(node)) {
        return of_node(node);
    }
    name.trim_matches('/').to_owned()
}

/// Whether the node's name is a path of modules, as PyTorch writes it.
fn has_path(node: NodeView) -> bool {
    node.name().starts_with('/')
}

/// Name of a node without weights: of PyTorch's `/layer1/layer1.0/relu_1/Relu` its module, `layer1.0.relu_1`.
pub(super) fn of_node(node: NodeView) -> String {
    let op = node.op().to_ascii_lowercase();
    let Some(path) = node.name().strip_prefix('/') else {
        let name = node.name().strip_prefix("node_").unwrap_or(node.name()).trim_matches('/');
        return if name.is_empty() { op } else { name.to_owned() };
    };
    let parts: Vec<&str> = path.split('/').collect();
    let (last, modules) = parts.split_last().expect("a split has a part");
    let mut module: Vec<&str> = Vec::new();
    for &part in modules {
        match module.last() {
            // A module in a list repeats the list's name.
            Some(before) if part.strip_prefix(before).is_some_and(|rest| rest.starts_with('.')) => {
                module.pop();
                module.push(part);
            }
            _ => module.push(part),
        }
    }
    // `Conv`, or of the second one in a module `Conv_1`.
    let lower = last.to_ascii_lowercase();
    match lower.strip_prefix(&op) {
        Some("") if !module.is_empty() => module.join("."),
        Some(_) if module.is_empty() => lower,
        Some(number) => format!("{}.{op}{number}", module.join(".")),
        None => [&module[..], &[last]].concat().join("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto;

    fn named(op: &str, name: &str) -> proto::Node {
        proto::Node { op_type: Some(op.to_owned()), name: Some(name.to_owned()), ..Default::default() }
    }

    #[test]
    fn nodes_have_the_names_of_their_modules() {
        for (op, name, expected) in [
            ("Conv", "/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
            ("Relu", "/layer1/layer1.0/relu_1/Relu", "layer1.0.relu_1"),
            ("Conv", "/features/features.2/conv/conv.0/conv.0.0/Conv", "features.2.conv.0.0"),
            ("Relu", "/Relu_3", "relu_3"),
            ("Add", "/layer1/Add_1", "layer1.add_1"),
            ("Conv", "conv1", "conv1"),
            ("Relu", "node_relu_2", "relu_2"),
            ("Relu", "", "relu"),
        ] {
            let node = named(op, name);
            assert_eq!(of_node(NodeView { node: &node, opset: 17 }), expected);
        }
        for (weights, name, expected) in [
            ("layer1.0.conv1.weight", "/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
            ("onnx::Conv_193", "/conv1/Conv", "conv1"),
            ("model/conv2d/Conv2D/ReadVariableOp:0", "x", "model/conv2d/Conv2D"),
            ("W", "conv", "W"),
        ] {
            let node = named("Conv", name);
            assert_eq!(of_weights(weights, NodeView { node: &node, opset: 17 }), expected);
        }
    }

    #[test]
    fn names_that_are_taken_get_a_number() {
        let mut names = Names::default();
        assert_eq!(names.unique("relu"), "relu");
        assert_eq!(names.unique("relu"), "relu_1");
        assert_eq!(names.unique("a b\n"), "ab");
        assert_eq!(names.unique(""), "node");
        assert_eq!(names.unique(&"é".repeat(300)).len(), 200);
    }
}
