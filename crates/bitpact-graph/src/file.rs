//! The written form of a graph: nodes with their inputs by name, the previous node where none is named.

use serde::{Deserialize, Serialize};

use crate::{Graph, GraphError, Node, Op};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphFile {
    name: String,
    nodes: Vec<NodeFile>,
    /// Names of the outputs, the main one first; the last node where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<String>>,
    /// Names of the additions of which one term is to stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    choices: Vec<String>,
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
        let is_last = self.outputs() == [self.nodes().len() - 1];
        let outputs = || self.outputs().iter().map(|&id| self.node(id).name.clone()).collect();
        let outputs = (!is_last).then(outputs);
        let choices = self.choice_nodes().iter().map(|&id| self.node(id).name.clone()).collect();
        GraphFile { name: self.name().to_owned(), nodes: nodes.collect(), outputs, choices }.serialize(serializer)
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
    let of = |name: String, what: &str| match nodes.iter().position(|node| node.name == name) {
        Some(id) => Ok(id),
        None => Err(GraphError::Pattern { node: name, what: format!("no node of this name, so it is no {what}") }),
    };
    let choices = file.choices.into_iter().map(|name| of(name, "choice")).collect::<Result<_, _>>()?;
    let graph = match file.outputs {
        None => Graph::new(file.name, nodes)?,
        Some(outputs) => {
            let outputs = outputs.into_iter().map(|name| of(name, "output")).collect::<Result<_, _>>()?;
            Graph::with_outputs(file.name, nodes, outputs)?
        }
    };
    graph.with_choices(choices)
}

#[cfg(test)]
mod tests {
    use crate::Graph;

    /// A network of the usual nodes, one of which has `words` more.
    fn network(node: &str, words: &str) -> Result<Graph, String> {
        let nodes = [
            ("in", r#""op": "input", "height": 4, "width": 4, "channels": 1"#),
            ("c1", r#""op": "conv", "out_channels": 2, "kernel": 1"#),
            ("n1", r#""op": "batch_norm""#),
            ("a1", r#""op": "act""#),
            ("sum", r#""op": "add", "inputs": ["a1", "n1"]"#),
            ("cat", r#""op": "concat", "inputs": ["sum", "c1"]"#),
            ("a2", r#""op": "act""#),
            ("pool", r#""op": "global_avg_pool""#),
            ("fc", r#""op": "linear", "out_features": 2"#),
        ];
        let written = nodes.map(|(name, rest)| {
            let more = if name == node { words } else { "" };
            format!(r#"{{ "name": "{name}", {rest}{more} }}"#)
        });
        let text = format!(r#"{{ "name": "x", "nodes": [{}] }}"#, written.join(","));
        let json = serde_json::from_str::<Graph>(&text).map_err(|error| error.to_string());
        let value: toml::Value = serde_json::from_str(&text).unwrap();
        let toml = value.try_into::<Graph>().map_err(|error| error.to_string());
        assert_eq!(json.as_ref().ok(), toml.as_ref().ok());
        json
    }

    #[test]
    fn keys_that_an_op_does_not_have_are_errors() {
        network("", "").unwrap();
        for (node, word) in [
            ("in", "kernel"),
            ("c1", "eps"),
            ("n1", "epsilon"),
            ("n1", "affine"),
            ("a1", "bits"),
            ("sum", "stride"),
            ("cat", "axis"),
            ("pool", "kernel"),
            ("fc", "kernel"),
        ] {
            let error = network(node, &format!(r#", "{word}": 1"#)).unwrap_err();
            assert!(error.contains(&format!("unknown field `{word}`")), "{node}: {error}");
        }
    }
}
