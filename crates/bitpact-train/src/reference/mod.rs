//! The specification of a training step: the nodes of the graph one by one, forward and then in reverse, in plain loops
//! over the batch.
//!
//! Nothing is fused and nothing is fast. Every tensor is `[image][row][column][channel]`, every quantizer is
//! `bitpact-core`'s, every sum of real numbers is float64 and rounded once. What decides a code is spelled as
//! [`crate::BackendKind::Cpu`] spells it, so its codes are these: a batch norm is `a z + b` with `a` and `b` rounded to
//! float32, over the exact sums z of a layer that reads codes, and a multiply-add rounds once on instruction sets that
//! have it.
//!
//! An operation is a function forward, which gives a [`Value`], and one in reverse, which takes dL/dvalue and gives
//! that of its inputs.

mod act;
mod function;
mod noise;
mod norm;
mod optimizer;
mod pool;
mod product;
mod rearrange;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use bitpact_core::ALPHA_MIN;
use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::{Graph, NodeId, Op, QuantPlan, Shape};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, Model, Tensor};

use crate::backend::MAXIMUM_MOMENTUM;
use crate::params::{ParamId, Params};
use crate::{
    BackendSpec, Fill, Gradients, LayerStatistics, OptimizerConfig, OptimizerState, StepInput, StepOutcome,
    TrainBackend, TrainError,
};
use act::ActState;
use norm::Channel;
use value::Value;

/// Which forward.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// Batch statistics, dropout; counts what the records show.
    Train,
    /// Running statistics.
    Evaluate,
    /// Batch statistics.
    Statistics,
    /// Batch statistics; every clip value becomes this percentile of its inputs.
    Calibrate(f64),
}

/// A network in training, one node after the other.
pub(crate) struct ReferenceBackend {
    graph: Graph,
    plan: QuantPlan,
    pixels: InputDescription,
    batch: usize,
    gradients: Gradients,
    /// Whether products round what they read to bfloat16: in training of a float network in bfloat16.
    rounds: bool,
    /// Whether a multiply-add rounds once.
    fma: bool,
    params: Params,
    /// The activation that holds the clip value of each.
    owners: Vec<NodeId>,
    /// For each addition that ends a sum, the nodes of its terms, in their order; empty for other nodes.
    terms: Vec<Vec<NodeId>>,
    labels: Vec<usize>,
    key: Key,
    /// Images of the last forward.
    images: usize,
    /// Output of each node in the last forward pass.
    values: Vec<Value>,
    /// Channels of each batch norm in it.
    channels: Vec<Vec<Channel>>,
    acts: Vec<ActState>,
    steps: u64,
    #[cfg(test)]
    noise: noise::Noise,
}

impl ReferenceBackend {
    /// All tensors are zero until [`TrainBackend::load`].
    ///
    /// # Errors
    /// A plan that does not fit the graph, a node other than a product that reads the image, or 8-bit gradients.
    pub(crate) fn new(spec: &BackendSpec) -> Result<Self, TrainError> {
        let (graph, batch) = (spec.graph, spec.batch_size);
        let unsupported = |id: NodeId, what: &str| {
            Err(TrainError::Unsupported { node: graph.node(id).name.clone(), what: what.to_owned() })
        };
        if let Some(&id) = graph.consumers(0).iter().find(|&&id| !graph.node(id).op.is_product()) {
            return unsupported(id, "only a layer with weights reads the image");
        }
        if spec.gradients == Gradients::Int8 {
            return unsupported(
                graph.output(),
                "the reference backend has no 8-bit gradients; leave out gradient_bits",
            );
        }
        Ok(Self {
            params: params(graph, spec.plan, spec.optimizer.clone())?,
            plan: spec.plan.clone(),
            pixels: spec.input.clone(),
            batch,
            gradients: spec.gradients,
            rounds: false,
            fma: spec.isa != Isa::Scalar,
            owners: graph.clip_owners(),
            terms: rearrange::terms(graph, spec.plan)?,
            labels: vec![0; batch],
            key: Key::new(0),
            images: 0,
            values: Vec::new(),
            channels: vec![Vec::new(); graph.nodes().len()],
            acts: vec![ActState::default(); graph.nodes().len()],
            steps: 0,
            #[cfg(test)]
            noise: noise::Noise::default(),
            graph: graph.clone(),
        })
    }

