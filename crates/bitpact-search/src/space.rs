//! What may be chosen for a network: the widths of every tensor that no policy or override of its recipe fixes.

use std::collections::BTreeMap;
use std::fmt;

use bitpact_accel::Widths;
use bitpact_core::Bits;
use bitpact_graph::{BitSpec, Graph, NodeId, Override, QuantConfig, QuantPlan};
use serde::Serialize;

use crate::{Bitwidths, Product, SearchError};

/// Width at which a tensor changes the loss by nothing: the one that everything else had when it was measured.
const BASE_BITS: u8 = 8;

/// The part of a layer that has a width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The weights of a convolution or linear layer.
    Weights,
    /// The codes of an activation.
    Activations,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Part::Weights => "weights",
            Part::Activations => "activation",
        })
    }
}

/// The change of the loss when one tensor alone has fewer than 8 bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Name of the layer or activation.
    pub layer: String,
    /// Its part.
    pub part: Part,
    /// Its bits.
    pub bits: u8,
    /// Loss with these bits minus loss with 8 everywhere.
    pub loss: f64,
}

/// A tensor whose width may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// The product, or the activation that holds the clip value.
    pub node: NodeId,
    /// Name of that node.
    pub name: String,
    /// Its part.
    pub part: Part,
    /// Widths in ascending order.
    pub bits: Vec<u8>,
    /// Change of the loss at each of them; 0 until [`Space::set_changes`].
    pub changes: Vec<f64>,
    /// Names of all nodes that have the width: activations that share a clip value have one.
    pub(crate) nodes: Vec<String>,
}

/// The widths that may be chosen for a network.
#[derive(Debug, Clone)]
pub struct Space {
    /// The network.
    pub graph: Graph,
    /// Its products in the order of computation.
    pub products: Vec<Product>,
    /// Bits of every tensor, those of variables at their widest.
    pub widest: Bitwidths,
    /// What may be chosen, in the order of the graph.
    pub variables: Vec<Variable>,
    pub(crate) config: QuantConfig,
}

impl Space {
    /// The tensors of `graph` whose width follows from the bits of `config`, each with the widths of `bits` that it can
    /// have; what the policies for first, last and shortcut layers, functions and overrides say stays.
    ///
    /// # Errors
    /// No widths, a network in which nothing may be chosen, or bits that the quantizers do not have.
    pub fn new(graph: &Graph, config: &QuantConfig, bits: &[Bits]) -> Result<Self, SearchError> {
        let empty =
            |message: &str| SearchError::Empty { network: graph.name().to_owned(), message: message.to_owned() };
        let mut bits = bits.to_vec();
        bits.sort_unstable();
        bits.dedup();
        let (Some(&narrowest), Some(&widest)) = (bits.first(), bits.last()) else {
            return Err(empty("there are no widths to choose from"));
        };
        if narrowest == widest {
            return Err(empty(&format!("there is one width, {}, which chooses nothing", widest.get())));
        }
        let at = |bits: Bits| {
            let bits = BitSpec::Bits { weights: bits, activations: bits };
            QuantPlan::resolve(graph, &QuantConfig { bits, ..config.clone() })
        };
        let plans: Vec<(Bits, Bitwidths)> =
            bits.iter().map(|&bits| Ok((bits, Bitwidths::of(&at(bits)?)))).collect::<Result<_, SearchError>>()?;
        let last = &plans[plans.len() - 1].1;
        let owners = graph.clip_owners();
        let mut variables = Vec::new();
        for (id, node) in graph.nodes().iter().enumerate() {
            let (part, nodes): (Part, Vec<String>) = if node.op.is_product() {
                (Part::Weights, vec![node.name.clone()])
            } else if node.op.is_act() && owners[id] == id {
                let sharing = (0..owners.len()).filter(|&other| owners[other] == id);
                (Part::Activations, sharing.map(|other| graph.node(other).name.clone()).collect())
            } else {
                continue;
            };
            let of = |plan: &Bitwidths, name: &String| match part {
                Part::Weights => plan.weights[name],
                Part::Activations => plan.activations[name],
            };
            // Whatever asks for a width gets it where nothing fixes another.
            let own = plans.iter().filter(|(bits, plan)| nodes.iter().all(|name| of(plan, name) == bits.get()));
            let own: Vec<u8> = own.map(|(bits, _)| bits.get()).collect();
            let is_free = nodes.iter().all(|name| of(&plans[0].1, name) != of(last, name));
            if is_free && own.len() > 1 {
                let changes = vec![0.0; own.len()];
                variables.push(Variable { node: id, name: node.name.clone(), part, bits: own, changes, nodes });
            }
        }
        if variables.is_empty() {
            return Err(empty("first and last layer, shortcuts and overrides leave no layer to choose bits for"));
        }
        let (products, widest) = (Product::all(graph), last.clone());
        Ok(Self { graph: graph.clone(), products, widest, variables, config: config.clone() })
    }

