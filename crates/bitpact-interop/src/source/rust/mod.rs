//! The Rust of a network.

mod emit;
mod files;

use bitpact_model::IntegerModel;

use super::ends::Parameter;
use super::store::Memory;
use super::{File, Footprint};
use crate::export::CheckData;
use emit::Source;

/// The kernels, a module of every exported network.
const KERNELS: &str = include_str!("kernels.rs");

/// A package: the network as one module, a test over the images of `golden`, and a program that runs files of images.
pub(super) fn files(
    model: &IntegerModel,
    memory: &Memory,
    parameters: &[Parameter],
    footprint: &Footprint,
    golden: &CheckData,
) -> Vec<File> {
    let name = &footprint.name;
    vec![
        File::new("Cargo.toml", files::manifest(name)),
        File::new("rustfmt.toml", "disable_all_formatting = true\n".to_owned()),
        File::new("src/lib.rs", files::library(model, name)),
        File::new(format!("src/{name}.rs"), Source::write(model, memory, footprint, parameters)),
        File::new("tests/golden.rs", files::test(model, name, parameters, golden)),
        File::new("examples/run_file.rs", files::program(name, parameters)),
    ]
}
