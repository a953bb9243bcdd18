//! The exponential moving average of all tensors.

use bitpact_kernels::Chunked;

use super::profile::Pool;
use crate::params::Params;

impl Params {
    /// Moves the average towards the tensors as they are after the update; see [`crate::OptimizerConfig`].
    pub(super) fn move_average(&mut self, pool: &Pool) {
        let Some(decay) = self.optimizer.ema_decay else { return };
        let t = self.steps as f64;
        let rest = (1.0 - decay.min((1.0 + t) / (10.0 + t))) as f32;
        let (list, order) = (Chunked::new(&mut self.list, 1), &self.largest_first);
        pool.run(order.len(), &|task, _| {
            let p = &mut list.get(order[task])[0];
            for (a, w) in p.average.iter_mut().zip(&p.value) {
                *a += rest * (w - *a);
            }
        });
    }

    /// Exchanges tensors and averages.
    pub(super) fn swap_average(&mut self) {
        if self.optimizer.ema_decay.is_some() {
            self.list.iter_mut().for_each(|p| std::mem::swap(&mut p.value, &mut p.average));
        }
    }
}
