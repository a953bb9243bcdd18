//! A backend whose steps also train masks.

use std::collections::BTreeMap;

use bitpact_graph::{ChannelGroups, Graph, NodeId, Op, QuantPlan, Site};
use bitpact_model::Tensor;

use super::taps::{Kernel, TapMasks};
use super::{Pressure, PruneOptions, THRESHOLD, cut};
use crate::backend::{Fill, pass_on};
use crate::numbers::Adam;
use crate::{LayerStatistics, OptimizerState, StepInput, StepOutcome, TrainBackend, TrainError};

/// The weights of a layer as a function of the groups that stay.
struct Layer {
    node: NodeId,
    price: f64,
    /// Share of its taps that stay.
    taps: f64,
    /// Weights between one input channel and one output channel, divided by the groups of the convolution.
    per_pair: f64,
    /// Input channels that always stay, and how many each group has; a depthwise layer has one for each output.
    inputs: (f64, BTreeMap<usize, f64>),
    outputs: (f64, BTreeMap<usize, f64>),
}

/// Channels of a node that always stay, and those of each group.
fn channels(groups: &ChannelGroups, id: NodeId) -> (f64, BTreeMap<usize, f64>) {
    let (mut kept, mut own) = (0.0, BTreeMap::new());
    for group in groups.node(id) {
        match group {
            None => kept += 1.0,
            Some(group) => *own.entry(*group).or_insert(0.0) += 1.0,
        }
    }
    (kept, own)
}

impl Layer {
    /// The layers of `graph` that have a price.
    fn all(graph: &Graph, groups: &ChannelGroups, prices: &BTreeMap<String, f64>) -> Vec<Self> {
        let of = |(id, node): (NodeId, &bitpact_graph::Node)| {
            let (shape, price) = (graph.weight_shape(id)?, *prices.get(&node.name)?);
            let from = graph.input_shape(id);
            let window = match node.op {
                Op::Linear { .. } => from.h * from.w,
                _ => shape[2..].iter().product(),
            };
            let convolution_groups = node.op.groups();
            let outputs = channels(groups, id);
            let is_depthwise = convolution_groups > 1 && convolution_groups == from.c;
            let (inputs, per_pair) = if is_depthwise {
                ((1.0, BTreeMap::new()), window as f64)
            } else {
                (channels(groups, node.inputs[0]), window as f64 / convolution_groups as f64)
            };
            Some(Self { node: id, price, taps: 1.0, per_pair, inputs, outputs })
        };
        graph.nodes().iter().enumerate().filter_map(of).collect()
    }

    fn left((kept, own): &(f64, BTreeMap<usize, f64>), stays: &[bool]) -> f64 {
        kept + own.iter().filter(|(group, _)| stays[**group]).map(|(_, n)| n).sum::<f64>()
    }

    fn cost(&self, stays: &[bool]) -> f64 {
        self.taps * self.all_taps(stays)
    }

    /// Cost with all taps.
    fn all_taps(&self, stays: &[bool]) -> f64 {
        self.price * self.per_pair * Self::left(&self.inputs, stays) * Self::left(&self.outputs, stays)
    }

    /// Adds `factor` times the derivative of the cost by every group's mask.
    fn add_gradient(&self, stays: &[bool], factor: f64, gradient: &mut [f64]) {
        let unit = factor * self.price * self.per_pair * self.taps;
        let (inputs, outputs) = (Self::left(&self.inputs, stays), Self::left(&self.outputs, stays));
        self.inputs.1.iter().for_each(|(&group, n)| gradient[group] += unit * n * outputs);
        self.outputs.1.iter().for_each(|(&group, n)| gradient[group] += unit * n * inputs);
    }
}

/// A backend that trains masks of channels beside what `inner` trains.
pub(super) struct Masked {
    inner: Box<dyn TrainBackend>,
    graph: Graph,
    groups: ChannelGroups,
    layers: Vec<Layer>,
    /// Cost of all channels.
    whole: f64,
    pressure: Pressure,
    rate: f32,
    steps: u64,
    all_steps: u64,
    first_loss: f64,
    alphas: Vec<f32>,
    adam: Adam,
    stays: Vec<bool>,
    kernels: Vec<TapMasks>,
    /// Values of every site of every group, as they are without a mask.
    values: Vec<Vec<Vec<f32>>>,
}

impl Masked {
    pub(super) fn new(
        inner: Box<dyn TrainBackend>,
        graph: &Graph,
        groups: ChannelGroups,
        kernels: Vec<Kernel>,
        options: &PruneOptions,
        all_steps: u64,
    ) -> Self {
        let n = groups.len();
        let layers = Layer::all(graph, &groups, &options.prices);
        Self {
            whole: layers.iter().map(|layer| layer.cost(&vec![true; n])).sum(),
            layers,
            inner,
            graph: graph.clone(),
            groups,
            pressure: options.pressure,
            rate: options.rate,
            steps: 0,
            all_steps,
            first_loss: 0.0,
            alphas: vec![1.0; n],
            adam: Adam::new(n),
            stays: vec![true; n],
            kernels: kernels.into_iter().map(|kernel| TapMasks::new(graph, kernel)).collect(),
            values: vec![Vec::new(); n],
        }
    }

    /// The kernels with the taps that stay.
    pub(super) fn kernels(&self) -> Vec<Kernel> {
        self.kernels.iter().map(|masks| masks.kernel.clone()).collect()
    }

