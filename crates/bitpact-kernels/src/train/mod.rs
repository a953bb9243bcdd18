//! The kernels of a training step: convolutions with their gradients, normalization with its activation, and pooling.

mod channel_conv;
pub mod conv;
pub mod elements;
pub mod grouped;
pub mod norm;
pub mod pool2d;
