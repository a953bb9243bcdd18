//! The update of parameters, as [`crate::OptimizerConfig`] states it.

use bitpact_core::{ALPHA_MIN, WEIGHT_STEP_MIN};

use crate::OptimizerKind;
use crate::params::{Params, Role};

/// One update of everything that is trained.
pub(super) fn update(params: &mut Params, lr: f32) {
    let o = params.optimizer.clone();
    params.steps += u64::from(o.counts_steps());
    let t = params.steps as i32;
    let square = |g: &f32| f64::from(*g) * f64::from(*g);
    let norm = params.list.iter().flat_map(|p| &p.grad).map(square).sum::<f64>().sqrt();
    let scale = o.max_grad_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0)) as f32;
    for p in params.list.iter_mut().filter(|p| p.role != Role::Buffer) {
        let lr = lr * p.lr_scale;
        for i in 0..p.value.len() {
            let (w, g) = (&mut p.value[i], p.grad[i] * scale);
            if o.kind == OptimizerKind::Sgd {
                let d = g + p.decay * *w;
                let v = &mut p.momentum[i];
                *v = o.momentum * *v + d;
                *w -= lr * if o.nesterov { d + o.momentum * *v } else { *v };
                continue;
            }
            let mut d = g;
            if o.kind == OptimizerKind::AdamW {
                *w *= 1.0 - lr * p.decay;
            } else {
                d += p.decay * *w;
            }
            let [b1, b2] = o.betas;
            let (m, v) = (&mut p.momentum[i], &mut p.second_moment[i]);
            *m += (1.0 - b1) as f32 * (d - *m);
            *v = b2 as f32 * *v + (1.0 - b2) as f32 * d * d;
            let (step, root) = ((f64::from(lr) / (1.0 - b1.powi(t))) as f32, (1.0 - b2.powi(t)).sqrt() as f32);
            *w -= step * (*m / (v.sqrt() / root + o.eps));
        }
        let least = match p.role {
            Role::Clip => ALPHA_MIN,
            Role::Step => WEIGHT_STEP_MIN,
            Role::Weight | Role::Buffer => continue,
        };
        p.clamped += u64::from(p.value.iter().any(|&v| v < least));
        p.value.iter_mut().for_each(|v| *v = v.max(least));
    }
}

/// Moves the average of every tensor towards it.
pub(super) fn move_average(params: &mut Params) {
    let Some(decay) = params.optimizer.ema_decay else { return };
    let t = params.steps as f64;
    let rest = (1.0 - decay.min((1.0 + t) / (10.0 + t))) as f32;
    for p in &mut params.list {
        p.average.iter_mut().zip(&p.value).for_each(|(a, w)| *a += rest * (w - *a));
    }
}
