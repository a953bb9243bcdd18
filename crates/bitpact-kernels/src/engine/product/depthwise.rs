//! Depthwise products: output channel c sees input channel c alone, 16 channels at a time. The loops are written once
//! and compiled for every instruction set.

use std::ops::Range;

use super::walk::Walk;
use super::{Builder, Product, ProductSpec};
use crate::machine::isa::Isa;
use crate::machine::on_isa;

/// Channels computed together.
const BLOCK: usize = 16;

/// A depthwise product; in `SHORT_SUMS` ones the sums of a pass are taken in 16 bits.
#[derive(Debug)]
pub(super) struct Depthwise<const SHORT_SUMS: bool> {
    isa: Isa,
    walk: Walk,
    /// Elements from the first element that an output pixel reads, per tap.
    offsets: Vec<usize>,
    /// `[block][tap][channel]`.
    weights: Vec<[i16; BLOCK]>,
}

/// The depthwise kernels for `spec`, the best first; none where it is not depthwise or a product leaves 16 bits.
pub(super) fn builders<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> Vec<Builder<'a>> {
    let g = &spec.geometry;
    let x_max = i32::from(spec.x_max);
    let is_depthwise = spec.groups > 1 && spec.groups == g.cin && spec.groups == g.cout;
    let fits = |q: i32| q * x_max <= i32::from(i16::MAX);
    if !is_depthwise || !spec.x.cs.is_multiple_of(BLOCK) || !spec.codes.iter().all(|&q| fits(i32::from(q).abs())) {
        return Vec::new();
    }
    let magnitude = |pass: &[i16]| fits(pass.iter().map(|&q| i32::from(q).abs()).sum());
    let is_narrow = (0..g.cout).all(|c| passes(g.kh * g.kw).all(|taps| magnitude(&spec.channel(c)[taps])));
    let mut list: Vec<Builder<'a>> = Vec::new();
    if is_narrow {
        list.push(Box::new(move || Some(Box::new(Depthwise::<true>::new(isa, spec)))));
    }
    list.push(Box::new(move || Some(Box::new(Depthwise::<false>::new(isa, spec)))));
    list
}

/// Taps that are summed together, in registers: 9, 3 or 1.
fn passes(taps: usize) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let n = [9, 3, 1].into_iter().find(|n| from + n <= taps)?;
        from += n;
        Some(from - n..from)
    })
}

impl<const SHORT_SUMS: bool> Depthwise<SHORT_SUMS> {
    fn new(isa: Isa, spec: &ProductSpec<'_>) -> Self {
        let (g, x) = (&spec.geometry, &spec.x);
        let walk = Walk::new(spec);
        let taps = || (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b)));
        let offsets: Vec<usize> = taps().map(|(a, b)| a * x.row() + b * x.cs).collect();
        let weight = |c: usize, tap: usize| if c < g.cout { spec.channel(c)[tap] } else { 0 };
        let blocks = (0..g.cout).step_by(BLOCK);
        let of_block =
            |first: usize| (0..offsets.len()).map(move |tap| std::array::from_fn(|i| weight(first + i, tap)));
        let weights = blocks.flat_map(of_block).collect();
        Self { isa, walk, offsets, weights }
    }

    /// Sums `T` taps of one block of channels over `rows`; adds them to what `acc` holds where `add` says so.
    #[inline(always)]
    fn pass<const T: usize>(
        &self,
        (first, from): (usize, usize),
        x: &[u8],
        rows: Range<usize>,
        acc: &mut [i32],
        stride: usize,
    ) {
        let taps = self.offsets.len();
        let weights: &[[i16; BLOCK]; T] =
            self.weights[first / BLOCK * taps + from..].first_chunk().expect("a block has every tap");
        let weights = *weights;
        let offsets: [usize; T] = std::array::from_fn(|t| self.offsets[from + t] + first);
        let mut out = acc.chunks_mut(stride);
        for r in rows {
            for q in 0..self.walk.width {
                let x = &x[self.walk.at(r, q)..];
                let block = |t: usize| -> &[u8; BLOCK] { x[offsets[t]..].first_chunk().expect("taps lie inside x") };
                let Some(out) = out.next().and_then(|out| out.first_chunk_mut::<BLOCK>()) else { return };
                let mut sums = if from == 0 { [0; BLOCK] } else { *out };
                if SHORT_SUMS {
                    let mut narrow = [0i16; BLOCK];
                    for t in 0..T {
                        let x = block(t);
                        for i in 0..BLOCK {
                            narrow[i] = narrow[i].wrapping_add(i16::from(x[i]).wrapping_mul(weights[t][i]));
                        }
                    }
                    for i in 0..BLOCK {
                        sums[i] += i32::from(narrow[i]);
                    }
                } else {
                    for t in 0..T {
                        let x = block(t);
                        for i in 0..BLOCK {
                            sums[i] += i32::from(i16::from(x[i]).wrapping_mul(weights[t][i]));
                        }
                    }
                }
                *out = sums;
            }
        }
    }

    #[inline(always)]
    fn sum(&self, x: &[u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        let stride = channels.len();
        for first in channels.clone().step_by(BLOCK) {
            let acc = &mut acc[first - channels.start..];
            if first / BLOCK * self.offsets.len() >= self.weights.len() {
                acc.chunks_mut(stride).for_each(|acc| acc[..BLOCK].fill(0));
                continue;
            }
            for taps in passes(self.offsets.len()) {
                let at = (first, taps.start);
                match taps.len() {
                    9 => self.pass::<9>(at, x, rows.clone(), acc, stride),
                    3 => self.pass::<3>(at, x, rows.clone(), acc, stride),
                    _ => self.pass::<1>(at, x, rows.clone(), acc, stride),
                }
            }
        }
    }
}

impl<const SHORT_SUMS: bool> Product for Depthwise<SHORT_SUMS> {
    fn name(&self) -> String {
        format!("depthwise 1x16_{}_{}", self.isa, if SHORT_SUMS { "i16" } else { "i32" })
    }

    fn block(&self) -> usize {
        BLOCK
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&*self.weights)
    }

    fn accumulate(&self, x: &[u8], _scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(rows.start <= rows.end && rows.end <= self.walk.height, "rows {rows:?} of {}", self.walk.height);
        assert!(channels.start.is_multiple_of(BLOCK) && channels.len().is_multiple_of(BLOCK), "channels {channels:?}");
        assert_eq!(acc.len(), rows.len() * self.walk.width * channels.len(), "accumulators");
        on_isa!(self.isa, |_FMA| self.sum(x, rows.clone(), channels.clone(), acc));
    }
}
