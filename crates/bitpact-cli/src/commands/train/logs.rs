//! What a run writes for viewers of others while it goes on.

use std::path::{Path, PathBuf};

use bitpact::unstable::report::ReportError;
use bitpact::unstable::report::viewers::{EventFile, write_csv};
use bitpact::unstable::train::{EpochRecord, Event, Record, RunFolder};

use super::args::LogFormat;
use crate::exit::report_part;

/// The logs that were asked for. What cannot be written is said once and keeps no run from going on.
pub(super) struct Logs {
    formats: Vec<LogFormat>,
    folder: PathBuf,
    epochs: Vec<EpochRecord>,
    events: Option<EventFile>,
    has_failed: bool,
}

impl Logs {
    pub(super) fn new(formats: &[LogFormat], folder: &RunFolder) -> Self {
        let folder = folder.path().to_owned();
        Self { formats: formats.to_vec(), folder, epochs: Vec::new(), events: None, has_failed: false }
    }

    /// Takes in what happens in the run.
    pub(super) fn take(&mut self, event: &Event<'_>) {
        if self.formats.is_empty() {
            return;
        }
        match event {
            Event::Start { .. } => self.epochs = epochs(&self.folder),
            Event::Epoch(record) => {
                self.epochs.push((*record).clone());
                let written = self.write(record);
                self.tell(written);
            }
            _ => {}
        }
    }

    fn write(&mut self, record: &EpochRecord) -> Result<(), ReportError> {
        if self.formats.contains(&LogFormat::Csv) {
            write_csv(&self.epochs, &self.folder)?;
        }
        if self.formats.contains(&LogFormat::Tensorboard) {
            let events = match self.events.take() {
                Some(events) => events,
                None => EventFile::create(&self.folder)?,
            };
            self.events.insert(events).add(record)?;
        }
        Ok(())
    }

    /// Says the first failure.
    pub(super) fn tell(&mut self, result: Result<(), ReportError>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.has_failed, true)
        {
            report_part(&error.into());
        }
    }
}

/// The epochs that a run that goes on has done.
fn epochs(folder: &Path) -> Vec<EpochRecord> {
    let records = RunFolder::open(folder).and_then(|folder| folder.records()).unwrap_or_default();
    let epochs = records.into_iter().filter_map(|record| match record {
        Record::Epoch(epoch) => Some(epoch),
        Record::Warning(_) => None,
    });
    epochs.collect()
}
