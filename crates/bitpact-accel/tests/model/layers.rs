//! Layers small enough to compute by hand.

use bitpact_accel::{Bound, Dataflow, Device, Estimate, Mapping, Overlap, Product, Wider, Workload};
use bitpact_graph::{BitSpec, FirstLast, QuantConfig, QuantPlan};

use super::*;

fn map(device: &Device, product: &Product, batch: u64) -> Mapping {
    Mapping::new(device, product, batch).unwrap()
}

#[test]
fn weight_stationary_tiles_are_inputs_times_window_times_outputs() {
    // 3 inputs on 2 rows: 2 tiles; 9 positions; 10 outputs on 4 columns: 3 tiles; 64 pixels.
    // Cores: 3 parts of outputs by 1 of pixels: 2*9*1*64 = 1152; 1 by 4: 2*9*3*16 = 864; 2 by 2: 2*9*2*32 = 1152.
    let m = map(&toy(), &conv(3, 10, 9, 64, "W4A4"), 1);
    assert_eq!((m.cycles, m.outputs, m.pixels, m.passes), (864.0, 1, 4, 1));
    assert_eq!(m.fill_cycles, 5.0);
    assert_eq!(m.utilization, (3 * 10 * 9 * 64) as f64 / (864.0 * 32.0));
    // A batch of 3 has 192 pixels: 2*9*3*48.
    assert_eq!(map(&toy(), &conv(3, 10, 9, 64, "W4A4"), 3).cycles, 2592.0);
}

#[test]
fn a_tile_takes_at_least_the_loading_of_the_next() {
    // A linear layer: 8 inputs are 4 tiles, 16 outputs 4 tiles, one on each core; 1 pixel, but 2 rows to load.
    let m = map(&toy(), &conv(8, 16, 1, 1, "W4A4"), 1);
    assert_eq!((m.cycles, m.outputs), (4.0 * 2.0, 4));
    assert_eq!(m.utilization, 0.5);
}

#[test]
fn output_stationary_tiles_are_pixels_times_outputs() {
    let device = Device { dataflow: Dataflow::OutputStationary, lanes: 4, ..toy() };
    // 3*9 = 27 inputs over 4 lanes: 7 cycles; 64 pixels on 2 rows: 32 tiles; 10 outputs on 4 columns: 3 tiles.
    // 1 by 4 cores: 7*3*8 = 168; 3 by 1: 7*1*32 = 224.
    let m = map(&device, &conv(3, 10, 9, 64, "W4A4"), 1);
    assert_eq!((m.cycles, m.outputs, m.pixels), (168.0, 1, 4));
}

#[test]
fn groups_do_not_share_a_row_with_each_other() {
    let one = Device { cores: 1, rows: 8, ..toy() };
    let groups =
        |groups, in_channels, out_channels| Product { groups, ..conv(in_channels, out_channels, 9, 100, "W4A4") };
    // Depthwise: 4 channels lie on the diagonal of an 8x4 array, so 10 channels take 3 tiles of 9 positions.
    assert_eq!(map(&one, &groups(10, 1, 1), 1).cycles, 3.0 * 9.0 * 100.0);
    // Two groups of 8 to 8: one group at a time, 2 tiles of columns each.
    assert_eq!(map(&one, &groups(2, 8, 8), 1).cycles, 2.0 * 2.0 * 9.0 * 100.0);
    // Output-stationary: every group is a tile of its own.
    let output = Device { dataflow: Dataflow::OutputStationary, ..one };
    assert_eq!(map(&output, &groups(10, 1, 1), 1).cycles, 9.0 * 10.0 * 13.0);
    assert_eq!(groups(10, 1, 1).macs(), 10 * 9 * 100);
}

#[test]
fn each_operand_has_its_own_width() {
    let two = Device { activation_bits: 2, weight_bits: 2, ..toy() };
    let wide_activations = Device { activation_bits: 8, weight_bits: 2, ..toy() };
    let passes = |device: &Device, wider, bits: &str| {
        Device { wider, ..device.clone() }.passes(&conv(1, 1, 1, 1, bits)).unwrap()
    };
    let all = |device: &Device, bits: &str| [Wider::Linear, Wider::Product].map(|w| passes(device, w, bits));
    assert_eq!(all(&two, "W2A2"), [1, 1]);
    assert_eq!(all(&two, "W1A1"), [1, 1], "narrower operands gain nothing");
    assert_eq!(all(&two, "W2A8"), [4, 4]);
    assert_eq!(all(&two, "W8A8"), [4, 16]);
    assert_eq!(all(&two, "W3A8"), [4, 8]);
    assert_eq!(all(&wide_activations, "W2A8"), [1, 1]);
    assert_eq!(all(&wide_activations, "W8A2"), [4, 4]);
}

