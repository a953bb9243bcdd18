//! Random integer networks of every shape the format allows: the executor equals the interpreter, and files keep them.

use bitpact_core::rng::Key;
use bitpact_core::{Bits, Grid, IntegerStep};
use bitpact_engine::{ExecOptions, Executor, Interpreter};
use bitpact_graph::Shape;
use bitpact_kernels::Isa;
use bitpact_model::{
    InputDescription, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerResidual, TensorId, TensorKind,
};
use proptest::prelude::*;

/// Networks looked at for variety.
const NETWORKS: u64 = 600;

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

    /// A product from `input` to an output of `out` channels; with the given output size where there is one.
    fn product(&mut self, model: &IntegerModel, name: String, input: TensorId, size: Option<Shape>) -> IntegerProduct {
        let from = model.shape(input);
        let (kernel, stride, padding) = match size {
            // One position a stride: the size of an option-A shortcut.
            Some(size) if size.h != 1 || size.w != 1 => ([1, 1], from.h.div_ceil(size.h), 0),
            Some(_) => self.one_position(from),
            None => {
                let padding = self.below(4);
                let side = |draw: &mut Self, side: usize| 1 + draw.below((side + 2 * padding).min(5));
                let kernel = [side(self, from.h), side(self, from.w)];
                // Now and then the window leaves the tensor with its first step.
                let stride = if self.one_in(8) { from.h.max(from.w) + self.below(9) } else { 1 + self.below(3) };
                (kernel, stride, padding)
            }
        };
        let any_channels = |draw: &mut Self| [1, 1 + draw.below(40), 1 + draw.below(40), 100][draw.below(4)];
        let out_channels = size.map_or_else(|| any_channels(self), |size| size.c);
        let (groups, out_channels) = match (size, self.below(4)) {
            (None, 0) => (from.c, from.c * (1 + self.below(3))),
            (None, 1) => {
                let groups = [4, 3, 2, 1].into_iter().find(|g| from.c.is_multiple_of(*g)).unwrap_or(1);
                (groups, out_channels.next_multiple_of(groups))
            }
            _ => (1, out_channels),
        };
        // One code for every reader of a tensor: a function of the tensor.
        let largest = if padding > 0 && input > 0 { model.code_range(input).1 as u32 } else { 0 };
        let padding_code = [0, largest / 2, largest][input % 3];
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
        let n = from.c / groups * kernel[0] * kernel[1];
        let code = |draw: &mut Self, i: usize| {
            if extreme && draw.below(20) > 0 {
                return if (i / n).is_multiple_of(2) { limit } else { -limit };
            }
            let code = draw.between(-limit, limit);
            if grid == Grid::WithoutZero && code % 2 == 0 { (code - 1).clamp(-limit, limit) } else { code }
        };
        let codes = (0..n * out_channels).map(|i| code(self, i) as i16).collect();
        let in_channels = from.c;
        IntegerProduct {
            name,
            input,
            kernel,
            stride,
            padding,
            padding_code,
            out_channels,
            in_channels,
            groups,
            weight_bits,
            grid,
            codes,
        }
    }

    /// Kernel, stride and padding of a window that has one position over `from`: all of the tensor, or a part of it and of its
    /// padding, with a stride that leaves it.
    fn one_position(&mut self, from: Shape) -> ([usize; 2], usize, usize) {
        if self.one_in(2) {
            return ([from.h, from.w], 1, 0);
        }
        let padding = self.below(4);
        let kernel = [from.h, from.w].map(|side| 1 + self.below((side + 2 * padding).min(5)));
        let left = [from.h + 2 * padding - kernel[0], from.w + 2 * padding - kernel[1]];
        (kernel, left[0].max(left[1]) + 1 + self.below(3), padding)
    }

    /// A step that spreads the sums over the codes.
    fn step(&mut self, terms: [Option<Vec<(i64, i64)>>; 3]) -> IntegerStep {
        let channels = terms[0].as_ref().map_or(0, Vec::len);
        let hi = [1, 15, 200, 255, 255][self.below(5)];
        let lo = if self.one_in(6) { 1 } else { 0 };
        let bits = 1 + self.below(14);
        let mul: Vec<Vec<i32>> = terms
            .iter()
            .map(|term| term.iter().flatten().map(|_| self.between(-(1 << bits), 1 << bits) as i32).collect())
            .collect();
        let reach = |term: &Option<Vec<(i64, i64)>>| -> i64 {
            term.iter().flatten().map(|r| r.0.abs().max(r.1.abs())).max().unwrap_or(0)
        };
        let total: i64 = terms.iter().map(reach).sum();
        // The sums reach about eight times the codes, so that some clamp and some do not.
        let spread = (total.max(1) << bits) / (8 * hi);
        let shift = 63 - spread.max(1).leading_zeros();
        let add = (0..channels).map(|_| self.between(0, (total << bits) / 16)).collect();
        let [mul, mul2, res_mul] = <[Vec<i32>; 3]>::try_from(mul).unwrap();
        let mut bounds: Vec<(i32, i32)> = Vec::new();
        if self.one_in(3) && channels > 1 && i64::from(lo) < hi {
            let ends = |draw: &mut Self| [draw.between(lo.into(), hi), draw.between(lo.into(), hi)].map(|v| v as i32);
            bounds = (0..channels).map(|_| ends(self)).map(|[a, b]| (a.min(b), a.max(b))).collect();
            // Channels reach the ends of the layer's range, and differ.
            (bounds[0], bounds[channels - 1]) = ((lo, lo), (lo, hi as i32));
        }
        IntegerStep { shift, mul, mul2, res_mul, add, lo, hi: hi as i32, bounds }
    }

    fn product_layer(&mut self, model: &IntegerModel, index: usize) -> (IntegerOp, Shape) {
        let input = index;
        let mut main = self.product(model, format!("main{index}"), input, None);
        let shape_of = |p: &IntegerProduct, from: Shape| {
            let side = |s: usize, k: usize| (s + 2 * p.padding - k) / p.stride + 1;
            Shape::new(side(from.h, p.kernel[0]), side(from.w, p.kernel[1]), p.out_channels)
        };
        // A shortcut needs an earlier tensor of codes; main takes its shape.
        let earlier: Vec<TensorId> = (1..=index).filter(|&t| model.kind(t) == TensorKind::Codes).collect();
        let (mut residual, mut second) = (None, None);
        if !earlier.is_empty() && !model.is_sum(input) && self.one_in(2) {
            let from = earlier[self.below(earlier.len())];
            let (source, target) = (model.shape(from), model.shape(input));
            let stride = 1 + self.below(2);
            let (pad_before, pad_after) = if self.one_in(2) { (self.below(9), self.below(9)) } else { (0, 0) };
            let shape =
                Shape::new(source.h.div_ceil(stride), source.w.div_ceil(stride), pad_before + source.c + pad_after);
            // Same size as the input: a 1x1 window; otherwise a window of what is too much.
            if shape.h <= target.h && shape.w <= target.w {
                main = self.product(model, format!("main{index}"), input, Some(Shape::new(1, 1, shape.c)));
                set_window(&mut main, [target.h - shape.h + 1, target.w - shape.w + 1], 1);
                if self.one_in(2) {
                    residual = Some(IntegerResidual { input: from, stride, pad_before, pad_after });
                } else {
                    let mut projection =
                        self.product(model, format!("second{index}"), from, Some(Shape::new(1, 1, shape.c)));
                    set_window(&mut projection, [1, 1], stride);
                    second = Some(projection);
                }
            }
        }
        let shape = shape_of(&main, model.shape(input));
        let ranges = |p: &IntegerProduct| model.acc_ranges(p).unwrap();
        if self.one_in(3) {
            let op = self.stream(model, main.clone(), second.clone(), residual);
            if model.output_of(&op).is_ok() {
                return (op, shape);
            }
        }
        let res = residual.map(|r: IntegerResidual| vec![model.code_range(r.input); shape.c]);
        let step = self.step([Some(ranges(&main)), second.as_ref().map(ranges), res]);
        (IntegerOp::Product { main, second, residual, step }, shape)
    }
}

