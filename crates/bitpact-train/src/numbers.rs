//! What searches train beside the weights: numbers, their shares, and the cost that presses on them.

/// Adam's constants.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;
/// Temperature of the last step; the first has 1.
const COLDEST: f64 = 0.1;

/// How the cost of what is left weighs in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pressure {
    /// The loss gains `strength * cost / cost of all`.
    Strength(f64),
    /// The loss gains `r l max(0, cost - target)` with `l = first loss / (first cost - target)` (PLiNIO's DUCCIO) and
    /// `r = 10^(4 p - 2)` after the share p of the steps: 1 % at first, all of it in the middle, more where that did
    /// not do. Masks remove no more than the target asks for, those with the smallest alphas. What is left above the
    /// target at the end is removed by the numbers too, the smallest first.
    Target(f64),
}

impl Pressure {
    /// Derivative of what the loss gains by `cost`, of costs that were `first` in the first step of loss `first_loss`,
    /// after the share `done` of all steps.
    pub(crate) fn weight(self, cost: f64, first: f64, first_loss: f64, done: f64) -> f64 {
        match self {
            Self::Strength(strength) => strength / first.max(f64::MIN_POSITIVE),
            Self::Target(target) if cost <= target || first <= target => 0.0,
            Self::Target(target) => 10f64.powf(4.0 * done - 2.0) * first_loss / (first - target),
        }
    }
}

/// Steps of Adam.
#[derive(Debug, Clone)]
pub(crate) struct Adam {
    steps: u64,
    moments: Vec<[f64; 2]>,
}

impl Adam {
    /// For `n` numbers.
    pub(crate) fn new(n: usize) -> Self {
        Self { steps: 0, moments: vec![[0.0; 2]; n] }
    }

    /// Calls `take` with the position of each number and its step at a rate of 1.
    pub(crate) fn step(&mut self, gradient: &[f64], mut take: impl FnMut(usize, f64)) {
        self.steps += 1;
        let rest = BETAS.map(|beta| 1.0 - beta.powi(self.steps.min(1 << 20) as i32));
        for (i, (moments, &g)) in self.moments.iter_mut().zip(gradient).enumerate() {
            moments[0] += (1.0 - BETAS[0]) * (g - moments[0]);
            moments[1] += (1.0 - BETAS[1]) * (g * g - moments[1]);
            take(i, moments[0] / rest[0] / ((moments[1] / rest[1]).sqrt() + EPS));
        }
    }
}

/// Temperature of the shares after the share `done` of all steps: from 1 to 1/10.
pub(crate) fn temperature(done: f64) -> f64 {
    COLDEST.powf(done)
}

/// One number for each of several alternatives, of which one is to stay.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    values: Vec<f64>,
    adam: Adam,
}

impl Numbers {
    pub(crate) fn new(values: Vec<f64>) -> Self {
        Self { adam: Adam::new(values.len()), values }
    }

    /// The softmax of the numbers over a temperature.
    pub(crate) fn shares(&self, temperature: f64) -> Vec<f64> {
        let largest = self.values.iter().copied().fold(f64::MIN, f64::max);
        let powers: Vec<f64> = self.values.iter().map(|a| ((a - largest) / temperature).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    /// The alternative with the largest number, the first of several.
    pub(crate) fn best(&self) -> usize {
        (1..self.values.len()).fold(0, |best, i| if self.values[i] > self.values[best] { i } else { best })
    }

    /// A step against the derivative of the loss by each share.
    pub(crate) fn step(&mut self, by_share: &[f64], temperature: f64, rate: f64) {
        let shares = self.shares(temperature);
        let mean: f64 = shares.iter().zip(by_share).map(|(share, g)| share * g).sum();
        let gradient: Vec<f64> =
            shares.iter().zip(by_share).map(|(share, g)| share * (g - mean) / temperature).collect();
        let values = &mut self.values;
        self.adam.step(&gradient, |i, step| values[i] -= rate * step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_the_gradient_of_the_shares() {
        // Of sum_i share_i c_i, whose derivative by share i is c_i.
        let costs = [3.0, 1.0, 2.0];
        let mut numbers = Numbers::new(vec![0.2, -0.1, 0.4]);
        let value = |values: &[f64]| -> f64 {
            let shares = Numbers::new(values.to_vec()).shares(0.5);
            shares.iter().zip(costs).map(|(share, cost)| share * cost).sum()
        };
        let start = numbers.values.clone();
        numbers.step(&costs, 0.5, 0.1);
        for i in 0..3 {
            let at = |by: f64| {
                value(&start.iter().enumerate().map(|(k, v)| v + if k == i { by } else { 0.0 }).collect::<Vec<_>>())
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            // The first step of Adam is the sign of the gradient.
            assert!((numbers.values[i] - start[i] + 0.1 * slope.signum()).abs() < 1e-5, "{i}: {slope}");
        }
        (0..200).for_each(|_| numbers.step(&costs, 0.5, 0.1));
        assert_eq!(numbers.best(), 1);
    }

    #[test]
    fn a_target_presses_only_from_above_and_more_in_the_course_of_a_run() {
        let press = |cost: f64, done: f64| Pressure::Target(10.0).weight(cost, 30.0, 2.0, done);
        assert_eq!([press(10.0, 0.5), press(9.0, 1.0)], [0.0, 0.0]);
        assert!((press(11.0, 0.5) - 0.1).abs() < 1e-12 && (press(11.0, 0.0) - 0.001).abs() < 1e-12);
        assert_eq!(Pressure::Strength(3.0).weight(11.0, 30.0, 2.0, 0.3), 0.1);
    }
}
