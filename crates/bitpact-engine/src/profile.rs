//! Where the time of an inference goes.

use std::time::Duration;

/// One layer of a profiled inference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProfile {
    /// Name of the layer.
    pub name: String,
    /// Name of the kernel that computed the layer.
    pub kernel: String,
    /// Multiply-adds of its products, as a direct convolution has them.
    pub macs: u64,
    /// Time it took.
    pub time: Duration,
}
