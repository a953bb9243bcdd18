//! Masks of the kernels of one-dimensional convolutions: their length and their dilation.
//!
//! A tap lies at a distance t from the anchor, the tap that meets the sample of the output: the last one of a causal
//! convolution, the middle one of others. With masks l of the distances and d of the powers of two, a tap stays if
//! `l_1 .. l_t` are all 1 and, of `d_1 .. d_v`, where `2^(v-1)` is the largest power of two in t, any is: the first
//! j masks d of 0 leave every 2^j-th tap. The anchor always stays.

use bitpact_core::Grid;
use bitpact_graph::{Conv, Graph, Node, NodeId, Op, Padding, QuantPlan, WeightPlan};
use bitpact_model::{Model, Tensor};

use super::THRESHOLD;
use crate::numbers::Adam;
use crate::{RunError, TrainBackend};

/// A convolution along a row, and which of its taps stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) node: NodeId,
    taps: usize,
    anchor: usize,
    /// Largest distance that stays.
    length: usize,
    /// Every `2^exponent`-th tap stays.
    exponent: u32,
}

impl Kernel {
    /// The convolutions of `graph` that may be shortened: of one output row and several taps, padded so that the anchor
    /// stays where it is, with a batch norm behind them and weights that can be 0.
    pub(super) fn all(graph: &Graph, plan: &QuantPlan) -> Vec<Self> {
        let of = |(node, Node { name, op, .. }): (NodeId, &Node)| {
            let Op::Conv(Conv { kernel: [rows, taps], padding, dilation, .. }) = *op else { return None };
            let is_row = graph.shape(node).h == 1 && rows == graph.input_shape(node).h && taps > 1;
            let anchor = padding.left / dilation[1];
            let room = anchor < taps && padding.right >= (taps - 1 - anchor) * dilation[1];
            let norm = graph.consumers(node).iter().all(|&id| graph.node(id).op.is_norm()) && !graph.is_output(node);
            let has_zero = match plan.weights.get(name) {
                Some(WeightPlan::Quantized(spec)) => spec.grid == Grid::WithZero && spec.bits.get() > 1,
                _ => true,
            };
            let length = anchor.max((taps - 1).saturating_sub(anchor));
            (is_row && room && norm && has_zero).then_some(Self { node, taps, anchor, length, exponent: 0 })
        };
        graph.nodes().iter().enumerate().filter_map(of).collect()
    }

    /// With the anchor alone.
    pub(super) fn least(&self) -> Self {
        Self { length: 0, ..self.clone() }
    }

    fn stays(&self, tap: usize) -> bool {
        let distance = tap.abs_diff(self.anchor);
        distance <= self.length && distance.is_multiple_of(1 << self.exponent)
    }

    /// Number of taps that stay.
    pub(super) fn count(&self) -> usize {
        (0..self.taps).filter(|&tap| self.stays(tap)).count()
    }

    /// Number of all taps.
    pub(super) fn all_taps(&self) -> usize {
        self.taps
    }

    /// The convolution with the taps that stay.
    fn shortened(&self, conv: Conv) -> Conv {
        let mut staying = (0..self.taps).filter(|&tap| self.stays(tap));
        let first = staying.next().unwrap_or(self.anchor);
        let last = staying.next_back().unwrap_or(first);
        let (step, one) = (conv.dilation[1], first == last);
        Conv {
            kernel: [conv.kernel[0], self.count()],
            dilation: [conv.dilation[0], if one { 1 } else { step << self.exponent }],
            padding: Padding {
                left: conv.padding.left - first * step,
                right: conv.padding.right - (self.taps - 1 - last) * step,
                ..conv.padding
            },
            ..conv
        }
    }
}

/// The network with the kernels that stay.
pub(super) fn shortened_graph(graph: &Graph, kernels: &[Kernel]) -> Result<Graph, RunError> {
    let mut nodes = graph.nodes().to_vec();
    for kernel in kernels {
        if let Op::Conv(conv) = &mut nodes[kernel.node].op {
            *conv = kernel.shortened(*conv);
        }
    }
    Ok(Graph::with_outputs(graph.name(), nodes, graph.outputs().to_vec()).map_err(crate::TrainError::from)?)
}

