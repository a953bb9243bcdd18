//! What a network is: a small closed set of ops, shapes checked by node, a model zoo, the number of bits of every
//! layer, and counts of multiply-adds, parameters and bytes.
//!
//! A [`Graph`] says what is computed, a [`QuantPlan`] with how many bits. Both are plain values that print, compare
//! and serialize; nothing in here computes a network. [`fuse`] groups the nodes of a graph into the [`Layer`]s that
//! training and conversion both work in: sums of terms, `act(norm(product(x)) + shortcut)`.

mod channels;
mod choices;
pub mod counts;
mod error;
mod file;
mod fuse;
mod glob;
mod graph;
mod op;
mod plan;
mod shape;
mod sources;
#[cfg(feature = "testing")]
pub mod testing;
mod view;
mod window;
pub mod zoo;

pub use channels::{ChannelGroups, Site};
pub use choices::{Alternative, Choice};
pub use error::GraphError;
pub use fuse::{End, Factor, Layer, Sum, Term, View, fuse, fuse_float};
pub use glob::matches as name_matches;
pub use graph::{Graph, Node, NodeId};
pub use op::{AvgPool, BatchNorm, Conv, ConvTranspose, MaxPool, Op};
pub use plan::{ActPlan, BitSpec, FirstLast, Override, PlanError, QuantConfig, QuantPlan, ShortcutBits, WeightPlan};
pub use shape::Shape;
pub use view::{Move, Place, moved_shape, moved_source};
pub use window::{Padding, Window};
