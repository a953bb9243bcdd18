//! The derivation of an integer step for outputs that are not codes: the largest shift that fits.

use super::{Derived, IntegerStep, Ranges, RealStep};
use crate::StepError;

/// The largest shift tried.
const MAX_SHIFT: u32 = 46;
/// Sums stay below this, so that float64 holds them exactly.
const LARGEST_SUM: u64 = 1 << 53;

/// Derives a step whose outputs are so fine that precision is not a matter of output steps, such as a residual stream:
/// `mul = round_half_even(scale * 2^shift)`, `mul2` the same, `add = round_half_even(offset * 2^shift) + 2^shift / 2`, with the
/// largest shift for which every multiplier fits in i32 and `|acc * mul| + |acc2 * mul2| + |add| < 2^53` over the proved
/// ranges. So the largest multiplier has 30 bits or more, unless the sums forbid it. There is no `res_mul`.
///
/// # Errors
/// Lists of unequal length, an empty range, a number that is not finite, or, with the channel, a multiplier or a sum that
/// does not fit at any shift.
pub fn derive_finest(real: &RealStep, ranges: &Ranges<'_>) -> Result<Derived, StepError> {
    let mut refused = None;
    for shift in (0..=MAX_SHIFT).rev() {
        let step = at_shift(real, shift);
        match step.and_then(|step| step.largest_sum(ranges).map(|sum| (step, sum))) {
            Ok((step, sum)) if sum < LARGEST_SUM => {
                let worst_error = worst_error(real, &step, ranges);
                return Ok(Derived { step, worst_error });
            }
            Ok((_, sum)) => refused = Some(StepError::Overflow { channel: 0, shift, magnitude: sum as f64 }),
            Err(e @ (StepError::Multiplier { .. } | StepError::Overflow { .. })) => refused = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(refused.unwrap_or(StepError::Shift { shift: MAX_SHIFT }))
}

fn at_shift(real: &RealStep, shift: u32) -> Result<IntegerStep, StepError> {
    let unit = (1u64 << shift) as f64;
    let multipliers = |what: &'static str, scales: &[f64]| {
        let rounded = |(channel, &value): (usize, &f64)| {
            if !value.is_finite() {
                return Err(StepError::NotFinite { what, channel, value });
            }
            let scaled = (value * unit).round_ties_even();
            if scaled.abs() > f64::from(i32::MAX) {
                return Err(StepError::Multiplier { what, channel, value, shift, scaled: value * unit });
            }
            Ok(scaled as i32)
        };
        scales.iter().enumerate().map(rounded).collect::<Result<Vec<i32>, _>>()
    };
    let half = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
    let constant = |(channel, &value): (usize, &f64)| {
        if !value.is_finite() {
            return Err(StepError::NotFinite { what: "offset", channel, value });
        }
        let scaled = (value * unit).round_ties_even();
        if scaled.abs() >= LARGEST_SUM as f64 {
            return Err(StepError::Overflow { channel, shift, magnitude: scaled.abs() });
        }
        Ok(scaled as i64 + half)
    };
    Ok(IntegerStep {
        shift,
        mul: multipliers("scale", &real.scale)?,
        mul2: multipliers("scale2", &real.scale2)?,
        res_mul: Vec::new(),
        add: real.offset.iter().enumerate().map(constant).collect::<Result<_, _>>()?,
        lo: real.lo,
        hi: real.hi,
        bounds: real.bounds.clone(),
    })
}

/// Bound on the distance before rounding, in output steps.
fn worst_error(real: &RealStep, step: &IntegerStep, ranges: &Ranges<'_>) -> f64 {
    let unit = (1u64 << step.shift) as f64;
    let half = if step.shift == 0 { 0.0 } else { 0.5 };
    let term = |mul: Option<&i32>, scale: Option<&f64>, range: Option<&(i64, i64)>| match (mul, scale, range) {
        (Some(&mul), Some(&scale), Some(&(lo, hi))) => {
            (f64::from(mul) / unit - scale).abs() * lo.unsigned_abs().max(hi.unsigned_abs()) as f64
        }
        _ => 0.0,
    };
    let error = |c: usize| {
        term(step.mul.get(c), real.scale.get(c), ranges.acc.get(c))
            + term(step.mul2.get(c), real.scale2.get(c), ranges.acc2.get(c))
            + (step.add[c] as f64 / unit - half - real.offset[c]).abs()
    };
    (0..step.mul.len()).map(error).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(scale: &[f64], offset: &[f64]) -> RealStep {
        let (scale, offset) = (scale.to_vec(), offset.to_vec());
        RealStep {
            scale,
            scale2: Vec::new(),
            res_scale: Vec::new(),
            offset,
            lo: i32::MIN,
            hi: i32::MAX,
            bounds: vec![],
        }
    }

    #[test]
    fn multipliers_are_as_large_as_they_can_be() {
        let acc = [(-1000, 1000), (-1000, 1000)];
        let ranges = Ranges { acc: &acc, acc2: &[], res: (0, 0) };
        let Derived { step, worst_error } = derive_finest(&real(&[3.7, 0.001], &[-5.25, 1e6]), &ranges).unwrap();
        let largest = step.mul.iter().map(|m| m.unsigned_abs()).max().unwrap();
        assert!((1 << 30..1u32 << 31).contains(&largest), "{step:?}");
        assert!(step.largest_sum(&ranges).unwrap() < 1 << 53 && worst_error < 1e-5, "{worst_error}");
        for acc in [-1000i64, -7, 0, 3, 999] {
            for (c, (scale, offset)) in [(3.7, -5.25), (0.001, 1e6)].into_iter().enumerate() {
                let exact = acc as f64 * scale + offset;
                assert!((f64::from(step.apply(c, acc, 0, 0)) - exact).abs() <= 0.5 + worst_error, "{exact}");
            }
        }
    }

    #[test]
    fn wide_sums_lower_the_shift_and_too_wide_ones_are_refused() {
        let derive = |reach: i64, scale: f64| {
            let acc = [(-reach, reach)];
            derive_finest(&real(&[scale], &[0.0]), &Ranges { acc: &acc, acc2: &[], res: (0, 0) })
        };
        let narrow = derive(1 << 20, 1.0).unwrap();
        let wide = derive(1 << 40, 1.0).unwrap();
        assert!(narrow.step.shift == 30 && wide.step.shift < 13, "{} {}", narrow.step.shift, wide.step.shift);
        assert!(matches!(derive(1 << 54, 1.0), Err(StepError::Overflow { .. })));
        assert!(matches!(derive(1, 1e10), Err(StepError::Multiplier { .. })));
        assert!(matches!(derive(1, f64::NAN), Err(StepError::NotFinite { .. })));
    }
}
