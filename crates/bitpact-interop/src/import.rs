//! One door for every kind of file.

use std::path::Path;

use bitpact_graph::Shape;
use bitpact_model::{Checkpoint, InputDescription, Model, Pixels, read_model_file};

use crate::weights::Weights;
use crate::{InteropError, Kind, onnx};

/// What a reader must be told because a file does not say it itself.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of a network of the zoo that weights without a graph belong to; `None`: guessed from names and shapes.
    pub arch: Option<String>,
    /// Name of the input of a graph that has several.
    pub input_name: Option<String>,
    /// Shape of the images, where the file leaves it open.
    pub input_shape: Option<Shape>,
    /// What a pixel means; `None`: [`Pixels::usual`] of its channels.
    pub pixels: Option<Pixels>,
    /// One name a class; `None`: class0, class1, ...
    pub class_names: Option<Vec<String>>,
}

impl ImportOptions {
    /// The names of `classes` classes: those given, or class0, class1, ...
    ///
    /// # Errors
    /// Names of another number.
    pub fn classes(&self, path: &Path, classes: usize) -> Result<Vec<String>, InteropError> {
        match &self.class_names {
            None => Ok((0..classes).map(|class| format!("class{class}")).collect()),
            Some(names) if names.len() == classes => Ok(names.clone()),
            Some(names) => {
                let what = format!("has {classes} classes, and {} class names are given", names.len());
                Err(InteropError::file(path, what))
            }
        }
    }
}

impl ImportOptions {
    /// Zero point and scale of each of `channels` channels: those given, or what is usual, which `notes` then say.
    ///
    /// # Errors
    /// Numbers for another count of channels, or out of range.
    pub fn describe_pixels(
        &self,
        path: &Path,
        channels: usize,
        notes: &mut Vec<String>,
    ) -> Result<InputDescription, InteropError> {
        if self.pixels.is_none() {
            let usual = Pixels::usual(channels);
            notes.push(format!("what a pixel means is not in the file; taken as `{usual}` (--input, --mean, --std)"));
        }
        self.pixels_of(channels).describe(channels).map_err(|what| wrong_pixels(path, &what))
    }

    fn pixels_of(&self, channels: usize) -> Pixels {
        let usual = || Pixels::named(Pixels::usual(channels)).expect("the usual name is known");
        self.pixels.clone().unwrap_or_else(usual)
    }
}

fn wrong_pixels(path: &Path, what: &str) -> InteropError {
    InteropError::file(path, format!("what a pixel means: {what}"))
}

/// A network of another program, as one of ours.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network, checked ([`Model::check`]).
    pub model: Model,
    /// Notes on what was assumed or left out, a sentence each.
    pub notes: Vec<String>,
}

/// The contents of a file of another program.
#[derive(Debug, Clone)]
pub enum Source {
    /// A network with its graph.
    Network(Box<Imported>),
    /// Tensors without a graph.
    Weights(Weights),
}

impl Source {
    /// What the file `path` holds, as far as it says so itself. What the file is is told from its bytes, not from its
    /// name.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or hostile, or holds a graph that has no counterpart here; the error
    /// names the file, the place in it and what was expected there.
    pub fn open(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Self, InteropError> {
        let path = path.as_ref();
        // A pipe can be read once.
        let bytes = read_model_file(path)?;
        let kind = Kind::of(&bytes, path);
        let is_whole = matches!(kind, Kind::Checkpoint | Kind::Safetensors | Kind::Unreadable(_));
        if !is_whole && !path.is_file() {
            return Err(InteropError::file(path, "neither of safetensors nor a regular file, which others must be"));
        }
        let imported = match kind {
            Kind::Onnx => onnx::import(path, options)?,
            Kind::Checkpoint => Imported { model: Checkpoint::from_bytes(&bytes, path)?.model, notes: Vec::new() },
            kind => return Ok(Self::Weights(Weights::of(path, kind, &bytes)?)),
        };
        imported.model.check()?;
        Ok(Self::Network(Box::new(imported)))
    }
}

/// The network in the file `path`; the one of the zoo that they fit where it holds tensors alone.
///
/// # Errors
/// Those of [`Source::open`] and [`Weights::import`].
pub fn import(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Imported, InteropError> {
    let path = path.as_ref();
    match Source::open(path, options)? {
        Source::Network(imported) => Ok(*imported),
        Source::Weights(weights) => weights.import(path, options),
    }
}
