//! Direct products on SIMD units: every word of the window of a pixel meets the weights of a block of channels.

use std::ops::Range;

use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::pixel_lanes::PixelLanes;
use super::tile::Sums;
use super::walk::{Pixels, Walk};
use super::widened::Widened;
use super::{Builder, Product, ProductSpec};
use crate::machine::isa::{AvxVnni, Isa, Proof};
use crate::machine::registers::dot::{Bytes, Narrow, Words};

/// The direct kernels for `spec`, the best first.
pub(super) fn builders<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> Vec<Builder<'a>> {
    fn direct<'a, D: Instructions>(dot: D, block: usize, spec: &'a ProductSpec<'a>) -> Builder<'a> {
        Box::new(move || Direct::new(dot, block, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>))
    }
    let is_bytes = spec.codes.iter().all(|&q| i8::try_from(q).is_ok());
    fn words<'a, D: Instructions>(dot: D, block: usize, spec: &'a ProductSpec<'a>) -> Builder<'a> {
        Box::new(move || Some(Box::new(Widened::new(dot, block, spec))))
    }
    let wide = if spec.geometry.cout > 16 { 32 } else { 16 };
    match isa.prove() {
        Proof::Scalar => Vec::new(),
        Proof::Avx2(token) => match AvxVnni::detect().filter(|_| isa == Isa::AvxVnni && is_bytes) {
            Some(vnni) => vec![direct(Bytes(vnni), 16, spec)],
            None if is_bytes => {
                let pixel_lanes: Builder<'a> =
                    Box::new(move || Some(Box::new(PixelLanes::new(token, spec)?) as Box<dyn Product>));
                vec![direct(Narrow(token), 16, spec), pixel_lanes, words(Words(token), 16, spec)]
            }
            None => vec![words(Words(token), 16, spec)],
        },
        Proof::Avx512(token) if is_bytes => vec![direct(Bytes(token), wide, spec)],
        Proof::Avx512(token) => vec![words(Words(token), wide, spec)],
    }
}

/// A direct product on the instructions `D`.
#[derive(Debug)]
struct Direct<D> {
    dot: D,
    walk: Walk,
    block: usize,
    panels: Panels,
}

impl<D: Instructions> Direct<D> {
    /// Packs the weights; `None` where the instructions do not suit them.
    fn new(dot: D, block: usize, spec: &ProductSpec<'_>) -> Option<Self> {
        let words = Walk::words::<4>(spec);
        let mut packer = Packer::<D>::new(block, spec.x_max);
        let mut lanes = vec![[0; 4]; block];
        for first in (0..spec.geometry.cout).step_by(block) {
            packer.begin();
            for word in &words {
                spec.lanes(first, word, &mut lanes);
                packer.push(word.offset, &lanes);
            }
            // Where 16 bits do not suit the first channels, they will not suit the others.
            if first == 0 && !packer.pays() {
                return None;
            }
        }
        packer.pays().then(|| Self { dot, walk: Walk::new(spec), block, panels: packer.finish(spec.arena) })
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
        let (stride, width) = (channels.len(), self.walk.width);
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(rows.start <= rows.end && rows.end <= self.walk.height, "rows {rows:?} of {}", self.walk.height);
        assert!(
            channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block),
            "channels {channels:?}"
        );
        assert_eq!(acc.len(), rows.len() * width * stride, "accumulators");
        let first = x.as_ptr().wrapping_add(self.walk.at(rows.start, 0));
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let sums = Sums { first: acc[i * self.block..].as_mut_ptr(), stride };
            // SAFETY: the lengths and rows were checked above; panels are made of the walk's words; the block's
            // channels lie inside each pixel's `stride` sums.
            unsafe { self.dot.run(Pixels::new(&self.walk, first, 1), rows.len() * width, self.panels.get(b), sums) };
        }
    }
}
