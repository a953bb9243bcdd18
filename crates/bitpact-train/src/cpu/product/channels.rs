//! What a batch norm makes of a product's accumulators, channel by channel.

use bitpact_kernels::norm::Coefficients;

use super::{Path, Product};
use crate::TrainError;
use crate::cpu::totals::Found;
use crate::params::{ParamId, Params};

/// Batch norm's parameters.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct Norm {
    pub(in crate::cpu) gamma: ParamId,
    pub(in crate::cpu) beta: ParamId,
    pub(in crate::cpu) mean: ParamId,
    pub(in crate::cpu) var: ParamId,
    /// Added to the variance.
    pub(in crate::cpu) eps: f64,
    /// Share of a step's statistics in the running ones.
    pub(in crate::cpu) momentum: f64,
}

/// Per-channel numbers of a step, `cs` long, zero in padding channels.
#[derive(Debug, Default)]
pub(in crate::cpu) struct Channels {
    pub(in crate::cpu) a: Vec<f32>,
    pub(in crate::cpu) b: Vec<f32>,
    pub(in crate::cpu) xa: Vec<f32>,
    pub(in crate::cpu) xb: Vec<f32>,
    pub(in crate::cpu) k: [Vec<f32>; 3],
    /// Real value of one accumulator unit: s_x * s_w[c], 1 on the real path.
    pub(super) unit: Vec<f64>,
    /// New running statistics, applied when the step is known to be good.
    running: Vec<(f64, f64)>,
}

impl Channels {
    /// Of `channels` channels, `cs` with those that pad them.
    pub(super) fn new(channels: usize, cs: usize) -> Self {
        let zeros = || vec![0.0; cs];
        Self {
            a: zeros(),
            b: zeros(),
            xa: zeros(),
            xb: zeros(),
            k: [zeros(), zeros(), zeros()],
            unit: vec![1.0; channels],
            running: vec![(0.0, 0.0); channels],
        }
    }
}

impl Product {
    /// Takes the real value of an accumulator unit from the clip value of the codes, which calibration has changed
    /// since the weights were quantized.
    pub(in crate::cpu) fn set_unit(&mut self, params: &Params) {
        if matches!(self.path, Path::Int { .. }) {
            let x_step = f64::from(self.source.step(params));
            for (unit, &s) in self.channels.unit.iter_mut().zip(&self.scales) {
                *unit = x_step * f64::from(s);
            }
        }
    }

    /// Coefficients of a training forward from sums over the batch: per channel the exact or float64 mean and
    /// variance of z over `count` pixels.
    pub(in crate::cpu) fn normalize(&mut self, params: &Params, count: usize, moments: impl Fn(usize) -> (f64, f64)) {
        let Some(norm) = self.norm else { return self.without_norm(params) };
        for c in 0..self.geometry.cout {
            let unit = self.channels.unit[c];
            let (mean, var) = moments(c);
            let inverse = 1.0 / (var * unit * unit + norm.eps).sqrt();
            self.set_channel(params, norm, c, unit * inverse, -mean * unit * inverse);
            let bias = self.bias.map_or(0.0, |b| f64::from(params.value(b)[c]));
            let unbiased = var * count as f64 / count.saturating_sub(1).max(1) as f64;
            self.channels.running[c] = (mean * unit + bias, unbiased * unit * unit);
        }
    }

    /// Coefficients of the evaluation forward, from the running statistics.
    pub(in crate::cpu) fn normalize_running(&mut self, params: &Params) {
        let Some(norm) = self.norm else { return self.without_norm(params) };
        for c in 0..self.geometry.cout {
            let bias = self.bias.map_or(0.0, |b| f64::from(params.value(b)[c]));
            let mean = f64::from(params.value(norm.mean)[c]) - bias;
            let inverse = 1.0 / (f64::from(params.value(norm.var)[c]) + norm.eps).sqrt();
            self.set_channel(params, norm, c, self.channels.unit[c] * inverse, -mean * inverse);
        }
    }

