//! `bitpact accel compare`: devices by bit widths.

use anyhow::Result;
use bitpact::unstable::accel::{AreaTable, DEVICE_NAMES, Device, Estimate, Widths, resident_width};
use serde_json::{Value, json};

use super::{Bandwidth, NetworkArgs, bandwidth_name, device, parse_bandwidth};
use crate::exit::Usage;
use crate::out::{bytes, percent, print, table};

/// Compares devices and bit widths: throughput, use of the units, traffic, energy, throughput per area
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact accel compare resnet18
  bitpact accel compare alexnet --bits W8A8 --bits W4A4 --device pact-8 --device pact-4 --bandwidth 32")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Bits of weights and activations of a network of the zoo; more than once for several [default: W16A16 W8A8 W4A4
    /// W2A2]
    #[arg(long, value_name = "WxAy")]
    bits: Vec<Widths>,
    /// A built-in device or a TOML file; more than once for several [default: all that are built in]
    #[arg(long, value_name = "NAME|FILE")]
    device: Vec<String>,
    /// External bandwidth in GB/s, or `unlimited`, instead of the devices'
    #[arg(long, value_name = "GBPS", value_parser = parse_bandwidth, allow_hyphen_values = true)]
    bandwidth: Option<Bandwidth>,
    /// Images at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: u64,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

/// One device with one width; an impossible pair has its reason.
struct Cell {
    bits: String,
    estimate: Result<Estimate, String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let names: Vec<String> =
        if args.device.is_empty() { DEVICE_NAMES.map(str::to_owned).to_vec() } else { args.device.clone() };
    let bits = match (args.network.has_no_bits(), args.bits.is_empty()) {
        (true, true) => ["W16A16", "W8A8", "W4A4", "W2A2"].map(|b| b.parse().expect("a pair of widths")).to_vec(),
        _ => args.bits.clone(),
    };
    let workloads = args.network.workloads(&bits)?;
    if !(1..=1 << 16).contains(&args.batch) {
        return Err(Usage(format!("--batch {}: expected 1 to 65536", args.batch)).into());
    }
    let mut rows = Vec::new();
    for name in &names {
        let device = device(name, args.bandwidth)?;
        let cells = workloads.iter().enumerate().map(|(i, workload)| Cell {
            bits: bits.get(i).map_or("its own".to_owned(), Widths::to_string),
            estimate: Estimate::new(&device, workload, args.batch).map_err(|e| e.to_string()),
        });
        let cells: Vec<Cell> = cells.collect();
        let fits = if args.network.has_no_bits() { fits(&args.network, &device, args.batch)? } else { None };
        rows.push((device, cells, fits));
    }
    let network = &workloads[0].name;
    print(&if args.json { json_object(network, &rows).to_string() } else { text(network, &rows) })
}

type Row = (Device, Vec<Cell>, Option<u8>);

/// The largest width up to which everything stays on chip.
fn fits(network: &NetworkArgs, device: &Device, batch: u64) -> Result<Option<u8>> {
    let mut workloads = Vec::new();
    for bits in 1..=16 {
        workloads.push(network.at(Widths::same(bits).expect("1 to 16"))?);
    }
    Ok(resident_width(device, batch, |widths| Ok(workloads[usize::from(widths.weights()) - 1].clone()))?)
}

/// Transistors of all units, by the table of areas; `None` where units have several lanes, which share an adder.
fn transistors(device: &Device) -> Option<f64> {
    let units = (device.cores * device.rows * device.columns) as f64;
    (device.lanes == 1).then(|| units * AreaTable::committed().mac(device.units()))
}

fn json_object(network: &str, rows: &[Row]) -> Value {
    let entry = |device: &Device, cell: &Cell, fits: Option<u8>| match &cell.estimate {
        Ok(e) => json!({
            "device": device.name,
            "bits": cell.bits,
            "bandwidth_gbps": device.bandwidth_gbps,
            "images_per_s": e.images_per_s(),
            "utilization": e.utilization(device),
            "external_bytes": e.external_bytes(),
            "energy_j": e.energy_j,
            "all_on_chip": e.residency.is_whole(),
            "fits_on_chip_up_to_bits": fits,
            "unit_transistors": transistors(device),
        }),
        Err(reason) => json!({ "device": device.name, "bits": cell.bits, "impossible": reason }),
    };
    let entries = rows.iter().flat_map(|(device, cells, fits)| cells.iter().map(move |c| entry(device, c, *fits)));
    json!({ "network": network, "estimates": entries.collect::<Vec<_>>() })
}

fn text(network: &str, rows: &[Row]) -> String {
    let head =
        ["device", "bandwidth", "bits", "images/s", "used", "traffic", "mJ/image", "all on chip", "per Mtransistor"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut notes = String::new();
    for (device, cells, fits) in rows {
        for cell in cells {
            let mut line = vec![device.name.clone(), bandwidth_name(device.bandwidth_gbps), cell.bits.clone()];
            match &cell.estimate {
                Ok(e) => line.extend([
                    format!("{:.1}", e.images_per_s()),
                    percent(e.utilization(device)),
                    bytes(e.external_bytes()),
                    e.energy_j.map_or("-".to_owned(), |j| format!("{:.3}", j * 1e3 / e.batch as f64)),
                    if e.residency.is_whole() { "yes" } else { "no" }.to_owned(),
                    transistors(device).map_or("-".to_owned(), |t| format!("{:.1}", e.images_per_s() / (t * 1e-6))),
                ]),
                Err(reason) => {
                    line.push("-".to_owned());
                    notes += &format!("{} {}: {reason}\n", device.name, cell.bits);
                }
            }
            lines.push(line);
        }
        if let Some(bits) = fits {
            notes += &format!("{}: everything stays on chip up to {bits} bits\n", device.name);
        }
    }
    format!("{network}\n\n{}\n{notes}", table(&lines, &[0, 1, 2]))
}
