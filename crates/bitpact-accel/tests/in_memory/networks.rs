//! Whole networks: bit-exact on ideal arrays, the same for any number of threads, and by both methods.

use bitpact_accel::in_memory::{
    Cell, ChipLayer, CountLayer, CountTable, Encoding, Layer, Method, Options, Simulation, array_layers, study,
};
use bitpact_core::ActQuant;
use bitpact_core::rng::Key;
use bitpact_engine::Interpreter;
use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::Pool;
use bitpact_model::{InputDescription, IntegerModel, Model, convert};

fn network(arch: &str, bits: &str, divisor: usize) -> IntegerModel {
    network_of(arch, QuantConfig::new(bits.parse().unwrap()), divisor)
}

fn network_of(arch: &str, config: QuantConfig, divisor: usize) -> IntegerModel {
    let graph = zoo::build(arch, Shape::new(16, 16, 3), 6).unwrap().unwrap().narrowed(divisor).unwrap();
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    let input = InputDescription::uniform(3, 120, 1.0 / 64.0);
    let names = (0..6).map(|c| format!("class {c}")).collect();
    convert(&Model::random(graph, plan, input, names, 1).unwrap()).unwrap().model
}

fn images(model: &IntegerModel, n: usize) -> Vec<u8> {
    (0..n * model.input_shape.elements()).map(|i| Key::new(3).u64(i as u64) as u8).collect()
}

fn options(method: Method, ends: bool) -> Options {
    Options { chips: 2, seed: 1, method, ends, threads: 1 }
}

#[test]
fn networks_on_ideal_arrays_give_the_engines_codes() {
    for (arch, bits, act_quant) in [
        ("resnet20-b", "W1A1", ActQuant::Pact),
        ("resnet20-b", "W1A1", ActQuant::Sign),
        ("resnet8", "W4A4", ActQuant::Pact),
        ("mobilenet_v2", "W3A5", ActQuant::Pact),
        ("preact_resnet20", "W2A2", ActQuant::Pact),
    ] {
        let model = network_of(arch, QuantConfig { act_quant, ..QuantConfig::new(bits.parse().unwrap()) }, 4);
        let pixels = images(&model, 1);
        let expected = Interpreter::new(&model).run(&pixels);
        for encoding in [Encoding::Differential, Encoding::And, Encoding::Match] {
            for (rows, method) in [(8, Method::Cells), (64, Method::Cells), (32, Method::Counts)] {
                if method == Method::Counts && bits != "W1A1" {
                    continue;
                }
                let mut cell = Cell::open("stride-xnor").unwrap();
                cell.encoding = encoding;
                let cell = cell.with_rows(rows).unwrap().ideal();
                let simulation = Simulation::new(&model, &cell, &options(method, true)).unwrap();
                let chip = simulation.chip(0, &Pool::new(1));
                assert!(
                    simulation.trace(&chip, &pixels) == expected,
                    "{arch} {bits} {act_quant}, {encoding:?}, {rows} rows, {method:?}"
                );
            }
        }
    }
}

/// Layers that read signs map as unsigned ones of 1 bit: word lines are driven where the input is +1, and the sums of
/// -1 and +1 are in the constants of the layer.
#[test]
fn signs_are_driven_as_their_codes_of_0_and_1() {
    let model = network_of(
        "resnet8",
        QuantConfig { act_quant: ActQuant::Sign, ..QuantConfig::new("W1A1".parse().unwrap()) },
        4,
    );
    let layers = array_layers(&model, false).unwrap();
    assert!(layers.len() >= 8 && layers.iter().all(|layer| (layer.input_bits, layer.weight_bits) == (1, 1)));
    let products = model.layers.iter().flat_map(|layer| layer.op.products());
    assert!(products.filter(|product| product.input > 0).all(|product| product.padding_code == 0), "padding is -1");
}

#[test]
fn the_seed_decides_the_study_and_threads_do_not() {
    let model = network("resnet8", "W1A1", 4);
    let pixels = images(&model, 6);
    let length = model.input_shape.elements();
    let exact: Vec<i64> =
        pixels.chunks(length).flat_map(|p| Interpreter::new(&model).run(p).logits().to_vec()).collect();
    for (method, rows) in [(Method::Cells, 8), (Method::Counts, 16)] {
        let cell = Cell::open("2t2mtj").unwrap().with_sigma(0.05).unwrap().with_rows(rows).unwrap();
        let run = |threads, seed| {
            let options = Options { threads, seed, ..options(method, true) };
            study(&model, &cell, &options, &pixels, &exact, &[0, 1, 2, 3, 4, 5], &|_| {}).unwrap()
        };
        let one = run(1, 1);
        assert_eq!(run(3, 1), one);
        assert_eq!((one.images, one.chips.len()), (6, 2));
        assert!(one.layers.iter().all(|layer| (0.0..=1.0).contains(&layer.activity) && layer.cost.energy_nj() > 0.0));
        if method == Method::Cells {
            assert!(one.errors().rate() > 0.01 && run(1, 2).errors() != one.errors());
        }
    }
}

