//! The training loop: epochs of batches, after each epoch the integer network and its accuracy, and a checkpoint.

mod batches;
mod bits;
mod deploy;
mod error;
mod evaluate;
mod movement;
mod progress;
mod resume;
mod setup;
mod start;
mod teacher;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bitpact_core::rng::Key;
use bitpact_data::{Ahead, Dataset, Placement, Prepared, Subset, epoch_order};
use bitpact_graph::BitSpec;
use bitpact_kernels::Isa;
use bitpact_model::{Checkpoint, Model, Tensor, convert};

use crate::recipe::Recipe;
use crate::records::{EpochRecord, Record, WarningRecord};
use crate::run_folder::{BEST, BEST_HELD_OUT_NOTE, BEST_NOTE, MODEL, RunFolder};
use crate::schedule::Schedule;
use crate::{BackendKind, LossInput, StepInput, Targets, TrainBackend, TrainError};

pub(crate) use batches::Batches;
use movement::CodeHistory;
use progress::{Progress, Sums};
use teacher::Teaching;

pub use error::RunError;
pub use evaluate::{Evaluation, evaluate_integer, evaluate_simulated, simulated_loss, simulated_measures};
pub use setup::Setup;
pub use start::InitReport;
pub use teacher::Teacher;

/// The two halves of a data set that a run uses.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Images to learn from.
    pub train: &'a dyn Dataset,
    /// Images to measure on.
    pub test: &'a dyn Dataset,
}

/// Where a run begins.
pub enum Start {
    /// At step 0, with random weights, or with those of `weights` whose names the network has.
    Fresh {
        /// Tensors by the names of [`Model::tensor_shapes`]; others are left aside.
        weights: Option<BTreeMap<String, Tensor>>,
    },
    /// Where a checkpoint stopped.
    Resume(Box<Checkpoint>),
}

/// What does not change the result of a run.
pub struct RunOptions<'a> {
    /// Backend of the steps.
    pub backend: BackendKind,
    /// Instruction set of the integer network's evaluation.
    pub isa: Isa,
    /// Threads of the integer network's evaluation.
    pub threads: usize,
    /// Set by anyone who wants the run to stop: it saves a checkpoint after the step under way and returns.
    pub stop: &'a AtomicBool,
    /// Told what happens.
    pub observer: &'a mut dyn FnMut(Event<'_>),
}

