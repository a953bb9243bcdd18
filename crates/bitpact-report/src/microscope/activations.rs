//! What activations see before they clip it, from the integer network itself.

use bitpact_data::Dataset;
use bitpact_engine::{Interpreter, Sums};
use bitpact_model::{IntegerEnd, IntegerModel};

use super::{Histogram, Noise};

/// Intervals of a histogram.
const INTERVALS: usize = 96;

/// One activation over some images. Values are real: codes times the step.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivationView {
    /// Name of the activation.
    pub name: String,
    /// Real value of one code.
    pub step: f64,
    /// Real values of the first and the last code.
    pub clips: [f64; 2],
    /// Values before rounding and clipping.
    pub histogram: Histogram,
    /// Share of the codes on each level.
    pub occupancy: Vec<f64>,
    /// Share of the values beyond the last level, or, of a signed activation, beyond either end.
    pub clipped: f64,
    /// Levels without a code.
    pub dead: usize,
    /// Signal over quantization error, in decibels: `10 log10(sum of y^2 / sum of (y - q)^2)`, where y is the value, of
    /// an unsigned activation 0 below 0, and q that of its code; `None` where there is no error or no signal.
    pub snr_db: Option<f64>,
}

/// One activation while it is looked at, in steps of its codes.
struct Counter {
    zero: f64,
    is_signed: bool,
    bounds: Vec<(i32, i32)>,
    histogram: Histogram,
    codes: Vec<u64>,
    clipped: u64,
    noise: Noise,
}

struct Listener<'a> {
    model: &'a IntegerModel,
    counters: Vec<Option<Counter>>,
}

impl Sums for Listener<'_> {
    fn computes(&self, _: usize, _: usize) -> bool {
        false
    }

    fn sums(&mut self, _: usize, _: usize, _: &[i64]) -> Vec<i64> {
        Vec::new()
    }

    fn told(&mut self, layer: usize, channel: usize, sum: i64) {
        let (Some(counter), Some(of)) = (&mut self.counters[layer], self.model.layers[layer].op.sum()) else { return };
        let (value, code) = (of.requant.before_rounding(sum), of.requant.code(channel, sum));
        let (low, high) = counter.bounds[channel.min(counter.bounds.len() - 1)];
        counter.histogram.add(value);
        counter.codes[code as usize] += 1;
        counter.clipped += u64::from(value > f64::from(high) || counter.is_signed && value < f64::from(low));
        let signal = if counter.is_signed { value } else { value.max(0.0) };
        counter.noise.add(signal - counter.zero, f64::from(code) - counter.zero);
    }
}

/// Every activation of `model` over the first `count` of `images`, computed by the interpreter.
pub fn activations(model: &IntegerModel, images: &dyn Dataset, count: usize) -> Vec<ActivationView> {
    let counters = model.layers.iter().map(|layer| {
        let sum = layer.op.sum().filter(|sum| sum.end == IntegerEnd::Codes && layer.lo == 0 && layer.hi > 0)?;
        let hi = f64::from(layer.hi);
        // Signed codes lie evenly about zero, so their largest is even; 2^bits - 1 never is.
        let is_signed = layer.hi % 2 == 0;
        let range = if is_signed { (-0.4 * hi, 1.4 * hi) } else { (-0.8 * hi, 1.8 * hi) };
        let bounds = if sum.requant.bounds.is_empty() { vec![(0, layer.hi)] } else { sum.requant.bounds.clone() };
        Some(Counter {
            zero: if is_signed { hi / 2.0 } else { 0.0 },
            is_signed,
            bounds,
            histogram: Histogram::new(range, INTERVALS),
            codes: vec![0; layer.hi as usize + 1],
            clipped: 0,
            noise: Noise::default(),
        })
    });
    let mut listener = Listener { model, counters: counters.collect() };
    let interpreter = Interpreter::new(model);
    let mut pixels = vec![0; images.bytes_shape().len()];
    for i in 0..count {
        images.image(i, &mut pixels);
        interpreter.run_with(&pixels, &mut listener);
    }
    let layers = model.layers.iter().zip(listener.counters);
    layers.filter_map(|(layer, counter)| Some(counter?.view(&layer.name, layer.scale))).collect()
}

