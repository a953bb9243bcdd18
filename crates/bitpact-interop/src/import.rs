//! One door for every kind of file.

use std::path::Path;

use bitpact_graph::Shape;
use bitpact_model::Model;

use crate::{InteropError, Kind, Pixels, onnx, weights};

/// What a file does not say itself.
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

/// A network of another program, as one of ours.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network, checked ([`Model::check`]).
    pub model: Model,
    /// What was assumed or left out, a sentence each.
    pub notes: Vec<String>,
}

/// The network in the file `path`. What the file is is told from its bytes, not from its name.
///
/// # Errors
/// A file that cannot be read, is damaged or hostile, or holds a network that has no counterpart here; the error names
/// the file, the place in it and what was expected there.
pub fn import(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Imported, InteropError> {
    let path = path.as_ref();
    let imported = match Kind::of(path)? {
        Kind::Onnx => onnx::import(path, options)?,
        kind => weights::import(path, kind, options)?,
    };
    imported.model.check()?;
    Ok(imported)
}
