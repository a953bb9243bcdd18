//! How many bits: what a recipe asks for, and the plan that says it for every layer by name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bitpact_core::{ActQuant, Bits, Granularity, Grid, SpecError, WeightQuant, WeightSpec};
use serde::{Deserialize, Serialize};

use crate::{End, Graph, GraphError, Layer, NodeId, Op, Sum, fuse, fuse_float, glob};

/// The usual short form: `W4A4`, or `float` for a network without quantizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitSpec {
    /// Float32 everywhere, without quantizers.
    Float,
    /// Bits of weights and activations.
    Bits {
        /// Bits of the weights.
        weights: Bits,
        /// Bits of the activations.
        activations: Bits,
    },
}

impl fmt::Display for BitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BitSpec::Float => f.write_str("float"),
            BitSpec::Bits { weights, activations } => write!(f, "W{}A{}", weights.get(), activations.get()),
        }
    }
}

impl FromStr for BitSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s.eq_ignore_ascii_case("float") {
            return Ok(BitSpec::Float);
        }
        let parse = || -> Option<(u8, u8)> {
            let (w, a) = s.strip_prefix(['W', 'w'])?.split_once(['A', 'a'])?;
            Some((w.parse().ok()?, a.parse().ok()?))
        };
        let Some((w, a)) = parse() else {
            return Err(format!("`{s}` is not a bit width: expected `float` or a form like `W4A4`"));
        };
        let bits =
            |what: &str, n: u8| Bits::new(n).ok_or_else(|| format!("`{s}`: {n} bits for {what}, expected 1 to 8"));
        Ok(BitSpec::Bits { weights: bits("weights", w)?, activations: bits("activations", a)? })
    }
}

impl Serialize for BitSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BitSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What happens to the first layer with weights, which reads the image, and the last, which gives the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FirstLast {
    /// Trained in float32, converted to 16-bit weight codes (the paper's accuracy tables).
    #[serde(rename = "float")]
    Float,
    /// 8-bit weights, and 8-bit activations into the last layer (the paper's performance study).
    #[default]
    #[serde(rename = "8bit")]
    Bits8,
    /// The layer has the bits of every other layer.
    #[serde(rename = "same")]
    Same,
}

/// Bits of the weights of projection shortcuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ShortcutBits {
    /// The layer has the bits of every other layer.
    #[default]
    #[serde(rename = "same")]
    Same,
    /// Layers of 8 bits.
    #[serde(rename = "8bit")]
    Bits8,
}

/// Exception for the layers whose name matches a pattern. Where several match, longer patterns win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// 1 to 8, or 32 for weights trained in float32 and converted to 16-bit codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bits: Option<u8>,
    /// Bits of the activations, 1 to 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_bits: Option<u8>,
    /// Weight quantizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_quant: Option<WeightQuant>,
    /// Grid of the weight codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_grid: Option<Grid>,
    /// What has a weight scale of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_scale: Option<Granularity>,
    /// Activation quantizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_quant: Option<ActQuant>,
    /// What has a clip value of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_scale: Option<Granularity>,
}

/// What a recipe says about bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantConfig {
    /// Bits of weights and activations.
    pub bits: BitSpec,
    /// Weight quantizer; layers of 8 bits use `minmax` whatever stands here.
    pub weight_quant: WeightQuant,
    /// Grid of the weight codes; the quantizer's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_grid: Option<Grid>,
    /// What has a weight scale of its own; the quantizer's usual where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_scale: Option<Granularity>,
    /// Quantizer of activations. Signed ones use `pact-sym` whatever stands here, but for `sign`, which takes the place
    /// of a ReLU too; where an activation has more than 1 bit, `pact` and `pact-sym` take the place of `sign`.
    pub act_quant: ActQuant,
    /// What has a clip value of its own; activations that are concatenated have one for all of them, whatever stands
    /// here.
    #[serde(default, skip_serializing_if = "is_layer")]
    pub clip_scale: Granularity,
    /// First and last layer.
    #[serde(default)]
    pub first_last: FirstLast,
    /// Projection shortcuts.
    #[serde(default)]
    pub shortcut: ShortcutBits,
    /// Exceptions by layer pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Override>,
}

impl QuantConfig {
    /// `bits` everywhere with the quantizers of the PACT paper (`pact`, `dorefa`), first and last layer at 8 bits, no
    /// exceptions.
    pub fn new(bits: BitSpec) -> Self {
        Self {
            bits,
            weight_quant: WeightQuant::Dorefa,
            weight_grid: None,
            weight_scale: None,
            act_quant: ActQuant::Pact,
            clip_scale: Granularity::Layer,
            first_last: FirstLast::default(),
            shortcut: ShortcutBits::default(),
            overrides: BTreeMap::new(),
        }
    }
}

