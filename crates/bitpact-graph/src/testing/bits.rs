//! Bits and quantizers of every layer.

use std::collections::BTreeMap;

use bitpact_core::{ActQuant, Bits, Granularity, Grid, WeightQuant, WeightSpec};

use super::Choices;
use crate::{ActPlan, Graph, Op, QuantPlan, WeightPlan};

/// One network in eight is a float network; else every layer has its own.
pub(super) fn plan(choices: &mut Choices, graph: &Graph) -> QuantPlan {
    let is_float = choices.one_in(8);
    let mut plan = QuantPlan { weights: BTreeMap::new(), activations: BTreeMap::new() };
    for node in graph.nodes().iter().filter(|node| node.op.is_product()) {
        let weights = if is_float { WeightPlan::Float } else { weights(choices) };
        plan.weights.insert(node.name.clone(), weights);
    }
    if is_float {
        return plan;
    }
    let owners = graph.clip_owners();
    for (id, node) in graph.nodes().iter().enumerate().filter(|(_, node)| node.op.is_act()) {
        let is_alone = owners.iter().filter(|&&owner| owner == owners[id]).count() == 1;
        let act = match plan.activations.get(&graph.node(owners[id]).name) {
            Some(&act) => act,
            None => activation(choices, node.op == (Op::Act { signed: true }), is_alone),
        };
        plan.activations.insert(node.name.clone(), act);
    }
    plan
}

fn weights(choices: &mut Choices) -> WeightPlan {
    let bits = choices.below(9);
    let Some(bits) = Bits::new(8 - bits as u8) else { return WeightPlan::Float };
    use WeightQuant::{Dorefa, Lsq, Minmax, Sawb, SawbPlus};
    let quant = choices.of(&[Minmax, Dorefa, Sawb, SawbPlus, Lsq]);
    let grid = choices.of(&[None, Some(Grid::WithZero), Some(Grid::WithoutZero)]);
    let scale = choices.of(&[None, Some(Granularity::Layer), Some(Granularity::Channel)]);
    // What a quantizer does not have, it has as usual.
    let all = [(grid, scale), (grid, None), (None, scale), (None, None)];
    let spec = all.into_iter().find_map(|(grid, scale)| WeightSpec::with_scale(bits, quant, grid, scale).ok());
    WeightPlan::Quantized(spec.expect("every quantizer has its usual grid and scale"))
}

fn activation(choices: &mut Choices, is_signed: bool, is_alone: bool) -> ActPlan {
    let bits = Bits::new(8 - choices.below(8) as u8).expect("1 to 8");
    use ActQuant::{Fixed, Lsq, Pact, PactPlus, PactSym, Relu, Sign};
    let quant = if is_signed {
        choices.of(&[PactSym, PactSym, PactSym, Sign])
    } else {
        choices.of(&[Pact, PactPlus, Lsq, Fixed, Relu, Sign])
    };
    let bits = match quant {
        Sign => Bits::new(1).expect("1 is a width"),
        PactSym => bits.max(Bits::new(2).expect("2 is a width")),
        _ => bits,
    };
    let in_channels = choices.one_in(3) && is_alone && quant.has_channel_clips();
    let clip_scale = if in_channels { Granularity::Channel } else { Granularity::Layer };
    ActPlan { bits, quant, clip_scale }
}
