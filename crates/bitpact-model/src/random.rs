//! Random networks: He-normal weights and batch norms that keep every layer alive.

use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_graph::{Graph, QuantPlan};

use crate::{InputDescription, Model, ModelError, Tensor};

impl Model {
    /// A network of random tensors, a pure function of its arguments: for measuring speed, for tests, and as the start
    /// of nothing.
    ///
    /// Weights are He-normal, `sqrt(2 / fan_in) * N(0, 1)` (He et al. 2015, arXiv 1502.01852, eq. 10); batch norm has
    /// `weight` in [0.5, 1.5), `bias` and `running_mean` in [-0.25, 0.25), `running_var` in [0.5, 1.5); `clip_val` is
    /// in [1.5, 2.5), in [0.5, 2.5) where channels have their own; layer biases are in [-0.1, 0.1); learned weight
    /// steps are those that training starts from.
    ///
    /// # Errors
    /// Where plan, input or class names do not fit the graph ([`Model::check`]).
    pub fn random(
        graph: Graph,
        plan: QuantPlan,
        input: InputDescription,
        class_names: Vec<String>,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let key = Key::new(seed).with("model");
        let norms = |name: &str| Self::is_norm(&graph, name);
        let mut tensors = BTreeMap::new();
        for (name, shape) in Self::tensor_shapes(&graph, &plan) {
            if let Some(layer) = name.strip_suffix(".weight_step") {
                // Names are in order: the weight came before.
                let weight: &Tensor = &tensors[&format!("{layer}.weight")];
                let step =
                    Self::first_weight_step(&graph, &plan, layer, weight).expect("a layer with a step learns it");
                tensors.insert(name, step);
                continue;
            }
            let key = key.with(&name);
            let count = shape.iter().product::<usize>() as u64;
            let uniform = |from: f32, to: f32| (0..count).map(|i| from + (to - from) * key.uniform(i)).collect();
            let data: Vec<f32> = match name.rsplit_once('.') {
                Some((layer, "weight")) if norms(layer) => uniform(0.5, 1.5),
                Some((_, "weight")) => {
                    let fan_in = shape[1..].iter().product::<usize>();
                    let deviation = (2.0 / fan_in as f32).sqrt();
                    (0..count).map(|i| deviation * key.normal(i)).collect()
                }
                Some((layer, "bias")) if norms(layer) => uniform(-0.25, 0.25),
                Some((_, "bias")) => uniform(-0.1, 0.1),
                Some((_, "running_mean")) => uniform(-0.25, 0.25),
                Some((_, "running_var")) => uniform(0.5, 1.5),
                _ if !shape.is_empty() => uniform(0.5, 2.5),
                _ => uniform(1.5, 2.5),
            };
            tensors.insert(name, Tensor { shape, data });
        }
        let model = Self { graph, plan, input, class_names, tensors };
        model.check()?;
        Ok(model)
    }

    fn is_norm(graph: &Graph, layer: &str) -> bool {
        graph.find(layer).is_some_and(|id| !graph.node(id).op.is_product())
    }
}
