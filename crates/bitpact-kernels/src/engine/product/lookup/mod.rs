//! Exact products of narrow weights by table look-up: one byte permute gives every channel the product of several
//! codes.
//!
//! Weights with few levels at equal distances are `w = step * u - zero` with a digit `u` of one or two bits, so that
//!
//! ```text
//! sum of w * x = step * (sum of u * x) - zero * (sum of x)
//! ```
//!
//! where the last sum is one number a pixel. The digits of a group of consecutive channels are the index of a table of
//! 16 or 64 bytes, of which there is one for each value the group's codes may take, made when the kernel is: entry `d`
//! of a table is the sum of its codes times the digits of `d`. Where those would be too many, there is one for each
//! value of half of the codes, and a group's table is the sum of two. `prepare` replaces every group of codes by the
//! places of its tables. Sums are taken in bytes, and widened before the digits that were met could carry one beyond
//! 255.

mod digits;
mod nest;
mod places;
mod shuffle;

use std::ops::Range;

use super::tile::{Segment, Sums};
use super::walk::{Pixels, Walk};
use super::{Builder, Product, ProductSpec};
use crate::machine::isa::{Avx512, Isa, Proof};
use crate::machine::layout::{Aligned, Layout};
use crate::machine::registers::Registers;
use crate::machine::weights::Weights;
use digits::Digits;
use nest::Panel;
use places::{Strip, Tables};
use shuffle::{Shuffle, Sixteen, Vbmi};

/// Most bytes of the tables of one term: they share the first-level cache with the codes and the sums.
const MOST_TABLE_BYTES: usize = 4096;

/// Look-ups between two flushes, on average, from which on they beat other kernels. A flush costs as much as 1.5
/// look-ups; with digits of 2 bits, codes up to 3 allow 14 in the worst case, codes up to 7 allow 6.
const LEAST_WORDS: usize = 5;

/// Largest sum of a pixel and channel: what 16 bits hold.
const LARGEST_SUM: u64 = u16::MAX as u64;

/// A product by look-up.
#[derive(Debug)]
struct Lookup<S> {
    shuffle: S,
    walk: Walk,
    x: Layout,
    digits: Digits,
    places: Tables,
    /// Groups of a pixel.
    groups: usize,
    /// Rows and columns of the window.
    window: (usize, usize),
    cout: usize,
    block: usize,
    tables: Aligned<u8>,
    segments: Vec<Segment>,
    /// Where segments and indices of each panel begin, and those of the last end.
    begins: Vec<(usize, usize)>,
    /// `[panel][group of codes][channel]`, channels in the order of [`Shuffle`].
    indices: Weights<u8>,
}

/// The look-up kernel for `spec`; `None` where weights have more than four levels, tables would be too many, or other
/// kernels are faster.
pub(super) fn builder<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> Option<Builder<'a>> {
    fn build<'a, S: Shuffle>(shuffle: S, digits: Digits, spec: &'a ProductSpec<'a>) -> Builder<'a> {
        Box::new(move || Lookup::new(shuffle, digits, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>))
    }
    if spec.groups != 1 || spec.x_max > 15 {
        return None;
    }
    let digits = Digits::of(spec.codes)?;
    match isa.prove() {
        Proof::Scalar => None,
        Proof::Avx2(token) => Some(build(Sixteen(token), digits, spec)),
        Proof::Avx512(token) => match vbmi(token, digits, spec.x_max) {
            Some(vbmi) => Some(build(vbmi, digits, spec)),
            None => Some(build(Sixteen(token), digits, spec)),
        },
    }
}

/// From which on look-ups are faster on AVX-512.
#[derive(Clone, Copy)]
struct Least {
    /// Products of an input code: fewer do not make up for `prepare`.
    products: usize,
    /// Output channels, which fill registers.
    channels: usize,
    /// Input channels where there is a Winograd kernel.
    transformed: usize,
}

/// With tables of 64 entries.
const LEAST_VBMI: Least = Least { products: 64, channels: 64, transformed: 64 };

/// With tables of 16, for digits of one bit and of two.
const LEAST_AVX512: [Least; 2] = [
    Least { products: 64, channels: 64, transformed: 128 },
    Least { products: 512, channels: 128, transformed: usize::MAX },
];

/// Output channels from which on AVX2 look-ups fill enough registers to beat direct products.
const LEAST_CHANNELS_AVX2: usize = 64;

/// The same of digits of two bits at a stride, where fewer pixels share what `prepare` does.
const LEAST_STRIDED_AVX2: usize = 128;

/// Bytes of transformed weights from which on look-ups, which read an eighth of them or less, beat Winograd products.
const LARGE_TRANSFORM: usize = 2 << 20;

