//! Metrics of outputs that are no row of logits.

use bitpact_data::{Dataset, IGNORED, TargetKind, Unit};
use serde::{Deserialize, Serialize};

/// One measure of the outputs for a set, by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name, such as `psnr`.
    pub name: String,
    /// Value of the metric on the set.
    pub value: f64,
}

impl Metric {
    fn new(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), value }
    }

    /// Tells whether a larger value is better.
    pub fn more_is_better(&self) -> bool {
        !matches!(self.name.as_str(), "mae" | "rmse") && self.of_number().is_none()
    }

    /// Name and unit of the number whose mean absolute error it is, of a metric called `mae of NAME in UNIT`.
    fn of_number(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("mae of ")?.rsplit_once(" in ")
    }

    /// The value so that more is better.
    pub fn score(&self) -> f64 {
        if self.more_is_better() { self.value } else { -self.value }
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((name, unit)) = self.of_number() {
            return write!(f, "{name} MAE {:.3} {unit}", self.value);
        }
        match self.name.as_str() {
            "psnr" => write!(f, "PSNR {:.2} dB", self.value),
            "ssim" => write!(f, "SSIM {:.4}", self.value),
            "miou" => write!(f, "mIoU {:.2} %", 100.0 * self.value),
            "pixels" => write!(f, "pixels {:.2} %", 100.0 * self.value),
            name => write!(f, "{} {:.4}", name.to_uppercase(), self.value),
        }
    }
}

/// Metrics of the output of one example, HWC, for its target: of a mask over the classes that occur in either. Empty
/// where the target is a class.
pub fn example_metrics(kind: TargetKind, channels: usize, output: &[f32], target: &[f32]) -> Vec<Metric> {
    let mut meter = Meter::new(kind, channels);
    meter.add(output, target);
    meter.metrics()
}

/// Outputs of a set, added up example by example.
#[derive(Debug)]
pub(crate) struct Meter {
    kind: TargetKind,
    channels: usize,
    /// Confusion matrix of masks, `[target][predicted]`.
    confusion: Vec<u64>,
    sums: [f64; 2],
    /// Absolute errors of each number, where they have units.
    errors: Vec<f64>,
    units: Vec<(String, Unit)>,
    examples: usize,
}

impl Meter {
    pub(crate) fn new(kind: TargetKind, channels: usize) -> Self {
        let confusion = vec![0; channels * channels];
        Self { kind, channels, confusion, sums: [0.0; 2], errors: Vec::new(), units: Vec::new(), examples: 0 }
    }

    /// A meter for the targets of `dataset`; numbers with units have an error each, in its unit.
    pub(crate) fn of(dataset: &dyn Dataset, channels: usize) -> Self {
        let names = dataset.class_names().iter().cloned();
        let units: Vec<_> = names.zip(dataset.units().iter().cloned()).collect();
        Self { errors: vec![0.0; units.len()], units, ..Self::new(dataset.target_kind(), channels) }
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
                self.errors.iter_mut().zip(differences()).for_each(|(sum, d)| *sum += d.abs());
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
                let own = self.units.iter().zip(&self.errors).map(|((name, unit), sum)| {
                    Metric::new(&format!("mae of {name} in {}", unit.name), unit.scale * sum / n)
                });
                let all = [Metric::new("mae", self.sums[0] / n), Metric::new("rmse", (self.sums[1] / n).sqrt())];
                all.into_iter().chain(own).collect()
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

        let units =
            [("a", 2.0), ("b", 10.0)].map(|(name, scale)| (name.to_owned(), Unit { name: "mmHg", zero: 5.0, scale }));
        let mut meter = Meter { errors: vec![0.0; 2], units: units.to_vec(), ..Meter::new(TargetKind::Numbers(2), 2) };
        meter.add(&[1.0, 2.0], &[0.0, 4.0]);
        meter.add(&[1.0, 1.0], &[1.0, 1.0]);
        let [mae, _, a, b] = &meter.metrics()[..] else { panic!("four metrics") };
        assert_eq!((mae.value, a.value, b.value), (0.75, 1.0, 10.0));
        assert_eq!(b.to_string(), "b MAE 10.000 mmHg");
        assert!(!a.more_is_better());

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
