use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::testing::{Choices, network, small_zoo};
use bitpact_graph::{ChannelGroups, Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, Model};
use proptest::prelude::*;

use super::masks::Masked;
use super::taps::Kernel;
use super::{Pressure, PruneOptions, cut, cut::smallest};
use crate::{BackendKind, BackendSpec, StepInput, TrainBackend, initial_tensors};

const BATCH: usize = 4;

fn plan(graph: &Graph, bits: &str) -> QuantPlan {
    QuantPlan::resolve(graph, &QuantConfig::new(bits.parse().unwrap())).unwrap()
}

fn model(graph: &Graph, bits: &str) -> Model {
    let (plan, input) = (plan(graph, bits), InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0));
    let class_names = (0..graph.classes()).map(|c| c.to_string()).collect();
    Model::random(graph.clone(), plan, input, class_names, 5).unwrap()
}

fn backend(model: &Model) -> Box<dyn TrainBackend> {
    let spec = BackendSpec::new(&model.graph, &model.plan, &model.input, BATCH);
    let mut backend = BackendKind::Cpu.build(&BackendSpec { isa: Isa::detect(), ..spec }).unwrap();
    backend.load(&model.tensors, None).unwrap();
    backend
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

fn outputs(model: &Model) -> Vec<f32> {
    let mut found = Vec::new();
    backend(model).simulate(BATCH, &fill(model.graph.input()), &mut found);
    found
}

/// Zeroes the sites of the groups that do not stay.
fn masked(model: &Model, groups: &ChannelGroups, stays: &[bool]) -> Model {
    let mut model = model.clone();
    for group in (0..groups.len()).filter(|&group| !stays[group]) {
        for site in groups.sites(group) {
            let tensor = model.tensors.get_mut(&site.tensor).unwrap();
            site.elements.iter().for_each(|&at| tensor.data[at] = 0.0);
        }
    }
    model
}

/// Masked channels contribute nothing: without them the network gives the same but for the order of sums.
fn check(graph: &Graph, seed: u64) {
    let model = model(graph, "float");
    let groups = ChannelGroups::of(graph, &model.plan);
    let key = Key::new(seed);
    let mut stays: Vec<bool> = (0..groups.len() as u64).map(|group| key.below(group, 2) == 0).collect();
    cut::revive(graph, &groups, &vec![1.0; groups.len()], &mut stays);
    let small = cut(&model, &groups, &stays).unwrap();
    small.check().unwrap();
    let (zeroed, cut) = (outputs(&masked(&model, &groups, &stays)), outputs(&small));
    let size = zeroed.iter().fold(1e-3f32, |most, y| most.max(y.abs()));
    for (a, b) in zeroed.iter().zip(&cut) {
        assert!((a - b).abs() <= 1e-4 * size || (a.is_nan() && b.is_nan()), "{}: {a} {b} of {size}", graph.name());
    }
    assert_eq!(zeroed.len(), cut.len());
}

#[test]
fn networks_of_the_zoo_without_masked_channels_give_the_same() {
    for (seed, name) in (1..).zip(zoo::NAMES) {
        check(&small_zoo(name, 4), seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_network_without_masked_channels_gives_the_same(list in prop::collection::vec(any::<u32>(), 0..80), seed: u64) {
        let (graph, _) = network(&mut Choices::new(list));
        check(&graph.main_part().unwrap_or(graph), seed);
    }
}

#[test]
fn groups_of_resnet8_are_its_stages_and_inner_channels() {
    let graph = zoo::build("resnet8", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let groups = ChannelGroups::of(&graph, &plan(&graph, "float"));
    // Of each stage the channels of the sum, and those of the first convolution of the block.
    assert_eq!(groups.len(), 2 * (16 + 32 + 64));
    let node = |name: &str| groups.node(graph.find(name).unwrap());
    assert_eq!(node("conv1"), node("layer1.0.act2"));
    assert_ne!(node("layer1.0.conv1"), node("conv1"));
    assert!(node("linear").iter().all(Option::is_none));
    let parameters = |graph: &Graph| bitpact_graph::counts::parameters(graph);
    let small = smallest(&graph, &groups).unwrap();
    // Seven convolutions of one channel, two projections with biases, the layer of 10 and seven batch norms.
    assert_eq!(parameters(&small), 27 + 6 * 9 + 2 * 2 + 10 + 10 + 7 * 2);
    // DoReFa's weights have no zero, so that a projection without a batch norm cannot be masked, nor what it is added
    // to.
    let dorefa = ChannelGroups::of(&graph, &plan(&graph, "W4A4"));
    assert_eq!(dorefa.len(), 16 + 16 + 32 + 64);
}

fn options(graph: &Graph, pressure: Pressure) -> PruneOptions {
    let layers = graph.nodes().iter().filter(|node| node.op.is_product());
    let prices: BTreeMap<String, f64> = layers.map(|node| (node.name.clone(), 1.0)).collect();
    PruneOptions { prices, pressure, rate: 0.05, kernels: false }
}

fn trained(pressure: Option<Pressure>, steps: u64) -> (Box<dyn TrainBackend>, Option<Vec<bool>>) {
    let graph = small_zoo("resnet8", 2);
    let mut model = model(&graph, "float");
    model.tensors = initial_tensors(&graph, &model.plan, 1, 1.0);
    let groups = ChannelGroups::of(&graph, &model.plan);
    let run = |backend: &mut dyn TrainBackend| {
        backend.load(&model.tensors, None).unwrap();
        let fill = fill(graph.input());
        for step in 0..steps {
            let input = StepInput { lr: 0.02, fill: &fill, key: Key::new(step), ..StepInput::default() };
            backend.step(&input).unwrap();
        }
    };
    let Some(pressure) = pressure else {
        let mut plain = backend(&model);
        run(&mut *plain);
        return (plain, None);
    };
    let mut masked = Masked::new(backend(&model), &graph, groups, Vec::new(), &options(&graph, pressure), steps);
    run(&mut masked);
    let stays = masked.stays();
    (Box::new(masked), Some(stays))
}

#[test]
fn a_cost_of_no_strength_that_removes_nothing_changes_nothing() {
    let (plain, _) = trained(None, 5);
    let (masked, stays) = trained(Some(Pressure::Strength(0.0)), 5);
    assert!(stays.unwrap().iter().all(|&stays| stays), "five steps of 0.05 do not lead below 1/2");
    assert!(plain.tensors() == masked.tensors());
}

#[test]
fn pressure_removes_channels_down_to_the_target_and_leaves_one_in_every_layer() {
    let graph = small_zoo("resnet8", 2);
    let whole: f64 = bitpact_graph::counts::layers(&graph, &plan(&graph, "float"))
        .iter()
        .map(|layer| layer.float_bytes as f64 / 4.0)
        .sum();
    let groups = ChannelGroups::of(&graph, &plan(&graph, "float"));
    let (_, crushed) = trained(Some(Pressure::Strength(1e9)), 40);
    let small = groups.kept(&graph, &crushed.unwrap()).unwrap();
    assert_eq!(small, smallest(&graph, &groups).unwrap(), "of equal alphas the last one stays");
    let (_, half) = trained(Some(Pressure::Target(whole / 2.0)), 200);
    let left = bitpact_graph::counts::layers(&groups.kept(&graph, &half.unwrap()).unwrap(), &plan(&graph, "float"));
    let left: f64 = left.iter().map(|layer| layer.float_bytes as f64 / 4.0).sum();
    assert!(left <= whole / 2.0 && left > 0.9 * whole / 2.0, "{left} of {whole}");
}

#[test]
fn the_gradient_of_a_mask_is_the_loss_lost_by_a_little_less_of_its_channel() {
    // Central differences of the loss by theta at 1, over the sites of one group after the other.
    let graph = small_zoo("resnet8", 2);
    let model = model(&graph, "float");
    let groups = ChannelGroups::of(&graph, &model.plan);
    let loss = |model: &Model| {
        let fill = fill(graph.input());
        backend(model).step(&StepInput { fill: &fill, ..StepInput::default() }).unwrap().loss
    };
    let mut gradients = backend(&model);
    gradients.step(&StepInput { fill: &fill(graph.input()), ..StepInput::default() }).unwrap();
    for group in (0..groups.len()).step_by(7) {
        let mut found = 0.0;
        for site in groups.sites(group) {
            let (values, gradient) = gradients.parameter_mut(&site.tensor).unwrap();
            found += site.elements.iter().map(|&at| f64::from(values[at]) * f64::from(gradient[at])).sum::<f64>();
        }
        let at = |theta: f32| {
            let mut scaled = model.clone();
            for site in groups.sites(group) {
                let tensor = scaled.tensors.get_mut(&site.tensor).unwrap();
                site.elements.iter().for_each(|&at| tensor.data[at] *= theta);
            }
            loss(&scaled)
        };
        let expected = (at(1.01) - at(0.99)) / 0.02;
        assert!((found - expected).abs() < 2e-3 + 0.05 * expected.abs(), "{group}: {found} {expected}");
    }
}

/// A network along a row, with kernels of three kinds: causal, of an even size, dilated.
fn signal() -> Graph {
    let file = r#"
name = "signal"
nodes = [
  { name = "in", op = "input", height = 2, width = 20, channels = 3 },
  { name = "one", op = "conv", out_channels = 6, kernel = [2, 9], padding = [0, 8, 0, 0] },
  { name = "one.bn", op = "batch_norm" },
  { name = "one.act", op = "act" },
  { name = "two", op = "conv", out_channels = 8, kernel = [1, 4], stride = [1, 2], padding = [0, 1, 0, 2] },
  { name = "two.bn", op = "batch_norm" },
  { name = "two.act", op = "act" },
  { name = "three", op = "conv", out_channels = 8, kernel = [1, 5], dilation = [1, 2], padding = [0, 4, 0, 4], groups = 2 },
  { name = "three.bn", op = "batch_norm" },
  { name = "three.act", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 2 },
]
"#;
    toml::from_str(file).unwrap()
}

#[test]
fn kernels_are_shortened_and_dilated_and_what_is_left_gives_the_same() {
    let graph = signal();
    let mut model = model(&graph, "float");
    model.tensors = initial_tensors(&graph, &model.plan, 1, 1.0);
    let groups = ChannelGroups::of(&graph, &model.plan);
    let kernels = Kernel::all(&graph, &model.plan);
    assert_eq!(kernels.iter().map(Kernel::count).collect::<Vec<_>>(), [9, 4, 5]);
    for strength in [0.0, 3.0, 1e9] {
        let options = PruneOptions { kernels: true, ..options(&graph, Pressure::Strength(strength)) };
        let mut masked = Masked::new(backend(&model), &graph, groups.clone(), kernels.clone(), &options, 40);
        masked.load(&model.tensors, None).unwrap();
        let fill = fill(graph.input());
        for step in 0..40 {
            let input = StepInput { lr: 0.02, fill: &fill, key: Key::new(step), ..StepInput::default() };
            masked.step(&input).unwrap();
        }
        let (left, stays) = (masked.kernels(), masked.stays());
        let zeroed = Model { tensors: masked.tensors(), ..model.clone() };
        let small = cut(&super::shortened(&zeroed, &left).unwrap(), &groups, &stays).unwrap();
        small.check().unwrap();
        let (expected, found) = (outputs(&zeroed), outputs(&small));
        let size = expected.iter().fold(1e-3f32, |most, y| most.max(y.abs()));
        assert!(
            expected.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-4 * size),
            "{strength}: {expected:?} {found:?}"
        );
        let counts: Vec<usize> = left.iter().map(Kernel::count).collect();
        if strength == 1e9 {
            assert_eq!(counts, [1, 1, 1]);
        }
    }
}
