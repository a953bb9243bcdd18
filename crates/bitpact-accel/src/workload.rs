//! What a machine is asked to compute: the products of a network with the widths of their operands, and the tensors
//! between them.

use bitpact_graph::{End, FirstLast, Graph, Layer, NodeId, Op, QuantPlan, Sum, WeightPlan, fuse};
use bitpact_model::{IntegerModel, IntegerProduct, TensorKind};

use crate::{AccelError, Widths};

/// Bits of a pixel as it arrives.
const PIXEL_BITS: u8 = 8;
/// Bits of a logit as it leaves.
const LOGIT_BITS: u8 = 32;
/// Bits of a value of a residual stream.
const STREAM_BITS: u8 = 32;

/// A network as a machine sees it: steps in the order of computation, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Name of the architecture.
    pub name: String,
    /// Every tensor between steps; the first is the image.
    pub tensors: Vec<Activation>,
    /// The steps; the last one gives the logits.
    pub steps: Vec<Step>,
}

/// A tensor between steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Name of the node that makes it.
    pub name: String,
    /// Values of one image.
    pub elements: u64,
    /// Bits of a value where it is stored and moved.
    pub bits: u8,
}

impl Activation {
    /// Bytes of one image's tensor, packed.
    pub fn bytes(&self) -> u64 {
        (self.elements * u64::from(self.bits)).div_ceil(8)
    }
}

/// Everything from one stored tensor to the next: products with their norm, addition and activation, an activation of a
/// residual stream, a concatenation, or a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the last node of the step.
    pub name: String,
    /// Tensors read, a shortcut's included.
    pub inputs: Vec<usize>,
    /// Tensor written.
    pub output: usize,
    /// The product, and a projection shortcut's; none of other steps.
    pub products: Vec<Product>,
}

/// One convolution or linear layer: `groups` products of `in_channels * window` values to `out_channels` sums, for
/// every pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Name of the layer.
    pub name: String,
    /// Groups; each has its own inputs and outputs.
    pub groups: u64,
    /// Input channels of a group.
    pub in_channels: u64,
    /// Output channels of a group.
    pub out_channels: u64,
    /// Positions of the window: rows times columns.
    pub window: u64,
    /// Output pixels of one image.
    pub pixels: u64,
    /// Bits of the operands.
    pub widths: Widths,
}

impl Product {
    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.groups * self.in_channels * self.out_channels * self.window
    }

    /// Bytes of the weights, packed at their width.
    pub fn weight_bytes(&self) -> u64 {
        (self.weights() * u64::from(self.widths.weights())).div_ceil(8)
    }

    /// Multiply-adds for one image, padding included.
    pub fn macs(&self) -> u64 {
        self.weights() * self.pixels
    }
}

impl Workload {
    /// `graph` with the same `widths` everywhere, except the layer that reads the image and the last one: at least 8
    /// bits wide with [`FirstLast::Bits8`], 16-bit weights with [`FirstLast::Float`]. Pixels are stored as 8 bits; with
    /// [`FirstLast::Same`] they enter the product cut to the activations' width.
    ///
    /// # Errors
    /// A graph that cannot be grouped into steps.
    pub fn uniform(graph: &Graph, widths: Widths, first_last: FirstLast) -> Result<Self, AccelError> {
        let of = |id: NodeId, output: NodeId| match first_last {
            _ if graph.node(id).inputs[0] != 0 && !graph.is_output(output) => widths,
            FirstLast::Same => widths,
            FirstLast::Bits8 => widths.at_least(8),
            FirstLast::Float => Widths::new(widths.activations(), 16).expect("16 is a width"),
        };
        Self::build(graph, |_| widths.activations(), |sum, id| of(id, sum.output))
    }

