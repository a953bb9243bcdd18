//! The bits of a whole network.

use std::collections::BTreeMap;

use bitpact_accel::Widths;
use bitpact_graph::{Graph, QuantPlan, WeightPlan};
use serde::Serialize;

use crate::Product;

/// Bits of a pixel as it is read.
pub(crate) const PIXEL_BITS: u8 = 8;
/// Bits of the weight codes of layers that are trained in float32.
const FLOAT_WEIGHT_BITS: u8 = 16;

/// Bits of the weights of every product and of the codes of every activation, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bitwidths {
    /// Bits of weights: 1 to 8, or 16 of layers that are trained in float32.
    pub weights: BTreeMap<String, u8>,
    /// Bits of activations, 1 to 8.
    pub activations: BTreeMap<String, u8>,
}

impl Bitwidths {
    /// The bits of `plan`.
    pub fn of(plan: &QuantPlan) -> Self {
        let weights = |plan: &WeightPlan| match plan {
            WeightPlan::Quantized(spec) => spec.bits.get(),
            WeightPlan::Float => FLOAT_WEIGHT_BITS,
        };
        Self {
            weights: plan.weights.iter().map(|(name, plan)| (name.clone(), weights(plan))).collect(),
            activations: plan.activations.iter().map(|(name, act)| (name.clone(), act.bits.get())).collect(),
        }
    }

    /// Bits of the operands of `product`, a layer of `graph`: of activations the widest that it reads, 8 where it reads
    /// the image.
    pub fn operands(&self, graph: &Graph, product: &Product) -> Widths {
        let act = |&id: &usize| self.activations.get(&graph.node(id).name).copied();
        let activations = product.sources.iter().filter_map(act).max().unwrap_or(PIXEL_BITS);
        let weights = self.weights.get(&product.name).copied().unwrap_or(FLOAT_WEIGHT_BITS);
        Widths::new(activations, weights).expect("bits of a plan are 1 to 16")
    }
}
