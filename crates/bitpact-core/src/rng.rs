//! Random numbers from a key and a counter: no state to save, the same bits everywhere, any order of evaluation.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014; variant 13 of Stafford): a bijection of 64 bits.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key: `key.u64(0), key.u64(1), ...` is the SplitMix64 sequence that starts at the state `key`.
///
/// Use one key per purpose, derived by [`Key::with`] and [`Key::at`]: `Key::new(seed).with("augment").at(epoch)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The key whose sequence is SplitMix64 seeded with `seed`.
    pub const fn new(seed: u64) -> Key {
        Key(seed)
    }

    /// The sub key named `label`: the label's 64-bit FNV-1a hash mixed into the key.
    pub const fn with(self, label: &str) -> Key {
        let bytes = label.as_bytes();
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            i += 1;
        }
        Key(mix(mix(self.0 ^ 0x6a09_e667_f3bc_c909) ^ hash))
    }

    /// The sub key numbered `index`.
    pub const fn at(self, index: u64) -> Key {
        Key(mix(mix(self.0 ^ 0xbb67_ae85_84ca_a73b).wrapping_add(index.wrapping_mul(GOLDEN))))
    }

    /// 64 random bits: `mix(key + (counter + 1) * 0x9e3779b97f4a7c15)`.
    pub const fn u64(self, counter: u64) -> u64 {
        mix(self.0.wrapping_add(counter.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// An integer in `0..n` (0 where `n` is 0): the high word of `u64 * n`, so no value is off by more than `n / 2^64`.
    pub const fn below(self, counter: u64, n: u32) -> u32 {
        ((self.u64(counter) as u128 * n as u128) >> 64) as u32
    }

    /// A multiple of 2^-24 in `[0, 1)`.
    pub const fn uniform(self, counter: u64) -> f32 {
        (self.u64(counter) >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// A standard normal number, by Marsaglia's polar method in f64 over the sub key `at(counter)`, with `+ - * /`, a
    /// square root and a logarithm made of them.
    pub fn normal(self, counter: u64) -> f32 {
        let key = self.at(counter);
        let mut pair = 0;
        loop {
            let (u, v) = (signed_unit(key.u64(2 * pair)), signed_unit(key.u64(2 * pair + 1)));
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return (u * (-2.0 * ln(s) / s).sqrt()) as f32;
            }
            pair += 1;
        }
    }
}

impl Key {
    /// A number of the distribution Beta(alpha, alpha), in `[0, 1]`, for `alpha` above 0; each of about `4^alpha` tries
    /// draws two numbers of the sub key `at(counter)`.
    ///
    /// Joehnk's method: with u, v uniform in (0, 1) and x = u^(1/alpha), y = v^(1/alpha), x / (x + y) where x + y <= 1.
    /// In f64, by logarithms, with `+ - * /` and a logarithm and an exponential made of them.
    pub fn beta(self, counter: u64, alpha: f64) -> f64 {
        let key = self.at(counter);
        let unit = |bits: u64| 0.5 + 0.5 * signed_unit(bits);
        let mut pair = 0;
        loop {
            let x = ln(unit(key.u64(2 * pair))) / alpha;
            let y = ln(unit(key.u64(2 * pair + 1))) / alpha;
            if exp(x) + exp(y) <= 1.0 {
                return 1.0 / (1.0 + exp(y - x));
            }
            pair += 1;
        }
    }
}

/// The exponential function, within 1e-13 relative; 0 and infinity where the result is not a normal number.
fn exp(x: f64) -> f64 {
    let k = (x / std::f64::consts::LN_2).round();
    if !(-1022.0..=1023.0).contains(&k) {
        return if k < 0.0 { 0.0 } else { f64::INFINITY };
    }
    let r = x - k * std::f64::consts::LN_2;
    let series = (1..=16).rev().fold(1.0, |sum, n| 1.0 + r / f64::from(n) * sum);
    series * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// An odd multiple of 2^-52 in (-1, 1).
fn signed_unit(bits: u64) -> f64 {
    ((bits >> 12) as f64 * 2.0 + 1.0) * (1.0 / (1u64 << 52) as f64) - 1.0
}

/// The natural logarithm of a positive normal number, within 1e-15 relative to 1 + |ln s|: `s = m * 2^e` with
/// `m` in [sqrt(1/2), sqrt(2)), and `ln m = 2 atanh((m - 1) / (m + 1))` by its series.
fn ln(s: f64) -> f64 {
    let bits = s.to_bits();
    let mut e = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let mut series = 0.0;
    for k in (0..12).rev() {
        series = series * t2 + 1.0 / f64::from(2 * k + 1);
    }
    e as f64 * std::f64::consts::LN_2 + 2.0 * t * series
}

/// A random order of `0..n`, every order equally likely: Fisher and Yates' shuffle, step `i` drawing `below(i, n - i)`.
pub fn permutation(key: Key, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    for i in 0..n {
        let j = i + key.below(u64::from(i), n - i);
        order.swap(i as usize, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // The sequence of SplitMix64 for the seed 1234567, as published with the algorithm.
        let published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!([0, 1, 2, 3].map(|i| Key::new(1234567).u64(i)), published);
        let key = Key::new(1).with("augment").at(3);
        let pinned = (key.u64(0), key.below(1, 1000), key.uniform(2).to_bits(), key.normal(3).to_bits());
        assert_eq!(pinned, (0xa1d3_43a6_b8d3_ebfe, 959, 0x3f7f_9b64, 0xbea2_962e));
        assert_eq!(permutation(key, 8), [5, 7, 1, 4, 3, 0, 2, 6]);
    }

    #[test]
    fn sub_keys_differ() {
        let key = Key::new(7);
        let mut seen: Vec<u64> = (0..1000).flat_map(|i| [key.at(i).u64(0), key.u64(i), Key::new(i).u64(0)]).collect();
        seen.extend(["", "a", "b", "ab", "ba"].map(|label| key.with(label).u64(0)));
        seen.push(key.with("a").with("b").u64(0));
        seen.push(key.with("b").with("a").u64(0));
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        // key.u64(0) occurs twice by construction: as Key::new(7).u64(0).
        assert_eq!(seen.len(), count - 1);
    }

    #[test]
    fn below_and_uniform_are_even() {
        let key = Key::new(3);
        let mut counts = [0; 7];
        (0..70_000).for_each(|i| counts[key.below(i, 7) as usize] += 1);
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
        assert_eq!((key.below(0, 1), key.below(0, 0)), (0, 0));
        let values: Vec<f32> = (0..50_000).map(|i| key.uniform(i)).collect();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / 50_000.0;
        assert!((mean - 0.5).abs() < 0.006, "{mean}");
    }

    #[test]
    fn normal_has_the_moments_and_tails_of_a_normal() {
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(Key::new(9).normal(i))).collect();
        let moment = |p: i32| values.iter().map(|v| v.powi(p)).sum::<f64>() / n as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.013, "{} {}", moment(1), moment(2));
        assert!(moment(3).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.09, "{} {}", moment(3), moment(4));
        let beyond_3 = values.iter().filter(|v| v.abs() > 3.0).count() as f64 / n as f64;
        assert!((beyond_3 - 0.0027).abs() < 0.0005, "{beyond_3}");
    }

    #[test]
    fn the_logarithm_is_right() {
        for i in 0..20_000 {
            let s = signed_unit(Key::new(2).u64(i)).abs() * [1.0, 1e-3, 1e-20][i as usize % 3];
            assert!((ln(s) - s.ln()).abs() <= 1e-15 * (1.0 + s.ln().abs()), "{s:e}");
        }
    }

    #[test]
    fn the_exponential_is_right() {
        for i in 0..20_000 {
            let x = signed_unit(Key::new(2).u64(i)) * [1.0, 30.0, 700.0][i as usize % 3];
            assert!((exp(x) - x.exp()).abs() <= 1e-13 * x.exp(), "{x}");
        }
        assert_eq!((exp(-1e9), exp(1e9), exp(0.0)), (0.0, f64::INFINITY, 1.0));
    }

    /// Mean 1/2, variance 1 / (4 (2 alpha + 1)), and for alpha 1/2 the arcsine law, for 1 the uniform one.
    #[test]
    fn beta_has_the_moments_and_the_shape_of_a_beta() {
        let n = 40_000;
        for alpha in [0.05, 0.2, 0.5, 1.0, 2.0, 4.0] {
            let values: Vec<f64> = (0..n).map(|i| Key::new(9).beta(i, alpha)).collect();
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
            let mean = values.iter().sum::<f64>() / n as f64;
            let variance = values.iter().map(|v| (v - 0.5).powi(2)).sum::<f64>() / n as f64;
            let wanted = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 0.012 && (variance / wanted - 1.0).abs() < 0.05, "{alpha}: {mean} {variance}");
            let below = |x: f64| values.iter().filter(|&&v| v < x).count() as f64 / n as f64;
            for x in [0.1, 0.25, 0.6] {
                let law = match alpha {
                    0.5 => f64::sqrt(x).asin() / std::f64::consts::FRAC_PI_2,
                    1.0 => x,
                    _ => continue,
                };
                assert!((below(x) - law).abs() < 0.015, "{alpha}: {} below {x}, expected {law}", below(x));
            }
        }
    }

    #[test]
    fn permutations_are_fair() {
        let mut order = permutation(Key::new(1), 1000);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
        let mut counts = std::collections::BTreeMap::new();
        for i in 0..6000 {
            *counts.entry(permutation(Key::new(4).at(i), 3)).or_insert(0) += 1;
        }
        assert!(counts.len() == 6 && counts.values().all(|c| (880..1120).contains(c)), "{counts:?}");
        assert!(permutation(Key::new(1), 0).is_empty());
    }
}
