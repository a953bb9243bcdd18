//! Random networks for the tests of models and their files.
#![allow(dead_code)] // Not every test uses all of it.

use bitpact_core::{Grid, Requantization, WeightQuant};
use bitpact_graph::{FirstLast, Graph, Move, Padding, QuantConfig, QuantPlan, Shape, Window, zoo};
use bitpact_model::{
    Checkpoint, InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct,
    IntegerSum, IntegerTerm, IntegerView, Model, Tensor, TensorId, TrainingState, convert,
};

pub(crate) fn config(bits: &str, weight_quant: WeightQuant, first_last: FirstLast) -> QuantConfig {
    QuantConfig { weight_quant, first_last, ..QuantConfig::new(bits.parse().unwrap()) }
}

pub(crate) fn random(graph: Graph, config: &QuantConfig, seed: u64) -> Model {
    let plan = QuantPlan::resolve(&graph, config).unwrap();
    let channels = graph.input().c;
    let input = InputDescription { bits: 8, zero_point: vec![120; channels], scale: vec![0.017; channels] };
    let names = (0..graph.classes()).map(|c| format!("class {c} \u{e9}")).collect();
    Model::random(graph, plan, input, names, seed).unwrap()
}

pub(crate) fn zoo_model(arch: &str, side: usize, bits: &str, first_last: FirstLast) -> Model {
    let graph = zoo::build(arch, Shape::new(side, side, 3), 4).unwrap().unwrap();
    random(graph, &config(bits, WeightQuant::Dorefa, first_last), 5)
}

/// A small network with a projection, a subsampled shortcut's sibling and every kind of layer but max pool.
pub(crate) fn small_integer() -> IntegerModel {
    convert(&zoo_model("cnn", 8, "W3A4", FirstLast::Float)).unwrap().model
}

pub(crate) fn checkpoint() -> Checkpoint {
    let model = zoo_model("cnn", 8, "W4A4", FirstLast::Bits8);
    let is_trained = |name: &str| !name.contains("running");
    let momentum = model
        .tensors
        .iter()
        .filter(|(name, _)| is_trained(name))
        .map(|(name, t)| {
            (name.clone(), Tensor { shape: t.shape.clone(), data: t.data.iter().map(|v| v * 0.3).collect() })
        })
        .collect();
    let progress =
        serde_json::json!({ "loss": 0.1f64 + 0.2, "best": [1, 2.5e-300, -7], "warned": { "b": true, "a": null } });
    let training = TrainingState {
        recipe: "epochs = 3\nname = \"x\"\n".to_owned(),
        step: 12_345,
        progress,
        momentum,
        second_moment: Default::default(),
        optimizer_steps: 0,
        raw: Default::default(),
    };
    Checkpoint { model, training: Some(training), note: Some("chosen on the test set".to_owned()) }
}

/// Appends a layer, its shape and range as they follow from its inputs; returns its tensor.
pub(crate) fn push(model: &mut IntegerModel, name: &str, op: IntegerOp) -> TensorId {
    let (shape, (lo, hi)) = model.output_of(&op).unwrap_or_else(|e| panic!("`{name}`: {e}"));
    let layer = IntegerLayer { name: name.to_owned(), op, shape, lo: lo as i32, hi: hi as i32, scale: 0.25 };
    model.layers.push(layer);
    model.layers.len()
}

/// A product of 2-bit weights without zero.
pub(crate) fn product(name: &str, input: TensorId, [i, o]: [usize; 2], window: Window) -> IntegerProduct {
    let code = |n: usize| [3, -1, 1, -3, -3, 1, 3][n % 7];
    IntegerProduct {
        name: name.to_owned(),
        input,
        window,
        padding_code: 0,
        out_channels: o,
        in_channels: i,
        groups: 1,
        weight_bits: 2,
        grid: Grid::WithoutZero,
        codes: (0..o * i * window.kernel[0] * window.kernel[1]).map(code).collect(),
    }
}

