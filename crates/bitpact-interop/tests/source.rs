//! Exported C and Rust, compiled and run, give the interpreter's integers.

#[path = "common/c.rs"]
mod c;
#[path = "../../bitpact-engine/tests/random_networks/draw.rs"]
#[allow(dead_code)]
mod draw;
#[path = "common/rust.rs"]
mod rust;

use bitpact_graph::testing::{Choices, Form, network_of};
use bitpact_graph::{BitSpec, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_interop::export::CheckData;
use bitpact_interop::source::{Language, SourceError, footprint, usual_name, write};
use bitpact_model::{InputDescription, IntegerModel, IntegerOutput, Model, convert};

use c::{SANITIZED, STRICT, golden};

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

/// Networks of the zoo, of many bits, whose every tensor is an output.
fn zoo_models() -> Vec<IntegerModel> {
    let names = ["cnn", "resnet8", "preact_resnet20", "mobilenet_v1", "mobilenet_v2", "resnet18", "alexnet", "vgg11"];
    let bits = ["W4A4", "W2A2", "W8A8", "W3A3", "W1A2", "W5A7"];
    let models: Vec<IntegerModel> =
        names.iter().zip(bits.iter().cycle()).filter_map(|(name, bits)| of_zoo(name, bits)).map(all_outputs).collect();
    assert!(models.len() >= 6, "{}", models.len());
    models
}

/// Random networks of every form; of two in three, every tensor is an output.
fn random_models() -> Vec<IntegerModel> {
    let plain = (0..50).map(draw::random_network).enumerate();
    plain.map(|(i, model)| if i % 3 == 0 { model } else { all_outputs(model) }).collect()
}

/// Random networks that were converted.
fn converted_models() -> Vec<IntegerModel> {
    let models: Vec<IntegerModel> = (0..40).filter_map(drawn).collect();
    assert!(models.len() > 20, "{}", models.len());
    models
}

/// Half of the networks: compilers of Rust take longer.
fn every_second(models: Vec<IntegerModel>) -> Vec<IntegerModel> {
    models.into_iter().step_by(2).collect()
}

fn check_c(models: &[IntegerModel]) {
    c::check(models, 2, STRICT);
    c::check(models, 1, SANITIZED);
}

#[test]
fn c_of_the_zoo_gives_the_interpreters_integers() {
    check_c(&zoo_models());
}

#[test]
fn c_of_random_networks_of_every_form_gives_the_interpreters_integers() {
    check_c(&random_models());
}

#[test]
fn c_of_random_converted_networks_gives_the_interpreters_integers() {
    check_c(&converted_models());
}

#[test]
fn rust_of_the_zoo_gives_the_interpreters_integers() {
    rust::check(&zoo_models(), 1);
}

#[test]
fn rust_of_random_networks_of_every_form_gives_the_interpreters_integers() {
    rust::check(&every_second(random_models()), 2);
}

#[test]
fn rust_of_random_converted_networks_gives_the_interpreters_integers() {
    rust::check(&every_second(converted_models()), 2);
}

#[test]
fn a_package_of_rust_tests_itself_and_clippy_tells_nothing() {
    let model = all_outputs(of_zoo("mobilenet_v2", "W3A3").unwrap());
    let folder = tempfile::tempdir().unwrap();
    write(&model, Language::Rust, None, &golden(&model, 1), folder.path()).unwrap();
    rust::cargo(folder.path(), &["clippy", "--offline", "--all-targets", "--", "-D", "warnings"]);
    rust::cargo(folder.path(), &["test", "--offline"]);
    // A network in which some output is wrong does not pass.
    let test = folder.path().join("tests/golden.rs");
    let text = std::fs::read_to_string(&test).unwrap();
    std::fs::write(&test, text.replace("[i], \"", "[i].map(|v| v ^ 1), \"")).unwrap();
    assert!(std::panic::catch_unwind(|| rust::cargo(folder.path(), &["test", "--offline"])).is_err());
}

#[test]
fn equal_networks_give_equal_files() {
    let model = of_zoo("resnet8", "W4A4").unwrap();
    let read = |language| {
        let folder = tempfile::tempdir().unwrap();
        write(&model, language, None, &golden(&model, 1), folder.path()).unwrap();
        let inner = ["", "src", "tests", "examples"].map(|name| folder.path().join(name));
        let entries = inner.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let mut files: Vec<_> = entries.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
        files.sort();
        files
            .iter()
            .map(|file| (file.file_name().unwrap().to_owned(), std::fs::read(file).unwrap()))
            .collect::<Vec<_>>()
    };
    for (language, count) in [(Language::C, 7), (Language::Rust, 7)] {
        let files = read(language);
        assert_eq!(files.len(), count);
        assert_eq!(files, read(language));
    }
}

#[test]
fn names_that_are_no_prefix_are_refused_and_hostile_ones_are_made_harmless() {
    let mut model = of_zoo("resnet8", "W4A4").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["while", "2fast", "a-b", "", "été", "bp_net", "main", "Self", "core", &"n".repeat(41)] {
        for language in [Language::C, Language::Rust] {
            let error = write(&model, language, Some(name), &CheckData::default(), folder.path()).unwrap_err();
            assert!(matches!(error, SourceError::Name { .. }) && error.to_string().contains(name), "{name}: {error}");
        }
    }
    for name in ["Net", "a__b"] {
        let error = write(&model, Language::Rust, Some(name), &CheckData::default(), folder.path()).unwrap_err();
        assert!(matches!(error, SourceError::Package { .. }) && error.to_string().contains(name), "{name}: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    model.arch = "int".to_owned();
    assert_eq!(usual_name(&model), "net_int");
    // Comments, strings and continued lines, and names that become the same identifier.
    for (i, layer) in model.layers.iter_mut().enumerate() {
        layer.name = ["*/ #error \"", "while??/", "a.b", "a-b", "\\", "double", "é", "%s"][i % 8].to_owned()
            + &"x".repeat(i / 8);
    }
    let model = all_outputs(model);
    c::check(std::slice::from_ref(&model), 1, STRICT);
    rust::check(&[model], 1);
}

#[test]
fn what_a_network_takes_is_what_is_written() {
    let graph = zoo::build("resnet8", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let names = (0..10).map(|c| c.to_string()).collect();
    let model = convert(&Model::random(graph, plan, input, names, 3).unwrap()).unwrap().model;
    let of_rust = footprint(&model, Language::Rust);
    let footprint = footprint(&model, Language::C);
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
    assert!(of_rust.ram_bytes < footprint.ram_bytes && of_rust.flash_bytes() <= footprint.flash_bytes(), "{of_rust:?}");
    assert_eq!(footprint.macs(), footprint.layers.iter().map(|layer| layer.macs).sum::<u64>());
}