#[test]
fn time_is_the_larger_of_compute_and_transfer_and_the_image_comes_first() {
    // Memory for the activations alone: nothing of the weights stays.
    let device = toy();
    let work = workload("cnn", "W4A4");
    let estimate = Estimate::new(&device, &work, 1).unwrap();
    assert!(estimate.residency.is_whole());
    assert_eq!(estimate.end_bytes, 32 * 32 * 3 + 10 * 4);
    assert!((estimate.ends_s - 3112e-9).abs() < 1e-18);
    let sum: f64 = estimate.layers.iter().map(|l| l.time_s).sum();
    assert!((estimate.total_s - sum - estimate.ends_s).abs() < 1e-15);
    for layer in &estimate.layers {
        assert_eq!((layer.transfer_s, layer.bound == Bound::Bandwidth), (0.0, false), "{}", layer.name);
        assert_eq!(layer.time_s, layer.compute_s + layer.latency_s);
    }

    // Both activations of the widest step are 32*32*16 values of 4 bits, 8192 bytes, and the image is 3072.
    let small = Device { on_chip_kib: 17, ..toy() };
    let overlapped = Estimate::new(&small, &work, 1).unwrap();
    let residency = &overlapped.residency;
    assert!(!residency.is_whole());
    let on_chip = residency.activation_bytes + residency.weight_bytes + residency.staging_bytes;
    assert!(on_chip <= 17 << 10, "{residency:?}");
    for l in &overlapped.layers {
        let bytes = l.weight_bytes + l.activation_bytes;
        assert!((l.transfer_s - bytes as f64 * 1e-9).abs() < 1e-18, "{}", l.name);
        assert_eq!(l.time_s, l.compute_s.max(l.transfer_s) + l.latency_s);
        assert_eq!(l.weight_bytes > 0, !l.weights_on_chip);
    }
    let serial = Estimate::new(&Device { overlap: Overlap::None, ..small }, &work, 1).unwrap();
    assert!(serial.total_s > overlapped.total_s);
    for l in &serial.layers {
        assert_eq!(l.time_s, l.compute_s + l.transfer_s + l.latency_s);
    }
}

#[test]
fn a_fixed_time_of_starting_makes_small_layers_latency_bound() {
    let slow = Device { layer_overhead_us: 1000.0, ..toy() };
    let estimate = Estimate::new(&slow, &workload("cnn", "W4A4"), 1).unwrap();
    let linear = estimate.layers.last().unwrap();
    assert_eq!((linear.name.as_str(), linear.bound), ("linear", Bound::Latency));
    assert!(estimate.share(Bound::Latency) > 0.0);
}

#[test]
fn weights_are_moved_once_a_batch() {
    let device = Device { on_chip_kib: 64, ..toy() };
    let weights = |batch| {
        let estimate = Estimate::new(&device, &workload("resnet20", "W8A8"), batch).unwrap();
        estimate.layers.iter().map(|l| l.weight_bytes).sum::<u64>()
    };
    assert!(weights(1) > 0);
    let all = workload("resnet20", "W8A8").weight_bytes();
    assert!(weights(8) <= all, "{} of {all}", weights(8));
}

#[test]
fn first_and_last_layers_follow_their_policy() {
    let graph = graph("resnet20");
    let of = |bits: &str, policy| {
        let workload = Workload::uniform(&graph, widths(bits), policy).unwrap();
        let all: Vec<String> = workload.products().map(|p| p.widths.to_string()).collect();
        (all[0].clone(), all[1].clone(), all[all.len() - 1].clone())
    };
    let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(of("W2A2", FirstLast::Bits8), three("W8A8", "W2A2", "W8A8"));
    assert_eq!(of("W16A16", FirstLast::Bits8), three("W16A16", "W16A16", "W16A16"));
    assert_eq!(of("W2A4", FirstLast::Same), three("W2A4", "W2A4", "W2A4"));
    assert_eq!(of("W2A4", FirstLast::Float), three("W16A4", "W2A4", "W16A4"));
}

#[test]
fn a_plan_gives_every_product_its_own_bits() {
    let graph = graph("resnet20");
    let config = QuantConfig::new("W2A4".parse().unwrap());
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    let work = Workload::planned(&graph, &plan).unwrap();
    let bits: Vec<String> = work.products().map(|p| p.widths.to_string()).collect();
    assert_eq!((bits[0].as_str(), bits[1].as_str(), bits[19].as_str()), ("W8A8", "W2A4", "W8A8"));
    assert_eq!(work.macs(), 40_551_040);
    let float = QuantPlan::resolve(&graph, &QuantConfig { bits: BitSpec::Float, ..config }).unwrap();
    assert!(Workload::planned(&graph, &float).unwrap_err().to_string().contains("is float"));
}
