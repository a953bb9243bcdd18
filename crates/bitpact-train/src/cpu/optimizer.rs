//! The update of parameters; [`crate::OptimizerConfig`] has the formulas.

use bitpact_core::{ALPHA_MIN, WEIGHT_STEP_MIN};
use bitpact_kernels::Chunked;

use super::profile::Pool;
use crate::OptimizerKind;
use crate::params::{Param, Params, Role};

impl Params {
    /// One update of everything that is trained, tensors in parallel.
    pub(super) fn update(&mut self, pool: &Pool, lr: f32) {
        self.steps += u64::from(self.optimizer.counts_steps());
        let scale = self.gradient_scale(pool);
        let o = &self.optimizer;
        let (beta1, beta2) = (o.betas[0], o.betas[1]);
        let remaining = [1.0 - power(beta1, self.steps), 1.0 - power(beta2, self.steps)];
        let (list, order) = (Chunked::new(&mut self.list, 1), &self.largest_first);
        pool.run(order.len(), &|task, _| {
            let p = &mut list.get(order[task])[0];
            if p.role == Role::Buffer {
                return;
            }
            let lr = lr * p.lr_scale;
            match o.kind {
                OptimizerKind::Sgd => sgd(p, lr, scale, o.momentum, o.nesterov),
                OptimizerKind::Adam | OptimizerKind::AdamW => {
                    let decoupled = o.kind == OptimizerKind::AdamW;
                    if decoupled {
                        let kept = 1.0 - lr * p.decay;
                        p.value.iter_mut().for_each(|w| *w *= kept);
                    }
                    let decay = if decoupled { 0.0 } else { p.decay };
                    let step = (f64::from(lr) / remaining[0]) as f32;
                    let root = remaining[1].sqrt() as f32;
                    let (fresh1, beta2, fresh2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
                    let (values, grads) = (&mut p.value, &p.grad);
                    let moments = p.momentum.iter_mut().zip(&mut p.second_moment);
                    for ((w, g), (m, v)) in values.iter_mut().zip(grads).zip(moments) {
                        let d = g * scale + decay * *w;
                        *m += fresh1 * (d - *m);
                        *v = beta2 * *v + fresh2 * d * d;
                        *w -= step * (*m / (v.sqrt() / root + o.eps));
                    }
                }
            }
            p.hold();
        });
    }

    /// Factor of all gradients that keeps their norm within bounds.
    fn gradient_scale(&mut self, pool: &Pool) -> f32 {
        let Some(most) = self.optimizer.max_grad_norm else { return 1.0 };
        let (list, order) = (&self.list, &self.largest_first);
        let squares = Chunked::new(&mut self.squares, 1);
        pool.run(order.len(), &|task, _| {
            // Eight sums side by side, in a fixed order.
            let mut sums = [0f64; 8];
            for eight in list[order[task]].grad.chunks(8) {
                sums.iter_mut().zip(eight).for_each(|(sum, &g)| *sum += f64::from(g) * f64::from(g));
            }
            squares.get(order[task])[0] = sums.iter().sum();
        });
        drop(squares);
        (most / (self.squares.iter().sum::<f64>().sqrt() + 1e-6)).min(1.0) as f32
    }
}

fn sgd(p: &mut Param, lr: f32, scale: f32, momentum: f32, nesterov: bool) {
    for ((w, g), v) in p.value.iter_mut().zip(&p.grad).zip(&mut p.momentum) {
        let d = g * scale + p.decay * *w;
        *v = momentum * *v + d;
        let direction = if nesterov { d + momentum * *v } else { *v };
        *w -= lr * direction;
    }
}

impl Param {
    /// Holds clip values and steps at their smallest value.
    fn hold(&mut self) {
        let least = match self.role {
            Role::Clip => ALPHA_MIN,
            Role::Step => WEIGHT_STEP_MIN,
            Role::Weight | Role::Buffer => return,
        };
        self.clamped += u64::from(self.value.iter().any(|&v| v < least));
        self.value.iter_mut().for_each(|v| *v = v.max(least));
    }
}

/// `base^n`, by squaring: the same bits everywhere.
fn power(base: f64, n: u64) -> f64 {
    let (mut result, mut square, mut n) = (1.0, base, n);
    while n > 0 {
        if n & 1 == 1 {
            result *= square;
        }
        square *= square;
        n >>= 1;
    }
    result
}

#[cfg(test)]
mod tests;
