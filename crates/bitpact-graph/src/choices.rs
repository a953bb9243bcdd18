//! Alternatives of which a network is to have one.

use crate::{Graph, GraphError, Node, NodeId, Op};

/// A sum of which one term is to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The addition of the alternatives.
    pub node: NodeId,
    /// Its terms, in the order of its inputs.
    pub alternatives: Vec<Alternative>,
}

/// A branch that a choice may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The batch norm that the branch ends with.
    pub norm: NodeId,
    /// Nodes that nothing else depends on, the batch norm among them.
    pub nodes: Vec<NodeId>,
}

impl Graph {
    /// The choices that the network's file marks, in the order of computation; none as a rule.
    pub fn choices(&self) -> Vec<Choice> {
        let choice = |&node: &NodeId| {
            let of = |&norm: &NodeId| Alternative { norm, nodes: self.private(norm) };
            Choice { node, alternatives: self.node(node).inputs.iter().map(of).collect() }
        };
        self.choice_nodes().iter().map(choice).collect()
    }

    /// Marks additions as choices between their terms.
    ///
    /// # Errors
    /// A node that is no addition or is an output; a term that is no batch norm which the addition alone reads; a
    /// choice within an alternative of another.
    pub fn with_choices(mut self, mut nodes: Vec<NodeId>) -> Result<Self, GraphError> {
        nodes.sort_unstable();
        nodes.dedup();
        for &node in &nodes {
            let fail = |what: String| Err(GraphError::Pattern { node: self.node(node).name.clone(), what });
            if self.node(node).op != Op::Add || self.is_output(node) {
                return fail("a choice is an `add` that other nodes read".to_owned());
            }
            for &norm in &self.node(node).inputs {
                let name = &self.node(norm).name;
                if !matches!(self.node(norm).op, Op::BatchNorm(_)) || self.consumers(norm) != [node] {
                    return fail(format!(
                        "alternative `{name}` of the choice: expected a batch_norm that nothing else reads (an identity \
                         is a batch_norm alone)"
                    ));
                }
                if let Some(inner) = self.private(norm).iter().find(|id| nodes.contains(id)) {
                    let inner = &self.node(*inner).name;
                    return fail(format!("alternative `{name}` holds another choice, `{inner}`"));
                }
            }
        }
        self.set_choice_nodes(nodes);
        Ok(self)
    }

    /// The network with alternative `taken[i]` of choice i, without what then nothing reads, and without choices.
    ///
    /// # Panics
    /// If `taken` is not one alternative for each choice.
    ///
    /// # Errors
    /// Those of [`Graph::with_outputs`].
    pub fn chosen(&self, taken: &[usize]) -> Result<Self, GraphError> {
        let choices = self.choices();
        assert_eq!(choices.len(), taken.len(), "one alternative for each choice");
        let mut place: Vec<NodeId> = (0..self.nodes().len()).collect();
        for (choice, &taken) in choices.iter().zip(taken) {
            place[choice.node] = choice.alternatives[taken].norm;
        }
        let mut is_read = vec![false; place.len()];
        self.outputs().iter().for_each(|&id| is_read[id] = true);
        for id in (0..place.len()).rev().filter(|&id| place[id] == id) {
            // A choice reads nothing: what reads it reads its alternative, an earlier node.
            if is_read[id] {
                self.node(id).inputs.iter().for_each(|&input| is_read[place[input]] = true);
            }
        }
        let mut numbers = vec![0; place.len()];
        let mut nodes = Vec::new();
        for id in (0..place.len()).filter(|&id| is_read[id] && place[id] == id) {
            numbers[id] = nodes.len();
            let node = self.node(id);
            nodes.push(Node { inputs: node.inputs.iter().map(|&i| numbers[place[i]]).collect(), ..node.clone() });
        }
        let outputs = self.outputs().iter().map(|&id| numbers[id]).collect();
        Self::with_outputs(self.name(), nodes, outputs)
    }

