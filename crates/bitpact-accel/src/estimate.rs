//! Time, traffic and energy of a network on a device, layer by layer.
//!
//! A layer takes `max(compute, transfer) + latency` where transfers overlap with compute, `compute + transfer +
//! latency` where they do not; latency is the filling of the array and the device's fixed time of starting a layer.
//! Layers follow each other, batches too: the images of a batch arrive before its first layer, its logits leave after
//! the last, and neither overlaps with anything. Throughput is `batch / total`. Pools, additions, batch norms and
//! activations are taken to keep pace with the array.

use serde::Serialize;

use crate::residency::{choose, compute_s, spilled};
use crate::{AccelError, Dataflow, Device, Mapping, Overlap, Product, Residency, Widths, Workload};

/// The resource that a layer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// The array computes longest.
    Compute,
    /// Transfers take longest.
    Bandwidth,
    /// Starting takes longest.
    Latency,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Bound::Compute => "compute",
            Bound::Bandwidth => "bandwidth",
            Bound::Latency => "latency",
        })
    }
}

/// One product of a batch, or a pool that moves spilled tensors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerEstimate {
    /// Name of the layer.
    pub name: String,
    /// Name of the step it belongs to.
    pub step: String,
    /// Bits of the operands; `None` of a pool.
    pub widths: Option<Widths>,
    /// Multiply-adds of the batch.
    pub macs: u64,
    /// Cycles of the array.
    pub cycles: f64,
    /// Share of the units that work, 0 to 1.
    pub utilization: f64,
    /// Parts into which cores divide output tiles, and pixels.
    pub split: [u64; 2],
    /// Seconds of compute.
    pub compute_s: f64,
    /// Seconds of external transfers.
    pub transfer_s: f64,
    /// Seconds of starting.
    pub latency_s: f64,
    /// Seconds in all.
    pub time_s: f64,
    /// Bytes of weights moved.
    pub weight_bytes: u64,
    /// Bytes of activations moved.
    pub activation_bytes: u64,
    /// Whether the weights stay on chip.
    pub weights_on_chip: bool,
    /// The resource that the layer waits for.
    pub bound: Bound,
    /// Joules of the layer; `None` on devices without a table of energies.
    pub energy_j: Option<f64>,
}

/// A network on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Images of a batch.
    pub batch: u64,
    /// The layers in the order of computation.
    pub layers: Vec<LayerEstimate>,
    /// Bytes of images in and logits out, for a batch.
    pub end_bytes: u64,
    /// Seconds of moving them.
    pub ends_s: f64,
    /// Seconds of a batch.
    pub total_s: f64,
    /// The tensors and weights that stay on chip.
    pub residency: Residency,
    /// Joules of a batch; `None` on devices without a table of energies.
    pub energy_j: Option<f64>,
}

impl Estimate {
    /// Estimates `workload` on `device` with `batch` images at a time.
    ///
    /// # Errors
    /// A batch out of range, or a layer that the device cannot do.
    pub fn new(device: &Device, workload: &Workload, batch: u64) -> Result<Self, AccelError> {
        if !(1..=1 << 16).contains(&batch) {
            return Err(AccelError::Batch { got: batch });
        }
        let mappings = workload.products().map(|p| Mapping::new(device, p, batch)).collect::<Result<Vec<_>, _>>()?;
        let residency = choose(device, workload, &mappings, batch);
        let (of_products, of_pools) = spilled(workload, &residency.activations, batch);
        let mut layers = Vec::new();
        let mut n = 0;
        for (i, step) in workload.steps.iter().enumerate() {
            if of_pools[i] > 0 {
                layers.push(pool(device, &step.name, of_pools[i]));
            }
            for product in &step.products {
                let layer =
                    layer(device, product, &step.name, &mappings[n], residency.weights[n], of_products[n], batch);
                layers.push(layer);
                n += 1;
            }
        }
        let ends = [workload.tensors.first(), workload.tensors.last()];
        let end_bytes: u64 = ends.into_iter().flatten().map(|t| t.bytes() * batch).sum();
        let ends_s = device.transfer_s(end_bytes);
        let total_s = ends_s + layers.iter().map(|l| l.time_s).sum::<f64>();
        let energy_j = device.energy.map(|e| {
            layers.iter().filter_map(|l| l.energy_j).sum::<f64>() + end_bytes as f64 * e.external_pj_per_byte * 1e-12
        });
        Ok(Self { batch, layers, end_bytes, ends_s, total_s, residency, energy_j })
    }

    /// Images a second.
    pub fn images_per_s(&self) -> f64 {
        self.batch as f64 / self.total_s
    }