/// How one layer's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightPlan {
    /// Trained in float32; 16-bit codes per output channel after conversion.
    Float,
    /// Quantized in every forward pass.
    Quantized(WeightSpec),
}

/// How one activation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActPlan {
    /// Bits of the codes.
    pub bits: Bits,
    /// Quantizer of the activation.
    pub quant: ActQuant,
    /// What has a clip value of its own. The step is the layer's: the largest clip value over `q_max`.
    #[serde(default, skip_serializing_if = "is_layer")]
    pub clip_scale: Granularity,
}

fn is_layer(scale: &Granularity) -> bool {
    *scale == Granularity::Layer
}

/// Fewest bits of a signed activation.
const LEAST_SIGNED_BITS: Bits = Bits::new(2).expect("2 is a width");

impl ActPlan {
    fn check(self, op: &Op) -> Result<(), &'static str> {
        if self.clip_scale == Granularity::Channel && !self.quant.has_channel_clips() {
            return Err(match self.quant {
                ActQuant::Sign => "signs are not clipped; clip values per channel go with pact and pact+",
                ActQuant::Lsq => {
                    "lsq learns the step, of which a layer has one; clip values per channel go with pact and pact+"
                }
                _ => "its clip value is not learned; clip values per channel go with pact and pact+",
            });
        }
        if self.quant == ActQuant::Sign {
            return if self.bits.get() == 1 {
                Ok(())
            } else {
                Err("sign has 1 bit, as in W1A1, and this activation has more")
            };
        }
        match (*op == (Op::Act { signed: true }), self.quant.is_signed()) {
            (true, true) if self.bits < LEAST_SIGNED_BITS => Err("a signed activation has at least 2 bits"),
            (true, false) => Err("it is signed (`signed = true` in the graph), which only pact-sym and sign quantize"),
            (false, true) => Err(
                "pact-sym is for signed activations, and this one has a ReLU: name pact, pact+, lsq, fixed or relu, or make it \
                 `op = \"act\", signed = true` in a network file, where pact-sym is used without being named",
            ),
            _ => Ok(()),
        }
    }
}

/// The bits of every layer by name. A float network has float weights everywhere and no activations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantPlan {
    /// Every convolution and linear layer.
    pub weights: BTreeMap<String, WeightPlan>,
    /// Every activation of a quantized network.
    pub activations: BTreeMap<String, ActPlan>,
}

/// Why a plan cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The graph cannot be fused into layers.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An override matches nothing.
    #[error("overrides.\"{pattern}\": no layer has a name like this; the layers are {layers}")]
    NoMatch {
        /// Pattern that names of layers are matched with.
        pattern: String,
        /// Names it could have matched.
        layers: String,
    },
    /// An override asks for an impossible number of bits.
    #[error("overrides.\"{pattern}\".{key} = {got}: expected {expected}")]
    Bits {
        /// Pattern that names of layers are matched with.
        pattern: String,
        /// Name of the key.
        key: &'static str,
        /// The value that was found.
        got: u8,
        /// The values that are allowed, in words.
        expected: &'static str,
    },
    /// Quantizer, grid and width do not go together.
    #[error("layer `{layer}`: {source}")]
    Spec {
        /// Name of the layer.
        layer: String,
        /// Error that caused this one.
        source: SpecError,
    },
    /// An activation's quantizer does not fit it.
    #[error("activation `{layer}`: {what}")]
    Act {
        /// Name of the activation.
        layer: String,
        /// The misfit that was found, in words.
        what: &'static str,
    },
    /// Bits are asked for, and nothing takes them: there is no activation, and the weights of every layer stay float.
    #[error(
        "layer `{layer}`: {bits} quantizes nothing here, as the network has no activation and its weights stay float, so no integer \
         network could be written; take first_last = \"8bit\" or \"same\", or weight_bits of 1 to 8, or train in float (bits = \"float\")"
    )]
    NothingQuantized {
        /// A layer with float weights.
        layer: String,
        /// The bits that were asked for.
        bits: BitSpec,
    },
    /// A plan read from a file does not fit its graph.
    #[error("layer `{layer}`: {what}")]
    Mismatch {
        /// Name of the layer.
        layer: String,
        /// The misfit that was found, in words.
        what: &'static str,
    },
}

impl QuantPlan {
    /// The entries of this plan that are for nodes of `graph`, such as a part of its network.
    pub fn restricted(&self, graph: &Graph) -> Self {
        let Self { mut weights, mut activations } = self.clone();
        weights.retain(|name, _| graph.find(name).is_some());
        activations.retain(|name, _| graph.find(name).is_some());
        Self { weights, activations }
    }

