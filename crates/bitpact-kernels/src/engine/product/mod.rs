//! Products of integer codes: sums of u8 activation codes times weight codes over a window, exact, for one strip of
//! output rows and a range of output channels at a time.
//!
//! ```text
//! acc[r, q, o] = sum over i, a, b of w[o, i, a, b] * x[i, r*s + a - p, q*s + b - p]
//! ```
//!
//! What comes outside the image is what the border of `x` holds. [`candidates`] lists the kernels of sums of plain
//! products; each says by itself whether it can compute a product exactly, and all of them give the same sums.

#[cfg(target_arch = "x86_64")]
mod amx;
mod depthwise;
#[cfg(target_arch = "x86_64")]
mod direct;
#[cfg(target_arch = "x86_64")]
mod instructions;
#[cfg(target_arch = "x86_64")]
mod lookup;
#[cfg(target_arch = "x86_64")]
mod packed;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(target_arch = "x86_64")]
mod pixel_lanes;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tile;
mod walk;
#[cfg(target_arch = "x86_64")]
mod widened;
#[cfg(target_arch = "x86_64")]
mod winograd;

use std::ops::Range;

use crate::machine::ConvGeometry;
use crate::machine::isa::Isa;
use crate::machine::layout::Layout;
use crate::machine::weights::WeightArena;

/// Everything a kernel may specialize on.
#[derive(Debug, Clone, Copy)]
pub struct ProductSpec<'a> {
    /// Window, stride, padding and channels.
    pub geometry: ConvGeometry,
    /// The tensor read. Its border is at least the padding; its channel stride is a multiple of 4, or its channels lie
    /// without gaps and a row of the window has at least 4 codes.
    pub x: Layout,
    /// Largest code of `x`, border and unused channels included.
    pub x_max: u8,
    /// Equal groups of input and output channels.
    pub groups: usize,
    /// Weight codes, OIHW with `I = cin / groups`.
    pub codes: &'a [i16],
    /// Memory for the packed weights of the network.
    pub arena: &'a WeightArena,
}

impl ProductSpec<'_> {
    /// Output rows and columns.
    pub fn output(&self) -> (usize, usize) {
        self.geometry.output(self.x.h, self.x.w)
    }

    /// Multiplications of one image.
    pub fn macs(&self) -> u64 {
        let (h, w) = self.output();
        (h * w * self.codes.len()) as u64
    }

    /// Weights of output channel `o`, `[in][row][column]`.
    fn channel(&self, o: usize) -> &[i16] {
        let n = self.codes.len() / self.geometry.cout;
        &self.codes[o * n..(o + 1) * n]
    }

    /// Weights of the output channels from `first` on for the codes of a word, 0 where a code meets none or is of
    /// another group, and beyond the last channel.
    #[cfg(target_arch = "x86_64")]
    fn lanes<const K: usize>(&self, first: usize, word: &walk::Word<K>, lanes: &mut [[i16; K]]) {
        let (g, inputs, outputs) = (&self.geometry, self.geometry.cin / self.groups, self.geometry.cout / self.groups);
        // Group and place in a channel of each code of the word.
        let places = word
            .places
            .map(|place| place.map_or((usize::MAX, 0), |[i, a, b]| (i / inputs, ((i % inputs) * g.kh + a) * g.kw + b)));
        for (lane, o) in lanes.iter_mut().zip(first..) {
            *lane = [0; K];
            if o < g.cout {
                let (channel, group) = (self.channel(o), if self.groups == 1 { 0 } else { o / outputs });
                for (w, (of, at)) in lane.iter_mut().zip(places) {
                    if of == group {
                        *w = channel[at];
                    }
                }
            }
        }
    }

    /// Tells whether all sums, partial ones included, fit 32 bits.
    fn fits_i32(&self) -> bool {
        self.fits_i32_times(1)
    }

    /// Tells whether `factor` times any sum, partial ones included, fits 32 bits.
    fn fits_i32_times(&self, factor: i64) -> bool {
        (0..self.geometry.cout).all(|o| {
            let (lo, hi) = bitpact_core::requant::accumulator_range(self.channel(o), 0, self.x_max.into());
            factor * lo >= i64::from(i32::MIN) && factor * hi <= i64::from(i32::MAX)
        })
    }
}

