//! The hyperbolic tangent, the same bits everywhere.

const DEPTH: usize = 16;
const TERMS: usize = DEPTH / 2;
const SATURATED: f64 = 9.5;

/// `tanh(x)`, within 0.501 units in the last place; odd, `NaN` for `NaN`.
///
/// The convergent of depth 16 of Lambert's continued fraction `x / (1 + x^2 / (3 + x^2 / (5 + ...)))`, as one quotient
/// of two polynomials in `x^2` with positive coefficients, computed in f64 with `+ * /` only and rounded once.
#[inline]
pub fn tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let x = if x > SATURATED { SATURATED } else { x };
    let x = if x < -SATURATED { -SATURATED } else { x };
    let y = x * x;
    let mut numerator = NUMERATOR[TERMS - 1];
    let mut denominator = DENOMINATOR[TERMS];
    for i in (0..TERMS).rev() {
        if i + 1 < TERMS {
            numerator = numerator * y + NUMERATOR[i];
        }
        denominator = denominator * y + DENOMINATOR[i];
    }
    (x * numerator / denominator) as f32
}

const NUMERATOR: [f64; TERMS] = {
    let (numerator, _) = convergent();
    let mut out = [0.0; TERMS];
    let mut i = 0;
    while i < TERMS {
        out[i] = numerator[i];
        i += 1;
    }
    out
};
const DENOMINATOR: [f64; TERMS + 1] = convergent().1;

/// Coefficients in `y = x^2` of the numerator (without its factor `x`) and the denominator, by the recurrence
/// `A_n = (2n - 1) A_(n-1) + y A_(n-2)`.
const fn convergent() -> ([f64; TERMS + 1], [f64; TERMS + 1]) {
    let (mut a0, mut b0) = ([0.0; TERMS + 1], [0.0; TERMS + 1]);
    let (mut a1, mut b1) = ([0.0; TERMS + 1], [0.0; TERMS + 1]);
    b0[0] = 1.0;
    a1[0] = 1.0;
    b1[0] = 1.0;
    let mut n = 2;
    while n <= DEPTH {
        let odd = (2 * n - 1) as f64;
        let (mut a2, mut b2) = ([0.0; TERMS + 1], [0.0; TERMS + 1]);
        let mut i = 0;
        while i <= TERMS {
            a2[i] = odd * a1[i] + if i > 0 { a0[i - 1] } else { 0.0 };
            b2[i] = odd * b1[i] + if i > 0 { b0[i - 1] } else { 0.0 };
            i += 1;
        }
        (a0, b0, a1, b1) = (a1, b1, a2, b2);
        n += 1;
    }
    (a1, b1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance to the exact value in units in the last place of f32.
    fn error_ulps(x: f32) -> f64 {
        let exact = f64::from(x).tanh();
        let ulp = f64::from(f32::from_bits((exact as f32).abs().to_bits() + 1)) - f64::from((exact as f32).abs());
        (f64::from(tanh(x)) - exact).abs() / ulp
    }

    #[test]
    fn within_0_501_ulp_of_the_exact_value() {
        let mut worst = (0.0, 0.0);
        for bits in (0x2000_0000..0x4130_0000u32).step_by(271) {
            let x = f32::from_bits(bits);
            let error = error_ulps(x);
            if error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 <= 0.501, "{worst:?}");
        assert!(worst.0 > 0.4, "the sample is too easy: {worst:?}");
    }

    #[test]
    fn odd_monotone_and_bounded() {
        let mut before = 0.0;
        for bits in (0..0x4130_0000u32).step_by(997) {
            let x = f32::from_bits(bits);
            let y = tanh(x);
            assert_eq!(tanh(-x).to_bits(), (-y).to_bits(), "{x}");
            assert!(y >= before && y <= 1.0, "{x}: {y} after {before}");
            before = y;
        }
        assert_eq!(before, 1.0);
    }

    #[test]
    fn special_values() {
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert_eq!(tanh(f32::MAX), 1.0);
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(tanh(1e-45), 1e-45);
    }

    #[test]
    fn the_bits_are_pinned() {
        let bits = [0.1f32, 0.5, 1.0, 2.5, 7.0].map(|x| tanh(x).to_bits());
        assert_eq!(bits, [0x3dcc_1ebc, 0x3eec_9a9f, 0x3f42_f7d6, 0x3f7c_92c1, 0x3f7f_ffe4]);
    }
}