    /// Resolves `config` for every layer of `graph`.
    ///
    /// The layer policies apply in this order, later ones winning: the recipe's bits, the projection policy, the first
    /// and last layer and the activations that functions read (8 bits), the overrides from the shortest pattern to the
    /// longest. Signed activations have the quantizer `pact-sym` and at least 2 bits, whatever is asked, as 1 bit would
    /// hold only zero; but for `sign`, where 1 bit is asked. In a network of `sign`, activations that the policies give
    /// more than 1 bit have `pact`.
    ///
    /// # Errors
    /// Bits that quantize nothing, an override that matches nothing or asks for impossible bits, a quantizer without
    /// the asked grid or scale, `pact-sym` for an activation with a ReLU, clip values per channel for a quantizer
    /// without them, or a graph that cannot be fused.
    pub fn resolve(graph: &Graph, config: &QuantConfig) -> Result<Self, PlanError> {
        let BitSpec::Bits { weights: weight_bits, activations: act_bits } = config.bits else {
            fuse_float(graph)?;
            let weights = products(graph).map(|id| (graph.node(id).name.clone(), WeightPlan::Float)).collect();
            return Ok(Self { weights, activations: BTreeMap::new() });
        };
        let layers = fuse(graph)?;
        let eight = Bits::new(8).expect("8 is a width");
        let mut patterns: Vec<(&String, &Override)> = config.overrides.iter().collect();
        patterns.sort_by_key(|(pattern, _)| pattern.len());
        check_patterns(graph, &patterns)?;
        let matching = |name: &str| patterns.iter().filter(|(p, _)| glob::matches(p, name)).collect::<Vec<_>>();

        let sums = || layers.iter().filter_map(Layer::sum);
        // The last layer of a network that ends in a view is the one whose output moves.
        let moved = |sum: &Sum| sum.views().find_map(|(view, _)| view.node.map(|_| view.tensor));
        let moved: Vec<NodeId> = sums().filter(|sum| sum.end == End::Output).filter_map(moved).collect();
        let outputs: Vec<(NodeId, NodeId)> = sums()
            .filter(|sum| sum.end == End::Output || (sum.end == End::Wide && moved.contains(&sum.output)))
            .flat_map(|sum| sum.products().map(|(input, product, _)| (input, product)))
            .collect();
        let mut plan = Self { weights: BTreeMap::new(), activations: BTreeMap::new() };
        for id in products(graph) {
            let name = &graph.node(id).name;
            let mut bits = Some(weight_bits);
            let (mut quant, mut named_quant) = (config.weight_quant, false);
            let (mut grid, mut scale) = (config.weight_grid, config.weight_scale);
            if config.shortcut == ShortcutBits::Bits8 && graph.is_projection(id) {
                bits = Some(eight);
            }
            if graph.node(id).inputs[0] == 0 || outputs.iter().any(|&(_, product)| product == id) {
                bits = match config.first_last {
                    FirstLast::Float => None,
                    FirstLast::Bits8 => Some(eight),
                    FirstLast::Same => bits,
                };
            }
            for (pattern, o) in matching(name) {
                if let Some(got) = o.weight_bits {
                    bits = if got == 32 { None } else { Some(checked(pattern, "weight_bits", got)?) };
                }
                if let Some(q) = o.weight_quant {
                    (quant, named_quant) = (q, true);
                }
                grid = o.weight_grid.or(grid);
                scale = o.weight_scale.or(scale);
            }
            if bits == Some(eight) && !named_quant {
                (quant, grid, scale) = (WeightQuant::Minmax, None, None);
            }
            let spec = |bits| {
                WeightSpec::with_scale(bits, quant, grid, scale)
                    .map_err(|source| PlanError::Spec { layer: name.clone(), source })
            };
            let weights = bits.map_or(Ok(WeightPlan::Float), |b| spec(b).map(WeightPlan::Quantized))?;
            plan.weights.insert(name.clone(), weights);
        }
        let owners = graph.clip_owners();
        let into_last: Vec<NodeId> =
            outputs.iter().flat_map(|&(input, _)| graph.source_acts(input)).map(|act| owners[act]).collect();
        for (id, node) in graph.nodes().iter().enumerate().filter(|(_, n)| n.op.is_act()) {
            let mut act = ActPlan { bits: act_bits, quant: config.act_quant, clip_scale: config.clip_scale };
            let mut is_named = false;
            let into_last = config.first_last == FirstLast::Bits8 && into_last.contains(&owners[id]);
            if into_last || only_functions_read(graph, id) {
                act.bits = eight;
            }
            for (pattern, o) in matching(&node.name) {
                if let Some(got) = o.activation_bits {
                    act.bits = checked(pattern, "activation_bits", got)?;
                }
                act.quant = o.act_quant.unwrap_or(act.quant);
                is_named |= o.act_quant.is_some();
                act.clip_scale = o.clip_scale.unwrap_or(act.clip_scale);
            }
            if is_shared(&owners, id) {
                act.clip_scale = Granularity::Layer;
            }
            if act.quant == ActQuant::Sign && act.bits.get() > 1 && act_bits.get() == 1 && !is_named {
                act.quant = ActQuant::Pact;
            }
            if node.op == (Op::Act { signed: true }) && act.quant != ActQuant::Sign {
                act = ActPlan { bits: act.bits.max(LEAST_SIGNED_BITS), quant: ActQuant::PactSym, ..act };
            }
            act.check(&node.op).map_err(|what| PlanError::Act { layer: node.name.clone(), what })?;
            plan.activations.insert(node.name.clone(), act);
        }
        if plan.is_float() {
            let layer = plan.weights.keys().next().cloned().unwrap_or_default();
            return Err(PlanError::NothingQuantized { layer, bits: config.bits });
        }
        plan.check_shared(graph)?;
        Ok(plan)
    }

