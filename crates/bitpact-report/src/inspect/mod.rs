//! What is in a network: its graph drawn as text, and its layers as tables for people and objects for scripts.

mod drawing;
mod layers;

pub use drawing::Drawing;
pub use layers::{Layers, macs, packed_bytes, plain};
