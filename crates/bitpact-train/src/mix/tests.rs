use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_core::{Bits, WeightQuant, WeightSpec, quantize_weights};
use bitpact_data::Placement;
use bitpact_graph::testing::small_zoo;
use bitpact_graph::{Graph, Override, QuantConfig, QuantPlan, Shape};
use bitpact_model::{InputDescription, Tensor};

use super::blend::Blended;
use super::{MixOptions, Width};
use crate::{BackendKind, BackendSpec, StepInput, TrainBackend, initial_tensors};

const LAYERS: [&str; 2] = ["layer1.0.conv1", "layer2.0.conv2"];

fn spec(bits: u8) -> WeightSpec {
    WeightSpec::with_scale(Bits::new(bits).unwrap(), WeightQuant::SawbPlus, None, None).unwrap()
}

fn graph() -> Graph {
    small_zoo("resnet8", 2)
}

/// The network with float weights in the searched layers.
fn plan(graph: &Graph) -> QuantPlan {
    let float = || Override { weight_bits: Some(32), ..Override::default() };
    let overrides = LAYERS.iter().map(|name| ((*name).to_owned(), float())).collect();
    let config = QuantConfig { overrides, ..QuantConfig::new("W4A4".parse().unwrap()) };
    QuantPlan::resolve(graph, &config).unwrap()
}

fn options(graph: &Graph, widths: &[u8], most: f64) -> MixOptions {
    let layer = |name: &&str| {
        let n: usize = graph.weight_shape(graph.find(name).unwrap()).unwrap().iter().product();
        let width = |&bits: &u8| Width { spec: spec(bits), costs: vec![n as f64 * f64::from(bits)] };
        ((*name).to_owned(), widths.iter().map(width).collect())
    };
    MixOptions { widths: LAYERS.iter().map(layer).collect(), budgets: vec![(0.0, most)], rate: 0.05 }
}

fn fill(shape: Shape) -> impl Fn(usize, &mut [u8], Placement) -> usize + Sync {
    move |i, image, place| {
        let key = Key::new(9).at(i as u64);
        for (y, x) in (0..shape.h).flat_map(|y| (0..shape.w).map(move |x| (y, x))) {
            for c in 0..shape.c {
                let at = place.pixel(y, x) + c;
                image[at] = key.below(((y * shape.w + x) * shape.c + c) as u64, 256) as u8;
            }
        }
        i % 2
    }
}

fn backend(graph: &Graph) -> (Box<dyn TrainBackend>, BTreeMap<String, Tensor>) {
    let (plan, input) = (plan(graph), InputDescription::uniform(3, 128, 1.0 / 64.0));
    let backend = BackendKind::Cpu.build(&BackendSpec::new(graph, &plan, &input, 8)).unwrap();
    (backend, initial_tensors(graph, &plan, 1, 2.0))
}

fn trained(widths: &[u8], most: f64, steps: u64) -> Blended {
    let graph = graph();
    let (inner, tensors) = backend(&graph);
    let mut blended = Blended::new(inner, &graph, &options(&graph, widths, most), steps);
    blended.load(&tensors, None).unwrap();
    for step in 0..steps {
        let input = StepInput { lr: 0.02, fill: &fill(graph.input()), key: Key::new(step), ..StepInput::default() };
        blended.step(&input).unwrap();
    }
    blended
}

#[test]
fn numbers_begin_at_the_widths_and_the_widest_has_the_largest_share() {
    let blended = trained(&[2, 4, 8], 0.0, 0);
    for shares in blended.shares().values() {
        let powers = [0.25, 0.5, 1.0].map(f64::exp);
        let sum: f64 = powers.iter().sum();
        for (share, power) in shares.iter().zip(powers) {
            assert!((share - power / sum).abs() < 1e-12, "{shares:?}");
        }
    }
}

#[test]
fn a_budget_that_nothing_exceeds_leaves_the_loss_alone_and_a_small_one_narrows_every_layer() {
    let narrow = trained(&[2, 8], 1.0, 120);
    assert!(narrow.shares().values().all(|shares| shares[0] > 0.9), "{:?}", narrow.shares());
    let (free, freer) = (trained(&[2, 8], 1e9, 20), trained(&[2, 8], 1e12, 20));
    assert_eq!(free.shares(), freer.shares());
    assert!(free.tensors() == freer.tensors());
}

#[test]
fn what_is_evaluated_is_the_widest_share_and_what_is_trained_on_are_the_weights() {
    let graph = graph();
    let blended = trained(&[2, 8], 1.0, 120);
    let tensors = blended.tensors();
    for (name, weights) in blended.weights() {
        let channels = graph.shape(graph.find(name.strip_suffix(".weight").unwrap()).unwrap()).c;
        let (mut codes, mut scales) = (vec![0; weights.len()], vec![0.0]);
        quantize_weights(&spec(2), weights, channels, &[], &mut codes, &mut scales);
        let expected: Vec<f32> = codes.iter().map(|&code| scales[0] * f32::from(code)).collect();
        assert_eq!(tensors[name].data, expected, "{name}");
        assert_ne!(&tensors[name].data, weights);
    }
}

#[test]
fn one_width_alone_is_plain_training_at_it() {
    // With equal widths any mixture is that width: the same steps as a network whose weights are those of the width.
    let graph = graph();
    let (inner, tensors) = backend(&graph);
    let mut blended = Blended::new(inner, &graph, &options(&graph, &[4, 4], 1e9), 3);
    blended.load(&tensors, None).unwrap();
    let config = QuantConfig { weight_quant: WeightQuant::SawbPlus, ..QuantConfig::new("W4A4".parse().unwrap()) };
    let mut quantized = plan(&graph);
    for layer in LAYERS {
        let own = QuantPlan::resolve(&graph, &config).unwrap().weights[layer];
        quantized.weights.insert(layer.to_owned(), own);
    }
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let mut plain = BackendKind::Cpu.build(&BackendSpec::new(&graph, &quantized, &input, 8)).unwrap();
    plain.load(&tensors, None).unwrap();
    for step in 0..3 {
        let fill = fill(graph.input());
        let input = StepInput { lr: 0.02, fill: &fill, key: Key::new(step), ..StepInput::default() };
        let (a, b) = (blended.step(&input).unwrap().loss, plain.step(&input).unwrap().loss);
        assert!((a - b).abs() < 1e-3 * b, "step {step}: {a} {b}");
    }
    let own = plain.tensors();
    for (name, weights) in blended.weights() {
        let far = weights.iter().zip(&own[name].data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-3, "{name}: {far}");
    }
}
