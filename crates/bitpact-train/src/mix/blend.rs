//! A backend whose searched layers have mixtures of widths for weights.

use std::collections::BTreeMap;

use bitpact_core::quantize_weights;
use bitpact_graph::{Graph, QuantPlan};
use bitpact_model::Tensor;

use super::{MixOptions, Width};
use crate::backend::{Fill, pass_on};
use crate::numbers::{Numbers, Pressure, temperature};
use crate::{LayerStatistics, OptimizerState, StepInput, StepOutcome, TrainBackend, TrainError};

/// One searched layer.
struct Layer {
    name: String,
    /// Name of its weights.
    tensor: String,
    channels: usize,
    /// Where the weights of a transposed convolution lie, by output channel.
    order: Option<Vec<usize>>,
    widths: Vec<Width>,
    numbers: Numbers,
    weights: Vec<f32>,
    /// The weights at every width.
    quantized: Vec<Vec<f32>>,
    blended: Vec<f32>,
}

impl Layer {
    fn quantize(&mut self) {
        let ordered: Vec<f32> = match &self.order {
            None => self.weights.clone(),
            Some(order) => order.iter().map(|&at| self.weights[at]).collect(),
        };
        let per_channel = ordered.len() / self.channels;
        for (width, to) in self.widths.iter().zip(&mut self.quantized) {
            let mut codes = vec![0; ordered.len()];
            let mut scales = vec![0.0; width.spec.scales_len(self.channels)];
            quantize_weights(&width.spec, &ordered, self.channels, &[], &mut codes, &mut scales);
            for (k, &code) in codes.iter().enumerate() {
                let scale = if scales.len() == 1 { scales[0] } else { scales[k / per_channel] };
                to[self.order.as_ref().map_or(k, |order| order[k])] = scale * f32::from(code);
            }
        }
    }

    fn blend(&mut self, shares: &[f64]) {
        self.blended.fill(0.0);
        for (share, quantized) in shares.iter().zip(&self.quantized) {
            let share = *share as f32;
            self.blended.iter_mut().zip(quantized).for_each(|(to, &from)| *to += share * from);
        }
    }
}

/// A backend that trains mixtures beside what `inner` trains.
pub(super) struct Blended {
    inner: Box<dyn TrainBackend>,
    layers: Vec<Layer>,
    budgets: Vec<(f64, f64)>,
    /// What each budget's cost is above it in the first step.
    first_excess: Vec<f64>,
    first_loss: f64,
    rate: f64,
    steps: u64,
    all_steps: u64,
}

impl Blended {
    pub(super) fn new(inner: Box<dyn TrainBackend>, graph: &Graph, options: &MixOptions, all_steps: u64) -> Self {
        let layer = |(name, widths): (&String, &Vec<Width>)| {
            let id = graph.find(name).expect("a layer of the network");
            let n = graph.weight_shape(id).expect("a layer with weights").iter().product();
            let widest = widths.iter().map(|width| width.spec.bits.get()).max().map_or(1.0, f64::from);
            Layer {
                name: name.clone(),
                tensor: format!("{name}.weight"),
                channels: graph.shape(id).c,
                order: graph.weight_order(id),
                numbers: Numbers::new(widths.iter().map(|width| f64::from(width.spec.bits.get()) / widest).collect()),
                quantized: vec![vec![0.0; n]; widths.len()],
                widths: widths.clone(),
                weights: vec![0.0; n],
                blended: vec![0.0; n],
            }
        };
        let layers = options.widths.iter().map(layer).collect();
        let budgets = options.budgets.clone();
        let rate = f64::from(options.rate);
        let mut new =
            Self { inner, layers, budgets, first_excess: Vec::new(), first_loss: 0.0, rate, steps: 0, all_steps };
        new.first_excess = new.excess();
        new
    }

    fn temperature(&self) -> f64 {
        temperature(self.share_of_run())
    }

    fn share_of_run(&self) -> f64 {
        self.steps as f64 / self.all_steps.max(1) as f64
    }

    /// What the cost of the mixtures is above each budget.
    fn excess(&self) -> Vec<f64> {
        let temperature = self.temperature();
        let cost = |k: usize| {
            let of = |layer: &Layer| {
                let shares = layer.numbers.shares(temperature);
                shares.iter().zip(&layer.widths).map(|(share, width)| share * width.costs[k]).sum::<f64>()
            };
            self.layers.iter().map(of).sum::<f64>()
        };
        self.budgets.iter().enumerate().map(|(k, (rest, most))| rest + cost(k) - most).collect()
    }

