//! Which activations a tensor's codes come from, and which of them share a clip value.

use std::collections::BTreeSet;

use crate::{Graph, NodeId, Op};

impl Graph {
    /// The activations whose codes reach a node through pools, views, dropout and concatenations, in the order of
    /// computation; none for the image and for sums of products.
    pub fn source_acts(&self, id: NodeId) -> Vec<NodeId> {
        let mut acts = BTreeSet::new();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            match self.node(id).op {
                Op::Act { .. } => {
                    acts.insert(id);
                }
                Op::MaxPool(_)
                | Op::AvgPool(_)
                | Op::GlobalAvgPool
                | Op::Concat
                | Op::Dropout { .. }
                | Op::View(_)
                | Op::Subsample { .. } => {
                    stack.extend(&self.node(id).inputs);
                }
                _ => {}
            }
        }
        acts.into_iter().collect()
    }

    /// For every activation the one that holds its clip value, itself or an earlier one: the codes that a concatenation
    /// puts side by side have one scale, so their activations share the clip value of the first of them. Other nodes
    /// stand for themselves.
    pub fn clip_owners(&self) -> Vec<NodeId> {
        let mut owners: Vec<NodeId> = (0..self.nodes().len()).collect();
        for id in (0..owners.len()).filter(|&id| self.node(id).op == Op::Concat) {
            let groups: BTreeSet<NodeId> = self.source_acts(id).into_iter().map(|act| owners[act]).collect();
            let Some(&first) = groups.first() else { continue };
            for owner in &mut owners {
                if groups.contains(owner) {
                    *owner = first;
                }
            }
        }
        owners
    }
}
