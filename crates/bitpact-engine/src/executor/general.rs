//! Sums that the fused kernels do not take, one number after the other in 64 bits: terms and windows of other forms,
//! codes of more than 8 bits, or sums of more than 32.

use bitpact_core::Requantization;
use bitpact_graph::{Move, Shape, Window};
use bitpact_kernels::{Aligned, Layout, Workers};
use bitpact_model::{IntegerEnd, IntegerModel, IntegerProduct, IntegerSum, IntegerTerm, IntegerView};

use super::arena::Place;

/// The tensors that layers read.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) codes: &'a [Aligned<u8>],
    pub(super) wide: &'a [Aligned<i32>],
}

impl Tensors<'_> {
    fn at(&self, place: Place, y: usize, x: usize, c: usize) -> i64 {
        match place {
            Place::Codes { slot, layout } => self.codes[slot][layout.offset(y, x) + c].into(),
            Place::Wide { slot, layout } => self.wide[slot][layout.offset(y, x) + c].into(),
            Place::Output { .. } => unreachable!("nothing reads an output"),
        }
    }
}

/// A tensor with its elements moved.
#[derive(Debug)]
pub(super) struct View {
    place: Place,
    /// Each move with the shape before it.
    moves: Vec<(Shape, Move)>,
    fill: i64,
    is_one_pixel: bool,
}

impl View {
    pub(super) fn new(model: &IntegerModel, places: &[Place], view: &IntegerView) -> Self {
        let mut shape = model.shape(view.input);
        let mut moves = Vec::with_capacity(view.moves.len());
        for &step in &view.moves {
            moves.push((shape, step));
            shape = step.shape(shape).expect("a checked network");
        }
        let is_one_pixel = (shape.h, shape.w) == (1, 1);
        Self { place: places[view.input], moves, fill: view.fill, is_one_pixel }
    }

    pub(super) fn at(&self, tensors: Tensors<'_>, y: usize, x: usize, c: usize) -> i64 {
        let source = self.moves.iter().rev().try_fold((y, x, c), |place, (shape, step)| step.source(*shape, place));
        source.map_or(self.fill, |(y, x, c)| tensors.at(self.place, y, x, c))
    }
}

/// A product over any window.
#[derive(Debug)]
struct Product {
    place: Place,
    shape: Shape,
    window: Window,
    /// `[out][kernel row][kernel column][in of a group]`.
    codes: Vec<i16>,
    /// Sum of padding times weights, `[out][kernel row][kernel column]`.
    padding: Vec<i64>,
    /// First input channel of each output's group, and the inputs of a group.
    first_input: Vec<usize>,
    group_inputs: usize,
}

impl Product {
    fn new(model: &IntegerModel, places: &[Place], product: &IntegerProduct) -> Self {
        let taps = product.window.kernel[0] * product.window.kernel[1];
        let mut codes = Vec::with_capacity(product.codes.len());
        let mut padding = Vec::with_capacity(product.out_channels * taps);
        for o in 0..product.out_channels {
            let (channel, first) = (product.channel(o), product.first_input(o));
            let padding_of = |i: usize| match product.input {
                0 => i64::from(model.input.zero_point[first + i]),
                _ => i64::from(product.padding_code),
            };
            for tap in 0..taps {
                let weights = (0..product.group_inputs()).map(|i| channel[i * taps + tap]);
                padding.push(weights.clone().enumerate().map(|(i, w)| padding_of(i) * i64::from(w)).sum());
                codes.extend(weights);
            }
        }
        Self {
            place: places[product.input],
            shape: model.shape(product.input),
            window: product.window,
            codes,
            padding,
            first_input: (0..product.out_channels).map(|o| product.first_input(o)).collect(),
            group_inputs: product.group_inputs(),
        }
    }

    fn at(&self, tensors: Tensors<'_>, y: usize, x: usize, o: usize) -> i64 {
        match self.place {
            Place::Codes { slot, layout } => self.sum(&tensors.codes[slot], layout, y, x, o),
            Place::Wide { slot, layout } => self.sum(&tensors.wide[slot], layout, y, x, o),
            Place::Output { .. } => unreachable!("nothing reads an output"),
        }
    }

