//! The reference interpreter: scalar, short and obviously right. Every kernel, instruction set, thread count, file and
//! exported program must give the same integers.

use bitpact_graph::{Shape, moved_source};
use bitpact_model::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView, TensorId,
};

/// Every code of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Output of every layer in the order of computation, NHWC without padding.
    pub tensors: Vec<Vec<i64>>,
    /// Number of the layer that gives the main output.
    pub main: usize,
}

impl Trace {
    /// The main output: the logits of a classifier.
    pub fn logits(&self) -> &[i64] {
        self.tensors.get(self.main).map_or(&[], |t| t)
    }
}

/// Computes an integer network one number at a time.
#[derive(Debug, Clone, Copy)]
pub struct Interpreter<'a> {
    model: &'a IntegerModel,
}

/// Computes sums of products in place of the interpreter, such as a model of hardware.
pub trait Sums {
    /// Tells whether product `which` of layer `layer`, counted among the products of its terms, is computed here.
    fn computes(&self, layer: usize, which: usize) -> bool;

    /// The sums of that product, `out_channels` for each pixel of its output, row by row. `windows` holds the codes
    /// that every pixel reads: `[pixel][in_channels][kernel rows][kernel columns]`, those of all groups.
    fn sums(&mut self, layer: usize, which: usize, windows: &[i64]) -> Vec<i64>;

    /// Told what each sum of layer `layer` that ends in codes holds in channel `channel`, pixel by pixel, before it is
    /// shifted and clamped ([`Requantization::before_rounding`](bitpact_core::Requantization::before_rounding) tells
    /// its value).
    fn told(&mut self, _layer: usize, _channel: usize, _sum: i64) {}
}

/// Leaves every product to the interpreter.
struct Nothing;

impl Sums for Nothing {
    fn computes(&self, _: usize, _: usize) -> bool {
        false
    }

    fn sums(&mut self, _: usize, _: usize, _: &[i64]) -> Vec<i64> {
        Vec::new()
    }
}

/// Codes of one tensor with its shape.
struct Codes<'a> {
    shape: Shape,
    values: &'a [i64],
}

impl Codes<'_> {
    fn at(&self, y: usize, x: usize, c: usize) -> i64 {
        self.values[(y * self.shape.w + x) * self.shape.c + c]
    }
}

impl<'a> Interpreter<'a> {
    /// An interpreter of `model`, which has passed [`IntegerModel::check`]: what [`bitpact_model::convert`] and
    /// [`IntegerModel::load`] return has.
    pub fn new(model: &'a IntegerModel) -> Self {
        Self { model }
    }

    /// Computes every layer for one image of `h * w * c` codes ([`IntegerModel::example_bytes`]).
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn run(&self, pixels: &[u8]) -> Trace {
        self.run_with(pixels, &mut Nothing)
    }

    /// Computes every layer for one image of `h * w * c` codes ([`IntegerModel::example_bytes`]), with the sums that
    /// `other` gives where it computes a product.
    ///
    /// # Panics
    /// If the number of pixels is wrong, or a product has too few sums.
    pub fn run_with(&self, pixels: &[u8], other: &mut dyn Sums) -> Trace {
        assert_eq!(pixels.len(), self.model.example_bytes(), "pixels of one image");
        let mut tensors: Vec<Vec<i64>> = vec![self.model.input.codes(pixels).map(i64::from).collect()];
        for (i, layer) in self.model.layers.iter().enumerate() {
            let mut out = Vec::with_capacity(layer.shape.elements());
            let others = |(which, product): (usize, &IntegerProduct)| {
                let places = || (0..layer.shape.h).flat_map(|y| (0..layer.shape.w).map(move |x| (y, x)));
                other.computes(i, which).then(|| {
                    let length = product.in_channels * product.window.kernel[0] * product.window.kernel[1];
                    let mut windows = Vec::with_capacity(layer.shape.h * layer.shape.w * length);
                    places().for_each(|(y, x)| self.window(&tensors, product, (y, x), &mut windows));
                    other.sums(i, which, &windows)
                })
            };
            let others: Vec<Option<Vec<i64>>> = layer.op.products().enumerate().map(others).collect();
            for y in 0..layer.shape.h {
                for x in 0..layer.shape.w {
                    self.pixel(&tensors, (i, layer), &others, (y, x), &mut out, other);
                }
            }
            tensors.push(out);
        }
        tensors.remove(0);
        Trace { tensors, main: self.model.main_output() - 1 }
    }

