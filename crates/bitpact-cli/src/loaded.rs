//! A MODEL on the command line: a .bitpact file, a checkpoint, or the folder of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bitpact::unstable::graph::{Graph, Shape, zoo};
use bitpact::unstable::model::{BITPACT_MAGIC, ConvertError, InputDescription, read_model_file};
use bitpact::unstable::train::recipe::{nearest, read_network};
use bitpact::unstable::train::run_folder::{CONFIG, LAST, MODEL};
use bitpact::unstable::train::{Draft, Recipe, RunFolder};
use bitpact::{Checkpoint, IntegerModel, convert};

/// What was found.
pub(crate) struct Loaded {
    /// The file it came from.
    pub(crate) file: PathBuf,
    /// The recipe that trained it, where known.
    pub(crate) recipe: Option<Recipe>,
    /// The network.
    pub(crate) network: Network,
}

/// The network of a file.
pub(crate) enum Network {
    /// Integers.
    Integer {
        /// The network.
        model: IntegerModel,
        /// The largest error of a step that conversion proved; not kept in .bitpact files.
        worst_error: Option<f64>,
        /// The checkpoint it was converted from.
        checkpoint: Option<Box<Checkpoint>>,
    },
    /// A network without quantizers, which has no integer form.
    Float(Box<Checkpoint>),
}

/// Opens a MODEL. A run folder means its `model.bitpact`, or its `last.safetensors` where it is a float run.
pub(crate) fn open(path: &Path) -> Result<Loaded> {
    if !path.exists()
        && let Some(near) = path.to_str().and_then(|name| nearest(name, zoo::NAMES))
    {
        bail!("{}: neither a file nor an architecture (did you mean `{near}`?)", path.display());
    }
    if !path.is_dir() {
        return open_file(path, None);
    }
    let folder = RunFolder::open(path)?;
    let recipe = if folder.file(CONFIG).exists() { Some(folder.config()?) } else { None };
    let file = [MODEL, LAST].map(|name| folder.file(name)).into_iter().find(|file| file.exists());
    let Some(file) = file else { bail!("{}: the run has not come to its first checkpoint", path.display()) };
    open_file(&file, recipe)
}

/// The network that `name` says without weights: of a TOML or JSON file with its nodes, or, where no file or folder has
/// the name, of the zoo, at its usual size or for square images of `side` rows.
pub(crate) fn architecture(path: &Path, side: Option<usize>) -> Result<Option<Graph>> {
    if path.extension().is_some_and(|extension| extension == "toml" || extension == "json") {
        return Ok(Some(read_network(path)?));
    }
    let name = path.to_str().unwrap_or_default();
    let (usual, classes) = zoo::usual_input(name);
    let side = side.unwrap_or(usual);
    match zoo::build(name, Shape::new(side, side, 3), classes) {
        Some(graph) if !path.exists() => Ok(Some(graph?)),
        _ => Ok(None),
    }
}

/// Opens what a run can be converted from: its checkpoint.
pub(crate) fn open_checkpoint(path: &Path) -> Result<(PathBuf, Checkpoint)> {
    let file = if path.is_dir() { RunFolder::open(path)?.file(LAST) } else { path.to_owned() };
    let bytes = read_model_file(&file)?;
    if is_bitpact(&file, &bytes) {
        bail!("{}: is an integer network already; expected a run folder or a checkpoint", file.display());
    }
    let checkpoint = Checkpoint::from_bytes(&bytes, &file)?;
    Ok((file, checkpoint))
}

fn open_file(file: &Path, recipe: Option<Recipe>) -> Result<Loaded> {
    // Opened once: what is read of a pipe is gone.
    let bytes = read_model_file(file)?;
    if is_bitpact(file, &bytes) {
        let model = IntegerModel::from_bytes(&bytes, file)?;
        let network = Network::Integer { model, worst_error: None, checkpoint: None };
        return Ok(Loaded { file: file.to_owned(), recipe, network });
    }
    let checkpoint = Checkpoint::from_bytes(&bytes, file)?;
    drop(bytes);
    let stored = checkpoint
        .training
        .as_ref()
        .map(|t| Draft::parse(&t.recipe, "stored recipe").and_then(|draft| draft.stored().finish()));
    let recipe = match (recipe, stored) {
        (None, Some(stored)) => Some(stored.with_context(|| file.display().to_string())?),
        (recipe, _) => recipe,
    };
    let network = match convert(&checkpoint.model) {
        Ok(conversion) => Network::Integer {
            worst_error: Some(conversion.worst_error()),
            model: conversion.model,
            checkpoint: Some(Box::new(checkpoint)),
        },
        Err(ConvertError::Float { .. }) => Network::Float(Box::new(checkpoint)),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    Ok(Loaded { file: file.to_owned(), recipe, network })
}

/// Whether the file is an integer network, or, empty or damaged, was meant to be one.
fn is_bitpact(file: &Path, bytes: &[u8]) -> bool {
    bytes.starts_with(&BITPACT_MAGIC) || file.extension().is_some_and(|extension| extension == "bitpact")
}

impl Loaded {
    /// Names of the classes.
    pub(crate) fn class_names(&self) -> &[String] {
        match &self.network {
            Network::Integer { model, .. } => &model.class_names,
            Network::Float(checkpoint) => &checkpoint.model.class_names,
        }
    }

    /// The integer network, or an error that says what can be done about it.
    pub(crate) fn integers(&self) -> Result<&IntegerModel> {
        match &self.network {
            Network::Integer { model, .. } => Ok(model),
            Network::Float(_) => bail!("{}: is a float network, which has no integers", self.file.display()),
        }
    }

    /// Scale and zero point of the pixels.
    pub(crate) fn input(&self) -> &InputDescription {
        match &self.network {
            Network::Integer { model, .. } => &model.input,
            Network::Float(checkpoint) => &checkpoint.model.input,
        }
    }

    /// Shape of the images.
    pub(crate) fn input_shape(&self) -> Shape {
        match &self.network {
            Network::Integer { model, .. } => model.input_shape,
            Network::Float(checkpoint) => checkpoint.model.graph.input(),
        }
    }
}
