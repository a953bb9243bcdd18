//! What a person sees while a run goes on: bars on a terminal, a line an epoch elsewhere. All of it on standard error.

use std::fmt::Write;
use std::io::IsTerminal;

use bitpact::unstable::train::{EpochRecord, Event};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::out::{percent, say};

/// Bars and lines of one run.
pub(crate) struct Display {
    bar: ProgressBar,
    label: &'static str,
    epochs: u32,
    batch_size: u64,
    /// What the bar counts at the moment.
    stage: Option<Stage>,
    /// Share of the epoch's time in which steps waited for images, where those were read ahead.
    waited: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Training { epoch: u32 },
    Evaluating { simulated: bool },
}

impl Display {
    /// `label` tells runs of one command apart.
    pub(crate) fn new(label: &'static str, epochs: u32, batch_size: usize) -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        Self { bar, label, epochs, batch_size: batch_size as u64, stage: None, waited: None }
    }

    /// Shows an event.
    pub(crate) fn show(&mut self, event: &Event<'_>) {
        match *event {
            Event::Start { step, total_steps } if step > 0 => {
                self.line(format!("{}: going on after step {step} of {total_steps}", self.label));
            }
            Event::Initialized(report) => {
                self.line(format!(
                    "took {} tensors; {} more start as usual{}; {} of the file are not used{}{}",
                    report.loaded.len(),
                    report.missing.len(),
                    listed(&report.missing),
                    report.unused.len(),
                    listed(&report.unused),
                    match report.statistics {
                        0 => String::new(),
                        batches => format!("; batch norm's statistics are estimated anew from {batches} batches"),
                    }
                ));
            }
            Event::Calibrated(values) => {
                let least = values.values().copied().fold(f32::INFINITY, f32::min);
                let most = values.values().copied().fold(0.0, f32::max);
                let n = values.len();
                self.line(format!("{}: {n} clip values calibrated, from {least:.3} to {most:.3}", self.label));
            }
            Event::Before(evaluation) => {
                self.stage = None;
                let found = match &evaluation.metrics[..] {
                    [] => percent(evaluation.top1),
                    metrics => metrics.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                };
                self.line(format!("{}: before the first step {found}", self.label));
            }
            Event::Lengthened { from, to, lr: [had, has] } => {
                self.line(format!("{}: {to} epochs instead of {from}", self.label));
                if (had / has).ln().abs() > 1.05f64.ln() {
                    self.line(format!("warning: the learning rate goes on at {has:.2e}, after {had:.2e}"));
                }
            }
            Event::Rebuilt { file, why } => {
                self.line(format!("{}: {file} was {why}; written anew from last.safetensors", self.label));
            }
            Event::Bits { epoch, bits } => self.line(format!("{}: {bits} from epoch {epoch} on", self.label)),
            Event::Step { epoch, batch, batches, loss } => {
                let images = self.batch_size;
                self.enter(Stage::Training { epoch }, batches * images, (batch - 1) * images);
                self.bar.set_message(format!("loss {loss:.4}"));
                self.bar.set_position(batch * images);
            }
            Event::ReadAhead { waited, seconds, .. } => self.waited = Some(waited / seconds.max(f64::MIN_POSITIVE)),
            Event::Evaluating { simulated, done, images } => {
                self.enter(Stage::Evaluating { simulated }, images as u64, 0);
                self.bar.set_position(done as u64);
            }
            Event::Epoch(record) => {
                self.stage = None;
                let waited = self.waited.take().map(|share| format!("  waited for images {}", percent(share)));
                let line = epoch_line(self.label, self.epochs, record) + &waited.unwrap_or_default();
                self.line(line);
            }
            Event::Warning(warning) => self.line(format!("warning: {}", warning.message)),
            _ => {}
        }
    }

    fn enter(&mut self, stage: Stage, length: u64, position: u64) {
        if self.stage == Some(stage) {
            return;
        }
        self.stage = Some(stage);
        let prefix = match stage {
            Stage::Training { epoch } => format!("{} epoch {epoch}/{}", self.label, self.epochs),
            Stage::Evaluating { simulated: false } => "evaluating integers".to_owned(),
            Stage::Evaluating { simulated: true } => "evaluating floats".to_owned(),
        };
        begin(&self.bar, prefix, length, position);
    }

    fn line(&self, text: String) {
        if self.bar.is_hidden() {
            say!("{text}");
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over `images` images; hidden where no one watches.
pub(crate) fn image_bar(doing: &str, images: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target());
    begin(&bar, doing.to_owned(), images as u64, 0);
    bar
}

/// A bar over `count` of `what`; hidden where no one watches.
pub(crate) fn bar(doing: &str, count: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(count as u64), target());
    let template = format!("{{prefix}} [{{bar:30}}] {{pos}}/{{len}} {what}  {{eta}} left  {{msg}}");
    bar.set_style(ProgressStyle::with_template(&template).expect("a valid template").progress_chars("=> "));
    bar.set_prefix(doing.to_owned());
    bar
}

/// A bar over `bytes` bytes of the file `name`; hidden where no one watches.
pub(crate) fn download_bar(name: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), target());
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    bar.set_style(style.expect("a valid template").progress_chars("=> "));
    bar.set_prefix(name.to_owned());
    bar
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn begin(bar: &ProgressBar, prefix: String, length: u64, position: u64) {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} images  {rate}  {eta} left  {msg}");
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    bar.set_style(style.expect("a valid template").with_key("rate", rate).progress_chars("=> "));
    bar.reset();
    bar.set_prefix(prefix);
    bar.set_message(String::new());
    bar.set_length(length);
    bar.set_position(position);
    bar.reset_eta();
}

fn epoch_line(label: &str, epochs: u32, record: &EpochRecord) -> String {
    let width = epochs.to_string().len();
    let mut line = format!("{label} epoch {:width$}/{epochs}  loss {:.4}", record.epoch, record.loss,);
    let is_float = record.integer_top1.is_none() && record.integer.is_empty();
    if record.metrics().is_empty() {
        line += &format!("  train {:>7}", percent(record.train_top1));
    }
    let metrics = [("integer", &record.integer), ("simulated", &record.simulated), ("held out", &record.holdout)];
    for (name, metrics) in metrics.into_iter().filter(|(_, metrics)| !metrics.is_empty()) {
        let name = if is_float && name == "simulated" { "float" } else { name };
        let shown: Vec<String> = metrics.iter().map(ToString::to_string).collect();
        line += &format!("  {name} {}", shown.join(", "));
    }
    for (name, value) in [("integer", record.integer_top1), ("simulated", record.simulated_top1)] {
        let name = if is_float { "float" } else { name };
        if let Some(value) = value {
            line += &format!("  {name} {:>7}", percent(value));
        }
    }
    if let Some(value) = record.holdout_top1 {
        line += &format!("  held out {:>7}", percent(value));
    }
    line + &format!("  {:.0} images/s  {:.1} s", record.images_per_s, record.seconds)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names if names.len() <= 6 => format!(" ({})", names.join(", ")),
        names => format!(" ({}, ...)", names[..5].join(", ")),
    }
}
