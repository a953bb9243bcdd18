//! Training on the CPU: a plan of fused steps over fixed buffers, run by one pool of threads.
//!
//! A quantized unit keeps its accumulators and its output codes, nothing else; see `bitpact_kernels::norm` for the
//! passes over them. Work is cut by image and by fixed chunks of images, sums are added in the order of images, so
//! the bits of a step do not depend on the number of threads.

mod average;
mod backward;
mod forward;
mod general;
mod noise;
mod optimizer;
mod plan;
mod product;
mod profile;
mod shape_ops;
mod slabs;
#[cfg(test)]
mod tests;
mod totals;
mod weights;

use std::collections::BTreeMap;

use bitpact_core::ActQuant;
use bitpact_data::Placement;
use bitpact_graph::{Graph, QuantPlan, Shape};
use bitpact_kernels::{Chunked, Isa};
use bitpact_model::Tensor;

use crate::{
    BackendSpec, Fill, Gradients, LayerStatistics, OptimizerState, StepInput, StepOutcome, TrainBackend, TrainError,
};
use forward::Mode;
use plan::{Activation, StageKind, StepPlan, Store};
use profile::Pool;

use crate::backend::MAXIMUM_MOMENTUM;
use crate::profile::{Pass, StepTimes, Work};

/// A network in training on this CPU.
pub(crate) struct CpuBackend {
    isa: Isa,
    gradients: Gradients,
    pool: Pool,
    graph: Graph,
    plan: StepPlan,
    labels: Vec<usize>,
    /// Examples in codes of 16 bits, before they become real numbers; empty for pixels.
    bytes: Vec<u8>,
    /// The output of one image, HWC, and its gradient.
    dense: [Vec<f32>; 2],
    steps: u64,
}

impl CpuBackend {
    /// Plans every step for the batches of `spec`. All tensors are zero until [`TrainBackend::load`].
    ///
    /// # Errors
    /// A graph that cannot be fused or trained, a plan that does not fit it, or an ISA this CPU lacks.
    pub(crate) fn new(spec: &BackendSpec) -> Result<Self, TrainError> {
        let (isa, gradients, batch) = (spec.isa, spec.gradients, spec.batch_size);
        let BackendSpec { graph, plan, input, optimizer, threads, .. } = spec.clone();
        if !isa.is_available() {
            let available = Isa::available().iter().map(Isa::to_string).collect::<Vec<_>>().join(", ");
            return Err(TrainError::Isa { isa: isa.to_string(), available });
        }
        let pool = Pool::new(threads);
        let plan = StepPlan::build(graph, plan, input, batch, optimizer, gradients, isa, pool.threads())?;
        let graph = graph.clone();
        let dense = [(); 2].map(|()| vec![0.0; graph.shape(graph.output()).elements()]);
        let bytes = vec![0; if input.bits == 8 { 0 } else { batch * input.example_bytes(graph.input()) }];
        Ok(Self { isa, gradients, pool, graph, plan, labels: vec![0; batch], bytes, dense, steps: 0 })
    }

    fn fill(&mut self, n: usize, fill: Fill) {
        let layout = self.plan.values[0].layout;
        let labels = Chunked::new(&mut self.labels, 1);
        let pixels = match &mut self.plan.values[0].store {
            Store::Codes(pixels) => Chunked::new(pixels, layout.len()),
            Store::Real(values) => {
                let (input, shape) = (&self.plan.pixels, self.graph.input());
                let values = Chunked::new(values, layout.len());
                let bytes = Chunked::new(&mut self.bytes, input.example_bytes(shape));
                let pixel = shape.c * input.code_bytes();
                let place = Placement { offset: 0, row_stride: shape.w * pixel, pixel_stride: pixel };
                self.pool.run(n, &|i, _| {
                    let (mut bytes, mut values) = (bytes.get(i), values.get(i));
                    labels.get(i)[0] = fill(i, &mut bytes, place);
                    for (p, codes) in bytes.chunks_exact(pixel).enumerate() {
                        let to = &mut values[layout.offset(p / shape.w, p % shape.w)..][..shape.c];
                        for ((to, q), &zero) in to.iter_mut().zip(input.codes(codes)).zip(&input.zero_point) {
                            *to = f32::from(q) - f32::from(zero);
                        }
                    }
                });
                return;
            }
            Store::Taken => unreachable!("the input stays where it is"),
        };
        let place = Placement { offset: layout.offset(0, 0), row_stride: layout.row(), pixel_stride: layout.cs };
        self.pool.run(n, &|i, _| labels.get(i)[0] = fill(i, &mut pixels.get(i), place));
    }

