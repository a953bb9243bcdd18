//! Records for viewers of others: tables as CSV, and event files of TensorBoard.
//!
//! Tables are made anew from the records after every epoch, so that they are whole whatever happened to the run. Event
//! files are added to, one file a process, as TensorBoard follows them by their ends.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bitpact_model::write_atomically;
use bitpact_train::EpochRecord;
use prost::Message;

use crate::ReportError;
use crate::log::io;

/// The table of epochs, in the folder of the run.
pub const EPOCHS_CSV: &str = "epochs.csv";
/// The table of layers, a line for each epoch and activation.
pub const LAYERS_CSV: &str = "layers.csv";
/// Folder of the event files.
pub const TENSORBOARD: &str = "tensorboard";

/// A name and a number of an epoch.
type Scalar = (String, f64);

/// The numbers of an epoch that are there, layers aside.
fn scalars(epoch: &EpochRecord) -> Vec<Scalar> {
    let some = |name: &str, value: Option<f64>| value.map(|value| (name.to_owned(), value));
    let is_of_classes = epoch.metrics().is_empty();
    let fixed = [
        some("loss", Some(epoch.loss)),
        some("lr", Some(epoch.lr)),
        some("train_top1", is_of_classes.then_some(epoch.train_top1)),
        some("integer_top1", epoch.integer_top1),
        some("integer_top5", epoch.integer_top5),
        some("simulated_top1", epoch.simulated_top1),
        some("simulated_top5", epoch.simulated_top5),
        some("holdout_top1", epoch.holdout_top1),
        some("images_per_s", Some(epoch.images_per_s)),
        some("seconds", Some(epoch.seconds)),
    ];
    let lists = [("integer", &epoch.integer), ("simulated", &epoch.simulated), ("holdout", &epoch.holdout)];
    let metrics = lists.into_iter().flat_map(|(view, metrics)| {
        metrics.iter().map(move |metric| (format!("{view}_{}", metric.name), metric.value))
    });
    fixed.into_iter().flatten().chain(metrics).collect()
}

/// A field of a table: in quotes where it has to be.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Writes [`EPOCHS_CSV`] and [`LAYERS_CSV`] of `epochs` into `folder`.
///
/// # Errors
/// A file that cannot be written.
pub fn write_csv(epochs: &[EpochRecord], folder: &Path) -> Result<(), ReportError> {
    let mut columns: Vec<String> = Vec::new();
    let rows: Vec<Vec<Scalar>> = epochs.iter().map(scalars).collect();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    let mut table = format!("epoch,step,{}\n", columns.join(","));
    for (epoch, row) in epochs.iter().zip(&rows) {
        let value = |column: &String| {
            let found = row.iter().find(|(name, _)| name == column);
            found.map_or(String::new(), |(_, value)| value.to_string())
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        table += &format!("{},{},{}\n", epoch.epoch, epoch.step, values.join(","));
    }
    let mut layers = "epoch,step,layer,alpha,alpha_gradient,clipped,zero\n".to_owned();
    for epoch in epochs {
        for layer in &epoch.layers {
            let (name, of) = (field(&layer.name), (layer.alpha, layer.alpha_gradient, layer.clipped, layer.zero));
            layers += &format!("{},{},{name},{},{},{},{}\n", epoch.epoch, epoch.step, of.0, of.1, of.2, of.3);
        }
    }
    for (name, text) in [(EPOCHS_CSV, table), (LAYERS_CSV, layers)] {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes()).map_err(|error| io("write", &path)(std::io::Error::other(error)))?;
    }
    Ok(())
}

/// An event of TensorBoard, as far as it is written here (tensorflow/core/util/event.proto).
#[derive(Clone, PartialEq, Message)]
struct TensorboardEvent {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// Numbers of one step (tensorflow/core/framework/summary.proto).
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file of TensorBoard.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins an event file in the folder [`TENSORBOARD`] of the run in `folder`.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn create(folder: &Path) -> Result<Self, ReportError> {
        let folder = folder.join(TENSORBOARD);
        std::fs::create_dir_all(&folder).map_err(io("make", &folder))?;
        let now = now();
        let path = folder.join(format!("events.out.tfevents.{:010}.bitpact.{}.0", now as u64, std::process::id()));
        let file = File::create(&path).map_err(io("make", &path))?;
        let mut events = Self { path, file };
        let version = Some("brain.Event:2".to_owned());
        events.write(&TensorboardEvent { wall_time: now, step: 0, file_version: version, summary: None })?;
        Ok(events)
    }

