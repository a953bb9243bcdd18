//! One layer of a plan: what it reads, how it computes, where it writes.

use bitpact_core::step::IntegerStep;
use bitpact_kernels::linear::Linear;
use bitpact_kernels::pool2d::{Window, max_codes, max_forward};
use bitpact_kernels::{Aligned, Base, FusedLayer, Isa, LayerInputs, Layout, ScratchSize, Shortcut, StepU8, Workers};

use super::arena::{Arena, Place};
use super::general::GeneralProduct;

/// A product in 64 bits and where its input lies.
#[derive(Debug)]
pub(super) struct General {
    pub(super) kernel: GeneralProduct,
    pub(super) input: Place,
}

/// One layer, ready to run.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A network has tens of them.
pub(super) enum Layer {
    /// Products, shortcut and step in the kernels. Slots of codes.
    Fused { layer: FusedLayer, main: usize, second: Option<usize>, shortcut: Option<usize>, out: usize },
    /// The same in 64-bit scalar arithmetic.
    General {
        main: General,
        second: Option<General>,
        shortcut: Option<(usize, Shortcut)>,
        step: IntegerStep,
        out: usize,
        layout: Layout,
    },
    /// Logits from sums or codes of one pixel, in 32 bits.
    Logits { kernel: Linear, input: Place, mul: Vec<i32>, add: Vec<i64> },
    /// Logits in 64 bits.
    GeneralLogits { main: General, mul: Vec<i32>, add: Vec<i64> },
    /// Largest code of each window.
    MaxPool { isa: Isa, window: Window, input: (usize, Layout), out: (usize, Layout) },
    /// Sum of the codes of each channel.
    SumPool { input: (usize, Layout), out: (usize, Layout) },
    /// Sum of the codes of each window.
    WindowSum { window: Window, input: (usize, Layout), out: Place },
    /// A residual stream in the kernels. Slots of codes, and of wide values for what is written.
    Stream { layer: FusedLayer, main: usize, second: Option<usize>, shortcut: Option<Place>, out: usize },
    /// The same in 64-bit scalar arithmetic.
    GeneralStream {
        main: General,
        second: Option<General>,
        shortcut: Option<(Place, Shortcut)>,
        step: IntegerStep,
        res_mul: i32,
        out: (usize, Layout),
    },
    /// From wide values to codes.
    Act { step: StepU8, input: (usize, Layout), out: (usize, Layout) },
    /// Channels of several tensors, one after the other.
    Concat { inputs: Vec<Place>, out: Place },
}

impl General {
    fn run<'a>(&self, arena_codes: &[Aligned<u8>], arena_sums: &[Aligned<i32>], acc: &'a mut [i64]) -> &'a [i64] {
        let acc = &mut acc[..self.kernel.len()];
        match self.input {
            Place::Codes { slot, .. } => self.kernel.run(&arena_codes[slot], acc),
            Place::Sums { slot, .. } => self.kernel.run(&arena_sums[slot], acc),
            Place::Logits => {}
        }
        acc
    }
}

impl Layer {
    /// The kernels that compute it.
    pub(super) fn describe(&self) -> String {
        match self {
            Layer::Fused { layer, .. } | Layer::Stream { layer, .. } => layer.describe(),
            Layer::General { .. } | Layer::GeneralLogits { .. } | Layer::GeneralStream { .. } => {
                "direct_1x1_i64".to_owned()
            }
            Layer::Logits { .. } => "linear_i32".to_owned(),
            Layer::MaxPool { .. } => "max_pool".to_owned(),
            Layer::SumPool { .. } => "sum_pool".to_owned(),
            Layer::WindowSum { .. } => "window_sum".to_owned(),
            Layer::Act { step, .. } => format!("act {}", step.arithmetic()),
            Layer::Concat { .. } => "concat".to_owned(),
        }
    }

