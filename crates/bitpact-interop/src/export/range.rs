//! What float32 holds of a network.

use bitpact_model::{IntegerModel, IntegerSum};

use super::meaning::{self, Affine, Meaning};
use super::{ExportError, Format};

/// A scale of weights in float32. One that is nearly 0, of a channel that adds nothing, is the least positive number
/// whose multiples by codes are exact, so that the channel keeps its codes.
pub(super) fn step(scale: f64) -> f32 {
    let size = (scale.abs() as f32).max(f32::MIN_POSITIVE);
    if scale < 0.0 { -size } else { size }
}

/// Refuses a sum whose scales, weights or biases float32 does not hold.
///
/// # Errors
/// [`ExportError::Layer`].
pub(super) fn check(
    model: &IntegerModel,
    meanings: &[Meaning],
    i: usize,
    sum: &IntegerSum,
    format: Format,
) -> Result<(), ExportError> {
    let Affine { out, gains, bias } = meaning::affine(model, meanings, i, sum);
    // Weights are codes of up to 16 bits times their scale, and inputs of sums are below 2^31.
    let mut steps =
        sum.terms.iter().flat_map(|term| term.inputs()).map(|tensor| meanings[tensor].scale).chain([out.scale]);
    let is_held = |v: f64| v.abs() < f64::from(f32::MAX) / 2f64.powi(47);
    let is_step = |v: f64| is_held(v) && v >= f64::from(f32::MIN_POSITIVE);
    let mut numbers = sum.terms.iter().zip(&gains).flat_map(|(term, gains)| {
        let step = term.inputs().into_iter().map(|tensor| meanings[tensor].scale).product::<f64>();
        gains.iter().map(move |gain| gain / step)
    });
    if steps.all(is_step) && numbers.all(is_held) && bias.iter().all(|&bias| is_held(bias)) {
        return Ok(());
    }
    let what = "its scales or biases are beyond float32".to_owned();
    Err(ExportError::Layer { layer: model.layers[i].name.clone(), format, what })
}