/// Whether look-ups are the best kernel for a `spec` that they can compute, as measured (`docs/kernels.md`);
/// `transforms` says that there is a Winograd kernel.
pub(super) fn is_best(isa: Isa, spec: &ProductSpec<'_>, transforms: bool) -> bool {
    let g = &spec.geometry;
    let is_large = 16 * g.cin * g.cout > LARGE_TRANSFORM;
    let is_worth = |digits: Digits| match isa.prove() {
        Proof::Avx512(token) => {
            let Least { products, channels, transformed } = match vbmi(token, digits, spec.x_max) {
                Some(_) => LEAST_VBMI,
                None => LEAST_AVX512[digits.bits as usize - 1],
            };
            g.cout >= channels
                && g.kh * g.kw * g.cout >= products * g.stride * g.stride
                && (!transforms || is_large || g.cin >= transformed)
        }
        _ => {
            let least = if digits.bits == 2 && g.stride > 1 { LEAST_STRIDED_AVX2 } else { LEAST_CHANNELS_AVX2 };
            g.cout >= least && (!transforms || is_large || digits.bits == 1)
        }
    };
    Digits::of(spec.codes).is_some_and(is_worth)
}

/// Tables of 64 entries, where the CPU has their instruction and they are not too many.
fn vbmi(token: Avx512, digits: Digits, x_max: u8) -> Option<Vbmi> {
    Vbmi::detect(token).filter(|_| tables::<Vbmi>(digits, x_max).is_some())
}

/// The tables for codes up to `x_max`; `None` where they would be too many.
fn tables<S: Shuffle>(digits: Digits, x_max: u8) -> Option<Tables> {
    let (group, code_bits) = (digits.group(S::ENTRIES), x_max.max(1).ilog2() + 1);
    (1..=S::MOST_TERMS)
        .filter(|&terms| group.is_multiple_of(terms))
        .map(|terms| Tables { code_bits, codes: group / terms, terms, entries: S::ENTRIES })
        .find(|tables| tables.term_bytes() <= MOST_TABLE_BYTES)
}

impl<S: Shuffle> Lookup<S> {
    fn new(shuffle: S, digits: Digits, spec: &ProductSpec<'_>) -> Option<Self> {
        let g = &spec.geometry;
        let largest_digit = (1 << digits.bits) - 1;
        let window_codes = (g.kh * g.kw * g.cin) as u64;
        if window_codes * u64::from(spec.x_max) * largest_digit > LARGEST_SUM {
            return None;
        }
        let channels = g.cout.next_multiple_of(S::Isa::BYTES);
        // Digits of two bits gain less than they would lose to a register with a third of its channels unused.
        if digits.bits == 2 && 3 * g.cout < 2 * channels {
            return None;
        }
        let block = if channels.is_multiple_of(2 * S::Isa::BYTES) { 2 * S::Isa::BYTES } else { S::Isa::BYTES };
        let places = tables::<S>(digits, spec.x_max)?;
        let groups = g.cin.div_ceil(places.group());
        let mut kernel = Self {
            shuffle,
            walk: Walk::new(spec).repacked(spec.x.cs, groups),
            x: spec.x,
            digits,
            places,
            groups,
            window: (g.kh, g.kw),
            cout: g.cout,
            block,
            tables: Aligned::from_slice(&places.bytes(digits.bits)),
            segments: Vec::new(),
            begins: Vec::new(),
            indices: spec.arena.keep(&[]),
        };
        let indices = kernel.pack(spec);
        let flushes = kernel.segments.iter().filter(|s| s.flush).count();
        let panels = kernel.begins.len() - 1;
        let words = indices.len() / block;
        if flushes > panels && words < LEAST_WORDS * flushes {
            return None;
        }
        kernel.indices = spec.arena.keep(&indices);
        Some(kernel)
    }

    /// Lays out the indices, with the segments of each panel.
    fn pack(&mut self, spec: &ProductSpec<'_>) -> Vec<u8> {
        let (g, block, bits) = (&spec.geometry, self.block, self.digits.bits);
        let window = g.kh * g.kw;
        let lines = window * self.groups;
        let mut indices = vec![0; g.cout.next_multiple_of(block) * lines];
        for (first, panel) in (0..g.cout).step_by(block).zip(indices.chunks_exact_mut(block * lines)) {
            let channels: Vec<&[i16]> = (0..block)
                .map(|lane| first + S::channel(lane))
                .map(|o| if o < g.cout { spec.channel(o) } else { &[] })
                .collect();
            // `[in][tap]` to `[tap][group]`, the weights of a group while they are in the cache.
            for (group, tap) in (0..self.groups).flat_map(|group| (0..window).map(move |tap| (group, tap))) {
                let line = tap * self.groups + group;
                let from = group * self.places.group();
                let inputs = self.places.group().min(g.cin - from);
                for (index, channel) in panel[line * block..][..block].iter_mut().zip(&channels) {
                    let Some(codes) = channel.get(from * window + tap..).filter(|codes| !codes.is_empty()) else {
                        continue;
                    };
                    *index = (0..inputs)
                        .fold(0, |index, k| index | (self.digits.digit(codes[k * window]) << (bits * k as u32)) as u8);
                }
            }
            self.begins.push((self.segments.len(), first * lines));
            self.segment(panel, spec.x_max, g.kw);
        }
        self.begins.push((self.segments.len(), indices.len()));
        indices
    }

