//! What low bits buy in hardware.
//!
//! - A [`Workload`] is a network as a machine sees it, with the bits of every operand; a [`Device`] is a machine as
//!   data, read from TOML, with the source of every constant; an [`Estimate`] is what one takes on the other, layer by
//!   layer: cycles, transfers, what stays on chip, what binds, energy.
//! - [`paper`] rebuilds figure 6 of the PACT paper beside its values.
//! - [`area`] writes Verilog of multiply-accumulate units and of a systolic array, measures their area with yosys, and
//!   simulates the array; an [`AreaTable`] holds the areas of every pair of widths.
//! - [`charts`] draws all of it as SVG.
//!
//! `docs/accelerator.md` has the model, its assumptions and how far it is from what is known.

pub mod area;
pub mod charts;
mod device;
mod error;
mod estimate;
pub mod in_memory;
mod mapping;
mod measured;
pub mod paper;
mod residency;
mod widths;
mod workload;

pub use area::AreaTable;
pub use device::{DEVICE_NAMES, Dataflow, Device, Energy, Overlap, Wider};
pub use error::AccelError;
pub use estimate::{Bound, Estimate, LayerEstimate, resident_width};
pub use mapping::Mapping;
pub use measured::{Comparison, LayerComparison, compare};
pub use residency::Residency;
pub use widths::Widths;
pub use workload::{Activation, Product, Step, Workload};