/// What happens in a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training begins, or goes on, after `step` of `total_steps` steps.
    Start {
        /// Steps done.
        step: u64,
        /// Steps of the whole run.
        total_steps: u64,
    },
    /// Weights of another network were taken.
    Initialized(&'a InitReport),
    /// The run goes on for more epochs than it was to have.
    Lengthened {
        /// Epochs it was to have.
        from: u32,
        /// Epochs it now has.
        to: u32,
        /// Learning rate of its last step, and of its next one.
        lr: [f64; 2],
    },
    /// A file of the run was written anew, from the checkpoint that the run goes on from.
    Rebuilt {
        /// Name of the file.
        file: &'static str,
        /// Fault of the file: missing or damaged.
        why: &'a str,
    },
    /// Clip values were set from the first batches.
    Calibrated(&'a BTreeMap<String, f32>),
    /// The network with the weights it took, at the bits of the first epoch and before its first step.
    Before(&'a Evaluation),
    /// The bits change.
    Bits {
        /// First epoch with the new ones, from 1.
        epoch: u32,
        /// The new ones.
        bits: BitSpec,
    },
    /// A step is done.
    Step {
        /// Epoch under way, from 1.
        epoch: u32,
        /// Batches of the epoch that are done.
        batch: u64,
        /// Batches of an epoch.
        batches: u64,
        /// Mean loss of the epoch so far.
        loss: f64,
    },
    /// Images of an epoch were read ahead of its steps.
    ReadAhead {
        /// Seconds that a step's threads waited for images, in the mean of the threads.
        waited: f64,
        /// Seconds that making the images ready took, of all threads together.
        made: f64,
        /// Seconds of all steps.
        seconds: f64,
    },
    /// Test images are being evaluated.
    Evaluating {
        /// Whether in the simulated view, not in integers.
        simulated: bool,
        /// Images done.
        done: usize,
        /// Images in all.
        images: usize,
    },
    /// An epoch is done.
    Epoch(&'a EpochRecord),
    /// Something looks wrong.
    Warning(&'a WarningRecord),
}

/// A queue whose work ends when this is dropped.
struct Stopped<'a, F: Fn(usize) -> Prepared + Sync>(&'a Ahead<F>);

impl<F: Fn(usize) -> Prepared + Sync> Drop for Stopped<'_, F> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whether all epochs are done; otherwise it was stopped and can be resumed.
    pub finished: bool,
    /// Epochs done.
    pub epochs: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// The last epoch's record, if one is done.
    pub last: Option<EpochRecord>,
}

/// Trains `recipe` on the backend of `options`: the whole job in one call.
///
/// # Errors
/// See [`Setup::new`], [`BackendKind::build`] and [`Trainer::run`].
pub fn train<'a>(
    recipe: &Recipe,
    images: Images<'a>,
    folder: &'a RunFolder,
    start: Start,
    options: RunOptions<'a>,
) -> Result<Outcome, RunError> {
    let RunOptions { backend, isa, threads, stop, observer } = options;
    let options = RunOptions { backend, isa, threads, stop, observer };
    let parts = hold_out(recipe, images.train)?;
    let images = Images { train: parts.as_ref().map_or(images.train, |(kept, _)| kept), test: images.test };
    let setup = Setup::new(recipe, &images)?;
    let mut backend = setup.backend(backend, isa, threads)?;
    let mut trainer = Trainer::new(setup, images, folder, options);
    if let Some((_, held)) = &parts {
        trainer = trainer.with_held_out(held);
    }
    trainer.run(&mut *backend, start)
}

/// Trains `recipe` as [`train`] does, on a backend that `make` puts around that of the recipe; it is told the steps of
/// the run. Returns the network without its tensors too.
///
/// # Errors
/// Those of [`train`] and of `make`; a recipe whose bits change.
pub(crate) fn train_around<'a, B: TrainBackend>(
    recipe: &Recipe,
    images: Images<'a>,
    folder: &'a RunFolder,
    start: Start,
    options: RunOptions<'a>,
    make: impl FnOnce(&Setup, Box<dyn TrainBackend>, u64) -> Result<B, RunError>,
) -> Result<(Outcome, Model, B), RunError> {
    if recipe.bits.all().count() > 1 {
        let what = "the recipe's bits change in the course of the run; expected one width".to_owned();
        return Err(RunError::Search { what });
    }
    let RunOptions { backend, isa, threads, stop, observer } = options;
    let options = RunOptions { backend, isa, threads, stop, observer };
    let parts = hold_out(recipe, images.train)?;
    let images = Images { train: parts.as_ref().map_or(images.train, |(kept, _)| kept), test: images.test };
    let setup = Setup::new(recipe, &images)?;
    let steps = setup.steps_per_epoch * u64::from(recipe.epochs);
    let inner = setup.backend(backend, isa, threads)?;
    let (mut around, model) = (make(&setup, inner, steps)?, setup.empty_model());
    let mut trainer = Trainer::new(setup, images, folder, options);
    if let Some((_, held)) = &parts {
        trainer = trainer.with_held_out(held);
    }
    let outcome = trainer.run(&mut around, start)?;
    Ok((outcome, model, around))
}

/// The training images in two parts, where the recipe holds some out.
fn hold_out<'a>(recipe: &Recipe, train: &'a dyn Dataset) -> Result<Option<(Subset<'a>, Subset<'a>)>, RunError> {
    if recipe.holdout == 0 {
        return Ok(None);
    }
    let what = || format!("{} are to be held out of {}, which leaves none", recipe.holdout, train.len());
    let parts = Subset::hold_out(train, recipe.holdout);
    parts.map(Some).ok_or_else(|| RunError::Images { half: "training", what: what() })
}

/// One run: a recipe's network, its images and its folder.
pub struct Trainer<'a> {
    setup: Setup,
    images: Images<'a>,
    /// Images to choose the best epoch by.
    held_out: Option<&'a dyn Dataset>,
    folder: &'a RunFolder,
    options: RunOptions<'a>,
    schedule: Schedule,
    batches: Batches<'a>,
    /// Weight codes of the last epochs.
    codes: CodeHistory,
}

/// Where a run stands.
struct State {
    step: u64,
    progress: Progress,
}

/// The integer network's accuracy with its file and its worst error, the simulated one, and the one on held-out images.
type Evaluated = (Option<(Evaluation, Vec<u8>, f64)>, Option<Evaluation>, Option<Evaluation>);

enum EpochEnd {
    Trained,
    Stopped,
}

impl<'a> Trainer<'a> {
    /// A run of `setup` on `images`, written to `folder`.
    pub fn new(setup: Setup, images: Images<'a>, folder: &'a RunFolder, options: RunOptions<'a>) -> Self {
        let schedule = setup.recipe.schedule(setup.steps_per_epoch);
        let batches = Batches::new(&setup, images.train);
        Self { setup, images, held_out: None, folder, options, schedule, batches, codes: CodeHistory::default() }
    }

