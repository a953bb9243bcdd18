//! AlexNet and both MobileNets, shrunk: a few steps of training, conversion, and the same codes on every path.

#[path = "../../bitpact-engine/tests/common/mod.rs"]
mod common;

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_engine::{ExecOptions, Executor, Interpreter};
use bitpact_graph::{QuantPlan, Shape};
use bitpact_model::{InputDescription, Model, convert};
use bitpact_train::{BackendKind, BackendSpec, OptimizerConfig, StepInput, initial_tensors};
use common::{config, shrunk};

const BATCH: usize = 8;

fn check(arch: &str, input: Shape, divisor: usize, bits: &str) {
    let what = format!("{arch} {bits}");
    let graph = shrunk(arch, input, 5, divisor);
    let plan = QuantPlan::resolve(&graph, &config(&format!(r#"{{"bits":"{bits}","weight_quant":"sawb"}}"#))).unwrap();
    let pixels = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let optimizer = OptimizerConfig { weight_decay: 1e-4, clip_weight_decay: 1e-4, ..OptimizerConfig::default() };
    let spec = BackendSpec { optimizer, threads: 2, ..BackendSpec::new(&graph, &plan, &pixels, BATCH) };
    let mut backend = BackendKind::Cpu.build(&spec).unwrap();
    backend.load(&initial_tensors(&graph, &plan, 3, 2.0), None).unwrap();
    let row = input.w * input.c;
    let image = |i: usize| -> Vec<u8> {
        let key = Key::new(8).at(i as u64);
        // Blocks of colour, so that strides leave something to see.
        (0..input.h * row).map(|at| key.u64(((at / row / 8) * 64 + at % row / 24) as u64) as u8).collect()
    };
    let fill = |i: usize, out: &mut [u8], place: Placement| {
        for (y, line) in image(i).chunks_exact(row).enumerate() {
            for (x, pixel) in line.chunks_exact(3).enumerate() {
                out[place.pixel(y, x)..][..3].copy_from_slice(pixel);
            }
        }
        i % 5
    };
    backend.calibrate(99.9, &fill).unwrap();
    let losses: Vec<f64> = (0..8)
        .map(|_| {
            backend.step(&StepInput { lr: 0.01, fill: &fill, key: Key::new(1), ..StepInput::default() }).unwrap().loss
        })
        .collect();
    let last = losses[5..].iter().fold(f64::INFINITY, |a, &b| a.min(b));
    // Eight steps are too few for tens of layers of two bits and two or three channels.
    assert!(last < losses[0] || bits == "W2A2", "{what}: the loss does not fall: {losses:?}");

    let names = (0..5).map(|c| c.to_string()).collect();
    let tensors = backend.tensors();
    let integer = convert(&Model { graph, plan, input: pixels, class_names: names, tensors }).unwrap().model;
    for i in 0..2 {
        let trace = Interpreter::new(&integer).run(&image(i));
        for isa in bitpact_kernels::testing::paths() {
            let mut executor = Executor::new(&integer, ExecOptions { isa, threads: 1 }).unwrap();
            let got = executor.trace(&image(i));
            for (layer, (got, expected)) in got.tensors.iter().zip(&trace.tensors).enumerate() {
                assert!(got == expected, "{what}, {isa}: `{}`", integer.layers[layer].name);
            }
        }
        if i == 0 {
            let constant = trace.tensors.iter().filter(|codes| codes.iter().all(|c| *c == codes[0])).count();
            assert!(constant * 10 < trace.tensors.len(), "{what}: {constant} layers are constant");
        }
    }
}

#[test]
fn mobilenet_v1() {
    for bits in ["W2A2", "W4A4", "W8A8"] {
        check("mobilenet_v1", Shape::new(48, 40, 3), 8, bits);
    }
}

#[test]
fn mobilenet_v2() {
    for bits in ["W2A2", "W4A4", "W8A8"] {
        check("mobilenet_v2", Shape::new(64, 48, 3), 2, bits);
    }
}

#[test]
fn alexnet() {
    for bits in ["W2A2", "W4A4", "W8A8"] {
        check("alexnet", Shape::new(68, 64, 3), 16, bits);
    }
}
