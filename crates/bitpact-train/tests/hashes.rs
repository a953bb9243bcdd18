//! The numbers of the whole zoo, held against a committed list: tensors after two training steps, codes and logits of
//! the converted network. A change that is meant to change nothing leaves every line as it is.
//!
//! A line of `hashes.txt` is `network bits path tensors codes logits`, each hash FNV-1a of 64 bits over names and
//! little-endian values. `BITPACT_WRITE_HASHES=1 cargo test --release -p bitpact-train --test hashes` writes the lines
//! of the paths that this machine has anew and keeps the others.

use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_core::{Granularity, WeightQuant};
use bitpact_data::Placement;
use bitpact_engine::Interpreter;
use bitpact_graph::testing::small_zoo;
use bitpact_graph::{Graph, Override, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::Isa;
use bitpact_model::{Conversion, InputDescription, Model, convert};
use bitpact_train::{BackendKind, BackendSpec, Gradients, OptimizerConfig, StepInput, initial_tensors};

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hashes.txt");
const BATCH: usize = 8;
const CLASSES: usize = 3;
const STEPS: u64 = 2;

/// FNV-1a of 64 bits.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// Bits, quantizers and gradients of each row of a network.
fn settings(graph: &Graph) -> [(&'static str, QuantConfig, Gradients); 4] {
    let plain = |bits: &str| QuantConfig::new(bits.parse().unwrap());
    let mut mixed = QuantConfig { clip_scale: Granularity::Channel, ..plain("W4A3") };
    let products = graph.nodes().iter().filter(|node| node.op.is_product());
    for (i, node) in products.enumerate() {
        let (bits, quant) = [
            (2, WeightQuant::Sawb),
            (3, WeightQuant::Lsq),
            (1, WeightQuant::Dorefa),
            (8, WeightQuant::Minmax),
            (32, WeightQuant::Dorefa),
            (5, WeightQuant::SawbPlus),
        ][i % 6];
        let exception = Override { weight_bits: Some(bits), weight_quant: Some(quant), ..Override::default() };
        mixed.overrides.insert(node.name.clone(), exception);
    }
    [
        ("W2A2", plain("W2A2"), Gradients::Int8),
        ("W4A4", plain("W4A4"), Gradients::Fp32),
        ("W8A8", plain("W8A8"), Gradients::Bf16),
        ("mixed", mixed, Gradients::Fp32),
    ]
}

fn fill(shape: Shape, i: usize, image: &mut [u8], place: Placement) -> usize {
    let key = Key::new(17).at(i as u64);
    let class = i % CLASSES;
    for y in 0..shape.h {
        for x in 0..shape.w {
            for c in 0..shape.c {
                let at = place.pixel(y, x) + c;
                image[at] = (40 + 40 * class as u32 + key.below(at as u64, 70)) as u8;
            }
        }
    }
    class
}

fn trained(graph: &Graph, config: &QuantConfig, gradients: Gradients, isa: Isa) -> Model {
    let plan = QuantPlan::resolve(graph, config).unwrap_or_else(|error| panic!("{}: {error}", graph.name()));
    let input = InputDescription { bits: 8, zero_point: vec![128, 120, 131], scale: vec![1.0 / 64.0, 0.02, 0.013] };
    let optimizer = OptimizerConfig { weight_decay: 1e-4, clip_weight_decay: 1e-4, ..OptimizerConfig::default() };
    let spec = BackendSpec::new(graph, &plan, &input, BATCH);
    let mut backend = BackendKind::Cpu.build(&BackendSpec { optimizer, gradients, isa, threads: 2, ..spec }).unwrap();
    backend.load(&initial_tensors(graph, &plan, 3, 6.0), None).unwrap();
    let fill = |i: usize, image: &mut [u8], place| fill(graph.input(), i, image, place);
    backend.calibrate(99.0, &fill).unwrap();
    for step in 0..STEPS {
        let input = StepInput { lr: 0.002, fill: &fill, key: Key::new(step), ..StepInput::default() };
        backend.step(&input).unwrap_or_else(|error| panic!("{}: {error}", graph.name()));
    }
    let class_names = (0..CLASSES).map(|c| c.to_string()).collect();
    Model { graph: graph.clone(), plan, input, class_names, tensors: backend.tensors() }
}

/// Hashes of the tensors, of the codes of every activation, and of the logits; 0 for the latter where there is no
/// integer form.
fn hashes(model: &Model) -> [u64; 3] {
    let [mut tensors, mut codes, mut logits] = [Hash::new(), Hash::new(), Hash::new()];
    for (name, tensor) in &model.tensors {
        tensors.add(name.as_bytes());
        tensor.data.iter().for_each(|value| tensors.add(&value.to_le_bytes()));
    }
    // Two steps leave some clip values of mixed bits so far apart that conversion refuses them.
    let Ok(Conversion { model: converted, .. }) = convert(model) else { return [tensors.0, 0, 0] };
    let image = converted.input_shape.elements();
    let pixels: Vec<u8> = (0..2 * image).map(|i| Key::new(29).u64(i as u64) as u8).collect();
    for image in pixels.chunks_exact(image) {
        let trace = Interpreter::new(&converted).run(image);
        for (layer, values) in converted.layers.iter().zip(&trace.tensors) {
            let node = model.graph.find(&layer.name).map(|id| model.graph.node(id));
            if node.is_some_and(|node| node.op.is_act()) {
                codes.add(layer.name.as_bytes());
                values.iter().for_each(|value| codes.add(&value.to_le_bytes()));
            }
        }
        trace.logits().iter().for_each(|value| logits.add(&value.to_le_bytes()));
    }
    [tensors, codes, logits].map(|hash| hash.0)
}

#[test]
fn the_numbers_of_the_whole_zoo_are_those_of_the_list() {
    let list = std::fs::read_to_string(LIST).unwrap_or_default();
    let listed: BTreeMap<&str, &str> = list.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut found = BTreeMap::new();
    for name in zoo::NAMES {
        let graph = small_zoo(name, CLASSES);
        for (bits, config, gradients) in settings(&graph) {
            for isa in bitpact_kernels::testing::paths() {
                let [tensors, codes, logits] = hashes(&trained(&graph, &config, gradients, isa));
                found.insert(format!("{name} {bits} {isa}"), format!("{tensors:016x} {codes:016x} {logits:016x}"));
            }
        }
    }
    if std::env::var_os("BITPACT_WRITE_HASHES").is_some() {
        let mut all: BTreeMap<String, String> =
            listed.iter().map(|(key, hashes)| ((*key).to_owned(), (*hashes).to_owned())).collect();
        all.extend(found);
        let text: String = all.iter().map(|(key, hashes)| format!("{key}: {hashes}\n")).collect();
        std::fs::write(LIST, text).unwrap();
        return;
    }
    let differ =
        |(key, hashes): &(&String, &String)| listed.get(key.as_str()).is_some_and(|old| *old != hashes.as_str());
    let changed: Vec<_> = found.iter().filter(differ).map(|(key, _)| key.as_str()).collect();
    assert!(changed.is_empty(), "{} of {} lines differ: {}", changed.len(), found.len(), changed.join(", "));
    let known = found.keys().filter(|key| listed.contains_key(key.as_str())).count();
    assert!(known * 2 >= found.len(), "only {known} of {} lines are in the list", found.len());
}
