//! Blocks chosen by shares that are trained with the weights (the supernet of PLiNIO, eml-eda/plinio, after DARTS: Liu
//! et al. 2019, arXiv 1806.09055).
//!
//! A choice of a network ([`bitpact_graph::Choice`]) computes `sum of s_i O_i(x)` over its alternatives O_i, s_i being
//! the softmax of its numbers, at first all 0, divided by a temperature that falls from 1 to 1/10 in the course of the
//! run. An alternative ends in a batch norm, whose weight and bias are multiplied by s_i. The gradient of s_i is that
//! of the loss; what is trained are the weights and biases without s_i. The loss gains the cost of the mixture
//! ([`Pressure`]). What is evaluated takes of every choice the alternative with the largest number, with statistics of
//! batch norms that are estimated anew.
//!
//! At the end the network without the other alternatives is another [`Model`].

mod supernet;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bitpact_model::Model;

use crate::prune::Pressure;
use crate::trainer::{Outcome, train_around};
use crate::{Images, Recipe, RunError, RunFolder, RunOptions, Start};

use supernet::Supernet;

/// Least batches from which the statistics of what is evaluated are estimated: those of mixtures are not its own.
const STATISTICS: u32 = 8;

/// What a search is told.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockOptions {
    /// Cost of each convolution and linear layer by its name; others cost nothing.
    pub costs: BTreeMap<String, f64>,
    /// How cost weighs.
    pub pressure: Pressure,
    /// Learning rate of the numbers; it does not follow the schedule.
    pub rate: f32,
}

/// What a choice came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// The addition of the alternatives.
    pub name: String,
    /// The batch norm that each alternative ends with.
    pub alternatives: Vec<String>,
    /// Share of each alternative at the end.
    pub shares: Vec<f64>,
    /// Position of the one that is taken.
    pub taken: usize,
}

/// A network without choices.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The network.
    pub model: Model,
    /// Every choice.
    pub picks: Vec<Pick>,
    /// Cost of the network with the most expensive alternatives, and of this one.
    pub costs: [f64; 2],
}

/// Trains `recipe`, whose network has choices, into `folder`, and takes one alternative of each; no network where the
/// run was stopped. Where the taken ones are above a target, alternatives are exchanged for cheaper ones, first those
/// whose shares lose least for what it takes off.
///
/// # Errors
/// Those of [`crate::train`]; a recipe whose bits change; a network without choices; a target that no or any choice
/// meets.
pub fn choose<'a>(
    recipe: &Recipe,
    images: Images<'a>,
    folder: &'a RunFolder,
    start: Start,
    options: RunOptions<'a>,
    search: &BlockOptions,
) -> Result<(Outcome, Option<Chosen>), RunError> {
    let recipe = &Recipe { bn_reestimate: recipe.bn_reestimate.max(STATISTICS), ..recipe.clone() };
    let (outcome, model, supernet) = train_around(recipe, images, folder, start, options, |setup, inner, steps| {
        let supernet = Supernet::new(inner, &setup.graph, search, steps);
        check(setup.graph.name(), &supernet, search.pressure)?;
        Ok(supernet)
    })?;
    if !outcome.finished {
        return Ok((outcome, None));
    }
    let taken = supernet.taken(match search.pressure {
        Pressure::Target(target) => target,
        Pressure::Strength(_) => f64::INFINITY,
    });
    let graph = model.graph.chosen(&taken).map_err(crate::TrainError::from)?;
    let plan = recipe.plan_of(&graph, recipe.bits.at(0))?;
    let all = supernet.whole_tensors();
    let tensor = |(name, _)| {
        let tensor = all[&name].clone();
        (name, tensor)
    };
    let tensors = Model::tensor_shapes(&graph, &plan).into_iter().map(tensor).collect();
    let costs = [supernet.most(), supernet.cost_of(&taken)];
    let picks = supernet.picks(&model.graph, &taken);
    Ok((outcome, Some(Chosen { model: Model { graph, plan, tensors, ..model }, picks, costs })))
}

fn check(network: &str, supernet: &Supernet, pressure: Pressure) -> Result<(), RunError> {
    let wrong = |what: String| Err(RunError::Search { what });
    if !supernet.has_choices() {
        return wrong(format!("{network} has no choices: expected a network file with `choices = [\"NODE\", ...]`"));
    }
    let (least, most) = (supernet.least(), supernet.most());
    match pressure {
        Pressure::Target(target) if target < least => {
            wrong(format!("a cost of {target}, and with the cheapest alternatives it is {least}"))
        }
        Pressure::Target(target) if target >= most => wrong(format!(
            "a cost of {target}, and with the most expensive alternatives it is {most}: any choice meets it"
        )),
        _ => Ok(()),
    }
}