    /// `graph` with the bits of `plan`; float layers count as the 16-bit weight codes they are converted to.
    ///
    /// # Errors
    /// A plan without quantized activations, or a graph that cannot be grouped into steps.
    pub fn planned(graph: &Graph, plan: &QuantPlan) -> Result<Self, AccelError> {
        if plan.is_float() {
            return Err(AccelError::Float { network: graph.name().to_owned() });
        }
        let act = |name: &str| plan.activations.get(name).map(|act| act.bits.get());
        let weights = |name: &str| match plan.weights.get(name) {
            Some(WeightPlan::Quantized(spec)) => Some(spec.bits.get()),
            _ => None,
        };
        Self::of_bits(graph, act, weights)
    }

    /// `graph` with the bits that `act` tells of an activation (8 where `None`) and `weights` of a product, by name (16
    /// where `None`).
    ///
    /// # Errors
    /// A graph that cannot be grouped into steps.
    ///
    /// # Panics
    /// If a width is outside 1 to 16.
    pub fn of_bits(
        graph: &Graph,
        act: impl Fn(&str) -> Option<u8>,
        weights: impl Fn(&str) -> Option<u8>,
    ) -> Result<Self, AccelError> {
        let act_bits = |id: NodeId| act(&graph.node(id).name).unwrap_or(8);
        let weight_bits = |id: NodeId| weights(&graph.node(id).name).unwrap_or(16);
        let source = |tensor: NodeId| graph.source_acts(tensor).into_iter().map(act_bits).max().unwrap_or(PIXEL_BITS);
        Self::build(graph, act_bits, |_, id| {
            Widths::new(source(graph.node(id).inputs[0]), weight_bits(id)).expect("bits of a plan are 1 to 16")
        })
    }

    /// The converted network: the very widths of its codes. A global sum of codes has as many bits as its largest value
    /// needs.
    ///
    /// # Errors
    /// Sums of more than 16 bits that a product reads.
    pub fn integer(model: &IntegerModel) -> Result<Self, AccelError> {
        let bits_of = |tensor: usize| match model.kind(tensor) {
            TensorKind::Wide => u32::from(STREAM_BITS),
            _ => u64::BITS - model.code_range(tensor).1.unsigned_abs().leading_zeros(),
        };
        let mut tensors = vec![activation("input", model.input_shape.elements(), model.input.bits)];
        let mut steps = Vec::new();
        for (i, layer) in model.layers.iter().enumerate() {
            let bits =
                if layer.op.is_output() { LOGIT_BITS } else { u8::try_from(bits_of(i + 1)).unwrap_or(64).max(1) };
            tensors.push(activation(&layer.name, layer.shape.elements(), bits));
            let product = |p: &IntegerProduct| -> Result<Product, AccelError> {
                let input = u8::try_from(bits_of(p.input)).unwrap_or(u8::MAX);
                let widths = Widths::new(input, p.weight_bits)
                    .ok_or_else(|| AccelError::Sums { layer: p.name.clone(), bits: input })?;
                Ok(Product {
                    name: p.name.clone(),
                    groups: p.groups as u64,
                    in_channels: p.group_inputs() as u64,
                    out_channels: (p.out_channels / p.groups) as u64,
                    window: (p.window.kernel[0] * p.window.kernel[1]) as u64,
                    pixels: (layer.shape.h * layer.shape.w) as u64,
                    widths,
                })
            };
            let mut inputs = layer.op.inputs();
            inputs.sort_unstable();
            inputs.dedup();
            let products = layer.op.products().map(product).collect::<Result<_, _>>()?;
            steps.push(Step { name: layer.name.clone(), inputs, output: i + 1, products });
        }
        Ok(Self { name: model.arch.clone(), tensors, steps })
    }

