//! Predictions, hits and accuracies.

mod common;

use bitpact_engine::{EngineError, ExecOptions, Executor, Interpreter, evaluate, predict, top_k_hits};
use bitpact_graph::Shape;
use bitpact_kernels::Isa;
use common::{pixels, random_integer};

#[test]
fn equal_logits_go_to_the_lowest_class() {
    assert_eq!(predict(&[1, 5, 5, 2]), 1);
    assert_eq!(predict(&[i64::MIN, i64::MIN]), 0);
    assert_eq!(predict(&[-3]), 0);
    let logits = [7, 9, 7, 7, 7, 7, 1];
    let hits: Vec<_> = (0..7).map(|label| top_k_hits(&logits, label)).collect();
    let expected =
        [(false, true), (true, true), (false, true), (false, true), (false, true), (false, false), (false, false)];
    assert_eq!(hits, expected);
    assert_eq!(top_k_hits(&[1, 2, 3], 0), (false, true), "with fewer than five classes all are among the first five");
    for label in 0..7 {
        assert_eq!(top_k_hits(&logits, label).0, predict(&logits) == label);
    }
}

#[test]
fn accuracy_does_not_depend_on_batches_and_threads() {
    let model = random_integer("cnn", Shape::new(8, 8, 3), 6, "{}", 11);
    let image = model.input_shape.elements();
    let set = pixels(&model, 23, 3);
    let labels: Vec<usize> = (0..23).map(|i| i * 7 % 6).collect();
    let traces: Vec<_> = set.chunks(image).map(|p| Interpreter::new(&model).run(p)).collect();
    let hits = |which: fn((bool, bool)) -> bool| {
        let all = traces.iter().zip(&labels).filter(|(t, l)| which(top_k_hits(t.logits(), **l)));
        all.count() as f64 / 23.0
    };
    for (batch_size, threads) in [(1, 1), (5, 2), (23, 2), (1000, 1), (0, 1)] {
        let mut executor = Executor::new(&model, ExecOptions { isa: Isa::detect(), threads }).unwrap();
        let mut done = Vec::new();
        let load = |range: std::ops::Range<usize>, pixels: &mut [u8], to: &mut [usize]| {
            pixels.copy_from_slice(&set[range.start * image..range.end * image]);
            to.copy_from_slice(&labels[range]);
        };
        let accuracy = evaluate(&mut executor, 23, batch_size, load, |n| done.push(n)).unwrap();
        assert_eq!((accuracy.top1, accuracy.top5), (hits(|h| h.0), hits(|h| h.1)), "batch {batch_size}");
        assert_eq!(accuracy.images, 23);
        assert_eq!(done.last(), Some(&23));
        assert_eq!(done.len(), 23usize.div_ceil(batch_size.clamp(1, 23)));
    }
}

#[test]
fn empty_sets_and_labels_of_other_networks() {
    let model = random_integer("cnn", Shape::new(8, 8, 3), 6, "{}", 11);
    let mut executor = Executor::new(&model, ExecOptions::default()).unwrap();
    let none = evaluate(&mut executor, 0, 4, |_, _, _| panic!("nothing to load"), |_| {}).unwrap();
    assert_eq!((none.top1, none.top5, none.images), (0.0, 0.0, 0));
    let error = evaluate(&mut executor, 9, 4, |range, _, labels| labels.fill(range.start + 2), |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::Label { image: 4, label: 6, classes: 6 }), "{error}");
    executor.run(&[], &mut []);
}

#[test]
fn invalid_networks_are_refused() {
    let mut model = random_integer("cnn", Shape::new(8, 8, 3), 6, "{}", 11);
    model.layers[1].hi = 3;
    let error = Executor::new(&model, ExecOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`act2`"), "{error}");
}