    fn codes<'t>(&self, tensors: &'t [Vec<i64>], id: TensorId) -> Codes<'t> {
        Codes { shape: self.model.shape(id), values: &tensors[id] }
    }

    /// Appends the output of a layer at row `y`, column `x`, channel by channel.
    fn pixel(
        &self,
        tensors: &[Vec<i64>],
        (i, layer): (usize, &IntegerLayer),
        others: &[Option<Vec<i64>>],
        (y, x): (usize, usize),
        out: &mut Vec<i64>,
        listener: &mut dyn Sums,
    ) {
        let channels = 0..layer.shape.c;
        match &layer.op {
            IntegerOp::Sum(sum) => {
                let at = (y * layer.shape.w + x) * layer.shape.c;
                let others: Vec<_> = others.iter().map(|sums| sums.as_ref().map(|sums| &sums[at..])).collect();
                self.sum(tensors, sum, &others, (y, x), channels, out, &mut |c, sum| listener.told(i, c, sum));
            }
            IntegerOp::MaxPool { input, window } => {
                let codes = self.codes(tensors, *input);
                out.extend(channels.map(|c| {
                    let places = places(window.kernel).filter_map(|k| window.source(codes.shape, (y, x), k));
                    places.map(|(y, x)| codes.at(y, x, c)).max().unwrap_or(0)
                }));
            }
            IntegerOp::WindowSum { input, window, padding_code, factors } => {
                let factor = factors.get(y * layer.shape.w + x).map_or(1, |&factor| i64::from(factor));
                let largest = factors.iter().max().map_or(1, |&factor| i64::from(factor));
                let padding = (window.kernel[0] * window.kernel[1]) as i64 * i64::from(*padding_code);
                let codes = self.codes(tensors, *input);
                let code =
                    |place: Option<(usize, usize)>, c| place.map_or((*padding_code).into(), |(y, x)| codes.at(y, x, c));
                out.extend(channels.map(|c| {
                    let sum: i64 = places(window.kernel).map(|k| code(window.source(codes.shape, (y, x), k), c)).sum();
                    (sum - padding) * factor + padding * largest
                }));
            }
            IntegerOp::Concat { inputs } => {
                for &input in inputs {
                    let codes = self.codes(tensors, input);
                    out.extend((0..codes.shape.c).map(|c| codes.at(y, x, c)));
                }
            }
            IntegerOp::View(view) => out.extend(channels.map(|c| self.view(tensors, view, y, x, c))),
        }
    }

    /// Appends the output of a sum at row `y`, column `x`; `others` are sums of products that were computed elsewhere.
    fn sum(
        &self,
        tensors: &[Vec<i64>],
        sum: &IntegerSum,
        others: &[Option<&[i64]>],
        (y, x): (usize, usize),
        channels: std::ops::Range<usize>,
        out: &mut Vec<i64>,
        told: &mut dyn FnMut(usize, i64),
    ) {
        // The codes under the window of each product.
        let products = sum.terms.iter().filter_map(IntegerTerm::product).zip(others);
        let window = |(product, other): (&IntegerProduct, &Option<&[i64]>)| {
            let mut window = Vec::new();
            if other.is_none() {
                self.window(tensors, product, (y, x), &mut window);
            }
            window
        };
        let windows: Vec<Vec<i64>> = products.map(window).collect();
        out.extend(channels.map(|c| {
            let mut which = 0..windows.len();
            let values = sum.terms.iter().map(|term| match term {
                IntegerTerm::Product(product) => {
                    let which = which.next().expect("a window for each product");
                    others[which].map_or_else(|| product_sum(product, &windows[which], c), |sums| sums[c])
                }
                IntegerTerm::View(view) => self.view(tensors, view, y, x, c),
                IntegerTerm::Multiplication { a, b, zeros } => {
                    let is_one_pixel = self.shape_of(b) != self.shape_of(a);
                    let (by, bx) = if is_one_pixel { (0, 0) } else { (y, x) };
                    (self.view(tensors, a, y, x, c) - zeros[0]) * (self.view(tensors, b, by, bx, c) - zeros[1])
                }
            });
            let base =
                sum.base.iter().map(|(view, mul)| self.view(tensors, view, y, x, c) * i64::from(*mul)).sum::<i64>();
            match &sum.end {
                IntegerEnd::Codes => {
                    let total = sum.requant.sum(c, values);
                    told(c, total);
                    sum.requant.code(c, total).into()
                }
                IntegerEnd::Table(tables) => {
                    let table = &tables[if tables.len() == 1 { 0 } else { c }];
                    table[(sum.requant.apply(c, values) - sum.requant.lo) as usize].into()
                }
                IntegerEnd::Wide | IntegerEnd::Output => (sum.requant.sum(c, values) >> sum.requant.shift) + base,
            }
        }));
    }

    /// Shape of a view.
    fn shape_of(&self, view: &IntegerView) -> Shape {
        bitpact_graph::moved_shape(self.model.shape(view.input), &view.moves).expect("a checked model")
    }

    /// One value of a view.
    fn view(&self, tensors: &[Vec<i64>], view: &IntegerView, y: usize, x: usize, c: usize) -> i64 {
        let codes = self.codes(tensors, view.input);
        moved_source(codes.shape, &view.moves, (y, x, c)).map_or(view.fill, |(y, x, c)| codes.at(y, x, c))
    }

    /// Appends the codes that a product reads for row `y`, column `x` of its output, in the order of the weights of one
    /// output channel: `[in_channels][kernel rows][kernel columns]`.
    fn window(&self, tensors: &[Vec<i64>], product: &IntegerProduct, (y, x): (usize, usize), window: &mut Vec<i64>) {
        let codes = self.codes(tensors, product.input);
        let source = |k| product.window.source(codes.shape, (y, x), k);
        let pixel = |(y, x): (usize, usize)| &codes.values[(y * codes.shape.w + x) * codes.shape.c..];
        let pixels: Vec<Option<&[i64]>> = places(product.window.kernel).map(|k| source(k).map(pixel)).collect();
        for channel in 0..product.in_channels {
            let padding = match product.input {
                0 => self.model.input.zero_point[channel].into(),
                _ => product.padding_code.into(),
            };
            window.extend(pixels.iter().map(|pixel| pixel.map_or(padding, |codes| codes[channel])));
        }
    }
}

/// Rows and columns of a window, row by row.
fn places([rows, columns]: [usize; 2]) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

/// `acc`: sum of code times weight code over the part of the window that belongs to the group of output channel `c`.
fn product_sum(product: &IntegerProduct, window: &[i64], c: usize) -> i64 {
    let first = product.first_input(c) * product.window.kernel[0] * product.window.kernel[1];
    window[first..].iter().zip(product.channel(c)).map(|(code, &weight)| code * i64::from(weight)).sum()
}
