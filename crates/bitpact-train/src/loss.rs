//! The loss of one image of a batch, with its gradient.

mod cross_entropy;
mod dense;
mod softmax;

use crate::LossInput;
use cross_entropy::cross_entropy;
pub(crate) use dense::dense_loss;
pub use dense::{DenseLoss, Targets};
use softmax::{divergence, log_softmax};

/// Loss of `logits` as `input` says ([`LossInput`]) for image `i` of the batch with these `labels`, and whether the
/// largest logit (the lowest index winning ties) is the label's, of two mixed images the one's with the larger share.
/// `gradient[c]` is the loss's derivative by logit c, divided by the number of images.
pub(super) fn loss(
    logits: &[f32],
    channels: usize,
    labels: &[usize],
    i: usize,
    input: &LossInput,
    gradient: &mut [f32],
) -> (f64, bool) {
    let (batch, label) = (labels.len(), labels[i]);
    if let Some(targets) = &input.targets {
        return (dense_loss(logits, channels, targets, input.teacher, (i, batch), gradient), false);
    }
    if *input == LossInput::default() {
        return cross_entropy(logits, label, batch, gradient);
    }
    let share = f64::from(input.mixup.unwrap_or(256)) / 256.0;
    let other = labels[batch - 1 - i];
    let first = if share >= 0.5 { label } else { other };
    let hit = logits.iter().enumerate().all(|(c, &z)| z < logits[first] || (z == logits[first] && c >= first));
    let (smoothing, classes) = (f64::from(input.label_smoothing), logits.len() as f64);
    let one = |is: bool| f64::from(u8::from(is));
    let target = |c: usize| {
        (1.0 - smoothing) * (share * one(c == label) + (1.0 - share) * one(c == other)) + smoothing / classes
    };
    let weight = input.teacher.map_or(0.0, |teacher| f64::from(teacher.weight));
    let own = log_softmax(logits, 1.0);
    let mut loss = 0.0;
    for (c, g) in gradient.iter_mut().enumerate() {
        let q = target(c);
        loss -= q * own(c);
        *g = ((1.0 - weight) * (own(c).exp() - q) / batch as f64) as f32;
    }
    let Some(teacher) = input.teacher else { return (loss, hit) };
    let taught = &teacher.logits[i * logits.len()..(i + 1) * logits.len()];
    ((1.0 - weight) * loss + divergence(logits, taught, teacher, batch as f64, gradient), hit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TeacherInput;

    const LOGITS: [[f32; 4]; 3] = [[0.3, -1.25, 2.5, 0.0], [1.0, 1.0, -2.0, 0.5], [-0.5, 0.25, 0.0, 4.0]];
    const LABELS: [usize; 3] = [1, 0, 3];
    const TAUGHT: [f32; 12] = [0.0, 1.5, 1.0, -1.0, 2.0, -0.5, 0.25, 0.0, -3.0, 0.0, 1.0, 2.5];

    fn inputs() -> Vec<LossInput<'static>> {
        let teacher = |temperature, weight| Some(TeacherInput { logits: &TAUGHT, temperature, weight });
        let mut inputs = Vec::new();
        for label_smoothing in [0.0, 0.1] {
            for mixup in [None, Some(0), Some(77), Some(256)] {
                for teacher in [None, teacher(1.0, 1.0), teacher(4.0, 0.7)] {
                    inputs.push(LossInput { label_smoothing, mixup, teacher, targets: None });
                }
            }
        }
        inputs
    }

    #[test]
    fn every_gradient_matches_finite_differences() {
        for input in inputs() {
            for i in 0..3 {
                let mut gradient = [0f32; 4];
                loss(&LOGITS[i], 4, &LABELS, i, &input, &mut gradient);
                assert!(gradient.iter().sum::<f32>().abs() < 1e-6, "{input:?}");
                for c in 0..4 {
                    let at = |delta: f32| {
                        let mut moved = LOGITS[i];
                        moved[c] += delta;
                        loss(&moved, 4, &LABELS, i, &input, &mut [0f32; 4]).0 / 3.0
                    };
                    let h = 1.0 / 256.0;
                    let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
                    assert!((slope - f64::from(gradient[c])).abs() < 1e-5, "{input:?} class {c}: {slope}");
                }
            }
        }
    }

    #[test]
    fn without_any_switch_it_is_the_cross_entropy_and_hits_follow_the_larger_share() {
        let plain = LossInput { mixup: Some(256), ..LossInput::default() };
        for i in 0..3 {
            let (mut a, mut b) = ([0f32; 4], [0f32; 4]);
            let (soft, hard) =
                (loss(&LOGITS[i], 4, &LABELS, i, &plain, &mut a), cross_entropy(&LOGITS[i], LABELS[i], 3, &mut b));
            assert!((soft.0 - hard.0).abs() < 1e-12 && soft.1 == hard.1);
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-7));
        }
        let hit = |mixup| {
            loss(&[0.0, 0.0, 0.0, 1.0], 4, &LABELS, 0, &LossInput { mixup: Some(mixup), ..plain }, &mut [0f32; 4]).1
        };
        assert_eq!([256, 128, 127, 0].map(hit), [false, false, true, true], "image 0 has label 1, its partner 3");
        assert!(
            loss(&[f32::NAN, 0.0, 0.0, 1.0], 4, &LABELS, 0, &LossInput { mixup: Some(9), ..plain }, &mut [0f32; 4])
                .0
                .is_nan()
        );
    }

    /// Losses and gradients as PyTorch has them (tests/golden/switches.py).
    #[test]
    fn every_loss_is_pytorchs() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../tests/golden/switches.json")).unwrap();
        let value = |seed: usize, factor: f64| (factor * (0.9 * seed as f64 + 0.3).sin()) as f32;
        let logits: Vec<f32> = (100..120).map(|seed| value(seed, 2.0)).collect();
        let taught: Vec<f32> = (200..220).map(|seed| value(seed, 3.0)).collect();
        let cases = golden["losses"].as_array().unwrap();
        assert_eq!(cases.len(), 12);
        for case in cases {
            let number = |key: &str| case[key].as_f64().unwrap();
            let (temperature, weight) = (number("temperature") as f32, number("weight") as f32);
            let input = LossInput {
                label_smoothing: number("label_smoothing") as f32,
                mixup: Some(number("mixup") as u16),
                teacher: (weight > 0.0).then_some(TeacherInput { logits: &taught, temperature, weight }),
                targets: None,
            };
            let mut gradient = [0f32; 20];
            let rows = logits.chunks_exact(5).zip(gradient.chunks_exact_mut(5)).enumerate();
            let total: f64 = rows.map(|(i, (logits, g))| loss(logits, 5, &[3, 0, 4, 0], i, &input, g).0).sum();
            assert!((total / 4.0 - number("loss")).abs() < 1e-6, "{input:?}: {total}");
            for (g, wanted) in gradient.iter().zip(case["gradient"].as_array().unwrap()) {
                assert!((f64::from(*g) - wanted.as_f64().unwrap()).abs() < 1e-6, "{input:?}: {g} instead of {wanted}");
            }
        }
    }
}