    /// Runs the first `images` images of the batch to the logits.
    fn forward(&mut self, images: usize, mode: Mode, fill: Fill) {
        self.images = images;
        self.rounds = mode == Mode::Train && self.gradients == Gradients::Bf16 && self.plan.is_float();
        self.values = vec![self.image_codes(fill)];
        for id in 1..self.graph.nodes().len() {
            let value = match self.graph.node(id).op {
                Op::Input { .. } => unreachable!("the image is the first node"),
                Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } => self.product(id),
                Op::BatchNorm(_) => self.norm(id, mode),
                Op::Act { .. } => self.act(id, mode),
                Op::Add => self.add(id),
                Op::Mul => self.multiply(id),
                Op::Function(function) => self.function(id, function),
                Op::View(_) | Op::Subsample { .. } => self.view(id),
                Op::MaxPool(_) => self.max_pool(id),
                Op::AvgPool(_) | Op::GlobalAvgPool => self.mean_pool(id),
                Op::Concat => self.concat(id),
                Op::Dropout { .. } => self.dropout(id, mode),
            };
            self.values.push(value);
        }
    }

    /// Gradients of every parameter, from those of the logits.
    fn backward(&mut self, logits: Vec<f32>) {
        self.params.list.iter_mut().for_each(|p| p.grad.fill(0.0));
        let mut gradients: Vec<Vec<f32>> = self.values.iter().map(|value| vec![0.0; value.len()]).collect();
        gradients[self.graph.output()] = logits;
        for id in (1..self.graph.nodes().len()).rev() {
            let mut g = std::mem::take(&mut gradients[id]);
            self.disturb(id, &mut g);
            let of_inputs = match self.graph.node(id).op {
                Op::Input { .. } => unreachable!("the image is the first node"),
                Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } => self.product_backward(id, g),
                Op::BatchNorm(_) => self.norm_backward(id, &g),
                Op::Act { .. } => self.act_backward(id, &g),
                Op::Add => {
                    self.add_backward(id, &g, &mut gradients);
                    continue;
                }
                Op::Mul => self.multiply_backward(id, &g),
                Op::Function(function) => self.function_backward(id, function, &g),
                Op::View(_) | Op::Subsample { .. } => self.view_backward(id, &g),
                Op::MaxPool(_) => self.max_pool_backward(id, &g),
                Op::AvgPool(_) | Op::GlobalAvgPool => self.mean_pool_backward(id, &g),
                Op::Concat => self.concat_backward(id, &g),
                Op::Dropout { .. } => self.dropout_backward(id, &g),
            };
            for (&input, of_input) in self.graph.node(id).inputs.iter().zip(of_inputs) {
                gradients[input].iter_mut().zip(of_input).for_each(|(sum, g)| *sum += g);
            }
        }
    }

    /// The image: pixels less their zero point. The scale of a pixel is the weights' matter.
    fn image_codes(&mut self, fill: Fill) -> Value {
        let Shape { h, w, c } = self.graph.input();
        let bytes = self.pixels.code_bytes();
        let place = Placement { offset: 0, row_stride: w * c * bytes, pixel_stride: c * bytes };
        let mut codes = Vec::with_capacity(self.images * h * w * c);
        for (i, label) in self.labels[..self.images].iter_mut().enumerate() {
            let mut image = vec![0; h * w * c * bytes];
            *label = fill(i, &mut image, place);
            let zeros = self.pixels.zero_point.iter().cycle();
            codes.extend(self.pixels.codes(&image).zip(zeros).map(|(q, &zero)| i32::from(q) - i32::from(zero)));
        }
        Value::Codes { codes, scale: 1.0, padding: 0 }
    }

    /// `a * b + c`, in one rounding where the instruction set has it.
    fn multiply_add(&self, a: f32, b: f32, c: f32) -> f32 {
        if self.fma { a.mul_add(b, c) } else { a * b + c }
    }

    /// The tensor `tensor` of a node.
    fn param(&self, id: NodeId, tensor: &str) -> ParamId {
        self.params.id(&format!("{}.{tensor}", self.graph.node(id).name))
    }

    /// Value of the first input of a node.
    fn input(&self, id: NodeId) -> &Value {
        &self.values[self.graph.node(id).inputs[0]]
    }

    fn logits(&self) -> Vec<f32> {
        self.real(&self.values[self.graph.output()])
    }

    /// Nodes of one kind.
    fn nodes(&self, is: fn(&Op) -> bool) -> Vec<NodeId> {
        (0..self.graph.nodes().len()).filter(|&id| is(&self.graph.node(id).op)).collect()
    }
}

