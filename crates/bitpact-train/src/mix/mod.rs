//! Bits of weights that are trained with the weights: differentiable mixed precision (MPS of PLiNIO, Risso et al. 2022,
//! arXiv 2206.08852).
//!
//! A layer l with widths p computes with `sum of w_p Q_p(w)`, w_p being the softmax of its numbers a_p divided by a
//! temperature that falls from 1 to 1/10 in the course of the run, and Q_p the quantizer of the recipe at p bits. The
//! gradient of w is that of the sum (straight-through), the gradient of w_p the sum of it times Q_p(w). At first a_p is
//! p divided by the largest width. The loss gains the cost of the mixture above each budget. Activations have the bits
//! of the recipe, and are quantized as ever. What is evaluated has of every layer the width with the largest number.

mod blend;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bitpact_core::WeightSpec;
use bitpact_model::Model;

use crate::trainer::{Outcome, train_around};
use crate::{Images, Recipe, RunError, RunFolder, RunOptions, Start, TrainBackend};

use blend::Blended;

/// A width that a layer may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Width {
    /// How weights of this width are quantized.
    pub spec: WeightSpec,
    /// Cost of the layer at this width, one for each budget.
    pub costs: Vec<f64>,
}

/// What a search is told.
#[derive(Debug, Clone, PartialEq)]
pub struct MixOptions {
    /// The widths of every layer that is searched, by its name, in ascending order.
    pub widths: BTreeMap<String, Vec<Width>>,
    /// Cost of everything else, and the most that there may be in all, for each budget; the weight of the cost above it
    /// is as for [`crate::prune::Pressure::Target`].
    pub budgets: Vec<(f64, f64)>,
    /// Learning rate of the numbers; it does not follow the schedule.
    pub rate: f32,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// The network, its searched layers with float weights.
    pub model: Model,
    /// The share of every width in each searched layer, in the order of [`MixOptions::widths`].
    pub shares: BTreeMap<String, Vec<f64>>,
}

/// Trains `recipe`, in which the searched layers have float weights, with mixtures into `folder`; none where the run
/// was stopped.
///
/// # Errors
/// Those of [`crate::train`]; a recipe whose bits change, layers whose weights are not float in it, one width, or a
/// quantizer with learned steps.
pub fn search<'a>(
    recipe: &Recipe,
    images: Images<'a>,
    folder: &'a RunFolder,
    start: Start,
    options: RunOptions<'a>,
    search: &MixOptions,
) -> Result<(Outcome, Option<Mixture>), RunError> {
    let wrong = |what: String| Err(RunError::Search { what });
    let (outcome, model, blended) = train_around(recipe, images, folder, start, options, |setup, inner, steps| {
        for (layer, widths) in &search.widths {
            if setup.plan.weights.get(layer) != Some(&bitpact_graph::WeightPlan::Float) {
                return wrong(format!("layer `{layer}` has no float weights in the recipe"));
            }
            if widths.len() < 2 {
                return wrong(format!("layer `{layer}` has one width, which chooses nothing"));
            }
            if widths.iter().any(|width| width.spec.quant.is_learned()) {
                return wrong("`lsq` learns a step for one width; expected another weight quantizer".to_owned());
            }
        }
        Ok(Blended::new(inner, &setup.graph, search, steps))
    })?;
    if !outcome.finished {
        return Ok((outcome, None));
    }
    let mut tensors = TrainBackend::tensors(&blended);
    for (name, weights) in blended.weights() {
        tensors.get_mut(name).expect("a weight of the network").data.clone_from(weights);
    }
    Ok((outcome, Some(Mixture { model: Model { tensors, ..model }, shares: blended.shares() })))
}
