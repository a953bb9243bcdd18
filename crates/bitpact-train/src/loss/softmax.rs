//! Softmax at a temperature, and the divergence of distillation.

use crate::TeacherInput;

/// Logarithms of the probabilities `softmax(z / temperature)`, by class.
pub(super) fn log_softmax(z: &[f32], temperature: f64) -> impl Fn(usize) -> f64 + '_ {
    let largest = z.iter().fold(f64::NEG_INFINITY, |most, &z| most.max(f64::from(z)));
    let sum: f64 = z.iter().map(|&z| ((f64::from(z) - largest) / temperature).exp()).sum();
    let total = sum.ln() + largest / temperature;
    move |c| f64::from(z[c]) / temperature - total
}

/// `weight T^2 KL(softmax(taught / T) || softmax(z / T))` (Hinton et al. 2015, arXiv 1503.02531). Its derivative by
/// each logit, divided by `divisor`, is added to `gradient`.
pub(super) fn divergence(z: &[f32], taught: &[f32], teacher: TeacherInput, divisor: f64, gradient: &mut [f32]) -> f64 {
    let (t, weight) = (f64::from(teacher.temperature), f64::from(teacher.weight));
    let (theirs, ours) = (log_softmax(taught, t), log_softmax(z, t));
    let mut divergence = 0.0;
    for (c, g) in gradient.iter_mut().enumerate() {
        let p = theirs(c).exp();
        if p > 0.0 {
            divergence += p * (theirs(c) - ours(c));
        }
        *g += (weight * t * (ours(c).exp() - p) / divisor) as f32;
    }
    weight * t * t * divergence
}
