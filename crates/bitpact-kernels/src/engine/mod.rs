//! The kernels of an integer layer: exact products of codes, requantization, and both fused strip by strip.

pub(crate) mod fused;
pub mod linear;
pub mod product;
pub(crate) mod requant;
