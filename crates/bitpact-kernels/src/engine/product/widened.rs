//! Direct products of codes widened to 16 bits, for codes and weights too wide for sums of bytes in 16 bits.

use std::ops::Range;

use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::tile::Sums;
use super::walk::{Pixels, Walk};
use super::{Product, ProductSpec};

/// A product of 16-bit codes and weights: `prepare` widens what a strip reads.
#[derive(Debug)]
pub(super) struct Widened<D> {
    dot: D,
    walk: Walk,
    block: usize,
    panels: Panels,
    /// Elements from the first one that an output pixel reads to the end of its last word.
    window: usize,
}

impl<D: Instructions> Widened<D> {
    /// Packs the weights, for instructions that multiply words of two numbers.
    pub(super) fn new(dot: D, block: usize, spec: &ProductSpec<'_>) -> Self {
        let words = Walk::words::<2>(spec);
        let mut packer = Packer::<D>::new(block, spec.x_max);
        let mut lanes = vec![[0; 2]; block];
        for first in (0..spec.geometry.cout).step_by(block) {
            packer.begin();
            for word in &words {
                spec.lanes(first, word, &mut lanes);
                packer.push16(2 * word.offset, &lanes);
            }
        }
        let window = words.iter().map(|word| word.offset + 2).max().unwrap_or(0);
        Self { dot, walk: Walk::new(spec), block, panels: packer.finish(spec.arena), window }
    }

    /// Elements that so many rows read, from the first to the last.
    fn elements(&self, rows: usize) -> usize {
        self.walk.at(rows - 1, self.walk.width - 1) - self.walk.at(0, 0) + self.window
    }
}

impl<D: Instructions> Product for Widened<D> {
    fn name(&self) -> String {
        format!("direct {}", D::NAME)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn scratch_bytes(&self, rows: usize) -> usize {
        2 * self.elements(rows)
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes()
    }

    fn prepare(&self, x: &[u8], rows: Range<usize>, scratch: &mut [u8]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        let x = &x[self.walk.at(rows.start, 0)..][..self.elements(rows.len())];
        let scratch = &mut scratch[..2 * x.len()];
        // A little-endian word of 16 bits is the code and a zero.
        for (to, &code) in scratch.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            *to = u16::from(code).to_le_bytes();
        }
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        let (stride, width) = (channels.len(), self.walk.width);
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(scratch.len() >= self.scratch_bytes(rows.len()), "widened codes of {rows:?}");
        assert!(
            channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block),
            "channels {channels:?}"
        );
        assert_eq!(acc.len(), rows.len() * width * stride, "accumulators");
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let sums = Sums { first: acc[i * self.block..].as_mut_ptr(), stride };
            // SAFETY: `scratch` holds what these rows read; panels are made of the walk's words; the block's channels
            // lie inside each pixel's `stride` sums.
            unsafe {
                self.dot.run(Pixels::new(&self.walk, scratch.as_ptr(), 2), rows.len() * width, self.panels.get(b), sums)
            };
        }
    }
}
