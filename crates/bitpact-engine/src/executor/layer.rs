//! One layer of a plan: what it reads, how it computes, where it writes.

use bitpact_core::step::IntegerStep;
use bitpact_kernels::pool2d::{Window, max_forward};
use bitpact_kernels::{Aligned, Layout, StepU8};

use super::arena::{Arena, Place};
use super::general::GeneralProduct;
use super::product::ConvProduct;

/// A product and where its input lies.
#[derive(Debug)]
pub(super) struct Product<P> {
    pub(super) kernel: P,
    pub(super) input: Place,
}

/// Residual codes: as they are, or copied to a shortcut of the arena first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residual {
    pub(super) slot: usize,
    pub(super) layout: Layout,
    pub(super) copy: Option<Copied>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    pub(super) shortcut: usize,
    pub(super) layout: Layout,
    pub(super) stride: usize,
    pub(super) pad_before: usize,
}

/// One layer, ready to run.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A network has tens of them.
pub(super) enum Layer {
    /// Products, step and codes in the kernels.
    Fused {
        main: Product<ConvProduct>,
        second: Option<Product<ConvProduct>>,
        residual: Option<Residual>,
        step: StepU8,
        acc_len: usize,
        out: usize,
    },
    /// The same in 64-bit scalar arithmetic.
    General {
        main: Product<GeneralProduct>,
        second: Option<Product<GeneralProduct>>,
        residual: Option<Residual>,
        step: IntegerStep,
        out: usize,
        layout: Layout,
    },
    Logits {
        main: Product<ConvProduct>,
        mul: Vec<i32>,
        add: Vec<i64>,
        acc_len: usize,
    },
    GeneralLogits {
        main: Product<GeneralProduct>,
        mul: Vec<i32>,
        add: Vec<i64>,
    },
    MaxPool {
        window: Window,
        input: (usize, Layout),
        out: (usize, Layout),
    },
    SumPool {
        input: (usize, Layout),
        out: (usize, Layout),
    },
}

impl Product<ConvProduct> {
    /// Writes accumulator `which` of the arena.
    fn run(&self, codes: &[Aligned<u8>], acc: &mut [i32], scratch: &mut [i32]) {
        if let Place::Codes { slot, .. } = self.input {
            self.kernel.run(&codes[slot], acc, scratch);
        }
    }
}

impl Product<GeneralProduct> {
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

impl Residual {
    /// Fills the shortcut where there is one.
    fn prepare(&self, codes: &[Aligned<u8>], shortcuts: &mut [Aligned<u8>]) {
        let Some(Copied { shortcut, layout, stride, pad_before }) = self.copy else { return };
        let (from, to) = (&codes[self.slot], &mut shortcuts[shortcut]);
        for (y, x) in (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| (y, x))) {
            let pixel = &from[self.layout.offset(y * stride, x * stride)..][..self.layout.c];
            let at = layout.offset(y, x) + pad_before;
            to[at..at + self.layout.c].copy_from_slice(pixel);
        }
    }
}

/// The output slot for writing, the slot of the residual codes for reading.
fn two(codes: &mut [Aligned<u8>], out: usize, res: usize) -> (&mut [u8], &[u8]) {
    let [out, res] = codes.get_disjoint_mut([out, res]).expect("a layer does not overwrite what it reads");
    (out, res)
}

impl Layer {
    /// Computes the layer from the arena into the arena.
    pub(super) fn run(&self, arena: &mut Arena) {
        let Arena { codes, sums, shortcuts, acc, wide, logits } = arena;
        let [acc, acc2, scratch] = acc;
        match self {
            Layer::Fused { main, second, residual, step, acc_len, out } => {
                let acc = &mut acc[..*acc_len];
                main.run(codes, acc, scratch);
                let acc2: &[i32] = match second {
                    Some(second) => {
                        let acc2 = &mut acc2[..*acc_len];
                        second.run(codes, acc2, scratch);
                        acc2
                    }
                    None => &[],
                };
                match residual {
                    None => step.run(acc, acc2, &[], &mut codes[*out]),
                    Some(residual) => {
                        residual.prepare(codes, shortcuts);
                        match residual.copy {
                            Some(copy) => step.run(acc, acc2, &shortcuts[copy.shortcut], &mut codes[*out]),
                            None => {
                                let (y, res) = two(codes, *out, residual.slot);
                                step.run(acc, acc2, res, y);
                            }
                        }
                    }
                }
            }
            Layer::General { main, second, residual, step, out, layout } => {
                let [wide, wide2] = wide;
                let acc = main.run(codes, sums, wide);
                let acc2 = second.as_ref().map(|second| second.run(codes, sums, wide2));
                if let Some(residual) = residual {
                    residual.prepare(codes, shortcuts);
                }
                for (i, &acc) in acc.iter().enumerate() {
                    let (pixel, c) = (i / layout.c, i % layout.c);
                    let (y, x) = (pixel / layout.w, pixel % layout.w);
                    let res = residual.map_or(0, |r| match r.copy {
                        Some(copy) => shortcuts[copy.shortcut][copy.layout.offset(y, x) + c],
                        None => codes[r.slot][r.layout.offset(y, x) + c],
                    });
                    let code = step.apply(c, acc, acc2.map_or(0, |acc2| acc2[i]), res.into());
                    codes[*out][layout.offset(y, x) + c] = code as u8;
                }
            }
            Layer::Logits { main, mul, add, acc_len } => {
                let acc = &mut acc[..*acc_len];
                main.run(codes, acc, scratch);
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
            Layer::MaxPool { window, input, out } => {
                let (y, x) = two(codes, out.0, input.0);
                max_forward(*window, x, input.1, y, out.1);
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
