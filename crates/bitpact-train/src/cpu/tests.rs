//! Whole small networks: gradients against finite differences, bits against thread counts, statistics against counts.

mod quantizers;
mod rounded;
mod switches;

use bitpact_core::requant::TOLERANCE;
use bitpact_core::rng::Key;
use bitpact_core::{ActQuant, Granularity, WeightQuant};
use bitpact_graph::{Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::norm::{self, Output};
use bitpact_kernels::{Aligned, Isa, Layout};
use bitpact_model::{InputDescription, Model, Tensor};

use crate::{OptimizerConfig, initial_tensors};

use super::forward::residual_view;
use super::plan::{Shortcut, UnitStep};
use super::*;
use more::{pools, streams};

mod more;

const BATCH: usize = 6;

fn graph(text: &str) -> Graph {
    serde_json::from_str(text).unwrap()
}

/// Networks that between them use every op, shortcut and source.
fn networks() -> Vec<Graph> {
    let tail = r#"{"name":"pool","op":"global_avg_pool"},{"name":"fc","op":"linear","out_features":5}]}"#;
    let option_a = format!(
        r#"{{"name":"option_a","nodes":[{{"name":"in","op":"input","height":8,"width":6,"channels":3}},
        {{"name":"c1","op":"conv","out_channels":5,"kernel":3,"padding":1}},{{"name":"n1","op":"batch_norm"}},{{"name":"a1","op":"act"}},
        {{"name":"c2","op":"conv","out_channels":5,"kernel":3,"padding":1}},{{"name":"n2","op":"batch_norm"}},
        {{"name":"s1","op":"add","inputs":["n2","a1"]}},{{"name":"a2","op":"act"}},
        {{"name":"c3","op":"conv","out_channels":8,"kernel":3,"stride":2,"padding":1}},{{"name":"n3","op":"batch_norm"}},{{"name":"a3","op":"act"}},
        {{"name":"c4","op":"conv","out_channels":8,"kernel":1}},{{"name":"n4","op":"batch_norm"}},
        {{"name":"sub","op":"subsample","stride":2,"pad_before":1,"pad_after":2,"inputs":["a2"]}},
        {{"name":"s2","op":"add","inputs":["n4","sub"]}},{{"name":"a4","op":"act"}},{tail}"#
    );
    let projection = format!(
        r#"{{"name":"projection","nodes":[{{"name":"in","op":"input","height":8,"width":8,"channels":1}},
        {{"name":"c1","op":"conv","out_channels":4,"kernel":5,"stride":1,"padding":2}},{{"name":"n1","op":"batch_norm"}},{{"name":"a1","op":"act"}},
        {{"name":"mp","op":"max_pool","kernel":3,"stride":2,"padding":1}},
        {{"name":"c2","op":"conv","out_channels":6,"kernel":3,"stride":2,"padding":1}},{{"name":"n2","op":"batch_norm"}},{{"name":"a2","op":"act"}},
        {{"name":"c3","op":"conv","out_channels":6,"kernel":3,"padding":1}},{{"name":"n3","op":"batch_norm"}},
        {{"name":"cs","op":"conv","out_channels":6,"kernel":1,"stride":2,"inputs":["mp"]}},{{"name":"ns","op":"batch_norm"}},
        {{"name":"s1","op":"add","inputs":["n3","ns"]}},{{"name":"a3","op":"act"}},
        {{"name":"c4","op":"conv","out_channels":6,"kernel":3,"padding":1}},{{"name":"n4","op":"batch_norm"}},
        {{"name":"s2","op":"add","inputs":["a3","n4"]}},{{"name":"a4","op":"act"}},{tail}"#
    );
    let plain = r#"{"name":"plain","nodes":[{"name":"in","op":"input","height":6,"width":6,"channels":2},
        {"name":"c1","op":"conv","out_channels":20,"kernel":3,"bias":true},{"name":"a1","op":"act"},
        {"name":"c2","op":"conv","out_channels":3,"kernel":2,"stride":2,"bias":true},{"name":"n2","op":"batch_norm"},{"name":"a2","op":"act"},
        {"name":"f1","op":"linear","out_features":7},{"name":"a3","op":"act"},
        {"name":"fc","op":"linear","out_features":5,"bias":false}]}"#;
    let twice = format!(
        r#"{{"name":"twice","nodes":[{{"name":"in","op":"input","height":5,"width":5,"channels":3}},
        {{"name":"c1","op":"conv","out_channels":4,"kernel":3,"padding":1}},{{"name":"n1","op":"batch_norm"}},{{"name":"a1","op":"act"}},
        {{"name":"c2","op":"conv","out_channels":4,"kernel":3,"padding":1}},{{"name":"s1","op":"add","inputs":["c2","a1"]}},{{"name":"a2","op":"act"}},
        {{"name":"c3","op":"conv","out_channels":4,"kernel":3,"padding":1}},{{"name":"n3","op":"batch_norm"}},
        {{"name":"s2","op":"add","inputs":["n3","a1"]}},{{"name":"a3","op":"act"}},{tail}"#
    );
    let grouped = format!(
        r#"{{"name":"grouped","nodes":[{{"name":"in","op":"input","height":9,"width":8,"channels":4}},
        {{"name":"c1","op":"conv","out_channels":12,"kernel":3,"padding":1,"groups":2}},{{"name":"n1","op":"batch_norm"}},
        {{"name":"a1","op":"act","signed":true}},
        {{"name":"c2","op":"conv","out_channels":12,"kernel":3,"padding":1,"groups":12}},{{"name":"n2","op":"batch_norm"}},{{"name":"a2","op":"act"}},
        {{"name":"c3","op":"conv","out_channels":12,"kernel":1,"groups":3,"bias":true}},{{"name":"n3","op":"batch_norm"}},
        {{"name":"s3","op":"add","inputs":["n3","a1"]}},{{"name":"a3","op":"act","signed":true}},
        {{"name":"mp","op":"max_pool","kernel":2,"stride":1}},
        {{"name":"c4","op":"conv","out_channels":16,"kernel":3,"stride":2,"padding":1,"groups":4}},{{"name":"n4","op":"batch_norm"}},
        {{"name":"sub","op":"subsample","stride":2,"pad_before":1,"pad_after":3,"inputs":["mp"]}},
        {{"name":"s4","op":"add","inputs":["n4","sub"]}},{{"name":"a4","op":"act","signed":true}},
        {{"name":"c5","op":"conv","out_channels":16,"kernel":5,"stride":2,"padding":2,"groups":16}},{{"name":"n5","op":"batch_norm"}},{{"name":"a5","op":"act"}},
        {{"name":"c6","op":"conv","out_channels":8,"kernel":1}},{{"name":"n6","op":"batch_norm"}},
        {{"name":"c7","op":"conv","out_channels":8,"kernel":1,"stride":2,"groups":2,"inputs":["a4"]}},{{"name":"n7","op":"batch_norm"}},
        {{"name":"s7","op":"add","inputs":["n6","n7"]}},{{"name":"a7","op":"act","signed":true}},{tail}"#
    );
    let wide = format!(
        r#"{{"name":"wide","nodes":[{{"name":"in","op":"input","height":5,"width":6,"channels":17}},
        {{"name":"c1","op":"conv","out_channels":6,"kernel":3,"padding":1}},{{"name":"n1","op":"batch_norm"}},{{"name":"a1","op":"act"}},
        {{"name":"c2","op":"conv","out_channels":4,"kernel":1}},{{"name":"n2","op":"batch_norm"}},{{"name":"a2","op":"act"}},{tail}"#
    );
    let old = [option_a.as_str(), &projection, plain, &twice, &grouped, &wide].map(graph);
    old.into_iter().chain([streams(), pools()]).collect()
}

