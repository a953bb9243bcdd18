//! Products over few channels, such as those of an image: the window of each pixel is copied together first, so that no word
//! is half empty and every pixel reads one run of words.

use std::ops::Range;

use super::direct::pays;
use super::instructions::Instructions;
use super::panels::{Packer, Panels};
use super::tile::{Flat, Sums};
use super::walk::Walk;
use super::{MOST_DENSE_CHANNELS, Product, ProductSpec};

/// Bytes of one copy.
const COPY: usize = 32;

/// A product over gathered windows on the instructions `D`.
#[derive(Debug)]
pub(super) struct Gathered<D> {
    dot: D,
    walk: Walk,
    block: usize,
    panels: Panels,
    /// Rows of the window, bytes of one, and bytes from one to the next in x.
    window: [usize; 3],
}

impl<D: Instructions> Gathered<D> {
    /// Packs the weights; `None` where the instructions do not suit them, or the channels of x have gaps.
    pub(super) fn new(dot: D, block: usize, spec: &ProductSpec<'_>) -> Option<Self> {
        let (g, x) = (&spec.geometry, &spec.x);
        if x.cs != g.cin || g.cin > MOST_DENSE_CHANNELS || spec.groups != 1 {
            return None;
        }
        let row = g.kw * g.cin;
        let mut packer = Packer::<D>::new(block, spec.x_max);
        for first in (0..g.cout).step_by(block) {
            packer.begin();
            for word in (0..g.kh * row).step_by(4) {
                let weight = |o: usize, e: usize| {
                    let (a, b, i) = (e / row, e % row / g.cin, e % g.cin);
                    if o < g.cout && a < g.kh { spec.codes[((o * g.cin + i) * g.kh + a) * g.kw + b] } else { 0 }
                };
                let lanes = (first..first + block).map(|o| std::array::from_fn(|k| weight(o, word + k)));
                packer.push(word, lanes.collect());
            }
        }
        let panels = packer.finish();
        pays::<D>(&panels, g.cout.div_ceil(block)).then(|| Self {
            dot,
            walk: Walk::new(spec).0,
            block,
            panels,
            window: [g.kh, row, x.row()],
        })
    }

    /// Bytes of a gathered window, and the reach of the last copy.
    fn pixel_bytes(&self) -> usize {
        let [rows, row, _] = self.window;
        (rows * row).next_multiple_of(4)
    }
}

impl<D: Instructions> Product for Gathered<D> {
    fn name(&self) -> String {
        format!("gathered {}", D::NAME)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn scratch_bytes(&self, rows: usize) -> usize {
        rows * self.walk.width * self.pixel_bytes() + COPY
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes()
    }

    fn prepare(&self, x: &[u8], rows: Range<usize>, scratch: &mut [u8]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        let ([height, row, distance], size) = (self.window, self.pixel_bytes());
        let pixels = rows.flat_map(|r| (0..self.walk.width).map(move |q| (r, q)));
        for (i, (r, q)) in pixels.enumerate() {
            let at = self.walk.at(r, q);
            for a in 0..height {
                let (from, to) = (at + a * distance, i * size + a * row);
                // What a whole copy writes too much, the next row or pixel writes again.
                match (x[from..].first_chunk::<COPY>(), scratch[to..].first_chunk_mut::<COPY>()) {
                    (Some(from), Some(to)) if row <= COPY => *to = *from,
                    _ => scratch[to..to + row].copy_from_slice(&x[from..from + row]),
                }
            }
        }
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        let (pixels, stride) = (rows.len() * self.walk.width, channels.len());
        assert!(channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block), "channels {channels:?}");
        assert!(acc.len() == pixels * stride && scratch.len() >= self.scratch_bytes(rows.len()), "accumulators");
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let source = Flat { first: scratch.as_ptr(), stride: self.pixel_bytes() };
            let sums = Sums { first: acc[i * self.block..].as_mut_ptr(), stride, add: false };
            // SAFETY: `scratch` holds a window for each pixel, and words of panels lie within a window; the block's channels lie
            // inside each pixel's `stride` sums.
            unsafe { self.dot.run(source, pixels, self.panels.get(b), sums) };
        }
    }
}
