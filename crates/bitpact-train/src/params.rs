//! Parameters and running statistics of a network by name.

use std::collections::{BTreeMap, HashMap};

use bitpact_graph::name_matches;
use bitpact_kernels::Chunked;
use bitpact_model::Tensor;

use crate::{OptimizerConfig, OptimizerKind, OptimizerState, TrainError};

/// Position of a parameter in [`Params`].
pub(super) type ParamId = usize;

/// What a tensor is to an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// Trained.
    Weight,
    /// A trained clip value.
    Clip,
    /// A trained step of weights.
    Step,
    /// Not trained: running statistics, and clip values that follow a maximum.
    Buffer,
}

#[derive(Debug)]
pub(super) struct Param {
    pub(super) name: String,
    shape: Vec<usize>,
    pub(super) value: Vec<f32>,
    pub(super) grad: Vec<f32>,
    /// Momentum, of Adam the first moment.
    pub(super) momentum: Vec<f32>,
    /// Adam's second moment; empty for SGD.
    pub(super) second_moment: Vec<f32>,
    /// Empty where no average is kept.
    pub(super) average: Vec<f32>,
    pub(super) role: Role,
    /// Learning rate, as a factor of the step's.
    pub(super) lr_scale: f32,
    pub(super) decay: f32,
    /// Steps in which it was held at its smallest value.
    pub(super) clamped: u64,
}

#[derive(Debug)]
pub(super) struct Params {
    pub(super) list: Vec<Param>,
    /// Ids, those of the largest tensors first.
    pub(super) largest_first: Vec<ParamId>,
    /// Squared norm of every gradient, where something asks for it.
    pub(super) squares: Vec<f64>,
    index: HashMap<String, ParamId>,
    pub(super) optimizer: OptimizerConfig,
    /// Updates, where something counts them.
    pub(super) steps: u64,
}

impl Params {
    /// `roles` says for a name whether it is trained; names and shapes come from `shapes`.
    pub(super) fn new(
        shapes: BTreeMap<String, Vec<usize>>,
        optimizer: OptimizerConfig,
        trained_clip: impl Fn(&str) -> bool,
    ) -> Self {
        let list: Vec<Param> = shapes
            .into_iter()
            .map(|(name, shape)| {
                let role = match name.rsplit('.').next() {
                    Some("running_mean" | "running_var") => Role::Buffer,
                    Some("clip_val") if trained_clip(&name) => Role::Clip,
                    Some("clip_val") => Role::Buffer,
                    Some("weight_step") => Role::Step,
                    _ => Role::Weight,
                };
                let n = shape.iter().product();
                let zeros = |needed: bool| vec![0.0; if needed { n } else { 0 }];
                let trained = role != Role::Buffer;
                let (lr_scale, decay) = rates(&optimizer, role, &name);
                Param {
                    value: zeros(true),
                    grad: zeros(trained),
                    momentum: zeros(trained),
                    second_moment: zeros(trained && optimizer.kind != OptimizerKind::Sgd),
                    average: zeros(optimizer.ema_decay.is_some()),
                    name,
                    shape,
                    role,
                    lr_scale,
                    decay,
                    clamped: 0,
                }
            })
            .collect();
        let index = list.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        let mut largest_first: Vec<ParamId> = (0..list.len()).collect();
        largest_first.sort_by_key(|&id| std::cmp::Reverse(list[id].value.len()));
        let squares = vec![0.0; list.len()];
        Self { list, largest_first, squares, index, optimizer, steps: 0 }
    }

    /// The parameter called `name`, which the model's own list of names holds.
    pub(super) fn id(&self, name: &str) -> ParamId {
        *self.index.get(name).unwrap_or_else(|| panic!("no parameter called {name}"))
    }

    pub(super) fn value(&self, id: ParamId) -> &[f32] {
        &self.list[id].value
    }

    /// The clip value that sets the step: the largest where channels have their own.
    pub(super) fn clip(&self, id: ParamId) -> f32 {
        bitpact_core::largest_clip(&self.list[id].value)
    }

    /// Whether it is one number and not a list, be that of one.
    pub(super) fn is_scalar(&self, id: ParamId) -> bool {
        self.list[id].shape.is_empty()
    }

    pub(super) fn get_mut(&mut self, id: ParamId) -> &mut Param {
        &mut self.list[id]
    }

    /// The values of a trained parameter with its gradient.
    pub(super) fn trained_mut(&mut self, name: &str) -> Option<(&mut [f32], &[f32])> {
        let p = &mut self.list[*self.index.get(name)?];
        (p.role != Role::Buffer).then_some((&mut p.value, &p.grad))
    }

