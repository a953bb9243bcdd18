//! Steps of groups by search: a narrower range than that of the weights, where it loses less.

use crate::{Grid, GroupParams};

/// Ranges tried: 1, 0.95 .. 0.2 of the group's.
const RANGES: usize = 17;

impl Grid {
    /// Step and zero for the weights of a group that make `sum of importance_i (w_i - q_i)^2` least, q the rounded
    /// weights; with the mean squares of the inputs as `importance`, that is the error of the output for independent
    /// inputs. Those of [`Grid::fit`] and of ranges of 0.95, 0.9 .. 0.2 of its are tried, on asymmetric grids with the
    /// zeros one below and above as well.
    ///
    /// # Panics
    /// Where there is not one importance a weight.
    pub fn search(self, weights: &[f32], importance: &[f32]) -> GroupParams {
        assert_eq!(weights.len(), importance.len(), "an importance a weight");
        let mut best = self.fit(weights);
        let mut least = self.loss(best, weights, importance, f32::INFINITY);
        let max_code = f32::from(self.width().max_code());
        let (min, max) = weights.iter().fold((0.0f32, 0.0f32), |(lo, hi), &w| (lo.min(w), hi.max(w)));
        let range = if self.symmetric() { 2.0 * max.max(-min) } else { max - min };
        for i in 0..RANGES {
            let step = Grid::storable(range * (1.0 - i as f32 / 20.0) / max_code);
            let zero = match self.symmetric() {
                true => f32::from(self.width().middle()),
                false => (-min / range.max(f32::MIN_POSITIVE) * max_code).round_ties_even(),
            };
            let around: &[f32] = if self.symmetric() { &[0.0] } else { &[0.0, -1.0, 1.0] };
            for by in around {
                let params = GroupParams { step, zero: (zero + by).clamp(0.0, max_code) as u8 };
                let loss = self.loss(params, weights, importance, least);
                if loss < least {
                    (best, least) = (params, loss);
                }
            }
        }
        best
    }

    /// `sum of importance_i (w_i - q_i)^2`, or some number of at least `enough` where it reaches that.
    fn loss(self, params: GroupParams, weights: &[f32], importance: &[f32], enough: f32) -> f32 {
        let step = params.step.to_f32();
        let zero = f32::from(params.zero);
        let (inverse, low, high) = (1.0 / step, -zero, f32::from(self.width().max_code()) - zero);
        let mut sum = 0.0;
        for (weights, importance) in weights.chunks(16).zip(importance.chunks(16)) {
            for (w, importance) in weights.iter().zip(importance) {
                // Between the outermost codes a number plus 1.5 * 2^23 has no fraction left, as rounding to even does.
                const WHOLE: f32 = 12_582_912.0;
                let code = ((w * inverse).clamp(low, high) + WHOLE) - WHOLE;
                let d = w - code * step;
                sum += importance * d * d;
            }
            if sum >= enough {
                break;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::normal;
    use crate::{Group, Width};

    fn loss(grid: Grid, params: GroupParams, weights: &[f32], importance: &[f32]) -> f32 {
        let error = |(w, h): (&f32, &f32)| h * (w - params.value(grid.code(params, *w))).powi(2);
        weights.iter().zip(importance).map(error).sum()
    }

    #[test]
    fn the_loss_is_never_above_that_of_the_whole_range_and_heeds_importance() {
        let m = normal(40, 64, 5);
        let even = [1.0; 64];
        for (width, symmetric) in
            [(Width::Bits(2), false), (Width::Bits(3), false), (Width::Bits(4), true), (Width::Ternary, true)]
        {
            let grid = Grid::new(width, Group::Of(64), symmetric).unwrap();
            let (mut plain, mut searched) = (0.0, 0.0);
            for r in 0..40 {
                let weights = m.row(r);
                let mut hot = even;
                hot[r] = 1e4;
                for importance in [&even, &hot] {
                    let (whole, narrow) = (grid.fit(weights), grid.search(weights, importance));
                    let (before, after) =
                        (loss(grid, whole, weights, importance), loss(grid, narrow, weights, importance));
                    assert!(after <= before * 1.0001, "{width}: {after} above {before}");
                    (plain, searched) = (plain + before, searched + after);
                }
                let hot = grid.search(weights, &hot);
                let of_one = |p: GroupParams| (weights[r] - p.value(grid.code(p, weights[r]))).abs();
                assert!(of_one(hot) <= of_one(grid.search(weights, &even)) + 1e-3, "{width}");
            }
            assert!(searched < 0.8 * plain, "{width}: {searched} of {plain}");
        }
    }

    #[test]
    fn zeros_huge_weights_and_inputs_that_are_always_zero_have_finite_steps() {
        for symmetric in [true, false] {
            let grid = Grid::new(Width::Bits(3), Group::Row, symmetric).unwrap();
            for (weights, importance) in
                [([0.0; 3], [1.0; 3]), ([1e30, -1e30, 2.0], [1.0; 3]), ([0.1, -0.5, 0.2], [0.0; 3])]
            {
                let params = grid.search(&weights, &importance);
                assert!(params.step.is_finite() && params.step > half::f16::ZERO && params.zero <= 7);
            }
            assert_eq!(grid.search(&[0.1, -0.5, 0.2], &[0.0; 3]), grid.fit(&[0.1, -0.5, 0.2]));
        }
    }
}
