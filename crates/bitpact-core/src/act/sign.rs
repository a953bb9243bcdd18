//! Activations of -1 and +1, those of XNOR networks.

use super::ActGrad;

/// The code of `x` for activations of two values, `x_q = alpha (2 q - 1)`: 1 where `x >= 0`, else 0, also for `NaN` (Rastegari et al.
/// 2016, XNOR-Net, arXiv 1603.05279, section 3.2, with sign(0) = +1).
///
/// It is also the bit of the word line that an in-memory array drives, `In' = (In + 1) / 2`.
#[inline]
pub fn quantize_act_sign(x: f32) -> u8 {
    u8::from(x >= 0.0)
}

/// The real value of a code: `alpha (2 q - 1)`.
#[inline]
pub fn act_sign_value(code: u8, alpha: f32) -> f32 {
    if code == 0 { -alpha } else { alpha }
}

/// The sum of products with inputs of -1 and +1, from that with their codes and the sum of the weight codes it read:
/// `sum (2 c - 1) w = 2 sum c w - sum w`. Exact while both sums are below 2^62.
///
/// No code stands for zero, so padding holds -1 or +1, and its weights count in both sums.
#[inline]
pub const fn sign_sum(codes: i64, weights: i64) -> i64 {
    2 * codes - weights
}

/// Backward of one element, `g = dL/dx_q`: what automatic differentiation makes of `alpha sign(clip(x / alpha, -1, 1))` where the sign passes its
/// gradient (BinaryNet, arXiv 1602.02830, eq. 4, with alpha in place of 1):
///
/// - `dx = g` where `-alpha < x < alpha`, else 0;
/// - `dalpha = g (sign(x) - x / alpha)` there, `g sign(x)` elsewhere.
#[inline]
pub fn act_sign_backward(g: f32, x: f32, alpha: f32) -> ActGrad {
    let sign = if x >= 0.0 { 1.0 } else { -1.0 };
    if -alpha < x && x < alpha {
        ActGrad { dx: g, dalpha: g * (sign - x / alpha) }
    } else {
        ActGrad { dx: 0.0, dalpha: g * sign }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn codes_and_values_by_hand() {
        for (x, code, value) in
            [(-3.0, 0, -0.5), (-0.0, 1, 0.5), (0.0, 1, 0.5), (1e-30, 1, 0.5), (-1e-30, 0, -0.5), (f32::NAN, 0, -0.5)]
        {
            assert_eq!((quantize_act_sign(x), act_sign_value(quantize_act_sign(x), 0.5)), (code, value), "{x}");
        }
    }

    /// With what the sign adds to the clipped value frozen, `alpha (clip(x / alpha) + r)`, both gradients are differences of it.
    #[test]
    fn gradients_match_finite_differences_with_the_residual_frozen() {
        let (alpha, h) = (0.75f64, 1e-6);
        for x in [-2.0f64, -0.76, -0.74, -0.3, -1e-3, 1e-3, 0.4, 0.74, 0.76, 5.0] {
            let clip = |x: f64, alpha: f64| (x / alpha).clamp(-1.0, 1.0);
            let residual = x.signum() - clip(x, alpha);
            let value = |x: f64, alpha: f64| alpha * (clip(x, alpha) + residual);
            let got = act_sign_backward(2.0, x as f32, alpha as f32);
            let dx = 2.0 * (value(x + h, alpha) - value(x - h, alpha)) / (2.0 * h);
            let dalpha = 2.0 * (value(x, alpha + h) - value(x, alpha - h)) / (2.0 * h);
            assert!(
                (f64::from(got.dx) - dx).abs() < 1e-5 && (f64::from(got.dalpha) - dalpha).abs() < 1e-5,
                "{x}: {got:?}"
            );
        }
    }

    #[test]
    fn sums_of_codes_give_sums_of_signs() {
        let key = Key::new(1);
        for n in [0, 1, 7, 300] {
            let codes: Vec<i64> = (0..n).map(|i| (key.with("c").u64(i) & 1) as i64).collect();
            let weights: Vec<i64> = (0..n).map(|i| i64::from(key.with("w").below(i, 255)) - 127).collect();
            let dot = |a: &[i64]| a.iter().zip(&weights).map(|(a, w)| a * w).sum::<i64>();
            let signs: Vec<i64> = codes.iter().map(|c| 2 * c - 1).collect();
            assert_eq!(sign_sum(dot(&codes), weights.iter().sum()), dot(&signs));
        }
    }
}
