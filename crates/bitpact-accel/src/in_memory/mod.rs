//! In-memory computing: what an array of magnetic, resistive or transistor cells makes of a low-bit network.
//!
//! - A [`Cell`] is data: its currents follow from stated physics, every parameter has a spread, every constant a source.
//! - [`exact`] solves the wires' network of resistors, [`Droop`] is its linear stand-in; [`margins`], [`read_disturb`] and
//!   [`count_error_rate`] are what a designer of arrays asks first.
//!

mod cell;
mod check;
mod ladder;
mod margin;
mod reader;

pub use cell::{Adc, Array, CELL_NAMES, Cell, Encoding, Law, Spread, Storage, Stored};
pub use ladder::{Droop, exact, word_line_share};
pub use margin::{Margins, ReadDisturb, count_error_rate, margins, read_disturb};
pub use reader::Reader;
