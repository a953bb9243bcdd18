//! Every quantizer through whole networks: it learns, keeps its bits, goes on from a checkpoint, and converts exactly.

use std::collections::BTreeMap;

use bitpact_engine::{VerifyOptions, verify};
use bitpact_graph::Override;

use super::*;

/// Every layer of `graph`, the first and the last too, at `weights` and `activations` bits with these quantizers.
fn everywhere(weights: u8, activations: u8, act_quant: ActQuant, weight: (WeightQuant, Granularity)) -> QuantConfig {
    let named = Override {
        weight_bits: Some(weights),
        activation_bits: Some(activations),
        weight_quant: Some(weight.0),
        weight_scale: Some(weight.1),
        ..Override::default()
    };
    QuantConfig { act_quant, overrides: [("*".to_owned(), named)].into(), ..quant("W4A4") }
}

/// Every weight quantizer with every kind of scale it has.
fn weight_quantizers() -> Vec<(WeightQuant, Granularity)> {
    let all = WeightQuant::ALL.into_iter().flat_map(|q| [(q, Granularity::Layer), (q, Granularity::Channel)]);
    all.filter(|pair| *pair != (WeightQuant::Dorefa, Granularity::Channel)).collect()
}

/// Trains a little; every code of the converted network is the same on every path of this machine.
fn converts_exactly(graph: &Graph, config: &QuantConfig, what: &str) {
    let mut backend = backend(graph, config, Isa::detect(), 2);
    for _ in 0..3 {
        step(&mut backend, 0.02);
    }
    let model = Model {
        graph: graph.clone(),
        plan: QuantPlan::resolve(graph, config).unwrap(),
        input: backend.plan.pixels.clone(),
        class_names: (0..graph.classes()).map(|c| c.to_string()).collect(),
        tensors: backend.tensors(),
    };
    agrees_with_the_engine(&backend, &model, what);
}

/// Every code of the converted network, over the images of `backend`, is the same on every path of this machine.
fn agrees_with_the_engine(backend: &CpuBackend, model: &Model, what: &str) {
    let shape = backend.input_shape();
    let fill = filler(shape, backend.graph.classes());
    let integer = bitpact_model::convert(model).unwrap_or_else(|e| panic!("{what}: {e}")).model;
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        for (i, out) in range.zip(pixels.chunks_exact_mut(shape.elements())) {
            fill(i, out, in_a_row(shape));
        }
    };
    let verification = verify(&integer, &VerifyOptions::up_to(2), BATCH, load, |_| {}).unwrap();
    assert_eq!((verification.different, verification.images), (0, BATCH), "{what}: {:?}", verification.first);
}

#[test]
fn every_quantizer_converts_to_integers_exactly() {
    let networks = networks();
    for weight in weight_quantizers() {
        for weights in [1, 2, 4, 8] {
            let activations = weights.max(2);
            let config = everywhere(weights, activations, ActQuant::Pact, weight);
            converts_exactly(&networks[1], &config, &format!("W{weights}A{activations} {} {}", weight.0, weight.1));
        }
    }
    for act_quant in [ActQuant::PactPlus, ActQuant::Lsq, ActQuant::Fixed, ActQuant::Relu] {
        for bits in [1, 2, 4, 8] {
            let config = everywhere(bits, bits, act_quant, (WeightQuant::Sawb, Granularity::Layer));
            converts_exactly(&networks[0], &config, &format!("W{bits}A{bits} {act_quant}"));
        }
    }
    for (graph, bits) in networks.iter().take(6).flat_map(|graph| [(graph, 1), (graph, 4)]) {
        let config = everywhere(bits, 1, ActQuant::Sign, (WeightQuant::Sawb, Granularity::Layer));
        converts_exactly(graph, &config, &format!("W{bits}A1 sign, {}", graph.name()));
    }
}

