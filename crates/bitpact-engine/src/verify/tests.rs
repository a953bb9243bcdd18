use bitpact_core::rng::Key;
use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::{InputDescription, IntegerModel, IntegerOp, Model, convert};

use super::*;

fn network() -> IntegerModel {
    let graph = zoo::build("cnn", Shape::new(8, 8, 3), 5).unwrap().unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W3A4".parse().unwrap())).unwrap();
    let names = (0..5).map(|c| c.to_string()).collect();
    convert(&Model::random(graph, plan, InputDescription::uniform(3, 120, 0.02), names, 4).unwrap()).unwrap().model
}

/// Image `i` as long as the slice, so that every image is the same whatever the chunks.
fn load(range: Range<usize>, pixels: &mut [u8]) {
    let image = pixels.len() / range.len();
    for (i, out) in range.zip(pixels.chunks_exact_mut(image)) {
        let key = Key::new(8).at(i as u64);
        out.iter_mut().enumerate().for_each(|(p, out)| *out = key.u64(p as u64) as u8);
    }
}

#[test]
fn every_path_is_compared_and_nothing_differs() {
    let model = network();
    let options = VerifyOptions::up_to(2);
    let mut done = Vec::new();
    let images = 2 * CHUNK_IMAGES + 3;
    let found = verify(&model, &options, images, load, |n| done.push(n)).unwrap();
    assert_eq!((found.different, &found.first, found.images), (0, &None, images));
    assert_eq!(found.paths.len(), 2 * bitpact_kernels::testing::paths().len());
    let codes: usize = model.layers.iter().map(|layer| layer.shape.elements()).sum();
    // The first chunk is computed in both forms, with the logits of `run` for each.
    let each = (images + CHUNK_IMAGES) * codes + 2 * CHUNK_IMAGES * 5;
    assert!(found.paths.iter().all(|path| path.codes == each as u64), "{:?}, expected {each}", found.paths);
    assert_eq!(found.codes - found.probed, (each * found.paths.len()) as u64);
    assert!(found.probed > 0);
    assert_eq!(done, [CHUNK_IMAGES, 2 * CHUNK_IMAGES, images]);
    let none = verify(&model, &options, 0, |_, _| panic!("nothing to load"), |_| {}).unwrap();
    assert_eq!((none.codes, none.different), (none.probed, 0));
}

#[test]
fn a_verification_stops_where_it_is_told_to() {
    let (model, options) = (network(), VerifyOptions::up_to(1));
    let mut done = Vec::new();
    let stop = |n| {
        done.push(n);
        if n > CHUNK_IMAGES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let found = verify_until(&model, &options, 5 * CHUNK_IMAGES, load, stop);
    assert!(matches!(found, Err(EngineError::Stopped)), "{found:?}");
    assert_eq!(done, [CHUNK_IMAGES, 2 * CHUNK_IMAGES]);
}

/// A candidate whose every path is wrong in a known place is found there.
#[test]
fn a_fault_is_found_where_it_is() {
    let model = network();
    let mut faulty = model.clone();
    let IntegerOp::Sum(sum) = &mut faulty.layers[1].op else { panic!("a sum") };
    // Only channel 7 changes, and only where the sum was in reach of the next code.
    sum.requant.add[7] += 1 << sum.requant.shift;
    let options = VerifyOptions::up_to(2);
    let found = compare(&model, &faulty, &options, 5, load, |_| ControlFlow::Continue(())).unwrap();
    let first = found.first.clone().unwrap();
    assert_eq!((first.layer.as_str(), first.channel), ("act2", 7));
    assert!(found.different > 0 && found.different < found.codes);
    assert!(found.paths.iter().all(|path| path.different == found.paths[0].different && path.different > 0));

    // The place it names is the first, by an independent search.
    let shape = model.layers[1].shape;
    let mut pixels = vec![0; model.input_shape.elements()];
    let place = (0..5).find_map(|image| {
        load(image..image + 1, &mut pixels);
        let [right, wrong] = [&model, &faulty].map(|m| Interpreter::new(m).run(&pixels).tensors[1].clone());
        let at = right.iter().zip(&wrong).position(|(a, b)| a != b)?;
        Some((image, at / shape.c / shape.w, at / shape.c % shape.w, at % shape.c, right[at], wrong[at]))
    });
    let Difference { image, y, x, channel, expected, got, .. } = first.clone();
    assert_eq!(place, Some((image, y, x, channel, expected, got)));
    assert_eq!(got, expected + 1);
    assert_eq!(first.isa, Isa::Scalar);
    let told = first.to_string();
    assert!(told.starts_with("scalar with 1 thread and a batch of 3: image 0, layer `act2`, row "), "{told}");
    assert!(told.ends_with(&format!("channel 7 is {got}, the interpreter has {expected}")), "{told}");
}

/// A fault in the last constant of the last layer changes one logit and no code before it.
#[test]
fn a_fault_in_one_logit_is_one_difference_a_form() {
    let model = network();
    let mut faulty = model.clone();
    let last = faulty.layers.len() - 1;
    let IntegerOp::Sum(sum) = &mut faulty.layers[last].op else { panic!("logits") };
    sum.requant.add[4] -= 1;
    let options = VerifyOptions { isas: vec![Isa::detect()], threads: vec![1], probes: false };
    let found = compare(&model, &faulty, &options, 1, load, |_| ControlFlow::Continue(())).unwrap();
    // In a batch, alone, and both again without a trace.
    assert_eq!(found.different, 4);
    let first = found.first.unwrap();
    assert_eq!((first.image, first.y, first.x, first.channel), (0, 0, 0, 4));
    assert_eq!(first.expected, first.got + 1);
}

#[test]
fn numbers_of_threads() {
    assert_eq!(VerifyOptions::up_to(0).threads, [1]);
    assert_eq!(VerifyOptions::up_to(3).threads, [1, 2, 3]);
    assert_eq!(VerifyOptions::up_to(12).threads, [1, 2, 3, 4, 8, 12]);
}

/// A network whose batch norms have variances around eps in some channels.
fn trained(name: &str, bits: &str) -> Model {
    let graph = zoo::build(name, Shape::new(8, 8, 3), 5).unwrap().unwrap().narrowed(4).unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse().unwrap())).unwrap();
    let names = (0..5).map(|c| c.to_string()).collect();
    let mut model = Model::random(graph, plan, InputDescription::uniform(3, 120, 0.02), names, 4).unwrap();
    for (name, tensor) in &mut model.tensors {
        if name.ends_with(".running_var") {
            tensor.data.iter_mut().step_by(3).for_each(|var| *var *= 1e-4);
        }
    }
    model
}