    fn set_channel(&mut self, params: &Params, norm: Norm, c: usize, xa: f64, xb: f64) {
        let (gamma, beta) = (f64::from(params.value(norm.gamma)[c]), f64::from(params.value(norm.beta)[c]));
        let ch = &mut self.channels;
        (ch.xa[c], ch.xb[c]) = (xa as f32, xb as f32);
        (ch.a[c], ch.b[c]) = ((gamma * xa) as f32, (gamma * xb + beta) as f32);
    }

    fn without_norm(&mut self, params: &Params) {
        for c in 0..self.geometry.cout {
            self.channels.a[c] = self.channels.unit[c] as f32;
            self.channels.b[c] = self.bias.map_or(0.0, |b| params.value(b)[c]);
        }
    }

    /// Coefficients of the backward and gradients of norm and bias, from sums over the batch of dL/du and
    /// dL/du * xhat; `count` pixels.
    pub(in crate::cpu) fn backward_coefficients(&mut self, params: &mut Params, count: usize, found: &Found) {
        let n = count as f64;
        let moves = self.norm.filter(|_| !self.is_frozen);
        for c in 0..self.geometry.cout {
            let (sum_g, sum_gx) = found.sums(c);
            let ch = &mut self.channels;
            let (k1, xa, xb) = (f64::from(ch.a[c]), f64::from(ch.xa[c]), f64::from(ch.xb[c]));
            if let Some(norm) = self.norm {
                params.get_mut(norm.gamma).grad[c] = sum_gx as f32;
                params.get_mut(norm.beta).grad[c] = sum_g as f32;
            }
            // What the statistics of the batch take away.
            let (k2, k3) = match moves {
                Some(_) => (-k1 * (sum_gx / n) * xa, -k1 * (sum_g / n + xb * (sum_gx / n))),
                None => (0.0, 0.0),
            };
            if let Some(bias) = self.bias {
                // A batch's norm removes the mean, and with it the bias: its gradient is exactly zero.
                params.get_mut(bias).grad[c] = match (self.norm, self.is_frozen) {
                    (Some(_), false) => 0.0,
                    (Some(_), true) => (sum_g * k1 / ch.unit[c]) as f32,
                    (None, _) => sum_g as f32,
                };
            }
            (ch.k[0][c], ch.k[1][c], ch.k[2][c]) = (k1 as f32, k2 as f32, k3 as f32);
        }
        self.backward.scale(&mut self.channels.k, self.geometry.cout, |c| found.extremes(c));
    }

    pub(in crate::cpu) fn coefficients(&self) -> Coefficients<'_> {
        let ch = &self.channels;
        Coefficients { a: &ch.a, b: &ch.b, xa: &ch.xa, xb: &ch.xb }
    }

    /// Whether float32 holds the step's statistics.
    pub(in crate::cpu) fn check_statistics(&self, params: &Params, step: u64) -> Result<(), TrainError> {
        let Some(norm) = self.norm.filter(|_| !self.is_frozen) else { return Ok(()) };
        self.channels.running.iter().try_for_each(|&(mean, var)| {
            params.check_statistic(step, norm.mean, mean)?;
            params.check_statistic(step, norm.var, var)
        })
    }

    /// Moves the running statistics towards the step's, by `share` or the norm's momentum.
    pub(in crate::cpu) fn update_running(&self, params: &mut Params, share: Option<f64>) {
        let Some(norm) = self.norm.filter(|_| !self.is_frozen || share.is_some()) else { return };
        let momentum = share.unwrap_or(norm.momentum);
        for (c, &(mean, var)) in self.channels.running.iter().enumerate() {
            for (id, new) in [(norm.mean, mean), (norm.var, var)] {
                let value = &mut params.get_mut(id).value[c];
                *value = ((1.0 - momentum) * f64::from(*value) + momentum * new) as f32;
            }
        }
    }
}