    /// Tells whether no layer is quantized: the network has no integer form.
    pub fn is_float(&self) -> bool {
        self.activations.is_empty() && self.weights.values().all(|weights| *weights == WeightPlan::Float)
    }

    /// Checks that the plan names exactly the layers of `graph`.
    ///
    /// # Errors
    /// Names the first layer that is missing or unknown.
    pub fn check(&self, graph: &Graph) -> Result<(), PlanError> {
        let mismatch = |layer: &str, what| Err(PlanError::Mismatch { layer: layer.to_owned(), what });
        let is = |name: &String, wanted: fn(&Op) -> bool| graph.find(name).is_some_and(|id| wanted(&graph.node(id).op));
        for name in self.weights.keys() {
            if !is(name, Op::is_product) {
                return mismatch(name, "the plan has weights for it, the graph has no such layer");
            }
        }
        for name in self.activations.keys() {
            if !is(name, Op::is_act) {
                return mismatch(name, "the plan has an activation for it, the graph has none");
            }
        }
        for node in graph.nodes() {
            if node.op.is_product() && !self.weights.contains_key(&node.name) {
                return mismatch(&node.name, "the plan says nothing about its weights");
            }
            if node.op.is_act() && !self.is_float() {
                let Some(act) = self.activations.get(&node.name) else {
                    return mismatch(&node.name, "the plan says nothing about its activation");
                };
                act.check(&node.op).map_err(|what| PlanError::Act { layer: node.name.clone(), what })?;
            }
        }
        self.check_shared(graph)
    }

    /// Checks that activations with one clip value have the same bits and quantizer.
    fn check_shared(&self, graph: &Graph) -> Result<(), PlanError> {
        let of = |id: NodeId| self.activations.get(&graph.node(id).name);
        let owners = graph.clip_owners();
        let in_channels = |id: NodeId| of(id).is_some_and(|act| act.clip_scale == Granularity::Channel);
        if let Some(id) = (0..owners.len()).find(|&id| in_channels(id) && is_shared(&owners, id)) {
            let what = "activations that are concatenated share one clip value, so it has none per channel";
            return Err(PlanError::Act { layer: graph.node(id).name.clone(), what });
        }
        match (0..owners.len()).find(|&id| of(id) != of(owners[id])) {
            None => Ok(()),
            Some(id) => Err(PlanError::Act {
                layer: graph.node(id).name.clone(),
                what: "it is concatenated with an activation of other bits or another quantizer",
            }),
        }
    }
}

/// Whether an activation is read by functions and nothing else: what they look up in a table has 8 bits, as a rule.
fn only_functions_read(graph: &Graph, act: NodeId) -> bool {
    let readers = graph.consumers(act);
    !readers.is_empty() && readers.iter().all(|&reader| matches!(graph.node(reader).op, Op::Function(_)))
}

/// Tells whether an activation shares its clip value with another.
fn is_shared(owners: &[NodeId], act: NodeId) -> bool {
    owners.iter().filter(|&&owner| owner == owners[act]).count() > 1
}

fn products(graph: &Graph) -> impl Iterator<Item = NodeId> + '_ {
    (0..graph.nodes().len()).filter(|&id| graph.node(id).op.is_product())
}

fn check_patterns(graph: &Graph, patterns: &[(&String, &Override)]) -> Result<(), PlanError> {
    let layers = || graph.nodes().iter().filter(|n| n.op.is_product() || n.op.is_act());
    for (pattern, _) in patterns {
        if !layers().any(|n| glob::matches(pattern, &n.name)) {
            let layers = layers().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(PlanError::NoMatch { pattern: (*pattern).clone(), layers });
        }
    }
    Ok(())
}

fn checked(pattern: &str, key: &'static str, got: u8) -> Result<Bits, PlanError> {
    let expected = if key == "weight_bits" { "1 to 8, or 32 for float weights" } else { "1 to 8" };
    Bits::new(got).ok_or(PlanError::Bits { pattern: pattern.to_owned(), key, got, expected })
}
