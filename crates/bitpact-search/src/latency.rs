//! Measured times of layers: one image on one thread, by shape and widths, kept in a file.
//!
//! A time that was measured is taken as it is. Another is interpolated from the layers of the same form (window,
//! stride, dilation, grouping) and widths: the logarithm of the time of a multiply-add is the mean of theirs, weighted
//! by the inverse square of the distance in the logarithms of input channels, output channels and pixels (Shepard 1968,
//! doi 10.1145/800186.810616). [`LatencyTable::error`] says how far that is from what was measured.

mod measure;

use std::path::Path;

use bitpact_accel::Widths;
use bitpact_graph::{Conv, ConvTranspose, Op, Shape};
use bitpact_model::write_atomically;
use serde::{Deserialize, Serialize};

use crate::{Product, SearchError};

pub use measure::{measure_missing, network_seconds};

/// Times of layers on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyTable {
    /// Model of the processor.
    pub cpu: String,
    /// Instruction set of the kernels.
    pub isa: String,
    /// The measured layers.
    pub layers: Vec<Layer>,
    /// Nanoseconds of what is in no product of the network that is looked at.
    #[serde(skip)]
    pub rest_ns: f64,
}

/// One measured layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The operation, without its bias.
    pub op: Op,
    /// Rows, columns and channels of the input.
    pub input: [usize; 3],
    /// Whether it reads the image.
    pub image: bool,
    /// Bits of weights and codes, such as `W4A4`.
    pub widths: String,
    /// Nanoseconds of one image on one thread: the median of many runs.
    pub ns: f64,
}

/// How far interpolated times are from measured ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InterpolationError {
    /// Layers that could be left out and interpolated from the others.
    pub layers: usize,
    /// Median of `|interpolated / measured - 1|`.
    pub median: f64,
    /// The largest of them.
    pub largest: f64,
}

impl LatencyTable {
    /// A table without layers.
    pub fn new(cpu: impl Into<String>, isa: impl Into<String>) -> Self {
        Self { cpu: cpu.into(), isa: isa.into(), layers: Vec::new(), rest_ns: 0.0 }
    }

    /// Reads the file that [`LatencyTable::write`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, SearchError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SearchError::Read { path: path.to_owned(), source })?;
        let fail = |message: String| SearchError::Syntax { place: path.display().to_string(), message };
        let table: Self = serde_json::from_str(&text)
            .map_err(|error| fail(format!("no table of measured layers, which can be made anew: {error}")))?;
        for layer in &table.layers {
            let is_good = layer.op.is_product() && layer.ns.is_finite() && layer.ns > 0.0;
            let is_shape = layer.input.iter().all(|n| (1..=1 << 24).contains(n));
            if !is_good || !is_shape || layer.widths.parse::<Widths>().is_err() {
                return Err(fail(format!("{layer:?}: expected a product, its shape, widths and a positive time")));
            }
        }
        Ok(table)
    }

    /// Writes the table as JSON.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SearchError> {
        let text = serde_json::to_string_pretty(self).expect("plain values are JSON") + "\n";
        Ok(write_atomically(path, text.as_bytes())?)
    }

    /// The measured nanoseconds of `product`; `None` where it was not measured.
    pub fn measured_ns(&self, product: &Product, widths: Widths) -> Option<f64> {
        let (wanted, widths) = (key(product), widths.to_string());
        let is_it = |layer: &&Layer| layer.widths == widths && (layer.op, layer.input, layer.image) == wanted;
        self.layers.iter().find(is_it).map(|layer| layer.ns)
    }

    /// Seconds of `product`: measured, or interpolated between layers of its form and widths.
    ///
    /// # Errors
    /// A form or widths that no measured layer has.
    pub fn seconds(&self, product: &Product, widths: Widths) -> Result<f64, SearchError> {
        let ns = self.measured_ns(product, widths).or_else(|| {
            let (op, input, image) = key(product);
            let wanted = Layer { op, input, image, widths: widths.to_string(), ns: 0.0 };
            interpolated(&wanted, self.layers.iter())
        });
        ns.map(|ns| ns * 1e-9).ok_or_else(|| SearchError::NoFigure {
            layer: product.name.clone(),
            widths,
            model: format!("the table of {}", self.cpu),
            message: "no layer of its form was measured at these widths".to_owned(),
        })
    }

    /// Seconds of what is in no product.
    pub fn rest_s(&self) -> f64 {
        self.rest_ns * 1e-9
    }

    /// Leaves out one layer after the other and interpolates it; `None` where no layer has another of its form.
    pub fn error(&self) -> Option<InterpolationError> {
        let of = |(i, layer): (usize, &Layer)| {
            let others = self.layers.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| other);
            Some((interpolated(layer, others)? / layer.ns - 1.0).abs())
        };
        let mut errors: Vec<f64> = self.layers.iter().enumerate().filter_map(of).collect();
        errors.sort_by(f64::total_cmp);
        let largest = *errors.last()?;
        Some(InterpolationError { layers: errors.len(), median: errors[errors.len() / 2], largest })
    }
}

