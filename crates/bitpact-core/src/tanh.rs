//! The hyperbolic tangent, the same bits everywhere.

const DEPTH: usize = 14;
const TERMS: usize = DEPTH / 2;
const SATURATED: f64 = 9.5;

/// `tanh(x)`, within 0.51 units in the last place; odd, `NaN` for `NaN`.
///
/// The convergent of depth 14 of Lambert's continued fraction `x / (1 + x^2 / (3 + x^2 / (5 + ...)))`, as one quotient of
/// two polynomials in `x^2` with positive coefficients, computed in f64 with `+ * /` only and rounded once.
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
