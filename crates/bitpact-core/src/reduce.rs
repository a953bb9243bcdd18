//! Reductions in one fixed order: 16 interleaved lanes, then a fixed tree.
//!
//! Element `i` goes to lane `i % 16`; each lane takes its elements in rising order, starting from 0. Then lane `j`
//! takes lane `j + 8`, for `j < 8`, then `j + 4`, `j + 2`, `j + 1`; lane 0 is the result. No fused multiply-add. So the
//! bits depend on neither instruction set nor thread count, and every vector width up to 16 floats can keep them.

const LANES: usize = 16;

#[inline(always)]
fn reduce(x: &[f32], step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] = step(lanes[j], chunk[j]);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(tail) {
        *lane = step(*lane, v);
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] = join(lanes[j], lanes[j + half]);
        }
    }
    lanes[0]
}

/// The sum of `x`.
pub fn sum(x: &[f32]) -> f32 {
    reduce(x, |lane, v| lane + v, |a, b| a + b)
}

/// The sum of `|x|`.
pub fn sum_abs(x: &[f32]) -> f32 {
    reduce(x, |lane, v| lane + v.abs(), |a, b| a + b)
}

/// The sum of `x * x`, product and sum rounded apart.
pub fn sum_sq(x: &[f32]) -> f32 {
    reduce(x, |lane, v| lane + v * v, |a, b| a + b)
}

/// The largest `|x|`, 0 for an empty slice; `NaN` elements are passed over.
pub fn max_abs(x: &[f32]) -> f32 {
    reduce(x, |lane, v| larger(v.abs(), lane), |a, b| larger(b, a))
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn sample(n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| Key::new(11).normal(i)).collect()
    }

    /// The order as the module doc states it, one element after the other.
    fn by_the_book(x: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 16];
        for (i, &v) in x.iter().enumerate() {
            lanes[i % 16] += v;
        }
        let l8: Vec<f32> = (0..8).map(|j| lanes[j] + lanes[j + 8]).collect();
        let l4: Vec<f32> = (0..4).map(|j| l8[j] + l8[j + 4]).collect();
        (l4[0] + l4[2]) + (l4[1] + l4[3])
    }

    #[test]
    fn sums_keep_the_stated_order_bit_for_bit() {
        for n in [0, 1, 15, 16, 17, 31, 32, 100, 1000, 4099] {
            let x = sample(n);
            let abs: Vec<f32> = x.iter().map(|v| v.abs()).collect();
            let sq: Vec<f32> = x.iter().map(|v| v * v).collect();
            assert_eq!(sum(&x).to_bits(), by_the_book(&x).to_bits(), "{n}");
            assert_eq!(sum_abs(&x).to_bits(), by_the_book(&abs).to_bits(), "{n}");
            assert_eq!(sum_sq(&x).to_bits(), by_the_book(&sq).to_bits(), "{n}");
            assert_eq!(max_abs(&x), abs.iter().fold(0.0, |m: f32, &v| m.max(v)), "{n}");
        }
        let x = sample(4099);
        assert_ne!(sum(&x).to_bits(), x.iter().sum::<f32>().to_bits(), "the order matters on this sample");
    }

    #[test]
    fn a_few_results_are_pinned() {
        let x = sample(1000);
        let exact: f64 = x.iter().map(|&v| f64::from(v)).sum();
        assert!((f64::from(sum(&x)) - exact).abs() < 1e-4, "{} {exact}", sum(&x));
        assert_eq!(sum(&[1e8, 1.0, -1e8]), 1.0, "three lanes, then lane 0 + lane 2 first");
        assert_eq!(sum_sq(&[3.0, -4.0]), 25.0);
        assert_eq!(max_abs(&[1.0, f32::NAN, -3.0, 2.0]), 3.0);
        assert_eq!(max_abs(&[f32::NAN]), 0.0);
    }
}