#[test]
fn converted_networks_follow_the_formula_of_training() {
    for name in ["cnn", "resnet20", "resnet20-b", "preact_resnet20", "mobilenet_v2"] {
        for bits in ["W2A2", "W4A4", "W8A8"] {
            let model = trained(name, bits);
            let conversion = convert(&model).unwrap();
            let found = check_formula(&model, &conversion, 2, load).unwrap();
            assert_eq!((found.wrong, &found.first), (0, &None), "{name} {bits}");
            let sums: usize =
                conversion.model.layers.iter().filter(|l| l.op.sum().is_some()).map(|l| l.shape.elements()).sum();
            assert_eq!(found.values, 2 * sums as u64, "{name} {bits}");
            assert!(found.at_boundaries * 100 < found.values, "{name} {bits}: {} at boundaries", found.at_boundaries);
        }
    }
}

#[test]
fn a_conversion_without_eps_or_without_the_half_of_rounding_is_wrong() {
    for name in ["resnet20", "preact_resnet20", "mobilenet_v2"] {
        let model = trained(name, "W4A4");
        // Conversion adds eps to what is less by it.
        let mut without = model.clone();
        for (name, tensor) in &mut without.tensors {
            if name.ends_with(".running_var") {
                tensor.data.iter_mut().for_each(|var| *var = (*var - 1e-5).max(0.0));
            }
        }
        let found = check_formula(&model, &convert(&without).unwrap(), 2, load).unwrap();
        assert!(found.wrong > 0, "{name}: eps");
        let mut floored = convert(&model).unwrap();
        for layer in &mut floored.model.layers {
            if let IntegerOp::Sum(sum) = &mut layer.op {
                let half = 1i64 << sum.requant.shift >> 1;
                sum.requant.add.iter_mut().for_each(|add| *add -= half);
            }
        }
        let found = check_formula(&model, &floored, 2, load).unwrap();
        assert!(found.wrong * 20 > found.values, "{name}: half, {} of {}", found.wrong, found.values);
        let told = found.first.unwrap().to_string();
        assert!(told.contains("layer `") && told.contains("the formula of training gives"), "{told}");
    }
}

#[test]
fn every_kind_of_layer_is_probed_at_odd_sizes_with_padding_of_its_range() {
    for name in ["resnet20", "resnet20-b", "preact_resnet20", "mobilenet_v2", "cnn"] {
        let model = convert(&trained(name, "W3A4")).unwrap().model;
        let probes = probes::probes(&model);
        let kinds: std::collections::BTreeSet<&str> = probes.iter().map(|probe| probe.layer.as_str()).collect();
        assert!(kinds.len() >= 4, "{name}: {kinds:?}");
        assert!(probes.iter().any(|probe| probe.model.layers.iter().any(|l| (l.shape.h, l.shape.w) == (7, 17))));
        let padded = |layer: &bitpact_model::IntegerLayer| layer.op.products().any(|p| p.padding_code > 0);
        assert!(probes.iter().any(|probe| probe.model.layers.iter().any(padded)), "{name}");
        let found = probe(&model, &VerifyOptions::up_to(2)).unwrap();
        assert_eq!((found.different, &found.first), (0, &None), "{name}");
        assert!(found.codes > 0);
    }
}
