//! Small networks around each layer of a network, at sizes and with padding that its images never have: what the
//! kernels that its plan chose do with leftover pixels, narrow strips and borders that hold other codes than 0.

use std::collections::BTreeSet;

use bitpact_core::rng::Key;
use bitpact_core::{Grid, Requantization};
use bitpact_graph::{Shape, Window, moved_shape};
use bitpact_model::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView, TensorId,
    TensorKind,
};

/// Rows and columns of outputs: one pixel, less than any block of pixels, and sides that no block divides.
const SIZES: [(usize, usize); 4] = [(1, 1), (3, 5), (5, 7), (7, 17)];
/// Multiply-adds of the layer in a probe at most, so that probes of large layers are small.
const MACS: usize = 1 << 26;
/// Largest side of an input that is looked for.
const LARGEST_SIDE: usize = 96;

/// A network around one layer.
pub(super) struct Probe {
    /// The layer's name.
    pub(super) layer: String,
    /// The network.
    pub(super) model: IntegerModel,
}

/// Probes of every layer with a window of its own kind: the layer between layers that feed it codes of its own ranges
/// and one that reads it. Layers that read sums of codes, and those of one pixel, are left out: their images are all
/// they see.
pub(super) fn probes(model: &IntegerModel) -> Vec<Probe> {
    let mut seen = BTreeSet::new();
    let mut probes = Vec::new();
    for (i, layer) in model.layers.iter().enumerate() {
        let Some(sum) = layer.op.sum().filter(|sum| sum.end != IntegerEnd::Output) else { continue };
        if layer.op.products().next().is_none() || !seen.insert(kind(model, sum)) {
            continue;
        }
        for (h, w) in SIZES {
            let weights: usize = layer.op.products().map(|product| product.codes.len()).sum();
            if weights * h * w > MACS && (h, w) != (1, 1) {
                continue;
            }
            for middle in [false, true] {
                let probe = Builder::new(model).build(sum, i as u64, Shape::new(h, w, layer.shape.c), middle);
                probes.extend(probe.map(|model| Probe { layer: layer.name.clone(), model }));
            }
        }
    }
    probes
}

/// Key of a layer for the choice of kernels: layers with one key take the same kernels.
fn kind(model: &IntegerModel, sum: &IntegerSum) -> String {
    let term = |term: &IntegerTerm| match term {
        IntegerTerm::Product(p) => {
            let range = model.code_range(p.input);
            let sizes = (p.in_channels, p.out_channels, p.groups, p.weight_bits, p.grid.name(), p.input == 0);
            format!("{:?} {sizes:?} {range:?}", p.window)
        }
        IntegerTerm::View(view) => format!("{:?} {:?}", view.moves, model.kind(view.input)),
        IntegerTerm::Multiplication { .. } => "multiplication".to_owned(),
    };
    let terms: Vec<String> = sum.terms.iter().map(term).collect();
    let base: Vec<_> = sum.base.iter().map(|(view, _)| (&view.moves, model.kind(view.input))).collect();
    format!("{terms:?} {base:?} {:?} {}", sum.end, sum.requant.shift)
}

struct Builder<'a> {
    from: &'a IntegerModel,
    probe: IntegerModel,
}

impl<'a> Builder<'a> {
    fn new(from: &'a IntegerModel) -> Self {
        let probe = IntegerModel {
            arch: "probe".to_owned(),
            input: from.input.clone(),
            input_shape: from.input_shape,
            class_names: vec![String::new()],
            layers: Vec::new(),
            outputs: Vec::new(),
        };
        Self { from, probe }
    }