    fn sum<T: Copy + Into<i64>>(&self, values: &[T], layout: Layout, y: usize, x: usize, o: usize) -> i64 {
        let [rows, columns] = self.window.kernel;
        let (mut tap, mut sum) = (o * rows * columns, 0);
        for row in 0..rows {
            for column in 0..columns {
                sum += match self.window.source(self.shape, (y, x), (row, column)) {
                    None => self.padding[tap],
                    Some((y, x)) => {
                        let pixel = &values[layout.offset(y, x) + self.first_input[o]..][..self.group_inputs];
                        let weights = &self.codes[tap * self.group_inputs..][..self.group_inputs];
                        pixel.iter().zip(weights).map(|(&q, &w)| q.into() * i64::from(w)).sum::<i64>()
                    }
                };
                tap += 1;
            }
        }
        sum
    }
}

#[derive(Debug)]
enum Term {
    Product(Product),
    View(View),
    Multiplication { a: View, b: View, zeros: [i64; 2] },
}

impl Term {
    fn at(&self, tensors: Tensors<'_>, y: usize, x: usize, c: usize) -> i64 {
        match self {
            Term::Product(product) => product.at(tensors, y, x, c),
            Term::View(view) => view.at(tensors, y, x, c),
            Term::Multiplication { a, b, zeros } => {
                let (by, bx) = if b.is_one_pixel { (0, 0) } else { (y, x) };
                (a.at(tensors, y, x, c) - zeros[0]) * (b.at(tensors, by, bx, c) - zeros[1])
            }
        }
    }
}

/// A sum of any terms with any end.
#[derive(Debug)]
pub(super) struct GeneralSum {
    terms: Vec<Term>,
    requant: Requantization,
    base: Vec<(View, i64)>,
    end: IntegerEnd,
}

impl GeneralSum {
    pub(super) fn new(model: &IntegerModel, places: &[Place], sum: &IntegerSum) -> Self {
        let term = |term: &IntegerTerm| match term {
            IntegerTerm::Product(product) => Term::Product(Product::new(model, places, product)),
            IntegerTerm::View(view) => Term::View(View::new(model, places, view)),
            IntegerTerm::Multiplication { a, b, zeros } => {
                Term::Multiplication { a: View::new(model, places, a), b: View::new(model, places, b), zeros: *zeros }
            }
        };
        Self {
            terms: sum.terms.iter().map(term).collect(),
            requant: sum.requant.clone(),
            base: sum.base.iter().map(|(view, mul)| (View::new(model, places, view), i64::from(*mul))).collect(),
            end: sum.end.clone(),
        }
    }

    /// Bytes of weights.
    pub(super) fn weight_bytes(&self) -> usize {
        let of = |term: &Term| match term {
            Term::Product(product) => size_of_val(&*product.codes),
            _ => 0,
        };
        self.terms.iter().map(of).sum()
    }

    /// Writes the tensor `y`, which none of `tensors` is; `narrow` makes its elements of values that are proved to fit.
    pub(super) fn run<T: Send>(
        &self,
        workers: Workers<'_>,
        tensors: Tensors<'_>,
        (y, layout): (&mut [T], Layout),
        narrow: impl Fn(i64) -> T + Sync,
    ) {
        workers.each_row(y, layout, &|r, row| {
            for (q, pixel) in row.chunks_exact_mut(layout.cs).enumerate() {
                for (c, out) in pixel[..layout.c].iter_mut().enumerate() {
                    *out = narrow(self.at(tensors, r, q, c));
                }
            }
        });
    }

    fn at(&self, tensors: Tensors<'_>, y: usize, x: usize, c: usize) -> i64 {
        let values = self.terms.iter().map(|term| term.at(tensors, y, x, c));
        match &self.end {
            IntegerEnd::Codes => self.requant.apply(c, values).into(),
            IntegerEnd::Table(tables) => {
                let table = &tables[if tables.len() == 1 { 0 } else { c }];
                table[(self.requant.apply(c, values) - self.requant.lo) as usize].into()
            }
            IntegerEnd::Wide | IntegerEnd::Output => {
                let base = self.base.iter().map(|(view, mul)| view.at(tensors, y, x, c) * mul).sum::<i64>();
                (self.requant.sum(c, values) >> self.requant.shift) + base
            }
        }
    }
}
