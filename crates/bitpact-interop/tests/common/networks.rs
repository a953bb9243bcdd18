//! Integer networks for tests of exports.

use bitpact_core::rng::Key;
use bitpact_graph::Shape;
use bitpact_graph::testing::{Choices, Form, network_of};
use bitpact_model::{InputDescription, IntegerModel, Model, convert};

/// A random network; `None` where it has no integers.
pub(crate) fn network(seed: u64) -> Option<IntegerModel> {
    let mut choices = Choices::of_seed(seed);
    let (graph, plan) = network_of(Form { terms: 3, is_any: true }, &mut choices);
    let channels = graph.input().c;
    let bits = if seed % 4 == 3 { 16 } else { 8 };
    let zeros = (0..channels as u64).map(|c| match (seed % 2, bits) {
        (0, _) => 128,
        (_, 8) => (seed * 7 + c * 40) as u16 % 256,
        _ => (seed * 1700 + c * 9000) as u16,
    });
    let input = InputDescription { bits, zero_point: zeros.collect(), scale: vec![1.0 / 64.0; channels] };
    let names = (0..graph.classes()).map(|c| c.to_string()).collect();
    let model = Model::random(graph, plan, input, names, seed).unwrap();
    Some(convert(&model).ok()?.model)
}

/// The bytes of an image, and its codes with the channels first.
#[allow(dead_code)] // Not every test runs networks.
pub(crate) fn image(model: &IntegerModel, seed: u64) -> (Vec<u8>, Vec<u16>) {
    let key = Key::new(seed).with("pixels");
    let shape = model.input_shape;
    let bytes: Vec<u8> = (0..model.input.example_bytes(shape) as u64).map(|i| key.u64(i) as u8).collect();
    let codes: Vec<u16> = model.input.codes(&bytes).collect();
    (bytes, channels_first(&codes, shape))
}

#[allow(dead_code)]
pub(crate) fn channels_first<T: Copy>(values: &[T], shape: Shape) -> Vec<T> {
    (0..shape.c).flat_map(|c| values[c..].iter().step_by(shape.c).copied()).collect()
}