    /// Adds images to choose the best epoch by: those that the recipe's `holdout` keeps out of `images`.
    pub fn with_held_out(mut self, images: &'a dyn Dataset) -> Self {
        self.held_out = Some(images);
        self
    }

    /// Trains on `backend` until all epochs are done or the stop flag is set.
    ///
    /// # Errors
    /// Anything that keeps the run from going on. The last checkpoint stays as it is.
    pub fn run(mut self, backend: &mut dyn TrainBackend, start: Start) -> Result<Outcome, RunError> {
        let held = self.held_out.map_or(0, Dataset::len);
        if held != self.setup.recipe.holdout {
            let what = format!("{held} of them are held out, the recipe says {}", self.setup.recipe.holdout);
            return Err(RunError::Images { half: "training", what });
        }
        let outcome = self.run_owned(backend, start);
        self.folder.release();
        outcome
    }

    fn run_owned(&mut self, backend: &mut dyn TrainBackend, start: Start) -> Result<Outcome, RunError> {
        let mut state = match start {
            Start::Fresh { weights } => self.start_fresh(backend, weights)?,
            Start::Resume(checkpoint) => self.start_from(backend, *checkpoint)?,
        };
        let total_steps = self.schedule.total_steps;
        (self.options.observer)(Event::Start { step: state.step, total_steps });
        let mut teaching = self.teaching()?;
        let mut saved = state.step;
        while state.progress.epochs_done < self.setup.recipe.epochs {
            // Everything is saved here: a change of bits would only be made again.
            if self.options.stop.load(Ordering::Relaxed) {
                break;
            }
            self.enter_epoch(backend, &mut state)?;
            let began = (Instant::now(), state.step);
            if let EpochEnd::Stopped = self.train_epoch(backend, teaching.as_mut(), &mut state)? {
                if state.step != saved {
                    self.save(backend, &state)?;
                }
                break;
            }
            self.finish_epoch(backend, &mut state, began)?;
            saved = state.step;
        }
        let last = self.folder.records()?.into_iter().rev().find_map(|record| match record {
            Record::Epoch(record) => Some(record),
            Record::Warning(_) => None,
        });
        let epochs = state.progress.epochs_done;
        Ok(Outcome { finished: epochs >= self.setup.recipe.epochs, epochs, step: state.step, last })
    }

    /// The teacher, ready for batches of this run.
    fn teaching(&self) -> Result<Option<Teaching>, RunError> {
        let recipe = &self.setup.recipe;
        let share = (recipe.distill_temperature, recipe.distill_weight);
        let RunOptions { backend, isa, threads, .. } = self.options;
        let new = |teacher| Teaching::new(teacher, share, recipe.batch_size, backend, isa, threads);
        self.setup.teacher.as_ref().map(new).transpose()
    }

