//! Random integer networks, each a function of its seed.

use bitpact_core::rng::Key;
use bitpact_core::{Bits, Grid, Requantization};
use bitpact_graph::{Move, Padding, Shape, Window, moved_shape};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum,
    IntegerTerm, IntegerView, TensorId, TensorKind,
};

/// A source of choices.
struct Draw {
    key: Key,
    counter: u64,
}

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.counter += 1;
        self.key.below(self.counter, n as u32) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        self.counter += 1;
        from + (self.key.u64(self.counter) % (to - from + 1) as u64) as i64
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Kernel, stride, padding before and after, dilation and spread along a side of `from` elements; with the given
    /// number of positions where there is one.
    fn along(&mut self, from: usize, positions: Option<usize>, plain: bool) -> [usize; 6] {
        loop {
            let kernel = 1 + self.below(4);
            let dilation = if plain || self.one_in(2) { 1 } else { 1 + self.below(3) };
            let spread = if plain || !self.one_in(3) { 1 } else { 1 + self.below(3) };
            // Now and then the window leaves the tensor with its first step.
            let stride = if self.one_in(8) { from + self.below(9) } else { 1 + self.below(3) };
            let (extent, spread_side) = ((kernel - 1) * dilation + 1, (from - 1) * spread + 1);
            let Some(positions) = positions else {
                let padding = self.below(4);
                let after = if plain { padding } else { self.below(4) };
                if spread_side + padding + after >= extent {
                    return [kernel, stride, padding, after, dilation, spread];
                }
                continue;
            };
            let least = extent + (positions - 1) * stride;
            let padded = least + self.below(stride);
            match padded.checked_sub(spread_side) {
                Some(padding) if padding <= 12 || self.one_in(9) => {
                    let before = self.below(padding + 1);
                    return [kernel, stride, before, padding - before, dilation, spread];
                }
                // A window that covers what is too much.
                None if positions == 1 || self.one_in(4) => {
                    return [spread_side - positions + 1, 1, 0, 0, 1, spread];
                }
                _ => {}
            }
        }
    }

    /// A window over `from`, with the given rows and columns of positions where there are any. `plain` ones have square
    /// strides and the same padding on every side, which the kernels take.
    fn window(&mut self, from: Shape, positions: Option<[usize; 2]>, plain: bool) -> Window {
        if plain && positions.is_none() {
            let (padding, stride) = (self.below(4), 1 + self.below(3));
            let stride = if self.one_in(8) { from.h.max(from.w) + self.below(9) } else { stride };
            let kernel = [from.h, from.w].map(|side| 1 + self.below((side + 2 * padding).min(5)));
            return Window { kernel, ..Window::square(1, stride, padding) };
        }
        let rows = self.along(from.h, positions.map(|p| p[0]), plain);
        let columns = self.along(from.w, positions.map(|p| p[1]), plain);
        let pair = |i: usize| [rows[i], columns[i]];
        let padding = Padding { top: rows[2], left: columns[2], bottom: rows[3], right: columns[3] };
        Window { kernel: pair(0), stride: pair(1), padding, dilation: pair(4), spread: pair(5) }
    }

    /// A product of `input`, with the given shape of the output where there is one.
    fn product(&mut self, model: &IntegerModel, input: TensorId, to: Option<Shape>) -> IntegerProduct {
        let from = model.shape(input);
        let plain = self.below(3) > 0;
        let window = self.window(from, to.map(|to| [to.h, to.w]), plain && to.is_none());
        let any_channels = |draw: &mut Self| [1, 1 + draw.below(40), 1 + draw.below(40), 100][draw.below(4)];
        let out_channels = to.map_or_else(|| any_channels(self), |to| to.c);
        let (groups, out_channels) = match (to, self.below(4)) {
            (None, 0) => (from.c, from.c * (1 + self.below(3))),
            (_, 1) => {
                let divides =
                    |g: &usize| from.c.is_multiple_of(*g) && (to.is_none() || out_channels.is_multiple_of(*g));
                let groups = [4, 3, 2, 1].into_iter().find(divides).unwrap_or(1);
                (groups, out_channels.next_multiple_of(groups))
            }
            _ => (1, out_channels),
        };
        let (weight_bits, grid) = match self.below(10) {
            0 | 1 => (16, Grid::WithZero),
            bits @ 2..6 => (bits as u8, Grid::WithZero),
            6 => (8, Grid::WithoutZero),
            7 => (8, Grid::WithZero),
            bits => (bits as u8 - 7, Grid::WithoutZero),
        };
        let limit = Bits::new(weight_bits).map_or(32_639, |bits| i64::from(grid.code_limit(bits)));
        // Now and then every code is as large as can be, of either sign by channel.
        let extreme = self.one_in(2);
        let n = from.c / groups * window.kernel[0] * window.kernel[1];
        let code = |draw: &mut Self, i: usize| {
            if extreme && draw.below(20) > 0 {
                return if (i / n).is_multiple_of(2) { limit } else { -limit };
            }
            let code = draw.between(-limit, limit);
            if grid == Grid::WithoutZero && code % 2 == 0 { (code - 1).clamp(-limit, limit) } else { code }
        };
        let codes = (0..n * out_channels).map(|i| code(self, i) as i16).collect();
        let name = format!("product{}", self.counter);
        let in_channels = from.c;
        let mut product = IntegerProduct {
            name,
            input,
            window,
            padding_code: 0,
            out_channels,
            in_channels,
            groups,
            weight_bits,
            grid,
            codes,
        };
        if product.reads_padding() && input > 0 {
            product.padding_code = padding_code(model, input);
        }
        product
    }

    /// `input` with its elements moved, to the given shape where there is one.
    fn view(&mut self, model: &IntegerModel, input: TensorId, to: Option<Shape>) -> IntegerView {
        let from = model.shape(input);
        let (mut shape, mut moves) = (from, Vec::new());
        for _ in 0..self.below(3) {
            let step = match self.below(5) {
                0 => Move::Stride { rows: 1 + self.below(3), columns: 1 + self.below(3) },
                1 => Move::PixelShuffle { factor: 2 },
                2 => Move::PixelUnshuffle { factor: 2 },
                3 => Move::Repeat { rows: 1 + self.below(2), columns: 1 + self.below(2) },
                _ => {
                    let padding = [(); 4].map(|()| self.below(3));
                    let [top, left, bottom, right] = padding;
                    Move::Insert { top, left, bottom, right, before: self.below(9), after: self.below(9) }
                }
            };
            // Shuffles that do not divide, and tensors that grow without end, are left out.
            if let Ok(moved) = step.shape(shape).map_err(drop)
                && moved.elements() < 4000
            {
                (shape, _) = (moved, moves.push(step));
            }
        }
        if let Some(to) = to {
            if shape.h > to.h || shape.w > to.w {
                let (height, width) = (shape.h.min(to.h), shape.w.min(to.w));
                let (top, left) = (self.below(shape.h - height + 1), self.below(shape.w - width + 1));
                moves.push(Move::Crop { top, left, height, width });
            }
            if shape.c > to.c {
                moves.push(Move::Channels { first: self.below(shape.c - to.c + 1), count: to.c });
            }
            let shape = moved_shape(from, &moves).unwrap();
            if shape != to {
                let (h, w, c) = (to.h - shape.h, to.w - shape.w, to.c - shape.c);
                let (top, left, before) = (self.below(h + 1), self.below(w + 1), self.below(c + 1));
                let (bottom, right, after) = (h - top, w - left, c - before);
                moves.push(Move::Insert { top, left, bottom, right, before, after });
            }
        }
        let (lo, hi) = model.code_range(input);
        let mut view = IntegerView { input, moves, fill: 0 };
        if view.inserts() {
            view.fill = [0, lo, hi][self.below(3)];
        }
        view
    }

    /// A term that reads `input`, with the given shape where there is one.
    fn term(&mut self, model: &IntegerModel, input: TensorId, to: Option<Shape>) -> IntegerTerm {
        let codes: Vec<TensorId> = (1..=model.layers.len()).filter(|&t| model.kind(t) == TensorKind::Codes).collect();
        match model.kind(input) {
            TensorKind::Wide => IntegerTerm::View(self.view(model, input, to)),
            TensorKind::Image => IntegerTerm::Product(self.product(model, input, to)),
            kind => match self.below(8) {
                0 | 1 => IntegerTerm::View(self.view(model, input, to)),
                2 if kind == TensorKind::Codes => {
                    let a = self.view(model, input, to);
                    let shape = moved_shape(model.shape(input), &a.moves).unwrap();
                    let other = self.pick(&codes);
                    let b = if self.one_in(2) { shape } else { Shape::new(1, 1, shape.c) };
                    let b = self.view(model, other, Some(b));
                    let zeros = [input, other].map(|t| self.between(0, model.code_range(t).1));
                    IntegerTerm::Multiplication { a, b, zeros }
                }
                _ => IntegerTerm::Product(self.product(model, input, to)),
            },
        }
    }

    /// A requantization that spreads sums of these ranges over the codes from `lo` to `hi`.
    fn requant(&mut self, ranges: &[Vec<(i64, i64)>], channels: usize, (lo, hi): (i32, i32)) -> Requantization {
        let reach = |range: &Vec<(i64, i64)>| -> i64 {
            range.iter().map(|r| r.0.saturating_abs().max(r.1.saturating_abs())).max().unwrap_or(0)
        };
        let total = ranges.iter().map(reach).fold(0i64, i64::saturating_add).max(1);
        let bits = (1 + self.below(14)).min(61usize.saturating_sub(total.ilog2() as usize + 2));
        let mul = ranges
            .iter()
            .map(|range| range.iter().map(|_| self.between(-(1 << bits), 1 << bits) as i32).collect())
            .collect();
        // The sums reach about eight times the codes, so that some clamp and some do not.
        let spread = ((total << bits) / (8 * i64::from(hi.max(1)))).max(1);
        let shift = 63 - spread.leading_zeros();
        let add = (0..channels).map(|_| self.between(0, (total << bits) / 16)).collect();
        Requantization { shift, mul, add, lo, hi, bounds: Vec::new() }
    }

    /// A sum that reads the last tensor and others, with an end of its own.
    fn sum(&mut self, model: &IntegerModel) -> IntegerSum {
        let last = model.layers.len();
        let mut terms = vec![self.term(model, last, None)];
        let of = |terms: &[IntegerTerm]| match &terms[0] {
            IntegerTerm::Product(product) => {
                let [h, w] = product.window.positions(model.shape(product.input)).unwrap();
                Shape::new(h, w, product.out_channels)
            }
            IntegerTerm::View(view) | IntegerTerm::Multiplication { a: view, .. } => {
                moved_shape(model.shape(view.input), &view.moves).unwrap()
            }
        };
        let shape = of(&terms);
        let tensors: Vec<TensorId> = (0..=last).collect();
        for _ in 0..[0, 0, 1, 1, 2, 3][self.below(6)] {
            let input = self.pick(&tensors);
            terms.push(self.term(model, input, Some(shape)));
        }
        if self.one_in(4) && terms.len() > 1 {
            terms.rotate_left(1);
        }
        let mut base = Vec::new();
        let is_wide = self.one_in(3);
        for _ in 0..if is_wide { self.below(3) } else { 0 } {
            let input = self.pick(&tensors);
            if model.kind(input) != TensorKind::Image {
                base.push((self.view(model, input, Some(shape)), self.pick(&[1, 1, -3, 1 << 9])));
            }
        }
        if is_wide && !base.is_empty() && matches!(terms[0], IntegerTerm::View(_)) && self.one_in(2) {
            let IntegerTerm::View(view) = terms.remove(0) else { unreachable!() };
            base.push((view, 1));
        }
        let mut sum = IntegerSum {
            terms,
            requant: Requantization { shift: 0, mul: vec![], add: vec![], lo: 0, hi: 0, bounds: vec![] },
            base,
            end: IntegerEnd::Wide,
        };
        let ranges = model.term_ranges(&sum, shape.c).unwrap();
        if is_wide {
            sum.requant = self.requant(&ranges, shape.c, (0, 255));
            (sum.requant.lo, sum.requant.hi) = (i32::MIN, i32::MAX);
            sum.requant.shift = sum.requant.shift.saturating_sub([0, 8, 12][self.below(3)]);
            sum.requant.add.iter_mut().for_each(|add| *add -= self.between(0, 1 << 20));
            // Values that could leave 32 bits are none of a wide tensor.
            if model.output_of(&IntegerOp::Sum(sum.clone())).is_ok() {
                return sum;
            }
            // What was to be added after the shift becomes terms, so that the last tensor is read.
            sum.terms.extend(sum.base.drain(..).map(|(view, _)| IntegerTerm::View(view)));
        }
        let ranges = model.term_ranges(&sum, shape.c).unwrap();
        let hi = [1, 15, 200, 255, 255][self.below(5)];
        let lo = if self.one_in(6) { 1 } else { 0 };
        sum.requant = self.requant(&ranges, shape.c, (lo, hi));
        sum.end = IntegerEnd::Codes;
        if self.one_in(5) {
            let shift = self.below(300) as i32 - 150;
            (sum.requant.lo, sum.requant.hi) = (lo + shift, hi + shift);
            let tables = if self.one_in(2) && shape.c > 1 { shape.c } else { 1 };
            let table = |draw: &mut Self| (0..=hi - lo).map(|_| draw.below(256) as u8).collect();
            let mut tables: Vec<Vec<u8>> = (0..tables).map(|_| table(self)).collect();
            if tables.len() > 1 {
                tables[0] = tables[1].iter().map(|code| code ^ 1).collect();
            }
            sum.end = IntegerEnd::Table(tables);
        } else if self.one_in(3) && shape.c > 1 && lo < hi {
            let ends = |draw: &mut Self| [(); 2].map(|()| draw.between(lo.into(), hi.into()) as i32);
            let mut bounds: Vec<(i32, i32)> =
                (0..shape.c).map(|_| ends(self)).map(|[a, b]| (a.min(b), a.max(b))).collect();
            // Channels reach the ends of the layer's range, and differ.
            (bounds[0], bounds[shape.c - 1]) = ((lo, lo), (lo, hi));
            sum.requant.bounds = bounds;
        }
        sum
    }

    /// A pool of the last tensor, whose codes it reads.
    fn pool(&mut self, model: &IntegerModel) -> IntegerOp {
        let input = model.layers.len();
        let from = model.shape(input);
        let plain = self.one_in(2);
        let mut window = self.window(from, None, plain);
        window.spread = [1; 2];
        let extent = window.extent();
        let most = |padding: usize, side: usize| padding.min(extent[side] - 1);
        window.padding = Padding {
            top: most(window.padding.top, 0),
            left: most(window.padding.left, 1),
            bottom: most(window.padding.bottom, 0),
            right: most(window.padding.right, 1),
        };
        if plain {
            window.padding = Padding::all(window.padding.top.min(window.padding.left));
            window.kernel = if self.one_in(2) { [window.kernel[0].min(window.kernel[1]); 2] } else { window.kernel };
            window.padding = Padding::all(window.padding.top.min(window.kernel[0].min(window.kernel[1]) - 1));
        }
        if window.positions(from).is_none() || self.one_in(6) {
            window = Window::whole(from);
        }
        if self.one_in(2) {
            let op = IntegerOp::MaxPool { input, window };
            // A dilated window that sees nothing but padding has no maximum.
            let window = if model.output_of(&op).is_ok() { window } else { Window::whole(from) };
            return IntegerOp::MaxPool { input, window };
        }
        let padding_code = if window.padding.is_none() { 0 } else { padding_code(model, input) };
        let [h, w] = window.positions(from).expect("the window fits");
        let mut factors: Vec<u32> = Vec::new();
        if self.one_in(3) {
            factors = (0..h * w).map(|_| 1 + self.below(9) as u32).collect();
            factors[0] = 2;
        }
        IntegerOp::WindowSum { input, window, padding_code, factors }
    }
}

