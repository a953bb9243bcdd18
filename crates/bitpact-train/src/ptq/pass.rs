//! One walk through the network that quantizes layer after layer, each on what the quantized layers before it give.

use std::collections::BTreeMap;

use bitpact_core::{ALPHA_MIN, Granularity, WeightSpec};
use bitpact_graph::{ActPlan, End, Factor, Graph, Layer, NodeId, Op, QuantPlan, WeightPlan, fuse};
use bitpact_kernels::Pool;
use bitpact_model::{Model, Tensor};
use bitpact_ptq::{
    Calibrate, Gptq, Gram, LayerRanks, Matrix, Order, Residual, largest_steps, round_rows, row_values, search_steps,
};

use super::adapters::{Adapter, adapt, adapted_plan};
use super::forward::{Quantizer, Values, centred, norm_lines, value, walk};
use super::product::Lowered;
use super::seen::{Clips, Moments, Seen, bias, histogram};
use super::{Progress, PtqError, Steps};
use crate::TrainError;

/// Where the mean of a sum can be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    /// The bias of this batch norm.
    Norm(NodeId),
    /// The bias of this product, which may have none yet.
    Product(NodeId),
}

/// For the last node of each sum before its activation, where its mean can be moved.
pub(super) fn shifts(graph: &Graph) -> Result<BTreeMap<NodeId, Shift>, PtqError> {
    let of_layer = |layer: Layer| {
        let Layer::Sum(sum) = layer else { return None };
        let end = match sum.end {
            End::Act(act) => graph.node(act).inputs[0],
            End::Wide | End::Output => sum.output,
        };
        let shift = |term: &bitpact_graph::Term| match (term.norm, term.factor) {
            (Some(norm), _) => Some(Shift::Norm(norm)),
            (None, Factor::Product { node, .. }) => Some(Shift::Product(node)),
            (None, Factor::View(_)) => None,
        };
        // A term that has a bias already before one that would gain it.
        let has_bias = |shift: &Shift| match *shift {
            Shift::Norm(_) => true,
            Shift::Product(node) => graph.node(node).op.has_bias(),
        };
        let all: Vec<Shift> = sum.terms.iter().filter_map(shift).collect();
        Some((end, *all.iter().find(|shift| has_bias(shift)).or(all.first())?))
    };
    Ok(fuse(graph)?.into_iter().filter_map(of_layer).collect())
}

/// What a walk is to make.
pub(super) struct Wanted<'a> {
    /// The float network.
    pub(super) float: &'a Model,
    pub(super) seen: &'a Seen,
    pub(super) plan: &'a QuantPlan,
    pub(super) clips: &'a Clips,
    pub(super) steps: &'a Steps,
    /// Shares of the largest weight steps that are tried.
    pub(super) shares: &'a [f32],
    /// Ranks of adapters by convolution.
    pub(super) ranks: &'a BTreeMap<String, usize>,
    /// Convolutions whose residuals are measured.
    pub(super) measured: &'a [NodeId],
}

/// A quantized network.
pub(super) struct Passed {
    pub(super) model: Model,
    /// Its outputs on the images, in float32.
    pub(super) outputs: Values,
    /// What each rank of an adapter would bring, as a share of the variance of the layer's outputs.
    pub(super) residuals: Vec<(String, LayerRanks)>,
}

struct Pass<'a> {
    wanted: &'a Wanted<'a>,
    /// What is made: tensors of the float network, replaced one after the other.
    model: Model,
    origins: Vec<Option<NodeId>>,
    adapters: BTreeMap<NodeId, Adapter>,
    /// Matrices of the layers of adapters whose convolution was quantized.
    matrices: BTreeMap<NodeId, Vec<f32>>,
    shifts: BTreeMap<NodeId, Shift>,
    residuals: Vec<(String, LayerRanks)>,
    images: usize,
    pool: &'a Pool,
}

