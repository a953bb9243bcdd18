//! The exported C, compiled and run, gives the interpreter's integers.

#[path = "common/c.rs"]
mod c;
#[path = "../../bitpact-engine/tests/random_networks/draw.rs"]
#[allow(dead_code)]
mod draw;

use bitpact_graph::testing::{Choices, Form, network_of};
use bitpact_graph::{BitSpec, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_interop::c::{SourceError, footprint, usual_name, write};
use bitpact_interop::export::CheckData;
use bitpact_model::{InputDescription, IntegerModel, IntegerOutput, Model, convert};

use c::{SANITIZED, STRICT, check, golden};

/// A network of the zoo in a small shape, with random weights.
fn of_zoo(name: &str, bits: &str) -> Option<IntegerModel> {
    let side = if name == "alexnet" || name.starts_with("vgg") { 33 } else { 9 };
    let graph = zoo::build(name, Shape::new(side, side, 3), 5)?.ok()?.narrowed(8).ok()?;
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse::<BitSpec>().unwrap())).unwrap();
    let input = InputDescription { bits: 8, zero_point: vec![128, 120, 99], scale: vec![1.0 / 64.0; 3] };
    let names = (0..5).map(|c| format!("class {c}")).collect();
    Some(convert(&Model::random(graph, plan, input, names, 7).unwrap()).ok()?.model)
}

/// A network whose every tensor is an output.
fn all_outputs(mut model: IntegerModel) -> IntegerModel {
    let main = model.main_output();
    let others = (1..=model.layers.len()).filter(|&tensor| tensor != main);
    model.outputs = std::iter::once(main).chain(others).map(|tensor| IntegerOutput { tensor, zero: 0 }).collect();
    model
}

/// The network that `network_of` draws.
fn drawn(seed: u64) -> Option<IntegerModel> {
    let (graph, plan) = network_of(Form { terms: 3, is_any: true }, &mut Choices::of_seed(seed));
    let channels = graph.input().c;
    let zeros = (0..channels as u16).map(|c| (seed as u16 * 7 + c * 40) % 256).collect();
    let input = InputDescription { bits: 8, zero_point: zeros, scale: vec![1.0 / 64.0; channels] };
    let names = (0..graph.classes()).map(|c| c.to_string()).collect();
    Some(convert(&Model::random(graph, plan, input, names, seed).unwrap()).ok()?.model)
}

#[test]
fn networks_of_the_zoo_give_the_interpreters_integers() {
    let names = ["cnn", "resnet8", "preact_resnet20", "mobilenet_v1", "mobilenet_v2", "resnet18", "alexnet", "vgg11"];
    let bits = ["W4A4", "W2A2", "W8A8", "W3A3", "W1A2", "W5A7"];
    let models: Vec<IntegerModel> =
        names.iter().zip(bits.iter().cycle()).filter_map(|(name, bits)| of_zoo(name, bits)).map(all_outputs).collect();
    assert!(models.len() >= 6, "{}", models.len());
    check(&models, 2, STRICT);
    check(&models, 1, SANITIZED);
}

#[test]
fn random_networks_of_every_form_give_the_interpreters_integers() {
    let plain = (0..50).map(draw::random_network);
    let models: Vec<IntegerModel> =
        plain.enumerate().map(|(i, model)| if i % 3 == 0 { model } else { all_outputs(model) }).collect();
    check(&models, 2, STRICT);
    check(&models, 1, SANITIZED);
}

#[test]
fn random_converted_networks_give_the_interpreters_integers() {
    let models: Vec<IntegerModel> = (0..40).filter_map(drawn).collect();
    assert!(models.len() > 20, "{}", models.len());
    check(&models, 2, STRICT);
    check(&models, 1, SANITIZED);
}

#[test]
fn equal_networks_give_equal_files() {
    let model = of_zoo("resnet8", "W4A4").unwrap();
    let read = || {
        let folder = tempfile::tempdir().unwrap();
        write(&model, None, &golden(&model, 1), folder.path()).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .map(|file| (file.file_name().unwrap().to_owned(), std::fs::read(file).unwrap()))
            .collect::<Vec<_>>()
    };
    let files = read();
    assert_eq!(files.len(), 7);
    assert_eq!(files, read());
}

#[test]
fn names_that_are_no_prefix_are_refused_and_hostile_ones_are_made_harmless() {
    let mut model = of_zoo("resnet8", "W4A4").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["while", "2fast", "a-b", "", "été", "bp_net", "main", &"n".repeat(41)] {
        let error = write(&model, Some(name), &CheckData::default(), folder.path()).unwrap_err();
        assert!(matches!(error, SourceError::Name { .. }) && error.to_string().contains(name), "{name}: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    model.arch = "int".to_owned();
    assert_eq!(usual_name(&model), "net_int");
    // Comments, strings and continued lines, and names that become the same identifier.
    for (i, layer) in model.layers.iter_mut().enumerate() {
        layer.name = ["*/ #error \"", "while??/", "a.b", "a-b", "\\", "double", "é", "%s"][i % 8].to_owned()
            + &"x".repeat(i / 8);
    }
    check(&[all_outputs(model)], 1, STRICT);
}

#[test]
fn what_a_network_takes_is_what_is_written() {
    let graph = zoo::build("resnet8", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let names = (0..10).map(|c| c.to_string()).collect();
    let model = convert(&Model::random(graph, plan, input, names, 3).unwrap()).unwrap().model;
    let footprint = footprint(&model);
    // Two tensors of 32x32x16 codes of 4 bits: a block's input, which its sum writes over, and what lies between.
    assert_eq!((footprint.live_bytes, footprint.arena_bytes), (16_384, 16_384));
    assert!(footprint.ram_bytes * 100 <= footprint.live_bytes * 115, "{}", footprint.ram_bytes);
    let packed: usize = model
        .layers
        .iter()
        .flat_map(|layer| layer.op.products())
        .map(|p| (p.codes.len() * usize::from(p.weight_bits)).div_ceil(8))
        .sum();
    assert!(footprint.flash_bytes() * 100 <= (packed + footprint.constant_bytes) * 103, "{footprint:?}");
    assert_eq!(footprint.macs(), footprint.layers.iter().map(|layer| layer.macs).sum::<u64>());
}
