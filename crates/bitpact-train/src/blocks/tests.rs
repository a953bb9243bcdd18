use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::{Graph, QuantConfig, QuantPlan, Shape};
use bitpact_model::{InputDescription, Model};

use super::BlockOptions;
use super::supernet::Supernet;
use crate::prune::Pressure;
use crate::{BackendKind, BackendSpec, StepInput, TrainBackend};

const FILE: &str = r#"
name = "two"
choices = ["one", "two"]
nodes = [
  { name = "in", op = "input", height = 6, width = 6, channels = 3 },
  { name = "stem", op = "conv", out_channels = 8, kernel = 3, padding = 1 },
  { name = "stem.bn", op = "batch_norm" },
  { name = "stem.act", op = "act" },
  { name = "one.conv", op = "conv", out_channels = 8, kernel = 3, padding = 1, inputs = ["stem.act"] },
  { name = "one.conv.bn", op = "batch_norm" },
  { name = "one.depth", op = "conv", out_channels = 8, kernel = 3, padding = 1, groups = 8, inputs = ["stem.act"] },
  { name = "one.depth.bn", op = "batch_norm" },
  { name = "one.depth.act", op = "act" },
  { name = "one.point", op = "conv", out_channels = 8, kernel = 1 },
  { name = "one.point.bn", op = "batch_norm" },
  { name = "one", op = "add", inputs = ["one.conv.bn", "one.point.bn"] },
  { name = "one.act", op = "act" },
  { name = "two.same", op = "batch_norm" },
  { name = "two.conv", op = "conv", out_channels = 8, kernel = 1, inputs = ["one.act"] },
  { name = "two.conv.bn", op = "batch_norm" },
  { name = "two", op = "add", inputs = ["two.same", "two.conv.bn"] },
  { name = "sum", op = "add", inputs = ["two", "stem.act"] },
  { name = "act", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 2 },
]
"#;
const BATCH: usize = 8;

fn model(bits: &str) -> Model {
    let graph: Graph = toml::from_str(FILE).unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse().unwrap())).unwrap();
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    Model::random(graph, plan, input, vec!["a".to_owned(), "b".to_owned()], 5).unwrap()
}

fn backend(model: &Model) -> Box<dyn TrainBackend> {
    let mut backend =
        BackendKind::Cpu.build(&BackendSpec::new(&model.graph, &model.plan, &model.input, BATCH)).unwrap();
    backend.load(&model.tensors, None).unwrap();
    backend
}

fn fill(shape: Shape) -> impl Fn(usize, &mut [u8], Placement) -> usize + Sync {
    move |i, image, place| {
        let key = Key::new(9).at(i as u64);
        for (y, x) in (0..shape.h).flat_map(|y| (0..shape.w).map(move |x| (y, x))) {
            for c in 0..shape.c {
                image[place.pixel(y, x) + c] = key.below(((y * shape.w + x) * shape.c + c) as u64, 256) as u8;
            }
        }
        i % 2
    }
}

/// The number of weights of every layer.
fn weights(graph: &Graph) -> BTreeMap<String, f64> {
    let of = |(id, node): (usize, &bitpact_graph::Node)| {
        Some((node.name.clone(), graph.weight_shape(id)?.iter().product::<usize>() as f64))
    };
    graph.nodes().iter().enumerate().filter_map(of).collect()
}

fn supernet(model: &Model, pressure: Pressure, rate: f32, steps: u64) -> Supernet {
    let options = BlockOptions { costs: weights(&model.graph), pressure, rate };
    let mut supernet = Supernet::new(backend(model), &model.graph, &options, steps);
    supernet.load(&model.tensors, None).unwrap();
    supernet
}

fn steps(supernet: &mut Supernet, lr: f32, steps: u64) -> Vec<f64> {
    let fill = fill(supernet.input_shape());
    // One batch, so that losses compare.
    let input = || StepInput { lr, fill: &fill, key: Key::new(1), ..StepInput::default() };
    (0..steps).map(|_| supernet.step(&input()).unwrap().loss).collect()
}

const FREE: Pressure = Pressure::Strength(0.0);

#[test]
fn costs_are_those_of_the_layers_that_a_choice_leaves() {
    let model = model("float");
    let supernet = supernet(&model, FREE, 0.1, 10);
    for one in 0..2 {
        for two in 0..2 {
            let left = model.graph.chosen(&[one, two]).unwrap();
            assert_eq!(supernet.cost_of(&[one, two]), weights(&left).values().sum::<f64>());
        }
    }
    assert_eq!((supernet.least(), supernet.most()), (supernet.cost_of(&[1, 0]), supernet.cost_of(&[0, 1])));
}

#[test]
fn shares_alone_lower_the_loss() {
    let model = model("float");
    let mut supernet = supernet(&model, FREE, 0.05, 1000);
    let losses = steps(&mut supernet, 0.0, 30);
    let (first, last) = (losses[0], losses[29]);
    assert!(last < first, "{first} {last}");
    // Not by weights: those are as they were.
    assert!(supernet.whole_tensors()["one.conv.bn.weight"] == model.tensors["one.conv.bn.weight"]);
    let still = steps(&mut self::supernet(&model, FREE, f32::MIN_POSITIVE, 1000), 0.0, 30);
    assert!((still[29] - still[0]).abs() < 1e-3 * (first - last), "{still:?}");
}

#[test]
fn a_target_takes_cheap_alternatives_and_no_cheaper_ones_than_it_asks_for() {
    let model = model("float");
    for taken in [[1, 0], [1, 1], [0, 0]] {
        let target = supernet(&model, FREE, 0.1, 1).cost_of(&taken);
        let mut supernet = supernet(&model, Pressure::Target(target), 0.05, 60);
        steps(&mut supernet, 0.05, 60);
        let found = supernet.taken(target);
        assert!(supernet.cost_of(&found) <= target, "{found:?}");
        assert_eq!(supernet.taken(f64::INFINITY).len(), 2);
    }
}

#[test]
fn what_is_evaluated_is_the_chosen_network() {
    for bits in ["float", "W4A4"] {
        let model = model(bits);
        let mut supernet = supernet(&model, FREE, 0.05, 20);
        steps(&mut supernet, 0.05, 20);
        let taken = supernet.taken(f64::INFINITY);
        let graph = model.graph.chosen(&taken).unwrap();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse().unwrap())).unwrap();
        let all = supernet.whole_tensors();
        let tensors = Model::tensor_shapes(&graph, &plan).into_keys().map(|name| (name.clone(), all[&name].clone()));
        let small = Model { tensors: tensors.collect(), graph, plan, ..model.clone() };
        small.check().unwrap();
        let (mut whole, mut own) = (Vec::new(), Vec::new());
        let fill = fill(model.graph.input());
        supernet.simulate(BATCH, &fill, &mut whole);
        backend(&small).simulate(BATCH, &fill, &mut own);
        let size = whole.iter().fold(1e-3f32, |most, y| most.max(y.abs()));
        assert!(whole.iter().zip(&own).all(|(a, b)| (a - b).abs() <= 1e-4 * size), "{bits}: {whole:?} {own:?}");
        // What a checkpoint holds is that network too, beside alternatives of zeros.
        let (mut stored, held) = (Vec::new(), Model { tensors: supernet.tensors(), ..model });
        backend(&held).simulate(BATCH, &fill, &mut stored);
        assert!(whole.iter().zip(&stored).all(|(a, b)| (a - b).abs() <= 1e-4 * size), "{bits}: {whole:?} {stored:?}");
    }
}
