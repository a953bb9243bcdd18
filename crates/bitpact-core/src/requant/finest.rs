//! The derivation of a requantization for outputs that are not codes: the largest shift that fits.

use super::{Derived, Ranges, RealRequantization, Requantization};
use crate::RequantizationError;

/// The largest shift tried.
const MAX_SHIFT: u32 = 46;
/// Sums stay below this, so that float64 holds them exactly.
const LARGEST_SUM: u64 = 1 << 53;

/// Derives a requantization whose outputs are so fine that precision is not a matter of single codes, such as a
/// residual stream: `mul = round_half_even(scale * 2^shift)`, `add = round_half_even(offset * 2^shift) + 2^shift / 2`,
/// with the largest shift for which every multiplier fits in i32 and `sum of |value_t * mul_t| + |add| < 2^53` over the
/// proved ranges. So the largest multiplier has 30 bits or more, unless the sums forbid it.
///
/// # Errors
/// Lists of unequal length, an empty range, a number that is not finite, or, with the channel, a multiplier or a sum
/// that does not fit at any shift.
pub fn derive_finest(real: &RealRequantization, ranges: &Ranges) -> Result<Derived, RequantizationError> {
    let mut refused = None;
    for shift in (0..=MAX_SHIFT).rev() {
        let requant = at_shift(real, shift);
        match requant.and_then(|requant| requant.largest_sum(ranges).map(|sum| (requant, sum))) {
            Ok((requant, sum)) if sum < LARGEST_SUM => {
                let worst_error = worst_error(real, &requant, ranges);
                return Ok(Derived { requant, worst_error });
            }
            Ok((_, sum)) => refused = Some(RequantizationError::Overflow { channel: 0, shift, magnitude: sum as f64 }),
            Err(e @ (RequantizationError::Multiplier { .. } | RequantizationError::Overflow { .. })) => {
                refused = Some(e)
            }
            Err(e) => return Err(e),
        }
    }
    Err(refused.unwrap_or(RequantizationError::Shift { shift: MAX_SHIFT }))
}

fn at_shift(real: &RealRequantization, shift: u32) -> Result<Requantization, RequantizationError> {
    let unit = (1u64 << shift) as f64;
    let multipliers = |(term, scales): (usize, &Vec<f64>)| {
        let rounded = |(channel, &value): (usize, &f64)| {
            let what = || format!("the scale of term {term},");
            if !value.is_finite() {
                return Err(RequantizationError::NotFinite { what: what(), channel, value });
            }
            let scaled = value * unit;
            let nearest = scaled.round_ties_even();
            if nearest.abs() > f64::from(i32::MAX) {
                return Err(RequantizationError::Multiplier { what: what(), channel, value, shift, scaled });
            }
            Ok(nearest as i32)
        };
        scales.iter().enumerate().map(rounded).collect::<Result<Vec<i32>, _>>()
    };
    let half = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
    let constant = |(channel, &value): (usize, &f64)| {
        if !value.is_finite() {
            return Err(RequantizationError::NotFinite { what: "the offset".to_owned(), channel, value });
        }
        let scaled = (value * unit).round_ties_even();
        if scaled.abs() >= LARGEST_SUM as f64 {
            return Err(RequantizationError::Overflow { channel, shift, magnitude: scaled.abs() });
        }
        Ok(scaled as i64 + half)
    };
    Ok(Requantization {
        shift,
        mul: real.scale.iter().enumerate().map(multipliers).collect::<Result<_, _>>()?,
        add: real.offset.iter().enumerate().map(constant).collect::<Result<_, _>>()?,
        lo: real.lo,
        hi: real.hi,
        bounds: real.bounds.clone(),
    })
}

/// Bound on the distance before rounding, in output codes.
fn worst_error(real: &RealRequantization, requant: &Requantization, ranges: &Ranges) -> f64 {
    let unit = (1u64 << requant.shift) as f64;
    let half = if requant.shift == 0 { 0.0 } else { 0.5 };
    let error = |c: usize| {
        let terms =
            requant.mul.iter().zip(&real.scale).zip(ranges).map(|((mul, scale), range)| {
                (f64::from(mul[c]) / unit - scale[c]).abs() * super::reach(range[c]) as f64
            });
        terms.sum::<f64>() + (requant.add[c] as f64 / unit - half - real.offset[c]).abs()
    };
    (0..requant.channels()).map(error).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(scale: &[f64], offset: &[f64]) -> RealRequantization {
        let (scale, offset) = (vec![scale.to_vec()], offset.to_vec());
        RealRequantization { scale, offset, lo: i32::MIN, hi: i32::MAX, bounds: vec![] }
    }

    #[test]
    fn multipliers_are_as_large_as_they_can_be() {
        let ranges = [vec![(-1000, 1000), (-1000, 1000)]];
        let Derived { requant, worst_error } = derive_finest(&real(&[3.7, 0.001], &[-5.25, 1e6]), &ranges).unwrap();
        let largest = requant.mul[0].iter().map(|m| m.unsigned_abs()).max().unwrap();
        assert!((1 << 30..1u32 << 31).contains(&largest), "{requant:?}");
        assert!(requant.largest_sum(&ranges).unwrap() < 1 << 53 && worst_error < 1e-5, "{worst_error}");
        for acc in [-1000i64, -7, 0, 3, 999] {
            for (c, (scale, offset)) in [(3.7, -5.25), (0.001, 1e6)].into_iter().enumerate() {
                let exact = acc as f64 * scale + offset;
                assert!((f64::from(requant.apply(c, [acc])) - exact).abs() <= 0.5 + worst_error, "{exact}");
            }
        }
    }

    #[test]
    fn wide_sums_lower_the_shift_and_too_wide_ones_are_refused() {
        let derive = |reach: i64, scale: f64| derive_finest(&real(&[scale], &[0.0]), &[vec![(-reach, reach)]]);
        let narrow = derive(1 << 20, 1.0).unwrap();
        let wide = derive(1 << 40, 1.0).unwrap();
        assert!(narrow.requant.shift == 30 && wide.requant.shift < 13);
        assert!(matches!(derive(1 << 54, 1.0), Err(RequantizationError::Overflow { .. })));
        assert!(matches!(derive(1, 1e10), Err(RequantizationError::Multiplier { .. })));
        assert!(matches!(derive(1, f64::NAN), Err(RequantizationError::NotFinite { .. })));
    }
}