/// One way to compute a product, with its weights packed for it.
pub trait Product: Send + Sync + std::fmt::Debug {
    /// Algorithm, tile and instructions, such as `direct 6x16_avx2_i16`.
    fn name(&self) -> String;

    /// Channels computed together; ranges of channels start and end at multiples of it (or at the last channel).
    fn block(&self) -> usize;

    /// Pixels a strip should have: enough to use the kernel's tiles, few enough that what it keeps of them stays in
    /// cache.
    fn strip_pixels(&self) -> usize {
        96
    }

    /// Rows of a strip begin at multiples of this.
    fn row_step(&self) -> usize {
        1
    }

    /// Unused pixels of accumulators between two rows of a strip.
    fn row_gap(&self) -> usize {
        0
    }

    /// Bytes of scratch memory for a strip of so many rows.
    fn scratch_bytes(&self, _rows: usize) -> usize {
        0
    }

    /// Bytes of packed weights.
    fn weight_bytes(&self) -> usize;

    /// What all channels of a strip share, written to `scratch`.
    fn prepare(&self, _x: &[u8], _rows: Range<usize>, _scratch: &mut [u8]) {}

    /// Writes `acc[pixel of the strip][channel of the range]`, with [`Product::row_gap`] pixels between two rows, in
    /// which it may leave anything; `channels.len()` is a multiple of 16, channels beyond the last give zeros.
    ///
    /// # Panics
    /// If a length is wrong or a range leaves the output.
    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]);
}

/// Builds one kernel; `None` where it cannot compute the product exactly, or never would be the best.
type Builder<'a> = Box<dyn Fn() -> Option<Box<dyn Product>> + 'a>;

/// The kernels that compute `spec` exactly on `isa`, the one to be picked first; built as they are asked for. Empty
/// where a sum, or a partial sum of any kernel, could leave 32 bits.
///
/// # Panics
/// If the machine lacks `isa`, or layouts do not fit.
pub fn candidates<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> impl Iterator<Item = Box<dyn Product>> + 'a {
    let g = &spec.geometry;
    assert!(g.cin.is_multiple_of(spec.groups) && g.cout.is_multiple_of(spec.groups), "{} groups of {g:?}", spec.groups);
    assert_eq!(spec.codes.len(), g.weights() / spec.groups, "weights of {g:?}");
    assert_eq!(spec.x.c, g.cin, "input channels of {g:?}");
    let is_readable = spec.x.cs.is_multiple_of(4) || (spec.x.cs == g.cin && g.kw * g.cin >= 4);
    assert!(is_readable && spec.x.border >= g.pad, "{:?} for {g:?}", spec.x);
    let mut list: Vec<Builder<'a>> = Vec::new();
    if spec.fits_i32() {
        #[cfg(target_arch = "x86_64")]
        {
            list.extend(amx::builder(isa, spec));
            let (looked_up, transformed) = (lookup::builder(isa, spec), winograd::builders(isa, spec));
            let direct = direct::builders(isa, spec);
            let is_looked_up = looked_up.is_some() && lookup::is_best(isa, spec, !transformed.is_empty());
            let (first, last) = if is_looked_up { (looked_up, None) } else { (None, looked_up) };
            list.extend(first);
            if winograd::is_best(isa, spec) {
                list.extend(transformed.into_iter().chain(direct));
            } else {
                list.extend(direct.into_iter().chain(transformed));
            }
            list.extend(last);
        }
        list.splice(0..0, depthwise::builders(isa, spec));
        if list.is_empty() {
            list.push(Box::new(|| Some(Box::new(scalar::ScalarProduct::new(spec)))));
        }
    }
    list.into_iter().filter_map(|build| build())
}
