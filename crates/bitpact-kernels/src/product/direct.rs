//! Direct products on SIMD units: packing, and the proof that the sums of each segment fit.

use std::ops::Range;

use super::dot::{Dot, Narrow, Vnni512, Wide};
use super::split::Split;
use super::tile::{Block, Segment, Sums, strip};
use super::walk::{Walk, Word};
use super::{Product, ProductSpec};
use crate::isa::Proof;
use crate::layout::Aligned;

/// Words between two flushes of 16-bit sums, on average, from which on they are worth the additions in memory.
const LEAST_NARROW_WORDS: usize = 6;

/// The direct kernels for `spec`, the best first.
pub(super) fn candidates(proof: Proof, spec: &ProductSpec<'_>) -> Vec<Box<dyn Product>> {
    fn add<D: Instructions>(list: &mut Vec<Box<dyn Product>>, dot: D, block: usize, spec: &ProductSpec<'_>) {
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

/// The loop nest compiled for one path.
pub(super) trait Instructions: Dot {
    const NAME: &'static str;

    /// [`strip`] for a block of 16 or 32 channels.
    ///
    /// # Safety
    /// As for [`strip`].
    unsafe fn strip(self, walk: &Walk, block: Block<'_>, x: *const u8, rows: Range<usize>, sums: Sums);
}

macro_rules! instructions {
    ($dot:ident, $name:literal, $features:literal, $pixels:literal x $registers:literal $(, wide $p2:literal x $v2:literal)?) => {
        impl Instructions for $dot {
            const NAME: &'static str = $name;

            unsafe fn strip(self, walk: &Walk, block: Block<'_>, x: *const u8, rows: Range<usize>, sums: Sums) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(d: $dot, walk: &Walk, block: Block<'_>, x: *const u8, rows: Range<usize>, sums: Sums) {
                    $(if block.channels == $v2 * $dot::LANES {
                        // SAFETY: the caller's promise.
                        return unsafe { strip::<$dot, $p2, $v2>(d, walk, block, x, rows, sums) };
                    })?
                    // SAFETY: the caller's promise.
                    unsafe { strip::<$dot, $pixels, $registers>(d, walk, block, x, rows, sums) }
                }
                // SAFETY: self proves the features; the rest is the caller's promise.
                unsafe { compiled(self, walk, block, x, rows, sums) }
            }
        }
    };
}
instructions!(Narrow, "direct_6x16_avx2_i16", "avx2,fma", 6 x 2);
instructions!(Wide, "direct_6x16_avx2_i32", "avx2,fma", 6 x 2);
instructions!(Vnni512, "direct_8x32_avx512vnni", "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma", 16 x 1, wide 8 x 2);

/// A direct product on the instructions `D`.
#[derive(Debug)]
pub(super) struct Direct<D> {
    dot: D,
    walk: Walk,
    /// Channels of a block.
    block: usize,
    /// `[block][word of its segments][channel][4]`.
    weights: Aligned<i8>,
    segments: Vec<Segment>,
    /// Where segments and weights of each block begin, and those of the last end.
    begins: Vec<(usize, usize)>,
}

impl<D: Instructions> Direct<D> {
    /// Packs the weights; `None` where the instructions do not suit them.
    pub(super) fn new(dot: D, block: usize, spec: &ProductSpec<'_>) -> Option<Self> {
        let (walk, words) = Walk::new(spec);
        let cout = spec.geometry.cout;
        let (mut packed, mut begins) = (Packed::default(), Vec::new());
        for first in (0..cout).step_by(block) {
            begins.push((packed.segments.len(), packed.weights.len()));
            let mut sums = HalfLanes::<D>::new(block, spec.x_max);
            for word in &words {
                let lanes = (first..first + block).map(|o| spec.word(o, word).map(|w| w as i8)).collect();
                for lanes in sums.split(lanes) {
                    if !sums.add(&lanes) {
                        packed.flush();
                        sums.clear();
                        // A word alone that does not fit has no place here.
                        if !sums.add(&lanes) {
                            return None;
                        }
                    }
                    packed.push(word, &lanes);
                }
            }
            packed.finish(begins[begins.len() - 1].0);
        }
        let Packed { weights, segments } = packed;
        begins.push((segments.len(), weights.len()));
        let flushes = segments.iter().filter(|s| s.flush).count();
        let pays = D::REACH.is_none() || flushes < begins.len() || weights.len() >= LEAST_NARROW_WORDS * flushes * 4 * block;
        pays.then(|| Self { dot, walk, block, weights: Aligned::from_slice(&weights), segments, begins })
    }
}

/// Segments and weights while they are laid out.
#[derive(Default)]
struct Packed {
    weights: Vec<i8>,
    segments: Vec<Segment>,
}

impl Packed {
    fn push(&mut self, word: &Word, lanes: &[[i8; 4]]) {
        self.weights.extend(lanes.as_flattened());
        let offset = word.offset as u32;
        match self.segments.last_mut() {
            Some(last) if !last.flush && last.offset + 4 * last.words == offset => last.words += 1,
            _ => self.segments.push(Segment { offset, words: 1, flush: false }),
        }
    }

    fn flush(&mut self) {
        if let Some(last) = self.segments.last_mut() {
            last.flush = true;
        }
    }

    /// Ends the block that began with segment `begin`: it has a segment, and the last one is flushed.
    fn finish(&mut self, begin: usize) {
        if self.segments.len() == begin {
            self.segments.push(Segment { offset: 0, words: 0, flush: false });
        }
        self.flush();
    }
}

/// The largest sums that the half lanes of a block can have reached since the last flush, of either sign.
struct HalfLanes<D> {
    x_max: i64,
    sums: Vec<[i64; 2]>,
    dot: std::marker::PhantomData<D>,
}

impl<D: Dot> HalfLanes<D> {
    fn new(block: usize, x_max: u8) -> Self {
        Self { x_max: x_max.into(), sums: vec![[0; 2]; 2 * block], dot: std::marker::PhantomData }
    }

    fn clear(&mut self) {
        self.sums.fill([0; 2]);
    }

    /// The word, without its second weights where a pair of products could leave 16 bits, and those in a second word; words of
    /// zeros are left out.
    fn split(&self, mut lanes: Vec<[i8; 4]>) -> Vec<Vec<[i8; 4]>> {
        let mut rest = vec![[0; 4]; lanes.len()];
        let limit = i64::from(i16::MAX) / self.x_max.max(1);
        if D::PAIRS_SATURATE {
            for (lane, rest) in lanes.iter_mut().zip(&mut rest) {
                for (a, b) in [(0, 1), (2, 3)] {
                    let is_same = (lane[a] < 0) == (lane[b] < 0);
                    if is_same && (i64::from(lane[a]) + i64::from(lane[b])).abs() > limit {
                        rest[b] = std::mem::take(&mut lane[b]);
                    }
                }
            }
        }
        [lanes, rest].into_iter().filter(|lanes| lanes.iter().any(|w| *w != [0; 4])).collect()
    }

    /// Adds the products of a word, and says whether all sums still fit.
    fn add(&mut self, lanes: &[[i8; 4]]) -> bool {
        let Some(reach) = D::REACH else { return true };
        let halves = lanes.iter().flat_map(|w| [[w[0], w[1]], [w[2], w[3]]]);
        for (sum, pair) in self.sums.iter_mut().zip(halves) {
            for w in pair {
                sum[usize::from(w < 0)] += i64::from(w).abs() * self.x_max;
            }
        }
        self.sums.iter().flatten().all(|&sum| sum <= reach)
    }
}

impl<D: Instructions> Direct<D> {
    /// [`Product::accumulate`], or, to `add`, the same added to what `acc` holds.
    pub(super) fn run(&self, x: &[u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32], add: bool) {
        let (stride, width) = (channels.len(), self.walk.width);
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(rows.start <= rows.end && rows.end <= self.walk.height, "rows {rows:?} of {}", self.walk.height);
        assert!(channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block), "channels {channels:?}");
        assert_eq!(acc.len(), rows.len() * width * stride, "accumulators");
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let ((segments, weights), (segments_end, weights_end)) = (self.begins[b], self.begins[b + 1]);
            let block = Block {
                channels: self.block,
                segments: &self.segments[segments..segments_end],
                weights: &self.weights[weights..weights_end],
            };
            let sums = Sums { first: acc[i * self.block..].as_mut_ptr(), stride, add };
            // SAFETY: the lengths and rows were checked above; segments are made of the walk's words with `4 * block` weights
            // each; the block's channels lie inside each pixel's `stride` sums.
            unsafe { self.dot.strip(&self.walk, block, x.as_ptr(), rows.clone(), sums) };
        }
    }
}

impl<D: Instructions> Product for Direct<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn block(&self) -> usize {
        self.block
    }

    fn weight_bytes(&self) -> usize {
        self.weights.len()
    }

    fn accumulate(&self, x: &[u8], _scratch: &[u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        self.run(x, rows, channels, acc, false);
    }
}
