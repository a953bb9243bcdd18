//! Softmax cross entropy of one image.

/// Loss of `logits` against `label`, and whether the label's logit is the largest (the lowest index winning ties).
/// `gradient[c] = (softmax(logits)[c] - [c = label]) / batch`.
pub(super) fn cross_entropy(logits: &[f32], label: usize, batch: usize, gradient: &mut [f32]) -> (f64, bool) {
    let mut best = 0;
    for (c, v) in logits.iter().enumerate() {
        if *v > logits[best] {
            best = c;
        }
    }
    let largest = f64::from(logits[best]);
    let total: f64 = logits.iter().map(|&v| (f64::from(v) - largest).exp()).sum();
    for (c, (g, &v)) in gradient.iter_mut().zip(logits).enumerate() {
        let p = (f64::from(v) - largest).exp() / total;
        *g = ((p - f64::from(u8::from(c == label))) / batch as f64) as f32;
    }
    (total.ln() + largest - f64::from(logits[label]), best == label)
}

#[cfg(test)]
mod tests {
    use super::cross_entropy;

    #[test]
    fn gradient_matches_finite_differences() {
        let logits = [0.3f32, -1.25, 2.5, 0.0];
        let mut gradient = [0f32; 4];
        let (loss, hit) = cross_entropy(&logits, 1, 3, &mut gradient);
        assert!(!hit && loss > 3.0);
        for c in 0..4 {
            let at = |delta: f32| {
                let mut moved = logits;
                moved[c] += delta;
                cross_entropy(&moved, 1, 3, &mut [0f32; 4]).0 / 3.0
            };
            let h = 1.0 / 256.0;
            let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
            assert!((slope - f64::from(gradient[c])).abs() < 1e-5, "class {c}: {slope} against {}", gradient[c]);
        }
        assert!(gradient.iter().sum::<f32>().abs() < 1e-6);
    }

    #[test]
    fn ties_go_to_the_lowest_index_and_huge_logits_stay_finite() {
        let mut gradient = [0f32; 3];
        assert!(cross_entropy(&[1.0, 1.0, 0.0], 0, 1, &mut gradient).1);
        assert!(!cross_entropy(&[1.0, 1.0, 0.0], 1, 1, &mut gradient).1);
        assert_eq!(cross_entropy(&[1e30, 0.0, -1e30], 0, 1, &mut gradient).0, 0.0);
        assert!(cross_entropy(&[f32::NAN, 0.0, 1.0], 0, 1, &mut gradient).0.is_nan());
    }
}
