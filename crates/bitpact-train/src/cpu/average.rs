//! The exponential moving average of all tensors.

use super::params::Params;

impl Params {
    /// Moves the average towards the tensors as they are after the update; see [`crate::OptimizerConfig`].
    pub(super) fn move_average(&mut self) {
        let Some(decay) = self.optimizer.ema_decay else { return };
        let t = self.steps as f64;
        let rest = (1.0 - decay.min((1.0 + t) / (10.0 + t))) as f32;
        for p in &mut self.list {
            for (a, w) in p.average.iter_mut().zip(&p.value) {
                *a += rest * (w - *a);
            }
        }
    }

    /// Exchanges tensors and averages.
    pub(super) fn swap_average(&mut self) {
        if self.optimizer.ema_decay.is_some() {
            self.list.iter_mut().for_each(|p| std::mem::swap(&mut p.value, &mut p.average));
        }
    }
}
