use bitpact_accel::{Device, Estimate, Widths, Workload};
use bitpact_graph::{FirstLast, QuantConfig, QuantPlan};
use bitpact_search::{Bitwidths, Chip, Cost, Kind, Product};

use super::separable;

fn widths(text: &str) -> Widths {
    text.parse().unwrap()
}

fn cost(cost: &Cost, layer: usize, bits: &str) -> f64 {
    cost.product(&Product::all(&separable())[layer], widths(bits)).unwrap().unwrap()
}

#[test]
fn products_are_what_the_graph_says() {
    let products = Product::all(&separable());
    let kinds: Vec<Kind> = products.iter().map(|product| product.kind).collect();
    assert_eq!(kinds, [Kind::Conv, Kind::Depthwise, Kind::Conv, Kind::Linear]);
    let macs: Vec<u64> = products.iter().map(|product| product.macs).collect();
    // 3 * 3 * 3 * 16 * 32 * 32, 3 * 3 * 16 * 32 * 32, 16 * 32 * 16 * 16, 32 * 10.
    assert_eq!(macs, [442_368, 147_456, 131_072, 320]);
    let sources: Vec<usize> = products.iter().map(|product| product.sources.len()).collect();
    assert_eq!(sources, [0, 1, 1, 1]);
}

#[test]
fn counts_are_those_of_hand_computed_layers() {
    assert_eq!([0, 3].map(|layer| cost(&Cost::Parameters, layer, "W4A4")), [432.0, 330.0]);
    assert_eq!(cost(&Cost::Macs, 2, "W2A2"), 131_072.0);
    // 144 weights of 3 bits are 54 bytes, 320 of 5 bits 200, 432 of 8 bits 432.
    let bytes = [(1, "W3A8"), (3, "W5A8"), (0, "W8A8")].map(|(layer, bits)| cost(&Cost::Bytes, layer, bits));
    assert_eq!(bytes, [54.0, 200.0, 432.0]);
    assert_eq!(cost(&Cost::BitOperations, 2, "W3A5"), 131_072.0 * 15.0);
}

#[test]
fn mpic_takes_the_cycles_and_energy_of_its_table() {
    let mpic = Chip::built_in("mpic").unwrap();
    let seconds = |layer, bits| cost(&Cost::ChipLatency(mpic.clone()), layer, bits);
    assert_eq!(seconds(0, "W8A8"), 442_368.0 / 2.1 / 250e6);
    // (activations, weights) = (4, 2) does 3.9 a cycle, (2, 4) 4 a cycle.
    assert_eq!(seconds(2, "W2A4"), 131_072.0 / 3.9 / 250e6);
    assert_eq!(seconds(2, "W4A2"), 131_072.0 / 4.0 / 250e6);
    let energy = cost(&Cost::ChipEnergy(mpic.clone()), 2, "W2A2");
    let expected: f64 = 131_072.0 / 6.5 / 250e6 * 5.38e-3;
    assert!((energy / expected - 1.0).abs() < 1e-12);
    let message = mpic.cycles(&Product::all(&separable())[2], widths("W3A4")).unwrap_err().to_string();
    assert!(message.contains("layer `point` at W3A4: mpic has no figure") && message.contains("W2A4"), "{message}");
}

#[test]
fn gap8_takes_the_cycles_of_its_tiles() {
    let gap8 = Chip::built_in("gap8").unwrap();
    let products = Product::all(&separable());
    let cycles: Vec<f64> = products.iter().map(|product| gap8.cycles(product, widths("W8A8")).unwrap()).collect();
    // 16 * 4 * (2 * 27 + 4 * (15 + 14 * 7)); 4 * 4 * 1024 * 9; 8 * 2 * (2 * 16 + 8 * (15 + 14 * 4)); 16 * 3.
    assert_eq!(cycles, [32_384.0, 147_456.0, 9_600.0, 48.0]);
    assert_eq!(gap8.cycles(&products[2], widths("W2A2")).unwrap(), 9_600.0, "narrower codes gain nothing");
    assert!(gap8.cycles(&products[2], widths("W16A8")).unwrap_err().to_string().contains("up to 8 bits"));
    let seconds = cost(&Cost::ChipLatency(gap8), 2, "W8A8");
    assert!((seconds - 96e-6).abs() < 1e-15, "9600 cycles of 10 ns: {seconds}");
}