/// Quantizes the network on images, HWC, one after the other.
///
/// # Errors
/// A stop, or numbers that are not finite.
pub(super) fn pass(
    wanted: &Wanted<'_>,
    pixels: &[u8],
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<Passed, PtqError> {
    let adapted = adapt(&wanted.float.graph, wanted.ranks)?;
    let plan = adapted_plan(wanted.plan, &adapted);
    let model = Model { graph: adapted.graph, plan, ..wanted.float.clone() };
    let graph = model.graph.clone();
    let images = pixels.len() / model.input.example_bytes(graph.input());
    let mut pass = Pass {
        wanted,
        shifts: if wanted.steps.bias { shifts(&graph)? } else { BTreeMap::new() },
        model,
        origins: adapted.origins,
        adapters: adapted.adapters,
        matrices: BTreeMap::new(),
        residuals: Vec::new(),
        images,
        pool,
    };
    let owners = graph.clip_owners();
    let outputs = walk(&graph, centred(pixels, &pass.model.input), |id, inputs| {
        progress.next()?;
        let mut values = match graph.node(id).op {
            op if op.is_product() => pass.product(id, inputs[0])?,
            Op::Act { .. } => pass.act(id, owners[id], inputs[0])?,
            _ => value(&pass.model, id, inputs, pass.images, pool)?,
        };
        pass.correct(id, &mut values)?;
        Ok::<_, PtqError>(values)
    })?;
    Ok(Passed { model: pass.model, outputs, residuals: pass.residuals })
}

impl Pass<'_> {
    fn name(&self, id: NodeId) -> &str {
        &self.model.graph.node(id).name
    }

    fn product(&mut self, id: NodeId, x: &[f32]) -> Result<Values, PtqError> {
        let name = self.name(id).to_owned();
        let lowered = Lowered::new(&self.model.graph, id, &self.model.input);
        let is_adapter = self.matrices.contains_key(&id);
        let float = match self.matrices.remove(&id) {
            Some(matrices) => matrices,
            None => lowered.matrices(&self.model.tensor(&format!("{name}.weight"))?.data),
        };
        let bias = bias(&self.model, id)?;
        let Some(&WeightPlan::Quantized(spec)) = self.model.plan.weights.get(&name) else {
            return Ok(lowered.forward(x, &float, &bias, self.images, self.pool));
        };
        let of_residual = self.adapters.contains_key(&id) || self.wanted.measured.contains(&id);
        let Steps { gptq, weights, .. } = *self.wanted.steps;
        let by_gram = !is_adapter && (gptq || weights || of_residual);
        let grams = if by_gram { lowered.grams(x, self.images, self.pool)? } else { Vec::new() };
        let (values, steps) = self.quantize(&lowered, &spec, &float, &grams, is_adapter)?;
        self.store(id, &lowered, &values, steps)?;
        if of_residual {
            self.residual(id, &float, &values, &grams[0])?;
        }
        Ok(lowered.forward(x, &values, &bias, self.images, self.pool))
    }

    /// What the codes of all groups mean, and the steps of all rows; layers of adapters are rounded.
    fn quantize(
        &self,
        lowered: &Lowered,
        spec: &WeightSpec,
        float: &[f32],
        grams: &[Gram],
        is_adapter: bool,
    ) -> Result<(Vec<f32>, Vec<f32>), PtqError> {
        let (rows, columns) = (lowered.rows(), lowered.columns());
        let (gptq, search) = (self.wanted.steps.gptq && !is_adapter, self.wanted.steps.weights && !is_adapter);
        let (mut values, mut all_steps) = (Vec::with_capacity(float.len()), Vec::new());
        for (group, part) in float.chunks_exact(rows * columns).enumerate() {
            let weights = Matrix::new(rows, columns, part.to_vec())?;
            let by_falling_square = Gptq { order: Order::Activation, ..Gptq::default() };
            let factor = gptq.then(|| by_falling_square.factorize(&grams[group])).transpose()?;
            let round = |steps: &[f32]| match &factor {
                Some(factor) => factor.codes(&weights, spec, steps, self.pool),
                None => grams[group].round(spec, &weights, steps, self.pool),
            };
            let (steps, codes) = match search {
                true => search_steps(spec, &weights, self.wanted.shares, round)?,
                false => {
                    let steps = largest_steps(spec, &weights)?;
                    let codes = if gptq { round(&steps)?.codes } else { round_rows(spec, &weights, &steps)? };
                    (steps, codes)
                }
            };
            values.extend(row_values(spec, &codes, &steps));
            all_steps.extend(steps);
        }
        Ok((values, all_steps))
    }

    /// Puts weights and steps into the model.
    fn store(&mut self, id: NodeId, lowered: &Lowered, values: &[f32], mut steps: Vec<f32>) -> Result<(), PtqError> {
        let name = self.name(id).to_owned();
        if self.model.graph.node(id).inputs[0] == 0 {
            // Steps of layers that read the image count in the weights' own units.
            steps.iter_mut().for_each(|step| *step /= self.model.input.mean_scale());
        }
        let shape = self.model.graph.weight_shape(id).expect("a product has weights");
        let weight = Tensor { shape, data: lowered.tensor(values) };
        let step = Tensor { shape: vec![steps.len()], data: steps };
        self.model.tensors.insert(format!("{name}.weight"), weight);
        self.model.tensors.insert(format!("{name}.weight_step"), step);
        Ok(())
    }

    /// What an adapter could bring, and the weights of the one that there is.
    fn residual(&mut self, id: NodeId, float: &[f32], values: &[f32], gram: &Gram) -> Result<(), PtqError> {
        let graph = &self.model.graph;
        let (rows, norm) = (graph.shape(id).c, graph.consumers(id).first().copied());
        let norm = norm.filter(|&norm| graph.consumers(id).len() == 1 && graph.node(norm).op.is_norm());
        let gains = match norm {
            Some(norm) => norm_lines(&self.model, norm)?.into_iter().map(|(gain, _)| gain as f32).collect(),
            None => vec![1.0; rows],
        };
        let columns = float.len() / rows;
        let at = |r: usize, c: usize| gains[r] * (float[r * columns + c] - values[r * columns + c]);
        let residual = Residual::new(Matrix::from_fn(rows, columns, at), Some(gram))?;
        if let Some(&Adapter { down, up, rank }) = self.adapters.get(&id) {
            let (b, a) = residual.factors(rank);
            self.matrices.insert(down, a.into_data());
            self.matrices.insert(up, b.into_data());
        }
        if let Some(origin) = self.origins[norm.unwrap_or(id)].or(self.origins[id]) {
            let variance = self.wanted.seen.moments[origin].variance().max(f64::MIN_POSITIVE);
            let gains = residual.energies().iter().map(|energy| energy / variance).collect();
            let ranks = LayerRanks { gains, parameters: rows + columns };
            self.residuals.push((self.name(id).to_owned(), ranks));
        }
        Ok(())
    }

    fn act(&mut self, id: NodeId, owner: NodeId, x: &[f32]) -> Result<Values, PtqError> {
        let (shape, name) = (self.model.graph.shape(id), self.name(owner).to_owned());
        let plan = self.model.plan.activations[self.name(id)];
        let tensor = format!("{name}.clip_val");
        if !self.model.tensors.contains_key(&tensor) {
            let clips = match self.wanted.clips.get(&name) {
                Some(clips) => clips.clone(),
                // Of an adapter: the float network has none.
                None => vec![self.adapter_clip(id, plan, x)],
            };
            let shape = match plan.clip_scale {
                Granularity::Layer => Vec::new(),
                Granularity::Channel => vec![clips.len()],
            };
            self.model.tensors.insert(tensor.clone(), Tensor { shape, data: clips });
        }
        let clips = &self.model.tensor(&tensor)?.data;
        Ok(Quantizer { plan, clips }.apply(shape, x, self.images, self.pool))
    }

    fn adapter_clip(&self, id: NodeId, plan: ActPlan, x: &[f32]) -> f32 {
        let seen = histogram(x, self.model.graph.shape(id), true, self.pool);
        seen.clip(Calibrate::Mse, plan.quant.q_max(plan.bits) as u32).max(ALPHA_MIN)
    }

    /// Moves the mean of each channel to that of the float network, at the end of a sum.
    fn correct(&mut self, id: NodeId, values: &mut [f32]) -> Result<(), PtqError> {
        let (Some(&shift), Some(origin)) = (self.shifts.get(&id), self.origins[id]) else { return Ok(()) };
        let channels = self.model.graph.shape(id).c;
        let wanted = &self.wanted.seen.moments[origin].mean;
        let now = Moments::of(values, channels).mean;
        let by: Vec<f32> = wanted.iter().zip(&now).map(|(wanted, now)| (wanted - now) as f32).collect();
        let node = match shift {
            Shift::Norm(node) | Shift::Product(node) => node,
        };
        let name = format!("{}.bias", self.name(node));
        let Some(tensor) = self.model.tensors.get_mut(&name) else {
            return Err(TrainError::Tensor { name, what: "is missing".to_owned() }.into());
        };
        tensor.data.iter_mut().zip(&by).for_each(|(bias, by)| *bias += by);
        for pixel in values.chunks_exact_mut(channels) {
            pixel.iter_mut().zip(&by).for_each(|(y, by)| *y += by);
        }
        Ok(())
    }
}
