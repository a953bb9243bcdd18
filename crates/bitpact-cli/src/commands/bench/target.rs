//! What is measured: a model from a file, or an architecture with random weights, as a file that rows load.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use bitpact::unstable::graph::{GraphError, zoo};
use bitpact::unstable::model::InputDescription;
use bitpact::unstable::train::Draft;
use bitpact::unstable::train::recipe::Key;
use bitpact::{Graph, IntegerModel, Model, convert};

use super::Args;
use super::row::STDIN;
use crate::exit::Usage;
use crate::loaded::{architecture, open};

/// A network to measure.
pub(super) struct Target {
    /// The architecture's name, or the file.
    pub(super) name: String,
    /// Of a random network.
    pub(super) bits: Option<String>,
    /// The network.
    pub(super) model: IntegerModel,
    /// The network as a file.
    pub(super) file: ModelFile,
    pub(super) file_bytes: u64,
}

/// A `.bitpact` file that is the user's, or one without a name, which no end of this process can leave behind.
pub(super) enum ModelFile {
    Given(PathBuf),
    Temporary(File),
}

impl ModelFile {
    /// Gives the file to a process as its argument, or as its standard input with [`STDIN`] as its argument.
    pub(super) fn give_to(&self, command: &mut Command) -> std::io::Result<()> {
        match self {
            ModelFile::Given(path) => {
                command.arg(path);
            }
            ModelFile::Temporary(file) => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                command.arg(STDIN).stdin(file);
            }
        }
        Ok(())
    }
}

impl Target {
    pub(super) fn open(args: &Args) -> Result<Self> {
        let (path, shown) = (args.model(), args.model().display());
        let is_file = path.exists();
        if let (true, Some(_)) = (is_file, args.image_size) {
            return Err(
                Usage(format!("--image-size: only an architecture's name takes it, and {shown} is a file")).into()
            );
        }
        let side = args.image_size.map(|side| side as usize);
        let usage = |error: anyhow::Error| match error.downcast::<GraphError>() {
            Ok(error) => Usage(format!("--image-size: {error}")).into(),
            Err(error) => error,
        };
        if let Some(graph) = architecture(args.model(), side).map_err(usage)? {
            return Self::random(args, graph);
        }
        if !is_file {
            let names = zoo::NAMES.join(", ");
            return Err(Usage(format!("`{shown}` is neither a file nor one of the architectures {names}")).into());
        }
        if let Some(flag) = args.flags.given().next().map(Key::flag) {
            return Err(Usage(format!("--{flag}: only an architecture's name takes it, and {shown} is a file")).into());
        }
        let loaded = open(path)?;
        let model = loaded.integers()?.clone();
        let name = loaded.file.display().to_string();
        let is_given = loaded.file.extension().is_some_and(|extension| extension == "bitpact") && loaded.file.is_file();
        if is_given {
            let file_bytes = std::fs::metadata(&loaded.file).map_or(0, |metadata| metadata.len());
            return Ok(Self { name, bits: None, model, file: ModelFile::Given(loaded.file), file_bytes });
        }
        Self::temporary(name, None, model)
    }

    fn random(args: &Args, graph: Graph) -> Result<Self> {
        // Of a recipe only the bits matter here.
        let mut draft = Draft::parse("dataset = \"builtin\"\narch = \"cnn\"\nepochs = 1\n", "a network")?;
        args.flags.apply(&mut draft)?;
        let recipe = draft.finish()?;
        if recipe.bits.is_float() {
            return Err(Usage("--bits: a float network has no integers to measure".to_owned()).into());
        }
        let plan = recipe.plan(&graph)?;
        let names = (0..graph.classes()).map(|class| class.to_string()).collect();
        let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
        let model = Model::random(graph, plan, input, names, 1)?;
        let integers = convert(&model)?.model;
        Self::temporary(args.model().display().to_string(), Some(recipe.bits.to_string()), integers)
    }

    fn temporary(name: String, bits: Option<String>, model: IntegerModel) -> Result<Self> {
        let bytes = model.to_bytes()?;
        let write = || -> std::io::Result<File> {
            let mut file = tempfile::tempfile()?;
            file.write_all(&bytes)?;
            Ok(file)
        };
        let file = write().context("cannot write a temporary file")?;
        Ok(Self { name, bits, model, file: ModelFile::Temporary(file), file_bytes: bytes.len() as u64 })
    }
}
