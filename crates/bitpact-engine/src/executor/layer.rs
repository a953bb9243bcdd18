//! One layer of a plan: what it reads, how it computes, where it writes.

use bitpact_graph::{Shape, Window};
use bitpact_kernels::linear::Linear;
use bitpact_kernels::pool2d::{self, max_codes};
use bitpact_kernels::{Aligned, Base, FusedLayer, Isa, LayerInputs, Layout, RequantU8, ScratchSize, Workers};

use super::arena::{Arena, Place};
use super::columns::Columns;
use super::general::{GeneralSum, Tensors, View};
use super::table::Tables;

/// One layer, ready to run.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A network has tens of them.
pub(super) enum Layer {
    /// Products, a shortcut and the requantization in the kernels, to codes or to values of 32 bits; before them the
    /// copies of windows that they read.
    Fused {
        layer: FusedLayer,
        columns: Vec<Columns>,
        products: [Option<usize>; 2],
        shortcut: Option<Place>,
        out: Place,
    },
    /// Any sum, in 64-bit scalar arithmetic.
    General { sum: GeneralSum, shape: Shape, out: Place },
    /// A sum whose codes are looked up.
    Tabled { layer: Box<Layer>, tables: Tables },
    /// Codes that are looked up, those of one tensor as it is.
    Lookup { tables: Tables, input: (usize, Layout), out: Place },
    /// Output of one product over one pixel, in 32 bits.
    Linear { kernel: Linear, input: Place, mul: Vec<i32>, add: Vec<i64>, out: Place },
    /// From values of 32 bits to codes.
    Requant { requant: RequantU8, input: (usize, Layout), out: (usize, Layout) },
    /// Largest code of each window, in the kernels.
    MaxPool { isa: Isa, window: pool2d::Window, input: (usize, Layout), out: (usize, Layout) },
    /// Maximum over a window of any form.
    AnyMaxPool { window: Window, input: Place, out: Place },
    /// Sum of the codes of each window.
    WindowSum { window: Window, padding_code: u32, factors: Vec<u32>, input: (usize, Layout), out: Place },
    /// Channels of several tensors, one after the other.
    Concat { inputs: Vec<Place>, out: Place },
    /// A tensor with its elements moved.
    View { view: View, out: Place },
}

impl Layer {
    /// The kernels that compute it.
    pub(super) fn describe(&self) -> String {
        match self {
            Layer::Fused { layer, .. } => layer.describe(),
            Layer::General { .. } => "general_i64".to_owned(),
            Layer::Tabled { layer, .. } => format!("{}, table", layer.describe()),
            Layer::Lookup { .. } => "table".to_owned(),
            Layer::Linear { .. } => "linear_i32".to_owned(),
            Layer::Requant { requant, .. } => format!("requant {}", requant.arithmetic()),
            Layer::MaxPool { .. } | Layer::AnyMaxPool { .. } => "max_pool".to_owned(),
            Layer::WindowSum { .. } => "window_sum".to_owned(),
            Layer::Concat { .. } => "concat".to_owned(),
            Layer::View { .. } => "view".to_owned(),
        }
    }

