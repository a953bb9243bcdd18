//! Activations: clipped and quantized, or in a float network a plain ReLU.

use bitpact_core::{ActQuant, act_backward, act_backward_channel, act_code, channel_q_max, lsq_alpha_scale};
use bitpact_graph::{ActPlan, NodeId, Op};

use super::value::Value;
use super::{ALPHA_MIN, MAXIMUM_MOMENTUM, Mode, ReferenceBackend};
use crate::LayerStatistics;
use crate::backend::{CALIBRATION_VALUES, SAMPLED, mean};
use crate::params::ParamId;

/// Statistics of an activation since the last reset.
#[derive(Debug, Clone, Default)]
pub(super) struct ActState {
    /// Gradient of alpha in the last step.
    alpha_gradient: f32,
    /// Largest input of the last step, at least 0.
    maximum: f32,
    clipped: u64,
    elements: u64,
    levels: Vec<u64>,
}

impl ActState {
    pub(super) fn reset(&mut self) {
        (self.clipped, self.elements) = (0, 0);
        self.levels.clear();
    }
}

/// The clip value of an activation, shared with others where they are concatenated, and what follows from it.
struct Clip {
    param: ParamId,
    alpha: f32,
    inverse_scale: f32,
    q_max: f32,
}

impl ReferenceBackend {
    pub(super) fn act(&mut self, id: NodeId, mode: Mode) -> Value {
        let x = self.real(self.input(id));
        let Some(plan) = self.act_plan(id) else {
            let relu = |x: f32| if x <= 0.0 { 0.0 } else { x };
            let is_signed = self.graph.node(id).op == (Op::Act { signed: true });
            return Value::Real(if is_signed { x } else { x.into_iter().map(relu).collect() });
        };
        if let Mode::Calibrate(percentile) = mode {
            self.calibrate_act(id, plan, &x, percentile);
        }
        let ActPlan { bits, quant, .. } = plan;
        let Clip { param, alpha, inverse_scale, q_max } = self.clip(id, plan);
        let alphas = self.params.value(param);
        let code = |(i, &x): (usize, &f32)| {
            let limit = channel_q_max(alphas[i % alphas.len()], inverse_scale, q_max);
            act_code(quant, x, inverse_scale, limit)
        };
        let codes: Vec<i32> = x.iter().enumerate().map(code).collect();
        if mode == Mode::Train {
            let (zero, image) = (i32::from(quant.zero_code(bits)), codes.len() / self.images);
            let state = &mut self.acts[id];
            state.maximum = x.iter().fold(0.0, |most, &x| if x > most { x } else { most });
            state.levels.resize((quant.q_max(bits) + zero + 1) as usize, 0);
            for sampled in codes.chunks_exact(image).step_by(SAMPLED) {
                sampled.iter().for_each(|&q| state.levels[(q + zero) as usize] += 1);
            }
        }
        let padding = i32::from(quant.padding_code(bits)) - i32::from(quant.zero_code(bits));
        Value::Codes { codes, scale: quant.scale(alpha, bits), padding }
    }

    pub(super) fn act_backward(&mut self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let x = self.real(self.input(id));
        let Some(plan) = self.act_plan(id) else {
            let passes = |x: f32| x > 0.0 || self.graph.node(id).op == (Op::Act { signed: true });
            return vec![x.iter().zip(g).map(|(&x, &g)| if passes(x) { g } else { 0.0 }).collect()];
        };
        let (quant, shape) = (plan.quant, self.graph.shape(id));
        let Clip { param, alpha, inverse_scale, q_max } = self.clip(id, plan);
        let alphas = self.params.value(param).to_vec();
        let is_layer = self.params.is_scalar(param);
        let (mut dx, mut clipped) = (Vec::with_capacity(g.len()), 0);
        // Of the clip values, and of the step.
        let (mut dalphas, mut dstep) = (vec![0f64; alphas.len()], 0f64);
        for (i, (&x, &g)) in x.iter().zip(g).enumerate() {
            let c = i % alphas.len();
            clipped += u64::from(x >= alphas[c] || (quant.is_signed() && x <= -alphas[c]));
            if is_layer {
                let grad = act_backward(quant, g, x, alpha, inverse_scale, q_max);
                dx.push(grad.dx);
                dalphas[0] += f64::from(grad.dalpha);
            } else {
                let grad = act_backward_channel(quant, g, x, alphas[c], inverse_scale, q_max);
                dx.push(grad.dx);
                dalphas[c] += f64::from(grad.dalpha);
                dstep += f64::from(grad.dlargest);
            }
        }
        // The largest clip value sets the step; where several are, they share.
        let largest = alphas.iter().filter(|&&a| a == alpha).count() as f64;
        for (dalpha, &a) in dalphas.iter_mut().zip(&alphas) {
            *dalpha += if a == alpha { dstep / largest } else { 0.0 };
        }
        let state = &mut self.acts[id];
        state.alpha_gradient = dalphas.iter().sum::<f64>() as f32;
        state.clipped += clipped;
        state.elements += g.len() as u64;
        if quant.is_learned() {
            let scale = if quant == ActQuant::Lsq { lsq_alpha_scale(shape.elements(), q_max) } else { 1.0 };
            let grad = &mut self.params.get_mut(param).grad;
            grad.iter_mut().zip(dalphas).for_each(|(sum, d)| *sum += d as f32 * scale);
        }
        vec![dx]
    }

