//! The accelerator model: hand-computed layers, properties, the paper's figure 6, impossible devices.

mod devices;
mod figure6;
mod layers;
mod properties;

use bitpact_accel::{Device, Product, Widths, Workload};
use bitpact_graph::{FirstLast, Graph, Shape, zoo};

/// A machine with round numbers: 4 cores of 2x4 units at 1 GHz, 1 GB/s.
const TOY: &str = r#"
name = "toy"
summary = "round numbers"
frequency_ghz = 1.0
cores = 4
rows = 2
columns = 4
dataflow = "weight-stationary"
activation_bits = 4
weight_bits = 4
wider = "linear"
on_chip_kib = 1024
bandwidth_gbps = 1.0
overlap = "layer"
activation_buffers = 1
"#;

fn toy() -> Device {
    Device::parse(TOY, "toy").unwrap()
}

fn widths(text: &str) -> Widths {
    text.parse().unwrap()
}

/// An ordinary convolution of `in_channels` to `out_channels` with a window of `window` positions and `pixels` output
/// pixels.
fn conv(in_channels: u64, out_channels: u64, window: u64, pixels: u64, bits: &str) -> Product {
    Product { name: "conv".to_owned(), groups: 1, in_channels, out_channels, window, pixels, widths: widths(bits) }
}

fn graph(name: &str) -> Graph {
    let small = ["cnn", "resnet20", "resnet20-b"].contains(&name);
    let (side, classes) = if small { (32, 10) } else { (224, 1000) };
    zoo::build(name, Shape::new(side, side, 3), classes).unwrap().unwrap()
}

fn workload(name: &str, bits: &str) -> Workload {
    Workload::uniform(&graph(name), widths(bits), FirstLast::Bits8).unwrap()
}
