//! Errors that a test gives to numbers, as if they were rounded to float32, to learn how much roundings move a result.
//! Elsewhere there are none.

use bitpact_graph::NodeId;

use super::ReferenceBackend;
use super::product::Moving;

#[cfg(not(test))]
impl ReferenceBackend {
    /// Gives relative errors of up to 2^-22 to gradients of node `id`.
    pub(super) fn disturb(&self, _id: NodeId, _numbers: &mut [f32]) {}

    /// The sum of `terms`, such an error in each; element `i` of node `id`.
    pub(super) fn sum<const N: usize>(&self, _id: NodeId, _i: usize, terms: [f64; N]) -> f64 {
        terms.into_iter().sum()
    }

    /// Gives errors to the sums of a layer that are as large as those of its products.
    pub(super) fn disturb_sums(&self, _id: NodeId, _window: &Moving, _x: &[f32], _w: &[f32], _sums: &mut [f64]) {}

    /// Gives an error to `y = a z + b` where z has one.
    pub(super) fn disturb_norm(&self, _id: NodeId, _i: usize, _b: f32, y: f32) -> f32 {
        y
    }
}

#[cfg(test)]
#[derive(Default)]
pub(super) struct Noise {
    /// Random key of all errors.
    pub(super) key: Option<bitpact_core::rng::Key>,
    /// Which nodes give sums of real numbers, rounded as they go.
    pub(super) inexact: Vec<bool>,
}

#[cfg(test)]
impl ReferenceBackend {
    pub(super) fn disturb(&self, id: NodeId, numbers: &mut [f32]) {
        numbers.iter_mut().enumerate().for_each(|(i, x)| *x *= 1.0 + self.error(id, i) as f32);
    }

    pub(super) fn sum<const N: usize>(&self, id: NodeId, i: usize, terms: [f64; N]) -> f64 {
        terms.into_iter().enumerate().map(|(k, term)| term * (1.0 + self.error(id, i + (k << 32)))).sum()
    }

    pub(super) fn disturb_sums(&self, id: NodeId, window: &Moving, x: &[f32], w: &[f32], sums: &mut [f64]) {
        if self.noise.key.is_some() && self.noise.inexact[id] {
            let mut sizes = vec![0f64; sums.len()];
            window.each_product(self.images, |y, x_at, w_at| {
                sizes[y] += x_at.map_or(0.0, |at| f64::from(x[at] * w[w_at]).abs());
            });
            sums.iter_mut().zip(sizes).enumerate().for_each(|(i, (sum, size))| *sum += size * self.error(id, i));
        }
    }

    pub(super) fn disturb_norm(&self, id: NodeId, i: usize, b: f32, y: f32) -> f32 {
        let size = (y - b).abs() + b.abs();
        if self.noise.key.is_some() && self.noise.inexact[id] { y + size * self.error(id, i) as f32 } else { y }
    }

    fn error(&self, id: NodeId, i: usize) -> f64 {
        let uniform = |key: bitpact_core::rng::Key| f64::from(2.0 * key.at(id as u64).uniform(i as u64) - 1.0);
        self.noise.key.map_or(0.0, uniform) / f64::from(1 << 22)
    }
}
