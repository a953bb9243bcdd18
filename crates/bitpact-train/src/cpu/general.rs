//! Steps that no kernel is for: tensors whose elements move, windows of any kind, functions and products of tensors,
//! forward and backward, in plain loops over the elements of an image, images in parallel.

use bitpact_core::Function;
use bitpact_graph::{Move, Shape, Window, moved_source};
use bitpact_kernels::{Chunked, Layout};

use super::plan::{StepPlan, Store, Value, ValueId};
use super::product::Source;
use super::profile::Pool;
use super::slabs::Target;
use crate::params::{ParamId, Params};

/// Such a step.
pub(super) struct General {
    pub(super) of: Of,
    pub(super) inputs: Vec<ValueId>,
    pub(super) output: ValueId,
    /// Destinations of the gradients of the inputs; empty where the input is the image.
    pub(super) targets: Vec<Target>,
}

/// Operation of the pass.
pub(super) enum Of {
    Gather(Gather),
    Function(FunctionStep),
    /// The product of two tensors, the second perhaps one pixel.
    Multiply,
    MaxPool(Taps),
    /// The mean of what each output position sees, over its divisor.
    AvgPool(Taps, Vec<f32>),
}

/// For every element of the output the element of the input that it is.
pub(super) struct Gather {
    /// Positions in an image of the input, `[row][column][channel]` of the output without padding channels.
    map: Vec<u32>,
    /// Offsets in the gradient of the input, for the same elements.
    dense: Vec<u32>,
    /// The code of inserted elements, for each channel of the output; codes only.
    fill: Vec<u8>,
}

/// A position that was inserted.
const INSERTED: u32 = u32::MAX;

/// A function, and its values for every code where it reads codes.
pub(super) struct FunctionStep {
    pub(super) function: Function,
    pub(super) slopes: Option<ParamId>,
    /// `[slope][code]`: value and derivative.
    table: Vec<[f32; 2]>,
    /// Gradients of the slopes, `[image][channel]`.
    sums: Vec<f64>,
}

/// The pixels of the input that each pixel of the output sees, in row order.
pub(super) struct Taps {
    /// Offsets in an image of the input and in its gradient; output pixel p has `pixels[ends[p - 1]..ends[p]]`.
    pixels: Vec<[u32; 2]>,
    ends: Vec<u32>,
}

impl Gather {
    fn new(
        from: Layout,
        to: Shape,
        fill: Vec<u8>,
        source: impl Fn(usize, usize, usize) -> Option<(usize, usize, usize)>,
    ) -> Self {
        let dense_layout = Layout { border: 0, ..from };
        let (mut map, mut dense) = (Vec::with_capacity(to.elements()), Vec::with_capacity(to.elements()));
        for y in 0..to.h {
            for x in 0..to.w {
                for c in 0..to.c {
                    let place = source(y, x, c);
                    map.push(place.map_or(INSERTED, |(y, x, c)| (from.offset(y, x) + c) as u32));
                    dense.push(place.map_or(INSERTED, |(y, x, c)| (dense_layout.offset(y, x) + c) as u32));
                }
            }
        }
        Self { map, dense, fill }
    }

    /// A tensor with its elements moved.
    pub(super) fn moved(value: &Value, moves: &[Move], to: Shape) -> Self {
        let from = Shape::new(value.layout.h, value.layout.w, value.layout.c);
        let fill = vec![value.source.zero_code(); to.c];
        Self::new(value.layout, to, fill, |y, x, c| moved_source(from, moves, (y, x, c)))
    }

    /// The columns of a window ([`Window::column_source`]). `zeros` are the codes of padding, for each input channel.
    pub(super) fn columns(value: &Value, window: &Window, zeros: &[u8], to: Shape) -> Self {
        let from = Shape::new(value.layout.h, value.layout.w, value.layout.c);
        let taps: usize = window.kernel.iter().product();
        let fill = (0..to.c).map(|c| zeros[c / taps]).collect();
        Self::new(value.layout, to, fill, |y, x, c| window.column_source(from, (y, x, c)))
    }

    fn run<T: Copy>(&self, x: &[T], to: &mut [T], layout: Layout, fill: impl Fn(usize) -> T) {
        let pixels = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
        for (at, map) in pixels.zip(self.map.chunks_exact(layout.c)) {
            for (c, (to, &from)) in to[at..at + layout.c].iter_mut().zip(map).enumerate() {
                *to = if from == INSERTED { fill(c) } else { x[from as usize] };
            }
        }
    }

