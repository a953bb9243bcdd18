//! Writes the .bitpact file of a random network: `random_model ARCH BITS FIRST_LAST SEED OUT [HxWxC] [channel]`.
//!
//! ARCH is a network of the zoo or a JSON file with one, whose shape then counts, converted from random weights, or
//! [`corners`], a small network of integers that holds what conversion never makes and for which BITS, FIRST_LAST and
//! the shape count for nothing. FIRST_LAST is `float`, `8bit` or `same`; with `channel`, channels have clip values of
//! their own.

use bitpact_core::rng::Key;
use bitpact_core::{Granularity, Grid, Requantization};
use bitpact_graph::{Graph, Move, Padding, QuantConfig, QuantPlan, Shape, Window, moved_shape, zoo};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm,
    IntegerView, Model, TensorId, convert,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [arch, bits, first_last, seed, out, rest @ ..] = args.as_slice() else {
        return Err("usage: random_model ARCH BITS FIRST_LAST SEED OUT [HxWxC] [channel]".into());
    };
    let seed = seed.parse()?;
    let (clips, shape): (Vec<&String>, Vec<&String>) = rest.iter().partition(|arg| *arg == "channel");
    let clip_scale = if clips.is_empty() { Granularity::Layer } else { Granularity::Channel };
    let sides = shape.first().map_or("12x10x3", |shape| shape.as_str()).split('x');
    let &[h, w, c] = sides.map(str::parse).collect::<std::result::Result<Vec<_>, _>>()?.as_slice() else {
        return Err("expected a shape like 12x10x3".into());
    };
    let model = match arch.as_str() {
        "corners" => corners(seed),
        _ => of_the_zoo(arch, (bits, first_last, clip_scale), seed, Shape::new(h, w, c))?,
    };
    Ok(model.save(out)?)
}

/// A network of the zoo for ten classes, or of a file.
fn of_the_zoo(
    arch: &str,
    (bits, first_last, clip_scale): (&str, &str, Granularity),
    seed: u64,
    input: Shape,
) -> Result<IntegerModel> {
    let graph: Graph = match arch.ends_with(".json") {
        true => serde_json::from_str(&std::fs::read_to_string(arch)?)?,
        false => zoo::build(arch, input, 10).ok_or("unknown architecture")??,
    };
    let input = graph.input();
    let first_last = serde_json::from_value(first_last.into())?;
    let config = QuantConfig { first_last, clip_scale, ..QuantConfig::new(bits.parse()?) };
    let plan = QuantPlan::resolve(&graph, &config)?;
    let pixels = InputDescription {
        bits: 8,
        zero_point: (0..input.c).map(|c| 120 + 5 * c as u16).collect(),
        scale: (0..input.c).map(|c| (1.0 + c as f32) / 96.0).collect(),
    };
    let names = (0..graph.classes()).map(|c| format!("class {c}")).collect();
    Ok(convert(&Model::random(graph, plan, pixels, names, seed)?)?.model)
}

