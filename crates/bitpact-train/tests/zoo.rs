//! Every network of the zoo, narrowed: calibrates, trains some steps, converts, and gives the interpreter's codes on
//! every path of this machine.
//!
//! Clip values are calibrated and the learning rate is small for a reason. With a fixed clip value of 6 the first steps
//! of MobileNetV2 at 2 bits round most values to the code 0; whole channels are constant, and behind each of the 50
//! batch norms the gradient grows up to `1 / sqrt(eps)` = 316 times: 4e36 in the first step, where calibrated clip
//! values give 2. And at a rate of 0.1 these few images with one pixel left in the last layers diverge within ten steps
//! in float32, too.

use bitpact_core::Granularity;
use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_engine::{VerifyOptions, verify};
use bitpact_graph::testing::small_zoo;
use bitpact_graph::{Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::{InputDescription, Model, convert};
use bitpact_train::{BackendKind, BackendSpec, OptimizerConfig, StepInput, initial_tensors};

const BATCH: usize = 8;
const CLASSES: usize = 4;

/// Writes image `i`: noise around a brightness that tells its class.
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

fn trained(graph: &Graph, bits: &str, clip_scale: Granularity, steps: usize, lr: f32) -> Model {
    let config = QuantConfig { clip_scale, ..QuantConfig::new(bits.parse().unwrap()) };
    let plan = QuantPlan::resolve(graph, &config).unwrap();
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let optimizer = OptimizerConfig { weight_decay: 1e-4, clip_weight_decay: 1e-4, ..OptimizerConfig::default() };
    let spec = BackendSpec { optimizer, threads: 2, ..BackendSpec::new(graph, &plan, &input, BATCH) };
    let mut backend = BackendKind::Cpu.build(&spec).unwrap();
    backend.load(&initial_tensors(graph, &plan, 3, 6.0), None).unwrap();
    let fill = |i: usize, image: &mut [u8], place| fill(graph.input(), i, image, place);
    backend.calibrate(99.0, &fill).unwrap();
    for step in 0..steps {
        let input = StepInput { lr, fill: &fill, key: Key::new(step as u64), ..StepInput::default() };
        let outcome = backend.step(&input).unwrap_or_else(|error| panic!("{} {bits}: {error}", graph.name()));
        assert!(outcome.loss.is_finite());
    }
    let class_names = (0..CLASSES).map(|c| c.to_string()).collect();
    Model { graph: graph.clone(), plan, input, class_names, tensors: backend.tensors() }
}

fn check(name: &str) {
    let graph = small_zoo(name, CLASSES);
    let layer = Granularity::Layer;
    for (bits, clip_scale) in [("W2A2", layer), ("W4A4", layer), ("W8A8", layer), ("W4A4", Granularity::Channel)] {
        let mut model = trained(&graph, bits, clip_scale, 4, 0.01);
        for (name, tensor) in model.tensors.iter_mut().filter(|(name, _)| name.ends_with(".clip_val")) {
            // So few steps leave the channels where they start; here they lie apart, but for the first.
            let key = Key::new(23).with(name);
            tensor.data.iter_mut().zip(0..).skip(1).for_each(|(alpha, c)| *alpha *= 1.0 - 0.7 * key.uniform(c));
        }
        let conversion = convert(&model).unwrap_or_else(|error| panic!("{name} {bits}: {error}"));
        assert!(conversion.worst_error() < 0.1, "{name} {bits}: {}", conversion.worst_error());
        let input = graph.input();
        let place = Placement { offset: 0, row_stride: input.w * input.c, pixel_stride: input.c };
        let options = VerifyOptions { isas: bitpact_kernels::testing::paths(), threads: vec![1, 2], probes: false };
        let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
            for (i, image) in range.zip(pixels.chunks_exact_mut(input.elements())) {
                fill(input, i, image, place);
            }
        };
        let verified = verify(&conversion.model, &options, 3, load, |_| {}).unwrap();
        assert!(verified.codes > 0 && verified.different == 0, "{name} {bits}: {:?}", verified.first);
    }
}

/// The networks in `number` of 4 parts, so that the parts run side by side.
fn part(number: usize) {
    zoo::NAMES.iter().skip(number).step_by(4).for_each(|name| check(name));
}

#[test]
fn networks_train_convert_and_run_exactly_1_of_4() {
    part(0);
}

#[test]
fn networks_train_convert_and_run_exactly_2_of_4() {
    part(1);
}

#[test]
fn networks_train_convert_and_run_exactly_3_of_4() {
    part(2);
}

#[test]
fn networks_train_convert_and_run_exactly_4_of_4() {
    part(3);
}
