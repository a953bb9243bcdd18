//! Direct products on SIMD units: every word of the window of a pixel meets the weights of a block of channels.

use std::ops::Range;

use super::dot::{Narrow, Vnni256, Vnni512, Words16};
use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::tile::Sums;
use super::walk::{Pixels, Walk};
use super::widened::Widened;
use super::{Product, ProductSpec};
use crate::isa::{AvxVnni, Isa, Proof};

/// Words between two flushes of 16-bit sums, on average, from which on they beat products of 16-bit words.
const LEAST_NARROW_WORDS: usize = 3;

/// The direct kernels for `spec`, the best first.
pub(super) fn candidates(isa: Isa, spec: &ProductSpec<'_>) -> Vec<Box<dyn Product>> {
    fn direct<D: Instructions>(dot: D, block: usize, spec: &ProductSpec<'_>) -> Option<Box<dyn Product>> {
        Direct::new(dot, block, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>)
    }
    let is_bytes = spec.codes.iter().all(|&q| i8::try_from(q).is_ok());
    let is_vnni = AvxVnni::detect().filter(|_| isa == Isa::AvxVnni && is_bytes);
    let (avx2, bytes) = match isa.prove() {
        Proof::Scalar => return Vec::new(),
        Proof::Avx2(token) => match is_vnni {
            Some(vnni) => return direct(Vnni256(vnni), 16, spec).into_iter().collect(),
            None => (token, direct(Narrow(token), 16, spec)),
        },
        Proof::Avx512(token) if is_bytes => {
            return direct(Vnni512(token), if spec.geometry.cout > 16 { 32 } else { 16 }, spec).into_iter().collect();
        }
        Proof::Avx512(token) => (token.avx2(), None),
    };
    bytes.into_iter().chain([Box::new(Widened::new(Words16(avx2), spec)) as Box<dyn Product>]).collect()
}

/// Whether the sums of `blocks` panels are flushed rarely enough.
fn pays<D: Instructions>(panels: &Panels, blocks: usize) -> bool {
    let (words, flushes) = panels.words_and_flushes();
    D::REACH.is_none() || flushes == blocks || words >= LEAST_NARROW_WORDS * flushes
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
        for first in (0..spec.geometry.cout).step_by(block) {
            packer.begin();
            for word in &words {
                packer.push(word.offset, (first..first + block).map(|o| spec.word(o, word)).collect());
            }
        }
        let panels = packer.finish();
        pays::<D>(&panels, spec.geometry.cout.div_ceil(block)).then(|| Self {
            dot,
            walk: Walk::new(spec),
            block,
            panels,
        })
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
        let pixels = Pixels { walk: &self.walk, first, bytes: 1 };
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let sums = Sums { first: acc[i * self.block..].as_mut_ptr(), stride };
            // SAFETY: the lengths and rows were checked above; panels are made of the walk's words; the block's channels lie
            // inside each pixel's `stride` sums.
            unsafe { self.dot.run(pixels, rows.len() * width, self.panels.get(b), sums) };
        }
    }
}
