//! The written form of a graph: nodes with their inputs by name, the previous node where none is named.

use serde::{Deserialize, Serialize};

use crate::{Graph, GraphError, Node, Op};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphFile {
    name: String,
    nodes: Vec<NodeFile>,
}

#[derive(Serialize, Deserialize)]
struct NodeFile {
    name: String,
    #[serde(flatten)]
    op: Op,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<String>>,
}

impl Serialize for Graph {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = self.nodes().iter().enumerate().map(|(id, node)| {
            let from_previous = node.inputs.is_empty() || node.inputs == [id.wrapping_sub(1)];
            let names = || node.inputs.iter().map(|&i| self.node(i).name.clone()).collect();
            NodeFile { name: node.name.clone(), op: node.op, inputs: (!from_previous).then(names) }
        });
        GraphFile { name: self.name().to_owned(), nodes: nodes.collect() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = GraphFile::deserialize(deserializer)?;
        resolve(file).map_err(serde::de::Error::custom)
    }
}

fn resolve(file: GraphFile) -> Result<Graph, GraphError> {
    let mut nodes: Vec<Node> = Vec::with_capacity(file.nodes.len());
    for NodeFile { name, op, inputs } in file.nodes {
        let inputs = match inputs {
            None if nodes.is_empty() || op.arity() == 0 => Vec::new(),
            None => vec![nodes.len() - 1],
            Some(names) => names
                .into_iter()
                .map(|input| match nodes.iter().position(|n| n.name == input) {
                    Some(id) => Ok(id),
                    None => Err(GraphError::UnknownInput { node: name.clone(), input }),
                })
                .collect::<Result<_, _>>()?,
        };
        nodes.push(Node { name, op, inputs });
    }
    Graph::new(file.name, nodes)
}
