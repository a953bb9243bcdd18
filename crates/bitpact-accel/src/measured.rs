//! Predicted times beside measured ones.

use serde::{Deserialize, Serialize};

use crate::{AccelError, Estimate};

/// The part of a benchmark's JSON that is read; other keys are ignored.
#[derive(Deserialize)]
struct Benchmark {
    layers: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    name: String,
    ms: f64,
    #[serde(default)]
    macs: Option<u64>,
}

/// One layer's time, predicted and measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerComparison {
    /// Name of the layer.
    pub name: String,
    /// Predicted milliseconds of a batch.
    pub predicted_ms: f64,
    /// Measured milliseconds of a batch.
    pub measured_ms: f64,
    /// `predicted / measured - 1`.
    pub error: f64,
}

/// A network's times, predicted and measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Layers that are in both, in the order of the measurement.
    pub layers: Vec<LayerComparison>,
    /// Measured layers the model says nothing about, pools above all.
    pub not_predicted: Vec<String>,
    /// Predicted milliseconds of the layers in both.
    pub predicted_ms: f64,
    /// Measured milliseconds of the layers in both.
    pub measured_ms: f64,
    /// `predicted / measured - 1` of the sums.
    pub error: f64,
    /// Mean of the layers' absolute errors.
    pub mean_absolute_error: f64,
}

/// Compares `estimate` with the JSON `text` of a benchmark: an object whose array `layers` holds objects with `name`,
/// `ms` (milliseconds of a batch) and perhaps `macs`. A layer is known by the name of its product, or by that of its
/// step, which stands for all products of the step. `place` is what errors call the text.
///
/// # Errors
/// Text of another form, times that are not positive, multiply-adds other than the network's, a layer with
/// multiply-adds that the network does not have, or nothing in common.
pub fn compare(estimate: &Estimate, text: &str, place: &str) -> Result<Comparison, AccelError> {
    let fail = |message: String| AccelError::Measured { place: place.to_owned(), message };
    let benchmark: Benchmark = serde_json::from_str(text)
        .map_err(|e| fail(format!("expected an object with an array `layers` of name, ms and macs: {e}")))?;
    let mut layers = Vec::new();
    let mut not_predicted = Vec::new();
    for Measured { name, ms, macs } in benchmark.layers {
        let by_product = |l: &&crate::LayerEstimate| l.name == name;
        let by_step = |l: &&crate::LayerEstimate| l.step == name;
        let mut of: Vec<_> = estimate.layers.iter().filter(by_product).collect();
        if of.is_empty() {
            of = estimate.layers.iter().filter(by_step).collect();
        }
        if of.is_empty() {
            if macs.is_some_and(|macs| macs > 0) {
                return Err(fail(format!("layer `{name}`: the network has no such layer")));
            }
            not_predicted.push(name);
            continue;
        }
        if !(ms.is_finite() && ms > 0.0) {
            return Err(fail(format!("layer `{name}`: ms = {ms}, expected a positive number")));
        }
        let predicted: u64 = of.iter().map(|l| l.macs).sum();
        // A profile may count one image or the whole batch.
        if let Some(macs) = macs.filter(|&macs| macs != predicted && macs * estimate.batch != predicted) {
            return Err(fail(format!("layer `{name}`: macs = {macs}, the network has {predicted} for the batch")));
        }
        let predicted_ms = of.iter().map(|l| l.time_s).sum::<f64>() * 1e3;
        layers.push(LayerComparison { name, predicted_ms, measured_ms: ms, error: predicted_ms / ms - 1.0 });
    }
    if layers.is_empty() {
        return Err(fail("no layer of the network".to_owned()));
    }
    let predicted_ms: f64 = layers.iter().map(|l| l.predicted_ms).sum();
    let measured_ms: f64 = layers.iter().map(|l| l.measured_ms).sum();
    let mean_absolute_error = layers.iter().map(|l| l.error.abs()).sum::<f64>() / layers.len() as f64;
    let error = predicted_ms / measured_ms - 1.0;
    Ok(Comparison { layers, not_predicted, predicted_ms, measured_ms, error, mean_absolute_error })
}