    /// Every parameter, to be borrowed by tasks; the index is its id.
    pub(super) fn chunked(&mut self) -> Chunked<'_, Param> {
        Chunked::new(&mut self.list, 1)
    }

    /// Number of parameters.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, id: ParamId) -> &Param {
        &self.list[id]
    }

    pub(super) fn reset_clamped(&mut self) {
        self.list.iter_mut().for_each(|p| p.clamped = 0);
    }

    /// The first gradient that float32 does not hold, as an error of step `step`: no update may see it.
    pub(super) fn check_gradients(&self, step: u64) -> Result<(), TrainError> {
        // The bits of |g| are ordered as the numbers are, with what is no number at their end.
        let largest = |p: &&Param| p.grad.iter().fold(0, |most: u32, g| most.max(g.abs().to_bits()));
        match self.list.iter().find(|p| largest(p) >= f32::INFINITY.to_bits()) {
            None => Ok(()),
            Some(p) => Err(TrainError::Overflow { step, what: format!("the gradient of `{}`", p.name) }),
        }
    }

    /// An error of step `step` where the batch's statistic of the tensor `id` is not a number of float32.
    pub(super) fn check_statistic(&self, step: u64, id: ParamId, new: f64) -> Result<(), TrainError> {
        match (new as f32).is_finite() {
            true => Ok(()),
            false => Err(TrainError::Overflow { step, what: format!("`{}`, which is {new:.3e},", self.list[id].name) }),
        }
    }

    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let tensor = |p: &Param| Tensor { shape: p.shape.clone(), data: p.value.clone() };
        self.list.iter().map(|p| (p.name.clone(), tensor(p))).collect()
    }

    pub(super) fn state(&self) -> OptimizerState {
        let tensors = |of: fn(&Param) -> &Vec<f32>, all: bool| -> BTreeMap<String, Tensor> {
            let list = self.list.iter().filter(|p| all || p.role != Role::Buffer);
            list.map(|p| (p.name.clone(), Tensor { shape: p.shape.clone(), data: of(p).clone() })).collect()
        };
        let second_moment = match self.optimizer.kind {
            OptimizerKind::Sgd => BTreeMap::new(),
            OptimizerKind::Adam | OptimizerKind::AdamW => tensors(|p| &p.second_moment, false),
        };
        let average = self.optimizer.ema_decay.map(|_| tensors(|p| &p.average, true));
        OptimizerState { steps: self.steps, momentum: tensors(|p| &p.momentum, false), second_moment, average }
    }

    pub(super) fn load(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        state: Option<&OptimizerState>,
    ) -> Result<(), TrainError> {
        let find = |map: &BTreeMap<String, Tensor>, p: &Param, what: &str| -> Result<Vec<f32>, TrainError> {
            let error = |what: String| TrainError::Tensor { name: p.name.clone(), what };
            let tensor = map.get(&p.name).ok_or_else(|| error(format!("{what} is missing")))?;
            if tensor.shape != p.shape || tensor.data.len() != p.value.len() {
                return Err(error(format!("{what} has shape {:?}, expected {:?}", tensor.shape, p.shape)));
            }
            Ok(tensor.data.clone())
        };
        let mut loaded = Vec::with_capacity(self.list.len());
        let nothing = BTreeMap::new();
        for p in &self.list {
            let value = find(tensors, p, "the value")?;
            let momentum = match state {
                Some(state) if p.role != Role::Buffer => find(&state.momentum, p, "the momentum")?,
                _ => vec![0.0; p.momentum.len()],
            };
            let second_moment = match state {
                Some(state) if !p.second_moment.is_empty() => find(&state.second_moment, p, "the second moment")?,
                _ => vec![0.0; p.second_moment.len()],
            };
            let average = match state {
                _ if self.optimizer.ema_decay.is_none() => Vec::new(),
                None => value.clone(),
                Some(state) => find(state.average.as_ref().unwrap_or(&nothing), p, "the average")?,
            };
            loaded.push((value, momentum, second_moment, average));
        }
        for (p, loaded) in self.list.iter_mut().zip(loaded) {
            (p.value, p.momentum, p.second_moment, p.average) = loaded;
        }
        self.steps = state.map_or(0, |state| state.steps);
        Ok(())
    }
}

/// Learning rate, as a factor of the step's, and decay of the tensor `name`.
fn rates(optimizer: &OptimizerConfig, role: Role, name: &str) -> (f32, f32) {
    let (mut lr_scale, mut decay) = match role {
        Role::Weight if optimizer.no_weight_decay.iter().any(|p| name_matches(p, name)) => (1.0, 0.0),
        Role::Weight => (1.0, optimizer.weight_decay),
        Role::Clip => (optimizer.clip_lr_scale, optimizer.clip_weight_decay),
        Role::Step | Role::Buffer => (1.0, 0.0),
    };
    let mut groups: Vec<_> = optimizer.groups.iter().filter(|group| name_matches(&group.pattern, name)).collect();
    groups.sort_by_key(|group| group.pattern.len());
    for group in groups {
        lr_scale = group.lr_scale.unwrap_or(lr_scale);
        decay = group.weight_decay.unwrap_or(decay);
    }
    (lr_scale, decay)
}