/// Sides, strides, dilation, spread and padding that differ, zero points far from the middle, 1 bit, 16 bits and both
/// grids, windows over sums of codes, groups, padding codes, sums of up to four terms of every kind, codes that do not
/// start at 0, those bounded by channel, tables of the layer and of channels, window sums with factors, the maximum of
/// wide values, every move, several tensors added after the shift, negative factors, a shift of 62, and two classes
/// that always tie.
fn corners(seed: u64) -> IntegerModel {
    let input = InputDescription { bits: 8, zero_point: vec![3, 250], scale: vec![0.5, 0.125] };
    let model = IntegerModel {
        arch: "corners".to_owned(),
        input,
        input_shape: Shape::new(9, 7, 2),
        class_names: ["b\u{f6}se", "", "tie"].map(str::to_owned).to_vec(),
        layers: Vec::new(),
        outputs: Vec::new(),
    };
    let mut net = Builder { model, key: Key::new(seed).with("corners") };
    let window = |kernel, stride, [top, left, bottom, right]: [usize; 4]| {
        let padding = Padding { top, left, bottom, right };
        Window { kernel, stride, padding, dilation: [1, 1], spread: [1, 1] }
    };
    let one = Window::square(1, 1, 0);

    let image = net.product("image", 0, window([5, 3], [2, 1], [2, 1, 0, 2]), 6, (1, Grid::WithoutZero));
    let a = net.codes("a", vec![image], [0, 255], IntegerEnd::Codes);
    let pool = Window { dilation: [1, 2], ..window([3, 2], [2, 2], [1, 0, 1, 1]) };
    let b = net.push("b", IntegerOp::MaxPool { input: a, window: pool });

    let up = Window { spread: [2, 2], ..window([3, 4], [1, 1], [1, 2, 2, 2]) };
    let up = net.product("up", b, up, 6, (2, Grid::WithoutZero)).grouped(3).padded(7);
    let dilated = Window { dilation: [2, 3], ..window([2, 3], [1, 1], [1, 3, 1, 3]) };
    let dilated = net.product("dilated", a, dilated, 6, (7, Grid::WithZero)).padded(12);
    let turned = [Move::Channels { first: 2, count: 3 }, Move::channels_inserted(1, 2)];
    let turned = IntegerTerm::View(IntegerView { fill: 30, ..view(a, &turned) });
    let own = IntegerTerm::View(view(a, &[]));
    let mut c = net.sum(vec![up, own, dilated, turned], "c", [3, 77]);
    c.requant.bounds = vec![(3, 60), (10, 77), (3, 77), (40, 40), (20, 70), (3, 77)];
    let c = net.push("c", IntegerOp::Sum(c));

    let strided = window([2, 3], [2, 3], [1, 0, 1, 2]);
    let [rows, columns] = strided.positions(net.model.shape(c)).expect("the window fits");
    let factors = (0..rows * columns).map(|i| [6, 4, 3, 12, 1][i % 5]).collect();
    let sums = IntegerOp::WindowSum { input: c, window: strided, padding_code: 9, factors };
    let sums = net.push("sums", sums);
    let whole = Window::whole(net.model.shape(c));
    let global = IntegerOp::WindowSum { input: c, window: whole, padding_code: 0, factors: Vec::new() };
    let global = net.push("global", global);
    let gate = net.product("gate", global, one, 6, (8, Grid::WithoutZero));
    let table = IntegerEnd::Table(vec![net.table("gate", 256)]);
    let gate = net.codes("gate", vec![gate], [-100, 155], table);
    let gated = IntegerTerm::Multiplication { a: view(c, &[]), b: view(gate, &[]), zeros: [40, 128] };
    let squared = IntegerTerm::Multiplication { a: view(a, &[]), b: view(c, &[]), zeros: [255, 0] };
    let tables = IntegerEnd::Table((0..6).map(|o| net.table(&format!("tables {o}"), 16)).collect());
    let g = net.codes("g", vec![gated, IntegerTerm::View(view(c, &[])), squared], [-8, 7], tables);

    let moves = [
        Move::Insert { top: 1, left: 0, bottom: 0, right: 1, before: 1, after: 1 },
        Move::PixelShuffle { factor: 2 },
        Move::Stride { rows: 3, columns: 2 },
        Move::Crop { top: 0, left: 1, height: 4, width: 8 },
        Move::PixelUnshuffle { factor: 2 },
        Move::ChannelShuffle { groups: 4 },
        Move::Channels { first: 1, count: 6 },
        Move::Repeat { rows: 2, columns: 2 },
    ];
    let moved = net.push("moved", IntegerOp::View(IntegerView { fill: 77, ..view(g, &moves) }));

    let fine = net.product("fine", moved, one, 6, (16, Grid::WithZero));
    let mut stream = net.sum(vec![fine], "stream", [-30_000, 30_000]);
    stream.base = vec![(view(a, &[]), 5), (view(moved, &[]), -300)];
    let stream = net.wide("stream", stream);
    let terms = [stream, g].map(|tensor| IntegerTerm::View(view(tensor, &[])));
    let mut deeper = net.sum(terms.to_vec(), "deeper", [-500, 70_000]);
    let shifted = [
        Move::Crop { top: 1, left: 0, height: 3, width: 8 },
        Move::Insert { top: 1, left: 0, bottom: 0, right: 0, before: 0, after: 0 },
    ];
    deeper.base = vec![(view(stream, &[]), 1), (IntegerView { fill: -70, ..view(stream, &shifted) }, -2)];
    let deeper = net.wide("deeper", deeper);
    let alone = IntegerSum { base: vec![(view(deeper, &[]), -1)], ..net.sum(vec![], "alone", [0, 6]) };
    let alone = net.wide(
        "alone",
        IntegerSum { requant: Requantization { add: vec![7; 6], mul: vec![], ..alone.requant }, ..alone },
    );
    let all = net.push("all", IntegerOp::Concat { inputs: vec![alone, stream, deeper] });
    let Shape { h: height, w: width, .. } = net.model.shape(all);
    let most = net.push("most", IntegerOp::MaxPool { input: all, window: Window::square(2, 1, 1) });
    let inner = [Move::Crop { top: 1, left: 0, height, width }];
    let h = net.codes("h", vec![IntegerTerm::View(view(most, &inner))], [0, 15], IntegerEnd::Codes);

    let thin =
        net.product("thin", h, window([3, 3], [2, 3], [1, 0, 1, 1]), 4, (5, Grid::WithoutZero)).grouped(2).padded(4);
    let mut thin = net.sum(vec![thin], "thin", [0, 1]);
    thin.requant.shift = 62;
    thin.requant.mul = vec![vec![i32::MAX, i32::MIN, 1 << 30, -1]];
    thin.requant.add = vec![1 << 62, (1 << 62) - 1, -7, 1 << 62];
    let thin = net.push("thin", IntegerOp::Sum(thin));
    let of_sums = net.product("of sums", sums, window([2, 2], [2, 2], [1, 1, 0, 0]), 3, (6, Grid::WithZero)).padded(5);
    let of_sums = net.codes("of sums", vec![of_sums], [0, 250], IntegerEnd::Codes);
    let thin =
        net.push("two by two", IntegerOp::View(view(thin, &[Move::Crop { top: 0, left: 1, height: 2, width: 2 }])));
    let both = net.push("both", IntegerOp::Concat { inputs: vec![of_sums, thin] });

    let mut last = net.product("last", both, Window::whole(net.model.shape(both)), 3, (6, Grid::WithoutZero));
    let mut beside = net.product("beside", global, one, 3, (3, Grid::WithZero));
    for term in [&mut last, &mut beside] {
        let IntegerTerm::Product(product) = term else { unreachable!("a product") };
        let n = product.weights_per_channel();
        product.codes.copy_within(n..2 * n, 2 * n);
    }
    let some = IntegerTerm::View(view(gate, &[Move::Channels { first: 2, count: 3 }]));
    let mut out = net.sum(vec![last, beside, some], "out", [i32::MIN, i32::MAX]);
    out.requant.shift = 0;
    out.requant.mul = vec![vec![-300, 7000, 7000], vec![5, -40, -40], vec![100_000, 0, 0]];
    out.requant.add = vec![-9_000_000, -9, -9];
    net.push("out", IntegerOp::Sum(IntegerSum { end: IntegerEnd::Output, ..out }));
    net.model.set_last_output();
    net.model
}

