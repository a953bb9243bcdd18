//! Random networks and images for the tests of the engine.
#![allow(dead_code)] // Not every test uses all of it.

use bitpact_core::rng::Key;
use bitpact_graph::{Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::{InputDescription, IntegerModel, Model, convert};

/// A recipe's part about bits, from JSON with the given differences from W4A4.
pub(crate) fn config(differences: &str) -> QuantConfig {
    let mut config = serde_json::to_value(QuantConfig::new("W4A4".parse().unwrap())).unwrap();
    let differences: serde_json::Value = serde_json::from_str(differences).unwrap();
    for (key, value) in differences.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

/// A random trained network of `graph`.
pub(crate) fn random_model(graph: Graph, config: &QuantConfig, seed: u64) -> Model {
    let plan = QuantPlan::resolve(&graph, config).unwrap();
    let input = InputDescription {
        bits: 8,
        zero_point: (0..graph.input().c).map(|c| 128 + 3 * c as u16).collect(),
        scale: (0..graph.input().c).map(|c| (1.0 + c as f32) / 96.0).collect(),
    };
    let class_names = (0..graph.classes()).map(|c| format!("class {c}")).collect();
    Model::random(graph, plan, input, class_names, seed).unwrap()
}

/// A network of the zoo with its channels and hidden features divided, so that it is quick.
pub(crate) fn shrunk(arch: &str, input: Shape, classes: usize, divisor: usize) -> Graph {
    zoo::build(arch, input, classes).unwrap().unwrap().narrowed(divisor).unwrap()
}

/// A random integer network of the zoo.
pub(crate) fn random_integer(arch: &str, input: Shape, classes: usize, differences: &str, seed: u64) -> IntegerModel {
    let graph = zoo::build(arch, input, classes).unwrap().unwrap();
    convert(&random_model(graph, &config(differences), seed)).unwrap().model
}

/// Random pixels of `n` images.
pub(crate) fn pixels(model: &IntegerModel, n: usize, seed: u64) -> Vec<u8> {
    let key = Key::new(seed).with("pixels");
    (0..n * model.input_shape.elements()).map(|i| key.u64(i as u64) as u8).collect()
}
