//! Going on from a checkpoint: with exactly what the run began with, or not at all.

use std::io::ErrorKind;

use bitpact_data::{Dataset, read_images};
use bitpact_model::{Checkpoint, IntegerModel, Model, ModelError, TrainingState, convert};

use super::progress::{Lengthening, Progress};
use super::{Event, RunError, State, Trainer};
use crate::recipe::{Draft, Recipe};
use crate::records::Record;
use crate::run_folder::{BEST, LAST, MODEL, RECORDS};
use crate::{OptimizerState, TrainBackend};

/// Pixels up to which every image of a half counts in its fingerprint.
const WHOLE: usize = 1 << 29;
/// Images that count in a larger half, spread evenly over it.
const SAMPLED: usize = 4096;

/// Images of a slow set that are read at once.
const READ_AT_ONCE: usize = 256;

/// CRC-32 of all labels and of the pixels of all images in their order, of a large half of [`SAMPLED`] of them.
pub(super) fn fingerprint(images: &dyn Dataset) -> u32 {
    let (mut crc, n) = (crc32fast::Hasher::new(), images.len());
    for i in 0..n {
        crc.update(&(images.label(i) as u32).to_le_bytes());
    }
    let mut pixels = vec![0; images.bytes_shape().len()];
    let counted = if n.saturating_mul(pixels.len()) <= WHOLE { n } else { n.min(SAMPLED) };
    if images.is_slow() && counted == n {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        for first in (0..n).step_by(READ_AT_ONCE) {
            pixels.resize(READ_AT_ONCE.min(n - first) * images.bytes_shape().len(), 0);
            read_images(images, first, &mut pixels, threads);
            crc.update(&pixels);
        }
        return crc.finalize();
    }
    for i in 0..counted {
        images.image((i as u64 * n as u64 / counted as u64) as usize, &mut pixels);
        crc.update(&pixels);
    }
    crc.finalize()
}