#[test]
fn ne16_takes_the_cycles_of_its_passes() {
    let ne16 = Chip::built_in("ne16").unwrap();
    let products = Product::all(&separable());
    let cycles = |layer: usize, bits: &str| ne16.cycles(&products[layer], widths(bits)).unwrap();
    // 11 * 11 tiles of one of 16 channels: load 6 + 25, fill 6, dot 6 + 16 * 8, index 2; scale 9 + 16, store 4 + 9.
    assert_eq!(cycles(0, "W8A8"), f64::from(121 * (31 + 6 + 134 + 2 + 25 + 13)));
    assert_eq!(cycles(0, "W2A8"), f64::from(121 * (31 + 6 + 38 + 2 + 25 + 13)));
    // Depthwise: fill 6 + 16.
    assert_eq!(cycles(1, "W4A8"), f64::from(121 * (31 + 22 + 70 + 2 + 25 + 13)));
    // 1x1 on 16 * 16 pixels, 32 channels: load 10 + 9, dot 6 + 32 at any bits.
    assert_eq!(cycles(2, "W8A8"), f64::from(36 * (19 + 6 + 38 + 2 + 41 + 13)));
    assert_eq!(cycles(2, "W2A2"), cycles(2, "W8A8"));
    // Ten outputs of two times 16 inputs.
    assert_eq!(cycles(3, "W8A8"), f64::from(2 * (19 + 6 + 16 + 2) + 19 + 13));
    // A window of 4x5 is one of 3x3 and eleven of 1x1.
    let mut five = products[0].clone();
    five.op =
        bitpact_graph::Op::Conv(bitpact_graph::Conv { kernel: [4, 5], ..bitpact_graph::Conv::square(16, 1, 1, 0) });
    let single = 121 * (19 + 6 + 22 + 2 + 25 + 13);
    assert_eq!(ne16.cycles(&five, widths("W8A8")).unwrap(), cycles(0, "W8A8") + f64::from(11 * single));
    assert!(ne16.cycles(&products[0], widths("W1A8")).unwrap_err().to_string().contains("weights of 2 to 8"));
    assert!(ne16.joules(&products[0], widths("W8A8")).unwrap_err().to_string().contains("no energies"));
}

#[test]
fn a_network_costs_what_its_layers_do() {
    let graph = separable();
    let mut config = QuantConfig { first_last: FirstLast::Bits8, ..QuantConfig::new("W2A4".parse().unwrap()) };
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    let (products, own) = (Product::all(&graph), Bitwidths::of(&plan));
    let of = |cost: Cost| cost.network(&graph, &products, &own).unwrap();
    assert_eq!(of(Cost::Bytes), 432.0 + 36.0 + 128.0 + 320.0);
    // The image has 8 bits, and so has the activation into the last layer.
    let expected = 442_368 * 64 + 147_456 * 8 + 131_072 * 8 + 320 * 64;
    assert_eq!(of(Cost::BitOperations), f64::from(expected));
    // Devices see the network as `bitpact accel model` does.
    for name in ["pact-4", "cortex-m4", "this-cpu"] {
        let device = Device::open(name).unwrap();
        let estimate = Estimate::new(&device, &Workload::planned(&graph, &plan).unwrap(), 1).unwrap();
        assert_eq!(of(Cost::DeviceLatency(device.clone())), estimate.total_s);
        if let Some(energy) = estimate.energy_j {
            assert_eq!(of(Cost::DeviceEnergy(device)), energy);
        }
    }
    // Weights that are trained in float32 have 16 bits afterwards.
    config.first_last = FirstLast::Float;
    let float = Bitwidths::of(&QuantPlan::resolve(&graph, &config).unwrap());
    assert_eq!((float.weights["conv1"], float.weights["point"]), (16, 2));
}

#[test]
fn chips_of_ones_own_are_checked() {
    let good = "name = \"c\"\nsummary = \"\"\nfrequency_mhz = 1.0\nmacs_per_cycle = { W4A4 = 2.0 }\n";
    let chip = Chip::parse(good, "c.toml").unwrap();
    assert_eq!(chip.cycles(&Product::all(&separable())[3], widths("W4A4")).unwrap(), 160.0);
    assert!(
        chip.joules(&Product::all(&separable())[3], widths("W4A4")).unwrap_err().to_string().contains("no energies")
    );
    for (from, to, says) in [
        ("1.0", "0.0", "frequency_mhz = 0"),
        ("1.0", "inf", "frequency_mhz"),
        ("W4A4 = 2.0", "W4A4 = -2.0", "macs_per_cycle.W4A4"),
        ("W4A4", "w4a4", "expected the form `W4A4`"),
        ("W4A4", "W99A4", "W99A4"),
        ("{ W4A4 = 2.0 }", "{}", "one of them"),
        ("summary", "sumary", "sumary"),
    ] {
        let message = Chip::parse(&good.replacen(from, to, 1), "c.toml").unwrap_err().to_string();
        assert!(message.starts_with("c.toml: ") && message.contains(says), "{message}");
    }
}