#[test]
fn every_quantizer_learns_with_the_same_bits_on_any_number_of_threads() {
    let networks = networks();
    let weights = weight_quantizers().into_iter().map(|w| (ActQuant::Pact, w));
    let sawb = (WeightQuant::Sawb, Granularity::Layer);
    let acts = [ActQuant::PactPlus, ActQuant::Lsq, ActQuant::Fixed, ActQuant::Relu].map(|a| (a, sawb));
    let signs = [(ActQuant::Sign, sawb)];
    for (act_quant, weight) in weights.chain(acts).chain(signs) {
        for bits in [1, 2, 4] {
            let activations = if act_quant == ActQuant::Sign { 1 } else { bits.max(2) };
            let config = everywhere(bits, activations, act_quant, weight);
            let (mut one, mut two) =
                (backend(&networks[1], &config, Isa::detect(), 1), backend(&networks[1], &config, Isa::detect(), 2));
            let losses: Vec<f64> = (0..40).map(|_| step(&mut one, 0.03).loss).collect();
            let same: Vec<f64> = (0..5).map(|_| step(&mut two, 0.03).loss).collect();
            assert_eq!(losses[..5], same, "{bits} bits, {act_quant}, {} {}", weight.0, weight.1);
            let least = losses.iter().fold(f64::INFINITY, |a, b| a.min(*b));
            assert!(least < 0.8 * losses[0], "{bits} bits, {act_quant}, {weight:?}: {} to {least}", losses[0]);
        }
    }
}

fn lsq(bits: u8, scale: Granularity) -> QuantConfig {
    everywhere(bits, bits.max(2), ActQuant::Lsq, (WeightQuant::Lsq, scale))
}

#[test]
fn learned_steps_and_their_momentum_go_on_from_a_checkpoint() {
    let graph = &networks()[0];
    for scale in [Granularity::Layer, Granularity::Channel] {
        let mut whole = backend(graph, &lsq(2, scale), Isa::detect(), 2);
        let start = whole.tensors();
        step(&mut whole, 0.05);
        let (tensors, state) = (whole.tensors(), whole.optimizer_state());
        for layer in ["c1", "c4", "fc"] {
            let name = format!("{layer}.weight_step");
            let channels =
                if scale == Granularity::Layer { vec![] } else { vec![start[&format!("{layer}.weight")].shape[0]] };
            assert_eq!((&tensors[&name].shape, &state.momentum[&name].shape), (&channels, &channels), "{name}");
            assert_ne!(tensors[&name], start[&name], "{name} moves");
        }
        let mut resumed = backend(graph, &lsq(2, scale), Isa::detect(), 1);
        resumed.load(&tensors, Some(&state)).unwrap();
        step(&mut whole, 0.05);
        step(&mut resumed, 0.05);
        assert_eq!(whole.tensors(), resumed.tensors());
    }
}

/// At 1 bit the gradient of a step is `sum dwq sign(w) / 2` and that of a weight is its `dwq`, in every layer: in the
/// first, whose weights carry the scale of the pixels, too.
#[test]
fn the_gradient_of_a_step_is_that_of_its_weights_at_1_bit() {
    let graph = &networks()[0];
    let config = lsq(1, Granularity::Layer);
    let mut backend = backend(graph, &config, Isa::detect(), 2);
    let start = backend.tensors();
    step(&mut backend, 0.0);
    let gradients: BTreeMap<String, Tensor> = backend.optimizer_state().momentum;
    for layer in ["c1", "c2", "c3", "c4", "fc"] {
        let (w, g) = (&start[&format!("{layer}.weight")].data, &gradients[&format!("{layer}.weight")].data);
        let sum: f64 = w.iter().zip(g).map(|(w, g)| f64::from(g * w.signum()) / 2.0).sum();
        let size: f64 = g.iter().map(|g| f64::from(g.abs())).sum();
        let expected = sum / (w.len() as f64 / 2.0).sqrt();
        let got = f64::from(gradients[&format!("{layer}.weight_step")].data[0]);
        assert!((got - expected).abs() < 1e-5 * size, "{layer}: {got} {expected}");
    }
}

