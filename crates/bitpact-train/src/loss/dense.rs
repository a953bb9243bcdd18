//! Losses of outputs that are no row of logits: classes of pixels, images and numbers.

use bitpact_data::{IGNORED, TargetKind};
use serde::{Deserialize, Serialize};

use super::softmax::{divergence, log_softmax};
use crate::TeacherInput;

/// The loss of dense outputs. Each is the mean over the values, or pixels, of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DenseLoss {
    /// Cross entropy of the softmax over the channels of each pixel that is not ignored.
    #[serde(rename = "cross-entropy")]
    CrossEntropy,
    /// `-(1 - p)^2 log p` of each pixel's class (Lin et al. 2017, arXiv 1708.02002, gamma 2).
    #[serde(rename = "focal")]
    Focal,
    /// `1 - mean over classes of (2 sum p t + 1) / (sum p + sum t + 1)` with the softmax p and t = 1 at the pixels of
    /// the class, sums over the pixels of an example that are not ignored (Milletari et al. 2016, arXiv 1606.04797,
    /// section 3, without squares).
    #[serde(rename = "dice")]
    Dice,
    /// Mean absolute error, `|y - t|`.
    #[serde(rename = "l1")]
    L1,
    /// Mean squared error, `(y - t)^2`.
    #[serde(rename = "l2")]
    L2,
    /// `(y - t)^2 / 2` where that is less than 1/2, else `|y - t| - 1/2` (Girshick 2015, arXiv 1504.08083).
    #[serde(rename = "smooth-l1")]
    SmoothL1,
    /// `sqrt((y - t)^2 + 1e-6)` (Lai et al. 2017, arXiv 1710.01992).
    #[serde(rename = "charbonnier")]
    Charbonnier,
}

impl DenseLoss {
    /// Every loss of dense targets.
    pub const ALL: [Self; 7] =
        [Self::CrossEntropy, Self::Focal, Self::Dice, Self::L1, Self::L2, Self::SmoothL1, Self::Charbonnier];

    /// Names of the losses, in the order of [`DenseLoss::ALL`].
    pub const NAMES: [&str; 7] = ["cross-entropy", "focal", "dice", "l1", "l2", "smooth-l1", "charbonnier"];

    /// The name as typed.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The usual loss for targets of a kind: cross entropy for masks, L1 for images, L2 for numbers; none for classes,
    /// whose loss is the cross entropy of [`crate::LossInput`].
    pub fn usual(kind: TargetKind) -> Option<Self> {
        match kind {
            TargetKind::Class => None,
            TargetKind::Mask { .. } => Some(Self::CrossEntropy),
            TargetKind::Image(_) => Some(Self::L1),
            TargetKind::Numbers(_) => Some(Self::L2),
        }
    }

    /// Tells whether the loss is one of classes of pixels.
    pub fn is_of_classes(self) -> bool {
        matches!(self, Self::CrossEntropy | Self::Focal | Self::Dice)
    }

    /// Value and derivative for a difference `d = y - t`.
    fn of_difference(self, d: f64) -> (f64, f64) {
        match self {
            Self::L2 => (d * d, 2.0 * d),
            Self::SmoothL1 if d.abs() < 1.0 => (0.5 * d * d, d),
            Self::SmoothL1 => (d.abs() - 0.5, d.signum()),
            Self::Charbonnier => {
                let root = (d * d + 1e-6).sqrt();
                (root, d / root)
            }
            _ if d == 0.0 => (0.0, 0.0),
            _ => (d.abs(), d.signum()),
        }
    }
}

/// The dense targets of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Targets<'a> {
    /// The loss.
    pub loss: DenseLoss,
    /// Targets one after the other: classes of pixels, or values in the order of the output, HWC.
    pub values: &'a [f32],
}

/// Loss of the output of example `i` of a batch of `batch`, `[pixel][channel]` with `channels` channels. `gradient` is
/// the loss's derivative by each value, divided by the number of examples. With a teacher, `weight` of the loss
/// compares with its output instead: classes by the divergence of the softmax at the temperature, values by the same
/// loss.
pub(crate) fn dense_loss(
    output: &[f32],
    channels: usize,
    targets: &Targets,
    teacher: Option<TeacherInput>,
    (i, batch): (usize, usize),
    gradient: &mut [f32],
) -> f64 {
    let taught = teacher.map(|t| (t, &t.logits[i * output.len()..(i + 1) * output.len()]));
    let own = taught.map_or(1.0, |(t, _)| 1.0 - f64::from(t.weight));
    if !targets.loss.is_of_classes() {
        let target = &targets.values[i * output.len()..(i + 1) * output.len()];
        let (n, mut loss) = (output.len() as f64, 0.0);
        for (at, (&y, g)) in output.iter().zip(gradient).enumerate() {
            let (mut value, mut slope) = targets.loss.of_difference(f64::from(y) - f64::from(target[at]));
            if let Some((_, taught)) = taught {
                let (other, other_slope) = targets.loss.of_difference(f64::from(y) - f64::from(taught[at]));
                (value, slope) = (own * value + (1.0 - own) * other, own * slope + (1.0 - own) * other_slope);
            }
            loss += value / n;
            *g = (slope / n / batch as f64) as f32;
        }
        return loss;
    }
    let pixels = output.len() / channels;
    let target = &targets.values[i * pixels..(i + 1) * pixels];
    let counted = target.iter().filter(|&&class| class != IGNORED).count().max(1) as f64;
    let mut loss = 0.0;
    for (p, (z, g)) in output.chunks_exact(channels).zip(gradient.chunks_exact_mut(channels)).enumerate() {
        g.fill(0.0);
        if target[p] == IGNORED {
            continue;
        }
        let class = target[p] as usize;
        let log_p = log_softmax(z, 1.0);
        let (q, log) = (log_p(class).exp(), log_p(class));
        // dloss/dz_c = factor * (p_c - [c is the class]).
        let (value, factor) = match targets.loss {
            DenseLoss::Focal => {
                let rest = 1.0 - q;
                (-rest * rest * log, rest * rest - 2.0 * q * rest * log)
            }
            // Of all pixels together, below.
            DenseLoss::Dice => (0.0, 0.0),
            _ => (-log, 1.0),
        };
        loss += own * value / counted;
        for (c, g) in g.iter_mut().enumerate() {
            let is = f64::from(u8::from(c == class));
            *g = (own * factor * (log_p(c).exp() - is) / counted / batch as f64) as f32;
        }
        if let Some((teacher, taught)) = taught {
            let taught = &taught[p * channels..][..channels];
            loss += divergence(z, taught, teacher, counted * batch as f64, g) / counted;
        }
    }
    if targets.loss == DenseLoss::Dice {
        loss += own * dice(output, channels, target, own / batch as f64, gradient);
    }
    loss
}