/// The table says of every count what new cells give: against the error rates of drawn columns, weighted by how often
/// fair bits give each number of driven rows.
#[test]
fn the_table_of_errors_by_count_is_that_of_drawn_columns() {
    for (name, rows) in [("2t2mtj", 8), ("2t2mtj", 64), ("1t1mtj", 16), ("crest", 64)] {
        for encoding in [Encoding::Differential, Encoding::And, Encoding::Match] {
            let mut cell = Cell::open(name).unwrap().with_sigma(0.05).unwrap();
            cell.encoding = encoding;
            let mut cell = cell.with_rows(rows).unwrap().with_adc_bits(7).unwrap();
            cell.adc.offset_sigma = 0.1;
            let table = CountTable::new(&cell);
            let choose = |n: usize, k: usize| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
            let pairs = (0..=rows).flat_map(|p| (0..=rows - p).map(move |m| (p, m)));
            let share = |p: usize, m: usize| match encoding {
                Encoding::Match => {
                    if p + m == rows {
                        choose(rows, p) * 0.5f64.powi(rows as i32)
                    } else {
                        0.0
                    }
                }
                _ => {
                    choose(rows, p)
                        * choose(rows - p, m)
                        * 0.25f64.powi((p + m) as i32)
                        * 0.5f64.powi((rows - p - m) as i32)
                }
            };
            let expected: f64 = pairs.map(|(p, m)| share(p, m) * table.error_rate(p, m)).sum();
            let got = bitpact_accel::in_memory::count_error_rate(&cell, 4000, Key::new(2));
            assert!((got - expected).abs() < 0.025, "{name}, {rows} rows, {encoding:?}: {got}, expected {expected}");
        }
    }
}

/// The two methods' sums are off by as much: over all reads, in the mean over inputs, which is what a chip's frozen
/// cells leave, and together for windows that have four fifths of their inputs in common, as neighbours have; for fair
/// inputs, and for rows of which some are driven nearly always and others hardly ever.
#[test]
fn both_methods_have_the_same_errors_frozen_and_fresh() {
    let key = Key::new(4);
    let (inputs, channels, windows) = (64, 40, 300);
    let bit = |key: Key, i: usize| key.u64(i as u64) >> 63 == 1;
    let layer = Layer {
        name: "linear".to_owned(),
        layer: 0,
        which: 0,
        out_channels: channels,
        inputs,
        window: inputs,
        group_channels: channels,
        pixels: 1,
        codes: (0..channels * inputs).map(|i| if bit(key.with("w"), i) { 1 } else { -1 }).collect(),
        grid: bitpact_core::Grid::WithoutZero,
        weight_bits: 1,
        input_bits: 1,
        bounds: vec![(i64::MIN, i64::MAX); channels],
        is_end: false,
    };
    for is_fair in [true, false] {
        let share = |r: usize| if is_fair { 0.5 } else { [0.97, 0.05, 0.02, 0.3, 0.02, 0.9, 0.1, 0.02][r * 5 % 8] };
        let mut x = vec![0; windows * inputs];
        for i in 0..x.len() {
            let is_kept = i >= inputs && key.with("kept").uniform(i as u64) < 0.8;
            x[i] = if is_kept { x[i - inputs] } else { i64::from(key.with("x").uniform(i as u64) < share(i % inputs)) };
        }
        compare(&layer, &x);
    }
}

