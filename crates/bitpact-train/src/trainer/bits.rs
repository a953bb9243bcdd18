//! Changing the bits in the course of a run.

use std::collections::BTreeMap;

use bitpact_model::{Model, Tensor};

use super::{Event, RunError, State, Trainer};
use crate::TrainBackend;

impl Trainer<'_> {
    /// Changes the bits where the epoch to come has others. Weights, batch norms and clip values keep their values.
    /// Learned weight steps, which belong to a width, start from the weights, and clip values that were not there start
    /// as in a new run. The optimizer and the average begin anew, and so does the search for the best epoch.
    ///
    /// Everything of it follows from the recipe and the tensors, so a run that is resumed here does the same again.
    pub(super) fn enter_epoch(&mut self, backend: &mut dyn TrainBackend, state: &mut State) -> Result<(), RunError> {
        let epoch = state.progress.epochs_done;
        let plan = self.setup.plan_at(epoch)?;
        if plan == self.setup.plan {
            return Ok(());
        }
        let mut old = backend.tensors();
        self.setup.plan = plan;
        backend.replan(&self.setup.plan)?;
        let start = self.initial_tensors();
        let mut kept = Vec::new();
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (name, first) in start {
            let old = old.remove(&name).filter(|_| !name.ends_with(".weight_step"));
            let tensor = match old {
                Some(tensor) => {
                    kept.push(name.clone());
                    tensor
                }
                None => first,
            };
            tensors.insert(name, tensor);
        }
        self.start_weight_steps(&mut tensors, &kept);
        (self.options.observer)(Event::Bits { epoch: epoch + 1, bits: self.setup.recipe.bits.at(epoch) });
        self.settle_clip_values(backend, tensors, &kept)?;
        state.progress.best_hits = None;
        state.progress.alphas.clear();
        Ok(())
    }

    /// Sets the learned steps of the layers whose weights are among `taken` to what they start with for these weights.
    pub(super) fn start_weight_steps(&self, tensors: &mut BTreeMap<String, Tensor>, taken: &[String]) {
        for name in taken {
            let Some(layer) = name.strip_suffix(".weight") else { continue };
            if let Some(step) = Model::first_weight_step(&self.setup.graph, &self.setup.plan, layer, &tensors[name]) {
                tensors.insert(format!("{layer}.weight_step"), step);
            }
        }
    }
}