#[test]
fn lsq_scales_the_gradient_of_pact_plus_and_fixed_clip_values_stay() {
    let graph = &networks()[0];
    let gradient = |act_quant| {
        let config = QuantConfig { act_quant, ..quant("W3A3") };
        let mut backend = backend(graph, &config, Isa::detect(), 2);
        step(&mut backend, 0.05);
        (backend.optimizer_state().momentum.remove("a3.clip_val"), backend.tensors()["a3.clip_val"].data[0])
    };
    let (plus, moved) = gradient(ActQuant::PactPlus);
    let (lsq, _) = gradient(ActQuant::Lsq);
    assert_ne!(moved, 2.0);
    // a3: 4x3 pixels, 8 channels, q_max = 7.
    let scale = 7.0 * 7.0 / (4.0 * 3.0 * 8.0 * 7.0f32).sqrt();
    let (plus, lsq) = (plus.unwrap().data[0], lsq.unwrap().data[0]);
    assert!(plus != 0.0 && (lsq - plus * scale).abs() <= 1e-6 * lsq.abs(), "{plus} {lsq} {scale}");
    assert_eq!(gradient(ActQuant::Fixed), (None, 2.0));
}

/// Gives the channels of every activation clip values of their own, from a fifth of `most` up to it.
pub(super) fn spread_clips(tensors: &mut BTreeMap<String, Tensor>, most: f32) {
    for (name, tensor) in tensors.iter_mut().filter(|(name, t)| name.ends_with(".clip_val") && !t.shape.is_empty()) {
        let key = Key::new(21).with(name);
        let n = tensor.data.len() as u64;
        tensor.data = (0..n).map(|c| most * (0.2 + 0.8 * key.uniform(c))).collect();
        tensor.data[key.below(n, n as u32) as usize] = most;
    }
}

fn by_channel(bits: u8, act_quant: ActQuant) -> QuantConfig {
    let weight = (WeightQuant::Sawb, Granularity::Layer);
    QuantConfig { clip_scale: Granularity::Channel, ..everywhere(bits, bits.max(2), act_quant, weight) }
}

#[test]
fn clip_values_of_channels_convert_exactly_in_every_network() {
    for graph in networks() {
        for (bits, act_quant) in [(2, ActQuant::Pact), (4, ActQuant::PactPlus), (8, ActQuant::Pact)] {
            let config = by_channel(bits, act_quant);
            let mut first = backend(&graph, &config, Isa::detect(), 2);
            let mut tensors = first.tensors();
            spread_clips(&mut tensors, 1.5);
            first.load(&tensors, None).unwrap();
            step(&mut first, 0.02);
            let model = Model {
                graph: graph.clone(),
                plan: QuantPlan::resolve(&graph, &config).unwrap(),
                input: first.plan.pixels.clone(),
                class_names: (0..graph.classes()).map(|c| c.to_string()).collect(),
                tensors: first.tensors(),
            };
            let integer = bitpact_model::convert(&model).unwrap().model;
            let bounds = |op: &bitpact_model::IntegerOp| op.sum().is_some_and(|sum| !sum.requant.bounds.is_empty());
            assert!(integer.layers.iter().any(|layer| bounds(&layer.op)), "{} {bits}", graph.name());
            agrees_with_the_engine(&first, &model, &format!("{} W{bits}A{bits} {act_quant}", graph.name()));
        }
    }
}