    /// Adds the segments of a panel: a flush where the digits that any channel has met could carry a byte beyond 255.
    fn segment(&mut self, panel: &[u8], x_max: u8, kw: usize) {
        let (begin, bits) = (self.segments.len(), self.digits.bits);
        let limit = u16::from(u8::MAX / x_max.max(1));
        let mut sums = vec![0_u16; self.block];
        for (line, indices) in panel.chunks_exact(self.block).enumerate() {
            let (tap, group) = (line / self.groups, line % self.groups);
            let offset = ((tap / kw * self.row_pixels() + tap % kw) * self.groups + group) as u32;
            let digits = |index: u8| {
                let mask = (1 << bits) - 1;
                (0..8 / bits).fold(0, |sum, k| sum + u16::from((index >> (bits * k)) & mask))
            };
            let mut largest = 0;
            for (sum, &index) in sums.iter_mut().zip(indices) {
                *sum += digits(index);
                largest = largest.max(*sum);
            }
            if largest > limit {
                // One look-up alone fits, as codes up to 15 times all digits of an index do.
                sums.iter_mut().zip(indices).for_each(|(sum, &index)| *sum = digits(index));
                if let Some(last) = self.segments[begin..].last_mut() {
                    last.flush = true;
                }
            }
            match self.segments[begin..].last_mut() {
                Some(last) if !last.flush && last.offset + last.words == offset => last.words += 1,
                _ => self.segments.push(Segment { offset, words: 1, flush: false }),
            }
        }
        if let Some(last) = self.segments[begin..].last_mut() {
            last.flush = true;
        }
    }

    /// Pixels from one row to the next.
    fn row_pixels(&self) -> usize {
        self.x.w + 2 * self.x.border
    }

    /// Pixels that so many rows read, from the first to the last.
    fn pixels_read(&self, rows: usize) -> usize {
        let (kh, kw) = self.window;
        let last = self.walk.at(rows - 1, self.walk.width - 1) - self.walk.at(0, 0);
        last / self.groups + (kh - 1) * self.row_pixels() + kw
    }

    /// Bytes of the places of so many rows, of the sums of codes of their outputs, and of the pixels they read.
    fn parts(&self, rows: usize) -> [usize; 3] {
        let pixels = self.pixels_read(rows);
        [(2 * self.places.terms * pixels * self.groups).next_multiple_of(64), 4 * rows * self.walk.width, 2 * pixels]
    }

    /// The sum of the codes that each output of rows from `row` on reads, from that of each pixel.
    fn window_sums(&self, row: usize, pixels: &[[u8; 2]], sums: &mut [[u8; 4]]) {
        let (kh, kw) = self.window;
        let first = self.walk.at(row, 0);
        let step = (self.walk.at(0, 1) - self.walk.at(0, 0)) / self.groups;
        for (i, sums) in sums.chunks_exact_mut(self.walk.width).enumerate() {
            let begin = (self.walk.at(row + i, 0) - first) / self.groups;
            for tap in 0..kh * kw {
                let pixels = &pixels[begin + tap / kw * self.row_pixels() + tap % kw..];
                for (sum, pixel) in sums.iter_mut().zip(pixels.iter().step_by(step)) {
                    let so_far = if tap == 0 { 0 } else { u32::from_le_bytes(*sum) };
                    *sum = (so_far + u32::from(u16::from_le_bytes(*pixel))).to_le_bytes();
                }
            }
        }
    }
}