fn quant(bits: &str) -> QuantConfig {
    QuantConfig::new(bits.parse().unwrap())
}

fn backend(graph: &Graph, config: &QuantConfig, isa: Isa, threads: usize) -> CpuBackend {
    let plan = QuantPlan::resolve(graph, config).unwrap();
    let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
    let mut backend =
        CpuBackend::new(&BackendSpec { isa, threads, ..BackendSpec::new(graph, &plan, &input, BATCH) }).unwrap();
    backend.load(&initial_tensors(graph, &plan, 7, 2.0), None).unwrap();
    backend
}

fn filler(shape: Shape, classes: usize) -> impl Fn(usize, &mut [u8], Placement) -> usize + Sync {
    move |i, image, place| {
        let key = Key::new(99).at(i as u64);
        for y in 0..shape.h {
            for x in 0..shape.w {
                for c in 0..shape.c {
                    image[place.pixel(y, x) + c] = key.below(((y * 64 + x) * 4 + c) as u64, 256) as u8;
                }
            }
        }
        i % classes
    }
}

/// Pixels one after the other.
fn in_a_row(shape: Shape) -> Placement {
    Placement { offset: 0, row_stride: shape.w * shape.c, pixel_stride: shape.c }
}

fn step(backend: &mut CpuBackend, lr: f32) -> StepOutcome {
    noisy_step(backend, lr, 0.0)
}