    fn build(
        graph: &Graph,
        act_bits: impl Fn(NodeId) -> u8,
        widths: impl Fn(&Sum, NodeId) -> Widths,
    ) -> Result<Self, AccelError> {
        let mut tensors = vec![activation(&graph.node(0).name, graph.input().elements(), PIXEL_BITS)];
        let mut of_node = vec![usize::MAX; graph.nodes().len()];
        of_node[0] = 0;
        let mut steps = Vec::new();
        for layer in fuse(graph)? {
            let node = layer.output();
            let (inputs, products, bits) = match &layer {
                Layer::Sum(sum) => {
                    let inputs = sum.terms.iter().flat_map(|term| stored(graph, term.factor.tensor())).collect();
                    let products = sum.products().map(|(_, id, _)| product(graph, id, widths(sum, id))).collect();
                    let bits = match sum.end {
                        End::Act(act) => act_bits(act),
                        End::Wide => STREAM_BITS,
                        End::Output => LOGIT_BITS,
                    };
                    (inputs, products, bits)
                }
                Layer::MaxPool { input, .. }
                | Layer::AvgPool { input, .. }
                | Layer::GlobalAvgPool { input, .. }
                | Layer::View { input, .. } => (vec![*input], Vec::new(), tensors[of_node[*input]].bits),
                Layer::Concat { node } => {
                    let inputs = graph.node(*node).inputs.clone();
                    let bits = inputs.iter().map(|&i| tensors[of_node[i]].bits).max().unwrap_or(PIXEL_BITS);
                    (inputs, Vec::new(), bits)
                }
                Layer::Function { .. } | Layer::Mul { .. } => continue,
                Layer::Dropout { input, node } => {
                    of_node[*node] = of_node[*input];
                    continue;
                }
            };
            let mut inputs: Vec<usize> = inputs.into_iter().map(|id| of_node[id]).collect();
            inputs.sort_unstable();
            inputs.dedup();
            of_node[node] = tensors.len();
            let name = graph.node(node).name.clone();
            steps.push(Step { name: name.clone(), inputs, output: tensors.len(), products });
            tensors.push(activation(&name, graph.shape(node).elements(), bits));
        }
        Ok(Self { name: graph.name().to_owned(), tensors, steps })
    }

    /// Every product in the order of computation.
    pub fn products(&self) -> impl Iterator<Item = &Product> {
        self.steps.iter().flat_map(|step| &step.products)
    }

    /// Multiply-adds for one image.
    pub fn macs(&self) -> u64 {
        self.products().map(Product::macs).sum()
    }

    /// Bytes of all weights, packed at their widths.
    pub fn weight_bytes(&self) -> u64 {
        self.products().map(Product::weight_bytes).sum()
    }

    /// For every tensor the first and last step during which it must be kept: from the step that makes it (the first
    /// one for the image) to the last that reads it.
    pub(crate) fn lives(&self) -> Vec<(usize, usize)> {
        let mut lives = vec![(0, 0); self.tensors.len()];
        for (i, step) in self.steps.iter().enumerate() {
            lives[step.output] = (i, i);
            for &input in &step.inputs {
                lives[input].1 = i;
            }
        }
        lives
    }
}

fn activation(name: &str, elements: usize, bits: u8) -> Activation {
    Activation { name: name.to_owned(), elements: elements as u64, bits }
}

/// The tensors in memory that a node is computed from where it is read: itself, or the inputs of a function or
/// multiplication.
fn stored(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    let node = graph.node(id);
    match node.op {
        Op::Function(_) | Op::Mul => node.inputs.iter().flat_map(|&input| stored(graph, input)).collect(),
        _ => vec![id],
    }
}

fn product(graph: &Graph, id: NodeId, widths: Widths) -> Product {
    let (input, output) = (graph.input_shape(id), graph.shape(id));
    let op = graph.node(id).op;
    let (groups, in_channels, window) = match (op, op.window(input)) {
        (Op::Conv(_) | Op::ConvTranspose(_), Some(window)) => {
            (op.groups(), input.c / op.groups(), window.kernel[0] * window.kernel[1])
        }
        _ => (1, input.elements(), 1),
    };
    Product {
        name: graph.node(id).name.clone(),
        groups: groups as u64,
        in_channels: in_channels as u64,
        out_channels: (output.c / groups) as u64,
        window: window as u64,
        pixels: (output.h * output.w) as u64,
        widths,
    }
}