    /// Adds an epoch.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, epoch: &EpochRecord) -> Result<(), ReportError> {
        let value = |(tag, value): (String, f64)| SummaryValue { tag, simple_value: Some(value as f32) };
        let layers = epoch.layers.iter().flat_map(|layer| {
            let of = [("alpha", f64::from(layer.alpha)), ("clipped", layer.clipped), ("zero", layer.zero)];
            of.map(|(what, value)| (format!("{what}/{}", layer.name), value))
        });
        let value: Vec<SummaryValue> = scalars(epoch).into_iter().chain(layers).map(value).collect();
        let summary = Some(Summary { value });
        self.write(&TensorboardEvent { wall_time: now(), step: i64::from(epoch.epoch), file_version: None, summary })
    }

    fn write(&mut self, event: &TensorboardEvent) -> Result<(), ReportError> {
        let record = framed(&event.encode_to_vec());
        self.file.write_all(&record).and_then(|()| self.file.flush()).map_err(io("write", &self.path))
    }
}

/// A record of a TFRecord file: length, its masked CRC-32C, the bytes, theirs.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| (crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)).to_le_bytes();
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), bytes, &masked(bytes)].concat()
}

/// CRC-32C of `bytes`: polynomial 0x1edc6f41, least bit first (RFC 3720, section 12.1).
fn crc32c(bytes: &[u8]) -> u32 {
    const REFLECTED: u32 = 0x82f6_3b78;
    let shifted = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { REFLECTED } else { 0 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), shifted))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitpact_train::LayerStatistics;

    fn epochs() -> Vec<EpochRecord> {
        let text = r#"{"epoch":1,"step":10,"lr":0.1,"loss":1.5,"train_top1":0.4,"integer_top1":0.5,"test_images":10,
            "test_images_per_s":1.0,"images_per_s":2.0,"seconds":3.0}"#;
        let mut first: EpochRecord = serde_json::from_str(text).unwrap();
        first.layers = vec![LayerStatistics { name: "a,\"b\"".to_owned(), alpha: 1.25, ..LayerStatistics::default() }];
        let mut second = first.clone();
        (second.epoch, second.step, second.simulated_top1) = (2, 20, Some(0.75));
        vec![first, second]
    }

    #[test]
    fn tables_have_a_line_an_epoch_and_empty_fields_for_what_was_not_measured() {
        let folder = tempfile::tempdir().unwrap();
        write_csv(&epochs(), folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let table = read(EPOCHS_CSV);
        assert_eq!(
            table,
            "epoch,step,loss,lr,train_top1,integer_top1,images_per_s,seconds,simulated_top1\n\
             1,10,1.5,0.1,0.4,0.5,2,3,\n2,20,1.5,0.1,0.4,0.5,2,3,0.75\n"
        );
        assert_eq!(read(LAYERS_CSV).lines().nth(2), Some("2,20,\"a,\"\"b\"\"\",1.25,0,0,0"));
    }

    #[test]
    fn checksums_are_those_of_the_specification() {
        // Examples of RFC 3720, appendix B.4.
        let rising: Vec<u8> = (0..32).collect();
        let cases = [(&[0; 32][..], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43), (&rising, 0x46dd_794e), (&[], 0)];
        for (bytes, expected) in cases {
            assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn event_files_are_records_with_the_checksums_of_tfrecord() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path()).unwrap();
        epochs().iter().for_each(|epoch| events.add(epoch).unwrap());
        let bytes = std::fs::read(&events.path).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let data = &bytes[at + 12..at + 12 + length];
            assert_eq!(&bytes[at..at + 16 + length], framed(data));
            found.push(TensorboardEvent::decode(data).unwrap());
            at += 16 + length;
        }
        assert_eq!(found[0].file_version.as_deref(), Some("brain.Event:2"));
        let of = |event: &TensorboardEvent, tag: &str| {
            let values = &event.summary.as_ref().unwrap().value;
            values.iter().find(|value| value.tag == tag).and_then(|value| value.simple_value)
        };
        assert_eq!((found[1].step, of(&found[1], "loss"), of(&found[1], "simulated_top1")), (1, Some(1.5), None));
        assert_eq!((found[2].step, of(&found[2], "alpha/a,\"b\"")), (2, Some(1.25)));
        // The masked checksum of eight zero bytes, from TensorFlow's own files.
        assert_eq!(framed(&[])[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x03, 0x98, 0x07]);
    }
}