    /// One update by the gradients of `other`.
    #[cfg(test)]
    pub(crate) fn update_with(&mut self, other: &crate::params::Params, lr: f32) {
        for (own, other) in self.plan.params.list.iter_mut().zip(&other.list) {
            own.grad.clone_from(&other.grad);
        }
        self.plan.params.update(&self.pool, lr);
        self.plan.params.move_average(&self.pool);
    }

    /// The codes that the activation `name` gave in the last forward, `[image][row][column][channel]`, signed ones with
    /// their sign.
    #[cfg(test)]
    pub(crate) fn codes(&self, name: &str) -> Vec<i32> {
        let units = self.plan.stages.iter().filter_map(|stage| match &stage.kind {
            StageKind::Unit(unit) => Some(unit),
            _ => None,
        });
        let unit = units.into_iter().find(|unit| unit.act_name.as_deref() == Some(name)).expect("an activation");
        let value = &self.plan.values[unit.output];
        let (layout, zero) = (value.layout, i32::from(value.source.zero_code()));
        let pixels = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
        let images = (0..self.plan.batch).map(|i| value.store.codes(i, layout.len()));
        images
            .flat_map(|image| {
                pixels.clone().flat_map(|at| image[at..at + layout.c].iter().map(|&q| i32::from(q) - zero))
            })
            .collect()
    }

    /// Tells whether float32 holds the statistics of the last forward.
    fn check_statistics(&self) -> Result<(), TrainError> {
        let mut products = self.plan.stages.iter().flat_map(|stage| plan::products_of(&stage.kind));
        products.try_for_each(|product| product.check_statistics(&self.plan.params, self.steps))
    }

    /// Moves the running statistics towards those of the last forward, by `share` or each norm's momentum.
    fn update_running(&mut self, share: Option<f64>) {
        for product in self.plan.stages.iter().flat_map(|stage| plan::products_of(&stage.kind)) {
            product.update_running(&mut self.plan.params, share);
        }
    }

    /// Moves clip values that follow a maximum.
    fn update_maxima(&mut self) {
        let maxima = &mut self.plan.clip_maxima;
        maxima.fill(0.0);
        for stage in &self.plan.stages {
            let StageKind::Unit(unit) = &stage.kind else { continue };
            if let Activation::Quantized { clip, quant: ActQuant::Relu, .. } = unit.activation {
                // Units that are concatenated share their clip value.
                maxima[clip] = maxima[clip].max(unit.maximum);
            }
        }
        for stage in &self.plan.stages {
            let StageKind::Unit(unit) = &stage.kind else { continue };
            let Activation::Quantized { clip, quant: ActQuant::Relu, .. } = unit.activation else { continue };
            if unit.clip.is_last {
                let alpha = &mut self.plan.params.get_mut(clip).value[0];
                let moved = (1.0 - MAXIMUM_MOMENTUM) * *alpha + MAXIMUM_MOMENTUM * self.plan.clip_maxima[clip];
                *alpha = moved.max(bitpact_core::ALPHA_MIN);
            }
        }
    }
}

impl TrainBackend for CpuBackend {
    fn batch_size(&self) -> usize {
        self.plan.batch
    }

    fn input_shape(&self) -> Shape {
        self.graph.input()
    }