/// One code for every reader of a tensor that pads it: a function of the tensor.
fn padding_code(model: &IntegerModel, tensor: TensorId) -> u32 {
    let largest = model.code_range(tensor).1 as u32;
    [0, largest / 2, largest][tensor % 3]
}

/// Pushes a layer whose shape and range follow from its op.
pub(crate) fn push(model: &mut IntegerModel, op: IntegerOp) {
    let (shape, (lo, hi)) = model.output_of(&op).unwrap();
    let name = format!("layer{}", model.layers.len());
    model.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale: 0.5 });
}

/// The network of `seed`.
pub(crate) fn random_network(seed: u64) -> IntegerModel {
    let mut draw = Draw { key: Key::new(seed), counter: 0 };
    let input_shape = Shape::new(1 + draw.below(11), 1 + draw.below(11), 1 + draw.below(6));
    let bits = if draw.one_in(6) { 16 } else { 8 };
    let zero_point = (0..input_shape.c).map(|_| draw.below(1 << bits) as u16).collect();
    let input = InputDescription { bits, zero_point, scale: vec![0.5; input_shape.c] };
    let mut model = IntegerModel {
        arch: format!("random {seed}"),
        input,
        input_shape,
        class_names: vec![],
        layers: vec![],
        outputs: vec![],
    };
    for i in 0..1 + draw.below(7) {
        let (from, kind) = (model.shape(i), model.kind(i));
        let same = |t: &TensorId| model.kind(*t) == kind && (model.shape(*t).h, model.shape(*t).w) == (from.h, from.w);
        let op = match draw.below(10) {
            0 | 1 if kind == TensorKind::Codes => draw.pool(&model),
            2 if matches!(kind, TensorKind::Codes | TensorKind::Wide) && from.c < 200 => {
                IntegerOp::Concat { inputs: (1..=i).filter(same).chain([i]).collect() }
            }
            3 if kind != TensorKind::Image => IntegerOp::View(draw.view(&model, i, None)),
            _ => IntegerOp::Sum(draw.sum(&model)),
        };
        push(&mut model, op);
    }
    let classes = [1, 1 + draw.below(12), 1 + draw.below(12), if draw.one_in(40) { 10_000 } else { 1000 }];
    let classes = draw.pick(&classes);
    let (last, to) = (model.layers.len(), Shape::new(1, 1, classes));
    let mut terms = vec![draw.term(&model, last, Some(to))];
    if draw.one_in(4) {
        let input = draw.below(last + 1);
        terms.push(draw.term(&model, input, Some(to)));
    }
    let mul = terms.iter().map(|_| (0..classes).map(|_| draw.between(-1000, 1000) as i32).collect()).collect();
    let add = (0..classes).map(|_| draw.between(-(1 << 40), 1 << 40)).collect();
    let requant = Requantization { shift: 0, mul, add, lo: i32::MIN, hi: i32::MAX, bounds: vec![] };
    push(&mut model, IntegerOp::Sum(IntegerSum { terms, requant, base: vec![], end: IntegerEnd::Output }));
    model.class_names = (0..classes).map(|c| c.to_string()).collect();
    model.set_last_output();
    for tensor in 1..=last {
        if draw.one_in(5) {
            let (lo, hi) = model.code_range(tensor);
            model.outputs.push(IntegerOutput { tensor, zero: draw.between(lo, hi) });
        }
    }
    model
}