    /// Bytes of packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Layer::Fused { layer, .. } | Layer::Stream { layer, .. } => layer.weight_bytes(),
            Layer::General { main, second, .. } | Layer::GeneralStream { main, second, .. } => {
                main.kernel.weight_bytes() + second.as_ref().map_or(0, |second| second.kernel.weight_bytes())
            }
            Layer::Logits { kernel, .. } => kernel.weight_bytes(),
            Layer::GeneralLogits { main, .. } => main.kernel.weight_bytes(),
            Layer::MaxPool { .. }
            | Layer::SumPool { .. }
            | Layer::WindowSum { .. }
            | Layer::Act { .. }
            | Layer::Concat { .. } => 0,
        }
    }

    /// The memory a thread needs beside the arena.
    pub(super) fn scratch(&self) -> ScratchSize {
        match self {
            Layer::Fused { layer, .. } | Layer::Stream { layer, .. } => layer.scratch(),
            _ => ScratchSize::default(),
        }
    }

    /// Accumulators in 64 bits of the main and the second product.
    pub(super) fn wide(&self) -> [usize; 2] {
        match self {
            Layer::General { main, second, .. } | Layer::GeneralStream { main, second, .. } => {
                [main.kernel.len(), second.as_ref().map_or(0, |second| second.kernel.len())]
            }
            Layer::GeneralLogits { main, .. } => [main.kernel.len(), 0],
            _ => [0; 2],
        }
    }

    /// Computes the layer from the arena into the arena.
    pub(super) fn run(&self, arena: &mut Arena, workers: Workers<'_>) {
        let Arena { codes, sums, wide, logits, acc } = arena;
        match self {
            Layer::Fused { layer, main, second, shortcut, out } => {
                let mut y = std::mem::take(&mut codes[*out]);
                let of = |slot: &Option<usize>| slot.map_or(&[][..], |slot| &*codes[slot]);
                let inputs = LayerInputs { main: &codes[*main], second: of(second), shortcut: of(shortcut) };
                layer.run(workers, inputs, &mut y);
                codes[*out] = y;
            }
            Layer::General { main, second, shortcut, step, out, layout } => {
                let [wide, wide2] = wide;
                let acc = main.run(codes, sums, wide);
                let acc2 = second.as_ref().map(|second| second.run(codes, sums, wide2));
                for (i, &acc) in acc.iter().enumerate() {
                    let (pixel, c) = (i / layout.c, i % layout.c);
                    let (y, x) = (pixel / layout.w, pixel % layout.w);
                    let res = shortcut.map_or(0, |(slot, shortcut)| shortcut.code(&codes[slot], y, x, c));
                    let code = step.apply(c, acc, acc2.map_or(0, |acc2| acc2[i]), res.into());
                    codes[*out][layout.offset(y, x) + c] = code as u8;
                }
            }
            Layer::Logits { kernel, input, mul, add } => {
                let acc = &mut acc[..logits.len()];
                match *input {
                    Place::Codes { slot, layout } => {
                        kernel.run(workers, &codes[slot][layout.offset(0, 0)..][..layout.c], acc)
                    }
                    Place::Sums { slot, layout } => {
                        kernel.run(workers, &sums[slot][layout.offset(0, 0)..][..layout.c], acc)
                    }
                    Place::Logits => {}
                }
                for (c, logit) in logits.iter_mut().enumerate() {
                    *logit = i64::from(acc[c]) * i64::from(mul[c]) + add[c];
                }
            }
            Layer::GeneralLogits { main, mul, add } => {
                let acc = main.run(codes, sums, &mut wide[0]);
                for (c, logit) in logits.iter_mut().enumerate() {
                    *logit = acc[c] * i64::from(mul[c]) + add[c];
                }
            }
            Layer::MaxPool { isa, window, input, out } => {
                let [y, x] =
                    codes.get_disjoint_mut([out.0, input.0]).expect("a layer does not overwrite what it reads");
                if out.1.cs.is_multiple_of(16) {
                    max_codes(*isa, workers, *window, (x, input.1), (y, out.1));
                } else {
                    max_forward(*window, x, input.1, y, out.1);
                }
            }
            Layer::WindowSum { window, input: (slot, layout), out } => match *out {
                Place::Codes { slot: to, layout: y } => {
                    let [y_codes, x] =
                        codes.get_disjoint_mut([to, *slot]).expect("a layer does not overwrite what it reads");
                    // Sums of at most 255.
                    window_sum(*window, x, *layout, y_codes, y, |sum| sum as u8);
                }
                Place::Sums { slot: to, layout: y } => {
                    window_sum(*window, &codes[*slot], *layout, &mut sums[to], y, |sum| sum);
                }
                Place::Logits => {}
            },
            Layer::Stream { layer, main, second, shortcut, out } => {
                let mut y = std::mem::take(&mut sums[*out]);
                let second = second.map_or(&[][..], |slot| &*codes[slot]);
                let base = match *shortcut {
                    Some(Place::Codes { slot, .. }) => Base::Codes(&codes[slot]),
                    Some(Place::Sums { slot, .. }) => Base::Stream(&sums[slot]),
                    _ => Base::None,
                };
                let inputs = LayerInputs { main: &codes[*main], second, shortcut: &[] };
                layer.run_stream(workers, inputs, base, &mut y);
                sums[*out] = y;
            }
            Layer::GeneralStream { main, second, shortcut, step, res_mul, out: (out, layout) } => {
                let [wide, wide2] = wide;
                let acc = main.run(codes, sums, wide);
                let acc2 = second.as_ref().map(|second| second.run(codes, sums, wide2));
                for (i, &acc) in acc.iter().enumerate() {
                    let (pixel, c) = (i / layout.c, i % layout.c);
                    let (y, x) = (pixel / layout.w, pixel % layout.w);
                    let res = match shortcut {
                        Some((Place::Codes { slot, .. }, s)) => s.code(&codes[*slot], y, x, c).into(),
                        Some((Place::Sums { slot, .. }, s)) => i64::from(s.code(&sums[*slot], y, x, c)),
                        _ => 0,
                    };
                    let value = i64::from(step.apply(c, acc, acc2.map_or(0, |acc2| acc2[i]), 0));
                    sums[*out][layout.offset(y, x) + c] = (value + res * i64::from(*res_mul)) as i32;
                }
            }
            Layer::Act { step, input: (slot, x_layout), out: (out, layout) } => {
                let (x, y) = (&sums[*slot], &mut codes[*out]);
                step.run_tensor(workers, (x, *x_layout), (y, *layout));
            }
            Layer::Concat { inputs, out } => {
                let mut first = 0;
                for &input in inputs {
                    first += match (input, *out) {
                        (Place::Codes { slot, layout }, Place::Codes { slot: to, layout: y }) => {
                            let [y_codes, x] =
                                codes.get_disjoint_mut([to, slot]).expect("a layer does not overwrite what it reads");
                            copy_channels(x, layout, y_codes, y, first)
                        }
                        (Place::Sums { slot, layout }, Place::Sums { slot: to, layout: y }) => {
                            let [y_values, x] =
                                sums.get_disjoint_mut([to, slot]).expect("a layer does not overwrite what it reads");
                            copy_channels(x, layout, y_values, y, first)
                        }
                        _ => unreachable!("a concatenation keeps the kind of its inputs"),
                    };
                }
            }
            Layer::SumPool { input: (slot, layout), out: (sum, out) } => {
                let at = out.offset(0, 0);
                let total = &mut sums[*sum][at..at + layout.cs];
                total.fill(0);
                for y in 0..layout.h {
                    let row = &codes[*slot][layout.offset(y, 0)..][..layout.w * layout.cs];
                    for pixel in row.chunks_exact(layout.cs) {
                        for (total, &code) in total.iter_mut().zip(pixel) {
                            *total += i32::from(code);
                        }
                    }
                }
            }
        }
    }
}

