//! The C of a network.

mod emit;
mod files;

use bitpact_model::IntegerModel;

use super::ends::Parameter;
use super::store::Memory;
use super::{File, Footprint};
use crate::export::CheckData;
use emit::Source;

/// The kernels, which every exported network includes.
const KERNELS: &str = concat!(
    include_str!("runtime/base.h"),
    include_str!("runtime/dot.h"),
    include_str!("runtime/product.h"),
    include_str!("runtime/sum.h"),
    include_str!("runtime/moves.h"),
);

/// Header, source, kernels, self-test over the images of `golden`, and what builds them.
pub(super) fn files(
    model: &IntegerModel,
    memory: &Memory,
    parameters: &[Parameter],
    footprint: &Footprint,
    golden: &CheckData,
) -> Vec<File> {
    let name = &footprint.name;
    vec![
        File::new("bitpact_kernels.h", KERNELS.to_owned()),
        File::new(format!("{name}.h"), files::header(model, name, parameters, footprint)),
        File::new(format!("{name}.c"), Source::write(model, memory, name, parameters)),
        File::new(format!("{name}_test.c"), files::self_test(model, name, parameters, golden)),
        File::new("Makefile", files::makefile(name)),
        File::new("CMakeLists.txt", files::cmake(name)),
    ]
}
