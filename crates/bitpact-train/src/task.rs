//! What a run is for: the loss of an output that is no row of logits, and how good outputs are.

use bitpact_data::{IGNORED, TargetKind};
use serde::{Deserialize, Serialize};

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
    /// `|y - t|`.
    #[serde(rename = "l1")]
    L1,
    /// `(y - t)^2`.
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
    /// Every loss.
    pub const ALL: [Self; 6] = [Self::CrossEntropy, Self::Focal, Self::L1, Self::L2, Self::SmoothL1, Self::Charbonnier];

    /// Every name, in the order of [`DenseLoss::ALL`].
    pub const NAMES: [&str; 6] = ["cross-entropy", "focal", "l1", "l2", "smooth-l1", "charbonnier"];

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

    /// Whether the loss is one of classes of pixels.
    pub fn is_of_classes(self) -> bool {
        matches!(self, Self::CrossEntropy | Self::Focal)
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
        let probability = softmax(z, 1.0);
        let (q, log) = (probability(class).exp(), probability(class));
        // dloss/dz_c = factor * (p_c - [c is the class]).
        let (value, factor) = match targets.loss {
            DenseLoss::Focal => {
                let rest = 1.0 - q;
                (-rest * rest * log, rest * rest - 2.0 * q * rest * log)
            }
            _ => (-log, 1.0),
        };
        loss += own * value / counted;
        for (c, g) in g.iter_mut().enumerate() {
            let is = f64::from(u8::from(c == class));
            *g = (own * factor * (probability(c).exp() - is) / counted / batch as f64) as f32;
        }
        if let Some((teacher, taught)) = taught {
            let t = f64::from(teacher.temperature);
            let (theirs, ours) = (softmax(&taught[p * channels..][..channels], t), softmax(z, t));
            for (c, g) in g.iter_mut().enumerate() {
                let p = theirs(c).exp();
                if p > 0.0 {
                    loss += (1.0 - own) * t * t * p * (theirs(c) - ours(c)) / counted;
                }
                *g += ((1.0 - own) * t * (ours(c).exp() - p) / counted / batch as f64) as f32;
            }
        }
    }
    loss
}

/// The logarithm of the softmax of `z / temperature` by channel.
fn softmax(z: &[f32], temperature: f64) -> impl Fn(usize) -> f64 + '_ {
    let largest = z.iter().fold(f64::NEG_INFINITY, |most, &z| most.max(f64::from(z)));
    let sum: f64 = z.iter().map(|&z| ((f64::from(z) - largest) / temperature).exp()).sum();
    let total = sum.ln() + largest / temperature;
    move |c| f64::from(z[c]) / temperature - total
}

/// One measure of the outputs for a set, by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name, such as `psnr`.
    pub name: String,
    /// Value.
    pub value: f64,
}

impl Metric {
    fn new(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), value }
    }

    /// Whether a larger value is better.
    pub fn more_is_better(&self) -> bool {
        !matches!(self.name.as_str(), "mae" | "rmse")
    }

    /// The value so that more is better.
    pub fn score(&self) -> f64 {
        if self.more_is_better() { self.value } else { -self.value }
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "psnr" => write!(f, "PSNR {:.2} dB", self.value),
            "ssim" => write!(f, "SSIM {:.4}", self.value),
            "miou" => write!(f, "mIoU {:.2} %", 100.0 * self.value),
            "pixels" => write!(f, "pixels {:.2} %", 100.0 * self.value),
            name => write!(f, "{} {:.4}", name.to_uppercase(), self.value),
        }
    }
}

/// Outputs of a set, added up example by example.
#[derive(Debug)]
pub(crate) struct Meter {
    kind: TargetKind,
    channels: usize,
    /// Confusion matrix of masks, `[target][predicted]`.
    confusion: Vec<u64>,
    sums: [f64; 2],
    examples: usize,
}

impl Meter {
    pub(crate) fn new(kind: TargetKind, channels: usize) -> Self {
        Self { kind, channels, confusion: vec![0; channels * channels], sums: [0.0; 2], examples: 0 }
    }

    /// Adds an output, HWC, and its target.
    pub(crate) fn add(&mut self, output: &[f32], target: &[f32]) {
        self.examples += 1;
        match self.kind {
            TargetKind::Class => {}
            TargetKind::Mask { .. } => {
                for (z, &class) in
                    output.chunks_exact(self.channels).zip(target).filter(|(_, class)| **class != IGNORED)
                {
                    let best = (1..z.len()).fold(0, |best, c| if z[c] > z[best] { c } else { best });
                    self.confusion[class as usize * self.channels + best] += 1;
                }
            }
            TargetKind::Image(shape) => {
                let byte = |x: f32| f64::from((x * 255.0).round_ties_even().clamp(0.0, 255.0));
                let squares = output.iter().zip(target).map(|(&y, &t)| (byte(y) - byte(t)).powi(2));
                let mean = squares.sum::<f64>() / output.len() as f64;
                self.sums[0] += 10.0 * (255.0f64.powi(2) / mean.max(1e-3)).log10();
                self.sums[1] += ssim(output, target, (shape.h, shape.w, shape.c));
            }
            TargetKind::Numbers(_) => {
                let n = output.len() as f64;
                let differences = || output.iter().zip(target).map(|(&y, &t)| f64::from(y) - f64::from(t));
                self.sums[0] += differences().map(f64::abs).sum::<f64>() / n;
                self.sums[1] += differences().map(|d| d * d).sum::<f64>() / n;
            }
        }
    }