    fn backward(&self, g: &[f32], layout: Layout, to: &mut [f32]) {
        for (g, map) in g.chunks_exact(layout.cs).zip(self.dense.chunks_exact(layout.c)) {
            for (&g, &from) in g.iter().zip(map) {
                if from != INSERTED {
                    to[from as usize] += g;
                }
            }
        }
    }
}

impl FunctionStep {
    pub(super) fn new(function: Function, slopes: Option<ParamId>, batch: usize, channels: usize) -> Self {
        let sums = vec![0.0; if slopes.is_some() { batch * channels } else { 0 }];
        Self { function, slopes, table: Vec::new(), sums }
    }

    /// Slopes of the channels; one that is not read where they are not learned.
    fn slopes<'a>(&self, params: &'a Params) -> &'a [f32] {
        self.slopes.map_or(&[0.0], |id| params.value(id))
    }

    /// Fills the table for a tensor of codes.
    fn prepare(&mut self, source: Source, params: &Params) {
        self.table.clear();
        let Source::Codes { .. } = source else { return };
        let (step, zero) = (source.step(params), f32::from(source.zero_code()));
        for &slope in self.slopes(params) {
            let reals = (0..=u8::MAX).map(|code| step * (f32::from(code) - zero));
            self.table.extend(reals.map(|x| [self.function.value(x, slope), self.function.derivative(x, slope)]));
        }
    }

    /// Value and derivative at a code.
    fn of_code(&self, code: u8, c: usize) -> [f32; 2] {
        let channel = if self.table.len() > 256 { c } else { 0 };
        self.table[channel * 256 + usize::from(code)]
    }

    /// Value and derivative at a real number.
    fn of_real(&self, x: f32, slopes: &[f32], c: usize) -> [f32; 2] {
        let slope = slopes[c % slopes.len()];
        [self.function.value(x, slope), self.function.derivative(x, slope)]
    }
}

impl Taps {
    pub(super) fn new(from: Layout, window: &Window) -> Self {
        let shape = Shape::new(from.h, from.w, from.c);
        let dense = Layout { border: 0, ..from };
        let [h, w] = window.positions(shape).expect("a checked pool fits");
        let (mut pixels, mut ends) = (Vec::new(), Vec::with_capacity(h * w));
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            let taps = (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx)));
            let sources = taps.filter_map(|tap| window.source(shape, (y, x), tap));
            pixels.extend(sources.map(|(y, x)| [from.offset(y, x) as u32, dense.offset(y, x) as u32]));
            ends.push(pixels.len() as u32);
        }
        Self { pixels, ends }
    }

    /// Pixels that each output pixel sees.
    fn all(&self) -> impl Iterator<Item = &[[u32; 2]]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.pixels[start as usize..end as usize])
    }

    /// The first of the largest elements of channel `c` among `taps`.
    fn largest<T: PartialOrd + Copy>(x: &[T], taps: &[[u32; 2]], c: usize) -> [u32; 2] {
        let at = |tap: &[u32; 2]| x[tap[0] as usize + c];
        taps.iter()
            .copied()
            .reduce(|best, tap| if at(&tap) > at(&best) { tap } else { best })
            .expect("a pool sees a pixel")
    }

    fn max<T: PartialOrd + Copy>(&self, x: &[T], to: &mut [T], layout: Layout) {
        for (at, taps) in pixels(layout).zip(self.all()) {
            for (c, to) in to[at..at + layout.c].iter_mut().enumerate() {
                *to = x[Self::largest(x, taps, c)[0] as usize + c];
            }
        }
    }

    fn max_backward<T: PartialOrd + Copy>(&self, x: &[T], g: &[f32], layout: Layout, to: &mut [f32]) {
        for (g, taps) in g.chunks_exact(layout.cs).zip(self.all()) {
            for (c, &g) in g[..layout.c].iter().enumerate() {
                to[Self::largest(x, taps, c)[1] as usize + c] += g;
            }
        }
    }
}

/// Offsets of the pixels of an image.
fn pixels(layout: Layout) -> impl Iterator<Item = usize> {
    (0..layout.h).flat_map(move |y| (0..layout.w).map(move |x| layout.offset(y, x)))
}