impl Trainer<'_> {
    pub(super) fn start_from(
        &mut self,
        backend: &mut dyn TrainBackend,
        checkpoint: Checkpoint,
    ) -> Result<State, RunError> {
        self.folder.own()?;
        let path = self.folder.file(LAST);
        let misfit = |what: String| RunError::Checkpoint { path: path.clone(), what };
        let Some(training) = &checkpoint.training else { return Err(RunError::NotResumable { path }) };
        let progress: Progress = serde_json::from_value(training.progress.clone())
            .map_err(|error| misfit(format!("training progress: {error}")))?;
        let mut state = State { step: training.step, progress };
        let began = Draft::parse(&training.recipe, &format!("{}, recipe", path.display()))?.stored().finish()?;
        self.folder.check_config(&began, state.progress.lengthened.iter().map(|lengthening| lengthening.from))?;
        self.check_recipe(&began, &state.progress).map_err(misfit)?;
        self.check_images(&state.progress).map_err(misfit)?;
        self.enter_trained_bits(backend, &state)?;
        self.check_place(&checkpoint, &state).map_err(misfit)?;
        self.check_files(&checkpoint.model, &state)?;
        self.folder.cut_records(state.step)?;
        self.load(backend, checkpoint)?;
        let (from, to) = (began.epochs, self.setup.recipe.epochs);
        if from != to {
            // The checkpoint is the truth, and the first to know.
            state.progress.lengthened.push(Lengthening { step: state.step, from, to });
            self.save(backend, &state)?;
            let had = began.schedule(self.setup.steps_per_epoch).lr(state.step.saturating_sub(1));
            (self.options.observer)(Event::Lengthened { from, to, lr: [had, self.schedule.lr(state.step)] });
        }
        self.folder.write_config(&self.setup.recipe)?;
        Ok(state)
    }

    fn check_recipe(&self, began: &Recipe, progress: &Progress) -> Result<(), String> {
        let changes = began.differences(&self.setup.recipe);
        // The teacher is known by its tensors, wherever it lies.
        match changes.iter().find(|(key, ..)| !["epochs", "teacher"].contains(&key.as_str())) {
            Some((key, was, is)) => Err(format!("the run began with `{key}` as {was}, now it is {is}")),
            None if progress.epochs_done > self.setup.recipe.epochs => {
                let (done, asked) = (progress.epochs_done, self.setup.recipe.epochs);
                Err(format!("{done} epochs are done, more than the {asked} asked for"))
            }
            None => Ok(()),
        }
    }

    fn check_images(&self, progress: &Progress) -> Result<(), String> {
        let (train, test) = (self.images.train.len() as u64, self.images.test.len() as u64);
        if (progress.train_images, progress.test_images) != (train, test) {
            let (trained, tested) = (progress.train_images, progress.test_images);
            return Err(format!(
                "the run began with {trained} training and {tested} test images, now there are {train} and {test}"
            ));
        }
        let halves = [("training", self.images.train), ("test", self.images.test)];
        // A run of before there were fingerprints has none.
        for ((half, images), began) in halves.into_iter().zip(progress.data.into_iter().flatten()) {
            let now = fingerprint(images);
            if began != now {
                return Err(format!(
                    "the run began with other {half} images: their checksum was {began:08x}, now it is {now:08x}"
                ));
            }
        }
        let teacher = self.setup.teacher.as_ref().map(|teacher| teacher.checksum);
        if progress.teacher != teacher {
            let shown = |sum: Option<u32>| sum.map_or("none".to_owned(), |sum| format!("one with checksum {sum:08x}"));
            let (began, now) = (shown(progress.teacher), shown(teacher));
            return Err(format!("the run began with another teacher: {began}, now there is {now}"));
        }
        Ok(())
    }

    /// Plans the bits of the last step; those of the epoch to come are changed to when it begins.
    fn enter_trained_bits(&mut self, backend: &mut dyn TrainBackend, state: &State) -> Result<(), RunError> {
        let (done, steps) = (u64::from(state.progress.epochs_done), self.setup.steps_per_epoch);
        let trained = state.progress.epochs_done - u32::from(done > 0 && state.step <= done * steps);
        let plan = self.setup.plan_at(trained)?;
        if plan != self.setup.plan {
            backend.replan(&plan)?;
            self.setup.plan = plan;
        }
        Ok(())
    }

    fn check_place(&self, checkpoint: &Checkpoint, state: &State) -> Result<(), String> {
        let (model, setup) = (&checkpoint.model, &self.setup);
        if model.graph != setup.graph || model.plan != setup.plan || model.input != setup.input {
            return Err("its network is not the one of its recipe".to_owned());
        }
        if model.class_names != setup.class_names {
            return Err("its class names are not those of the images".to_owned());
        }
        let (done, steps) = (u64::from(state.progress.epochs_done), setup.steps_per_epoch);
        if state.step < done * steps || state.step > (done + 1) * steps {
            return Err(format!("step {} does not lie in epoch {}", state.step, done + 1));
        }
        Ok(())
    }

    /// Whether the files that the run wrote before its checkpoint stand beside it. The integers of the last epoch are
    /// made anew from `model`, the network of the checkpoint, where they do not.
    fn check_files(&mut self, model: &Model, state: &State) -> Result<(), RunError> {
        let done = state.progress.epochs_done;
        let damaged = |name: &str, what: String| Err(RunError::Damaged { path: self.folder.file(name), what });
        let reason = |error: ModelError| match error {
            ModelError::Read { source, .. } if source.kind() == ErrorKind::NotFound => "missing".to_owned(),
            error => format!("damaged ({error})"),
        };
        let recorded = self.folder.records()?.into_iter().filter_map(|record| match record {
            Record::Epoch(record) if record.step <= state.step => Some(record.epoch),
            _ => None,
        });
        let recorded: Vec<u32> = recorded.collect();
        if !recorded.iter().copied().eq(1..=done) {
            return damaged(RECORDS, format!("it tells of {} whole epochs, and {done} are done", recorded.len()));
        }
        if state.progress.best_hits.is_some() {
            match Checkpoint::load(self.folder.file(BEST)) {
                Err(error) => return damaged(BEST, reason(error)),
                Ok(best) if best.model.graph != self.setup.graph => {
                    return damaged(BEST, "it holds another network".to_owned());
                }
                Ok(_) => {}
            }
        }
        // In the middle of an epoch the file is that of the epoch before, and soon replaced.
        let stands_at_end = done > 0 && state.step == u64::from(done) * self.setup.steps_per_epoch;
        if !stands_at_end || model.plan.is_float() {
            return Ok(());
        }
        let Err(error) = IntegerModel::load(self.folder.file(MODEL)) else { return Ok(()) };
        let why = reason(error);
        self.folder.write(MODEL, &convert(model)?.model.to_bytes()?)?;
        (self.options.observer)(Event::Rebuilt { file: MODEL, why: &why });
        Ok(())
    }

    fn load(&self, backend: &mut dyn TrainBackend, checkpoint: Checkpoint) -> Result<(), RunError> {
        let Checkpoint { model, training: Some(training), .. } = checkpoint else {
            return Err(RunError::NotResumable { path: self.folder.file(LAST) });
        };
        let TrainingState { momentum, second_moment, optimizer_steps, raw, .. } = training;
        let (tensors, average) = match self.setup.recipe.ema_decay > 0.0 {
            true => (raw, Some(model.tensors)),
            false => (model.tensors, None),
        };
        let optimizer = OptimizerState { steps: optimizer_steps, momentum, second_moment, average };
        Ok(backend.load(&tensors, Some(&optimizer))?)
    }
}