/// What a product is known by.
fn key(product: &Product) -> (Op, [usize; 3], bool) {
    let Shape { h, w, c } = product.input;
    (plain(product.op), [h, w, c], product.sources.is_empty())
}

/// A product without its bias, which costs nothing.
fn plain(op: Op) -> Op {
    match op {
        Op::Conv(conv) => Op::Conv(Conv { bias: false, ..conv }),
        Op::ConvTranspose(conv) => Op::ConvTranspose(ConvTranspose { bias: false, ..conv }),
        Op::Linear { out_features, .. } => Op::Linear { out_features, bias: false },
        other => other,
    }
}

/// The form of a layer without its sizes, and these: input channels of a group, output channels, pixels.
fn form_and_sizes(layer: &Layer) -> Option<(Op, bool, [f64; 3])> {
    let [h, w, c] = layer.input;
    let output = layer.op.output_shape("layer", &[Shape { h, w, c }]).ok()?;
    let groups = layer.op.groups();
    let is_depthwise = groups > 1 && groups == c;
    let one = |groups: usize| if is_depthwise { 0 } else { groups };
    let form = match layer.op {
        Op::Conv(conv) => {
            Op::Conv(Conv { out_channels: 1, groups: one(conv.groups), padding: Default::default(), ..conv })
        }
        Op::ConvTranspose(conv) => Op::ConvTranspose(ConvTranspose {
            out_channels: 1,
            groups: one(conv.groups),
            padding: Default::default(),
            ..conv
        }),
        _ => Op::Linear { out_features: 1, bias: false },
    };
    let is_linear = matches!(layer.op, Op::Linear { .. });
    let inputs = if is_linear { h * w * c } else { c / groups };
    Some((form, layer.image, [inputs as f64, output.c as f64, (output.h * output.w) as f64]))
}

/// Nanoseconds of a layer of the form and widths of `wanted`.
fn interpolated<'a>(wanted: &Layer, known: impl Iterator<Item = &'a Layer>) -> Option<f64> {
    let (form, image, sizes) = form_and_sizes(wanted)?;
    let work = |sizes: &[f64; 3]| sizes.iter().product::<f64>();
    let (mut sum, mut weights) = (0.0, 0.0);
    for layer in known.filter(|layer| layer.widths == wanted.widths) {
        let Some((_, _, other)) = form_and_sizes(layer).filter(|found| (found.0, found.1) == (form, image)) else {
            continue;
        };
        let distance: f64 = sizes.iter().zip(&other).map(|(a, b)| (a / b).ln().powi(2)).sum();
        let weight = 1.0 / distance.max(1e-9);
        sum += weight * (layer.ns / work(&other)).ln();
        weights += weight;
    }
    (weights > 0.0).then(|| (sum / weights).exp() * work(&sizes))
}

#[cfg(test)]
mod tests;