/// A sum whose multipliers differ from channel to channel, rounded to codes from `lo` to `hi`.
pub(crate) fn sum(terms: Vec<IntegerTerm>, channels: usize, [lo, hi]: [i32; 2]) -> IntegerSum {
    let mul = (0..terms.len() as i32).map(|t| (0..channels as i32).map(|c| 9 - 7 * t - c).collect()).collect();
    let add = (0..channels as i64).map(|c| 500 + 300 * c).collect();
    let requant = Requantization { shift: 6, mul, add, lo, hi, bounds: vec![] };
    IntegerSum { terms, requant, base: vec![], end: IntegerEnd::Codes }
}

/// The same with values of 32 bits.
pub(crate) fn wide(terms: Vec<IntegerTerm>, channels: usize, base: Vec<(IntegerView, i32)>) -> IntegerSum {
    IntegerSum { base, end: IntegerEnd::Wide, ..sum(terms, channels, [i32::MIN, i32::MAX]) }
}

pub(crate) fn view(input: TensorId, moves: &[Move]) -> IntegerView {
    IntegerView { moves: moves.to_vec(), ..IntegerView::of(input) }
}

/// Every move, one after the other, of a tensor of 4x6x4 to one of 3x4x2.
pub(crate) const EVERY_MOVE: [Move; 7] = [
    Move::PixelShuffle { factor: 2 },
    Move::Stride { rows: 2, columns: 3 },
    Move::Insert { top: 1, left: 0, bottom: 1, right: 2, before: 2, after: 1 },
    Move::PixelUnshuffle { factor: 2 },
    Move::Channels { first: 3, count: 2 },
    Move::Repeat { rows: 1, columns: 2 },
    Move::Crop { top: 0, left: 1, height: 3, width: 4 },
];