impl Draw {
    /// A stream whose values keep to some 20 bits, or to few.
    fn stream(
        &mut self,
        model: &IntegerModel,
        main: IntegerProduct,
        second: Option<IntegerProduct>,
        residual: Option<IntegerResidual>,
    ) -> IntegerOp {
        let ranges = |p: &IntegerProduct| model.acc_ranges(p).unwrap();
        let mut step = self.step([Some(ranges(&main)), second.as_ref().map(ranges), None]);
        (step.lo, step.hi, step.bounds) = (i32::MIN, i32::MAX, Vec::new());
        step.shift = step.shift.saturating_sub([0, 8, 12][self.below(3)]);
        step.add.iter_mut().for_each(|add| *add -= self.between(0, 1 << 20));
        let res_mul = residual.map_or(0, |_| [1, -3, 1 << 12][self.below(3)]);
        IntegerOp::Stream { main, second, residual, step, res_mul }
    }

    /// What may follow a stream: an activation, or another stream that is added to it or put beside it.
    fn after_stream(&mut self, model: &IntegerModel) -> IntegerOp {
        let last = model.layers.len();
        let size = model.shape(last);
        let beside: Vec<TensorId> = (1..last)
            .filter(|&t| model.kind(t) == TensorKind::Codes && model.shape(t).h == size.h && model.shape(t).w == size.w)
            .collect();
        match self.below(3) {
            0 if size.c < 200 => IntegerOp::Concat { inputs: vec![last; 2 + self.below(2)] },
            1 if !beside.is_empty() => {
                let input = beside[self.below(beside.len())];
                let shape = Shape { c: size.c, ..model.shape(input) };
                let mut main = self.product(model, format!("main{last}"), input, Some(Shape::new(1, 1, shape.c)));
                set_window(&mut main, [1, 1], 1);
                let residual = IntegerResidual { input: last, stride: 1, pad_before: 0, pad_after: 0 };
                let op = self.stream(model, main, None, Some(residual));
                // Values that could leave 32 bits are none of a stream.
                if model.output_of(&op).is_ok() { op } else { self.act(model, last) }
            }
            _ => self.act(model, last),
        }
    }