    /// Weight of each budget's cost in the loss.
    fn pressures(&self) -> Vec<f64> {
        let of = |(excess, first): (f64, &f64)| {
            Pressure::Target(0.0).weight(excess, *first, self.first_loss, self.share_of_run())
        };
        self.excess().into_iter().zip(&self.first_excess).map(of).collect()
    }

    /// Writes weights into the backend: mixtures, or the best width of each layer.
    fn write(&mut self, is_mixed: bool) {
        let temperature = self.temperature();
        for layer in &mut self.layers {
            let weights = if is_mixed {
                let shares = layer.numbers.shares(temperature);
                layer.blend(&shares);
                &layer.blended
            } else {
                &layer.quantized[layer.numbers.best()]
            };
            own(&mut *self.inner, &layer.tensor).0.copy_from_slice(weights);
        }
    }

    /// A step of weights and numbers from the step that the backend has made of the mixtures.
    fn update(&mut self) {
        let (pressures, temperature) = (self.pressures(), self.temperature());
        self.steps += 1;
        for layer in &mut self.layers {
            let (values, gradient) = own(&mut *self.inner, &layer.tensor);
            for ((weight, &new), &before) in layer.weights.iter_mut().zip(&*values).zip(&layer.blended) {
                *weight += new - before;
            }
            let by_share: Vec<f64> = layer
                .quantized
                .iter()
                .zip(&layer.widths)
                .map(|(quantized, width)| {
                    let products = quantized.iter().zip(gradient).map(|(&q, &g)| f64::from(q) * f64::from(g));
                    let cost = pressures.iter().zip(&width.costs).map(|(pressure, cost)| pressure * cost);
                    products.sum::<f64>() + cost.sum::<f64>()
                })
                .collect();
            layer.numbers.step(&by_share, temperature, self.rate);
            layer.quantize();
        }
    }

    /// Names and values of the searched weights.
    pub(super) fn weights(&self) -> impl Iterator<Item = (&String, &Vec<f32>)> {
        self.layers.iter().map(|layer| (&layer.tensor, &layer.weights))
    }

    /// The shares of all widths by the layer's name.
    pub(super) fn shares(&self) -> BTreeMap<String, Vec<f64>> {
        let temperature = self.temperature();
        self.layers.iter().map(|layer| (layer.name.clone(), layer.numbers.shares(temperature))).collect()
    }
}

fn own<'a>(inner: &'a mut dyn TrainBackend, tensor: &str) -> (&'a mut [f32], &'a [f32]) {
    inner.parameter_mut(tensor).expect("weights are trained")
}

impl TrainBackend for Blended {
    pass_on!(inner);

    fn calibrate(&mut self, percentile: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError> {
        self.write(true);
        self.inner.calibrate(percentile, fill)
    }

    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError> {
        self.write(true);
        let outcome = self.inner.step(input)?;
        if self.steps == 0 {
            self.first_loss = outcome.loss;
        }
        self.update();
        Ok(outcome)
    }

    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>) {
        self.write(false);
        self.inner.simulate(images, fill, logits);
    }

    fn write_statistics(&self, all: &mut Vec<LayerStatistics>) {
        self.inner.write_statistics(all);
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.inner.tensors();
        if self.steps == 0 {
            // A run takes up the tensors that it begins with.
            let weights = self.weights().map(|(name, data)| (name.clone(), data.clone()));
            for (name, data) in weights {
                tensors.get_mut(&name).expect("a tensor of the network").data = data;
            }
            return tensors;
        }
        for layer in &self.layers {
            tensors
                .get_mut(&layer.tensor)
                .expect("a tensor of the network")
                .data
                .clone_from(&layer.quantized[layer.numbers.best()]);
        }
        tensors
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        self.inner.load(tensors, state)?;
        for layer in &mut self.layers {
            layer.weights.clone_from(&tensors[&layer.tensor].data);
            layer.quantize();
        }
        Ok(())
    }

    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError> {
        self.inner.replan(plan)
    }

    fn reestimate(&mut self, batch: u64, fill: Fill) {
        self.write(false);
        self.inner.reestimate(batch, fill);
    }
}