    fn calibrate(&mut self, percentile: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError> {
        let n = self.plan.batch;
        self.fill(n, fill);
        self.plan.forward(self.isa, &self.pool, n, Mode::Calibrate(percentile));
        let mut values = BTreeMap::new();
        for stage in &self.plan.stages {
            let StageKind::Unit(unit) = &stage.kind else { continue };
            if let Activation::Quantized { clip, .. } = unit.activation {
                let param = self.plan.params.get(clip);
                if !param.value[0].is_finite() {
                    let what = "its inputs are not numbers, so it cannot be calibrated".to_owned();
                    return Err(TrainError::Tensor { name: param.name.clone(), what });
                }
                values.insert(param.name.clone(), param.value[0]);
            }
        }
        Ok(values)
    }

    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError> {
        let n = self.plan.batch;
        self.pool.enter(Pass::Images, "");
        self.fill(n, input.fill);
        self.plan.key = input.key;
        self.plan.set_sum_noise(input.sum_noise);
        self.plan.forward(self.isa, &self.pool, n, Mode::Train);
        if let Err(error) = self.check_statistics() {
            self.pool.leave();
            return Err(error);
        }
        self.pool.enter(Pass::Loss, "");
        let layout = self.plan.values[self.plan.output].layout;
        let slab = self.plan.last_slab();
        let mut gradient = std::mem::take(&mut self.plan.slabs[slab]);
        let (mut loss, mut correct) = (0.0, 0);
        let mut dense = std::mem::take(&mut self.dense);
        let [output, output_gradient] = &mut dense;
        for (i, g) in gradient[..n * layout.len()].chunks_exact_mut(layout.len()).enumerate() {
            g.fill(0.0);
            self.plan.write_output(i, output);
            let (l, hit) = crate::loss::loss(output, layout.c, &self.labels, i, &input.loss, output_gradient);
            for (to, from) in g.chunks_exact_mut(layout.cs).zip(output_gradient.chunks_exact(layout.c)) {
                to[..layout.c].copy_from_slice(from);
            }
            loss += l;
            correct += usize::from(hit);
        }
        self.dense = dense;
        self.plan.slabs[slab] = gradient;
        loss /= n as f64;
        if !loss.is_finite() {
            self.pool.leave();
            return Err(TrainError::NotFinite { step: self.steps, loss });
        }
        self.plan.backward(self.isa, &self.pool);
        self.pool.enter(Pass::Optimizer, "");
        if let Err(error) = self.plan.params.check_gradients(self.steps) {
            self.pool.leave();
            return Err(error);
        }
        self.plan.params.update(&self.pool, input.lr);
        self.update_running(None);
        self.update_maxima();
        self.plan.params.move_average(&self.pool);
        self.pool.leave();
        self.steps += 1;
        Ok(StepOutcome { loss, correct })
    }

    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>) {
        assert!(images <= self.plan.batch, "{images} images in a batch of {}", self.plan.batch);
        self.fill(images, fill);
        self.plan.forward(self.isa, &self.pool, images, Mode::Evaluate);
        logits.clear();
        let n = self.dense[0].len();
        logits.resize(images * n, 0.0);
        for (i, output) in logits.chunks_exact_mut(n).enumerate() {
            self.plan.write_output(i, output);
        }
    }

    fn write_statistics(&self, all: &mut Vec<LayerStatistics>) {
        let mut layers = 0;
        for stage in &self.plan.stages {
            let StageKind::Unit(unit) = &stage.kind else { continue };
            let (Activation::Quantized { clip, bits, quant }, Some(name)) = (unit.activation, &unit.act_name) else {
                continue;
            };
            if all.len() == layers {
                all.push(LayerStatistics::default());
            }
            let layer = &mut all[layers];
            layers += 1;
            let counted = unit.counts.levels.iter().sum::<u64>().max(1) as f64;
            layer.name.clone_from(name);
            layer.alpha = self.plan.params.clip(clip);
            layer.alpha_gradient = unit.counts.alpha_gradient;
            layer.clipped = unit.counts.clipped as f64 / unit.counts.elements.max(1) as f64;
            layer.occupancy.clear();
            layer.occupancy.extend(unit.counts.levels.iter().map(|&n| n as f64 / counted));
            layer.zero = layer.occupancy[usize::from(quant.zero_code(bits))];
            if quant == ActQuant::Sign {
                layer.occupancy.remove(1);
            }
            layer.alpha_clamped = self.plan.params.get(clip).clamped;
        }
        all.truncate(layers);
    }

    fn reset_statistics(&mut self) {
        self.plan.params.reset_clamped();
        for stage in &mut self.plan.stages {
            if let StageKind::Unit(unit) = &mut stage.kind {
                (unit.counts.clipped, unit.counts.elements) = (0, 0);
                unit.counts.levels.fill(0);
            }
        }
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.plan.params.tensors()
    }

    fn parameter_mut(&mut self, name: &str) -> Option<(&mut [f32], &[f32])> {
        self.plan.params.trained_mut(name)
    }

    fn optimizer_state(&self) -> OptimizerState {
        self.plan.params.state()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        self.plan.params.load(tensors, state)
    }

    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError> {
        let StepPlan { pixels, batch, params, .. } = &self.plan;
        let (optimizer, threads) = (params.optimizer.clone(), self.pool.threads());
        self.plan = StepPlan::build(&self.graph, plan, pixels, *batch, optimizer, self.gradients, self.isa, threads)?;
        Ok(())
    }

    fn swap_average(&mut self) {
        self.plan.params.swap_average();
    }

    fn reestimate(&mut self, batch: u64, fill: Fill) {
        let n = self.plan.batch;
        self.fill(n, fill);
        self.plan.forward(self.isa, &self.pool, n, Mode::Statistics);
        self.update_running(Some(1.0 / (batch + 1) as f64));
    }

    fn set_profile(&mut self, on: bool) {
        self.pool.set_profile(on);
    }

    fn profile(&self) -> Option<StepTimes> {
        self.pool.times()
    }

    fn work(&self) -> Vec<Work> {
        let products = self.plan.stages.iter().flat_map(|stage| plan::products_of(&stage.kind));
        products.flat_map(|product| product.work(self.plan.batch)).collect()
    }
}
