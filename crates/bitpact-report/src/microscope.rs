//! What quantization does to each layer of a trained network: its weights on their grid, and what its activations see
//! before they are clipped, with the error that both make.

mod activations;
mod weights;

use bitpact_data::Dataset;
use bitpact_model::{IntegerModel, Model};

pub use activations::{ActivationView, activations};
pub use weights::{WeightView, weights};

/// Multiply-adds that the interpreter spends on the images it looks at: some seconds.
const MACS: u64 = 1 << 30;
/// Images it looks at, at the most.
const IMAGES: u64 = 32;

/// A network under the microscope.
#[derive(Debug, Clone, PartialEq)]
pub struct Microscope {
    /// Every convolution and linear layer, in the order of the graph.
    pub weights: Vec<WeightView>,
    /// Every activation, in the order of computation; empty where no images were given.
    pub activations: Vec<ActivationView>,
    /// Images that the activations were looked at with.
    pub images: usize,
}

impl Microscope {
    /// Looks at `model` and at `integers`, which it was converted to, with the first images of `images`, as many as the
    /// interpreter computes in some seconds and 32 at the most.
    pub fn new(model: &Model, integers: &IntegerModel, images: Option<&dyn Dataset>) -> Self {
        let macs: u64 = integers
            .layers
            .iter()
            .flat_map(|layer| {
                let pixels = (layer.shape.h * layer.shape.w) as u64;
                layer.op.products().map(move |product| product.codes.len() as u64 * pixels)
            })
            .sum();
        let count = images.map_or(0, |images| (MACS / macs.max(1)).clamp(1, IMAGES).min(images.len() as u64) as usize);
        let activations = images.map_or(Vec::new(), |images| activations(integers, images, count));
        Self { weights: weights(model), activations, images: count }
    }
}

/// Counts over equal intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Lower end of the first interval and upper end of the last.
    pub range: (f64, f64),
    /// Values in each interval.
    pub counts: Vec<u64>,
    /// Values below the first interval and above the last.
    pub outside: [u64; 2],
}

impl Histogram {
    pub(crate) fn new(range: (f64, f64), intervals: usize) -> Self {
        Self { range, counts: vec![0; intervals], outside: [0; 2] }
    }

    pub(crate) fn add(&mut self, value: f64) {
        let place = (value - self.range.0) / (self.range.1 - self.range.0) * self.counts.len() as f64;
        match place {
            place if place < 0.0 => self.outside[0] += 1,
            place if place >= self.counts.len() as f64 => self.outside[1] += 1,
            place => self.counts[place as usize] += 1,
        }
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.outside[0] + self.outside[1]
    }
}

/// Signal and error, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Noise {
    signal: f64,
    error: f64,
}

impl Noise {
    pub(crate) fn add(&mut self, signal: f64, quantized: f64) {
        self.signal += signal * signal;
        self.error += (signal - quantized) * (signal - quantized);
    }

    /// `10 log10(sum of x^2 / sum of (x - q)^2)`; `None` where one of them is 0.
    pub(crate) fn db(&self) -> Option<f64> {
        (self.signal > 0.0 && self.error > 0.0).then(|| 10.0 * (self.signal / self.error).log10())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_value_once() {
        let mut histogram = Histogram::new((-1.0, 1.0), 4);
        for value in [-1.5, -1.0, -0.6, 0.0, 0.49, 0.999, 1.0, f64::INFINITY] {
            histogram.add(value);
        }
        assert_eq!((histogram.counts.as_slice(), histogram.outside), (&[2, 0, 2, 1][..], [1, 2]));
        assert_eq!(histogram.total(), 8);
    }

    #[test]
    fn a_tenth_of_error_is_twenty_decibels() {
        let mut noise = Noise::default();
        assert_eq!(noise.db(), None);
        noise.add(1.0, 0.9);
        noise.add(-2.0, -2.2);
        assert!((noise.db().unwrap() - 20.0).abs() < 1e-9);
    }
}