/// The network with the kernels that stay, and their weights.
pub(super) fn shortened(model: &Model, kernels: &[Kernel]) -> Result<Model, RunError> {
    let graph = shortened_graph(&model.graph, kernels)?;
    let mut tensors = model.tensors.clone();
    for kernel in kernels {
        let tensor = tensors.get_mut(&weight(&graph, kernel.node)).expect("a convolution has weights");
        let rows = tensor.data.chunks_exact(kernel.taps);
        let data = rows.flat_map(|row| (0..kernel.taps).filter(|&tap| kernel.stays(tap)).map(|tap| row[tap])).collect();
        let shape = graph.weight_shape(kernel.node).expect("a convolution has weights");
        *tensor = Tensor { shape, data };
    }
    Ok(Model { graph, tensors, ..model.clone() })
}

fn weight(graph: &Graph, node: NodeId) -> String {
    format!("{}.weight", graph.node(node).name)
}

/// The masks of one kernel.
pub(super) struct TapMasks {
    pub(super) kernel: Kernel,
    tensor: String,
    /// Of distances 1 .. , then of the powers of two 2, 4 ..
    alphas: Vec<f32>,
    adam: Adam,
    distances: usize,
    /// The weights as they are without a mask.
    values: Vec<f32>,
}

impl TapMasks {
    pub(super) fn new(graph: &Graph, kernel: Kernel) -> Self {
        let distances = kernel.length;
        let powers = if distances > 1 { distances.ilog2() as usize } else { 0 };
        let n = distances + powers;
        let tensor = weight(graph, kernel.node);
        Self { kernel, tensor, alphas: vec![1.0; n], adam: Adam::new(n), distances, values: Vec::new() }
    }

    /// Name of the weights.
    pub(super) fn tensor(&self) -> &str {
        &self.tensor
    }

    /// Takes the weights that a run begins with.
    pub(super) fn load(&mut self, weights: &[f32]) {
        self.values = weights.to_vec();
    }

    /// A step of the alphas against the loss, whose cost has the derivative `price` by the share of each tap.
    pub(super) fn update(&mut self, inner: &mut dyn TrainBackend, rate: f32, price: f64) {
        let taps = self.kernel.taps;
        let (_, own) = inner.parameter_mut(&self.tensor).expect("weights are trained");
        let mut by_tap = vec![price; taps];
        for (row, gradient) in self.values.chunks_exact(taps).zip(own.chunks_exact(taps)) {
            for ((slope, &value), &g) in by_tap.iter_mut().zip(row).zip(gradient) {
                *slope += f64::from(value) * f64::from(g);
            }
        }
        let gradient = self.gradient(&by_tap);
        let alphas = &mut self.alphas;
        self.adam.step(&gradient, |i, step| alphas[i] = (alphas[i] - rate * step as f32).clamp(0.0, 1.0));
    }

    /// Derivatives by the masks of alphas (straight-through) of what has the derivatives `by_tap` by the masks of taps.
    fn gradient(&self, by_tap: &[f64]) -> Vec<f64> {
        let on: Vec<f64> = self.alphas.iter().map(|&alpha| f64::from(u8::from(alpha > THRESHOLD))).collect();
        let (lengths, powers) = on.split_at(self.distances);
        let mut gradient = vec![0.0; on.len()];
        for (tap, slope) in by_tap.iter().enumerate() {
            let distance = tap.abs_diff(self.kernel.anchor);
            if distance == 0 {
                continue;
            }
            let seen = &lengths[..distance];
            let tested = distance.trailing_zeros() as usize + 1;
            // Beyond the largest power a tap stays at any dilation.
            let tested = powers.get(..tested).unwrap_or(&[]);
            let product = |values: &mut dyn Iterator<Item = f64>| values.product::<f64>();
            let far = product(&mut seen.iter().copied());
            let none = product(&mut tested.iter().map(|d| 1.0 - d));
            let dilated = if tested.is_empty() { 1.0 } else { 1.0 - none };
            for i in 0..distance {
                let others = product(&mut (0..distance).filter(|&k| k != i).map(|k| seen[k]));
                gradient[i] += slope * others * dilated;
            }
            for j in 0..tested.len() {
                let others = product(&mut (0..tested.len()).filter(|&k| k != j).map(|k| 1.0 - tested[k]));
                gradient[self.distances + j] += slope * far * others;
            }
        }
        gradient
    }