/// Copies the channels of `x` to those of `y` from `first`, and returns how many they are.
fn copy_channels<T: Copy>(x: &[T], from: Layout, y: &mut [T], to: Layout, first: usize) -> usize {
    for (row, column) in (0..from.h).flat_map(|row| (0..from.w).map(move |column| (row, column))) {
        let at = to.offset(row, column) + first;
        y[at..at + from.c].copy_from_slice(&x[from.offset(row, column)..][..from.c]);
    }
    from.c
}

/// Sums over windows of codes whose border holds what padding means.
fn window_sum<T: Copy>(window: Window, x: &[u8], from: Layout, y: &mut [T], to: Layout, narrow: impl Fn(i32) -> T) {
    let mut total = vec![0i32; from.cs];
    let (first, row_len) = (from.border - window.pad, from.row());
    for (row, column) in (0..to.h).flat_map(|row| (0..to.w).map(move |column| (row, column))) {
        total.fill(0);
        for a in 0..window.kernel {
            let at = (first + row * window.stride + a) * row_len + (first + column * window.stride) * from.cs;
            for pixel in x[at..][..window.kernel * from.cs].chunks_exact(from.cs) {
                total.iter_mut().zip(pixel).for_each(|(total, &code)| *total += i32::from(code));
            }
        }
        let at = to.offset(row, column);
        y[at..at + to.c].iter_mut().zip(&total).for_each(|(y, &sum)| *y = narrow(sum));
    }
}
