//! A network on machines that are only modelled.

use bitpact_accel::{Bound, DEVICE_NAMES, Device, Estimate, Workload};
use serde::Serialize;

use super::chart::{Chart, Ink, Line};
use super::curves::figure;
use super::{Figure, Network, Table, bytes, number, percent};
use crate::ReportError;

/// Columns of the table of devices.
const COLUMNS: [&str; 7] = ["Device", "Time", "Images/s", "Utilization", "Moved", "Energy", "Bound by"];

#[derive(Serialize)]
pub(super) struct View {
    devices: Option<Table>,
    roofline: Option<Figure>,
}

/// What the built-in devices make of an integer network, one image at a time; `None` of a float network.
pub(super) fn view(network: &Network) -> Result<Option<View>, ReportError> {
    let Some(integers) = &network.integers else { return Ok(None) };
    let Ok(workload) = Workload::integer(integers) else { return Ok(None) };
    let row = |name: &&str| {
        let device = Device::open(name).ok()?;
        let estimate = Estimate::new(&device, &workload, 1).ok()?;
        let bound = [Bound::Compute, Bound::Bandwidth, Bound::Latency];
        let bound = bound.into_iter().max_by(|a, b| estimate.share(*a).total_cmp(&estimate.share(*b)))?;
        Some(vec![
            device.name.clone(),
            format!("{} ms", number(1e3 * estimate.total_s)),
            number(estimate.images_per_s()),
            percent(estimate.utilization(&device)),
            bytes(estimate.external_bytes()),
            estimate.energy_j.map_or(String::new(), |joules| format!("{} mJ", number(1e3 * joules))),
            bound.to_string(),
        ])
    };
    let rows: Vec<Vec<String>> = DEVICE_NAMES.iter().filter_map(row).collect();
    let devices = (!rows.is_empty()).then(|| Table::new(&COLUMNS, rows));
    let roofline = network.device.as_ref().map(|device| roofline(device, &workload)).transpose()?.flatten();
    Ok(Some(View { devices, roofline }))
}

/// Layers below the roof of a device.
fn roofline(device: &Device, workload: &Workload) -> Result<Option<Figure>, ReportError> {
    let Ok(estimate) = Estimate::new(device, workload, 1) else { return Ok(None) };
    let moving = estimate.layers.iter().filter_map(|layer| {
        let moved = layer.weight_bytes + layer.activation_bytes;
        let is_point = layer.macs > 0 && moved > 0;
        is_point.then(|| (layer, (layer.macs as f64 / moved as f64, layer.macs as f64 / layer.time_s / 1e9)))
    });
    let moving: Vec<_> = moving.collect();
    let Some(gbps) = device.bandwidth_gbps.filter(|_| !moving.is_empty()) else { return Ok(None) };
    let peak = device.peak_macs_per_s() / 1e9;
    let knee = peak / gbps;
    let ends = moving.iter().fold((knee / 8.0, knee * 8.0), |(low, high), (_, p)| (p.0.min(low), p.0.max(high)));
    let roof = [ends.0, knee, ends.1].map(|x| (x, peak.min(gbps * x))).to_vec();
    let mut lines = vec![Line { name: "roof".to_owned(), ink: Ink::Text, points: roof, dots: false }];
    let n = moving.len();
    lines.extend(moving.into_iter().enumerate().map(|(i, (layer, point))| Line {
        name: layer.name.clone(),
        ink: Ink::depth(i, n),
        points: vec![point],
        dots: true,
    }));
    let chart = Chart {
        x: "multiply-adds per external byte".to_owned(),
        y: "billion multiply-adds a second".to_owned(),
        lines,
        log_y: true,
        log_x: true,
        floor: None,
    };
    let title = format!("Roofline of {}", device.name);
    let note = "Each dot is a layer that moves something; the closer to the roof, the better it uses the machine.";
    figure(&title, note, chart, true).map(Some)
}
