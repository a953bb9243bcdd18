//! `bitpact accel model`: a network on a device, layer by layer.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bitpact::unstable::accel::{Bound, Comparison, Device, Estimate, LayerEstimate, Widths, Workload, charts, compare};
use bitpact::unstable::kernels::memory::read_at_most;
use serde_json::{Value, json};

use super::{Bandwidth, NetworkArgs, bandwidth_name, device, known_devices, parse_bandwidth, write_files};
use crate::out::{bytes, count, percent, print, table};

/// Estimates a network on a device: cycles, transfers, what stays on chip, what binds, energy, layer by layer
#[derive(clap::Args)]
#[command(after_help = format!("\
Devices: {}, or a TOML file.

Examples:
  bitpact accel model resnet50 --bits W4A4 --device pact-4 --bandwidth 32
  bitpact accel model mobilenet_v2 --bits W8A8 --device ethos-u65 --output charts
  bitpact accel model run/model.bitpact --device this-cpu --measured bench.json", known_devices()))]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Bits of weights and activations of a network of the zoo, 1 to 16 each [default: W4A4]
    #[arg(long, value_name = "WxAy")]
    bits: Option<Widths>,
    /// A built-in device or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    device: String,
    /// External bandwidth in GB/s, or `unlimited`, instead of the device's
    #[arg(long, value_name = "GBPS", value_parser = parse_bandwidth, allow_hyphen_values = true)]
    bandwidth: Option<Bandwidth>,
    /// Images at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: u64,
    /// JSON of a benchmark with an array `layers` of name, ms and macs: adds measured times and the error
    #[arg(long, value_name = "FILE")]
    measured: Option<PathBuf>,
    /// Folder for the roofline chart
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

/// Bytes of a file of measured times, at the most.
const MEASURED_BYTES: u64 = 1 << 20;

pub(crate) fn run(args: Args) -> Result<()> {
    let device = device(&args.device, args.bandwidth)?;
    let workload = args.network.workloads(args.bits.as_slice())?.remove(0);
    let estimate = Estimate::new(&device, &workload, args.batch)?;
    let comparison = match &args.measured {
        Some(file) => {
            let place = file.display().to_string();
            let bytes = read_at_most(file, MEASURED_BYTES).with_context(|| format!("{place}: cannot read"))?;
            Some(compare(&estimate, &String::from_utf8_lossy(&bytes), &place)?)
        }
        None => None,
    };
    if let Some(folder) = &args.output {
        write_files(folder, &[("roofline.svg", charts::roofline(&device, &workload.name, &estimate)?)])?;
    }
    if args.json {
        return print(&json_object(&device, &workload, &estimate, comparison.as_ref())?.to_string());
    }
    let mut text = layers(&estimate);
    text += "\n";
    text += &totals(&device, &workload, &estimate);
    if let Some(comparison) = comparison {
        text += "\n";
        text += &measured(&comparison);
    }
    print(&text)
}

fn json_object(
    device: &Device,
    workload: &Workload,
    estimate: &Estimate,
    comparison: Option<&Comparison>,
) -> Result<Value> {
    let residency = &estimate.residency;
    let mut object = json!({
        "network": workload.name,
        "device": device.name,
        "bandwidth_gbps": device.bandwidth_gbps,
        "batch": estimate.batch,
        "images_per_s": estimate.images_per_s(),
        "total_s": estimate.total_s,
        "macs": estimate.macs(),
        "utilization": estimate.utilization(device),
        "external_bytes": estimate.external_bytes(),
        "energy_j": estimate.energy_j,
        "weight_bytes": workload.weight_bytes(),
        "weight_bytes_on_chip": residency.weight_bytes,
        "activation_bytes_on_chip": residency.activation_bytes,
        "all_on_chip": residency.is_whole(),
        "layers": serde_json::to_value(&estimate.layers)?,
    });
    if let Some(comparison) = comparison {
        object["measured"] = serde_json::to_value(comparison)?;
    }
    Ok(object)
}

/// Seconds in a unit that suits them.
fn seconds(s: f64) -> String {
    match s {
        0.0 => "0".to_owned(),
        _ if s < 1e-4 => format!("{:.2} us", s * 1e6),
        _ if s < 1.0 => format!("{:.3} ms", s * 1e3),
        _ => format!("{s:.3} s"),
    }
}

fn layers(estimate: &Estimate) -> String {
    let head = ["layer", "bits", "macs", "used", "compute", "transfer", "time", "weights", "moved", "bound"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(estimate.layers.iter().map(|l: &LayerEstimate| {
        vec![
            l.name.clone(),
            l.widths.map_or(String::new(), |w| w.to_string()),
            count(l.macs),
            if l.macs > 0 { percent(l.utilization) } else { String::new() },
            seconds(l.compute_s),
            seconds(l.transfer_s),
            seconds(l.time_s),
            if l.macs == 0 {
                ""
            } else if l.weights_on_chip {
                "on chip"
            } else {
                "moved"
            }
            .to_owned(),
            bytes(l.weight_bytes + l.activation_bytes),
            l.bound.to_string(),
        ]
    }));
    table(&rows, &[0, 1])
}

fn totals(device: &Device, workload: &Workload, estimate: &Estimate) -> String {
    let residency = &estimate.residency;
    let shares = [Bound::Compute, Bound::Bandwidth, Bound::Latency];
    let shares = shares.map(|bound| format!("{bound} {}", percent(estimate.share(bound)))).join(", ");
    let kept = residency.activations.iter().filter(|&&kept| kept).count();
    let mut rows = vec![
        ("network", format!("{}, {} multiply-adds an image", workload.name, count(workload.macs()))),
        ("device", format!("{}, {}, batch {}", device.name, bandwidth_name(device.bandwidth_gbps), estimate.batch)),
        ("time", format!("{} a batch, {:.1} images/s", seconds(estimate.total_s), estimate.images_per_s())),
        ("units used", percent(estimate.utilization(device))),
        ("time by bound", shares),
        ("images and logits", format!("{}, {}", bytes(estimate.end_bytes), seconds(estimate.ends_s))),
        ("external traffic", bytes(estimate.external_bytes())),
        ("weights on chip", format!("{} of {}", bytes(residency.weight_bytes), bytes(workload.weight_bytes()))),
        (
            "activations on chip",
            format!(
                "{} of {} tensors, at most {}",
                kept,
                residency.activations.len(),
                bytes(residency.activation_bytes)
            ),
        ),
    ];
    if let Some(joules) = estimate.energy_j {
        rows.push(("energy", format!("{:.3} mJ an image", joules * 1e3 / estimate.batch as f64)));
    }
    rows.iter().map(|(key, value)| format!("{key:19}  {value}\n")).collect()
}

fn measured(comparison: &Comparison) -> String {
    let mut rows = vec![["layer", "predicted ms", "measured ms", "error"].map(str::to_owned).to_vec()];
    let row = |name: &str, predicted: f64, measured: f64, error: f64| {
        vec![name.to_owned(), format!("{predicted:.4}"), format!("{measured:.4}"), format!("{:+.1} %", error * 100.0)]
    };
    rows.extend(comparison.layers.iter().map(|l| row(&l.name, l.predicted_ms, l.measured_ms, l.error)));
    rows.push(row("sum", comparison.predicted_ms, comparison.measured_ms, comparison.error));
    let mut text = table(&rows, &[0]);
    text += &format!("mean absolute error of a layer: {}\n", percent(comparison.mean_absolute_error));
    if !comparison.not_predicted.is_empty() {
        text += &format!("measured, but not part of the model: {}\n", comparison.not_predicted.join(", "));
    }
    text
}
