//! Rotary positions (arXiv 2104.09864) in their half-split form: element i turns with element i + width / 2.

use std::f64::consts::PI;

use crate::{Config, RopeScaling};

/// Cosines and sines of a range of positions.
#[derive(Clone, Debug)]
pub struct Rotations {
    half: usize,
    /// `(cos, sin)` of position after position.
    turns: Vec<(f32, f32)>,
}

impl Rotations {
    /// Computes the rotations of `count` positions from `first` on.
    pub fn new(config: &Config, first: usize, count: usize) -> Rotations {
        let (frequencies, size) = frequencies(config);
        let turn = |p: usize, f: f64| {
            let (sin, cos) = (p as f64 * f).sin_cos();
            ((cos * size) as f32, (sin * size) as f32)
        };
        let turns = (first..first + count).flat_map(|p| frequencies.iter().map(move |&f| turn(p, f))).collect();
        Rotations { half: frequencies.len(), turns }
    }

    /// Turns every head of `row`, which stands at position number `index` of the range.
    pub fn apply(&self, row: &mut [f32], index: usize) {
        let turns = &self.turns[index * self.half..][..self.half];
        for head in row.chunks_exact_mut(2 * self.half) {
            let (first, second) = head.split_at_mut(self.half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Radians a position, and the factor of cosines and sines.
fn frequencies(config: &Config) -> (Vec<f64>, f64) {
    let half = config.head_dim / 2;
    let base: Vec<f64> = (0..half).map(|i| config.rope_theta.powf(-(i as f64) / half as f64)).collect();
    match config.rope_scaling {
        RopeScaling::None => (base, 1.0),
        RopeScaling::Linear { factor } => (base.iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Llama3 { factor, low, high, original } => {
            let stretch = |&f: &f64| {
                let turns = original * f / (2.0 * PI);
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - keep) * f / factor + keep * f
            };
            (base.iter().map(stretch).collect(), 1.0)
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original } => {
            let dimension = |turns: f64| half as f64 * (original / (turns * 2.0 * PI)).ln() / config.rope_theta.ln();
            let low = dimension(beta_fast).floor().max(0.0);
            let high = dimension(beta_slow).ceil().min(config.head_dim as f64 - 1.0).max(low + 0.001);
            let stretch = |(i, f): (usize, &f64)| {
                let divide = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                divide * f / factor + (1.0 - divide) * f
            };
            (base.iter().enumerate().map(stretch).collect(), 0.1 * factor.ln().max(0.0) + 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    #[test]
    fn a_turn_keeps_length_and_depends_on_the_distance_only() {
        let config = config();
        let turns = Rotations::new(&config, 3, 10);
        let (q, k) = ([0.3f32, -1.0, 0.7, 0.2, 1.5, -0.4, 0.1, 0.9], [1.0f32, 0.5, -0.2, 0.8, 0.3, -0.6, 1.1, 0.0]);
        let at = |v: [f32; 8], i: usize| {
            let mut v = v;
            turns.apply(&mut v, i);
            v
        };
        let dot = |a: [f32; 8], b: [f32; 8]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        assert!((dot(at(q, 5), at(k, 2)) - dot(at(q, 9), at(k, 6))).abs() < 1e-5);
        assert!((dot(at(q, 4), at(q, 4)) - dot(q, q)).abs() < 1e-5);
        assert_eq!(Rotations::new(&config, 0, 1).turns[0], (1.0, 0.0));
    }

    #[test]
    fn scalings_keep_fast_and_stretch_slow_frequencies() {
        let mut config = Config { head_dim: 64, rope_theta: 500_000.0, ..config() };
        let plain = frequencies(&config).0;
        for scaling in [
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 },
            RopeScaling::Yarn { factor: 8.0, beta_fast: 32.0, beta_slow: 1.0, original: 8192.0 },
        ] {
            config.rope_scaling = scaling;
            let (stretched, size) = frequencies(&config);
            assert_eq!(stretched[0], plain[0]);
            assert!((stretched[31] - plain[31] / 8.0).abs() < 1e-12);
            assert!(stretched.windows(2).all(|w| w[1] < w[0]));
            assert!(size >= 1.0);
        }
        config.rope_scaling = RopeScaling::Linear { factor: 4.0 };
        assert_eq!(frequencies(&config).0[7], plain[7] / 4.0);
    }
}