/// Every parameter of `graph`, zero.
fn params(graph: &Graph, plan: &QuantPlan, optimizer: OptimizerConfig) -> Result<Params, TrainError> {
    plan.check(graph)?;
    let is_learned = |name: &str| {
        let act = name.strip_suffix(".clip_val").unwrap_or(name);
        plan.activations.get(act).is_some_and(|a| a.quant.is_learned())
    };
    Ok(Params::new(Model::tensor_shapes(graph, plan), optimizer, is_learned))
}

impl TrainBackend for ReferenceBackend {
    fn batch_size(&self) -> usize {
        self.batch
    }

    fn input_shape(&self) -> Shape {
        self.graph.input()
    }

    fn calibrate(&mut self, percentile: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError> {
        self.forward(self.batch, Mode::Calibrate(percentile), fill);
        let clips = self.params.list.iter().filter(|p| p.name.ends_with(".clip_val"));
        clips
            .map(|p| match p.value[0].is_finite() {
                true => Ok((p.name.clone(), p.value[0])),
                false => {
                    let what = "its inputs are not numbers, so it cannot be calibrated".to_owned();
                    Err(TrainError::Tensor { name: p.name.clone(), what })
                }
            })
            .collect()
    }

    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError> {
        self.key = input.key;
        self.forward(self.batch, Mode::Train, input.fill);
        self.check_statistics()?;
        let logits = self.logits();
        let mut gradient = vec![0.0; logits.len()];
        let (mut loss, mut correct) = (0.0, 0);
        let (classes, n) = (self.graph.classes(), logits.len() / self.batch);
        for (i, (z, g)) in logits.chunks_exact(n).zip(gradient.chunks_exact_mut(n)).enumerate() {
            let (l, hit) = crate::loss::loss(z, classes, &self.labels, i, &input.loss, g);
            loss += l;
            correct += usize::from(hit);
        }
        loss /= self.batch as f64;
        if !loss.is_finite() {
            return Err(TrainError::NotFinite { step: self.steps, loss });
        }
        self.backward(gradient);
        self.params.check_gradients(self.steps)?;
        optimizer::update(&mut self.params, input.lr);
        self.update_running(None);
        self.update_maxima();
        optimizer::move_average(&mut self.params);
        self.steps += 1;
        Ok(StepOutcome { loss, correct })
    }

    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>) {
        assert!(images <= self.batch, "{images} images in a batch of {}", self.batch);
        self.forward(images, Mode::Evaluate, fill);
        *logits = self.logits();
    }

    fn write_statistics(&self, all: &mut Vec<LayerStatistics>) {
        all.clear();
        all.extend(self.nodes(Op::is_act).into_iter().filter_map(|id| self.act_statistics(id)));
    }

    fn reset_statistics(&mut self) {
        self.params.reset_clamped();
        self.acts.iter_mut().for_each(ActState::reset);
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.params.tensors()
    }

    fn parameter_mut(&mut self, name: &str) -> Option<(&mut [f32], &[f32])> {
        self.params.trained_mut(name)
    }

    fn optimizer_state(&self) -> OptimizerState {
        self.params.state()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        self.params.load(tensors, state)
    }

    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError> {
        self.params = params(&self.graph, plan, self.params.optimizer.clone())?;
        self.plan = plan.clone();
        self.acts.fill(ActState::default());
        Ok(())
    }

    fn swap_average(&mut self) {
        if self.params.optimizer.ema_decay.is_some() {
            self.params.list.iter_mut().for_each(|p| std::mem::swap(&mut p.value, &mut p.average));
        }
    }

    fn reestimate(&mut self, batch: u64, fill: Fill) {
        self.forward(self.batch, Mode::Statistics, fill);
        self.update_running(Some(1.0 / (batch + 1) as f64));
    }
}
