//! One engine, many callers.

mod common;

use bitpact_engine::{Engine, EngineError, ExecOptions, Interpreter, predict, top_k};
use bitpact_graph::Shape;
use bitpact_kernels::Isa;
use common::{pixels, random_integer};

#[test]
fn threads_that_call_at_once_get_the_interpreters_logits() {
    let model = random_integer("cnn", Shape::new(8, 8, 3), 6, "{}", 11);
    let image = model.input_shape.elements();
    let images = pixels(&model, 12, 5);
    let interpreter = Interpreter::new(&model);
    let expected: Vec<Vec<i64>> = images.chunks(image).map(|p| interpreter.run(p).logits().to_vec()).collect();
    for threads in [1, 2] {
        let engine = Engine::new(&model, ExecOptions { isa: Isa::detect(), threads }).unwrap();
        let barrier = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for caller in 0..6 {
                let (engine, barrier, images, expected) = (&engine, &barrier, &images, &expected);
                scope.spawn(move || {
                    barrier.wait();
                    for round in 0..20 {
                        let (from, n) = ((caller + round) % 9, 1 + round % 3);
                        let logits = engine.logits(&images[from * image..(from + n) * image]).unwrap();
                        assert_eq!(logits, expected[from..from + n].concat(), "caller {caller}, round {round}");
                    }
                });
            }
        });
        let classes: Vec<usize> = expected.iter().map(|logits| predict(logits)).collect();
        assert_eq!(engine.classes(&images).unwrap(), classes);
    }
}

#[test]
fn a_forked_executor_does_not_see_the_other() {
    let model = random_integer("resnet20", Shape::new(8, 8, 3), 4, "{}", 2);
    let images = pixels(&model, 4, 1);
    let mut first = bitpact_engine::Executor::new(&model, ExecOptions { isa: Isa::detect(), threads: 1 }).unwrap();
    let mut second = first.fork(2);
    let mut logits = [vec![0; 16], vec![0; 16], vec![0; 16]];
    first.run(&images, &mut logits[0]);
    second.run(&images, &mut logits[1]);
    drop(second);
    first.run(&images, &mut logits[2]);
    assert!(logits[0] == logits[1] && logits[0] == logits[2]);
}

#[test]
fn a_file_is_loaded_and_wrong_input_refused() {
    let model = random_integer("cnn", Shape::new(8, 8, 3), 6, "{}", 11);
    let path = std::env::temp_dir().join(format!("bitpact-engine-test-{}.bitpact", std::process::id()));
    model.save(&path).unwrap();
    let engine = Engine::load(&path, ExecOptions::default());
    std::fs::remove_file(&path).unwrap();
    let engine = engine.unwrap();
    assert_eq!((engine.input_shape(), engine.class_names()), (model.input_shape, &model.class_names[..]));
    assert!(matches!(engine.logits(&[0; 100]), Err(EngineError::Pixels { pixels: 100, image: 192 })));
    assert!(matches!(engine.quantize(&[0.0; 193]), Err(EngineError::Pixels { pixels: 193, image: 192 })));
    assert_eq!(engine.logits(&[]).unwrap(), [0i64; 0]);
    let error = Engine::load(&path, ExecOptions::default()).unwrap_err().to_string();
    assert!(error.contains("bitpact-engine-test") && error.contains("cannot read"), "{error}");
}

#[test]
fn real_values_become_the_nearest_codes() {
    let model = random_integer("cnn", Shape::new(8, 8, 3), 6, "{}", 11);
    let engine = Engine::new(&model, ExecOptions { isa: Isa::Scalar, threads: 1 }).unwrap();
    let real: Vec<f32> = (0..192)
        .map(|i| {
            model.input.scale[i % 3] * (i as f32 - f32::from(model.input.zero_point[i % 3]) + [0.0, 0.4, -0.4][i % 3])
        })
        .collect();
    let expected: Vec<u8> = (0..192).collect();
    assert_eq!(engine.quantize(&real).unwrap(), expected);
    let mut extreme = vec![f32::NAN; 192];
    (extreme[0], extreme[1], extreme[2]) = (f32::INFINITY, f32::NEG_INFINITY, f32::MAX);
    let codes = engine.quantize(&extreme).unwrap();
    assert_eq!((&codes[..3], &codes[3..6]), (&[255, 0, 255][..], &model.input.zero_bytes()[..]));
}

#[test]
fn top_k_is_in_order() {
    assert_eq!(top_k(&[3, 9, 9, -1], 3), [1, 2, 0]);
    assert_eq!(top_k(&[3, 9], 5), [1, 0]);
}
