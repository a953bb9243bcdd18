//! The first checkpoint of a run.

use std::collections::BTreeMap;

use bitpact_core::{ALPHA_MIN, largest_clip};
use bitpact_data::epoch_order;
use bitpact_model::{Tensor, convert};

use super::evaluate::{CHUNK, evaluate_integer, evaluate_simulated};
use super::progress::Progress;
use super::resume::fingerprint;
use super::{Event, RunError, State, Trainer};
use crate::recipe::ClipInit;
use crate::{TrainBackend, initial_tensors};

/// Clip value before calibration sets it.
const BEFORE_CALIBRATION: f32 = 10.0;

/// Batches that running statistics are estimated from where weights are taken from elsewhere.
const STATISTICS_BATCHES: u64 = 16;

/// Which tensors a run took from another network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Names of the tensors that were taken.
    pub loaded: Vec<String>,
    /// Names of tensors of the network that the file lacks, which are initialized as usual.
    pub missing: Vec<String>,
    /// Names of tensors of the file that the network lacks.
    pub unused: Vec<String>,
    /// Batches from which batch norm's running statistics are estimated anew before the first step; 0 where those of
    /// the file are kept.
    pub statistics: u64,
}

impl Trainer<'_> {
    pub(super) fn start_fresh(
        &mut self,
        backend: &mut dyn TrainBackend,
        weights: Option<BTreeMap<String, Tensor>>,
    ) -> Result<State, RunError> {
        // Before its first checkpoint a run can be repeated from its recipe, unless it starts from other weights.
        let repeatable = weights.is_none();
        if repeatable {
            self.folder.begin(&self.setup.recipe)?;
            self.folder.write_config(&self.setup.recipe)?;
        }
        let mut tensors = self.initial_tensors();
        let (mut taken, mut statistics) = (Vec::new(), 0);
        if let Some(weights) = weights {
            let mut report = take_weights(&mut tensors, weights)?;
            report.statistics = self.statistics_batches(&report);
            self.start_weight_steps(&mut tensors, &report.loaded);
            (self.options.observer)(Event::Initialized(&report));
            (taken, statistics) = (report.loaded, report.statistics);
        }
        self.folder.begin(&self.setup.recipe)?;
        self.settle_clip_values(backend, tensors, &taken)?;
        if statistics > 0 {
            self.estimate_statistics(backend, statistics, 0);
            // An average begins with them.
            let tensors = backend.tensors();
            backend.load(&tensors, None)?;
        }
        if !repeatable {
            self.tell_accuracy(backend)?;
        }
        let progress = Progress {
            train_images: self.images.train.len() as u64,
            test_images: self.images.test.len() as u64,
            data: Some([fingerprint(self.images.train), fingerprint(self.images.test)]),
            teacher: self.setup.teacher.as_ref().map(|teacher| teacher.checksum),
            ..Progress::default()
        };
        let state = State { step: 0, progress };
        self.save(backend, &state)?;
        if !repeatable {
            self.folder.write_config(&self.setup.recipe)?;
        }
        Ok(state)
    }

    /// Measures the network as an epoch's end does: its integers, or its floats where it has none.
    fn tell_accuracy(&mut self, backend: &mut dyn TrainBackend) -> Result<(), RunError> {
        let (test, is_float) = (self.images.test, self.setup.plan.is_float());
        let observer = &mut *self.options.observer;
        let mut told = |done, images| observer(Event::Evaluating { simulated: is_float, done, images });
        let evaluation = if is_float {
            evaluate_simulated(backend, test, &mut told)?
        } else {
            let integers = convert(&self.setup.model(backend.tensors()))?.model;
            evaluate_integer(&integers, test, self.options.isa, self.options.threads, CHUNK, &mut told)?
        };
        observer(Event::Before(&evaluation));
        Ok(())
    }

    /// From how many batches running statistics are estimated anew after weights were taken: those of the file belong
    /// to float weights and activations, and a quantizer gives others (DoReFa's weights fill -1 to 1 whatever they
    /// were).
    fn statistics_batches(&self, report: &InitReport) -> u64 {
        let is_running = |name: &String| name.ends_with(".running_var");
        let names = || report.loaded.iter().chain(&report.missing);
        let fits = self.setup.plan.is_float() && !report.missing.iter().any(is_running);
        if fits || !names().any(is_running) { 0 } else { STATISTICS_BATCHES.min(self.setup.steps_per_epoch) }
    }

    /// Start values at the bits of the epoch under way.
    pub(super) fn initial_tensors(&self) -> BTreeMap<String, Tensor> {
        let recipe = &self.setup.recipe;
        let clip = match recipe.clip_init {
            ClipInit::Fixed(value) => value as f32,
            ClipInit::Calibrate { .. } => BEFORE_CALIBRATION,
        };
        initial_tensors(&self.setup.graph, &self.setup.plan, recipe.seed, clip)
    }

    /// Loads `tensors`, with the clip values that are not among `taken` calibrated where the recipe says so.
    pub(super) fn settle_clip_values(
        &mut self,
        backend: &mut dyn TrainBackend,
        mut tensors: BTreeMap<String, Tensor>,
        taken: &[String],
    ) -> Result<(), RunError> {
        backend.load(&tensors, None)?;
        let ClipInit::Calibrate { percentile, batches } = self.setup.recipe.clip_init else { return Ok(()) };
        let open: Vec<String> =
            tensors.keys().filter(|name| name.ends_with(".clip_val") && !taken.contains(name)).cloned().collect();
        if open.is_empty() {
            return Ok(());
        }
        let values = self.calibrate(backend, percentile, u64::from(batches))?;
        for name in open {
            if let (Some(&value), Some(tensor)) = (values.get(&name), tensors.get_mut(&name)) {
                tensor.data.fill(value);
            }
        }
        backend.load(&tensors, None)?;
        (self.options.observer)(Event::Calibrated(&values));
        Ok(())
    }

    /// Mean over the first batches of each clip value's percentile.
    fn calibrate(
        &self,
        backend: &mut dyn TrainBackend,
        percentile: f64,
        batches: u64,
    ) -> Result<BTreeMap<String, f32>, RunError> {
        let batches = batches.min(self.setup.steps_per_epoch);
        let batch_size = self.setup.recipe.batch_size;
        let order = epoch_order(self.setup.recipe.seed, 0, self.images.train.len());
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for indices in order.chunks_exact(batch_size).take(batches as usize) {
            let augmented = &self.batches;
            let fill = |i: usize, out: &mut [u8], place| augmented.fill(0, indices[i] as usize, out, place);
            for (name, value) in backend.calibrate(percentile, &fill)? {
                *sums.entry(name).or_default() += f64::from(value);
            }
        }
        let mean = |sum: f64| ((sum / batches as f64) as f32).max(ALPHA_MIN);
        Ok(sums.into_iter().map(|(name, sum)| (name, mean(sum))).collect())
    }
}