/// The Dice loss of one example; adds its derivative by each output, times `scale`, to `gradient`.
fn dice(output: &[f32], channels: usize, target: &[f32], scale: f64, gradient: &mut [f32]) -> f64 {
    let pixels = || output.chunks_exact(channels).zip(target).filter(|(_, class)| **class != IGNORED);
    // By class: sum of p t, and of p and t.
    let (mut common, mut all) = (vec![0.0; channels], vec![0.0; channels]);
    for (z, &class) in pixels() {
        let log_p = log_softmax(z, 1.0);
        for c in 0..channels {
            all[c] += log_p(c).exp();
        }
        all[class as usize] += 1.0;
        common[class as usize] += log_p(class as usize).exp();
    }
    let ratio = |c: usize| (2.0 * common[c] + 1.0) / (all[c] + 1.0);
    let of_pixels = gradient.chunks_exact_mut(channels).zip(target).filter(|(_, class)| **class != IGNORED);
    for ((z, _), (g, &class)) in pixels().zip(of_pixels) {
        let log_p = log_softmax(z, 1.0);
        // d loss / d p_c, then through the softmax: dz_c = p_c (d_c - sum of p d).
        let slope = |c: usize| {
            let is = if c == class as usize { 2.0 } else { 0.0 };
            (ratio(c) - is) / (all[c] + 1.0) / channels as f64
        };
        let mean: f64 = (0..channels).map(|c| log_p(c).exp() * slope(c)).sum();
        for (c, g) in g.iter_mut().enumerate() {
            *g += (scale * log_p(c).exp() * (slope(c) - mean)) as f32;
        }
    }
    1.0 - (0..channels).map(ratio).sum::<f64>() / channels as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: [f32; 12] = [0.3, -1.25, 2.5, 0.0, 1.0, 1.0, -2.0, 0.5, -0.5, 0.25, 0.75, 4.0];
    const TAUGHT: [f32; 12] = [0.0, 1.5, 1.0, -1.0, 2.0, -0.5, 0.25, 0.0, -3.0, 0.0, 1.0, 2.5];

    #[test]
    fn the_dice_loss_of_certain_pixels_is_that_of_their_counts() {
        // Classes 0, 0 and 1, of which the second 0 is taken for 1: (2 + 1) / (3 + 1) and (2 + 1) / (3 + 1).
        let output = [50.0, -50.0, -50.0, 50.0, -50.0, 50.0, 3.0, 4.0];
        let targets = Targets { loss: DenseLoss::Dice, values: &[0.0, 0.0, 1.0, IGNORED] };
        let loss = dense_loss(&output, 2, &targets, None, (0, 1), &mut [0.0; 8]);
        assert!((loss - 0.25).abs() < 1e-9, "{loss}");
    }

    #[test]
    fn every_gradient_matches_finite_differences() {
        for loss in DenseLoss::ALL {
            // 4 pixels of 3 classes, one of them ignored, or 12 values.
            let values: Vec<f32> = match loss.is_of_classes() {
                true => vec![2.0, IGNORED, 0.0, 1.0],
                false => (0..12).map(|i| 0.3 * i as f32 - 1.0).collect(),
            };
            let targets = Targets { loss, values: &values };
            for teacher in [None, Some(TeacherInput { logits: &TAUGHT, temperature: 3.0, weight: 0.4 })] {
                let mut gradient = [0f32; 12];
                let of =
                    |output: &[f32], gradient: &mut [f32]| dense_loss(output, 3, &targets, teacher, (0, 2), gradient);
                of(&OUTPUT, &mut gradient);
                for at in 0..12 {
                    let moved = |delta: f32| {
                        let mut output = OUTPUT;
                        output[at] += delta;
                        of(&output, &mut [0f32; 12]) / 2.0
                    };
                    let h = 1.0 / 512.0;
                    let slope = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
                    assert!(
                        (slope - f64::from(gradient[at])).abs() < 2e-5,
                        "{} at {at}: {slope}, {}",
                        loss.name(),
                        gradient[at]
                    );
                }
            }
        }
    }
}