    /// Trains the rest of the epoch under way.
    fn train_epoch(
        &mut self,
        backend: &mut dyn TrainBackend,
        mut teaching: Option<&mut Teaching>,
        state: &mut State,
    ) -> Result<EpochEnd, RunError> {
        let batches = self.setup.steps_per_epoch;
        let epoch = u64::from(state.progress.epochs_done);
        let order = epoch_order(self.setup.recipe.seed, epoch, self.images.train.len());
        let batch_size = self.setup.recipe.batch_size;
        let mut statistics = Vec::new();
        let of_target = self.setup.loss.map_or(0, |_| self.images.train.target_kind().len());
        let mut targets = vec![0.0; batch_size * of_target];
        backend.reset_statistics();
        let first_batch = state.step - epoch * batches;
        let first = first_batch as usize * batch_size;
        let ahead = self.batches.ahead(epoch, &order, first, batch_size);
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<EpochEnd, RunError> {
            // However the epoch ends, the threads that read ahead end with it.
            let ahead = ahead.as_ref().map(Stopped);
            if let Some(Stopped(ahead)) = &ahead {
                (0..self.options.threads.max(1)).for_each(|_| drop(scope.spawn(|| ahead.work())));
            }
            for batch in first_batch..batches {
                if self.options.stop.load(Ordering::Relaxed) {
                    return Ok(EpochEnd::Stopped);
                }
                let place = batch as usize * batch_size;
                let indices = &order[place..][..batch_size];
                let ready = |i: usize| ahead.as_ref().and_then(|Stopped(ahead)| ahead.get(place + i));
                let (batches_of, mixup) = (&self.batches, self.batches.mixup(state.step));
                let fill = |i: usize, out: &mut [u8], place: Placement| {
                    batches_of.fill_step(epoch, indices, i, mixup, &ready, out, place)
                };
                let teacher = teaching.as_mut().map(|teaching| teaching.look(&fill));
                let key = Key::new(self.setup.recipe.seed).with("step").at(state.step);
                if self.setup.loss.is_some() {
                    self.batches.targets(epoch, indices, &ready, &mut targets);
                }
                let targets = self.setup.loss.map(|loss| Targets { loss, values: &targets });
                let label_smoothing = self.setup.recipe.label_smoothing as f32;
                let loss = LossInput { label_smoothing, mixup, teacher, targets };
                let sum_noise = self.setup.recipe.sum_noise as f32;
                let lr = self.schedule.lr(state.step) as f32;
                let input = StepInput { lr, fill: &fill, key, sum_noise, loss };
                let outcome = backend.step(&input).map_err(|error| match error {
                    // A resumed backend counts from where it was resumed.
                    TrainError::NotFinite { loss, .. } => TrainError::NotFinite { step: state.step, loss },
                    TrainError::Overflow { what, .. } => TrainError::Overflow { step: state.step, what },
                    other => other,
                })?;
                if let Some(Stopped(ahead)) = &ahead {
                    ahead.release(place + batch_size);
                }
                state.step += 1;
                backend.write_statistics(&mut statistics);
                state.progress.sums.add(&outcome, &statistics);
                backend.reset_statistics();
                let (epoch, loss) = (epoch as u32 + 1, state.progress.sums.loss());
                (self.options.observer)(Event::Step { epoch, batch: batch + 1, batches, loss });
            }
            if let Some(Stopped(ahead)) = &ahead {
                let (waited, made) = ahead.seconds();
                let threads = self.options.threads.max(1) as f64;
                let seconds = began.elapsed().as_secs_f64();
                (self.options.observer)(Event::ReadAhead { waited: waited / threads, made, seconds });
            }
            Ok(EpochEnd::Trained)
        })
    }

    /// Evaluates the network, writes the records, the models and, last of all, the checkpoint.
    fn finish_epoch(
        &mut self,
        backend: &mut dyn TrainBackend,
        state: &mut State,
        (began, first_step): (Instant, u64),
    ) -> Result<(), RunError> {
        let seconds = began.elapsed().as_secs_f64();
        let images = (state.step - first_step) * self.setup.recipe.batch_size as u64;
        let model = self.deploy(backend, state.progress.epochs_done);
        let evaluated = self.evaluate(backend, &model, state.progress.epochs_done + 1);
        let counted = |(integer, simulated, _): &Evaluated| {
            integer.as_ref().map(|(evaluation, ..)| evaluation).or(simulated.as_ref()).map(|counted| counted.top1)
        };
        let train_top1 = state.progress.sums.accuracy(self.setup.recipe.batch_size);
        let classifies = self.setup.loss.is_none();
        let is_gap = |top1: &f64| classifies && warnings::is_gap(train_top1, *top1, self.setup.class_names.len());
        let gap = evaluated.as_ref().ok().and_then(counted).filter(is_gap);
        let top1_in_training = gap.map(|_| self.top1_in_training(backend, state.progress.epochs_done));
        backend.swap_average();
        let (integer, simulated, held) = match evaluated {
            Ok(evaluated) => evaluated,
            Err(error) => {
                // The training is worth keeping even where the network cannot be evaluated.
                self.save(backend, state)?;
                return Err(error);
            }
        };
        let progress = &mut state.progress;
        let bits = self.setup.recipe.bits.at(progress.epochs_done);
        progress.epochs_done += 1;
        let counted = integer.as_ref().map(|(evaluation, ..)| evaluation).or(simulated.as_ref());
        let record = EpochRecord {
            epoch: progress.epochs_done,
            bits: self.setup.recipe.bits.last_change().map(|_| bits.to_string()),
            step: state.step,
            lr: self.schedule.lr(state.step - 1),
            loss: progress.sums.loss(),
            train_top1,
            integer_top1: integer.as_ref().filter(|_| classifies).map(|(e, ..)| e.top1),
            integer_top5: integer.as_ref().filter(|_| classifies).map(|(e, ..)| e.top5),
            simulated_top1: simulated.as_ref().filter(|_| classifies).map(|e| e.top1),
            simulated_top5: simulated.as_ref().filter(|_| classifies).map(|e| e.top5),
            holdout_top1: held.as_ref().filter(|_| classifies).map(|e| e.top1),
            integer: integer.as_ref().map_or(Vec::new(), |(e, ..)| e.metrics.clone()),
            simulated: simulated.as_ref().map_or(Vec::new(), |e| e.metrics.clone()),
            holdout: held.as_ref().map_or(Vec::new(), |e| e.metrics.clone()),
            test_images: self.images.test.len(),
            test_images_per_s: counted.map_or(0.0, |e| e.images_per_s),
            images_per_s: if seconds > 0.0 { images as f64 / seconds } else { 0.0 },
            seconds,
            conversion_worst_error: integer.as_ref().map(|(_, _, worst)| *worst),
            layers: progress.sums.layers(),
            weights: self.codes.moved(),
        };
        progress.sums = Sums::default();
        progress.remember_alphas(&record.layers);
        let recipe = &self.setup.recipe;
        let fast = record.lr > 0.5 * recipe.lr && recipe.clip_lr > 0.0;
        let learned = |name: &str| self.setup.plan.activations.get(name).is_some_and(|a| a.quant.is_learned());
        let course = warnings::Course {
            loss: record.loss,
            classes: classifies.then_some(self.setup.class_names.len()),
            train_top1: record.train_top1,
            top1: counted.map(|e| e.top1),
            top1_in_training,
            reestimates: recipe.bn_reestimate > 0,
            clips_decay: recipe.clip_weight_decay > 0.0,
        };
        let warnings = warnings::of_epoch(progress, &record.layers, &course, state.step, |name| fast && learned(name));
        let hits = held.as_ref().or(counted).map(|e| match classifies {
            true => (e.top1 * e.images as f64).round() as u64,
            false => ordered(e.score()),
        });
        let is_best = hits.is_some() && hits > progress.best_hits;
        if is_best {
            progress.best_hits = hits;
        }

        self.folder.append(&Record::Epoch(record.clone()))?;
        for warning in &warnings {
            self.folder.append(&Record::Warning(warning.clone()))?;
        }
        if is_best {
            let note = if self.held_out.is_some() { BEST_HELD_OUT_NOTE } else { BEST_NOTE };
            let best = Checkpoint { model, training: None, note: Some(note.to_owned()) };
            self.folder.write(BEST, &best.to_bytes()?)?;
        }
        if let Some((_, bytes, _)) = integer {
            self.folder.write(MODEL, &bytes)?;
        }
        self.save(backend, state)?;
        (self.options.observer)(Event::Epoch(&record));
        for warning in &warnings {
            (self.options.observer)(Event::Warning(warning));
        }
        Ok(())
    }

    /// The integer network's accuracy with its file and its worst error, the simulated one where it is due, and the one
    /// on the held-out images.
    fn evaluate(&mut self, backend: &mut dyn TrainBackend, model: &Model, epoch: u32) -> Result<Evaluated, RunError> {
        let test = self.images.test;
        let is_float = self.setup.plan.is_float();
        let observer = &mut *self.options.observer;
        let (mut integer, mut held) = (None, None);
        if !is_float {
            let conversion = convert(model)?;
            self.codes.add(&conversion.model);
            let mut told = |done, images| observer(Event::Evaluating { simulated: false, done, images });
            let (isa, threads) = (self.options.isa, self.options.threads);
            let evaluation = evaluate_integer(&conversion.model, test, isa, threads, evaluate::CHUNK, &mut told)?;
            if let Some(images) = self.held_out {
                let model = &conversion.model;
                held = Some(evaluate_integer(model, images, isa, threads, evaluate::CHUNK, &mut |_, _| {})?);
            }
            let worst = conversion.report.iter().fold(0.0f64, |worst, layer| worst.max(layer.worst_error));
            integer = Some((evaluation, conversion.model.to_bytes()?, worst));
        }
        let every = self.setup.recipe.simulated_every;
        let due = is_float || epoch == self.setup.recipe.epochs || (every > 0 && epoch.is_multiple_of(every));
        let mut told = |done, images| observer(Event::Evaluating { simulated: true, done, images });
        let simulated = if due { Some(evaluate_simulated(backend, test, &mut told)?) } else { None };
        if let (true, Some(images)) = (is_float, self.held_out) {
            held = Some(evaluate_simulated(backend, images, &mut |_, _| {})?);
        }
        Ok((integer, simulated, held))
    }
}

/// A number in the order of `score`.
fn ordered(score: f64) -> u64 {
    let bits = score.to_bits();
    if score.is_sign_negative() { !bits } else { bits | 1 << 63 }
}
