//! Networks that contradict themselves, or that no proof holds for, are refused with the layer and what is wrong.

mod common;

use bitpact_core::{Grid, Requantization};
use bitpact_graph::{FirstLast, Move, Padding, Shape, Window};
use bitpact_model::{
    IntegerEnd, IntegerModel, IntegerOp, IntegerOutput, IntegerSum, IntegerTerm, IntegerView, TensorId, convert,
};
use common::{everything, main, push, requant, small_integer, sum, sum_of, view, wide, zoo_model};

type Change = fn(&mut IntegerModel);

/// Each change makes a good network one that is refused with these words, and not written.
fn refused(good: &IntegerModel, cases: &[(Change, &str)]) {
    good.check().unwrap();
    for (change, words) in cases {
        let mut model = good.clone();
        change(&mut model);
        let message = model.check().unwrap_err().to_string();
        assert!(message.contains(words), "{message}, expected {words}");
        assert!(model.to_bytes().is_err());
    }
}

fn pool(input: TensorId, window: Window) -> IntegerOp {
    IntegerOp::MaxPool { input, window }
}

#[test]
fn contradictions_are_named() {
    fn window(m: &mut IntegerModel) -> &mut Window {
        &mut main(m, 1).window
    }
    let cases: &[(Change, &str)] = &[
        (|m| m.layers.clear(), "layers: there are none"),
        (|m| drop(m.layers.pop()), "outputs: tensor 10, expected 1 to 9"),
        (|m| m.outputs.clear(), "outputs: there are none"),
        (|m| m.outputs[0].tensor = 0, "outputs: tensor 0, expected 1 to 10"),
        (|m| m.outputs[0].zero = 1, "zero 1, expected a number of 32 bits, or 0 of an output"),
        (|m| m.outputs.push(m.outputs[0]), "is named twice among the outputs"),
        (|m| m.outputs[0].tensor = 3, "the main output has values of 64 bits"),
        (|m| m.outputs.insert(1, IntegerOutput { tensor: 3, zero: 1 << 40 }), "zero 1099511627776"),
        (|m| m.layers[1].name = m.layers[0].name.clone(), "a name of its own"),
        (|m| m.layers[3].name.clear(), "a name of its own"),
        (|m| m.arch = "x".repeat(5000), "5000 bytes"),
        (|m| m.arch.push('\u{9b}'), r#"cnn\u{9b}", expected no control characters"#),
        (|m| m.layers[3].name.push('\x1b'), r#"act3\u{1b}", expected no"#),
        (|m| m.class_names[1].push('\n'), r#"\n", expected no"#),
        (|m| main(m, 1).name.insert(0, '\x7f'), r#""\u{7f}conv2", expected no"#),
        (|m| main(m, 1).input = 2, "reads tensor 2"),
        (|m| main(m, 1).input = usize::MAX, "reads tensor"),
        (|m| main(m, 1).input = 0, "reads 16 channels, but its input has 3"),
        (|m| window(m).padding = Padding::default(), "`act2`: shape 8x8x16, but its inputs give 6x6x16"),
        (|m| window(m).padding.left = 0, "`act2`: shape 8x8x16, but its inputs give 8x7x16"),
        (|m| window(m).padding = Padding::all(4000), "more than 67108864 elements"),
        (|m| window(m).padding.bottom = 4000, "more than 67108864 elements"),
        (|m| window(m).padding.right = usize::MAX, "padding 18446744073709551615, expected 0 to 32768"),
        (|m| main(m, 1).padding_code = 16, "`conv2` pads with code 16, expected 0 to 15"),
        (|m| main(m, 0).padding_code = 1, "`conv1` pads with code 1, expected 0 to 0"),
        (|m| main(m, 1).groups = 0, "`conv2`: 0 groups do not divide 16 input and 16 output channels"),
        (|m| main(m, 1).groups = 3, "3 groups"),
        (|m| main(m, 1).groups = 2, "2304 weights, expected [16, 8, 3, 3]"),
        (|m| window(m).stride = [0, 1], "stride rows 0"),
        (|m| window(m).stride = [1, 32_769], "stride columns 32769"),
        (|m| window(m).kernel = [0, 3], "kernel rows 0"),
        (|m| window(m).kernel = [3, usize::MAX], "kernel columns 18446744073709551615"),
        (|m| window(m).kernel = [3, 30], "a window of 3x30 pixels does not fit the 10x10 of its padded input"),
        (|m| window(m).dilation = [1, 5], "a window of 3x11 pixels does not fit the 10x10"),
        (|m| window(m).dilation = [1, 0], "dilation columns 0"),
        (|m| window(m).dilation = [32_768; 2], "a window of 65537x65537 pixels does not fit"),
        (|m| window(m).spread = [0, 1], "spread rows 0"),
        (|m| window(m).spread = [2, 1], "shape 8x8x16, but its inputs give 15x8x16"),
        (|m| window(m).spread = [32_768; 2], "padded to 229379x229379, more than 67108864 elements"),
        (|m| main(m, 1).out_channels = 0, "0 output channels"),
        (|m| main(m, 1).out_channels = 17, "2304 weights"),
        (|m| main(m, 1).codes.truncate(2303), "2303 weights"),
        (|m| main(m, 1).codes[9] = 8, "weight 9 is 8"),
        (|m| main(m, 1).codes[9] = 0, "weight 9 is 0"),
        (|m| main(m, 0).codes[9] = -32_640, "weight 9 is -32640"),
        (|m| main(m, 0).grid = Grid::WithoutZero, "16-bit weights have a grid with zero"),
        (|m| main(m, 1).weight_bits = 9, "9 bits"),
        (|m| main(m, 1).weight_bits = 0, "0 bits"),
        (|m| main(m, 1).name.clear(), "without a name"),
        (|m| requant(m).shift = 63, "63"),
        (|m| requant(m).mul[0].truncate(15), "15 multipliers, expected 16"),
        (|m| requant(m).mul.push(vec![1; 16]), "2 lists of multipliers, expected 1"),
        (|m| requant(m).mul.clear(), "0 lists of multipliers, expected 1"),
        (|m| requant(m).add.truncate(15), "15 constants, expected 16"),
        (|m| requant(m).add[3] = i64::MAX, "channel 3"),
        (|m| requant(m).add[3] = i64::MIN, "channel 3"),
        (|m| requant(m).hi = 256, "0 to 256"),
        (|m| requant(m).lo = -1, "-1 to"),
        (|m| requant(m).lo = 200, "200 to"),
        (|m| m.layers[1].hi = 16, "codes of 0 to 16"),
        (|m| m.layers[1].scale = f64::INFINITY, "scale inf"),
        (|m| m.layers[1].scale = 0.0, "scale 0"),
        (|m| m.input_shape = Shape::new(usize::MAX, 8, 3), "input shape"),
        (|m| m.input_shape = Shape::new(0, 8, 3), "input shape"),
        (|m| m.input.zero_point.push(0), "4 zero points"),
        (|m| m.class_names.push(String::new()), "5 names"),
        (|m| m.layers[2].op = pool(0, Window::square(2, 2, 0)), "only a product can read the image"),
        (|m| m.layers[2].op = pool(2, Window::square(2, 2, 2)), "padding 2, expected less"),
        (|m| m.layers[2].op = pool(2, Window { spread: [1, 2], ..Window::square(2, 2, 0) }), "whose input is spread"),
        (
            |m| m.layers[2].op = pool(2, Window { dilation: [9, 1], ..Window::square(2, 2, 9) }),
            "padding 9, expected less than the kernel, 2",
        ),
        (
            |m| m.layers[2].op = pool(2, Window { dilation: [9, 9], ..Window::square(2, 1, 9) }),
            "a window that sees only padding",
        ),
        (|m| m.layers[2].op = pool(1, Window::square(2, 2, 0)), "no layer reads it, and it is no output"),
    ];
    refused(&small_integer(), cases);
}

fn set_factors(m: &mut IntegerModel, new: Vec<u32>) {
    let IntegerOp::WindowSum { factors, .. } = &mut m.layers[8].op else { panic!("layer 8 is a window sum") };
    *factors = new;
}

#[test]
fn contradictions_of_sums_are_named() {
    let mut good = everything();
    let index = |name: &str| everything().layers.iter().position(|layer| layer.name == name).unwrap();
    // The changes are functions, so the layers they change stand first here.
    let names = ["b", "one table", "own tables", "stream", "bases", "both", "moved", "sums", "out", "act", "pool"];
    assert_eq!(names.map(index), [3, 6, 7, 9, 10, 11, 5, 8, 13, 12, 4]);
    fn b(m: &mut IntegerModel) -> &mut IntegerSum {
        sum_of(m, 3)
    }
    fn table(m: &mut IntegerModel, layer: usize) -> &mut Vec<Vec<u8>> {
        match &mut sum_of(m, layer).end {
            IntegerEnd::Table(tables) => tables,
            other => panic!("no table: {other:?}"),
        }
    }
    fn factors(m: &mut IntegerModel) -> (&mut IntegerView, &mut IntegerView, &mut [i64; 2]) {
        match &mut b(m).terms[3] {
            IntegerTerm::Multiplication { a, b, zeros } => (a, b, zeros),
            other => panic!("no multiplication: {other:?}"),
        }
    }
    let cases: &[(Change, &str)] = &[
        (|m| b(m).terms.clear(), "a sum without terms"),
        (|m| b(m).terms = vec![IntegerTerm::View(IntegerView::of(1)); 256], "more than 255 terms"),
        (|m| sum_of(m, 10).base = vec![(IntegerView::of(10), 0); 256], "more than 255 terms"),
        (|m| b(m).terms[1] = IntegerTerm::View(IntegerView::of(0)), "only a product can read the image"),
        (|m| b(m).terms[1] = IntegerTerm::View(IntegerView::of(2)), "term 1 gives 1x1x4, but the first term"),
        (|m| b(m).base = vec![(IntegerView::of(1), 1)], "only to values of 32 bits something is added after"),
        (|m| *factors(m).2 = [256, 0], "a zero of 256, expected a code of 0 to 255"),
        (|m| *factors(m).2 = [0, -1], "a zero of -1"),
        (|m| factors(m).0.input = 2, "only codes are multiplied"),
        (|m| factors(m).1.input = 2, "only codes are multiplied"),
        (|m| factors(m).1.moves = vec![Move::Repeat { rows: 2, columns: 1 }], "or a second factor of 1x1x4"),
        (|m| b(m).requant.bounds.truncate(3), "bounds has 3 entries"),
        (|m| b(m).requant.bounds[3] = (9, 8), "channel 3: empty range 9..=8"),
        (|m| b(m).requant.bounds[3] = (0, 16), "but its channels have 0 to 16"),
        (|m| b(m).requant.bounds[3] = (-1, 5), "but its channels have -1 to 12"),
        (|m| b(m).requant.bounds.iter_mut().for_each(|b| b.1 = b.1.min(11)), "but its channels have 0 to 11"),
        (|m| b(m).requant.bounds.fill((0, 12)), "the same codes for every channel"),
        (|m| sum_of(m, 9).requant.bounds = vec![(0, 15); 2], "values of more than 8 bits are not clamped"),
        (|m| table(m, 6)[0].push(0), "a table of 21 codes, expected 20"),
        (|m| table(m, 6).push(vec![0; 20]), "2 tables, expected 1 or 4"),
        (|m| table(m, 6).clear(), "a table without codes"),
        (|m| table(m, 7).fill(vec![0, 1, 200]), "the same table for every channel"),
        (|m| sum_of(m, 6).requant.hi = 252, "a table read with -4 to 252, expected 1 to 256 entries"),
        (|m| sum_of(m, 6).requant.hi = -5, "a table read with -4 to -5"),
        (
            |m| (sum_of(m, 6).requant.lo, sum_of(m, 6).requant.hi) = (i32::MIN, i32::MAX),
            "a table read with -2147483648",
        ),
        (|m| sum_of(m, 6).requant.bounds = vec![(-4, 15); 4], "one range for all channels"),
        (|m| m.layers[6].hi = 255, "codes of 0 to 255, but its inputs give 0 to 190"),
        (|m| sum_of(m, 9).requant.hi = 255, "values of more than 8 bits are not clamped"),
        (|m| sum_of(m, 9).base[0].1 = i32::MAX, "expected those of 32 bits"),
        (|m| sum_of(m, 9).base[0].1 = 2, "but its inputs give"),
        (|m| sum_of(m, 9).requant.mul[0][1] = i32::MAX, "expected those of 32 bits"),
        (
            |m| {
                (m.layers[9].lo, m.layers[9].hi) = (-36, 2);
                (sum_of(m, 9).requant.shift, sum_of(m, 9).requant.add[1]) = (62, i64::MAX);
            },
            "channel 1",
        ),
        (|m| m.layers[9].lo += 1, "but its inputs give"),
        (
            |m| {
                (m.layers[10].lo, m.layers[10].hi) = (-29_029, 120_120);
                sum_of(m, 10).requant.shift = 63;
            },
            "shift 63",
        ),
        (|m| main(m, 13).input = 10, "reads a residual stream, which only other terms can"),
        (|m| sum_of(m, 13).requant.shift = 1, "shift 1, but an output has none"),
        (
            |m| {
                main(m, 13).window = Window::square(1, 1, 0);
                main(m, 13).codes.truncate(12);
            },
            "shape 1x1x3, but its inputs give 3x4x3",
        ),
        (|m| sum_of(m, 12).end = IntegerEnd::Output, "codes of 0 to 3, but its inputs give 0 to 0"),
        (|m| m.layers[11].op = IntegerOp::Concat { inputs: vec![10] }, "1 inputs of a concatenation"),
        (|m| m.layers[11].op = IntegerOp::Concat { inputs: vec![] }, "0 inputs of a concatenation"),
        (|m| m.layers[11].op = IntegerOp::Concat { inputs: vec![10, 1] }, "codes alone or streams alone"),
        (|m| m.layers[11].op = IntegerOp::Concat { inputs: vec![0, 2] }, "codes alone or streams alone"),
        (|m| m.layers[11].op = IntegerOp::Concat { inputs: vec![2, 9] }, "codes alone or streams alone"),
        (
            |m| {
                let window = Window::square(1, 1, 0);
                m.layers[11].op = IntegerOp::WindowSum { input: 10, window, padding_code: 0, factors: Vec::new() };
            },
            "a window sum reads codes, not a residual stream",
        ),
        (|m| m.layers[11].op = pool(9, Window::square(1, 1, 0)), "a pool reads codes or a residual stream, not sums"),
        (|m| set_factors(m, vec![2; 3]), "3 factors, expected one for each of 5x7 positions"),
        (|m| set_factors(m, vec![1; 35]), "factors that are 0, or all 1"),
        (|m| set_factors(m, [vec![2; 34], vec![0]].concat()), "factors that are 0, or all 1"),
        (|m| set_factors(m, [vec![1; 34], vec![1 << 30]].concat()), "expected those of 32 bits"),
        (
            |m| {
                let window = Window::square(2, 1, 2);
                m.layers[8].op = IntegerOp::WindowSum { input: 8, window, padding_code: 0, factors: Vec::new() };
            },
            "padding 2, expected less",
        ),
        (
            |m| {
                let window = Window::square(2, 1, 1);
                m.layers[8].op = IntegerOp::WindowSum { input: 8, window, padding_code: 201, factors: Vec::new() };
            },
            "padding code 201, expected 0 to 200",
        ),
        (
            |m| {
                let window = Window::square(2, 1, 0);
                m.layers[8].op = IntegerOp::WindowSum { input: 8, window, padding_code: 1, factors: Vec::new() };
            },
            "padding code 1, expected 0 to 0",
        ),
    ];
    refused(&good, cases);
    // Two readers of one tensor that pad it with different codes.
    let first = good.layers.len() - 1;
    let last = good.layers.pop().unwrap();
    for (name, padding_code) in [("sums again", 3), ("other sums", 4)] {
        let again =
            IntegerOp::WindowSum { input: 8, window: Window::square(2, 1, 1), padding_code, factors: Vec::new() };
        let again = push(&mut good, name, again);
        push(
            &mut good,
            &format!("{name} read"),
            IntegerOp::Sum(sum(vec![IntegerTerm::View(view(again, &[]))], 4, [0, 9])),
        );
    }
    good.layers.push(last);
    assert!(good.layers.len() == first + 5);
    let message = good.check().unwrap_err().to_string();
    assert!(message.contains("`other sums` pads tensor 8 with code 4, an earlier reader with 3"), "{message}");
}

#[test]
fn contradictions_of_views_are_named() {
    fn moved(m: &mut IntegerModel) -> &mut IntegerView {
        match &mut m.layers[5].op {
            IntegerOp::View(view) => view,
            other => panic!("no view: {other:?}"),
        }
    }
    let most = usize::MAX;
    let cases: Vec<(Move, &str)> = vec![
        (Move::Stride { rows: 0, columns: 1 }, "stride rows 0"),
        (Move::Stride { rows: 1, columns: 32_769 }, "stride columns 32769, expected 1 to 32768"),
        (Move::Stride { rows: most, columns: 1 }, "stride rows"),
        (Move::Crop { top: most, left: 0, height: 1, width: 1 }, "a rectangle of 1x1 from row"),
        (Move::Crop { top: 0, left: 0, height: 1, width: 0 }, "width 0"),
        (Move::Channels { first: 1, count: most }, "channels from number 1"),
        (Move::Insert { top: 0, left: 0, bottom: most, right: 0, before: 0, after: 0 }, "than can be counted"),
        (Move::Insert { top: 40_000, left: 0, bottom: 0, right: 0, before: 0, after: 0 }, "expected sides of 1 to"),
        (Move::channels_inserted(0, 65_536), "1 to 65536 channels"),
        (Move::PixelShuffle { factor: 3 }, "does not divide"),
        (Move::PixelShuffle { factor: most }, "factor"),
        (Move::PixelUnshuffle { factor: 5 }, "does not divide"),
        (Move::Repeat { rows: 1 << 62, columns: 1 }, "repetitions"),
        (Move::Repeat { rows: 1 << 40, columns: 1 << 40 }, "expected sides of 1 to"),
        (Move::Repeat { rows: 30_000, columns: 1 }, "expected sides of 1 to"),
        (Move::Repeat { rows: 0, columns: 1 }, "repetition 0"),
    ];
    for (step, words) in cases {
        let mut model = everything();
        (moved(&mut model).moves, moved(&mut model).fill) = (vec![step], 0);
        let message = model.check().unwrap_err().to_string();
        assert!(message.contains("`moved`") && message.contains(words), "{message}, expected {words}");
    }
    let cases: &[(Change, &str)] = &[
        (|m| moved(m).fill = 13, "inserted elements of 13, expected 0 or a value from 0 to 12"),
        (|m| moved(m).fill = -1, "inserted elements of -1"),
        (|m| moved(m).moves.retain(|step| !step.inserts()), "inserted elements of 9, but none are inserted"),
        (|m| moved(m).moves.extend([Move::stride(1); 10]), "17 moves of one tensor, expected at most 16"),
        (|m| moved(m).moves.truncate(6), "shape 3x4x2, but its inputs give"),
        (|m| moved(m).input = 0, "only a product can read the image"),
        (|m| moved(m).input = 6, "reads tensor 6"),
    ];
    refused(&everything(), cases);
}

#[test]
fn elements_that_a_shortcut_inserts_count_in_the_proof_like_the_others() {
    let mut model = convert(&zoo_model("resnet20", 8, "W2A2", FirstLast::Bits8)).unwrap().model;
    let inserts = |term: &IntegerTerm| matches!(term, IntegerTerm::View(view) if view.inserts());
    let filling = model.layers.iter().position(|layer| layer.op.sum().is_some_and(|sum| sum.terms.iter().any(inserts)));
    for (add, fits) in [(i64::MAX - 3, true), (i64::MAX - 2, false), (3 - i64::MAX, true), (2 - i64::MAX, false)] {
        let sum = sum_of(&mut model, filling.unwrap());
        sum.requant.add[0] = add;
        for (mul, term) in sum.requant.mul.iter_mut().zip(&sum.terms) {
            mul[0] = i32::from(inserts(term));
        }
        assert_eq!(model.check().is_ok(), fits, "{add}");
    }
}

#[test]
fn wide_sums_are_proved_to_the_last_value() {
    let value = |constant: i64, mul: i32| {
        let mut model = everything();
        let last = model.layers.len() - 1;
        let base = vec![(IntegerView::of(6), mul)];
        let mut wide = wide(vec![], 2, base);
        wide.requant = Requantization { shift: 0, add: vec![constant; 2], ..wide.requant };
        let op = IntegerOp::Sum(wide);
        model.layers.truncate(last);
        model.output_of(&op).map(|(_, range)| range)
    };
    // The view inserts 9; the codes of its tensor are 0 to 12.
    let most = i64::from(i32::MAX);
    assert_eq!(value(most - 12, 1), Ok((most - 12, most)));
    assert!(value(most - 11, 1).is_err());
    assert_eq!(value(12 - most, -1), Ok((-most, 12 - most)));
    assert!(value(11 - most, -1).is_err());
    assert!(value(i64::MAX, i32::MIN).is_err() && value(i64::MIN, i32::MIN).is_err());
}