    /// The network around `sum` with an output of `shape`; `middle` pads with the middle of the range. `None` where no
    /// input gives that shape, or the layer reads what cannot be fed.
    fn build(mut self, sum: &IntegerSum, seed: u64, shape: Shape, middle: bool) -> Option<IntegerModel> {
        let reads_image = sum.terms.iter().any(|term| term.inputs().contains(&0));
        let pads = sum.terms.iter().filter_map(IntegerTerm::product).any(|p| p.reads_padding() && p.input > 0);
        if middle && !pads {
            return None;
        }
        let mut sum = sum.clone();
        // Each input with the shape that it must have.
        let mut inputs: Vec<(TensorId, Shape)> = Vec::new();
        let mut need = |input: TensorId, shape: Shape| {
            let known = inputs.iter().position(|need| *need == (input, shape));
            known.unwrap_or_else(|| {
                inputs.push((input, shape));
                inputs.len() - 1
            })
        };
        let from = self.from;
        let of_view = |view: &IntegerView| {
            let side = |w: usize, h: usize| Shape::new(h, w, from.shape(view.input).c);
            let fits = |shape_of: &Shape| moved_shape(*shape_of, &view.moves) == Ok(shape);
            (1..LARGEST_SIDE).flat_map(|h| (1..LARGEST_SIDE).map(move |w| side(w, h))).find(fits)
        };
        let mut read = Vec::new();
        for term in &sum.terms {
            match term {
                IntegerTerm::Product(p) => {
                    let side = |i: usize, wanted: usize| {
                        // The largest side that gives the positions leaves the most beside the window.
                        (1..LARGEST_SIDE).rev().find(|&n| positions(&p.window, i, n) == Some(wanted))
                    };
                    let (h, w) = (side(0, shape.h)?, side(1, shape.w)?);
                    read.push(need(p.input, Shape::new(h, w, p.in_channels)));
                }
                IntegerTerm::View(view) => read.push(need(view.input, of_view(view)?)),
                IntegerTerm::Multiplication { .. } => return None,
            }
        }
        for (view, _) in &sum.base {
            read.push(need(view.input, of_view(view)?));
        }
        let kinds = inputs.iter().map(|(input, _)| from.kind(*input)).collect::<Vec<_>>();
        if kinds.contains(&TensorKind::Sums) || (reads_image && inputs.len() > 1) {
            return None;
        }
        let tensors: Vec<TensorId> = if reads_image {
            self.probe.input_shape = inputs[0].1;
            vec![0]
        } else {
            let most = |side: fn(&Shape) -> usize| inputs.iter().map(|(_, shape)| side(shape)).max().unwrap_or(1);
            self.probe.input_shape = Shape::new(most(|s| s.h), most(|s| s.w), from.input_shape.c);
            let key = Key::new(seed).with("probe");
            inputs.iter().enumerate().map(|(n, (input, shape))| self.feed(*input, *shape, key.at(n as u64))).collect()
        };
        let mut read = read.into_iter().map(|n| tensors[n]);
        for term in &mut sum.terms {
            match term {
                IntegerTerm::Product(p) => {
                    p.input = read.next()?;
                    if middle && p.reads_padding() && p.input > 0 {
                        p.padding_code = self.probe.code_range(p.input).1 as u32 / 2;
                    }
                }
                IntegerTerm::View(view) => view.input = read.next()?,
                IntegerTerm::Multiplication { .. } => {}
            }
        }
        for (view, _) in &mut sum.base {
            view.input = read.next()?;
        }
        let (is_wide, is_output) = (sum.end == IntegerEnd::Wide, sum.end == IntegerEnd::Output);
        self.push("probed", IntegerOp::Sum(sum))?;
        if is_output {
            self.probe.class_names = vec![String::new(); shape.c];
            return self.finished();
        }
        if is_wide {
            let view = IntegerTerm::View(IntegerView::of(self.probe.layers.len()));
            self.codes("codes", view, (0, 255), shape.c)?;
        }
        let last = self.probe.layers.len();
        let product = self.random(last, Window::whole(self.probe.shape(last)), 1, Key::new(seed));
        let requant = Requantization {
            shift: 0,
            mul: vec![vec![1]],
            add: vec![0],
            lo: i32::MIN,
            hi: i32::MAX,
            bounds: Vec::new(),
        };
        let terms = vec![IntegerTerm::Product(product)];
        self.push("output", IntegerOp::Sum(IntegerSum { terms, requant, base: Vec::new(), end: IntegerEnd::Output }))?;
        self.finished()
    }

