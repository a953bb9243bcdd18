//! A backend whose choices compute mixtures of their alternatives.

use std::collections::BTreeMap;

use bitpact_graph::{Graph, QuantPlan};
use bitpact_model::Tensor;

use super::{BlockOptions, Pick};
use crate::backend::{Fill, pass_on};
use crate::numbers::{Numbers, Pressure, temperature};
use crate::{LayerStatistics, OptimizerState, StepInput, StepOutcome, TrainBackend, TrainError};

/// The weight or the bias of the batch norm that an alternative ends with.
struct Part {
    tensor: String,
    /// As trained, without a share.
    values: Vec<f32>,
    /// As the step has them, times the share.
    scaled: Vec<f32>,
}

struct Alternative {
    norm: String,
    cost: f64,
    parts: [Part; 2],
}

struct Choice {
    name: String,
    alternatives: Vec<Alternative>,
    numbers: Numbers,
}

/// A backend that trains shares of alternatives beside what `inner` trains.
pub(super) struct Supernet {
    inner: Box<dyn TrainBackend>,
    choices: Vec<Choice>,
    /// Cost of the layers that are in no alternative.
    rest: f64,
    pressure: Pressure,
    rate: f64,
    /// Cost of the mixture before the first step.
    first_cost: f64,
    first_loss: f64,
    steps: u64,
    all_steps: u64,
}

impl Supernet {
    pub(super) fn new(inner: Box<dyn TrainBackend>, graph: &Graph, options: &BlockOptions, all_steps: u64) -> Self {
        let cost = |id: &usize| options.costs.get(&graph.node(*id).name).copied().unwrap_or(0.0);
        let mut rest: f64 = (0..graph.nodes().len()).map(|id| cost(&id)).sum();
        let mut choice = |choice: &bitpact_graph::Choice| {
            let mut alternative = |one: &bitpact_graph::Alternative| {
                let own = one.nodes.iter().map(cost).sum();
                rest -= own;
                let norm = graph.node(one.norm).name.clone();
                let channels = graph.shape(one.norm).c;
                let part = |tensor: &str| Part {
                    tensor: format!("{norm}.{tensor}"),
                    values: vec![0.0; channels],
                    scaled: vec![0.0; channels],
                };
                Alternative { cost: own, parts: [part("weight"), part("bias")], norm: norm.clone() }
            };
            let alternatives: Vec<Alternative> = choice.alternatives.iter().map(&mut alternative).collect();
            let numbers = Numbers::new(vec![0.0; alternatives.len()]);
            Choice { name: graph.node(choice.node).name.clone(), alternatives, numbers }
        };
        let choices: Vec<Choice> = graph.choices().iter().map(&mut choice).collect();
        let mut new = Self {
            inner,
            choices,
            rest: rest.max(0.0),
            pressure: options.pressure,
            rate: f64::from(options.rate),
            first_cost: 0.0,
            first_loss: 0.0,
            steps: 0,
            all_steps,
        };
        new.first_cost = new.mixed_cost();
        new
    }

    pub(super) fn has_choices(&self) -> bool {
        !self.choices.is_empty()
    }

    /// Cost with alternative `taken[i]` of choice i.
    pub(super) fn cost_of(&self, taken: &[usize]) -> f64 {
        let own = self.choices.iter().zip(taken).map(|(choice, &taken)| choice.alternatives[taken].cost);
        self.rest + own.sum::<f64>()
    }

    /// Cost with the cheapest alternatives.
    pub(super) fn least(&self) -> f64 {
        self.extreme(f64::min, f64::INFINITY)
    }

    /// Cost with the most expensive alternatives.
    pub(super) fn most(&self) -> f64 {
        self.extreme(f64::max, 0.0)
    }

    fn extreme(&self, of: fn(f64, f64) -> f64, start: f64) -> f64 {
        let own = |choice: &Choice| choice.alternatives.iter().map(|one| one.cost).fold(start, of);
        self.rest + self.choices.iter().map(own).sum::<f64>()
    }

    fn done(&self) -> f64 {
        self.steps as f64 / self.all_steps.max(1) as f64
    }

    /// Cost of the alternatives in their shares.
    fn mixed_cost(&self) -> f64 {
        let temperature = temperature(self.done());
        let own = |choice: &Choice| {
            let shares = choice.numbers.shares(temperature);
            shares.iter().zip(&choice.alternatives).map(|(share, one)| share * one.cost).sum::<f64>()
        };
        self.rest + self.choices.iter().map(own).sum::<f64>()
    }