    /// Multiply-adds of a batch.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(|l| l.macs).sum()
    }

    /// Multiply-adds over what all units could have done in the whole time.
    pub fn utilization(&self, device: &Device) -> f64 {
        self.macs() as f64 / (device.peak_macs_per_s() * self.total_s)
    }

    /// Bytes moved to and from external memory for a batch.
    pub fn external_bytes(&self) -> u64 {
        self.end_bytes + self.layers.iter().map(|l| l.weight_bytes + l.activation_bytes).sum::<u64>()
    }

    /// Share of the time of layers with this bound, 0 to 1.
    pub fn share(&self, bound: Bound) -> f64 {
        self.layers.iter().filter(|l| l.bound == bound).fold(0.0, |sum, l| sum + l.time_s) / self.total_s
    }
}

fn pool(device: &Device, name: &str, bytes: u64) -> LayerEstimate {
    let transfer_s = device.transfer_s(bytes);
    LayerEstimate {
        name: name.to_owned(),
        step: name.to_owned(),
        widths: None,
        macs: 0,
        cycles: 0.0,
        utilization: 0.0,
        split: [1, 1],
        compute_s: 0.0,
        transfer_s,
        latency_s: 0.0,
        time_s: transfer_s,
        weight_bytes: 0,
        activation_bytes: bytes,
        weights_on_chip: true,
        bound: Bound::Bandwidth,
        energy_j: device.energy.map(|e| bytes as f64 * (e.external_pj_per_byte + e.on_chip_pj_per_byte) * 1e-12),
    }
}

fn layer(
    device: &Device,
    product: &Product,
    step: &str,
    mapping: &Mapping,
    weights_on_chip: bool,
    activation_bytes: u64,
    batch: u64,
) -> LayerEstimate {
    let weight_bytes = if weights_on_chip { 0 } else { product.weight_bytes() };
    let compute_s = compute_s(device, mapping);
    let transfer_s = device.transfer_s(weight_bytes + activation_bytes);
    let latency_s = mapping.fill_cycles / (device.frequency_ghz * 1e9) + device.layer_overhead_us * 1e-6;
    let bound = if latency_s > compute_s.max(transfer_s) {
        Bound::Latency
    } else if transfer_s > compute_s {
        Bound::Bandwidth
    } else {
        Bound::Compute
    };
    let overlapped = match device.overlap {
        Overlap::Layer => compute_s.max(transfer_s),
        Overlap::None => compute_s + transfer_s,
    };
    let macs = product.macs() * batch;
    LayerEstimate {
        name: product.name.clone(),
        step: step.to_owned(),
        widths: Some(product.widths),
        macs,
        cycles: mapping.cycles,
        utilization: mapping.utilization,
        split: [mapping.outputs, mapping.pixels],
        compute_s,
        transfer_s,
        latency_s,
        time_s: overlapped + latency_s,
        weight_bytes,
        activation_bytes,
        weights_on_chip,
        bound,
        energy_j: energy_j(device, mapping, macs, weight_bytes + activation_bytes),
    }
}

/// `macs * passes * (multiply * a * w + add * 32) + bytes * energy of a byte`.
fn energy_j(device: &Device, mapping: &Mapping, macs: u64, external_bytes: u64) -> Option<f64> {
    let e = device.energy?;
    let units = device.units();
    let area = f64::from(units.activations()) * f64::from(units.weights());
    let mac = e.multiply_pj_per_bit2 * area + e.add_pj_per_bit * 32.0;
    let pj = macs as f64 * mapping.passes as f64 * mac
        + mapping.on_chip_bytes * e.on_chip_pj_per_byte
        + mapping.local_bytes * e.local_pj_per_byte
        + external_bytes as f64 * (e.external_pj_per_byte + e.on_chip_pj_per_byte);
    Some(pj * 1e-12)
}

/// The point of a layer on the roofline: multiply-adds per external byte, and multiply-adds a second in the time it
/// takes. `None` of pools, and of layers that move nothing.
pub(crate) fn roofline_point(layer: &LayerEstimate) -> Option<(f64, f64)> {
    let bytes = layer.weight_bytes + layer.activation_bytes;
    (layer.macs > 0 && bytes > 0).then(|| (layer.macs as f64 / bytes as f64, layer.macs as f64 / layer.time_s))
}

/// The largest width from 16 down at which everything of a network stays on chip, given the workload of every width;
/// `None` where not even 1 bit does.
///
/// # Errors
/// Those of [`Estimate::new`].
pub fn resident_width(
    device: &Device,
    batch: u64,
    workload: impl Fn(Widths) -> Result<Workload, AccelError>,
) -> Result<Option<u8>, AccelError> {
    // Memory is the question, not what the units can do.
    let device = Device {
        activation_bits: 16,
        weight_bits: 16,
        dataflow: Dataflow::WeightStationary,
        bandwidth_gbps: None,
        ..device.clone()
    };
    for bits in (1..=16).rev() {
        let widths = Widths::same(bits).expect("1 to 16");
        if Estimate::new(&device, &workload(widths)?, batch)?.residency.is_whole() {
            return Ok(Some(bits));
        }
    }
    Ok(None)
}