    fn act(&mut self, model: &IntegerModel, input: TensorId) -> IntegerOp {
        let channels = model.shape(input).c;
        IntegerOp::Act { input, step: self.step([Some(vec![model.code_range(input); channels]), None, None]) }
    }
}

/// Gives a product of one group another window without padding, its codes repeated as often as it takes.
fn set_window(product: &mut IntegerProduct, kernel: [usize; 2], stride: usize) {
    (product.kernel, product.stride, product.padding, product.padding_code) = (kernel, stride, 0, 0);
    let n = product.in_channels * kernel[0] * kernel[1] * product.out_channels;
    product.codes = product.codes.iter().cycle().take(n).copied().collect();
}

/// Pushes a layer whose shape and range follow from its op.
fn push(model: &mut IntegerModel, op: IntegerOp) {
    let (shape, (lo, hi)) = model.output_of(&op).unwrap();
    let name = format!("layer{}", model.layers.len());
    model.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale: 0.5 });
}

fn random_network(seed: u64) -> IntegerModel {
    let mut draw = Draw { key: Key::new(seed), counter: 0 };
    let input_shape = Shape::new(1 + draw.below(11), 1 + draw.below(11), 1 + draw.below(6));
    let zero_point = (0..input_shape.c).map(|_| draw.below(256) as u8).collect();
    let input = InputDescription { zero_point, scale: vec![0.5; input_shape.c] };
    let mut model =
        IntegerModel { arch: format!("random {seed}"), input, input_shape, class_names: vec![], layers: vec![] };
    for i in 0..1 + draw.below(7) {
        let from = model.shape(i);
        let (pools, kind) = (model.kind(i) == TensorKind::Codes, model.kind(i));
        let op = match draw.below(10) {
            _ if kind == TensorKind::Stream => draw.after_stream(&model),
            at @ (0 | 2) if pools && from.h.min(from.w) >= 2 => {
                let (kernel, stride) = (2 + draw.below(2), [1, 2, from.h.max(from.w) + 1][draw.below(3)]);
                let padding = draw.below(kernel);
                let kernel = kernel.min(from.h + 2 * padding).min(from.w + 2 * padding);
                // One code for every reader of a tensor: a function of the tensor.
                let largest = if padding > 0 { model.code_range(i).1 as u32 } else { 0 };
                match at {
                    0 => IntegerOp::MaxPool { input: i, kernel, stride, padding },
                    _ => {
                        let padding_code = [0, largest / 2, largest][i % 3];
                        IntegerOp::WindowSum { input: i, kernel, stride, padding, padding_code }
                    }
                }
            }
            1 if pools => IntegerOp::SumPool { input: i },
            3 if pools => {
                let same =
                    |t: &TensorId| model.kind(*t) == kind && (model.shape(*t).h, model.shape(*t).w) == (from.h, from.w);
                IntegerOp::Concat { inputs: (1..=i).filter(same).chain([i]).collect() }
            }
            4..=7 if kind == TensorKind::Sums => draw.act(&model, i),
            _ => draw.product_layer(&model, i).0,
        };
        push(&mut model, op);
    }
    if model.kind(model.layers.len()) == TensorKind::Stream {
        let op = draw.act(&model, model.layers.len());
        push(&mut model, op);
    }
    let classes =
        [1, 1 + draw.below(12), 1 + draw.below(12), if draw.one_in(40) { 10_000 } else { 1000 }][draw.below(4)];
    let main = draw.product(&model, "fc".to_owned(), model.layers.len(), Some(Shape::new(1, 1, classes)));
    let mul = (0..classes).map(|_| draw.between(-1000, 1000) as i32).collect();
    let add = (0..classes).map(|_| draw.between(-(1 << 40), 1 << 40)).collect();
    let op = IntegerOp::Logits { main, mul, add };
    let shape = Shape::new(1, 1, classes);
    model.layers.push(IntegerLayer { name: "fc".to_owned(), op, shape, lo: 0, hi: 0, scale: 0.5 });
    model.class_names = (0..classes).map(|c| c.to_string()).collect();
    model
}