impl Counter {
    fn view(self, name: &str, step: f64) -> ActivationView {
        let total = self.histogram.total().max(1) as f64;
        let real = |code: f64| (code - self.zero) * step;
        let (low, high) = self.histogram.range;
        let last = self.codes.len() - 1;
        let histogram = Histogram { range: (real(low), real(high)), ..self.histogram };
        ActivationView {
            name: name.to_owned(),
            step,
            clips: [real(0.0), real(last as f64)],
            histogram,
            clipped: self.clipped as f64 / total,
            dead: self.codes.iter().filter(|&&n| n == 0).count(),
            occupancy: self.codes.iter().map(|&n| n as f64 / total).collect(),
            snr_db: self.noise.db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::microscope::{Microscope, weights};
    use bitpact_data::{DatasetName, Limits, load};
    use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
    use bitpact_model::{InputDescription, Model, convert};

    fn network(bits: &str) -> Model {
        let graph = zoo::build("cnn", Shape::new(32, 32, 3), 10).unwrap().unwrap();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse().unwrap())).unwrap();
        let names = (0..10).map(|i| i.to_string()).collect();
        Model::random(graph, plan, InputDescription::uniform(3, 128, 1.0 / 64.0), names, 1).unwrap()
    }

    #[test]
    fn what_the_microscope_shows_of_codes_is_what_the_interpreter_computes() {
        let model = network("W2A2");
        let integers = convert(&model).unwrap().model;
        let images = load(DatasetName::Builtin, None, Limits { train: Some(1), test: Some(3) }).unwrap().test;
        let microscope = Microscope::new(&model, &integers, Some(&*images));
        assert!(microscope.images >= 1 && !microscope.activations.is_empty());
        let views = activations(&integers, &*images, 3);
        let mut pixels = vec![0; images.bytes_shape().len()];
        for view in views {
            let at = integers.layers.iter().position(|layer| layer.name == view.name).unwrap();
            let mut counts = vec![0.0; view.occupancy.len()];
            for i in 0..3 {
                images.image(i, &mut pixels);
                Interpreter::new(&integers).run(&pixels).tensors[at]
                    .iter()
                    .for_each(|&code| counts[code as usize] += 1.0);
            }
            let total: f64 = counts.iter().sum();
            let shares: Vec<f64> = counts.iter().map(|n| n / total).collect();
            assert_eq!(view.occupancy, shares, "{}", view.name);
            assert_eq!(view.histogram.total() as f64, total);
            assert_eq!(view.dead, shares.iter().filter(|&&share| share == 0.0).count());
            // Whatever lies half a step beyond the last level is on it.
            assert!(view.clipped <= shares[shares.len() - 1] && view.clips[0] == 0.0);
            assert!((view.clips[1] - view.step * (shares.len() - 1) as f64).abs() < 1e-9);
        }
    }

    #[test]
    fn more_bits_of_weights_make_less_error_and_every_weight_is_counted() {
        let snr = |bits: &str| {
            let views = weights(&network(bits));
            views.iter().for_each(|view| assert_eq!(view.histogram.total() as usize, view.count, "{}", view.name));
            let inner = views.iter().find(|view| view.bits.is_some_and(|bits| bits < 8)).unwrap().clone();
            let shares: f64 = inner.levels.iter().map(|(_, share)| share).sum();
            assert!((shares - 1.0).abs() < 1e-9);
            (inner.snr_db.unwrap(), inner.levels.len())
        };
        let (two, four) = (snr("W2A2"), snr("W4A4"));
        assert!(two.1 == 4 && four.1 == 16, "{two:?} {four:?}");
        // 6.02 dB a bit, of weights that fill their range.
        assert!((four.0 - two.0 - 12.0).abs() < 4.0, "{two:?} {four:?}");
    }
}
