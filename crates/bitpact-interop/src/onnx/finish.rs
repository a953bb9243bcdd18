//! From the nodes of a file to a model.

use std::collections::BTreeMap;
use std::path::Path;

use bitpact_core::{ActQuant, Granularity, WEIGHT_STEP_MIN, WeightQuant, WeightSpec};
use bitpact_graph::{
    ActPlan, BatchNorm, BitSpec, Conv, ConvTranspose, Graph, Node, NodeId, Op, QuantConfig, QuantPlan, WeightPlan, fuse,
};
use bitpact_model::{InputDescription, Model, Tensor};

use super::build::{Builder, NO_EPS};
use super::points;
use crate::{ImportOptions, Imported, InteropError};

/// What was read of a file.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) builder: Builder,
    /// The outputs, the main one first.
    pub(super) outputs: Vec<NodeId>,
    pub(super) pixels: InputDescription,
    pub(super) notes: Vec<String>,
    /// Whether tensors of the network are codes in the file.
    pub(super) is_quantized: bool,
    /// Codes that ours cannot be.
    pub(super) unfit: Vec<String>,
}

impl Parts {
    /// The model.
    pub(super) fn model(self, path: &Path, options: &ImportOptions) -> Result<Imported, InteropError> {
        let Parts { name, mut builder, mut outputs, pixels, mut notes, is_quantized, mut unfit } = self;
        let wrong = |what: String| InteropError::file(path, what);
        absorb(&mut builder, &mut outputs);
        keep(&mut builder, &mut outputs);
        points::end_in_sum(&mut builder, &mut outputs, &mut notes).map_err(wrong)?;
        let graph = |builder: &Builder, outputs: &[NodeId]| {
            let graph = Graph::with_outputs(name.clone(), builder.nodes.clone(), outputs.to_vec());
            graph.map_err(|error| wrong(error.to_string()))
        };
        let plain = graph(&builder, &outputs)?;
        let mut pointed = builder;
        points::insert(&mut pointed, &mut outputs).map_err(wrong)?;
        let with_points = graph(&pointed, &outputs)?;
        let (graph, builder) = match fuse(&with_points) {
            Ok(_) => (with_points, pointed),
            Err(error) => {
                notes.push(format!("the network has no integer form, so it can be trained as float alone: {error}"));
                let mut kept = pointed;
                points::remove(&mut kept, &plain);
                (plain, kept)
            }
        };
        let float =
            QuantPlan::resolve(&graph, &QuantConfig::new(BitSpec::Float)).map_err(|error| wrong(error.to_string()))?;
        let mut plan = None;
        if is_quantized {
            match quantized(&graph, &builder, &unfit) {
                Ok(quantized) => plan = Some(quantized),
                Err(more) => {
                    unfit.extend(more);
                    let why = unfit.join("; ");
                    notes.push(format!("the codes of the file are left out, and the network is float: {why}"));
                }
            }
        }
        let plan = plan.unwrap_or(float);
        let shapes = Model::tensor_shapes(&graph, &plan);
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for ((node, what), tensor) in builder.tensors {
            let name = format!("{}.{what}", graph.node(node).name);
            if !matches!(what, "clip_val" | "weight_step") || shapes.contains_key(&name) {
                tensors.insert(name, tensor);
            }
        }
        let class_names = options.classes(path, graph.classes())?;
        let model = Model { graph, plan, input: pixels, class_names, tensors };
        model.check().map_err(|error| wrong(error.to_string()))?;
        Ok(Imported { model, notes })
    }
}

/// The bits of the file's codes.
fn quantized(graph: &Graph, builder: &Builder, unfit: &[String]) -> Result<QuantPlan, Vec<String>> {
    let mut wrong = Vec::new();
    let mut plan = QuantPlan { weights: BTreeMap::new(), activations: BTreeMap::new() };
    let owners = graph.clip_owners();
    let clip = |id: NodeId| builder.tensors.get(&(id, "clip_val")).map(|tensor| tensor.data[0]);
    for (id, node) in graph.nodes().iter().enumerate() {
        let bits = builder.bits.get(&id).copied();
        if node.op.is_product() {
            let weights = match (bits, builder.tensors.get(&(id, "weight_step"))) {
                (Some(bits), Some(step)) => {
                    let scale = if step.shape.is_empty() { Granularity::Layer } else { Granularity::Channel };
                    let spec = WeightSpec::with_scale(bits, WeightQuant::Lsq, None, Some(scale));
                    match spec {
                        Ok(spec) if step.data.iter().all(|&step| step >= WEIGHT_STEP_MIN) => {
                            WeightPlan::Quantized(spec)
                        }
                        _ => WeightPlan::Float,
                    }
                }
                _ => WeightPlan::Float,
            };
            plan.weights.insert(node.name.clone(), weights);
        } else if let Op::Act { signed } = node.op {
            match bits {
                Some(bits) if clip(id) == clip(owners[id]) => {
                    let quant = if signed { ActQuant::PactSym } else { ActQuant::Pact };
                    plan.activations.insert(node.name.clone(), ActPlan { bits, quant, clip_scale: Granularity::Layer });
                }
                Some(_) => {
                    wrong.push(format!("`{}`: its scale differs from that of what it is joined with", node.name))
                }
                None => wrong.push(format!("`{}`: the file has no codes behind it", node.name)),
            }
        }
    }
    if let Err(error) = fuse(graph) {
        wrong.push(error.to_string());
    } else if let Err(error) = plan.check(graph) {
        wrong.push(error.to_string());
    }
    if wrong.is_empty() && unfit.is_empty() { Ok(plan) } else { Err(wrong) }
}

