//! Direct products on SIMD units: every word of the window of a pixel meets the weights of a block of channels.

use std::ops::Range;

use super::dot::{Narrow, Vnni512, Wide};
use super::gathered::Gathered;
use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::split::Split;
use super::tile::Sums;
use super::walk::{Pixels, Walk};
use super::{Product, ProductSpec};
use crate::isa::Proof;

/// Words between two flushes of 16-bit sums, on average, from which on they are worth the additions in memory.
const LEAST_NARROW_WORDS: usize = 6;

/// The direct kernels for `spec`, the best first.
pub(super) fn candidates(proof: Proof, spec: &ProductSpec<'_>) -> Vec<Box<dyn Product>> {
    fn add<D: Instructions>(list: &mut Vec<Box<dyn Product>>, dot: D, block: usize, spec: &ProductSpec<'_>) {
        list.extend(Gathered::new(dot, block, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>));
        if !spec.x.cs.is_multiple_of(4) {
            return;
        }
        if spec.codes.iter().all(|&q| i8::try_from(q).is_ok()) {
            list.extend(Direct::new(dot, block, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>));
        } else {
            list.extend(Split::new(dot, block, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>));
        }
    }
    let mut list = Vec::new();
    match proof {
        Proof::Scalar => {}
        Proof::Avx2(token) => {
            add(&mut list, Narrow(token), 16, spec);
            add(&mut list, Wide(token), 16, spec);
        }
        Proof::Avx512(token) => add(&mut list, Vnni512(token), if spec.geometry.cout > 16 { 32 } else { 16 }, spec),
    }
    list
}

/// Whether the sums of `blocks` panels are flushed rarely enough.
pub(super) fn pays<D: Instructions>(panels: &Panels, blocks: usize) -> bool {
    let (words, flushes) = panels.words_and_flushes();
    D::REACH.is_none() || flushes == blocks || words >= LEAST_NARROW_WORDS * flushes
}

/// A direct product on the instructions `D`.
#[derive(Debug)]
pub(super) struct Direct<D> {
    dot: D,
    walk: Walk,
    block: usize,
    panels: Panels,
}

impl<D: Instructions> Direct<D> {
    /// Packs the weights; `None` where the instructions do not suit them.
    pub(super) fn new(dot: D, block: usize, spec: &ProductSpec<'_>) -> Option<Self> {
        let (walk, words) = Walk::new(spec);
        let mut packer = Packer::<D>::new(block, spec.x_max);
        for first in (0..spec.geometry.cout).step_by(block) {
            packer.begin();
            for word in &words {
                packer.push(word.offset, (first..first + block).map(|o| spec.word(o, word)).collect());
            }
        }
        let panels = packer.finish();
        pays::<D>(&panels, spec.geometry.cout.div_ceil(block)).then_some(Self { dot, walk, block, panels })
    }

    /// [`Product::accumulate`], or, to `add`, the same added to what `acc` holds.
    pub(super) fn run(&self, x: &[u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32], add: bool) {
        let (stride, width) = (channels.len(), self.walk.width);
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(rows.start <= rows.end && rows.end <= self.walk.height, "rows {rows:?} of {}", self.walk.height);
        assert!(channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block), "channels {channels:?}");
        assert_eq!(acc.len(), rows.len() * width * stride, "accumulators");
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let pixels = Pixels { walk: &self.walk, x: x.as_ptr(), first_row: rows.start };
            let sums = Sums { first: acc[i * self.block..].as_mut_ptr(), stride, add };
            // SAFETY: the lengths and rows were checked above; panels are made of the walk's words; the block's channels lie
            // inside each pixel's `stride` sums.
            unsafe { self.dot.run(pixels, rows.len() * width, self.panels.get(b), sums) };
        }
    }
}

impl<D: Instructions> Product for Direct<D> {
    fn name(&self) -> String {
        format!("direct {}", D::NAME)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes()
    }

    fn accumulate(&self, x: &[u8], _scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        self.run(x, rows, channels, acc, false);
    }
}