fn view(input: TensorId, moves: &[Move]) -> IntegerView {
    IntegerView { moves: moves.to_vec(), ..IntegerView::of(input) }
}

/// A network that grows layer by layer, with random weights and multipliers.
struct Builder {
    model: IntegerModel,
    key: Key,
}

impl Builder {
    /// Appends a layer, whose shape and range follow from its inputs.
    fn push(&mut self, name: &str, op: IntegerOp) -> TensorId {
        let (shape, (lo, hi)) = self.model.output_of(&op).unwrap_or_else(|e| panic!("`{name}`: {e}"));
        let layer = IntegerLayer { name: name.to_owned(), op, shape, lo: lo as i32, hi: hi as i32, scale: 0.25 };
        self.model.layers.push(layer);
        self.model.layers.len()
    }

    /// Appends a sum whose values are rounded to `lo` to `hi`.
    fn codes(&mut self, name: &str, terms: Vec<IntegerTerm>, range: [i32; 2], end: IntegerEnd) -> TensorId {
        let sum = self.sum(terms, name, range);
        self.push(name, IntegerOp::Sum(IntegerSum { end, ..sum }))
    }

    /// Appends a sum whose values nothing clamps.
    fn wide(&mut self, name: &str, sum: IntegerSum) -> TensorId {
        let requant = Requantization { lo: i32::MIN, hi: i32::MAX, ..sum.requant };
        self.push(name, IntegerOp::Sum(IntegerSum { requant, end: IntegerEnd::Wide, ..sum }))
    }

