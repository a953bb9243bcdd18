//! Clip values of activations from what was seen of them.

use std::fmt;
use std::str::FromStr;

/// Bins of a histogram.
const BINS: usize = 4096;
/// Clip values tried by a search, up to the largest value.
const CANDIDATES: usize = 128;

/// How a clip value is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Calibrate {
    /// The largest value.
    Largest,
    /// The value that this percentage of all values does not exceed.
    Percentile(f64),
    /// The least mean squared error of the quantized values.
    Mse,
    /// The least information lost: the Kullback-Leibler divergence of the distribution of codes from that of the values
    /// (Migacz, 8-bit inference with TensorRT, GTC 2017).
    Entropy,
}

impl fmt::Display for Calibrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Calibrate::Largest => f.pad("largest"),
            Calibrate::Percentile(percent) => f.pad(&format!("percentile {percent}")),
            Calibrate::Mse => f.pad("mse"),
            Calibrate::Entropy => f.pad("entropy"),
        }
    }
}

impl FromStr for Calibrate {
    type Err = String;

    /// `largest`, `mse`, `entropy`, or a percentile such as `99.9`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "largest" => Ok(Calibrate::Largest),
            "mse" => Ok(Calibrate::Mse),
            "entropy" => Ok(Calibrate::Entropy),
            number => match number.parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Calibrate::Percentile(percent)),
                _ => Err(format!("`{text}`: expected largest, mse, entropy or a percentile from 0 to 100")),
            },
        }
    }
}

/// How often values were seen: those that are not positive together, the others in 4096 bins of one width from 0 to a
/// power of two. Sums of histograms are those of all their values, in any order.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bins: Vec<u64>,
    /// The bins end at 2^exponent.
    exponent: i32,
    not_positive: u64,
    largest: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], exponent: -64, not_positive: 0, largest: 0.0 }
    }
}

impl Histogram {
    /// Adds values, of which those that are no numbers count as not positive and infinite ones as the largest number.
    pub fn add(&mut self, values: impl Iterator<Item = f32> + Clone) {
        let largest = values.clone().fold(0.0f32, |most, v| if v > most { v } else { most }).min(f32::MAX);
        self.reach(largest);
        let scale = BINS as f64 / 2f64.powi(self.exponent);
        for v in values {
            match v > 0.0 {
                true => self.bins[((f64::from(v) * scale) as usize).min(BINS - 1)] += 1,
                false => self.not_positive += 1,
            }
        }
    }

