//! Smoothing of activations (SmoothQuant, arXiv 2211.10438): range moves from inputs to weights before activations go
//! to 8 bits.

use crate::{Matrix, PtqError};

/// Scales by which inputs are divided and columns of weights multiplied, equation 4 of the paper: `s_c =
/// max|x_c|^strength / max|w_c|^(1 - strength)`, over all `weights` that read the inputs, at least 1e-5; 1 for inputs
/// that are always 0.
///
/// # Errors
/// [`PtqError::Shape`] where a matrix has not one column an input.
pub fn smoothing_scales(largest: &[f32], weights: &[&Matrix], strength: f32) -> Result<Vec<f32>, PtqError> {
    let mut peak = vec![0.0f32; largest.len()];
    for w in weights {
        if w.cols() != largest.len() {
            return Err(PtqError::Shape {
                what: "weights",
                expected: format!("{} columns", largest.len()),
                found: format!("{} columns", w.cols()),
            });
        }
        (0..w.rows()).for_each(|r| peak.iter_mut().zip(w.row(r)).for_each(|(p, w)| *p = p.max(w.abs())));
    }
    let scale = |(&x, &w): (&f32, &f32)| {
        if x == 0.0 { 1.0 } else { (x.powf(strength) / w.max(1e-5).powf(1.0 - strength)).max(1e-5) }
    };
    Ok(largest.iter().zip(&peak).map(scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_strength_gives_inputs_and_weights_the_same_range() {
        let w = Matrix::new(2, 3, vec![0.5, -2.0, 1.0, 0.25, 1.0, 0.0]).unwrap();
        let s = smoothing_scales(&[8.0, 0.5, 0.0], &[&w], 0.5).unwrap();
        assert_eq!(s, [4.0, 0.5, 1.0]);
        assert_eq!((8.0 / s[0], 0.5 * s[0]), (2.0, 2.0));
        assert!(smoothing_scales(&[1.0], &[&w], 0.5).is_err());
    }
}
