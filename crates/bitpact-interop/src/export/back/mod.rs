//! Files that [`export`](super::export) wrote, read back to the same integers.
//!
//! A file holds the weight codes in its tensors and everything else of the network in its metadata. What is read is
//! written again, and what that gives must be what the file holds, node for node and tensor for tensor: so a graph that
//! another program changed is never overridden by constants that it does not follow any more.

mod arrays;
mod onnx;
mod tensors;

use std::path::{Path, PathBuf};

use bitpact_model::{IntegerModel, read_model_file};

use super::network::{Network, Product};
use super::{Format, folder};
use crate::{InteropError, Kind};

/// A network that was exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The network, checked ([`IntegerModel::check`]).
    pub model: IntegerModel,
    /// The format it was written in.
    pub format: Format,
}

/// Why a file that says it was exported is not read back.
enum Fault {
    /// What it says is no network.
    Wrong(String),
    /// It is not what the network in it would be written as.
    Changed {
        /// The first place that differs, and how.
        place: String,
        /// The version of bitpact that wrote the file, where that is another one than this.
        version: Option<String>,
    },
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

fn changed(place: impl Into<String>) -> Fault {
    Fault::Changed { place: place.into(), version: None }
}

/// The integer network of a file or folder that [`export`](super::export) wrote, number for number; `None` of
/// everything else. Of [`Format::Npy`], `path` is the folder or the JSON file in it.
///
/// # Errors
/// A file that cannot be read or holds no valid network, and [`InteropError::Changed`] where graph, tensors or metadata
/// are not those that the network in the file is written as.
pub fn read_back(path: impl AsRef<Path>) -> Result<Option<Exported>, InteropError> {
    let path = path.as_ref();
    let found = if path.is_dir() {
        arrays::read(path)
    } else if !path.is_file() {
        // A pipe can be read once.
        return Ok(None);
    } else {
        let bytes = read_model_file(path)?;
        match Kind::of(&bytes, path) {
            Kind::Safetensors => tensors::read(&bytes),
            Kind::Onnx => onnx::read(path),
            Kind::SafetensorsIndex if path.file_name().is_some_and(|name| name == folder::CONTENTS) => {
                arrays::read(&parent(path))
            }
            _ => Ok(None),
        }
    };
    found.map_err(|fault| match fault {
        Fault::Wrong(what) => InteropError::file(path, what),
        Fault::Changed { place, version } => {
            let of = |version| format!(" (it is of version {version}, this is {})", env!("CARGO_PKG_VERSION"));
            let version = version.map(of).unwrap_or_default();
            InteropError::Changed { path: path.to_owned(), place, version }
        }
    })
}

/// The folder of a file.
fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// The checked network of a description, whose codes `codes` finds.
fn network(
    description: Network,
    codes: impl FnMut(&Product, [usize; 4]) -> Result<Vec<i16>, String>,
) -> Result<IntegerModel, Fault> {
    let model = description.model(codes)?;
    match model.check() {
        Ok(()) => Ok(model),
        Err(error) => Err(Fault::Wrong(error.to_string())),
    }
}

/// Codes q of real weights `scale[o] * q`.
fn codes_of_reals(weights: &[f32], scales: &[f32], outputs: usize) -> Result<Vec<i16>, String> {
    if !(scales.len() == 1 || scales.len() == outputs) || outputs == 0 || !weights.len().is_multiple_of(outputs) {
        return Err(format!("{} weights and {} scales for {outputs} channels", weights.len(), scales.len()));
    }
    let of_channel = (weights.len() / outputs).max(1);
    let code = |(i, &weight): (usize, &f32)| {
        let scale = scales[if scales.len() == 1 { 0 } else { i / of_channel }];
        let code = (f64::from(weight) / f64::from(scale)).round();
        let is_code = code.abs() <= f64::from(i16::MAX);
        is_code.then_some(code as i16).ok_or_else(|| format!("the weight {weight} of the scale {scale} is no code"))
    };
    weights.iter().enumerate().map(code).collect()
}