/// Whether a node is a batch norm that this crate made of constants.
fn is_affine(node: &Node) -> bool {
    matches!(node.op, Op::BatchNorm(BatchNorm { eps, .. }) if eps == NO_EPS)
}

/// Puts constants that are added to what a layer with weights alone gives into its bias, and those behind a batch norm
/// into it.
fn absorb(builder: &mut Builder, outputs: &mut [NodeId]) {
    let n = builder.nodes.len();
    let mut instead: Vec<NodeId> = (0..n).collect();
    for id in 0..n {
        builder.nodes[id].inputs.iter_mut().for_each(|input| *input = instead[*input]);
        if !is_affine(&builder.nodes[id]) {
            continue;
        }
        let from = builder.nodes[id].inputs[0];
        let readers =
            (id..n).flat_map(|reader| builder.nodes[reader].inputs.iter()).filter(|&&i| instead[i] == from).count();
        let read_before =
            (0..id).any(|reader| instead[reader] == reader && builder.nodes[reader].inputs.contains(&from));
        if readers == 1 && !read_before && !outputs.contains(&from) && absorbed(builder, from, id) {
            instead[id] = from;
        }
    }
    outputs.iter_mut().for_each(|output| *output = instead[*output]);
}

/// Does what the batch norm `affine` does in the node it reads, where that is exact.
fn absorbed(builder: &mut Builder, from: NodeId, affine: NodeId) -> bool {
    let [scale, shift] = ["weight", "bias"].map(|what| builder.tensors[&(affine, what)].data.clone());
    let channels = scale.len();
    match &mut builder.nodes[from].op {
        Op::BatchNorm(_) => {
            for what in ["weight", "bias"] {
                let tensor = builder.tensors.get_mut(&(from, what)).expect("a batch norm has both");
                tensor.data.iter_mut().zip(&scale).for_each(|(v, s)| *v *= s);
            }
            let bias = builder.tensors.get_mut(&(from, "bias")).expect("a batch norm has one");
            bias.data.iter_mut().zip(&shift).for_each(|(v, t)| *v += t);
            true
        }
        Op::Conv(Conv { bias, .. }) | Op::ConvTranspose(ConvTranspose { bias, .. }) | Op::Linear { bias, .. }
            if scale.iter().all(|&s| s == 1.0) =>
        {
            *bias = true;
            let zeros = || Tensor { shape: vec![channels], data: vec![0.0; channels] };
            let tensor = builder.tensors.entry((from, "bias")).or_insert_with(zeros);
            tensor.data.iter_mut().zip(&shift).for_each(|(v, t)| *v += t);
            true
        }
        _ => false,
    }
}

/// Drops the nodes that no output depends on.
fn keep(builder: &mut Builder, outputs: &mut [NodeId]) {
    let mut needed = vec![false; builder.nodes.len()];
    needed[0] = true;
    outputs.iter().for_each(|&output| needed[output] = true);
    for id in (0..needed.len()).rev() {
        if needed[id] {
            for &input in &builder.nodes[id].inputs {
                needed[input] = true;
            }
        }
    }
    let kept: Vec<NodeId> = (0..needed.len()).filter(|&id| needed[id]).collect();
    renumber(builder, &kept, outputs);
}

/// Keeps the nodes `kept`, in this order; whatever they read, and the outputs, are among them.
pub(super) fn renumber(builder: &mut Builder, kept: &[NodeId], outputs: &mut [NodeId]) {
    let mut new = vec![usize::MAX; builder.nodes.len()];
    for (at, &id) in kept.iter().enumerate() {
        new[id] = at;
    }
    outputs.iter_mut().for_each(|output| *output = new[*output]);
    let nodes = std::mem::take(&mut builder.nodes);
    let shapes = std::mem::take(&mut builder.shapes);
    for &id in kept {
        let Node { name, op, inputs } = nodes[id].clone();
        builder.nodes.push(Node { name, op, inputs: inputs.into_iter().map(|input| new[input]).collect() });
        builder.shapes.push(shapes[id]);
    }
    let is_kept = |id: NodeId| new.get(id).copied().filter(|&id| id != usize::MAX);
    let bits = std::mem::take(&mut builder.bits);
    builder.bits = bits.into_iter().filter_map(|(id, bits)| Some((is_kept(id)?, bits))).collect();
    let tensors = std::mem::take(&mut builder.tensors);
    builder.tensors =
        tensors.into_iter().filter_map(|((id, what), tensor)| Some(((is_kept(id)?, what), tensor))).collect();
}