    /// Adds the values of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        self.reach(other.largest);
        let merged = 1usize << (self.exponent - other.exponent).clamp(0, 60);
        other.bins.iter().enumerate().for_each(|(i, n)| self.bins[i / merged] += n);
        self.not_positive += other.not_positive;
    }

    /// The largest value added, 0 where none was positive.
    pub fn largest(&self) -> f32 {
        self.largest
    }

    /// Values added.
    pub fn count(&self) -> u64 {
        self.not_positive + self.bins.iter().sum::<u64>()
    }

    /// Widens the bins until they hold `largest`.
    fn reach(&mut self, largest: f32) {
        self.largest = self.largest.max(largest);
        while f64::from(self.largest) >= 2f64.powi(self.exponent) {
            let joined: Vec<u64> = self.bins.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
            self.bins[..BINS / 2].copy_from_slice(&joined);
            self.bins[BINS / 2..].fill(0);
            self.exponent += 1;
        }
    }

    fn width(&self) -> f64 {
        2f64.powi(self.exponent) / BINS as f64
    }

    /// The clip value that `rule` chooses for codes from 0 to `q_max` of the positive values; 0 where no value was
    /// positive.
    pub fn clip(&self, rule: Calibrate, q_max: u32) -> f32 {
        if self.largest == 0.0 {
            return 0.0;
        }
        match rule {
            Calibrate::Largest => self.largest,
            Calibrate::Percentile(percent) => self.percentile(percent),
            Calibrate::Mse => self.least(|alpha| self.squared_error(alpha, q_max)),
            Calibrate::Entropy => self.entropy_clip(q_max as usize + 1),
        }
    }

    /// The end of the bin in which `percent` percent of all values, those that are not positive included, are reached.
    fn percentile(&self, percent: f64) -> f32 {
        let wanted = (percent / 100.0).clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = self.not_positive as f64;
        for (i, &n) in self.bins.iter().enumerate() {
            seen += n as f64;
            if seen >= wanted && n > 0 {
                return (((i + 1) as f64 * self.width()) as f32).min(self.largest);
            }
        }
        self.largest
    }

    /// The clip value with the least cost.
    fn least(&self, cost: impl Fn(f64) -> f64) -> f32 {
        let alpha = |i: usize| f64::from(self.largest) * i as f64 / CANDIDATES as f64;
        let costs = (1..=CANDIDATES).map(|i| (cost(alpha(i)), alpha(i)));
        let best = costs.fold((f64::INFINITY, f64::from(self.largest)), |best, c| if c.0 < best.0 { c } else { best });
        best.1 as f32
    }

    /// Sum of squared errors of the values, each taken for the middle of its bin.
    fn squared_error(&self, alpha: f64, q_max: u32) -> f64 {
        let (step, width) = (alpha / f64::from(q_max), self.width());
        let error = |(i, &n): (usize, &u64)| {
            let x = (i as f64 + 0.5) * width;
            n as f64 * (x - (x / step).round().min(f64::from(q_max)) * step).powi(2)
        };
        self.bins.iter().enumerate().filter(|(_, n)| **n > 0).map(error).sum()
    }

    fn entropy_clip(&self, levels: usize) -> f32 {
        let used = ((f64::from(self.largest) / self.width()) as usize + 1).min(BINS);
        let first = levels.min(used);
        let ends = (0..=CANDIDATES).map(|i| first + (used - first) * i / CANDIDATES);
        // The last of equal ones: nothing is clipped for nothing.
        let least = ends.map(|end| (self.divergence(end, used, levels), end));
        let best = least.fold((f64::INFINITY, used), |best, c| if c.0 <= best.0 { c } else { best });
        ((best.1 as f64 * self.width()) as f32).min(self.largest)
    }

    /// KL(P || Q): P the first `end` bins with all beyond in the last of them, Q what `levels` equal parts of the first
    /// `end` bins know of them, each part spread over its bins that are not empty.
    fn divergence(&self, end: usize, used: usize, levels: usize) -> f64 {
        let beyond: u64 = self.bins[end..used].iter().sum();
        let inside: u64 = self.bins[..end].iter().sum();
        let total = (inside + beyond) as f64;
        if inside == 0 {
            return f64::INFINITY;
        }
        let mut sum = 0.0;
        for level in 0..levels {
            let part = level * end / levels..(level + 1) * end / levels;
            let n: u64 = self.bins[part.clone()].iter().sum();
            let filled = self.bins[part.clone()].iter().filter(|&&n| n > 0).count();
            let q = n as f64 / filled.max(1) as f64 / inside as f64;
            for i in part {
                let outliers = if i + 1 == end { beyond } else { 0 };
                let p = (self.bins[i] + outliers) as f64 / total;
                // What the codes say never happens costs what one value in all would.
                let q = if self.bins[i] > 0 { q } else { 1.0 / (total + 1.0) };
                sum += if p > 0.0 { p * (p / q).ln() } else { 0.0 };
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f32]) -> Histogram {
        let mut all = Histogram::default();
        all.add(values.iter().copied());
        all
    }

    /// A million quantiles of the exponential distribution, as a ReLU of Laplace noise gives them.
    fn exponential() -> Histogram {
        of(&(0..1_000_000).map(|i| -(1.0 - (i as f64 + 0.5) / 1e6).ln() as f32).collect::<Vec<_>>())
    }

    #[test]
    fn the_least_squared_error_is_where_its_derivative_is_zero() {
        // Rounding adds (alpha / q_max)^2 / 12 and clipping 2 e^-alpha: alpha / (6 q_max^2) = 2 e^-alpha.
        for (q_max, alpha) in [(15u32, 6.09f32), (3, 3.1)] {
            let found = exponential().clip(Calibrate::Mse, q_max);
            assert!((found - alpha).abs() < 0.15 * alpha, "{found} at {q_max}");
        }
        // Uniform values are not clipped.
        let uniform = of(&(1..=65536).map(|i| i as f32 / 65536.0).collect::<Vec<_>>());
        assert!(uniform.clip(Calibrate::Mse, 255) > 0.98);
        assert_eq!(uniform.clip(Calibrate::Entropy, 15), 1.0);
    }

    #[test]
    fn far_outliers_are_clipped_by_all_but_the_largest() {
        let mut values: Vec<f32> = (1..100_000).map(|i| i as f32 / 100_000.0).collect();
        values.push(50.0);
        let all = of(&values);
        assert_eq!(all.clip(Calibrate::Largest, 15), 50.0);
        for rule in [Calibrate::Percentile(99.9), Calibrate::Mse, Calibrate::Entropy] {
            let clip = all.clip(rule, 15);
            assert!((0.7..3.0).contains(&clip), "{rule}: {clip}");
        }
    }

    #[test]
    fn values_that_are_not_positive_count_in_percentiles_alone() {
        let values: Vec<f32> = (0..1000).map(|i| if i < 500 { -1.0 } else { (i - 499) as f32 }).collect();
        let all = of(&values);
        assert!((all.clip(Calibrate::Percentile(90.0), 15) - 400.0).abs() < 0.2);
        assert_eq!(all.clip(Calibrate::Percentile(100.0), 15), 500.0);
        let odd = of(&[f32::NAN, f32::INFINITY, 0.0, -0.0, f32::NEG_INFINITY]);
        assert_eq!((odd.count(), odd.largest()), (5, f32::MAX));
        for rule in [Calibrate::Largest, Calibrate::Percentile(50.0), Calibrate::Mse, Calibrate::Entropy] {
            assert_eq!((of(&[0.0; 9]).clip(rule, 15), Histogram::default().clip(rule, 15)), (0.0, 0.0));
            assert!(odd.clip(rule, 255).is_finite() && of(&[1e-30]).clip(rule, 255) > 0.0);
        }
    }

    proptest! {
        #[test]
        fn parts_give_what_all_values_give(
            values in proptest::collection::vec(-1.0f32..1e4, 1..200), cut in 0usize..200, power in -20i32..20,
        ) {
            let values: Vec<f32> = values.iter().map(|v| v * 2f32.powi(power)).collect();
            let (a, b) = values.split_at(cut.min(values.len()));
            let mut merged = of(a);
            merged.merge(&of(b));
            let mut added = of(b);
            added.add(a.iter().copied());
            prop_assert_eq!(&merged, &of(&values));
            prop_assert_eq!(added, merged);
        }

        #[test]
        fn percentiles_are_within_a_bin_of_sorted_values(
            mut values in proptest::collection::vec(0.001f32..100.0, 1..300), percent in 0.0f64..100.0,
        ) {
            let clip = of(&values).clip(Calibrate::Percentile(percent), 15);
            values.sort_by(f32::total_cmp);
            let at = ((percent / 100.0 * values.len() as f64).ceil() as usize).max(1) - 1;
            let bin = 2.0 * values[values.len() - 1] / BINS as f32;
            prop_assert!((clip - values[at]).abs() <= bin, "{} {}", clip, values[at]);
        }
    }

    #[test]
    fn rules_have_names() {
        for (text, rule) in [("mse", Calibrate::Mse), ("99.9", Calibrate::Percentile(99.9))] {
            assert_eq!(text.parse(), Ok(rule));
        }
        assert!("101".parse::<Calibrate>().is_err() && "kl".parse::<Calibrate>().is_err());
    }
}