    /// Bytes of packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Layer::Fused { layer, .. } => layer.weight_bytes(),
            Layer::General { sum, .. } => sum.weight_bytes(),
            Layer::Tabled { layer, .. } => layer.weight_bytes(),
            Layer::Linear { kernel, .. } => kernel.weight_bytes(),
            _ => 0,
        }
    }

    /// The memory a thread needs beside the arena.
    pub(super) fn scratch(&self) -> ScratchSize {
        match self {
            Layer::Fused { layer, .. } => layer.scratch(),
            Layer::Tabled { layer, .. } => layer.scratch(),
            _ => ScratchSize::default(),
        }
    }

    /// Computes the layer from the arena into the arena.
    pub(super) fn run(&self, arena: &mut Arena, workers: Workers<'_>) {
        if let Layer::Tabled { layer, tables } = self {
            layer.run(arena, workers);
            let Place::Codes { slot, layout } = layer.out() else { unreachable!("tables are read with codes") };
            return tables.run_in_place(workers, (&mut arena.codes[slot], layout));
        }
        let Arena { codes, wide, outputs, acc } = arena;
        if let Layer::Fused { columns, .. } = self {
            columns.iter().for_each(|columns| columns.run(codes, workers));
        }
        match self {
            Layer::Linear { kernel, input, mul, add, out } => {
                let Place::Output { slot } = *out else { unreachable!("an output") };
                let output = &mut outputs[slot];
                let acc = &mut acc[..output.len()];
                match *input {
                    Place::Codes { slot, layout } => {
                        kernel.run(workers, &codes[slot][layout.offset(0, 0)..][..layout.c], acc)
                    }
                    Place::Wide { slot, layout } => {
                        kernel.run(workers, &wide[slot][layout.offset(0, 0)..][..layout.c], acc)
                    }
                    Place::Output { .. } => unreachable!("nothing reads an output"),
                }
                for (c, out) in output.iter_mut().enumerate() {
                    *out = i64::from(acc[c]) * i64::from(mul[c]) + add[c];
                }
            }
            Layer::Requant { requant, input: (slot, from), out: (out, layout) } => {
                requant.run_tensor(workers, (&wide[*slot], *from), (&mut codes[*out], *layout));
            }
            _ => match self.out() {
                Place::Codes { slot, layout } => {
                    let mut y = std::mem::take(&mut codes[slot]);
                    self.codes(Tensors { codes, wide }, workers, (&mut y, layout));
                    codes[slot] = y;
                }
                Place::Wide { slot, layout } => {
                    let mut y = std::mem::take(&mut wide[slot]);
                    self.wide(Tensors { codes, wide }, workers, (&mut y, layout));
                    wide[slot] = y;
                }
                Place::Output { slot } => match self {
                    Layer::General { sum, shape, .. } => {
                        let layout = Layout::with_cs(shape.h, shape.w, shape.c, shape.c, 0);
                        sum.run(workers, Tensors { codes, wide }, (&mut outputs[slot], layout), |value| value);
                    }
                    Layer::Fused { layer, products, shortcut, .. } => {
                        let (inputs, base) = fused_inputs(Tensors { codes, wide }, products, *shortcut);
                        layer.run_output(workers, inputs, base, &mut outputs[slot]);
                    }
                    _ => unreachable!("only sums are outputs"),
                },
            },
        }
    }

    fn out(&self) -> Place {
        match *self {
            Layer::Fused { out, .. }
            | Layer::General { out, .. }
            | Layer::WindowSum { out, .. }
            | Layer::AnyMaxPool { out, .. }
            | Layer::Concat { out, .. }
            | Layer::Lookup { out, .. }
            | Layer::Linear { out, .. }
            | Layer::View { out, .. } => out,
            Layer::Tabled { ref layer, .. } => layer.out(),
            Layer::MaxPool { out: (slot, layout), .. } | Layer::Requant { out: (slot, layout), .. } => {
                Place::Codes { slot, layout }
            }
        }
    }

    /// Computes a layer that writes codes.
    fn codes(&self, tensors: Tensors<'_>, workers: Workers<'_>, (y, layout): (&mut Aligned<u8>, Layout)) {
        let codes = tensors.codes;
        match self {
            Layer::Fused { layer, products, shortcut, .. } => {
                let shortcut = match shortcut {
                    Some(Place::Codes { slot, .. }) => &codes[*slot],
                    _ => &[][..],
                };
                let [main, second] = products.map(|slot| slot.map_or(&[][..], |slot| &*codes[slot]));
                layer.run(workers, LayerInputs { main, second, shortcut }, y);
            }
            Layer::General { sum, .. } => sum.run(workers, tensors, (y, layout), |value| value as u8),
            Layer::MaxPool { isa, window, input: (slot, from), .. } => {
                max_codes(*isa, workers, *window, (&codes[*slot], *from), (y, layout));
            }
            Layer::AnyMaxPool { window, input: Place::Codes { slot, layout: from }, .. } => {
                max_pool(workers, *window, (&codes[*slot], *from), (y, layout), 0);
            }
            Layer::AnyMaxPool { .. } => unreachable!("a maximum of codes is a code"),
            // Sums of at most 255.
            Layer::WindowSum { window, padding_code, input: (slot, from), factors, .. } => {
                let x = (&*codes[*slot], *from);
                let linear = |at| after_sum(window, *padding_code, factors, at).map(|n| n as u8);
                window_sum(workers, *window, *padding_code as u8, x, (y, layout), |code| code, linear);
            }
            Layer::Concat { inputs, .. } => {
                let inputs = inputs.iter().map(|place| match place {
                    Place::Codes { slot, layout } => (&*codes[*slot], *layout),
                    _ => unreachable!("a concatenation keeps the kind of its inputs"),
                });
                concat(workers, inputs, (y, layout));
            }
            Layer::View { view, .. } => moved(workers, tensors, view, (y, layout), |value| value as u8),
            Layer::Lookup { tables, input: (slot, from), .. } => {
                tables.run(workers, (&codes[*slot], *from), (y, layout))
            }
            Layer::Linear { .. } | Layer::Requant { .. } | Layer::Tabled { .. } => unreachable!("run by themselves"),
        }
    }

    /// Computes a layer that writes values of 32 bits.
    fn wide(&self, tensors: Tensors<'_>, workers: Workers<'_>, (y, layout): (&mut Aligned<i32>, Layout)) {
        let Tensors { codes, wide } = tensors;
        match self {
            Layer::Fused { layer, products, shortcut, .. } => {
                let (inputs, base) = fused_inputs(tensors, products, *shortcut);
                layer.run_stream(workers, inputs, base, y);
            }
            Layer::General { sum, .. } => sum.run(workers, tensors, (y, layout), |value| value as i32),
            Layer::WindowSum { window, padding_code, input: (slot, from), factors, .. } => {
                let x = (&*codes[*slot], *from);
                let linear = |at| after_sum(window, *padding_code, factors, at).map(|n| n as i32);
                window_sum(workers, *window, *padding_code as i32, x, (y, layout), i32::from, linear);
            }
            Layer::Concat { inputs, .. } => {
                let inputs = inputs.iter().map(|place| match place {
                    Place::Wide { slot, layout } => (&*wide[*slot], *layout),
                    _ => unreachable!("a concatenation keeps the kind of its inputs"),
                });
                concat(workers, inputs, (y, layout));
            }
            Layer::View { view, .. } => moved(workers, tensors, view, (y, layout), |value| value as i32),
            Layer::AnyMaxPool { window, input: Place::Wide { slot, layout: from }, .. } => {
                max_pool(workers, *window, (&wide[*slot], *from), (y, layout), i32::MIN);
            }
            Layer::MaxPool { .. } | Layer::AnyMaxPool { .. } => unreachable!("a maximum of codes is a code"),
            Layer::Lookup { .. } => unreachable!("tables hold codes"),
            Layer::Linear { .. } | Layer::Requant { .. } | Layer::Tabled { .. } => unreachable!("run by themselves"),
        }
    }
}