    /// The metrics, the one that counts first.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let n = self.examples.max(1) as f64;
        match self.kind {
            TargetKind::Class => Vec::new(),
            TargetKind::Mask { .. } => {
                let at = |t: usize, p: usize| self.confusion[t * self.channels + p] as f64;
                let all = || 0..self.channels;
                let union = |c: usize| all().map(|o| at(c, o) + at(o, c)).sum::<f64>() - at(c, c);
                // Classes that neither a target nor an output has count for nothing.
                let ious: Vec<f64> = all().filter(|&c| union(c) > 0.0).map(|c| at(c, c) / union(c)).collect();
                let right: f64 = all().map(|c| at(c, c)).sum();
                let pixels: u64 = self.confusion.iter().sum();
                let miou = ious.iter().sum::<f64>() / ious.len().max(1) as f64;
                vec![Metric::new("miou", miou), Metric::new("pixels", right / pixels.max(1) as f64)]
            }
            TargetKind::Image(_) => vec![Metric::new("psnr", self.sums[0] / n), Metric::new("ssim", self.sums[1] / n)],
            TargetKind::Numbers(_) => {
                vec![Metric::new("mae", self.sums[0] / n), Metric::new("rmse", (self.sums[1] / n).sqrt())]
            }
        }
    }
}

/// The mean structural similarity of two images over windows of 8x8 pixels, every fourth one (Wang et al. 2004, eq.
/// 13), of the mean of the channels, pixels from 0 to 1.
fn ssim(a: &[f32], b: &[f32], (h, w, c): (usize, usize, usize)) -> f64 {
    let (c1, c2, side) = (0.01f64.powi(2), 0.03f64.powi(2), 8.min(h).min(w));
    let grey =
        |x: &[f32], at: usize| x[at * c..][..c].iter().map(|&v| f64::from(v.clamp(0.0, 1.0))).sum::<f64>() / c as f64;
    let (mut sum, mut windows) = (0.0, 0.0);
    for top in (0..=h - side).step_by(4) {
        for left in (0..=w - side).step_by(4) {
            let places = || (0..side).flat_map(|y| (0..side).map(move |x| (top + y) * w + left + x));
            let n = (side * side) as f64;
            let (ma, mb) =
                (places().map(|p| grey(a, p)).sum::<f64>() / n, places().map(|p| grey(b, p)).sum::<f64>() / n);
            let (mut va, mut vb, mut cov) = (0.0, 0.0, 0.0);
            for p in places() {
                let (da, db) = (grey(a, p) - ma, grey(b, p) - mb);
                (va, vb, cov) = (va + da * da / n, vb + db * db / n, cov + da * db / n);
            }
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            windows += 1.0;
        }
    }
    sum / windows
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: [f32; 12] = [0.3, -1.25, 2.5, 0.0, 1.0, 1.0, -2.0, 0.5, -0.5, 0.25, 0.75, 4.0];
    const TAUGHT: [f32; 12] = [0.0, 1.5, 1.0, -1.0, 2.0, -0.5, 0.25, 0.0, -3.0, 0.0, 1.0, 2.5];

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

    #[test]
    fn metrics_of_known_outputs() {
        let mut meter = Meter::new(TargetKind::Mask { h: 1, w: 4 }, 3);
        let z = |class: usize| std::array::from_fn::<f32, 3, _>(|c| f32::from(u8::from(c == class)));
        meter.add([z(0), z(1), z(1), z(0)].as_flattened(), &[0.0, 1.0, 0.0, IGNORED]);
        // Class 0: 1 of 2, class 1: 1 of 2, class 2 is nowhere.
        let [miou, pixels] = &meter.metrics()[..] else { panic!("two metrics") };
        assert_eq!((miou.value, pixels.value), (0.5, 2.0 / 3.0));

        let mut meter = Meter::new(TargetKind::Numbers(2), 2);
        meter.add(&[1.0, 2.0], &[0.0, 4.0]);
        meter.add(&[1.0, 1.0], &[1.0, 1.0]);
        let [mae, rmse] = &meter.metrics()[..] else { panic!("two metrics") };
        assert_eq!((mae.value, rmse.value), (0.75, 1.25f64.sqrt()));
        assert!(mae.score() < 0.0 && !mae.more_is_better());

        let shape = bitpact_data::ImageShape { h: 8, w: 8, c: 1 };
        let (one, other): (Vec<f32>, Vec<f32>) =
            (0..64).map(|i| (i as f32 / 64.0, (i as f32 + 2.55 / 255.0 * 64.0) / 64.0)).unzip();
        let mut meter = Meter::new(TargetKind::Image(shape), 1);
        meter.add(&one, &one);
        meter.add(&one, &other);
        let [psnr, ssim] = &meter.metrics()[..] else { panic!("two metrics") };
        // Equal images count as 78.13 dB; a difference of 2 or 3 of 255 is about 40.
        assert!((psnr.value - (78.13 + 40.0) / 2.0).abs() < 0.6, "{}", psnr.value);
        assert!(ssim.value > 0.99 && ssim.value < 1.0, "{}", ssim.value);
    }
}
