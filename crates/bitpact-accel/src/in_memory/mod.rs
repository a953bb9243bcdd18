//! In-memory computing: what an array of magnetic, resistive or transistor cells makes of a low-bit network.
//!
//! - A [`Cell`] is data: its currents follow from stated physics, every parameter has a spread, every constant a
//!   source.
//! - [`exact`] solves the wires' network of resistors, [`Droop`] is its linear stand-in; [`margins`], [`read_disturb`]
//!   and [`count_error_rate`] are what a designer of arrays asks first.
//! - [`layers`] are the products of an integer network, [`Slices`] their bits, and a [`ChipLayer`] one of them on the
//!   arrays of a chip whose cells have been drawn. A [`CountLayer`] draws every read from a [`CountTable`] instead.
//! - A [`study`] is a whole network on many chips.

mod cell;
pub mod charts;
mod check;
mod chip;
mod cost;
mod counts;
mod encoding;
mod ladder;
mod layers;
mod margin;
mod patterns;
mod reader;
mod study;

pub use cell::{Adc, Array, CELL_NAMES, Cell, Encoding, Law, Spread, Storage, Stored};
pub use chip::{ChipLayer, ReadErrors};
pub use cost::LayerCost;
pub use counts::{CountLayer, CountTable};
pub use encoding::Slices;
pub use ladder::{Droop, exact, word_line_share};
pub use layers::{Layer, layers};
pub use margin::{Margins, ReadDisturb, count_error_rate, margins, read_disturb};
pub use reader::Reader;
pub use study::{Chip, LayerStudy, Method, Options, Simulation, Study, array_layers, study};