/// What the products of a fused layer read, and the shortcut that is no code of its sum.
fn fused_inputs<'a>(
    Tensors { codes, wide }: Tensors<'a>,
    products: &[Option<usize>; 2],
    shortcut: Option<Place>,
) -> (LayerInputs<'a>, Base<'a>) {
    let base = match shortcut {
        Some(Place::Codes { slot, .. }) => Base::Codes(&codes[slot]),
        Some(Place::Wide { slot, .. }) => Base::Stream(&wide[slot]),
        _ => Base::None,
    };
    let [main, second] = products.map(|slot| slot.map_or(&[][..], |slot| &*codes[slot]));
    (LayerInputs { main, second, shortcut: &[] }, base)
}

/// Rows and columns of a window, row by row.
fn places([rows, columns]: [usize; 2]) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

fn shape(layout: Layout) -> Shape {
    Shape::new(layout.h, layout.w, layout.c)
}

/// Largest value of each window, each at least `least`; padding never wins.
fn max_pool<T: Copy + Ord + Send + Sync>(
    workers: Workers<'_>,
    window: Window,
    (x, from): (&[T], Layout),
    (y, to): (&mut [T], Layout),
    least: T,
) {
    workers.each_row(y, to, &|r, row| {
        for (q, out) in row.chunks_exact_mut(to.cs).enumerate() {
            let out = &mut out[..to.c];
            out.fill(least);
            for (row, column) in places(window.kernel).filter_map(|k| window.source(shape(from), (r, q), k)) {
                let pixel = &x[from.offset(row, column)..][..from.c];
                out.iter_mut().zip(pixel).for_each(|(out, &value)| *out = value.max(*out));
            }
        }
    });
}