/// The image `i` of a tensor.
enum Image<'a> {
    Codes { codes: &'a [u8], step: f32, zero: u8 },
    Real(&'a [f32]),
}

impl<'a> Image<'a> {
    fn of(value: &'a Value, params: &Params, i: usize) -> Self {
        let len = value.layout.len();
        match &value.store {
            Store::Codes(_) => Image::Codes {
                codes: value.store.codes(i, len),
                step: value.source.step(params),
                zero: value.source.zero_code(),
            },
            _ => Image::Real(value.store.real(i, len)),
        }
    }

    fn real(&self, at: usize) -> f32 {
        match self {
            Image::Codes { codes, step, zero } => step * (f32::from(codes[at]) - f32::from(*zero)),
            Image::Real(values) => values[at],
        }
    }
}

/// Offset of the pixel of a second factor that goes with pixel `(y, x)` of the first.
fn second(layout: Layout, y: usize, x: usize) -> usize {
    if (layout.h, layout.w) == (1, 1) { layout.offset(0, 0) } else { layout.offset(y, x) }
}

impl StepPlan {
    pub(super) fn general(&mut self, pool: &Pool, n: usize, step: &mut General) {
        let mut store = std::mem::take(&mut self.values[step.output].store);
        let (values, params, y) = (&self.values, &self.params, self.values[step.output].layout);
        let first = &values[step.inputs[0]];
        let (x_layout, len) = (first.layout, first.layout.len());
        if let Of::Function(function) = &mut step.of {
            function.prepare(first.source, params);
        }
        match (&step.of, &mut store) {
            (Of::Gather(gather), Store::Codes(to)) => {
                images(pool, n, to, y.len(), |i, to| gather.run(first.store.codes(i, len), to, y, |c| gather.fill[c]));
            }
            (Of::Gather(gather), Store::Real(to)) => {
                images(pool, n, to, y.len(), |i, to| gather.run(first.store.real(i, len), to, y, |_| 0.0));
            }
            (Of::MaxPool(taps), Store::Codes(to)) => {
                images(pool, n, to, y.len(), |i, to| taps.max(first.store.codes(i, len), to, y));
            }
            (Of::MaxPool(taps), Store::Real(to)) => {
                images(pool, n, to, y.len(), |i, to| taps.max(first.store.real(i, len), to, y));
            }
            (Of::AvgPool(taps, divisors), Store::Real(to)) => images(pool, n, to, y.len(), |i, to| {
                let image = Image::of(first, params, i);
                for ((at, taps), divisor) in pixels(y).zip(taps.all()).zip(divisors.iter().cycle()) {
                    for (c, to) in to[at..at + y.c].iter_mut().enumerate() {
                        let at = taps.iter().map(|tap| tap[0] as usize + c);
                        *to = match image {
                            Image::Codes { codes, step, zero } => {
                                let sum: i32 = at.map(|at| i32::from(codes[at]) - i32::from(zero)).sum();
                                (step / divisor) * sum as f32
                            }
                            Image::Real(x) => (at.map(|at| f64::from(x[at])).sum::<f64>() / f64::from(*divisor)) as f32,
                        };
                    }
                }
            }),
            (Of::Function(function), Store::Real(to)) => {
                let slopes = function.slopes(params);
                images(pool, n, to, y.len(), |i, to| {
                    let image = Image::of(first, params, i);
                    for (from, at) in pixels(x_layout).zip(pixels(y)) {
                        for (c, to) in to[at..at + y.c].iter_mut().enumerate() {
                            *to = match image {
                                Image::Codes { codes, .. } => function.of_code(codes[from + c], c)[0],
                                Image::Real(x) => function.of_real(x[from + c], slopes, c)[0],
                            };
                        }
                    }
                });
            }
            (Of::Multiply, Store::Real(to)) => {
                let other = &values[step.inputs[1]];
                images(pool, n, to, y.len(), |i, to| {
                    let (a, b) = (Image::of(first, params, i), Image::of(other, params, i));
                    for (row, column) in (0..y.h).flat_map(|row| (0..y.w).map(move |column| (row, column))) {
                        let (at, a_at) = (y.offset(row, column), x_layout.offset(row, column));
                        let b_at = second(other.layout, row, column);
                        for c in 0..y.c {
                            to[at + c] = a.real(a_at + c) * b.real(b_at + c);
                        }
                    }
                });
            }
            _ => unreachable!("the plan gave the output of this step another kind"),
        }
        self.values[step.output].store = store;
    }

    pub(super) fn general_backward(&mut self, pool: &Pool, step: &mut General, slab: usize) {
        let y = self.values[step.output].dense();
        for (input, &target) in step.targets.iter().enumerate() {
            debug_assert_ne!(slab, target.slab);
            let g = std::mem::take(&mut self.slabs[slab]);
            let mut dx = std::mem::take(&mut self.slabs[target.slab]);
            let (values, params) = (&self.values, &self.params);
            let x = &values[step.inputs[input]];
            let (dense, len) = (x.dense(), x.layout.len());
            let mut sums = match &mut step.of {
                Of::Function(function) => std::mem::take(&mut function.sums),
                _ => Vec::new(),
            };
            let of_image = Chunked::new(&mut sums, dense.c.max(1));
            let has_sums = of_image.chunks() > 0;
            images(pool, self.batch, &mut dx, dense.len(), |i, to| {
                let g = &g[i * y.len()..(i + 1) * y.len()];
                if !target.accumulate {
                    to.fill(0.0);
                }
                match &step.of {
                    Of::Gather(gather) => gather.backward(g, y, to),
                    Of::MaxPool(taps) => match &x.store {
                        Store::Codes(_) => taps.max_backward(x.store.codes(i, len), g, y, to),
                        _ => taps.max_backward(x.store.real(i, len), g, y, to),
                    },
                    Of::AvgPool(taps, divisors) => {
                        for ((g, taps), divisor) in g.chunks_exact(y.cs).zip(taps.all()).zip(divisors.iter().cycle()) {
                            for (c, &g) in g[..y.c].iter().enumerate() {
                                taps.iter().for_each(|tap| to[tap[1] as usize + c] += g / divisor);
                            }
                        }
                    }
                    Of::Function(function) => {
                        let (image, slopes) = (Image::of(x, params, i), function.slopes(params));
                        let mut sums = has_sums.then(|| of_image.get(i));
                        if let Some(sums) = &mut sums {
                            sums.fill(0.0);
                        }
                        for ((from, g), to) in
                            pixels(x.layout).zip(g.chunks_exact(y.cs)).zip(to.chunks_exact_mut(dense.cs))
                        {
                            for (c, (to, &g)) in to[..y.c].iter_mut().zip(g).enumerate() {
                                let [_, derivative] = match image {
                                    Image::Codes { codes, .. } => function.of_code(codes[from + c], c),
                                    Image::Real(x) => function.of_real(x[from + c], slopes, c),
                                };
                                *to += g * derivative;
                                if let Some(sums) = &mut sums {
                                    sums[c] += f64::from(image.real(from + c).min(0.0)) * f64::from(g);
                                }
                            }
                        }
                    }
                    Of::Multiply => {
                        let other = &values[step.inputs[1 - input]];
                        let image = Image::of(other, params, i);
                        for (row, column) in (0..y.h).flat_map(|row| (0..y.w).map(move |column| (row, column))) {
                            let g = &g[y.offset(row, column)..][..y.c];
                            let (at, from) = (second(dense, row, column), second(other.layout, row, column));
                            for (c, g) in g.iter().enumerate() {
                                to[at + c] += g * image.real(from + c);
                            }
                        }
                    }
                }
            });
            drop(of_image);
            if let Of::Function(function) = &mut step.of {
                if let Some(slopes) = function.slopes {
                    let grad = &mut self.params.get_mut(slopes).grad;
                    for (c, grad) in grad.iter_mut().enumerate() {
                        *grad = sums.iter().skip(c).step_by(dense.c).sum::<f64>() as f32;
                    }
                }
                function.sums = sums;
            }
            (self.slabs[slab], self.slabs[target.slab]) = (g, dx);
        }
    }
}

/// Calls `f` with every image's piece of `data`.
fn images<T: Send + Sync>(pool: &Pool, n: usize, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let data = Chunked::new(&mut data[..n * len], len);
    pool.run(n, &|i, _| f(i, &mut data.get(i)));
}