    /// A sum with multipliers of both signs that takes much of what its terms are to `lo` to `hi`.
    fn sum(&self, terms: Vec<IntegerTerm>, name: &str, [lo, hi]: [i32; 2]) -> IntegerSum {
        let channels = terms.iter().map(|term| self.channels(term)).max().unwrap_or(0);
        let requant = Requantization { shift: 24, mul: vec![], add: vec![], lo, hi, bounds: vec![] };
        let mut sum = IntegerSum { terms, requant, base: vec![], end: IntegerEnd::Codes };
        let ranges = self.model.term_ranges(&sum, channels).expect("ranges of terms");
        let unit = 1i64 << sum.requant.shift;
        let middle = (i64::from(lo) + i64::from(hi)) / 2;
        sum.requant.add = vec![unit * middle + unit / 2; channels];
        for (t, ranges) in ranges.iter().enumerate() {
            let key = self.key.with(name).with("mul").at(t as u64);
            let is_product = matches!(sum.terms[t], IntegerTerm::Product(_));
            let mut mul = Vec::with_capacity(channels);
            for (o, &(from, to)) in ranges.iter().enumerate() {
                // Sums of many products fill little of their range.
                let gain = if is_product { 4 } else { 1 } + i64::from(key.below(o as u64, 3));
                let wanted = gain * unit * (i64::from(hi) - i64::from(lo)) / (to - from).max(1);
                let factor =
                    wanted.min(i32::MAX.into()) * if key.u64(99 + o as u64).is_multiple_of(3) { -1 } else { 1 };
                sum.requant.add[o] -= factor * ((from + to) / 2);
                mul.push(factor as i32);
            }
            sum.requant.mul.push(mul);
        }
        sum
    }

    fn channels(&self, term: &IntegerTerm) -> usize {
        let moved =
            |view: &IntegerView| moved_shape(self.model.shape(view.input), &view.moves).expect("moves that fit").c;
        match term {
            IntegerTerm::Product(product) => product.out_channels,
            IntegerTerm::View(view) | IntegerTerm::Multiplication { a: view, .. } => moved(view),
        }
    }

    /// Random codes.
    fn table(&self, name: &str, entries: u64) -> Vec<u8> {
        let key = self.key.with(name).with("table");
        (0..entries).map(|i| key.u64(i) as u8).collect()
    }

    /// A product with random weights.
    fn product(&self, name: &str, input: TensorId, window: Window, o: usize, weights: (u8, Grid)) -> IntegerTerm {
        let (weight_bits, grid) = weights;
        let key = self.key.with(name);
        let code = |n: usize| {
            let f = (key.u64(n as u64) >> 48) as i16 >> (16 - weight_bits);
            match grid {
                Grid::WithoutZero => 2 * f + 1,
                Grid::WithZero if weight_bits == 16 => f.clamp(-32639, 32639),
                Grid::WithZero => f.max(1 - (1 << (weight_bits - 1))),
            }
        };
        let i = self.model.shape(input).c;
        IntegerTerm::Product(IntegerProduct {
            name: name.to_owned(),
            input,
            window,
            padding_code: 0,
            out_channels: o,
            in_channels: i,
            groups: 1,
            weight_bits,
            grid,
            codes: (0..o * i * window.kernel[0] * window.kernel[1]).map(code).collect(),
        })
    }
}

/// What else a product can be.
trait Product {
    fn grouped(self, groups: usize) -> Self;
    fn padded(self, code: u32) -> Self;
}

impl Product for IntegerTerm {
    fn grouped(mut self, groups: usize) -> Self {
        let IntegerTerm::Product(product) = &mut self else { unreachable!("a product") };
        product.groups = groups;
        product.codes.truncate(product.codes.len() / groups);
        self
    }

    fn padded(mut self, code: u32) -> Self {
        let IntegerTerm::Product(product) = &mut self else { unreachable!("a product") };
        product.padding_code = code;
        self
    }
}
