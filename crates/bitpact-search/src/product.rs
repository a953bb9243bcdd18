//! A convolution or linear layer as cost models see it.

use bitpact_graph::{Graph, NodeId, Op, Shape};

/// The form of a product, which decides what kernel runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A convolution in which every output channel reads every input channel.
    Conv,
    /// A convolution in which every output channel reads one input channel.
    Depthwise,
    /// A convolution with groups of several channels.
    Grouped,
    /// A transposed convolution.
    Transposed,
    /// A linear layer.
    Linear,
}

/// A convolution or linear layer of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// Name of the layer.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// Its form.
    pub kind: Kind,
    /// Input channels, of all groups; of a linear layer all values.
    pub in_channels: u64,
    /// Output channels, of all groups.
    pub out_channels: u64,
    /// Positions of the window, rows times columns; 1 of a linear layer.
    pub window: u64,
    /// Shape of the input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
    /// Number of weights.
    pub weights: u64,
    /// Number of biases.
    pub biases: u64,
    /// Multiply-adds for one image, padding included, as [`bitpact_graph::counts`] has them.
    pub macs: u64,
    /// The activations that hold the clip value of the codes it reads ([`Graph::clip_owners`]); none where it reads
    /// the image.
    pub sources: Vec<NodeId>,
}

impl Product {
    /// Every product of `graph` in the order of computation.
    pub fn all(graph: &Graph) -> Vec<Self> {
        let owners = graph.clip_owners();
        let of = |id: NodeId| {
            let op = graph.node(id).op;
            let weights: u64 = graph.weight_shape(id)?.iter().map(|&n| n as u64).product();
            let (input, output) = (graph.input_shape(id), graph.shape(id));
            let is_linear = matches!(op, Op::Linear { .. });
            let in_channels = if is_linear { input.elements() } else { input.c };
            let kind = match op {
                Op::Linear { .. } => Kind::Linear,
                Op::ConvTranspose(_) => Kind::Transposed,
                _ if op.groups() == 1 => Kind::Conv,
                _ if op.groups() == in_channels => Kind::Depthwise,
                _ => Kind::Grouped,
            };
            let window = if is_linear { 1 } else { op.window(input).map_or(1, |w| w.kernel[0] * w.kernel[1]) };
            let at = if kind == Kind::Transposed { input } else { output };
            let mut sources: Vec<NodeId> =
                graph.source_acts(graph.node(id).inputs[0]).into_iter().map(|act| owners[act]).collect();
            sources.sort_unstable();
            sources.dedup();
            Some(Self {
                name: graph.node(id).name.clone(),
                op,
                kind,
                in_channels: in_channels as u64,
                out_channels: output.c as u64,
                window: window as u64,
                input,
                output,
                weights,
                biases: if op.has_bias() { output.c as u64 } else { 0 },
                macs: weights * (at.h * at.w) as u64,
                sources,
            })
        };
        (0..graph.nodes().len()).filter_map(of).collect()
    }

    /// Bytes of the weights as a `.bitpact` file packs them: `ceil(weights * bits / 8)`.
    pub fn packed_bytes(&self, bits: u8) -> u64 {
        (self.weights * u64::from(bits)).div_ceil(8)
    }
}
