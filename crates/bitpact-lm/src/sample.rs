//! The next token, drawn from logits.

use crate::LmError;
use crate::score::largest;

/// Settings with which tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the largest.
    pub temperature: f32,
    /// Only so many of the likeliest tokens are drawn from; 0 is all.
    pub top_k: usize,
    /// Only the fewest likeliest tokens that have this probability together are drawn from.
    pub top_p: f32,
    /// Only tokens with this share of the largest probability are drawn from.
    pub min_p: f32,
    /// Positive logits of tokens seen are divided by it, negative ones multiplied (arXiv 1909.05858); 1 is none.
    pub repeat_penalty: f32,
}

/// Draws tokens; the same seed and logits give the same tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    seed: u64,
    drawn: u64,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// [`LmError::Input`] for numbers that mean nothing.
    pub fn new(sampling: Sampling, seed: u64) -> Result<Sampler, LmError> {
        let Sampling { temperature, top_p, min_p, repeat_penalty, .. } = sampling;
        let wrong = |name: &str, value: f32| Err(LmError::Input(format!("{name} {value} means nothing")));
        if !temperature.is_finite() || temperature < 0.0 {
            return wrong("temperature", temperature);
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return wrong("top-p", top_p);
        }
        if !(0.0..1.0).contains(&min_p) {
            return wrong("min-p", min_p);
        }
        if !(repeat_penalty > 0.0 && repeat_penalty.is_finite()) {
            return wrong("repeat penalty", repeat_penalty);
        }
        Ok(Sampler { sampling, seed, drawn: 0 })
    }

    /// The next token; `logits` are changed.
    pub fn draw(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        let s = self.sampling;
        if s.repeat_penalty != 1.0 {
            let mut tokens = seen.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            for t in tokens {
                let l = &mut logits[t as usize];
                *l = if *l > 0.0 { *l / s.repeat_penalty } else { *l * s.repeat_penalty };
            }
        }
        if s.temperature == 0.0 {
            return largest(logits) as u32;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if s.top_k > 0 {
            order.truncate(s.top_k);
        }
        let peak = logits[order[0]];
        let weight = |&t: &usize| f64::from((logits[t] - peak) / s.temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let (mut kept, mut sum) = (0, 0.0);
        while kept < weights.len()
            && (kept == 0 || (sum < f64::from(s.top_p) * total && weights[kept] >= s.min_p.into()))
        {
            sum += weights[kept];
            kept += 1;
        }
        let mut rest = self.uniform() * sum;
        for (&token, weight) in order.iter().zip(&weights[..kept]) {
            rest -= weight;
            if rest < 0.0 {
                return token as u32;
            }
        }
        order[kept - 1] as u32
    }

    /// Uniform in [0, 1), a function of seed and number of the draw (SplitMix64).
    fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        let mut z = self.seed.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0 };

    fn shares(sampling: Sampling, logits: [f32; 4]) -> [f64; 4] {
        let mut sampler = Sampler::new(sampling, 7).unwrap();
        let mut counts = [0.0; 4];
        (0..20_000).for_each(|_| counts[sampler.draw(&mut logits.clone(), &[]) as usize] += 1.0 / 20_000.0);
        counts
    }

    #[test]
    fn draws_follow_their_probabilities() {
        let logits = [0.0, 2.0f32.ln(), 3.0f32.ln(), 4.0f32.ln()];
        let near = |found: [f64; 4], expected: [f64; 4]| {
            found.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 0.015, "{found:?}"));
        };
        near(shares(PLAIN, logits), [0.1, 0.2, 0.3, 0.4]);
        near(shares(Sampling { temperature: 0.5, ..PLAIN }, logits), [1.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0, 16.0 / 30.0]);
        near(shares(Sampling { top_k: 2, ..PLAIN }, logits), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        near(shares(Sampling { top_p: 0.65, ..PLAIN }, logits), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        near(shares(Sampling { min_p: 0.4, ..PLAIN }, logits), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        near(shares(Sampling { temperature: 0.0, ..PLAIN }, logits), [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn penalties_and_wrong_numbers() {
        let mut greedy = Sampler::new(Sampling { temperature: 0.0, repeat_penalty: 2.0, ..PLAIN }, 1).unwrap();
        assert_eq!(greedy.draw(&mut [1.0, 3.0, 2.0], &[1]), 2);
        assert_eq!(greedy.draw(&mut [-1.0, -0.9], &[1, 1]), 0);
        for bad in [
            Sampling { temperature: f32::NAN, ..PLAIN },
            Sampling { top_p: 0.0, ..PLAIN },
            Sampling { min_p: 1.0, ..PLAIN },
            Sampling { repeat_penalty: 0.0, ..PLAIN },
        ] {
            assert!(Sampler::new(bad, 1).is_err());
        }
    }
}