    pub(super) fn groups(&self) -> &ChannelGroups {
        &self.groups
    }

    pub(super) fn alphas(&self) -> &[f32] {
        &self.alphas
    }

    pub(super) fn stays(&self) -> Vec<bool> {
        self.stays.clone()
    }

    /// Values and gradient of the tensor of a site.
    fn site<'a>(inner: &'a mut dyn TrainBackend, site: &Site) -> (&'a mut [f32], &'a [f32]) {
        inner.parameter_mut(&site.tensor).expect("weights, biases and batch norms are trained")
    }

    fn cost(&self, stays: &[bool]) -> f64 {
        self.layers.iter().map(|layer| layer.cost(stays)).sum()
    }

    /// Derivative of the loss by every group's mask: the sum of value times gradient over its sites.
    fn loss_gradient(&mut self) -> Vec<f64> {
        let mut gradient = vec![0.0; self.groups.len()];
        for (group, sum) in gradient.iter_mut().enumerate() {
            for (site, values) in self.groups.sites(group).iter().zip(&self.values[group]) {
                let (_, own) = Self::site(&mut *self.inner, site);
                let products =
                    site.elements.iter().zip(values).map(|(&at, &value)| f64::from(value) * f64::from(own[at]));
                *sum += products.sum::<f64>();
            }
        }
        gradient
    }

    /// A step of the alphas, and the masks that they say.
    fn update(&mut self) {
        let mut gradient = self.loss_gradient();
        let done = self.steps as f64 / self.all_steps.max(1) as f64;
        let weight = self.pressure.weight(self.cost(&self.stays), self.whole, self.first_loss, done);
        self.layers.iter().for_each(|layer| layer.add_gradient(&self.stays, weight, &mut gradient));
        self.update_kernels(weight);
        self.steps += 1;
        let (alphas, rate) = (&mut self.alphas, self.rate);
        self.adam.step(&gradient, |i, step| alphas[i] = (alphas[i] - rate * step as f32).clamp(0.0, 1.0));
        let mut stays: Vec<bool> = self.alphas.iter().map(|&alpha| alpha > THRESHOLD).collect();
        cut::revive(&self.graph, &self.groups, &self.alphas, &mut stays);
        if let Pressure::Target(target) = self.pressure {
            self.fill_up(&mut stays, target);
        }
        self.put(stays);
    }

    /// A step of the masks of taps, where cost has the derivative `weight`.
    fn update_kernels(&mut self, weight: f64) {
        for masks in &mut self.kernels {
            let layer = self.layers.iter_mut().find(|layer| layer.node == masks.kernel.node);
            let taps = masks.kernel.all_taps() as f64;
            let price = layer.as_ref().map_or(0.0, |layer| weight * layer.all_taps(&self.stays) / taps);
            masks.update(&mut *self.inner, self.rate, price);
            masks.put(&mut *self.inner);
            if let Some(layer) = layer {
                layer.taps = masks.kernel.count() as f64 / taps;
            }
        }
    }

    /// Lets groups below the threshold stay, those with the largest alphas first, as far as the target has room: alphas
    /// that fall together remove no more than it asks for.
    fn fill_up(&self, stays: &mut [bool], target: f64) {
        if self.cost(stays) >= target {
            return;
        }
        let mut order: Vec<usize> = (0..stays.len()).filter(|&group| !stays[group]).collect();
        order.sort_by(|&a, &b| self.alphas[b].total_cmp(&self.alphas[a]));
        for group in order {
            stays[group] = true;
            stays[group] = self.cost(stays) <= target;
        }
    }

    /// Takes the values of what stayed, as the step left them, and writes those that the masks `stays` leave.
    fn put(&mut self, stays: Vec<bool>) {
        for (group, &now) in stays.iter().enumerate() {
            let before = self.stays[group];
            for (site, values) in self.groups.sites(group).iter().zip(&mut self.values[group]) {
                let (own, _) = Self::site(&mut *self.inner, site);
                for (&at, value) in site.elements.iter().zip(values) {
                    if before {
                        *value = own[at];
                    }
                    own[at] = if now { *value } else { 0.0 };
                }
            }
        }
        self.stays = stays;
    }
}

impl TrainBackend for Masked {
    pass_on!(inner);

    fn calibrate(&mut self, percentile: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError> {
        self.inner.calibrate(percentile, fill)
    }

    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError> {
        let outcome = self.inner.step(input)?;
        if self.steps == 0 {
            self.first_loss = outcome.loss;
        }
        self.update();
        Ok(outcome)
    }

    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>) {
        self.inner.simulate(images, fill, logits);
    }

    fn write_statistics(&self, all: &mut Vec<LayerStatistics>) {
        self.inner.write_statistics(all);
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.inner.tensors()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        self.inner.load(tensors, state)?;
        for (group, all) in self.values.iter_mut().enumerate() {
            let read = |site: &Site| site.elements.iter().map(|&at| tensors[&site.tensor].data[at]).collect();
            *all = self.groups.sites(group).iter().map(read).collect();
        }
        self.put(self.stays.clone());
        for masks in &mut self.kernels {
            masks.load(&tensors[masks.tensor()].data);
            masks.put(&mut *self.inner);
        }
        Ok(())
    }

    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError> {
        self.inner.replan(plan)
    }

    fn reestimate(&mut self, batch: u64, fill: Fill) {
        self.inner.reestimate(batch, fill);
    }
}
