//! Steps of rows for the weights of integer networks: symmetric codes, one step a row, no zero point.

use bitpact_core::{Granularity, Grid, WEIGHT_STEP_MIN, WeightQuant, WeightSpec, quantize_weights};

use crate::{Matrix, PtqError};

/// Steps tried between the smallest and the largest.
const STEPS: usize = 96;
/// The smallest step that is tried, as a share of the largest.
const SMALLEST: f32 = 0.2;
/// Rounds of the refinement at the most; codes settle after a few.
const ROUNDS: usize = 20;

/// Checks that `spec` is an `lsq` quantizer with a step a row, and that `steps` are positive and one a row of
/// `weights`.
pub(crate) fn check_steps(spec: &WeightSpec, weights: &Matrix, steps: &[f32]) -> Result<(), PtqError> {
    check_spec(spec)?;
    if steps.len() != weights.rows() {
        return Err(PtqError::Shape {
            what: "steps",
            expected: format!("{}, one a row", weights.rows()),
            found: steps.len().to_string(),
        });
    }
    match steps.iter().find(|step| !(step.is_finite() && **step > 0.0)) {
        Some(step) => Err(PtqError::Grid(format!("step {step}: expected a positive number"))),
        None => Ok(()),
    }
}

fn check_spec(spec: &WeightSpec) -> Result<(), PtqError> {
    match (spec.quant, spec.scale) {
        (WeightQuant::Lsq, Granularity::Channel) => Ok(()),
        (quant, scale) => {
            Err(PtqError::Grid(format!("quantizer {quant} with a scale a {scale}: expected lsq with one a channel")))
        }
    }
}

/// The code of one weight, and the number it means.
pub(crate) fn code_and_value(spec: &WeightSpec, step: f32, w: f32) -> (i16, f32) {
    let (mut code, mut scale) = ([0], [0.0]);
    quantize_weights(spec, &[w], 1, &[step], &mut code, &mut scale);
    (code[0], scale[0] * f32::from(code[0]))
}

/// Codes of one row, and the real value of one of them.
fn row_codes(spec: &WeightSpec, step: f32, row: &[f32], codes: &mut [i16]) -> f32 {
    let mut scale = [0.0];
    quantize_weights(spec, row, 1, &[step], codes, &mut scale);
    scale[0]
}

/// Codes from one level to the next.
fn spacing(grid: Grid) -> f32 {
    match grid {
        Grid::WithZero => 1.0,
        Grid::WithoutZero => 2.0,
    }
}

/// The codes nearest to `weights`, row by row, where row r has the step `steps[r]` of an `lsq` quantizer.
///
/// # Errors
/// Another quantizer, steps that are not positive or not one a row, and weights that are not finite.
pub fn round_rows(spec: &WeightSpec, weights: &Matrix, steps: &[f32]) -> Result<Vec<i16>, PtqError> {
    check_steps(spec, weights, steps)?;
    weights.check_finite("weights")?;
    let mut codes = vec![0; weights.data().len()];
    for (r, codes) in codes.chunks_exact_mut(weights.cols().max(1)).enumerate() {
        row_codes(spec, steps[r], weights.row(r), codes);
    }
    Ok(codes)
}

/// What the codes of rows mean, row by row: each times the scale that the step of its row gives.
///
/// # Panics
/// Where the codes are not as many for each step.
pub fn row_values(spec: &WeightSpec, codes: &[i16], steps: &[f32]) -> Vec<f32> {
    assert!(codes.len().is_multiple_of(steps.len().max(1)), "{} codes for {} steps", codes.len(), steps.len());
    let scales = steps.iter().map(|step| step / spacing(spec.grid));
    let rows = codes.chunks_exact((codes.len() / steps.len().max(1)).max(1)).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |&code| scale * f32::from(code))).collect()
}

