//! The executor gives the interpreter's codes: every layer, every instruction set, any number of threads.

mod common;

use bitpact_engine::{ExecOptions, Executor, Interpreter};
use bitpact_graph::Shape;
use bitpact_model::IntegerModel;
use common::{pixels, random_integer};

/// Compares every code of one image, and the logits of batches of 1, 3 and 5 with 1 and 2 threads.
fn compare(model: &IntegerModel, what: &str) {
    let interpreter = Interpreter::new(model);
    let image = model.input_shape.elements();
    let pixels = pixels(model, 5, 7);
    let expected: Vec<_> = pixels.chunks_exact(image).map(|p| interpreter.run(p)).collect();
    for layer in 0..model.layers.len() - 1 {
        let codes = &expected[0].tensors[layer];
        assert!(
            codes.iter().any(|c| *c != codes[0]),
            "{what}: `{}` is constant, which tests nothing",
            model.layers[layer].name
        );
    }
    for isa in bitpact_kernels::testing::paths() {
        for threads in [1, 2] {
            let mut executor = Executor::new(model, ExecOptions { isa, threads }).unwrap();
            let trace = executor.trace(&pixels[..image]);
            for (layer, (got, expected)) in trace.tensors.iter().zip(&expected[0].tensors).enumerate() {
                let name = &model.layers[layer].name;
                let different = got.iter().zip(expected).position(|(a, b)| a != b);
                assert_eq!(got.len(), expected.len(), "{what}, {isa}: `{name}`");
                assert_eq!(different, None, "{what}, {isa}: `{name}` differs first here");
            }
            for batch in [1, 3, 5] {
                let mut logits = vec![0; batch * model.classes()];
                executor.run(&pixels[..batch * image], &mut logits);
                let expected: Vec<i64> = expected[..batch].iter().flat_map(|t| t.logits().to_vec()).collect();
                assert_eq!(logits, expected, "{what}, {isa}, {threads} threads, batch {batch}");
            }
        }
    }
}

fn compare_zoo(arch: &str, input: Shape, differences: &str, seed: u64) {
    let model = random_integer(arch, input, 7, differences, seed);
    compare(&model, &format!("{arch} {input} {differences}"));
}

#[test]
fn every_width_and_quantizer() {
    for bits in 1..=8 {
        for quant in ["dorefa", "sawb", "sawb+", "lsq", "minmax"] {
            let first_last = ["8bit", "same", "float"][(bits as usize + quant.len()) % 3];
            let differences =
                format!(r#"{{"bits":"W{bits}A{}","weight_quant":"{quant}","first_last":"{first_last}"}}"#, 9 - bits);
            compare_zoo("cnn", Shape::new(8, 12, 3), &differences, bits);
        }
    }
}

#[test]
fn every_grid_of_sawb_and_8_bit_codes_without_zero() {
    for bits in 2..=8 {
        for grid in ["zero", "no_zero"] {
            let differences = format!(
                r#"{{"bits":"W{bits}A4","first_last":"same",
                "overrides":{{"*":{{"weight_quant":"sawb","weight_grid":"{grid}"}}}}}}"#
            );
            compare_zoo("cnn", Shape::new(8, 8, 1), &differences, 20 + u64::from(bits as u8));
        }
    }
}

#[test]
fn option_a_and_projection_shortcuts() {
    for (arch, first_last) in
        [("resnet20", "8bit"), ("resnet20", "float"), ("resnet20-b", "8bit"), ("resnet20-b", "same")]
    {
        for bits in ["W4A4", "W2A2", "W8A8"] {
            let differences = format!(r#"{{"bits":"{bits}","first_last":"{first_last}"}}"#);
            compare_zoo(arch, Shape::new(9, 12, 3), &differences, 3);
        }
    }
}

#[test]
fn seven_by_seven_max_pool_and_bottlenecks() {
    compare_zoo("resnet18", Shape::new(33, 40, 3), r#"{"bits":"W3A5","weight_quant":"sawb"}"#, 5);
    compare_zoo("resnet50", Shape::new(32, 32, 3), r#"{"bits":"W4A4","first_last":"float"}"#, 6);
}

/// Layers of 256 and 512 channels, whose weights are kept otherwise than those of few, and steps in float32.
#[test]
fn eight_bits_and_many_channels() {
    compare_zoo("resnet18", Shape::new(72, 64, 3), r#"{"bits":"W8A8","weight_quant":"minmax"}"#, 8);
}
