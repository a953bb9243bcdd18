//! How much memory training takes, estimated before it is asked for.

pub use bitpact_kernels::memory::free;

use bitpact_graph::{Graph, NodeId, Op, QuantPlan};

/// Share by which an estimate may be too low.
const MARGIN: f64 = 1.1;

/// Bytes that a training plan needs for one image of a batch, estimated from its graph: 32-bit accumulators and what is
/// made of them for every product, codes of one byte (floats of four without quantizers) for every other node, and
/// three gradients as large as the largest tensor.
pub fn image_bytes(graph: &Graph, plan: &QuantPlan) -> u64 {
    let code = if plan.is_float() { 4 } else { 1 };
    let (mut sum, mut largest) = (0, 0);
    for (id, node) in graph.nodes().iter().enumerate() {
        let shape = graph.shape(id);
        let values = (shape.h * shape.w * shape.c) as u64;
        largest = values.max(largest);
        sum += match node.op {
            op if op.is_product() => 4 * values + columns(graph, id),
            // Kept as real numbers.
            Op::Function(_) | Op::Mul => 4 * values,
            // Normalized, added and clipped in one pass over the accumulators.
            Op::BatchNorm(_) | Op::Add => 0,
            _ => code * values,
        };
    }
    sum + 12 * largest
}

/// Codes of a convolution that reads a copy of every window.
fn columns(graph: &Graph, id: NodeId) -> u64 {
    let (op, from, to) = (graph.node(id).op, graph.input_shape(id), graph.shape(id));
    match op.window(from) {
        Some(window) if window.plain().is_none() => (to.h * to.w * from.c * window.kernel[0] * window.kernel[1]) as u64,
        _ => 0,
    }
}

/// Bytes for the tensors themselves: values, gradients, two moments and packed copies.
fn tensor_bytes(graph: &Graph) -> u64 {
    let weights = (0..graph.nodes().len()).filter_map(|id| graph.weight_shape(id));
    24 * weights.map(|shape| shape.iter().product::<usize>() as u64).sum::<u64>()
}

/// Bytes that a batch needs, bytes that there are, and the batch that would fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch {
    /// Bytes estimated.
    pub needed: u64,
    /// Bytes that this process can still have.
    pub free: u64,
    /// Images in a batch that would fit; 0 where not even one does.
    pub fits: u64,
}

/// Tells whether batches of `batch_size` images through all of `networks` fit into `free` bytes.
///
/// # Errors
/// They do not.
pub fn check(networks: &[(&Graph, &QuantPlan)], batch_size: usize, free: Option<u64>) -> Result<(), TooMuch> {
    let Some(free) = free else { return Ok(()) };
    let fixed: u64 = networks.iter().map(|(graph, _)| tensor_bytes(graph)).sum();
    let image: u64 = networks.iter().map(|(graph, plan)| image_bytes(graph, plan)).sum();
    let estimate = |images: u64| (fixed.saturating_add(images.saturating_mul(image)) as f64 * MARGIN) as u64;
    let needed = estimate(batch_size as u64);
    if needed <= free {
        return Ok(());
    }
    let fits = ((free as f64 / MARGIN) as u64).saturating_sub(fixed) / image.max(1);
    Err(TooMuch { needed, free, fits })
}

#[cfg(test)]
mod tests {
    use bitpact_graph::{QuantConfig, Shape, zoo};

    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_says_what_would() {
        let graph = zoo::build("resnet20", Shape::new(32, 32, 3), 10).unwrap().unwrap();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
        let networks = [(&graph, &plan)];
        // 169 MB were measured for 128 images, the whole process.
        let TooMuch { needed, .. } = check(&networks, 128, Some(0)).unwrap_err();
        assert!((120_000_000..220_000_000).contains(&needed), "{needed}");
        let free = 1 << 30;
        let found = check(&networks, 20_000, Some(free)).unwrap_err();
        assert!(found.needed > free && found.free == free);
        check(&networks, found.fits as usize, Some(free)).unwrap();
        check(&networks, found.fits as usize + 2, Some(free)).unwrap_err();
        check(&networks, 1 << 20, None).unwrap();
        assert_eq!(check(&networks, 1, Some(1000)).unwrap_err().fits, 0);
    }
}
