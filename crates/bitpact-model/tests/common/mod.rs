//! Random networks for the tests of models and their files.
#![allow(dead_code)] // Not every test uses all of it.

use bitpact_core::WeightQuant;
use bitpact_graph::{FirstLast, Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::{Checkpoint, InputDescription, IntegerModel, Model, Tensor, TrainingState, convert};

pub(crate) fn config(bits: &str, weight_quant: WeightQuant, first_last: FirstLast) -> QuantConfig {
    QuantConfig { weight_quant, first_last, ..QuantConfig::new(bits.parse().unwrap()) }
}

pub(crate) fn random(graph: Graph, config: &QuantConfig, seed: u64) -> Model {
    let plan = QuantPlan::resolve(&graph, config).unwrap();
    let channels = graph.input().c;
    let input = InputDescription { zero_point: vec![120; channels], scale: vec![0.017; channels] };
    let names = (0..graph.classes()).map(|c| format!("class {c} \u{e9}")).collect();
    Model::random(graph, plan, input, names, seed).unwrap()
}

pub(crate) fn zoo_model(arch: &str, side: usize, bits: &str, first_last: FirstLast) -> Model {
    let graph = zoo::build(arch, Shape::new(side, side, 3), 4).unwrap().unwrap();
    random(graph, &config(bits, WeightQuant::Dorefa, first_last), 5)
}

/// A small network with a projection, a subsampled shortcut's sibling and every kind of layer but max pool.
pub(crate) fn small_integer() -> IntegerModel {
    convert(&zoo_model("cnn", 8, "W3A4", FirstLast::Float)).unwrap().model
}

pub(crate) fn checkpoint() -> Checkpoint {
    let model = zoo_model("cnn", 8, "W4A4", FirstLast::Bits8);
    let is_trained = |name: &str| !name.contains("running");
    let momentum = model
        .tensors
        .iter()
        .filter(|(name, _)| is_trained(name))
        .map(|(name, t)| {
            (name.clone(), Tensor { shape: t.shape.clone(), data: t.data.iter().map(|v| v * 0.3).collect() })
        })
        .collect();
    let progress =
        serde_json::json!({ "loss": 0.1f64 + 0.2, "best": [1, 2.5e-300, -7], "warned": { "b": true, "a": null } });
    let training = TrainingState {
        recipe: "epochs = 3\nname = \"x\"\n".to_owned(),
        step: 12_345,
        progress,
        momentum,
        second_moment: Default::default(),
        optimizer_steps: 0,
        raw: Default::default(),
    };
    Checkpoint { model, training: Some(training), note: Some("chosen on the test set".to_owned()) }
}
