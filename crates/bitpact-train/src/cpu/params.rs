//! Parameters and running statistics of a network by name, and the update of the former.

use std::collections::{BTreeMap, HashMap};

use bitpact_core::{ALPHA_MIN, WEIGHT_STEP_MIN};
use bitpact_model::Tensor;

use crate::{OptimizerConfig, TrainError};

/// Position of a parameter in [`Params`].
pub(super) type ParamId = usize;

/// What an update does with a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// Trained with this decay.
    Trained { decay: f32 },
    /// A trained clip value.
    Clip,
    /// A trained step of weights: no decay.
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
    momentum: Vec<f32>,
    role: Role,
    /// Steps in which it was held at its smallest value, [`ALPHA_MIN`] or [`WEIGHT_STEP_MIN`].
    pub(super) clamped: u64,
}

#[derive(Debug)]
pub(super) struct Params {
    list: Vec<Param>,
    index: HashMap<String, ParamId>,
    optimizer: OptimizerConfig,
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
                    _ => {
                        let skip = optimizer.no_weight_decay.iter().any(|p| bitpact_graph::name_matches(p, &name));
                        Role::Trained { decay: if skip { 0.0 } else { optimizer.weight_decay } }
                    }
                };
                let n = shape.iter().product();
                let state = if role == Role::Buffer { 0 } else { n };
                let (grad, momentum) = (vec![0.0; state], vec![0.0; state]);
                Param { name, shape, value: vec![0.0; n], grad, momentum, role, clamped: 0 }
            })
            .collect();
        let index = list.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        Self { list, index, optimizer }
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

    pub(super) fn get(&self, id: ParamId) -> &Param {
        &self.list[id]
    }

    /// One step of stochastic gradient descent on everything that is trained; see [`OptimizerConfig`].
    pub(super) fn update(&mut self, lr: f32) {
        let OptimizerConfig { momentum, nesterov, clip_lr_scale, clip_weight_decay, .. } = self.optimizer;
        for p in &mut self.list {
            let (lr, decay) = match p.role {
                Role::Trained { decay } => (lr, decay),
                Role::Clip => (lr * clip_lr_scale, clip_weight_decay),
                Role::Step => (lr, 0.0),
                Role::Buffer => continue,
            };
            for ((w, g), v) in p.value.iter_mut().zip(&p.grad).zip(&mut p.momentum) {
                let d = g + decay * *w;
                *v = momentum * *v + d;
                let direction = if nesterov { d + momentum * *v } else { *v };
                *w -= lr * direction;
            }
            let least = match p.role {
                Role::Clip => ALPHA_MIN,
                Role::Step => WEIGHT_STEP_MIN,
                _ => continue,
            };
            p.clamped += u64::from(p.value.iter().any(|&v| v < least));
            p.value.iter_mut().for_each(|v| *v = v.max(least));
        }
    }

    pub(super) fn reset_clamped(&mut self) {
        self.list.iter_mut().for_each(|p| p.clamped = 0);
    }

    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let tensor = |p: &Param| Tensor { shape: p.shape.clone(), data: p.value.clone() };
        self.list.iter().map(|p| (p.name.clone(), tensor(p))).collect()
    }

    pub(super) fn momentum(&self) -> BTreeMap<String, Tensor> {
        let trained = self.list.iter().filter(|p| p.role != Role::Buffer);
        trained.map(|p| (p.name.clone(), Tensor { shape: p.shape.clone(), data: p.momentum.clone() })).collect()
    }

    pub(super) fn load(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        momentum: Option<&BTreeMap<String, Tensor>>,
    ) -> Result<(), TrainError> {
        let find = |map: &BTreeMap<String, Tensor>, p: &Param, what: &str| -> Result<Vec<f32>, TrainError> {
            let error = |what: String| TrainError::Tensor { name: p.name.clone(), what };
            let tensor = map.get(&p.name).ok_or_else(|| error(format!("{what} is missing")))?;
            if tensor.shape != p.shape || tensor.data.len() != p.value.len() {
                return Err(error(format!("{what} has shape {:?}, expected {:?}", tensor.shape, p.shape)));
            }
            Ok(tensor.data.clone())
        };
        let mut values = Vec::with_capacity(self.list.len());
        let mut momenta = Vec::with_capacity(self.list.len());
        for p in &self.list {
            values.push(find(tensors, p, "the value")?);
            momenta.push(match momentum {
                Some(map) if p.role != Role::Buffer => find(map, p, "the momentum")?,
                _ => vec![0.0; p.momentum.len()],
            });
        }
        for ((p, value), momentum) in self.list.iter_mut().zip(values).zip(momenta) {
            (p.value, p.momentum) = (value, momentum);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(nesterov: bool) -> Params {
        let optimizer = OptimizerConfig {
            momentum: 0.5,
            nesterov,
            weight_decay: 0.25,
            no_weight_decay: vec!["bn*".to_owned(), "*.bias".to_owned()],
            clip_lr_scale: 2.0,
            clip_weight_decay: 0.5,
        };
        let names = ["conv.weight", "conv.bias", "bn.weight", "bn.running_mean", "act.clip_val", "max.clip_val"];
        let shapes = names.map(|name| (name.to_owned(), vec![1])).into();
        let mut params = Params::new(shapes, optimizer, |name| name != "max.clip_val");
        for name in names {
            let p = params.get_mut(params.id(name));
            p.value[0] = 4.0;
            p.grad.fill(1.0);
        }
        params
    }

    /// Two steps of the definition, in numbers that float32 holds exactly.
    #[test]
    fn updates_follow_the_definition() {
        // Decay 0.25: d = 1 + 1 = 2, v = 2; then d = 1 + 0.25 w, v = 0.5 * 2 + d.
        for (nesterov, name, after_one, after_two) in [
            (false, "conv.weight", 3.0, 1.625),
            (false, "conv.bias", 3.5, 2.75),
            (false, "bn.weight", 3.5, 2.75),
            (false, "bn.running_mean", 4.0, 4.0),
            (false, "max.clip_val", 4.0, 4.0),
            // Twice the rate, decay 0.5: d = 1 + 2 = 3.
            (false, "act.clip_val", 1.0, ALPHA_MIN),
            (true, "conv.weight", 2.5, 1.03125),
            (true, "conv.bias", 3.25, 2.375),
        ] {
            let mut params = params(nesterov);
            let id = params.id(name);
            params.update(0.5);
            assert_eq!(params.value(id)[0], after_one, "{name}, Nesterov {nesterov}, one step");
            params.update(0.5);
            assert_eq!(params.value(id)[0], after_two, "{name}, Nesterov {nesterov}, two steps");
            assert_eq!(params.get(id).clamped, u64::from(name == "act.clip_val"));
        }
    }
}
