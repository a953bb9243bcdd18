//! A run on the terminal, drawn anew whenever it has something new to say.
//!
//! [`Dashboard`] is what is shown, and [`Dashboard::draw`] shows it in whatever room there is. [`show`] owns the
//! terminal while someone looks; it wakes for a key, or to ask whether anything changed, and draws only then.

mod draw;
mod show;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bitpact_train::{EpochRecord, Event, Recipe};

use crate::run::Records;

pub use show::{Left, Refreshed, restore, show};

/// Steps that the speed under way is measured over.
const STEPS: usize = 32;

/// A run as it is shown.
#[derive(Debug, Clone, Default)]
pub struct Dashboard {
    /// Name of the run.
    pub name: String,
    /// Epochs of the whole run, where known.
    pub epochs: Option<u32>,
    /// Bits, such as `W4A4`.
    pub bits: String,
    /// Network and data set.
    pub what: String,
    /// Epochs that are done, and warnings.
    pub records: Records,
    /// The epoch under way, where this process trains it.
    pub live: Option<Live>,
    /// Time since the records were last written, where another process trains it.
    pub silent: Option<Duration>,
    /// First layer in the list.
    pub scroll: usize,
}

/// The epoch under way.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Share of it that is done, 0 to 1.
    pub done: f64,
    /// Mean loss of the epoch so far.
    pub loss: Option<f64>,
    /// Training images a second over the last steps.
    pub images_per_s: Option<f64>,
    /// Whether the test images are being evaluated, with the share of them that is done.
    pub evaluating: Option<f64>,
    /// When the last steps ended.
    steps: VecDeque<Instant>,
}

impl Dashboard {
    /// A run with `name` of `recipe`, where that is known.
    pub fn new(name: String, recipe: Option<&Recipe>) -> Self {
        Self {
            name,
            epochs: recipe.map(|recipe| recipe.epochs),
            bits: recipe.map_or(String::new(), |recipe| recipe.bits.to_string()),
            what: recipe.map_or(String::new(), |recipe| format!("{} on {}", recipe.arch, recipe.dataset)),
            ..Self::default()
        }
    }

    /// Takes in what happens in a run of this process, at `now`; `batch_size` images are a step.
    pub fn take(&mut self, event: &Event<'_>, batch_size: usize, now: Instant) {
        let live = self.live.get_or_insert_default();
        match *event {
            Event::Step { epoch, batch, batches, loss } => {
                if live.epoch != epoch {
                    live.steps.clear();
                }
                (live.epoch, live.loss, live.evaluating) = (epoch, Some(loss), None);
                live.done = batch as f64 / batches.max(1) as f64;
                live.steps.push_back(now);
                if live.steps.len() > STEPS {
                    live.steps.pop_front();
                }
                let passed = live.steps.front().map_or(0.0, |first| now.duration_since(*first).as_secs_f64());
                let images = ((live.steps.len() - 1) * batch_size) as f64;
                live.images_per_s = (passed > 0.0).then(|| images / passed).or(live.images_per_s);
            }
            Event::Evaluating { done, images, .. } => live.evaluating = Some(done as f64 / images.max(1) as f64),
            Event::Epoch(record) => {
                (live.evaluating, live.done, live.loss) = (None, 0.0, None);
                live.epoch = record.epoch + 1;
                live.steps.clear();
                self.records.epochs.push(record.clone());
            }
            Event::Warning(warning) => self.records.warnings.push(warning.clone()),
            Event::Lengthened { to, .. } => self.epochs = Some(to),
            _ => {}
        }
    }

    fn last(&self) -> Option<&EpochRecord> {
        self.records.epochs.last()
    }

    /// Tells whether all epochs are done.
    pub fn is_finished(&self) -> bool {
        self.last().zip(self.epochs).is_some_and(|(last, epochs)| last.epoch >= epochs)
    }

    /// Seconds that an epoch takes with its evaluation, by the last ones.
    fn epoch_seconds(&self) -> Option<f64> {
        let whole = |epoch: &EpochRecord| {
            let evaluation =
                if epoch.test_images_per_s > 0.0 { epoch.test_images as f64 / epoch.test_images_per_s } else { 0.0 };
            epoch.seconds + evaluation
        };
        let last: Vec<f64> = self.records.epochs.iter().rev().take(5).map(whole).collect();
        (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
    }

    /// Seconds until the last epoch is done, as far as the last ones tell.
    pub fn seconds_left(&self) -> Option<f64> {
        let done =
            f64::from(self.last().map_or(0, |last| last.epoch)) + self.live.as_ref().map_or(0.0, |live| live.done);
        let passed = match &self.live {
            Some(_) => 0.0,
            None => self.silent.map_or(0.0, |silent| silent.as_secs_f64()).min(self.epoch_seconds()?),
        };
        Some((self.epoch_seconds()? * (f64::from(self.epochs?) - done) - passed).max(0.0))
    }
}

/// A time as people read it.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86400.0),
    }
}
