//! What of the network in training is evaluated, converted and saved.

use bitpact_data::epoch_order;
use bitpact_model::{Checkpoint, Model, TrainingState};

use super::evaluate::rank;
use super::{RunError, State, Trainer};
use crate::run_folder::LAST;
use crate::{OptimizerState, TrainBackend};

impl Trainer<'_> {
    /// The network as it is after epoch `epoch`, from 0: the average of its tensors where one is kept, with running
    /// statistics estimated anew where the recipe says so. It is left in the backend, to be evaluated, until
    /// [`TrainBackend::swap_average`].
    pub(super) fn deploy(&self, backend: &mut dyn TrainBackend, epoch: u32) -> Model {
        backend.swap_average();
        self.estimate_statistics(backend, u64::from(self.setup.recipe.bn_reestimate), u64::from(epoch));
        self.setup.model(backend.tensors())
    }

    /// Estimates the running statistics from the first `batches` batches of `epoch`; nothing where that is 0.
    pub(super) fn estimate_statistics(&self, backend: &mut dyn TrainBackend, batches: u64, epoch: u64) {
        let batches = batches.min(self.setup.steps_per_epoch);
        if batches == 0 {
            return;
        }
        let order = epoch_order(self.setup.recipe.seed, epoch, self.images.train.len());
        let augmented = &self.batches;
        for (batch, indices) in (0..batches).zip(order.chunks_exact(self.setup.recipe.batch_size)) {
            let fill = |i: usize, out: &mut [u8], place| augmented.fill(epoch, indices[i] as usize, out, place);
            backend.reestimate(batch, &fill);
        }
    }

    /// The simulated accuracy on the first batch of epoch `epoch`, from 0, as it was learned from.
    pub(super) fn top1_in_training(&self, backend: &mut dyn TrainBackend, epoch: u32) -> f64 {
        let (epoch, batch_size) = (u64::from(epoch), self.setup.recipe.batch_size);
        let order = epoch_order(self.setup.recipe.seed, epoch, self.images.train.len());
        let batches = &self.batches;
        let fill = |i: usize, out: &mut [u8], place| {
            batches.fill_step(epoch, &order[..batch_size], i, None, &|_| None, out, place)
        };
        let mut logits = Vec::new();
        backend.simulate(batch_size, &fill, &mut logits);
        let classes = logits.len() / batch_size;
        let is_right = |(i, logits): (usize, &[f32])| rank(logits, self.images.train.label(order[i] as usize)) == 0;
        let right = logits.chunks_exact(classes).enumerate().filter(|row| is_right(*row)).count();
        right as f64 / batch_size as f64
    }

    /// Writes the checkpoint.
    pub(super) fn save(&self, backend: &dyn TrainBackend, state: &State) -> Result<(), RunError> {
        let OptimizerState { steps, momentum, second_moment, average } = backend.optimizer_state();
        let tensors = backend.tensors();
        let (tensors, raw) = match average {
            Some(average) => (average, tensors),
            None => (tensors, Default::default()),
        };
        let training = TrainingState {
            recipe: self.setup.recipe.to_toml(),
            step: state.step,
            progress: serde_json::to_value(&state.progress).expect("progress is plain numbers and names"),
            momentum,
            second_moment,
            optimizer_steps: steps,
            raw,
        };
        let checkpoint = Checkpoint { model: self.setup.model(tensors), training: Some(training), note: None };
        self.folder.write(LAST, &checkpoint.to_bytes()?)
    }
}
