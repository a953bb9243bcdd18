//! Start values of a network's tensors.

use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_graph::{Graph, Op, QuantPlan};
use bitpact_model::{Model, Tensor};

/// Start of PReLU's slopes (He et al. 2015, arXiv 1502.01852).
const PRELU_START: f32 = 0.25;

/// Start values by name: convolutions normal with variance 2 / (cin*k*k) (He et al. 2015, eq. 10), linear layers and
/// biases uniform within 1/sqrt(inputs) as in PyTorch, batch norms the identity, slopes of PReLU 0.25, every clip value
/// `clip_init`, learned weight steps `2 mean|w| / sqrt(q_max)` ([`bitpact_core::lsq_start`]).
///
/// Each tensor has its own stream of numbers, so a seed gives the same weights to networks that differ elsewhere.
pub fn initial_tensors(graph: &Graph, plan: &QuantPlan, seed: u64, clip_init: f32) -> BTreeMap<String, Tensor> {
    let key = Key::new(seed).with("weights");
    let mut tensors = BTreeMap::new();
    for (name, shape) in Model::tensor_shapes(graph, plan) {
        let (layer, tensor) = name.rsplit_once('.').expect("tensor names have a layer");
        if tensor == "weight_step" {
            // Names are in order: the weight came before.
            let weight: &Tensor = &tensors[&format!("{layer}.weight")];
            let step = Model::first_weight_step(graph, plan, layer, weight).expect("a layer with a step learns it");
            tensors.insert(name, step);
            continue;
        }
        let id = graph.find(layer).expect("tensors belong to nodes");
        let n: usize = shape.iter().product();
        let key = key.with(&name);
        // Of a transposed convolution, those of one output too, as if its stride were 1.
        let inputs = graph.weight_shape(id).map_or(1, |s| match graph.weight_order(id) {
            None => s[1..].iter().product::<usize>(),
            Some(order) => order.len() / graph.shape(id).c,
        });
        let uniform = || -> Vec<f32> {
            let bound = 1.0 / (inputs as f32).sqrt();
            (0..n as u64).map(|i| (2.0 * key.uniform(i) - 1.0) * bound).collect()
        };
        let data = match (graph.node(id).op, tensor) {
            (Op::Conv(_) | Op::ConvTranspose(_), "weight") => {
                let deviation = (2.0 / inputs as f32).sqrt();
                (0..n as u64).map(|i| key.normal(i) * deviation).collect()
            }
            (Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. }, _) => uniform(),
            (Op::Function(_), _) => vec![PRELU_START; n],
            (_, "weight" | "running_var") => vec![1.0; n],
            (_, "clip_val") => vec![clip_init; n],
            _ => vec![0.0; n],
        };
        tensors.insert(name.clone(), Tensor { shape, data });
    }
    tensors
}