impl<S: Shuffle> Product for Lookup<S> {
    fn name(&self) -> String {
        format!("look-up {}", S::NAME)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn strip_pixels(&self) -> usize {
        // Rows of windows of 3 are prepared again for every strip that reads them.
        192
    }

    fn scratch_bytes(&self, rows: usize) -> usize {
        self.parts(rows).iter().sum()
    }

    fn weight_bytes(&self) -> usize {
        self.indices.len() + self.tables.len()
    }

    fn prepare(&self, x: &[u8], rows: Range<usize>, scratch: &mut [u8]) {
        assert_eq!(x.len(), self.x.len(), "elements of the tensor read");
        assert!(rows.start < rows.end && rows.end <= self.walk.height, "rows {rows:?} of {}", self.walk.height);
        let [places, sums, _] = self.parts(rows.len());
        let (places, rest) = scratch[..self.scratch_bytes(rows.len())].split_at_mut(places);
        let (sums, pixel_sums) = rest.split_at_mut(sums);
        let pixels = self.pixels_read(rows.len());
        let strip = Strip {
            x: &x[self.walk.at(rows.start, 0) / self.groups * self.x.cs..][..pixels * self.x.cs],
            channels: (self.x.c, self.x.cs),
            places: &mut places.as_chunks_mut().0[..pixels * self.groups * self.places.terms],
            sums: pixel_sums.as_chunks_mut().0,
        };
        self.shuffle.fill(&self.places, strip);
        self.window_sums(rows.start, pixel_sums.as_chunks().0, sums.as_chunks_mut().0);
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        let (stride, width) = (channels.len(), self.walk.width);
        assert_eq!(x.len(), self.x.len(), "elements of the tensor read");
        assert!(scratch.len() >= self.scratch_bytes(rows.len()), "places of {rows:?}");
        assert!(
            channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block),
            "channels {channels:?}"
        );
        assert_eq!(acc.len(), rows.len() * width * stride, "accumulators");
        let [places, sums, _] = self.parts(rows.len());
        let (places, rest) = scratch.split_at(places);
        let sums = rest[..sums].as_chunks::<4>().0;
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let to = Sums { first: acc[i * self.block..].as_mut_ptr(), stride };
            let Some((&(segments, indices), &(segments_end, indices_end))) =
                self.begins.get(b).zip(self.begins.get(b + 1))
            else {
                acc[i * self.block..].chunks_mut(stride).for_each(|acc| acc[..self.block].fill(0));
                continue;
            };
            let panel = Panel {
                segments: &self.segments[segments..segments_end],
                indices: &self.indices[indices..indices_end],
                tables: &self.tables,
                step: self.digits.step,
                zero: self.digits.zero,
                sums,
            };
            let source = Pixels::new(&self.walk, places.as_ptr(), 2 * self.places.terms);
            // SAFETY: `places` holds what these rows read, each the place of a table of its term; panels are made of
            // the window's words; the block's channels lie inside each pixel's `stride` sums.
            unsafe { self.shuffle.run(source, panel, (self.block / S::Isa::BYTES, self.places.terms), to) };
            let beyond = self.cout.saturating_sub(b * self.block);
            if beyond < self.block {
                acc[i * self.block..].chunks_mut(stride).for_each(|acc| acc[beyond..self.block].fill(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::ScalarProduct;
    use super::*;
    use crate::machine::ConvGeometry;
    use crate::machine::weights::WeightArena;

    /// With VBMI a machine would not meet the kernels of one without.
    #[test]
    fn tables_of_sixteen_and_of_64_entries_give_the_same_sums() {
        let Some(token) = Avx512::detect() else { return };
        for (step, levels, cin, x_max) in [(2, 2, 64, 3), (2, 2, 41, 3), (2, 4, 48, 3), (1, 3, 20, 1), (2, 2, 7, 1)] {
            let geometry = ConvGeometry { kh: 3, kw: 3, stride: 1, pad: 1, cin, cout: 100 };
            let codes: Vec<i16> = (0..geometry.weights()).map(|i| (i * i * 7 / 5 % levels) as i16 * step - 1).collect();
            let layout = Layout::new(6, 7, cin, 1);
            let x: Vec<u8> = (0..layout.len()).map(|i| (i * 13 / 3 % (x_max + 1)) as u8).collect();
            let spec = ProductSpec {
                geometry,
                x: layout,
                x_max: x_max as u8,
                groups: 1,
                codes: &codes,
                arena: &WeightArena::new(),
            };
            let digits = Digits::of(&codes).expect("four levels");
            let sums = |kernel: &dyn Product| {
                let mut scratch = Aligned::zeroed(kernel.scratch_bytes(6));
                let mut acc = vec![0; 6 * 7 * 128];
                kernel.prepare(&x, 0..6, &mut scratch);
                kernel.accumulate(&x, &mut scratch, 0..6, 0..128, &mut acc);
                acc
            };
            let expected = sums(&ScalarProduct::new(&spec));
            let small = Lookup::new(Sixteen(token), digits, &spec).expect("tables of 16");
            assert!(sums(&small) == expected, "{levels} levels, {cin} channels, codes to {x_max}");
            if let Some(vbmi) = vbmi(token, digits, x_max as u8) {
                let large = Lookup::new(vbmi, digits, &spec).expect("tables of 64");
                assert!(sums(&large) == expected, "tables of 64, {levels} levels, {cin} channels, codes to {x_max}");
            }
        }
    }
}
