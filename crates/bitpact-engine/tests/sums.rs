//! Sums that something else computes take the place of the interpreter's.

mod common;

use bitpact_engine::{Interpreter, Sums};
use bitpact_graph::Shape;
use bitpact_model::{IntegerModel, IntegerProduct, convert};

/// The exact sums of the products that are asked for, plus an error.
struct Own<'a> {
    model: &'a IntegerModel,
    only: Option<(usize, usize)>,
    error: i64,
    calls: usize,
}

impl Own<'_> {
    fn product(&self, layer: usize, which: usize) -> &IntegerProduct {
        self.model.layers[layer].op.products().nth(which).unwrap()
    }
}

impl Sums for Own<'_> {
    fn computes(&self, layer: usize, which: usize) -> bool {
        self.only.is_none_or(|only| only == (layer, which))
    }

    fn sums(&mut self, layer: usize, which: usize, windows: &[i64]) -> Vec<i64> {
        self.calls += 1;
        let product = self.product(layer, which);
        let area = product.window.kernel[0] * product.window.kernel[1];
        let window = product.in_channels * area;
        assert_eq!(windows.len() / window, self.model.layers[layer].shape.h * self.model.layers[layer].shape.w);
        let sum = |window: &[i64], o: usize| {
            let inputs = &window[product.first_input(o) * area..];
            self.error + inputs.iter().zip(product.channel(o)).map(|(a, &q)| a * i64::from(q)).sum::<i64>()
        };
        windows.chunks(window).flat_map(|w| (0..product.out_channels).map(move |o| sum(w, o))).collect()
    }
}

#[test]
fn exact_sums_change_nothing_and_others_change_their_layer() {
    for (arch, divisor) in [("resnet20-b", 4), ("mobilenet_v2", 8), ("preact_resnet20-b", 4)] {
        let graph = common::shrunk(arch, Shape::new(16, 16, 3), 5, divisor);
        let model = convert(&common::random_model(graph, &common::config("{}"), 3)).unwrap().model;
        let pixels: Vec<u8> = (0..model.input_shape.elements()).map(|i| (i * 41 % 256) as u8).collect();
        let interpreter = Interpreter::new(&model);
        let expected = interpreter.run(&pixels);
        let mut own = Own { model: &model, only: None, error: 0, calls: 0 };
        assert_eq!(interpreter.run_with(&pixels, &mut own), expected, "{arch}");
        assert_eq!(own.calls, model.layers.iter().flat_map(|l| l.op.products()).count());
        let at = model.layers.iter().rposition(|l| l.op.products().count() == 2).unwrap_or(model.layers.len() - 1);
        let which = model.layers[at].op.products().count() - 1;
        let mut own = Own { model: &model, only: Some((at, which)), error: 100_000, calls: 0 };
        let got = interpreter.run_with(&pixels, &mut own);
        assert_eq!((&got.tensors[..at], own.calls), (&expected.tensors[..at], 1));
        assert_ne!(got.tensors[at], expected.tensors[at], "{arch}");
    }
}
