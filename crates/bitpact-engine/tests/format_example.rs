//! The example of docs/format.md is what this program writes and computes.

use bitpact_core::{Grid, Requantization};
use bitpact_engine::{ExecOptions, Executor, Interpreter, predict};
use bitpact_graph::{Shape, Window};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum,
    IntegerTerm,
};

const PAGE: &str = include_str!("../../../docs/format.md");

fn example() -> IntegerModel {
    let conv = IntegerProduct {
        name: "conv".to_owned(),
        input: 0,
        window: Window::square(2, 1, 0),
        padding_code: 0,
        out_channels: 2,
        in_channels: 1,
        groups: 1,
        weight_bits: 2,
        grid: Grid::WithoutZero,
        codes: vec![3, -1, 1, -3, -1, -1, 3, 3],
    };
    let fc = IntegerProduct {
        name: "fc".to_owned(),
        input: 2,
        window: Window::square(1, 1, 0),
        in_channels: 2,
        weight_bits: 3,
        grid: Grid::WithZero,
        codes: vec![3, -2, -1, 1],
        ..conv.clone()
    };
    let sum = |product, shift, mul, add, [lo, hi]: [i32; 2], end| {
        let requant = Requantization { shift, mul: vec![mul], add, lo, hi, bounds: vec![] };
        IntegerOp::Sum(IntegerSum { terms: vec![IntegerTerm::Product(product)], requant, base: vec![], end })
    };
    let act = sum(conv, 8, vec![5, 5], vec![1500, -200], [0, 15], IntegerEnd::Codes);
    let pool = IntegerOp::WindowSum {
        input: 1,
        window: Window::whole(Shape::new(1, 2, 2)),
        padding_code: 0,
        factors: Vec::new(),
    };
    let fc = sum(fc, 0, vec![1000, 1000], vec![-70, 3000], [i32::MIN, i32::MAX], IntegerEnd::Output);
    let layer = |name: &str, op, shape, hi, scale| IntegerLayer { name: name.to_owned(), op, shape, lo: 0, hi, scale };
    IntegerModel {
        arch: "example".to_owned(),
        input: InputDescription { bits: 8, zero_point: vec![128], scale: vec![1.0 / 64.0] },
        input_shape: Shape::new(2, 3, 1),
        class_names: vec!["no".to_owned(), "yes".to_owned()],
        layers: vec![
            layer("act", act, Shape::new(1, 2, 2), 15, 0.125),
            layer("pool", pool, Shape::new(1, 1, 2), 30, 0.0625),
            layer("fc", fc, Shape::new(1, 1, 2), 0, 0.0009765625),
        ],
        outputs: vec![IntegerOutput { tensor: 3, zero: 0 }],
    }
}

/// The bytes of the page's block: everything before the comment of each line.
fn bytes_of_page() -> Vec<u8> {
    let block = PAGE.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let fields = block.lines().filter_map(|line| line.split('#').next());
    fields.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_page_shows_the_bytes() {
    let bytes = example().to_bytes().unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(" ");
    assert_eq!(hex(&bytes_of_page()), hex(&bytes));
    assert_eq!(IntegerModel::from_bytes(&bytes, "example").unwrap(), example());
}

#[test]
fn the_page_shows_the_numbers() {
    let model = example();
    let pixels = [200, 90, 130, 60, 255, 128];
    let trace = Interpreter::new(&model).run(&pixels);
    assert_eq!(Executor::new(&model, ExecOptions::default()).unwrap().trace(&pixels), trace);
    for (layer, values) in model.layers.iter().zip(&trace.tensors) {
        let values = values.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" ");
        let line = format!("    {}: {values}", layer.name);
        assert!(PAGE.lines().any(|l| l.starts_with(&line)), "the page has no line `{line}`");
    }
    let sentence = format!("so the predicted class is {}.", predict(trace.logits()));
    assert!(PAGE.contains(&sentence), "the page does not say `{sentence}`");
}
