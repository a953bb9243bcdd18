//! What conversion refuses, and the scale of the logits.

use bitpact_graph::{Graph, QuantConfig, QuantPlan, Shape, zoo};

use super::fold::Folded;
use super::*;
use crate::{InputDescription, IntegerTerm, IntegerView};

fn model(bits: &str) -> Model {
    let graph = zoo::build("cnn", Shape::new(8, 8, 3), 4).unwrap().unwrap();
    random(graph, bits)
}

fn random(graph: Graph, bits: &str) -> Model {
    let config: QuantConfig =
        serde_json::from_str(&format!(r#"{{"bits":"{bits}","weight_quant":"dorefa","act_quant":"pact"}}"#)).unwrap();
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
    let names = (0..graph.classes()).map(|c| c.to_string()).collect();
    Model::random(graph, plan, input, names, 1).unwrap()
}

fn error(model: &Model) -> String {
    convert(model).unwrap_err().to_string()
}

#[test]
fn float_and_invalid_networks_are_refused() {
    assert!(error(&model("float")).contains("`cnn` is a float network"));
    let mut invalid = model("W4A4");
    invalid.tensors.remove("bn3.weight");
    assert!(error(&invalid).contains("bn3.weight"));
}

#[test]
fn a_layer_whose_sums_could_overflow_is_named() {
    for (tensor, value) in [("bn4.weight", 1e15), ("bn4.weight", 1e30), ("bn4.bias", 1e30), ("bn4.running_mean", -1e30)]
    {
        let mut bad = model("W4A4");
        bad.tensors.get_mut(tensor).unwrap().data[5] = value;
        let message = error(&bad);
        assert!(message.contains("layer `conv4`") && message.contains("channel 5"), "{tensor} = {value}: {message}");
    }
}

#[test]
fn dead_channels_and_zero_weights_convert() {
    let mut dead = model("W2A2");
    dead.tensors.get_mut("bn2.weight").unwrap().data.fill(0.0);
    dead.tensors.get_mut("conv3.weight").unwrap().data.fill(0.0);
    dead.tensors.get_mut("linear.weight").unwrap().data.fill(0.0);
    dead.tensors.get_mut("bn5.running_var").unwrap().data.fill(0.0);
    convert(&dead).unwrap();
}

#[test]
fn equal_models_convert_to_equal_bytes() {
    let bytes = |bits: &str| convert(&model(bits)).unwrap().model.to_bytes().unwrap();
    assert_eq!(bytes("W4A4"), bytes("W4A4"));
    assert_ne!(bytes("W4A4"), bytes("W4A3"));
}

#[test]
fn the_scale_of_logits_is_the_largest_power_of_two_that_fits() {
    let term = |scale: f64, offset: f64, reach: i64| Folded {
        term: IntegerTerm::View(IntegerView::of(1)),
        scale: vec![scale],
        offset: vec![offset],
        zero: 0.0,
        ranges: vec![(-reach, reach)],
    };
    let exponent = |scale, offset, reach| sum::output_exponent(&[term(scale, offset, reach)], &[offset]);
    assert_eq!(exponent(1.0, 0.0, 100), Some(30));
    assert_eq!(exponent(1.5, 0.0, 100), Some(29));
    assert_eq!(exponent(1.0, 0.0, 1 << 40), Some(21), "bounded by the sum");
    assert_eq!(exponent(1.0, 1e18, 100), Some(2), "bounded by the constant");
    assert_eq!(exponent(0.0, 0.0, 100), Some(1000), "nothing to bound it");
    assert_eq!(exponent(f64::INFINITY, 0.0, 100), None);
    let two = [term(1.0, 0.0, 1 << 39), term(1.0, 0.0, 1 << 39)];
    assert_eq!(sum::output_exponent(&two, &[0.0]), Some(21), "bounded by both terms");
}
