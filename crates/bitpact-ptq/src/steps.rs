//! Steps of rows for the weights of integer networks: symmetric codes, one step a row, no zero point.

use bitpact_core::{Granularity, Grid, WEIGHT_STEP_MIN, WeightQuant, WeightSpec, quantize_weights};

use crate::{Matrix, PtqError, Rounded};

/// Shares of the largest steps that [`search_steps`] tries: from 1 down to two fifths.
pub const SHARES: [f32; 16] =
    [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68, 0.64, 0.6, 0.56, 0.52, 0.48, 0.44, 0.4];

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

/// Steps and codes of each row with the least error that `round` tells: of the `shares` of [`largest_steps`],
/// [`SHARES`] or fewer. As a function of the step, the error has many small minima, so that all are tried.
///
/// # Errors
/// Another quantizer than `lsq` with a step a row, weights that are not finite, and those of `round`.
///
/// # Panics
/// Where `round` gives not a code a weight and an error a row.
pub fn search_steps(
    spec: &WeightSpec,
    weights: &Matrix,
    shares: &[f32],
    mut round: impl FnMut(&[f32]) -> Result<Rounded, PtqError>,
) -> Result<(Vec<f32>, Vec<i16>), PtqError> {
    let largest = largest_steps(spec, weights)?;
    let (rows, cols) = (weights.rows(), weights.cols());
    let (mut steps, mut codes) = (largest.clone(), vec![0; rows * cols]);
    let mut least = vec![f64::INFINITY; rows];
    for share in shares {
        let tried: Vec<f32> = largest.iter().map(|step| (step * share).max(WEIGHT_STEP_MIN)).collect();
        let rounded = round(&tried)?;
        assert_eq!((rounded.codes.len(), rounded.errors.len()), (codes.len(), rows), "codes and errors");
        for (r, &error) in rounded.errors.iter().enumerate() {
            if error < least[r] {
                (least[r], steps[r]) = (error, tried[r]);
                codes[r * cols..][..cols].copy_from_slice(&rounded.codes[r * cols..][..cols]);
            }
        }
    }
    Ok((steps, codes))
}

#[cfg(test)]
mod tests {
    use bitpact_kernels::Pool;

    use super::*;
    use crate::Gram;
    use crate::testing::{inputs, lsq, normal};

    #[test]
    fn searched_steps_have_the_least_error_of_all_that_are_tried() {
        let (w, x, pool) = (normal(40, 27, 9), inputs(200, 27, 1.0, 10), Pool::new(1));
        let mut gram = Gram::new(27);
        gram.add(&x, &pool).unwrap();
        for (bits, grid) in [(1, Grid::WithoutZero), (2, Grid::WithZero), (2, Grid::WithoutZero), (4, Grid::WithZero)] {
            let spec = lsq(bits, grid);
            let round = |steps: &[f32]| gram.round(&spec, &w, steps, &pool);
            let (steps, codes) = search_steps(&spec, &w, &SHARES, round).unwrap();
            let found = round(&steps).unwrap();
            assert_eq!(found.codes, codes);
            let largest = largest_steps(&spec, &w).unwrap();
            for share in (40..=100).step_by(4).map(|percent| percent as f32 / 100.0) {
                let tried: Vec<f32> = largest.iter().map(|step| step * share).collect();
                let other = round(&tried).unwrap().errors;
                let not_above = |(a, b): (&f64, &f64)| *a <= b * (1.0 + 1e-6);
                assert!(found.errors.iter().zip(&other).all(not_above), "{bits} bits, {grid}: {share}");
            }
            let rounded = round(&largest).unwrap().errors.iter().sum::<f64>();
            // At 1 bit the mean magnitude is best already where inputs are alike.
            let most = if bits == 1 { 1.0 } else { 0.97 };
            assert!(found.errors.iter().sum::<f64>() <= most * rounded, "{bits} bits, {grid}");
        }
    }

    #[test]
    fn known_rows_have_their_steps() {
        // Points of a grid are met exactly, one bit has the mean magnitude, and rows of zeros a step and zeros.
        let w = Matrix::new(2, 4, vec![0.5, -1.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let steps = largest_steps(&lsq(3, Grid::WithZero), &w).unwrap();
        assert_eq!(steps, [0.5, WEIGHT_STEP_MIN]);
        assert_eq!(round_rows(&lsq(3, Grid::WithZero), &w, &steps).unwrap(), [1, -3, 2, 0, 0, 0, 0, 0]);
        assert_eq!(row_values(&lsq(3, Grid::WithZero), &[1, -3, 2, 0, 0, 0, 0, 0], &steps), w.data());
        assert_eq!(row_values(&lsq(2, Grid::WithoutZero), &[3, -1], &[0.5]), [0.75, -0.25]);
        let one = largest_steps(&lsq(1, Grid::WithoutZero), &w).unwrap();
        assert_eq!(one[0], 2.0 * 0.75);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (w, spec) = (Matrix::zeros(2, 3), lsq(4, Grid::WithZero));
        assert!(round_rows(&spec, &w, &[1.0]).is_err() && round_rows(&spec, &w, &[1.0, 0.0]).is_err());
        let nan = Matrix::new(1, 1, vec![f32::NAN]).unwrap();
        assert!(largest_steps(&spec, &nan).is_err());
        let layer = WeightSpec { scale: Granularity::Layer, ..spec };
        assert!(largest_steps(&layer, &w).unwrap_err().to_string().contains("lsq"));
    }
}