    /// Clip values that are not learned follow the running maximum of their inputs.
    pub(super) fn update_maxima(&mut self) {
        for owner in self.nodes(Op::is_act) {
            if self.owners[owner] != owner || self.act_plan(owner).is_none_or(|plan| plan.quant != ActQuant::Relu) {
                continue;
            }
            let sharing = (0..self.owners.len()).filter(|&id| self.owners[id] == owner);
            let maximum = sharing.map(|id| self.acts[id].maximum).fold(0.0, f32::max);
            let clip = self.param(owner, "clip_val");
            let alpha = &mut self.params.get_mut(clip).value[0];
            *alpha = ((1.0 - MAXIMUM_MOMENTUM) * *alpha + MAXIMUM_MOMENTUM * maximum).max(ALPHA_MIN);
        }
    }

    /// Sets the clip value to the percentile of the inputs, for signs to their mean size, of those that share it to the
    /// largest.
    fn calibrate_act(&mut self, id: NodeId, plan: ActPlan, x: &[f32], percentile: f64) {
        let image = self.graph.shape(id).elements();
        let images = self.images.min(CALIBRATION_VALUES / image).max(1);
        let magnitude = |&x: &f32| if plan.quant.is_signed() { x.abs() } else { x };
        let mut all: Vec<f32> = x[..images * image].iter().map(magnitude).collect();
        let alpha = if plan.quant == ActQuant::Sign {
            mean(&all)
        } else {
            all.sort_by(f32::total_cmp);
            all[((all.len() - 1) as f64 * (percentile / 100.0).clamp(0.0, 1.0)).round() as usize]
        };
        let (alpha, is_first) = (alpha.max(ALPHA_MIN), self.owners[id] == id);
        let param = self.clip(id, plan).param;
        for value in &mut self.params.get_mut(param).value {
            *value = if is_first { alpha } else { value.max(alpha) };
        }
    }

    pub(super) fn act_statistics(&self, id: NodeId) -> Option<LayerStatistics> {
        let plan = self.act_plan(id)?;
        let (state, clip) = (&self.acts[id], self.clip(id, plan));
        let counted = state.levels.iter().sum::<u64>().max(1) as f64;
        let levels = (plan.quant.q_max(plan.bits) as usize) + usize::from(plan.quant.zero_code(plan.bits)) + 1;
        let mut occupancy: Vec<f64> =
            (0..levels).map(|level| state.levels.get(level).map_or(0.0, |&n| n as f64 / counted)).collect();
        let zero = occupancy[usize::from(plan.quant.zero_code(plan.bits))];
        if plan.quant == ActQuant::Sign {
            // No activation gives the code between -1 and +1.
            occupancy.remove(1);
        }
        Some(LayerStatistics {
            name: self.graph.node(id).name.clone(),
            alpha: clip.alpha,
            alpha_gradient: state.alpha_gradient,
            clipped: state.clipped as f64 / state.elements.max(1) as f64,
            zero,
            occupancy,
            alpha_clamped: self.params.get(clip.param).clamped,
        })
    }

    fn act_plan(&self, id: NodeId) -> Option<ActPlan> {
        self.plan.activations.get(&self.graph.node(id).name).copied()
    }

    fn clip(&self, id: NodeId, plan: ActPlan) -> Clip {
        let param = self.param(self.owners[id], "clip_val");
        let alpha = self.params.clip(param);
        let (inverse_scale, q_max) = (plan.quant.inverse_scale(alpha, plan.bits), plan.quant.q_max(plan.bits) as f32);
        Clip { param, alpha, inverse_scale, q_max }
    }
}
