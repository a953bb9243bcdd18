//! Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 1).

use bitpact_graph::{BatchNorm, NodeId, Op};

use super::value::Value;
use super::{Mode, ReferenceBackend};
use crate::TrainError;

/// A channel: `xhat = xa z + xb`, `y = a z + b`, for sums z of a layer or real numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    a: f32,
    b: f32,
    xa: f32,
    xb: f32,
    /// Mean and unbiased variance of the batch in real units.
    statistics: (f64, f64),
}

impl ReferenceBackend {
    pub(super) fn norm(&mut self, id: NodeId, mode: Mode) -> Value {
        let [gamma, beta, mean, var] =
            ["weight", "bias", "running_mean", "running_var"].map(|tensor| self.params.value(self.param(id, tensor)));
        let (input, c) = (self.input(id), self.graph.shape(id).c);
        let z = self.normalized(input);
        let eps = self.batch_norm(id).added();
        let count = z.len() / c;
        let channel = |i: usize| {
            let (unit, bias, is_exact) = match input {
                Value::Sums { unit, bias, is_exact, .. } => (unit[i], f64::from(bias[i]), *is_exact),
                _ => (1.0, 0.0, false),
            };
            let (mean, var, statistics) = if mode == Mode::Evaluate {
                (f64::from(mean[i]) - bias, f64::from(var[i]), (0.0, 0.0))
            } else {
                let (mean, var) = moments(&z, self.images, i, c, is_exact);
                let unbiased = var * count as f64 / count.saturating_sub(1).max(1) as f64;
                (mean * unit, var * unit * unit, (mean * unit + bias, unbiased * unit * unit))
            };
            let inverse = 1.0 / (var + eps).sqrt();
            let (xa, xb) = (unit * inverse, -mean * inverse);
            let (gamma, beta) = (f64::from(gamma[i]), f64::from(beta[i]));
            let [a, b] = [gamma * xa, gamma * xb + beta];
            Channel { a: a as f32, b: b as f32, xa: xa as f32, xb: xb as f32, statistics }
        };
        let channels: Vec<Channel> = (0..c).map(channel).collect();
        let y = |(i, &z): (usize, &f64)| {
            let Channel { a, b, .. } = channels[i % c];
            self.disturb_norm(id, i, b, self.multiply_add(z as f32, a, b))
        };
        let y = z.iter().enumerate().map(y).collect();
        self.channels[id] = channels;
        Value::Real(y)
    }

    /// dL/dz; with g = dL/dy and means over the batch, `dz = a (g - mean(g) - xhat mean(g xhat))`.
    pub(super) fn norm_backward(&mut self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let z = self.normalized(self.input(id));
        let (c, mut gradient) = (self.graph.shape(id).c, vec![0.0; g.len()]);
        let [gamma, beta] = ["weight", "bias"].map(|tensor| self.param(id, tensor));
        for i in 0..c {
            let [a, xa, xb] = {
                let k = &self.channels[id][i];
                [k.a, k.xa, k.xb].map(f64::from)
            };
            let xhat = |at: usize| self.sum(id, at, [xa * z[at], xb]);
            let elements = || (i..g.len()).step_by(c);
            let sum_g: f64 = elements().map(|at| f64::from(g[at])).sum();
            let sum_gx: f64 = elements().map(|at| f64::from(g[at]) * xhat(at)).sum();
            let n = (g.len() / c) as f64;
            for at in elements() {
                let dz = self.sum(id, at, [a * f64::from(g[at]), -a * (sum_g / n), -a * xhat(at) * (sum_gx / n)]);
                gradient[at] = dz as f32;
            }
            self.params.get_mut(gamma).grad[i] = sum_gx as f32;
            self.params.get_mut(beta).grad[i] = sum_g as f32;
        }
        vec![gradient]
    }

    /// Whether float32 holds the statistics of the last forward.
    pub(super) fn check_statistics(&self) -> Result<(), TrainError> {
        for id in self.nodes(Op::is_norm) {
            let [mean, var] = ["running_mean", "running_var"].map(|tensor| self.param(id, tensor));
            for channel in &self.channels[id] {
                self.params.check_statistic(self.steps, mean, channel.statistics.0)?;
                self.params.check_statistic(self.steps, var, channel.statistics.1)?;
            }
        }
        Ok(())
    }

    /// Moves running statistics towards those of the last forward, by `share` or each norm's momentum.
    pub(super) fn update_running(&mut self, share: Option<f64>) {
        for id in self.nodes(Op::is_norm) {
            let momentum = share.unwrap_or(self.batch_norm(id).momentum);
            let [mean, var] = ["running_mean", "running_var"].map(|tensor| self.param(id, tensor));
            for (i, channel) in self.channels[id].iter().enumerate() {
                for (param, new) in [(mean, channel.statistics.0), (var, channel.statistics.1)] {
                    let value = &mut self.params.get_mut(param).value[i];
                    *value = ((1.0 - momentum) * f64::from(*value) + momentum * new) as f32;
                }
            }
        }
    }

    fn batch_norm(&self, id: NodeId) -> BatchNorm {
        match self.graph.node(id).op {
            Op::BatchNorm(norm) => norm,
            _ => unreachable!("a batch norm"),
        }
    }

    /// Numbers that a norm reads: sums as they are, else real numbers.
    fn normalized(&self, value: &Value) -> Vec<f64> {
        match value {
            Value::Sums { sums, .. } => sums.clone(),
            _ => self.real(value).into_iter().map(f64::from).collect(),
        }
    }
}

/// Mean and biased variance of channel `i` of `c` over the batch: of integers exact but for the last division; of real
/// numbers in float64, images summed apart and then in their order.
fn moments(z: &[f64], images: usize, i: usize, c: usize, is_exact: bool) -> (f64, f64) {
    let (per_image, n) = (z.len() / images, (z.len() / c) as f64);
    if is_exact {
        let integers = || z[i..].iter().step_by(c).map(|&z| z as i128);
        let (sum, square): (i128, i128) = (integers().sum(), integers().map(|z| z * z).sum());
        let spread = (z.len() / c) as i128 * square - sum * sum;
        return (sum as f64 / n, spread as f64 / (n * n));
    }
    let of_images = |f: fn(f64) -> f64| -> f64 {
        z.chunks_exact(per_image).map(|image| image[i..].iter().step_by(c).map(|&z| f(z)).sum::<f64>()).sum()
    };
    let mean = of_images(|z| z) / n;
    (mean, (of_images(|z| z * z) / n - mean * mean).max(0.0))
}