fn check(seed: u64, images: usize) -> Result<(), TestCaseError> {
    check_model(&random_network(seed), seed, images)
}

fn check_model(model: &IntegerModel, seed: u64, images: usize) -> Result<(), TestCaseError> {
    let bytes = model.to_bytes().unwrap();
    prop_assert!(&IntegerModel::from_bytes(&bytes, "random").unwrap() == model);
    let image = model.input_shape.elements();
    let pixels: Vec<u8> = (0..images * image).map(|i| Key::new(seed).with("p").u64(i as u64) as u8).collect();
    let expected: Vec<_> = pixels.chunks(image).map(|p| Interpreter::new(model).run(p)).collect();
    for isa in Isa::available() {
        for threads in [1, 2] {
            let mut executor = Executor::new(model, ExecOptions { isa, threads }).unwrap();
            let mut logits = vec![0; images * model.classes()];
            // The second run finds the memory as the first one left it.
            for _ in 0..2 {
                executor.run(&pixels, &mut logits);
                let expected: Vec<i64> = expected.iter().flat_map(|t| t.logits().to_vec()).collect();
                prop_assert_eq!(&logits, &expected, "{}, {} threads", isa, threads);
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
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

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
    let mut model = IntegerModel { arch: "chain".to_owned(), input, input_shape, class_names, layers: vec![] };
    let last = products.len() - 1;
    for (i, main) in products.into_iter().enumerate() {
        let n = main.out_channels;
        let op = if i == last {
            IntegerOp::Logits { main, mul: vec![1; n], add: vec![0; n] }
        } else {
            let reach = model.acc_ranges(&main).unwrap().iter().map(|r| r.1 - r.0).max().unwrap_or(1);
            let shift = (4 * reach / i64::from(hi)).ilog2();
            let add = vec![i64::from(hi) << (shift - 1); n];
            let step =
                IntegerStep { shift, mul: vec![1; n], mul2: vec![], res_mul: vec![], add, lo: 0, hi, bounds: vec![] };
            IntegerOp::Product { main, second: None, residual: None, step }
        };
        push(&mut model, op);
    }
    model
}

fn product(name: &str, input: TensorId, from: Shape, out_channels: usize, kernel: usize) -> IntegerProduct {
    let n = out_channels * from.c * kernel * kernel;
    IntegerProduct {
        name: name.to_owned(),
        input,
        kernel: [kernel; 2],
        stride: 1,
        padding: 0,
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
        (logits.padding, logits.stride) = (padding, stride);
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
    let wide_sums = |m: &IntegerModel, p: &IntegerProduct| {
        m.acc_ranges(p).unwrap().iter().any(|r| r.0 < i32::MIN.into() || r.1 > i32::MAX.into())
    };
    let stream = |m: &IntegerModel, op: &IntegerOp, kind| match op {
        IntegerOp::Stream { residual, .. } => residual.map(|r| m.kind(r.input)) == kind,
        _ => false,
    };
    let window = |m: &IntegerModel, op: &IntegerOp, small: bool| match op {
        IntegerOp::WindowSum { .. } => m.output_of(op).is_ok_and(|(_, (_, hi))| (hi <= 255) == small),
        _ => false,
    };
    let padded_logits =
        |_: &IntegerModel, op: &IntegerOp| matches!(op, IntegerOp::Logits { main, .. } if main.padding > 0);
    let cases: [(&str, usize); 20] = [
        ("logits of a padded window", count(&padded_logits)),
        ("a 1x1 window with padding", count(&|_, op| op.products().any(|p| p.kernel == [1, 1] && p.padding > 0))),
        ("a stream without a shortcut", count(&|m, op| stream(m, op, None))),
        ("a shortcut of a stream", count(&|m, op| stream(m, op, Some(TensorKind::Stream)))),
        ("a shortcut of codes into a stream", count(&|m, op| stream(m, op, Some(TensorKind::Codes)))),
        ("a projection into a stream", count(&|_, op| matches!(op, IntegerOp::Stream { second: Some(_), .. }))),
        ("an activation of a stream", count(&|m, op| matches!(op, IntegerOp::Act { input, .. } if !m.is_sum(*input)))),
        ("an activation of sums", count(&|m, op| matches!(op, IntegerOp::Act { input, .. } if m.is_sum(*input)))),
        ("window sums that are codes", count(&|m, op| window(m, op, true))),
        ("wider window sums", count(&|m, op| window(m, op, false))),
        ("concatenation", count(&|_, op| matches!(op, IntegerOp::Concat { .. }))),
        ("groups", count(&|_, op| op.products().any(|p| p.groups > 1))),
        ("padding other than 0", count(&|_, op| op.products().any(|p| p.padding_code > 0))),
        ("second product", count(&|_, op| matches!(op, IntegerOp::Product { second: Some(_), .. }))),
        ("shortcut", count(&|_, op| matches!(op, IntegerOp::Product { residual: Some(_), .. }))),
        ("max pool", count(&|_, op| matches!(op, IntegerOp::MaxPool { .. }))),
        ("codes from a sum", count(&|m, op| matches!(op, IntegerOp::Product { main, .. } if m.is_sum(main.input)))),
        ("logits from a sum", count(&|m, op| matches!(op, IntegerOp::Logits { main, .. } if m.is_sum(main.input)))),
        ("sums of more than 32 bits", count(&|m, op| op.products().any(|p| wide_sums(m, p)))),
        (
            "8 bits without zero",
            count(&|_, op| op.products().any(|p| p.weight_bits == 8 && p.grid == Grid::WithoutZero)),
        ),
    ];
    for (what, models) in cases {
        assert!(models >= 10, "{what}: only {models} of {NETWORKS} networks");
    }
    let (mut layers, mut lively) = (0, 0);
    for (seed, model) in models.iter().enumerate() {
        let pixels: Vec<u8> =
            (0..model.input_shape.elements()).map(|i| Key::new(seed as u64).u64(i as u64) as u8).collect();
        for codes in &Interpreter::new(model).run(&pixels).tensors {
            layers += 1;
            lively += usize::from(codes.iter().any(|c| *c != codes[0]));
        }
    }
    assert!(lively * 4 > layers * 3, "only {lively} of {layers} layers give more than one code");
}
