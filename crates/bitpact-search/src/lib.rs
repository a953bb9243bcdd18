//! What to train: the bits of every layer, chosen under a budget.
//!
//! - A [`Product`] is a convolution or linear layer as cost models see it, [`Bitwidths`] are the bits of a whole
//!   network; a [`Cost`] is a function of both: bytes, bit-operations, cycles and energy of chips that are data
//!   ([`Chip`]), every device of `bitpact-accel`, and the measured times of a [`LatencyTable`].
//! - A [`Space`] is what may be chosen for a network, with the change of the loss that each width was measured to make.
//! - [`exact`] and [`greedy`] choose: every tensor one width, the sum of the changes as small as the [`Budget`]s allow.
//!
//! Chips lie in `chips/`, every constant with its source; [`latency`] says how far interpolated times are from measured
//! ones.

mod bitwidths;
mod budget;
mod chip;
mod choose;
mod cost;
mod error;
pub mod knapsack;
pub mod latency;
mod product;
mod space;

pub use bitwidths::Bitwidths;
pub use budget::{Budget, Limit, Quantity};
pub use chip::{CHIP_NAMES, Chip};
pub use choose::{Choice, Limited, exact, exact_front, greedy};
pub use cost::{CPU, Cost};
pub use error::SearchError;
pub use latency::LatencyTable;
pub use product::{Kind, Product};
pub use space::{Change, Part, Space, Variable};