/// The step of each row for which its largest weight is the largest code; at 1 bit, for which a code is the mean
/// magnitude. At least [`WEIGHT_STEP_MIN`], which rows of zeros have.
///
/// # Errors
/// Another quantizer than `lsq` with a step a row, and weights that are not finite.
pub fn largest_steps(spec: &WeightSpec, weights: &Matrix) -> Result<Vec<f32>, PtqError> {
    check_spec(spec)?;
    weights.check_finite("weights")?;
    let of_row = |r: usize| {
        let row = weights.row(r);
        let scale = match spec.bits.get() {
            1 => row.iter().map(|w| w.abs()).sum::<f32>() / row.len().max(1) as f32,
            _ => row.iter().fold(0.0f32, |most, w| most.max(w.abs())) / spec.code_limit() as f32,
        };
        (scale * spacing(spec.grid)).max(WEIGHT_STEP_MIN)
    };
    Ok((0..weights.rows()).map(of_row).collect())
}

/// The step of each row with the least squared error of its rounded weights `q`: `sum_i m_i (w_i - q_i)^2`, where `m_i`
/// is the mean square of input i: the error of the outputs, were inputs independent of each other and of mean 0.
///
/// Steps from a fifth of [`largest_steps`] up to them are tried, ninety-seven of them, and those better than their
/// neighbours are refined: with their codes `c` held, the best scale is `sum m w c / sum m c^2`, which gives new codes,
/// until the error no longer falls. The result is never worse than that of [`largest_steps`].
///
/// # Errors
/// Another quantizer than `lsq` with a step a row, weights that are not finite, and another number of squares than
/// there are inputs.
pub fn search_steps(spec: &WeightSpec, weights: &Matrix, mean_squares: &[f64]) -> Result<Vec<f32>, PtqError> {
    let largest = largest_steps(spec, weights)?;
    if mean_squares.len() != weights.cols() {
        return Err(PtqError::Shape {
            what: "mean squares",
            expected: format!("{}, one an input", weights.cols()),
            found: mean_squares.len().to_string(),
        });
    }
    Ok((0..weights.rows()).map(|r| best_step(spec, weights.row(r), largest[r], mean_squares)).collect())
}