    /// Node `end` and those before it that only it depends on, in the order of computation.
    fn private(&self, end: NodeId) -> Vec<NodeId> {
        let mut found = vec![end];
        for id in (1..end).rev() {
            let readers = self.consumers(id);
            if !readers.is_empty() && !self.is_output(id) && readers.iter().all(|reader| found.contains(reader)) {
                found.push(id);
            }
        }
        found.reverse();
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::Graph;

    const FILE: &str = r#"
name = "two"
choices = ["block"]
nodes = [
  { name = "in", op = "input", height = 4, width = 4, channels = 3 },
  { name = "stem", op = "conv", out_channels = 8, kernel = 3, padding = 1 },
  { name = "stem.bn", op = "batch_norm" },
  { name = "stem.act", op = "act" },
  { name = "same.bn", op = "batch_norm", inputs = ["stem.act"] },
  { name = "conv", op = "conv", out_channels = 8, kernel = 3, padding = 1, inputs = ["stem.act"] },
  { name = "conv.bn", op = "batch_norm" },
  { name = "depth", op = "conv", out_channels = 8, kernel = 3, padding = 1, groups = 8, inputs = ["stem.act"] },
  { name = "depth.bn", op = "batch_norm" },
  { name = "depth.act", op = "act" },
  { name = "point", op = "conv", out_channels = 8, kernel = 1 },
  { name = "point.bn", op = "batch_norm" },
  { name = "block", op = "add", inputs = ["same.bn", "conv.bn", "point.bn"] },
  { name = "sum", op = "add", inputs = ["block", "stem.act"] },
  { name = "act", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 2 },
]
"#;

    fn read(text: &str) -> Result<Graph, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_alternative_has_the_nodes_that_nothing_else_reads_and_the_others_go() {
        let graph = read(FILE).unwrap();
        let choices = graph.choices();
        let names = |ids: &[usize]| ids.iter().map(|&id| graph.node(id).name.as_str()).collect::<Vec<_>>();
        let [choice] = &choices[..] else { panic!("{choices:?}") };
        let private: Vec<_> = choice.alternatives.iter().map(|one| names(&one.nodes)).collect();
        let separable = vec!["depth", "depth.bn", "depth.act", "point", "point.bn"];
        assert_eq!(private, [vec!["same.bn"], vec!["conv", "conv.bn"], separable.clone()]);
        for (taken, own) in private.iter().enumerate() {
            let small = graph.chosen(&[taken]).unwrap();
            let left: Vec<_> = small.nodes().iter().map(|node| node.name.as_str()).collect();
            let before = ["in", "stem", "stem.bn", "stem.act"];
            let after = ["sum", "act", "pool", "linear"];
            let expected: Vec<_> = before.into_iter().chain(own.iter().copied()).chain(after).collect();
            assert_eq!(left, expected);
            let sum = small.node(small.find("sum").unwrap());
            assert_eq!(sum.inputs, [small.find(own.last().unwrap()).unwrap(), 3]);
            assert!(small.choices().is_empty());
        }
    }

    #[test]
    fn what_is_written_is_read_again_with_its_choices() {
        let graph = read(FILE).unwrap();
        assert_eq!(read(&toml::to_string(&graph).unwrap()).unwrap(), graph);
    }

    #[test]
    fn marks_that_are_no_choices_are_refused() {
        let cases = [
            ("[\"block\"]", "[\"none\"]", "`none`: no node of this name"),
            ("[\"block\"]", "[\"act\"]", "`act`: a choice is an `add`"),
            ("[\"block\"]", "[\"sum\"]", "alternative `block` of the choice"),
            ("[\"same.bn\", ", "[\"stem.act\", ", "alternative `stem.act` of the choice"),
            ("[\"same.bn\", ", "[\"conv.bn\", ", "alternative `conv.bn` of the choice"),
        ];
        for (from, to, expected) in cases {
            let text = FILE.replacen(from, to, 1);
            let text = if to.starts_with("[\"stem") || to.starts_with("[\"conv") {
                text.replacen("  { name = \"same.bn\", op = \"batch_norm\", inputs = [\"stem.act\"] },\n", "", 1)
            } else {
                text
            };
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_choice_within_another_is_refused() {
        let inner = r#"  { name = "inner", op = "add", inputs = ["same.bn", "conv.bn"] },
  { name = "inner.bn", op = "batch_norm" },
  { name = "block""#;
        let text = FILE.replacen("  { name = \"block\"", inner, 1);
        let text = text.replacen("[\"same.bn\", \"conv.bn\", \"point.bn\"]", "[\"inner.bn\", \"point.bn\"]", 1);
        let error = read(&text.replacen("[\"block\"]", "[\"block\", \"inner\"]", 1)).unwrap_err();
        assert!(error.contains("`inner.bn` holds another choice, `inner`"), "{error}");
    }
}