    /// The probe, whose last layer is its output.
    fn finished(mut self) -> Option<IntegerModel> {
        self.probe.set_last_output();
        self.probe.check().is_ok().then_some(self.probe)
    }

    /// A tensor with the kind and range of `input` and this shape, made of the image.
    fn feed(&mut self, input: TensorId, shape: Shape, key: Key) -> TensorId {
        let image = self.probe.input_shape;
        let window = Window { kernel: [image.h - shape.h + 1, image.w - shape.w + 1], ..Window::square(1, 1, 0) };
        let product = IntegerTerm::Product(self.random(0, window, shape.c, key));
        let name = format!("feed{}", self.probe.layers.len());
        let (lo, hi) = self.from.code_range(input);
        let pushed = match self.from.kind(input) {
            TensorKind::Wide => self.wide(&name, product, shape.c),
            _ => self.codes(&name, product, (lo as i32, hi as i32), shape.c),
        };
        pushed.map_or(0, |()| self.probe.layers.len())
    }

    fn random(&self, input: TensorId, window: Window, out_channels: usize, key: Key) -> IntegerProduct {
        let in_channels = self.probe.shape(input).c;
        let n = out_channels * in_channels * window.kernel[0] * window.kernel[1];
        IntegerProduct {
            name: "random".to_owned(),
            input,
            window,
            padding_code: 0,
            out_channels,
            in_channels,
            groups: 1,
            weight_bits: 8,
            grid: Grid::WithZero,
            codes: (0..n).map(|i| key.below(i as u64, 255) as i16 - 127).collect(),
        }
    }

    /// One term spread over codes, so that some clamp and some do not.
    fn codes(&mut self, name: &str, term: IntegerTerm, (lo, hi): (i32, i32), channels: usize) -> Option<()> {
        let mut sum = IntegerSum {
            terms: vec![term],
            requant: Requantization { shift: 0, mul: vec![], add: vec![], lo, hi, bounds: Vec::new() },
            base: Vec::new(),
            end: IntegerEnd::Codes,
        };
        let ranges = self.probe.term_ranges(&sum, channels).ok()?;
        let reach = ranges[0].iter().map(|r| r.1 - r.0).max().unwrap_or(1).max(1);
        let shift = (reach / (4 * i64::from(hi - lo).max(1))).max(1).ilog2();
        let middle = i64::from(hi + lo) << shift >> 1;
        sum.requant = Requantization {
            shift,
            mul: vec![vec![1; channels]],
            add: ranges[0].iter().map(|range| middle - (range.0 + range.1) / 2).collect(),
            lo,
            hi,
            bounds: Vec::new(),
        };
        self.push(name, IntegerOp::Sum(sum))
    }

    fn wide(&mut self, name: &str, term: IntegerTerm, channels: usize) -> Option<()> {
        let (mul, add) = (vec![vec![1; channels]], vec![0; channels]);
        let requant = Requantization { shift: 0, mul, add, lo: i32::MIN, hi: i32::MAX, bounds: Vec::new() };
        let sum = IntegerSum { terms: vec![term], requant, base: Vec::new(), end: IntegerEnd::Wide };
        self.push(name, IntegerOp::Sum(sum))
    }

    /// `None` for a layer that its inputs do not allow.
    fn push(&mut self, name: &str, op: IntegerOp) -> Option<()> {
        let (shape, (lo, hi)) = self.probe.output_of(&op).ok()?;
        let (lo, hi) = (lo as i32, hi as i32);
        self.probe.layers.push(IntegerLayer { name: name.to_owned(), op, shape, lo, hi, scale: 1.0 });
        Some(())
    }
}

/// Positions of a window along direction `i` of `n` elements.
fn positions(window: &Window, i: usize, n: usize) -> Option<usize> {
    let left = window.padded(Shape::new(n, n, 1))[i].checked_sub(window.extent()[i])?;
    Some(left / window.stride[i] + 1)
}