    /// The alternatives with the largest numbers, and cheaper ones as far as a cost of `most` asks for.
    pub(super) fn taken(&self, most: f64) -> Vec<usize> {
        let mut taken: Vec<usize> = self.choices.iter().map(|choice| choice.numbers.best()).collect();
        let shares: Vec<Vec<f64>> =
            self.choices.iter().map(|choice| choice.numbers.shares(temperature(self.done()))).collect();
        while self.cost_of(&taken) > most {
            let mut best: Option<(f64, usize, usize)> = None;
            for (i, choice) in self.choices.iter().enumerate() {
                let (own, now) = (&choice.alternatives, taken[i]);
                for other in (0..own.len()).filter(|&other| own[other].cost < own[now].cost) {
                    let lost = (shares[i][now] / shares[i][other].max(f64::MIN_POSITIVE)).ln();
                    let ratio = lost / (own[now].cost - own[other].cost);
                    if best.is_none_or(|(least, ..)| ratio < least) {
                        best = Some((ratio, i, other));
                    }
                }
            }
            let Some((_, i, other)) = best else { break };
            taken[i] = other;
        }
        taken
    }

    pub(super) fn picks(&self, graph: &Graph, taken: &[usize]) -> Vec<Pick> {
        debug_assert_eq!(graph.choices().len(), taken.len());
        let pick = |(choice, &taken): (&Choice, &usize)| Pick {
            name: choice.name.clone(),
            alternatives: choice.alternatives.iter().map(|one| one.norm.clone()).collect(),
            shares: choice.numbers.shares(temperature(self.done())),
            taken,
        };
        self.choices.iter().zip(taken).map(pick).collect()
    }

    /// Writes the batch norms of all alternatives times their shares, or times 1 and 0.
    fn write(&mut self, is_mixed: bool) {
        let temperature = temperature(self.done());
        for choice in &mut self.choices {
            let shares = match is_mixed {
                true => choice.numbers.shares(temperature),
                false => one_hot(choice),
            };
            for (one, share) in choice.alternatives.iter_mut().zip(shares) {
                for part in &mut one.parts {
                    let to = part.scaled.iter_mut().zip(&part.values);
                    to.for_each(|(to, value)| *to = share as f32 * value);
                    own(&mut *self.inner, &part.tensor).0.copy_from_slice(&part.scaled);
                }
            }
        }
    }

    /// A step of batch norms and numbers from the step that the backend has made of the mixtures.
    fn update(&mut self) {
        let temperature = temperature(self.done());
        let weight = self.pressure.weight(self.mixed_cost(), self.first_cost, self.first_loss, self.done());
        self.steps += 1;
        for choice in &mut self.choices {
            let shares = choice.numbers.shares(temperature);
            let mut by_share = Vec::with_capacity(shares.len());
            for (one, share) in choice.alternatives.iter_mut().zip(shares) {
                let mut slope = weight * one.cost;
                for part in &mut one.parts {
                    let (now, gradient) = own(&mut *self.inner, &part.tensor);
                    let products = part.values.iter().zip(gradient).map(|(&v, &g)| f64::from(v) * f64::from(g));
                    slope += products.sum::<f64>();
                    // The derivative by a value is the share times that by the scaled value.
                    for ((value, &now), &before) in part.values.iter_mut().zip(&*now).zip(&part.scaled) {
                        *value += share as f32 * (now - before);
                    }
                }
                by_share.push(slope);
            }
            choice.numbers.step(&by_share, temperature, self.rate);
        }
    }

    /// All tensors, the batch norms of the alternatives as trained.
    pub(super) fn whole_tensors(&self) -> BTreeMap<String, Tensor> {
        self.tensors_with(|_| None)
    }

    /// All tensors, with the factors that `factors` gives for the batch norms of a choice.
    fn tensors_with(&self, factors: impl Fn(&Choice) -> Option<Vec<f64>>) -> BTreeMap<String, Tensor> {
        let mut tensors = self.inner.tensors();
        for choice in &self.choices {
            let factors = factors(choice);
            for (i, one) in choice.alternatives.iter().enumerate() {
                let factor = factors.as_ref().map_or(1.0, |factors| factors[i]) as f32;
                for part in &one.parts {
                    let to = &mut tensors.get_mut(&part.tensor).expect("a tensor of the network").data;
                    *to = part.values.iter().map(|value| factor * value).collect();
                }
            }
        }
        tensors
    }
}

/// 1 for the alternative with the largest number, 0 for the others.
fn one_hot(choice: &Choice) -> Vec<f64> {
    let best = choice.numbers.best();
    (0..choice.alternatives.len()).map(|i| f64::from(u8::from(i == best))).collect()
}

fn own<'a>(inner: &'a mut dyn TrainBackend, tensor: &str) -> (&'a mut [f32], &'a [f32]) {
    inner.parameter_mut(tensor).expect("batch norms are trained")
}

impl TrainBackend for Supernet {
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
        // A run takes up the tensors that it begins with.
        if self.steps == 0 { self.whole_tensors() } else { self.tensors_with(|choice| Some(one_hot(choice))) }
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        self.inner.load(tensors, state)?;
        for part in self.choices.iter_mut().flat_map(|choice| &mut choice.alternatives).flat_map(|one| &mut one.parts) {
            part.values.clone_from(&tensors[&part.tensor].data);
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