/// A small network with every op, term, end and move, and windows with every parameter.
pub(crate) fn everything() -> IntegerModel {
    let mut model = IntegerModel {
        arch: "everything".to_owned(),
        input: InputDescription { bits: 8, zero_point: vec![3, 250], scale: vec![0.5, 0.125] },
        input_shape: Shape::new(7, 6, 2),
        class_names: ["b\u{f6}se", "", "tie"].map(str::to_owned).to_vec(),
        layers: Vec::new(),
        outputs: Vec::new(),
    };
    let codes = |sum| IntegerOp::Sum(sum);
    let window = Window {
        kernel: [3, 2],
        stride: [2, 1],
        padding: Padding { top: 1, left: 0, bottom: 2, right: 2 },
        dilation: [1, 2],
        spread: [1, 1],
    };
    let image = product("image", 0, [2, 4], window);
    let a = push(&mut model, "a", codes(sum(vec![IntegerTerm::Product(image)], 4, [2, 15])));
    let whole = Window::whole(Shape::new(1, 1, 4));

    // Codes by channel of two products, a view and a multiplication.
    let spread =
        Window { kernel: [3, 3], padding: Padding { top: 1, left: 2, bottom: 1, right: 0 }, ..Window::square(1, 2, 0) };
    let spread = Window { spread: [2, 2], stride: [2, 2], padding: Padding { right: 1, ..spread.padding }, ..spread };
    let spread =
        IntegerProduct { padding_code: 5, groups: 2, codes: vec![1; 36 * 2], ..product("spread", a, [4, 4], spread) };
    let global =
        IntegerOp::WindowSum { input: a, window: Window::whole(model.shape(a)), padding_code: 0, factors: Vec::new() };
    let global = push(&mut model, "global", global);
    let gate = IntegerProduct { weight_bits: 1, codes: [1, -1].repeat(8), ..product("gate", global, [4, 4], whole) };
    let gate = push(&mut model, "gate", codes(sum(vec![IntegerTerm::Product(gate)], 4, [0, 7])));
    let multiplication = IntegerTerm::Multiplication { a: view(a, &[]), b: view(gate, &[]), zeros: [2, 3] };
    let main = IntegerProduct { weight_bits: 16, grid: Grid::WithZero, ..product("main", a, [4, 4], whole) };
    let terms = vec![
        IntegerTerm::Product(main),
        IntegerTerm::View(view(a, &[])),
        IntegerTerm::Product(spread),
        multiplication.clone(),
    ];
    let mut four = sum(terms, 4, [0, 12]);
    four.requant.bounds = vec![(0, 3), (1, 12), (2, 2), (0, 9)];
    let b = push(&mut model, "b", codes(four));

    let padding = Padding { top: 1, left: 1, bottom: 1, right: 0 };
    let pool = Window { padding, dilation: [2, 1], ..Window::square(2, 1, 0) };
    let pool = push(&mut model, "pool", IntegerOp::MaxPool { input: b, window: pool });
    let moved = push(&mut model, "moved", IntegerOp::View(IntegerView { fill: 9, ..view(pool, &EVERY_MOVE) }));
    let table = IntegerEnd::Table(vec![(0..=19).map(|i| 10 * i).collect()]);
    let one_table = IntegerSum { end: table, ..sum(vec![multiplication], 4, [-4, 15]) };
    let one_table = push(&mut model, "one table", codes(one_table));
    let tables = IntegerEnd::Table((0..4).map(|c| vec![c, 200, 7]).collect());
    let own_tables = IntegerSum { end: tables, ..sum(vec![IntegerTerm::View(view(one_table, &[]))], 4, [0, 2]) };
    let own_tables = push(&mut model, "own tables", codes(own_tables));
    let sums = IntegerOp::WindowSum {
        input: own_tables,
        window: Window::square(2, 1, 1),
        padding_code: 3,
        factors: Vec::new(),
    };
    let sums = push(&mut model, "sums", sums);
    let crop = Move::Crop { top: 0, left: 0, height: 3, width: 4 };
    let channels = Move::Channels { first: 1, count: 2 };
    let stream = wide(vec![IntegerTerm::View(view(sums, &[crop, channels]))], 2, vec![(view(moved, &[]), -3)]);
    let stream = push(&mut model, "stream", codes(stream));
    let added = vec![(view(stream, &[Move::channels_inserted(0, 1), channels]), 1), (view(stream, &[]), 1000)];
    let bases = push(&mut model, "bases", codes(wide(vec![], 2, added)));
    let both = push(&mut model, "both", IntegerOp::Concat { inputs: vec![bases, stream] });
    let act = push(&mut model, "act", codes(sum(vec![IntegerTerm::View(view(both, &[]))], 4, [0, 3])));
    let last = product("last", act, [4, 3], Window::whole(model.shape(act)));
    let mut last =
        IntegerSum { end: IntegerEnd::Output, ..sum(vec![IntegerTerm::Product(last)], 3, [i32::MIN, i32::MAX]) };
    last.requant.shift = 0;
    let out = push(&mut model, "out", codes(last));
    model.outputs =
        [(out, 0), (act, 1), (stream, -7), (sums, 12)].map(|(tensor, zero)| IntegerOutput { tensor, zero }).to_vec();
    model
}

/// The sum that a layer is.
pub(crate) fn sum_of(model: &mut IntegerModel, layer: usize) -> &mut IntegerSum {
    match &mut model.layers[layer].op {
        IntegerOp::Sum(sum) => sum,
        other => panic!("no sum: {other:?}"),
    }
}

/// The first product of a layer.
pub(crate) fn main(model: &mut IntegerModel, layer: usize) -> &mut IntegerProduct {
    let products = sum_of(model, layer).terms.iter_mut().filter_map(|term| match term {
        IntegerTerm::Product(product) => Some(product),
        _ => None,
    });
    products.into_iter().next().expect("a product")
}

/// The requantization of the second layer.
pub(crate) fn requant(model: &mut IntegerModel) -> &mut Requantization {
    &mut sum_of(model, 1).requant
}
