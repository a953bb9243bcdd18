//! Random integer networks of every form the format allows: the executor equals the interpreter, and files keep them.

mod draw;

use bitpact_core::rng::Key;
use bitpact_core::{Grid, Requantization};
use bitpact_engine::{ExecOptions, Executor, Interpreter};
use bitpact_graph::{Move, Padding, Shape, Window};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView,
    TensorId, TensorKind,
};
use proptest::prelude::*;

use draw::{push, random_network};

/// Networks looked at for variety.
const NETWORKS: u64 = 600;

fn check(seed: u64, images: usize) -> Result<(), TestCaseError> {
    check_model(&random_network(seed), seed, images)
}

fn check_model(model: &IntegerModel, seed: u64, images: usize) -> Result<(), TestCaseError> {
    let bytes = model.to_bytes().unwrap();
    prop_assert!(&IntegerModel::from_bytes(&bytes, "random").unwrap() == model);
    let image = model.example_bytes();
    let pixels: Vec<u8> = (0..images * image).map(|i| Key::new(seed).with("p").u64(i as u64) as u8).collect();
    let expected: Vec<_> = pixels.chunks(image).map(|p| Interpreter::new(model).run(p)).collect();
    for isa in bitpact_kernels::testing::paths() {
        for threads in [1, 2] {
            let mut executor = Executor::new(model, ExecOptions { isa, threads }).unwrap();
            let mut outputs: Vec<Vec<i64>> = executor.output_lens().map(|len| vec![0; images * len]).collect();
            // The second run finds the memory as the first one left it.
            for _ in 0..2 {
                executor.run_outputs(&pixels, &mut outputs.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
                for (got, output) in outputs.iter().zip(&model.outputs) {
                    let expected: Vec<i64> =
                        expected.iter().flat_map(|t| t.tensors[output.tensor - 1].clone()).collect();
                    prop_assert_eq!(got, &expected, "{}, {} threads", isa, threads);
                }
            }
            for (pixels, expected) in pixels.chunks(image).zip(&expected) {
                let trace = executor.trace(pixels);
                for (layer, (got, expected)) in trace.tensors.iter().zip(&expected.tensors).enumerate() {
                    prop_assert_eq!(got, expected, "{}: {}", isa, model.layers[layer].name);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: bitpact_kernels::testing::cases(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_path_gives_the_interpreters_codes(seed in any::<u64>(), images in 1usize..4) {
        check(seed, images)?;
    }
}

/// A network of products one after the other, each but the last with codes up to `hi`; the last one gives the logits.
fn chain(input_shape: Shape, hi: i32, products: Vec<IntegerProduct>) -> IntegerModel {
    let input = InputDescription::uniform(input_shape.c, 128, 0.5);
    let classes = products.last().map_or(0, |logits| logits.out_channels);
    let class_names = (0..classes).map(|c| c.to_string()).collect();
    let mut model =
        IntegerModel { arch: "chain".to_owned(), input, input_shape, class_names, layers: vec![], outputs: vec![] };
    let last = products.len() - 1;
    for (i, product) in products.into_iter().enumerate() {
        let n = product.out_channels;
        let reach = model.acc_ranges(&product).unwrap().iter().map(|r| r.1 - r.0).max().unwrap_or(1);
        let (end, shift, lo, hi) = match i == last {
            true => (IntegerEnd::Output, 0, i32::MIN, i32::MAX),
            false => (IntegerEnd::Codes, (4 * reach / i64::from(hi)).ilog2(), 0, hi),
        };
        let add = vec![if i == last { 0 } else { i64::from(hi) << (shift - 1) }; n];
        let requant = Requantization { shift, mul: vec![vec![1; n]], add, lo, hi, bounds: vec![] };
        let terms = vec![IntegerTerm::Product(product)];
        push(&mut model, IntegerOp::Sum(IntegerSum { terms, requant, base: vec![], end }));
    }
    model.set_last_output();
    model
}

fn product(name: &str, input: TensorId, from: Shape, out_channels: usize, kernel: usize) -> IntegerProduct {
    let n = out_channels * from.c * kernel * kernel;
    IntegerProduct {
        name: name.to_owned(),
        input,
        window: Window::square(kernel, 1, 0),
        padding_code: 0,
        out_channels,
        in_channels: from.c,
        groups: 1,
        weight_bits: 8,
        grid: Grid::WithZero,
        codes: (0..n).map(|i| (i * 37 % 255) as i16 - 127).collect(),
    }
}

/// The only position of the window lies in the padding.
#[test]
fn logits_of_a_padded_1x1_window() {
    let from = Shape::new(3, 3, 2);
    for (side, padding, stride) in [(1, 1, 5), (3, 1, 5), (3, 0, 4), (1, 0, 3), (3, 2, 9)] {
        let first = product("first", 0, from, 16, 4 - side);
        let mut logits = product("logits", 1, Shape::new(side, side, 16), 10, 1);
        logits.window = Window::square(1, stride, padding);
        check_model(&chain(from, 15, vec![first, logits]), 1, 2).unwrap();
    }
}

/// The Winograd transform of such weights leaves 16 bits, though the codes are small enough for bytes.
#[test]
fn sixteen_bit_weights_behind_small_codes() {
    let from = Shape::new(11, 11, 3);
    let first = product("first", 0, from, 16, 3);
    let mut second = product("second", 1, Shape::new(9, 9, 16), 32, 3);
    second.weight_bits = 16;
    second.codes.iter_mut().enumerate().for_each(|(i, code)| *code = if i % 20 < 18 { 32_639 } else { -32_639 });
    let logits = product("logits", 2, Shape::new(7, 7, 32), 10, 7);
    for hi in [1, 3, 15, 255] {
        check_model(&chain(from, hi, vec![first.clone(), second.clone(), logits.clone()]), 1, 2).unwrap();
    }
}

/// The networks above reach the routes that real ones rarely take.
#[test]
fn the_random_networks_are_varied() {
    let models: Vec<IntegerModel> = (0..NETWORKS).map(random_network).collect();
    let count = |what: &dyn Fn(&IntegerModel, &IntegerOp) -> bool| {
        models.iter().filter(|m| m.layers.iter().any(|l| what(m, &l.op))).count()
    };
    let of_sum =
        |what: &dyn Fn(&IntegerModel, &IntegerSum) -> bool| count(&|m, op| op.sum().is_some_and(|s| what(m, s)));
    let of_product =
        |what: &dyn Fn(&IntegerModel, &IntegerProduct) -> bool| count(&|m, op| op.products().any(|p| what(m, p)));
    let of_move = |what: &dyn Fn(&Move) -> bool| {
        count(&|_, op| {
            let views = |op: &IntegerOp| -> Vec<IntegerView> {
                match op {
                    IntegerOp::View(view) => vec![view.clone()],
                    IntegerOp::Sum(sum) => {
                        let of = |term: &IntegerTerm| match term {
                            IntegerTerm::View(view) => vec![view.clone()],
                            IntegerTerm::Multiplication { a, b, .. } => vec![a.clone(), b.clone()],
                            IntegerTerm::Product(_) => vec![],
                        };
                        sum.terms.iter().flat_map(of).chain(sum.base.iter().map(|(view, _)| view.clone())).collect()
                    }
                    _ => vec![],
                }
            };
            views(op).iter().flat_map(|view| &view.moves).any(what)
        })
    };
    let wide_sums = |m: &IntegerModel, p: &IntegerProduct| {
        m.acc_ranges(p).unwrap().iter().any(|r| r.0 < i32::MIN.into() || r.1 > i32::MAX.into())
    };
    let products = |s: &IntegerSum| s.terms.iter().filter(|term| term.product().is_some()).count();
    let views = |s: &IntegerSum| s.terms.iter().filter(|term| matches!(term, IntegerTerm::View(_))).count();
    let reads = |m: &IntegerModel, s: &IntegerSum, kind| {
        s.terms.iter().any(|term| matches!(term, IntegerTerm::View(view) if m.kind(view.input) == kind))
    };
    let of_base = |m: &IntegerModel, s: &IntegerSum, kind| s.base.iter().any(|(view, _)| m.kind(view.input) == kind);
    let window = |m: &IntegerModel, op: &IntegerOp, small: bool| match op {
        IntegerOp::WindowSum { .. } => m.output_of(op).is_ok_and(|(_, (_, hi))| (hi <= 255) == small),
        _ => false,
    };
    let is_square = |w: &Window| w.stride[0] == w.stride[1] && w.padding == Padding::all(w.padding.top);
    let cases: [(&str, usize); 42] = [
        (
            "logits of a padded window",
            of_sum(&|_, s| {
                s.end == IntegerEnd::Output
                    && s.terms.iter().any(|t| t.product().is_some_and(IntegerProduct::reads_padding))
            }),
        ),
        ("a 1x1 window with padding", of_product(&|_, p| p.window.kernel == [1, 1] && !p.window.padding.is_none())),
        ("a wide sum alone", of_sum(&|_, s| s.end == IntegerEnd::Wide && s.base.is_empty())),
        ("a wide base of a wide sum", of_sum(&|m, s| of_base(m, s, TensorKind::Wide))),
        ("a base of codes", of_sum(&|m, s| of_base(m, s, TensorKind::Codes))),
        ("several bases", of_sum(&|_, s| s.base.len() > 1)),
        ("bases alone", of_sum(&|_, s| s.terms.is_empty())),
        ("two products into a wide sum", of_sum(&|_, s| s.end == IntegerEnd::Wide && products(s) == 2)),
        ("codes of a wide tensor", of_sum(&|m, s| s.end == IntegerEnd::Codes && reads(m, s, TensorKind::Wide))),
        ("codes of sums", of_sum(&|m, s| s.end == IntegerEnd::Codes && reads(m, s, TensorKind::Sums))),
        ("a product and a shortcut", of_sum(&|_, s| s.terms.len() == 2 && products(s) == 1 && views(s) == 1)),
        ("two products", of_sum(&|_, s| s.end == IntegerEnd::Codes && s.terms.len() == 2 && products(s) == 2)),
        ("two products and a shortcut", of_sum(&|_, s| s.terms.len() == 3 && products(s) == 2 && views(s) == 1)),
        ("three products", of_sum(&|_, s| products(s) > 2)),
        ("two views", of_sum(&|_, s| views(s) > 1)),
        ("a shortcut before its product", of_sum(&|_, s| s.terms.len() > 1 && s.terms[0].product().is_none())),
        ("a multiplication", of_sum(&|_, s| s.terms.iter().any(|t| matches!(t, IntegerTerm::Multiplication { .. })))),
        ("one table", of_sum(&|_, s| matches!(&s.end, IntegerEnd::Table(tables) if tables.len() == 1))),
        ("tables of channels", of_sum(&|_, s| matches!(&s.end, IntegerEnd::Table(tables) if tables.len() > 1))),
        ("codes by channel", of_sum(&|_, s| !s.requant.bounds.is_empty())),
        ("window sums that are codes", count(&|m, op| window(m, op, true))),
        ("wider window sums", count(&|m, op| window(m, op, false))),
        ("a padded window sum", count(&|_, op| matches!(op, IntegerOp::WindowSum { padding_code: 1.., .. }))),
        ("concatenation", count(&|_, op| matches!(op, IntegerOp::Concat { .. }))),
        ("max pool", count(&|_, op| matches!(op, IntegerOp::MaxPool { window, .. } if is_square(window)))),
        (
            "max pool of another window",
            count(&|_, op| matches!(op, IntegerOp::MaxPool { window, .. } if !is_square(window))),
        ),
        ("groups", of_product(&|_, p| p.groups > 1)),
        ("padding other than 0", of_product(&|_, p| p.padding_code > 0)),
        ("a spread window", of_product(&|_, p| p.window.spread != [1, 1])),
        ("a dilated window", of_product(&|_, p| p.window.dilation != [1, 1])),
        ("sides of a window that differ", of_product(&|_, p| !is_square(&p.window))),
        ("a product of sums", of_product(&|m, p| m.is_sum(p.input))),
        ("sums of more than 32 bits", of_product(&wide_sums)),
        ("8 bits without zero", of_product(&|_, p| p.weight_bits == 8 && p.grid == Grid::WithoutZero)),
        ("stride", of_move(&|m| matches!(m, Move::Stride { .. }))),
        ("crop", of_move(&|m| matches!(m, Move::Crop { .. }))),
        ("channels", of_move(&|m| matches!(m, Move::Channels { .. }))),
        ("insert", of_move(&|m| matches!(m, Move::Insert { .. }))),
        ("pixel shuffle", of_move(&|m| matches!(m, Move::PixelShuffle { .. }))),
        ("pixel unshuffle", of_move(&|m| matches!(m, Move::PixelUnshuffle { .. }))),
        ("repeat", of_move(&|m| matches!(m, Move::Repeat { .. }))),
        ("a view alone", count(&|_, op| matches!(op, IntegerOp::View(_)))),
    ];
    for (what, models) in cases {
        assert!(models >= 10, "{what}: only {models} of {NETWORKS} networks");
    }
    let (mut layers, mut lively) = (0, 0);
    for (seed, model) in models.iter().enumerate() {
        let pixels: Vec<u8> = (0..model.example_bytes()).map(|i| Key::new(seed as u64).u64(i as u64) as u8).collect();
        for codes in &Interpreter::new(model).run(&pixels).tensors {
            layers += 1;
            lively += usize::from(codes.iter().any(|c| *c != codes[0]));
        }
    }
    assert!(lively * 4 > layers * 3, "only {lively} of {layers} layers give more than one code");
}
