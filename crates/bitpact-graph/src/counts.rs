//! Multiply-adds, parameters and bytes of every layer with weights.

use crate::{Graph, Op, QuantPlan, Shape, WeightPlan};

/// Cost of one convolution or linear layer for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCount {
    /// Name of the layer.
    pub name: String,
    /// Shape of its output.
    pub output: Shape,
    /// Multiply-adds, padding included, what falls off a transposed convolution too.
    pub macs: u64,
    /// Weights and biases.
    pub params: u64,
    /// Bytes of the weights as float32.
    pub float_bytes: u64,
    /// Bytes of the weight codes packed at the plan's width (16 bits for float layers).
    pub packed_bytes: u64,
}

/// Counts every layer with weights, in the order of computation.
pub fn layers(graph: &Graph, plan: &QuantPlan) -> Vec<LayerCount> {
    let mut counts = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate() {
        let Some(shape) = graph.weight_shape(id) else { continue };
        let weights = shape.iter().map(|&n| n as u64).product::<u64>();
        let output = graph.shape(id);
        // Each weight of a transposed convolution meets each pixel of its input.
        let at = if matches!(node.op, Op::ConvTranspose(_)) { graph.input_shape(id) } else { output };
        let positions = at.h * at.w;
        let bias = node.op.has_bias();
        let bits = match plan.weights.get(&node.name) {
            Some(WeightPlan::Quantized(spec)) => u64::from(spec.bits.get()),
            _ => 16,
        };
        counts.push(LayerCount {
            name: node.name.clone(),
            output,
            macs: weights * positions as u64,
            params: weights + if bias { output.c as u64 } else { 0 },
            float_bytes: weights * 4,
            packed_bytes: (weights * bits).div_ceil(8),
        });
    }
    counts
}

/// Parameters of the whole network as PyTorch counts them: weights, biases, slopes, and two a channel of every batch
/// norm.
pub fn parameters(graph: &Graph) -> u64 {
    let mut total = 0;
    for (id, node) in graph.nodes().iter().enumerate() {
        let channels = graph.shape(id).c as u64;
        let weights = graph.weight_shape(id).map_or(0, |shape| shape.iter().map(|&n| n as u64).product());
        let other = match node.op {
            Op::BatchNorm(_) => 2,
            Op::Function(function) => u64::from(function.is_learned()),
            op => u64::from(op.has_bias()),
        };
        total += weights + other * channels;
    }
    total
}

impl std::fmt::Display for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inputs = |node: &crate::Node| -> String {
            node.inputs.iter().map(|&i| self.node(i).name.as_str()).collect::<Vec<_>>().join(" + ")
        };
        let width = self.nodes().iter().map(|n| n.name.len()).max().unwrap_or(0);
        writeln!(f, "{}: {} -> {} classes", self.name(), self.input(), self.classes())?;
        for (id, node) in self.nodes().iter().enumerate() {
            let shape = self.shape(id).to_string();
            writeln!(f, "  {:width$}  {:15}  {:12}  {}", node.name, node.op.name(), shape, inputs(node))?;
        }
        Ok(())
    }
}