fn compare(layer: &Layer, windows: &[i64]) {
    let (inputs, channels) = (layer.inputs, layer.out_channels);
    let sum = |x: &[i64], o: usize| x.iter().zip(layer.channel(o)).map(|(a, &q)| a * i64::from(q)).sum::<i64>();
    let exact: Vec<i64> = windows.chunks(inputs).flat_map(|x| (0..channels).map(move |o| sum(x, o))).collect();
    let errors = |sums: &[i64]| {
        let off: Vec<f64> = sums.iter().zip(&exact).map(|(a, b)| (a - b) as f64).collect();
        let mean = |o: usize| off.iter().skip(o).step_by(channels).sum::<f64>() / (off.len() / channels) as f64;
        let frozen = (0..channels).map(|o| mean(o).powi(2)).sum::<f64>() / channels as f64;
        let shared = off.iter().zip(&off[channels..]).map(|(a, b)| a * b).sum::<f64>();
        [off.iter().map(|x| x * x).sum::<f64>() / off.len() as f64, frozen, shared / (off.len() - channels) as f64]
    };
    for (name, encoding) in [("2t2mtj", Encoding::Differential), ("1t1mtj", Encoding::And), ("2t2mtj", Encoding::Match)]
    {
        let mut cell = Cell::open(name).unwrap().with_sigma(0.05).unwrap();
        cell.encoding = encoding;
        let cell = cell.with_rows(64).unwrap().with_adc_bits(7).unwrap();
        let table = CountTable::new(&cell);
        let (mut cells, mut counts) = ([0.0; 3], [0.0; 3]);
        for chip in 0..40 {
            let key = Key::new(9).at(chip);
            for (sums, add) in [
                (ChipLayer::new(&cell, layer, key).sums(windows), &mut cells),
                (CountLayer::new(&table, layer, key).sums(&table, windows), &mut counts),
            ] {
                errors(&sums).iter().zip(add.iter_mut()).for_each(|(e, sum)| *sum += e);
            }
        }
        for (a, b) in cells.iter().zip(counts) {
            assert!((a / b - 1.0).abs() < 0.08, "{encoding:?}: {cells:?} {counts:?}");
        }
    }
}

#[test]
fn what_cannot_be_mapped_is_told() {
    let model = network("resnet8", "W4A4", 4);
    let layers: Vec<Layer> = array_layers(&model, false).unwrap();
    assert!(layers.iter().all(|layer| !layer.is_end) && layers.len() + 2 == array_layers(&model, true).unwrap().len());
    let ends = IntegerModel { layers: model.layers[..1].to_vec(), ..model.clone() };
    let told = array_layers(&ends, false).unwrap_err().to_string();
    assert!(told.contains("on arrays: it has no layer between its first and its last one"), "{told}");
    let mut negative = model.clone();
    negative.layers[0].lo = -3;
    let told = array_layers(&negative, true).unwrap_err().to_string();
    assert!(told.contains("cannot be mapped on arrays: reads values of -3 to"), "{told}");
    let mut wide = model.clone();
    wide.layers[0].hi = 1 << 17;
    let told = array_layers(&wide, true).unwrap_err().to_string();
    assert!(told.contains("reads values of 18 bits, expected at most 16"), "{told}");
    for (bits, rows) in [("W4A4", 64), ("W1A1", 8)] {
        let (model, cell) = (network("resnet8", bits, 4), Cell::open("crest").unwrap().with_rows(rows).unwrap());
        let told = Simulation::new(&model, &cell, &options(Method::Counts, false)).err().unwrap().to_string();
        assert!(told.contains("holds for inputs and weights of 1 bit and reads of more than 8 rows"), "{told}");
    }
    let huge = Layer { out_channels: 1 << 20, ..array_layers(&model, false).unwrap().remove(0) };
    let cell = Cell::open("crest").unwrap().with_rows(64).unwrap();
    assert!(
        ChipLayer::bytes(&cell, &huge) > 4 << 30 && CountLayer::bytes(&cell, &huge) < ChipLayer::bytes(&cell, &huge)
    );
}

/// Worked by hand: 72 inputs of 4 bits and 16 channels of 4-bit weights on 64x64 arrays with 8 rows at once.
#[test]
fn the_cost_of_a_layer_is_that_worked_by_hand() {
    let cell = Cell::open("crest").unwrap();
    let layer = Layer {
        name: "conv".to_owned(),
        layer: 0,
        which: 0,
        out_channels: 16,
        inputs: 72,
        window: 72,
        group_channels: 16,
        pixels: 10,
        codes: vec![1; 16 * 72],
        grid: bitpact_core::Grid::WithoutZero,
        weight_bits: 4,
        input_bits: 4,
        bounds: vec![(-16200, 16200); 16],
        is_end: false,
    };
    let cost = bitpact_accel::in_memory::LayerCost::new(&cell, &layer, 0.25);
    assert_eq!((cost.sub_arrays, cost.conversions), (2, 10 * 4 * 9 * 64));
    let near = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-9, "{got} {expected}");
    near(cost.utilization, 72.0 / 128.0);
    near(cost.converters_nj, 23040.0 * 8.0 * 10.1 * 1e-6);
    // Sums up to 16200 need 15 bits with their sign.
    near(cost.adders_nj, 23040.0 * 15.0 * 3.125 * 1e-6);
    near(cost.cells_nj, 40.0 * 64.0 * 72.0 * 0.25 * (cell.high_ua() + cell.low_ua()) * 0.66 * 10.0 * 1e-6);
    // The first sub-array has eight groups of rows; eight columns share a converter.
    near(cost.time_us, 40.0 * 8.0 * (10.0 + 8.0 * 0.83) * 1e-3);
}