fn noisy_step(backend: &mut CpuBackend, lr: f32, sum_noise: f32) -> StepOutcome {
    let fill = filler(backend.input_shape(), backend.graph.classes());
    backend.step(&StepInput { lr, fill: &fill, key: Key::new(3), sum_noise, ..StepInput::default() }).unwrap()
}

/// A direction whose slope every tensor of a float network must show.
fn direction(name: &str, n: usize) -> Vec<f32> {
    let key = Key::new(5).with(name);
    (0..n as u64).map(|i| key.normal(i)).collect()
}

#[test]
fn every_gradient_of_a_float_network_matches_finite_differences() {
    // A network without codes has no deviations of cells, but keeps its running statistics for them.
    for (graph, sum_noise) in networks().into_iter().flat_map(|graph| [(graph.clone(), 0.0), (graph, 0.1)]) {
        let config = quant("float");
        let plan = QuantPlan::resolve(&graph, &config).unwrap();
        let mut start = initial_tensors(&graph, &plan, 7, 2.0);
        for (name, bias) in start.iter_mut().filter(|(name, _)| name.ends_with(".bias")) {
            // A bias of 0 puts what a ReLU has made 0 onto the kink of the next one.
            let d = direction(&format!("{name} at first"), bias.data.len());
            bias.data.iter_mut().zip(d).for_each(|(b, d)| *b += 0.1 * d);
        }
        for isa in bitpact_kernels::testing::paths() {
            let mut backend = backend(&graph, &config, isa, 2);
            backend.load(&start, None).unwrap();
            noisy_step(&mut backend, 0.0, sum_noise);
            let gradients = backend.optimizer_state().momentum;
            for (name, gradient) in &gradients {
                let d = direction(name, gradient.data.len());
                let norm = d.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                let mut loss_at = |h: f64| {
                    let mut moved = start.clone();
                    for (w, d) in moved.get_mut(name).unwrap().data.iter_mut().zip(&d) {
                        *w += (h * f64::from(*d) / norm) as f32;
                    }
                    backend.load(&moved, None).unwrap();
                    noisy_step(&mut backend, 0.0, sum_noise).loss
                };
                let slope =
                    gradient.data.iter().zip(&d).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum::<f64>() / norm;
                let size = gradient.data.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                let allowed = 0.02 * size + 2e-4;
                // A wide step may cross a kink of a ReLU or a maximum, a narrow one drown in roundings.
                let measured = [2e-3, 2.5e-4].map(|h| (loss_at(h) - loss_at(-h)) / (2.0 * h));
                assert!(
                    measured.iter().any(|measured| (slope - measured).abs() < allowed),
                    "{} {isa} {name}: gradient {slope}, finite differences {measured:?}, allowed {allowed}",
                    graph.name()
                );
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for graph in networks() {
        for bits in ["float", "W2A2", "W8A8"] {
            for isa in bitpact_kernels::testing::paths() {
                let run = |threads| {
                    let mut backend = backend(&graph, &quant(bits), isa, threads);
                    let losses: Vec<f64> = (0..3).map(|_| step(&mut backend, 0.05).loss).collect();
                    (losses, backend.tensors(), backend.optimizer_state())
                };
                let one = run(1);
                assert!(one == run(2) && one == run(3), "{} {bits} {isa}", graph.name());
            }
        }
    }
}

/// The integer codes of image `i` of a unit before they are rounded, in code steps from the smallest code.
fn unrounded(backend: &CpuBackend, i: usize, unit: &UnitStep) -> Vec<f32> {
    let (plan, shape, k) = (&backend.plan, unit.main.z_layout, &unit.main.channels);
    let Activation::Quantized { clip, bits, quant } = unit.activation else { panic!("a quantized activation") };
    let (mut residual, mut codes) = (Aligned::zeroed(shape.len()), Aligned::zeroed(shape.len()));
    let view = residual_view(backend.isa, i, unit, &plan.values, &plan.params, &mut residual, &mut codes);
    let mut u = vec![0.0; shape.len()];
    let keep = Output::Keep { values: &mut u, layout: shape };
    norm::apply(backend.isa, shape, unit.main.z(i), &k.a, &k.b, view, keep);
    let inverse = quant.inverse_scale(plan.params.clip(clip), bits);
    let (multiple, zero, _) = quant.integer_codes(bits);
    u.iter().map(|u| u * inverse / multiple as f32 + zero as f32).collect()
}

fn dense<T: Copy>(values: &[T], layout: Layout) -> Vec<T> {
    let pixels = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
    pixels.flat_map(|at| values[at..at + layout.c].to_vec()).collect()
}

/// The simulated view against the converted network: where all that a unit reads is the same, so are its codes, but for
/// those nearer to a tie than conversion promises.
#[test]
fn simulated_codes_are_the_integers_but_for_ties() {
    for graph in networks() {
        for (bits, clip_scale, act_quant) in [
            ("W2A2", Granularity::Layer, ActQuant::Pact),
            ("W4A4", Granularity::Layer, ActQuant::Pact),
            ("W8A8", Granularity::Layer, ActQuant::Pact),
            ("W3A3", Granularity::Channel, ActQuant::Pact),
            ("W1A1", Granularity::Layer, ActQuant::Sign),
        ] {
            if act_quant == ActQuant::Sign && graph.name() == "pools" {
                // It averages over padding, which signs have no code for.
                continue;
            }
            let config = QuantConfig { clip_scale, act_quant, ..quant(bits) };
            let mut backend = backend(&graph, &config, Isa::detect(), 2);
            let mut tensors = backend.tensors();
            quantizers::spread_clips(&mut tensors, 2.0);
            backend.load(&tensors, None).unwrap();
            for _ in 0..5 {
                step(&mut backend, 0.02);
            }
            let shape = backend.input_shape();
            let fill = filler(shape, backend.graph.classes());
            backend.simulate(BATCH, &fill, &mut Vec::new());
            let (plan, input) = (QuantPlan::resolve(&graph, &config).unwrap(), backend.plan.pixels.clone());
            let class_names = (0..graph.classes()).map(|c| c.to_string()).collect();
            let model = Model { graph: graph.clone(), plan, input, class_names, tensors: backend.tensors() };
            let conversion = bitpact_model::convert(&model).unwrap();
            let integer = conversion.model;
            let mut compared = 0;
            for n in 0..BATCH {
                let mut image = vec![0; shape.elements()];
                fill(n, &mut image, in_a_row(shape));
                let trace = bitpact_engine::Interpreter::new(&integer).run(&image);
                let mut same = vec![true; backend.plan.values.len()];
                for stage in &backend.plan.stages {
                    let unit = match &stage.kind {
                        StageKind::Unit(unit) => unit,
                        StageKind::MaxPool { input, output, .. }
                        | StageKind::AvgPool { input, output, .. }
                        | StageKind::Dropout { input, output, .. }
                        | StageKind::MeanPool { input, output } => {
                            same[*output] = same[*input];
                            continue;
                        }
                        StageKind::General(step) => {
                            same[step.output] = step.inputs.iter().all(|&input| same[input]);
                            continue;
                        }
                        StageKind::Concat { inputs, output, .. } => {
                            same[*output] = inputs.iter().all(|&input| same[input]);
                            continue;
                        }
                    };
                    let shortcut = match &unit.shortcut {
                        Shortcut::None => true,
                        Shortcut::Identity { value }
                        | Shortcut::Subsample { value, .. }
                        | Shortcut::Projection { value, .. } => same[*value],
                    };
                    let Some(name) = &unit.act_name else {
                        same[unit.output] = same[unit.input] && shortcut;
                        continue;
                    };
                    // What the roundings of a stream may add.
                    let own = conversion.acts.iter().find(|act| act.name == *name);
                    let tolerance = own.map_or(TOLERANCE, |act| act.worst_error);
                    let value = &backend.plan.values[unit.output];
                    let mut codes = dense(value.store.codes(n, value.layout.len()), value.layout);
                    if matches!(unit.activation, Activation::Quantized { quant: ActQuant::Sign, .. }) {
                        // Training stores -1 and +1 as 0 and 2.
                        codes.iter_mut().for_each(|q| *q /= 2);
                    }
                    let layer = integer.layers.iter().position(|l| l.name == *name).unwrap();
                    let different = |i: &usize| i64::from(codes[*i]) != trace.tensors[layer][*i];
                    let different: Vec<usize> = (0..codes.len()).filter(different).collect();
                    same[unit.output] = different.is_empty();
                    if shortcut && same[unit.input] {
                        let exact = dense(&unrounded(&backend, n, unit), unit.main.z_layout);
                        for i in different {
                            let from_tie = f64::from(exact[i] - exact[i].floor() - 0.5).abs();
                            let what = format!("{} {bits} `{name}`, element {i}", graph.name());
                            assert!(from_tie <= tolerance + 1e-4, "{what}: {}, simulated {}", exact[i], codes[i]);
                        }
                        compared += 1;
                    }
                }
            }
            assert!(compared >= BATCH, "{} {bits}: {compared} units compared", graph.name());
        }
    }
}

#[test]
fn loading_tensors_and_momentum_continues_bit_for_bit() {
    let graph = &networks()[0];
    let mut whole = backend(graph, &quant("W3A3"), Isa::detect(), 2);
    step(&mut whole, 0.05);
    let (tensors, state) = (whole.tensors(), whole.optimizer_state());
    step(&mut whole, 0.05);
    let mut resumed = backend(graph, &quant("W3A3"), Isa::detect(), 1);
    resumed.load(&tensors, Some(&state)).unwrap();
    step(&mut resumed, 0.05);
    assert_eq!(whole.tensors(), resumed.tensors());
    assert_ne!(whole.tensors(), tensors);
}

#[test]
fn a_small_set_is_learned_in_every_mode() {
    let networks = networks();
    for (network, bits, act_quant, weight_quant) in [
        (1, "float", ActQuant::Pact, WeightQuant::Dorefa),
        (1, "W4A4", ActQuant::Pact, WeightQuant::Dorefa),
        (1, "W4A4", ActQuant::PactPlus, WeightQuant::Sawb),
        (1, "W3A4", ActQuant::Relu, WeightQuant::Minmax),
        (1, "W8A8", ActQuant::Pact, WeightQuant::Dorefa),
        (4, "float", ActQuant::Pact, WeightQuant::Dorefa),
        (4, "W4A4", ActQuant::Pact, WeightQuant::Sawb),
        (4, "W8A8", ActQuant::PactPlus, WeightQuant::Minmax),
    ] {
        let graph = &networks[network];
        let config = QuantConfig { act_quant, weight_quant, ..quant(bits) };
        let mut backend = backend(graph, &config, Isa::detect(), 2);
        let first = step(&mut backend, 0.05).loss;
        let last = (0..60).map(|_| step(&mut backend, 0.05).loss).fold(f64::INFINITY, f64::min);
        assert!(last < 0.5 * first, "{bits} {act_quant} {weight_quant}: {first} to {last}");
    }
}

#[test]
fn statistics_count_what_the_step_saw() {
    let graph = &networks()[0];
    let mut backend = backend(graph, &quant("W2A2"), Isa::detect(), 2);
    step(&mut backend, 0.0);
    let all = backend.statistics();
    assert_eq!(all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a1", "a2", "a3", "a4"]);
    assert_eq!(all[0].occupancy.len(), 4);
    assert_eq!(all[3].occupancy.len(), 256, "the activation into the last layer has 8 bits");
    for s in &all {
        assert!((s.occupancy.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(s.zero > 0.0 && s.zero < 1.0 && s.occupancy[0] == s.zero);
        assert!(s.alpha == 2.0 && s.alpha_clamped == 0);
    }
    assert!(all.iter().any(|s| s.clipped > 0.0 && s.alpha_gradient != 0.0));
    backend.reset_statistics();
    assert!(backend.statistics().iter().all(|s| s.clipped == 0.0 && s.zero == 0.0));
}

#[test]
fn calibration_at_the_hundredth_percentile_clips_nothing_and_lower_ones_clip_their_share() {
    let graph = &networks()[0];
    let mut backend = backend(graph, &quant("W4A4"), Isa::detect(), 2);
    let fill = filler(backend.input_shape(), backend.graph.classes());
    for (percentile, most) in [(100.0, 0.01), (90.0, 0.115)] {
        let clips = backend.calibrate(percentile, &fill).unwrap();
        assert_eq!(clips.len(), 4);
        backend.reset_statistics();
        step(&mut backend, 0.0);
        for s in backend.statistics() {
            assert_eq!(s.alpha, clips[&format!("{}.clip_val", s.name)]);
            assert!(s.clipped <= most, "{}: {} clipped at percentile {percentile}", s.name, s.clipped);
            assert!(percentile == 100.0 || s.clipped > 0.085, "{}: {}", s.name, s.clipped);
        }
    }
    let before = &backend.tensors()["n1.running_mean"];
    assert!(before.data.iter().any(|v| *v != 0.0), "steps move the running mean");
}

#[test]
fn relu_clip_values_follow_the_running_maximum() {
    let graph = &networks()[0];
    let config = QuantConfig { act_quant: ActQuant::Relu, ..quant("W4A4") };
    let mut backend = backend(graph, &config, Isa::detect(), 2);
    for _ in 0..80 {
        step(&mut backend, 0.0);
    }
    let fill = filler(backend.input_shape(), backend.graph.classes());
    let followed = backend.tensors()["a1.clip_val"].data[0];
    let maximum = backend.calibrate(100.0, &fill).unwrap()["a1.clip_val"];
    assert!((followed - maximum).abs() < 1e-3 * maximum, "{followed} against {maximum}");
    assert!(!backend.optimizer_state().momentum.contains_key("a1.clip_val"));
}

#[test]
fn a_clip_value_never_falls_below_its_smallest() {
    let graph = &networks()[0];
    let plan = QuantPlan::resolve(graph, &quant("W4A4")).unwrap();
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let optimizer = OptimizerConfig { clip_weight_decay: 100.0, ..OptimizerConfig::default() };
    let mut backend =
        CpuBackend::new(&BackendSpec { optimizer, ..BackendSpec::new(graph, &plan, &input, BATCH) }).unwrap();
    backend.load(&initial_tensors(graph, &plan, 7, 2.0), None).unwrap();
    step(&mut backend, 0.1);
    for s in backend.statistics() {
        assert_eq!((s.alpha, s.alpha_clamped), (bitpact_core::ALPHA_MIN, 1), "{}", s.name);
    }
}

#[test]
fn a_loss_that_is_no_number_leaves_the_parameters_alone() {
    let graph = &networks()[2];
    let mut backend = backend(graph, &quant("float"), Isa::detect(), 2);
    let mut tensors = backend.tensors();
    tensors.get_mut("fc.weight").unwrap().data[3] = f32::NAN;
    backend.load(&tensors, None).unwrap();
    let fill = filler(backend.input_shape(), backend.graph.classes());
    let error = backend.step(&StepInput { lr: 0.1, fill: &fill, ..StepInput::default() }).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { step: 0, .. }), "{error}");
    let same = |a: &Tensor, b: &Tensor| a.data.iter().zip(&b.data).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(backend.tensors().iter().all(|(name, tensor)| same(tensor, &tensors[name])));
}

#[test]
fn loading_names_the_tensor_at_fault() {
    let graph = &networks()[2];
    let mut backend = backend(graph, &quant("W4A4"), Isa::detect(), 1);
    let mut tensors = backend.tensors();
    tensors.get_mut("f1.weight").unwrap().shape = vec![1, 7];
    let error = backend.load(&tensors, None).unwrap_err().to_string();
    assert!(error.contains("f1.weight") && error.contains("[1, 7]"), "{error}");
    tensors.remove("f1.weight");
    assert!(backend.load(&tensors, None).unwrap_err().to_string().contains("missing"));
}

#[test]
fn the_zoo_can_be_planned_at_every_width() {
    for name in zoo::NAMES {
        let size = if ["alexnet", "resnet18", "resnet34", "resnet50"].contains(&name) { 64 } else { 32 };
        let graph = zoo::build(name, Shape::new(size, size, 3), 10).unwrap().unwrap();
        for bits in ["float", "W1A1", "W8A8"] {
            let plan = QuantPlan::resolve(&graph, &quant(bits)).unwrap();
            let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
            CpuBackend::new(&BackendSpec::new(&graph, &plan, &input, 1)).unwrap();
        }
    }
}
