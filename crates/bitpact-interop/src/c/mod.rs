//! Integer networks as source: C99 for any machine, with kernels for Arm.
//!
//! The C that [`write()`] writes computes the interpreter's integers, bit for bit, with nothing but `stdint.h` and
//! `string.h`. docs/microcontrollers.md says how to build it and what it takes.

mod emit;
mod ends;
mod files;
mod moves;
mod names;
mod store;
mod words;

use std::path::Path;

use bitpact_model::{IntegerModel, ModelError, write_atomically};

use crate::export::CheckData;
use emit::Source;
use ends::{constant_bytes, parameters};
use names::identifier;
use store::Memory;

/// The kernels, which every exported network includes.
const KERNELS: &str = concat!(
    include_str!("runtime/base.h"),
    include_str!("runtime/dot.h"),
    include_str!("runtime/product.h"),
    include_str!("runtime/sum.h"),
    include_str!("runtime/moves.h"),
);

/// Bytes of the code of the kernels on a Cortex-M at the most, whatever the network: 11 to 16 KiB by the compiler's
/// flags.
pub const CODE_BYTES: usize = 18 * 1024;

/// Why no source can be written.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A prefix that is no identifier, or one that languages keep for themselves.
    #[error(
        "name `{name}`: expected a letter and then letters, digits and `_`, 40 at most, that no keyword of C, C++ or Rust is and no kernel begins with (`bp_`)"
    )]
    Name {
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
    /// Bytes of memory in all: arena, columns of codes (16 bits each, as the DSP instructions read them) and pointers.
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

/// What `model` takes once it is written as source.
pub fn footprint(model: &IntegerModel) -> Footprint {
    of_memory(model, &Memory::plan(model), usual_name(model))
}

fn of_memory(model: &IntegerModel, memory: &Memory, name: String) -> Footprint {
    let layer = |(i, layer): (usize, &bitpact_model::IntegerLayer)| LayerFootprint {
        name: layer.name.clone(),
        weight_bytes: memory.streams[i].iter().map(|stream| stream.bytes.len()).sum(),
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
        ram_bytes: memory.ram(),
        layers,
    }
}

/// The prefix of a network that is given none: its architecture as an identifier.
pub fn usual_name(model: &IntegerModel) -> String {
    identifier(&model.arch, "net")
}

/// Writes `model` as C into `folder`, made if it is not there: `NAME.h`, `NAME.c`, the kernels, a self-test over the
/// images of `golden`, a Makefile, a CMakeLists.txt and `NAME.json`, which comes last.
///
/// # Errors
/// A network that is not valid, a name that cannot be a prefix, or a file that cannot be written.
pub fn write(
    model: &IntegerModel,
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
    let memory = Memory::plan(model);
    let parameters = parameters(model, &memory);
    let footprint = of_memory(model, &memory, name.clone());
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_owned(), source })?;
    let write = |file: &str, text: &str| write_atomically(folder.join(file), text.as_bytes());
    write("bitpact_kernels.h", KERNELS)?;
    write(&format!("{name}.h"), &files::header(model, &name, &parameters, &footprint))?;
    write(&format!("{name}.c"), &Source::write(model, &memory, &name, &parameters))?;
    write(&format!("{name}_test.c"), &files::self_test(model, &name, &parameters, golden))?;
    write("Makefile", &files::makefile(&name))?;
    write("CMakeLists.txt", &files::cmake(&name))?;
    write(&format!("{name}.json"), &files::json(model, &parameters, &footprint))?;
    Ok(footprint)
}
