//! Integer networks as source: C99 for any machine, with kernels for Arm, and `no_std` Rust.
//!
//! The source that [`write()`] writes computes the interpreter's integers, bit for bit, with nothing but `stdint.h` and
//! `string.h`, or `core`. docs/microcontrollers.md says how to build it and what it takes.

mod c;
mod ends;
mod figures;
mod layers;
mod moves;
mod names;
mod rust;
mod store;
mod words;

use std::path::Path;

use bitpact_model::{IntegerModel, ModelError, write_atomically};

use crate::export::CheckData;
use ends::{constant_bytes, parameters};
use names::identifier;
use store::Memory;

/// A language that networks are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C99: headers, sources, a Makefile and a CMakeLists.txt.
    C,
    /// Rust without `std` and without `unsafe`: a package.
    Rust,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::C, Self::Rust];

    /// The name of its format: `c` or `rust`.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Rust => "rust",
        }
    }
}

/// A file of an exported network.
struct File {
    /// Its path in the folder.
    path: String,
    text: String,
}

impl File {
    fn new(path: impl Into<String>, text: String) -> Self {
        Self { path: path.into(), text }
    }
}

/// Bytes of the code of the kernels on a Cortex-M at `-Os` or `-O2`, whatever the network: 15 to 18 KiB by the
/// compiler's flags.
pub const CODE_BYTES: usize = 20 * 1024;

/// Why no source can be written.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A prefix that is no identifier, or one that languages keep for themselves.
    #[error(
        "name `{name}`: expected a letter and then letters, digits and `_`, 40 at most, that no keyword of C, C++ or Rust and no crate of theirs is and no kernel begins with (`bp_`)"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A prefix that compilers of Rust warn of.
    #[error("name `{name}`: a package of Rust has lower-case letters, digits and single `_`")]
    Package {
        /// The name.
        name: String,
    },
    /// An invalid network, or a file that cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// What a network takes on a machine of 32 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// The prefix of its names.
    pub name: String,
    /// Bytes of weights, of every layer.
    pub weight_bytes: usize,
    /// Bytes of multipliers, constants, bounds and tables.
    pub constant_bytes: usize,
    /// Bytes of the arena of activations.
    pub arena_bytes: usize,
    /// Bytes of activations that are needed at once at the most.
    pub live_bytes: usize,
    /// Bytes of memory in all: arena, columns of codes and places of taps. Codes of columns have 16 bits in C, as the
    /// DSP instructions read them, and 8 in Rust.
    pub ram_bytes: usize,
    /// The layers in their order.
    pub layers: Vec<LayerFootprint>,
}

/// What a layer takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFootprint {
    /// Its name.
    pub name: String,
    /// Bytes of its weights.
    pub weight_bytes: usize,
    /// Bytes of its other constants.
    pub constant_bytes: usize,
    /// Bytes of its output in the arena.
    pub output_bytes: usize,
    /// Multiply-adds of its products.
    pub macs: u64,
}

impl Footprint {
    /// Bytes of constants in flash: weights, multipliers and tables. Code comes in addition.
    pub fn flash_bytes(&self) -> usize {
        self.weight_bytes + self.constant_bytes
    }

    /// Multiply-adds of an image.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(|layer| layer.macs).sum()
    }
}

/// What `model` takes once it is written as source of `language`.
pub fn footprint(model: &IntegerModel, language: Language) -> Footprint {
    of_memory(model, &Memory::plan(model), usual_name(model), language)
}

fn of_memory(model: &IntegerModel, memory: &Memory, name: String, language: Language) -> Footprint {
    let tail = |stream: &store::Stream| if language == Language::C { stream.tail } else { 0 };
    let layer = |(i, layer): (usize, &bitpact_model::IntegerLayer)| LayerFootprint {
        name: layer.name.clone(),
        weight_bytes: memory.streams[i].iter().map(|stream| stream.bytes.len() + tail(stream)).sum(),
        constant_bytes: constant_bytes(&layer.op),
        output_bytes: if layer.op.is_output() { 0 } else { memory.tensors[i + 1].bytes() },
        macs: layer.op.products().map(|product| (product.codes.len() * layer.shape.h * layer.shape.w) as u64).sum(),
    };
    let layers: Vec<LayerFootprint> = model.layers.iter().enumerate().map(layer).collect();
    Footprint {
        name,
        weight_bytes: layers.iter().map(|layer| layer.weight_bytes).sum(),
        constant_bytes: layers.iter().map(|layer| layer.constant_bytes).sum(),
        arena_bytes: memory.arena,
        live_bytes: memory.live,
        ram_bytes: memory.ram(language),
        layers,
    }
}

/// The prefix of a network that is given none: its architecture as an identifier.
pub fn usual_name(model: &IntegerModel) -> String {
    identifier(&model.arch, "net")
}

/// Writes `model` as source of `language` into `folder`, made if it is not there, with a self-test over the images of
/// `golden`; `NAME.json` comes last. Of C these are `NAME.h`, `NAME.c`, the kernels, a Makefile and a CMakeLists.txt,
/// of Rust a package.
///
/// # Errors
/// A network that is not valid, a name that cannot be a prefix, or a file that cannot be written.
pub fn write(
    model: &IntegerModel,
    language: Language,
    name: Option<&str>,
    golden: &CheckData,
    folder: &Path,
) -> Result<Footprint, SourceError> {
    model.check()?;
    let name = match name {
        None => usual_name(model),
        Some(name) if names::is_usable(name) => name.to_owned(),
        Some(name) => return Err(SourceError::Name { name: name.to_owned() }),
    };
    if language == Language::Rust && !names::is_snake_case(&name) {
        return Err(SourceError::Package { name });
    }
    let memory = Memory::plan(model);
    let parameters = parameters(model, &memory);
    let footprint = of_memory(model, &memory, name.clone(), language);
    let files = match language {
        Language::C => c::files(model, &memory, &parameters, &footprint, golden),
        Language::Rust => rust::files(model, &memory, &parameters, &footprint, golden),
    };
    let figures = File::new(format!("{name}.json"), figures::json(model, &parameters, &footprint, language));
    for file in files.iter().chain([&figures]) {
        let path = folder.join(&file.path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|source| ModelError::Write { path: parent.to_owned(), source })?;
        write_atomically(path, file.text.as_bytes())?;
    }
    Ok(footprint)
}