/// What the sum of a window at position `at` is multiplied by, and what is added then; both below 2^31.
fn after_sum(window: &Window, padding_code: u32, factors: &[u32], at: usize) -> [u32; 2] {
    let Some(&factor) = factors.get(at) else { return [1, 0] };
    let largest = factors.iter().max().copied().unwrap_or(factor);
    let positions = (window.kernel[0] * window.kernel[1]) as u32;
    [factor, positions * padding_code * (largest - factor)]
}

/// Sum of the codes of each window, and what `linear` makes of it at its position, in numbers that are proved to hold
/// it.
fn window_sum<T: Copy + Send + Sync + Default + std::ops::AddAssign + std::ops::MulAssign>(
    workers: Workers<'_>,
    window: Window,
    padding: T,
    (x, from): (&[u8], Layout),
    (y, to): (&mut [T], Layout),
    widen: impl Fn(u8) -> T + Sync,
    linear: impl Fn(usize) -> [T; 2] + Sync,
) {
    workers.each_row(y, to, &|r, row| {
        for (q, out) in row.chunks_exact_mut(to.cs).enumerate() {
            let out = &mut out[..to.c];
            out.fill(T::default());
            for place in places(window.kernel) {
                match window.source(shape(from), (r, q), place) {
                    None => out.iter_mut().for_each(|sum| *sum += padding),
                    Some((row, column)) => {
                        let pixel = &x[from.offset(row, column)..][..from.c];
                        out.iter_mut().zip(pixel).for_each(|(sum, &code)| *sum += widen(code));
                    }
                }
            }
            let [factor, offset] = linear(r * to.w + q);
            for sum in out {
                *sum *= factor;
                *sum += offset;
            }
        }
    });
}

/// Channels of several tensors, one after the other.
fn concat<'a, T: Copy + Send + Sync + 'a>(
    workers: Workers<'_>,
    inputs: impl Iterator<Item = (&'a [T], Layout)> + Clone + Sync,
    (y, to): (&mut [T], Layout),
) {
    workers.each_row(y, to, &|r, row| {
        let mut first = 0;
        for (x, from) in inputs.clone() {
            for (q, out) in row.chunks_exact_mut(to.cs).enumerate() {
                out[first..first + from.c].copy_from_slice(&x[from.offset(r, q)..][..from.c]);
            }
            first += from.c;
        }
    });
}

/// A tensor with its elements moved.
fn moved<T: Send>(
    workers: Workers<'_>,
    tensors: Tensors<'_>,
    view: &View,
    (y, to): (&mut [T], Layout),
    narrow: impl Fn(i64) -> T + Sync,
) {
    workers.each_row(y, to, &|r, row| {
        for (q, pixel) in row.chunks_exact_mut(to.cs).enumerate() {
            for (c, out) in pixel[..to.c].iter_mut().enumerate() {
                *out = narrow(view.at(tensors, r, q, c));
            }
        }
    });
}