    /// Writes the weights of the taps that the alphas leave; those that stayed so far are taken from the step first.
    pub(super) fn put(&mut self, inner: &mut dyn TrainBackend) {
        let before = self.kernel.clone();
        let is_on = |&alpha: &f32| alpha > THRESHOLD;
        self.kernel.length = self.alphas[..self.distances].iter().take_while(|alpha| is_on(alpha)).count();
        let powers = &self.alphas[self.distances..];
        self.kernel.exponent = powers.iter().take_while(|alpha| !is_on(alpha)).count() as u32;
        let taps = self.kernel.taps;
        let (own, _) = inner.parameter_mut(&self.tensor).expect("weights are trained");
        for (row, values) in own.chunks_exact_mut(taps).zip(self.values.chunks_exact_mut(taps)) {
            for tap in 0..taps {
                if before.stays(tap) {
                    values[tap] = row[tap];
                }
                row[tap] = if self.kernel.stays(tap) { values[tap] } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(taps: usize, anchor: usize) -> TapMasks {
        let length = anchor.max(taps - 1 - anchor);
        let graph = bitpact_graph::testing::small_zoo("resnet8", 2);
        TapMasks::new(&graph, Kernel { node: 1, taps, anchor, length, exponent: 0 })
    }

    fn staying(kernel: &Kernel) -> Vec<usize> {
        (0..kernel.taps).filter(|&tap| kernel.stays(tap)).collect()
    }

    #[test]
    fn lengths_and_dilations_leave_the_taps_they_should() {
        let causal = Kernel { node: 1, taps: 9, anchor: 8, length: 8, exponent: 0 };
        assert_eq!(staying(&Kernel { exponent: 2, ..causal.clone() }), [0, 4, 8]);
        assert_eq!(staying(&Kernel { exponent: 1, length: 5, ..causal.clone() }), [4, 6, 8]);
        assert_eq!(staying(&causal.least()), [8]);
        let middle = Kernel { node: 1, taps: 9, anchor: 4, length: 4, exponent: 1 };
        assert_eq!(staying(&middle), [0, 2, 4, 6, 8]);
        let conv = Conv {
            kernel: [1, 9],
            dilation: [1, 3],
            padding: Padding { left: 24, ..Padding::default() },
            ..Conv::square(4, 1, 1, 0)
        };
        let short = Kernel { exponent: 1, length: 5, ..causal }.shortened(conv);
        assert_eq!((short.kernel, short.dilation, short.padding.left, short.padding.right), ([1, 3], [1, 6], 12, 0));
        assert_eq!(masks(9, 8).alphas.len(), 8 + 3);
        assert_eq!(masks(2, 0).alphas.len(), 1);
    }

    /// The mask of a tap at any values of its masks, as the module's words say.
    fn mask(masks: &[f64], distances: usize, distance: usize) -> f64 {
        let (lengths, powers) = masks.split_at(distances);
        let far: f64 = lengths[..distance].iter().product();
        let tested = distance.trailing_zeros() as usize + 1;
        let none: f64 = if distance == 0 || tested > powers.len() {
            0.0
        } else {
            powers[..tested].iter().map(|d| 1.0 - d).product()
        };
        far * (1.0 - none)
    }

    #[test]
    fn gradients_are_those_of_the_masks_of_taps() {
        for (taps, anchor) in [(9, 8), (9, 4), (5, 2), (2, 0), (16, 7)] {
            for pattern in 0u32..64 {
                let mut own = masks(taps, anchor);
                for (i, alpha) in own.alphas.iter_mut().enumerate() {
                    *alpha = f32::from(u8::from((pattern >> (i % 6)) & 1 == 1));
                }
                let by_tap: Vec<f64> = (0..taps).map(|tap| (tap * tap % 7) as f64 - 2.5).collect();
                let at: Vec<f64> = own.alphas.iter().map(|&alpha| f64::from(alpha)).collect();
                let value = |masks: &[f64]| -> f64 {
                    by_tap
                        .iter()
                        .enumerate()
                        .map(|(tap, slope)| slope * mask(masks, own.distances, tap.abs_diff(anchor)))
                        .sum()
                };
                for (i, found) in own.gradient(&by_tap).into_iter().enumerate() {
                    let moved = |by: f64| {
                        at.iter().enumerate().map(|(k, &m)| if k == i { m + by } else { m }).collect::<Vec<_>>()
                    };
                    let expected = (value(&moved(0.5)) - value(&moved(-0.5))) / 1.0;
                    assert!((found - expected).abs() < 1e-9, "{taps} {anchor} {pattern} {i}: {found} {expected}");
                }
            }
        }
    }
}