fn best_step(spec: &WeightSpec, row: &[f32], largest: f32, mean_squares: &[f64]) -> f32 {
    let mut codes = vec![0; row.len()];
    let sum = |f: &dyn Fn(f64, f64) -> f64, codes: &[i16]| -> f64 {
        let numbers = row.iter().zip(codes).zip(mean_squares);
        numbers.map(|((&w, &c), m)| m * f(w.into(), c.into())).sum()
    };
    let mut error_of = |step: f32| {
        let scale = f64::from(row_codes(spec, step, row, &mut codes));
        (sum(&|w, c| (w - scale * c).powi(2), &codes), codes.clone())
    };
    let step_of = |i: usize| largest * (SMALLEST + (1.0 - SMALLEST) * i as f32 / STEPS as f32);
    let tried: Vec<(f64, Vec<i16>)> = (0..=STEPS).map(|i| error_of(step_of(i))).collect();
    let (mut least, mut step) = (tried[STEPS].0, largest);
    for i in 0..=STEPS {
        let is_least_here = |j: usize| tried.get(j).is_none_or(|other| tried[i].0 <= other.0);
        if !(is_least_here(i.wrapping_sub(1)) && is_least_here(i + 1)) {
            continue;
        }
        let (mut refined, (mut error, mut codes)) = (step_of(i), tried[i].clone());
        for _ in 0..ROUNDS {
            let scale = sum(&|w, c| w * c, &codes) / sum(&|_, c| c * c, &codes);
            let candidate = scale as f32 * spacing(spec.grid);
            if !(candidate.is_finite() && candidate >= WEIGHT_STEP_MIN) {
                break;
            }
            let next = error_of(candidate);
            if next.0 >= error {
                break;
            }
            (refined, (error, codes)) = (candidate, next);
        }
        if error < least {
            (least, step) = (error, refined);
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{lsq, normal};

    fn error(spec: &WeightSpec, row: &[f32], step: f32) -> f64 {
        let mut codes = vec![0; row.len()];
        let scale = row_codes(spec, step, row, &mut codes);
        row.iter().zip(codes).map(|(w, c)| f64::from(w - scale * f32::from(c)).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn searched_steps_are_no_worse_than_the_largest(
            row in proptest::collection::vec(-2.0f32..2.0, 1..30), bits in 1u8..=8, zero in any::<bool>(),
        ) {
            let spec = lsq(bits, if zero && bits > 1 { Grid::WithZero } else { Grid::WithoutZero });
            let weights = Matrix::new(1, row.len(), row.clone()).unwrap();
            let found = error(&spec, &row, search_steps(&spec, &weights, &vec![1.0; row.len()]).unwrap()[0]);
            let largest = error(&spec, &row, largest_steps(&spec, &weights).unwrap()[0]);
            prop_assert!(found <= largest * (1.0 + 1e-5) + 1e-12, "{} {}", found, largest);
        }
    }

    #[test]
    fn searched_steps_are_near_the_best_of_ten_thousand() {
        let w = normal(40, 27, 9);
        // At 8 bits every row has many narrow minima.
        let cases = [
            (1, Grid::WithoutZero, 1.1),
            (2, Grid::WithZero, 1.1),
            (2, Grid::WithoutZero, 1.1),
            (4, Grid::WithZero, 1.1),
            (8, Grid::WithZero, 1.5),
        ];
        for (bits, grid, most) in cases {
            let spec = lsq(bits, grid);
            let (steps, largest) = (search_steps(&spec, &w, &[1.0; 27]).unwrap(), largest_steps(&spec, &w).unwrap());
            let best_of = |r: usize| {
                let all = (1..=10_000).map(|i| error(&spec, w.row(r), largest[r] * 1.5 * i as f32 / 10_000.0));
                all.fold(f64::INFINITY, f64::min)
            };
            let found: f64 = (0..40).map(|r| error(&spec, w.row(r), steps[r])).sum();
            let best: f64 = (0..40).map(best_of).sum();
            assert!(found < most * best, "{bits} bits, {grid}: {found}, {best}");
        }
    }

    #[test]
    fn known_rows_have_their_steps() {
        // Points of a grid are met exactly, one bit has the mean magnitude, and rows of zeros a step and zeros.
        let w = Matrix::new(2, 4, vec![0.5, -1.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let steps = search_steps(&lsq(3, Grid::WithZero), &w, &[1.0; 4]).unwrap();
        assert_eq!(steps, [0.5, WEIGHT_STEP_MIN]);
        assert_eq!(round_rows(&lsq(3, Grid::WithZero), &w, &steps).unwrap(), [1, -3, 2, 0, 0, 0, 0, 0]);
        assert_eq!(row_values(&lsq(3, Grid::WithZero), &[1, -3, 2, 0, 0, 0, 0, 0], &steps), w.data());
        assert_eq!(row_values(&lsq(2, Grid::WithoutZero), &[3, -1], &[0.5]), [0.75, -0.25]);
        let one = largest_steps(&lsq(1, Grid::WithoutZero), &w).unwrap();
        assert_eq!(one[0], 2.0 * 0.75);
    }

    #[test]
    fn inputs_that_are_large_count_more() {
        let spec = lsq(2, Grid::WithZero);
        let w = Matrix::new(1, 3, vec![1.0, 0.3, 0.3]).unwrap();
        // Of the first input nothing is known but zeros: the step may be that of the others.
        assert_eq!(search_steps(&spec, &w, &[0.0, 1.0, 1.0]).unwrap(), [0.3]);
        assert_eq!(search_steps(&spec, &w, &[1.0, 0.0, 0.0]).unwrap(), [1.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (w, spec) = (Matrix::zeros(2, 3), lsq(4, Grid::WithZero));
        assert!(round_rows(&spec, &w, &[1.0]).is_err() && round_rows(&spec, &w, &[1.0, 0.0]).is_err());
        assert!(search_steps(&spec, &w, &[1.0; 4]).is_err());
        let nan = Matrix::new(1, 1, vec![f32::NAN]).unwrap();
        assert!(largest_steps(&spec, &nan).is_err());
        let layer = WeightSpec { scale: Granularity::Layer, ..spec };
        assert!(largest_steps(&layer, &w).unwrap_err().to_string().contains("lsq"));
    }
}