#[test]
fn channels_with_one_clip_value_are_the_layer() {
    for graph in networks() {
        for act_quant in [ActQuant::Pact, ActQuant::PactPlus] {
            let layer = QuantConfig { clip_scale: Granularity::Layer, ..by_channel(3, act_quant) };
            for isa in bitpact_kernels::testing::paths() {
                let mut one = backend(&graph, &layer, isa, 2);
                let mut own = backend(&graph, &by_channel(3, act_quant), isa, 2);
                assert_eq!(step(&mut one, 0.0).loss, step(&mut own, 0.0).loss, "{} {isa}", graph.name());
                let (one, own) = (one.optimizer_state().momentum, own.optimizer_state().momentum);
                assert_eq!(one.len(), own.len());
                for (name, gradient) in &one {
                    let sum: f64 = own[name].data.iter().map(|g| f64::from(*g)).sum();
                    let size: f64 = own[name].data.iter().map(|g| f64::from(g.abs())).sum();
                    match name.ends_with(".clip_val") {
                        true => assert!((sum - f64::from(gradient.data[0])).abs() < 1e-5 * size.max(1e-3), "{name}"),
                        false => assert_eq!(own[name], *gradient, "{name}"),
                    }
                }
            }
        }
    }
}

/// What follows the last activation is smooth, and clip values that are whole numbers of steps move codes by whole
/// steps, so the slope of the loss itself is the gradient, where it does not move the step; but for the few values
/// within a step of the clip value.
#[test]
fn the_gradient_of_a_channels_clip_value_is_the_slope_of_the_loss() {
    let graph = &networks()[0];
    for act_quant in [ActQuant::Pact, ActQuant::PactPlus] {
        let config = QuantConfig { clip_scale: Granularity::Channel, act_quant, ..quant("W8A8") };
        let mut backend = backend(graph, &config, Isa::detect(), 2);
        let mut tensors = backend.tensors();
        let unit = 1.0f32 / 128.0;
        let clips = [255.0, 30.0, 60.0, 99.0, 130.0, 20.0, 77.0, 45.0];
        tensors.get_mut("a4.clip_val").unwrap().data = clips.map(|steps| steps * unit).to_vec();
        let mut loss = |channel: usize, by: f32| {
            let mut moved = tensors.clone();
            moved.get_mut("a4.clip_val").unwrap().data[channel] += by;
            backend.load(&moved, None).unwrap();
            (step(&mut backend, 0.0).loss, backend.optimizer_state().momentum["a4.clip_val"].data.clone())
        };
        let (_, gradient) = loss(0, 0.0);
        for c in 1..clips.len() {
            let slope = (loss(c, unit).0 - loss(c, -unit).0) / f64::from(2.0 * unit);
            let got = f64::from(gradient[c]);
            assert!(got != 0.0 && (slope - got).abs() < 0.1 * got.abs() + 2e-5, "{act_quant} {c}: {got} {slope}");
        }
    }
}

#[test]
fn clip_values_of_channels_learn_on_any_number_of_threads_and_go_on_from_a_checkpoint() {
    for (network, act_quant) in [(1, ActQuant::Pact), (1, ActQuant::PactPlus), (4, ActQuant::Pact)] {
        let graph = &networks()[network];
        let config = by_channel(4, act_quant);
        let (mut one, mut two) = (backend(graph, &config, Isa::detect(), 1), backend(graph, &config, Isa::detect(), 2));
        let losses: Vec<f64> = (0..40).map(|_| step(&mut one, 0.03).loss).collect();
        let same: Vec<f64> = (0..5).map(|_| step(&mut two, 0.03).loss).collect();
        assert_eq!(losses[..5], same);
        let least = losses.iter().fold(f64::INFINITY, |a, b| a.min(*b));
        assert!(least < 0.8 * losses[0], "{}, {act_quant}: {} to {least}", graph.name(), losses[0]);
        let clips = &one.tensors()["a2.clip_val"];
        assert!(
            clips.shape == [graph.shape(graph.find("a2").unwrap()).c] && clips.data.iter().any(|a| *a != clips.data[0])
        );
        let mut resumed = backend(graph, &config, Isa::detect(), 2);
        resumed.load(&one.tensors(), Some(&one.optimizer_state())).unwrap();
        step(&mut one, 0.03);
        step(&mut resumed, 0.03);
        assert_eq!(one.tensors(), resumed.tensors());
    }
}