/// Puts the weights of another network into `tensors` where the names agree. Learned weight steps are not taken: they
/// belong to the width they were trained at. A layer's clip value becomes that of all its channels, and the largest of
/// the channels the layer's.
fn take_weights(
    tensors: &mut BTreeMap<String, Tensor>,
    weights: BTreeMap<String, Tensor>,
) -> Result<InitReport, RunError> {
    let mut report = InitReport { loaded: Vec::new(), missing: Vec::new(), unused: Vec::new(), statistics: 0 };
    let mut misfits = Vec::new();
    for (name, tensor) in weights {
        match tensors.get_mut(&name) {
            _ if name.ends_with(".weight_step") => report.unused.push(name),
            None => report.unused.push(name),
            Some(own) if own.data.len() == 1 && tensor.data.len() == 1 => {
                own.data = tensor.data;
                report.loaded.push(name);
            }
            Some(own) if own.shape == tensor.shape => {
                *own = tensor;
                report.loaded.push(name);
            }
            Some(own) if name.ends_with(".clip_val") && [own.data.len(), tensor.data.len()].contains(&1) => {
                own.data.fill(largest_clip(&tensor.data));
                report.loaded.push(name);
            }
            Some(own) => misfits.push(format!("`{name}` has shape {:?}, expected {:?}", tensor.shape, own.shape)),
        }
    }
    if !misfits.is_empty() {
        return Err(RunError::Init { what: misfits.join("; ") });
    }
    if report.loaded.is_empty() {
        let known = tensors.keys().take(3).cloned().collect::<Vec<_>>().join(", ");
        return Err(RunError::Init { what: format!("no tensor has a name of this network, such as {known}") });
    }
    // Convolutions and linear layers: norms and clip values of another network are no start for these.
    let is_product = |name: &&String| name.ends_with(".weight") && tensors[*name].shape.len() > 1;
    if !report.unused.is_empty() && !report.loaded.iter().any(|name| is_product(&name)) {
        let first = |names: &mut dyn Iterator<Item = &String>| names.take(3).cloned().collect::<Vec<_>>().join(", ");
        let (own, file) = (first(&mut tensors.keys().filter(is_product)), first(&mut report.unused.iter()));
        let what = format!(
            "only {} of the file's tensors have names of this network, and none is the weight of a layer such as {own}; the file has {file}",
            report.loaded.len()
        );
        return Err(RunError::Init { what });
    }
    report.missing = tensors.keys().filter(|name| !report.loaded.contains(name)).cloned().collect();
    Ok(report)
}
