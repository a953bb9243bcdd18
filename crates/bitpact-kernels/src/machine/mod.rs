//! The machine: which instruction sets it has, its threads, its memory and the rates that it reaches.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod dispatch;
mod geometry;
pub(crate) mod isa;
pub mod layout;
pub mod memory;
#[cfg(all(test, shuttle))]
mod orders;
pub mod peak;
pub(crate) mod pool;
pub(crate) mod registers;
pub(crate) mod shares;
mod sync;
pub(crate) mod weights;
pub(crate) mod workers;

pub(crate) use dispatch::on_isa;
pub use geometry::ConvGeometry;