    /// Takes what the widths were measured to change. A change counts as at least 0 and at least that of every wider
    /// width of the tensor, so that the noise of a measure makes nothing look better than more bits.
    ///
    /// # Errors
    /// A width below 8 without a change.
    pub fn set_changes(&mut self, changes: &[Change]) -> Result<(), SearchError> {
        let known: BTreeMap<(Part, &str, u8), f64> =
            changes.iter().map(|change| ((change.part, &*change.layer, change.bits), change.loss)).collect();
        for variable in &mut self.variables {
            let mut least = 0.0f64;
            for (i, &bits) in variable.bits.iter().enumerate().rev() {
                let change = known.get(&(variable.part, &*variable.name, bits)).copied();
                let (layer, part) = (&variable.name, variable.part);
                let change = match change {
                    Some(change) => change,
                    None if bits == BASE_BITS => 0.0,
                    None => return Err(SearchError::NotMeasured { layer: layer.clone(), part, bits }),
                };
                // What is no number, of a network that fell apart, is as bad as can be.
                least = least.max(if change.is_nan() { f64::MAX.sqrt() } else { change });
                variable.changes[i] = least;
            }
        }
        Ok(())
    }

    /// The bits of the network where variable i has its width number `choice[i]`.
    pub fn bits(&self, choice: &[usize]) -> Bitwidths {
        let mut bits = self.widest.clone();
        for (variable, &i) in self.variables.iter().zip(choice) {
            variable.put(&mut bits, variable.bits[i]);
        }
        bits
    }

    /// The overrides of a recipe that give every variable its bits in `bits`, over those that it has.
    pub fn overrides(&self, bits: &Bitwidths) -> BTreeMap<String, Override> {
        let mut overrides = self.config.overrides.clone();
        for variable in &self.variables {
            for name in &variable.nodes {
                let own = overrides.entry(name.clone()).or_default();
                match variable.part {
                    Part::Weights => own.weight_bits = bits.weights.get(name).copied(),
                    Part::Activations => own.activation_bits = bits.activations.get(name).copied(),
                }
            }
        }
        overrides
    }

    /// The bits of the network whose recipe says `bits` everywhere.
    ///
    /// # Errors
    /// Bits that the quantizers do not have.
    pub fn uniform(&self, bits: BitSpec) -> Result<Bitwidths, SearchError> {
        Ok(Bitwidths::of(&QuantPlan::resolve(&self.graph, &QuantConfig { bits, ..self.config.clone() })?))
    }

    /// The sum of the changes of the loss at `bits`; `None` where a variable has a width that is none of its own.
    pub fn change(&self, bits: &Bitwidths) -> Option<f64> {
        let of = |variable: &Variable| {
            let own = variable.of(bits);
            let at = variable.bits.iter().position(|&width| width == own)?;
            Some(variable.changes[at])
        };
        self.variables.iter().map(of).sum()
    }

    /// Every product at every pair of widths that a choice may give it.
    pub fn operands(&self) -> Vec<(&Product, Widths)> {
        let of = |part: Part, name: &str| {
            self.variables.iter().find(|variable| variable.part == part && variable.nodes.iter().any(|own| own == name))
        };
        let mut all = Vec::new();
        for product in &self.products {
            let fixed = self.widest.operands(&self.graph, product);
            let weights = of(Part::Weights, &product.name).map_or(vec![fixed.weights()], |own| own.bits.clone());
            let sources = product.sources.iter().filter_map(|&act| of(Part::Activations, &self.graph.node(act).name));
            let mut acts: Vec<u8> = sources.flat_map(|own| own.bits.clone()).collect();
            if acts.is_empty() {
                acts.push(fixed.activations());
            }
            acts.sort_unstable();
            acts.dedup();
            for (&weights, &acts) in weights.iter().flat_map(|weights| acts.iter().map(move |acts| (weights, acts))) {
                all.push((product, Widths::new(acts, weights).expect("1 to 16")));
            }
        }
        all
    }

    /// The plan of the network at `bits`.
    ///
    /// # Errors
    /// Bits that the quantizers do not have.
    pub fn plan(&self, bits: &Bitwidths) -> Result<QuantPlan, SearchError> {
        let config = QuantConfig { overrides: self.overrides(bits), ..self.config.clone() };
        Ok(QuantPlan::resolve(&self.graph, &config)?)
    }
}

impl Variable {
    /// Its width in `bits`.
    pub fn of(&self, bits: &Bitwidths) -> u8 {
        match self.part {
            Part::Weights => bits.weights[&self.name],
            Part::Activations => bits.activations[&self.name],
        }
    }

    pub(crate) fn put(&self, bits: &mut Bitwidths, width: u8) {
        let of = match self.part {
            Part::Weights => &mut bits.weights,
            Part::Activations => &mut bits.activations,
        };
        for name in &self.nodes {
            of.insert(name.clone(), width);
        }
    }
}
