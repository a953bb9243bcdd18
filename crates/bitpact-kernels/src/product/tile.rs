//! The loop nest of direct products: tiles of pixels times registers of channels, over segments of words.

use std::ops::Range;

use super::dot::Dot;
use super::walk::Walk;

/// Consecutive words of x, which meet consecutive weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Elements from the first element that an output pixel reads.
    pub(super) offset: u32,
    /// Words of four codes.
    pub(super) words: u32,
    /// Whether sums are widened and added up after it.
    pub(super) flush: bool,
}

/// One block of channels: its walk over x, and the weights in that order, `[word][channel][4]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// Its channels.
    pub(super) channels: usize,
    pub(super) segments: &'a [Segment],
    pub(super) weights: &'a [i8],
}

/// Where the sums of a block go: `stride` numbers from one pixel to the next.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) first: *mut i32,
    pub(super) stride: usize,
    /// Whether they are added to what is there.
    pub(super) add: bool,
}

/// All pixels of some rows for one block of `V` registers, in tiles of `P` pixels.
///
/// # Safety
/// `x` is valid for reads of `walk.x_len` elements; `rows` are rows of the walk; every segment lies within the walk's words and
/// the block holds `4 * V * LANES` weights for each word of its segments; `sums` is valid for writes of `V * LANES` numbers at each
/// pixel of `rows`.
#[inline(always)]
pub(super) unsafe fn strip<D: Dot, const P: usize, const V: usize>(
    d: D,
    walk: &Walk,
    block: Block<'_>,
    x: *const u8,
    rows: Range<usize>,
    sums: Sums,
) {
    let pixels = rows.len() * walk.width;
    let mut done = 0;
    while done < pixels {
        let n = (pixels - done).min(P);
        let at = (rows.start + done / walk.width, done % walk.width);
        let sums = Sums { first: sums.first.wrapping_add(done * sums.stride), ..sums };
        // SAFETY: the caller's promise; the next n pixels lie in the rows.
        unsafe {
            match n {
                1 => tile::<D, 1, V>(d, walk, block, x, at, n, sums),
                2 => tile::<D, 2, V>(d, walk, block, x, at, n, sums),
                3..=4 => tile::<D, 4, V>(d, walk, block, x, at, n, sums),
                _ => tile::<D, P, V>(d, walk, block, x, at, n, sums),
            }
        }
        done += n;
    }
}

/// The next `n` of at most `P` pixels; the sums of the other `P - n` are computed and dropped.
///
/// # Safety
/// As for [`strip`].
#[inline(always)]
unsafe fn tile<D: Dot, const P: usize, const V: usize>(
    d: D,
    walk: &Walk,
    block: Block<'_>,
    x: *const u8,
    at: (usize, usize),
    n: usize,
    out: Sums,
) {
    let xs: [*const u8; P] = walk.take::<P>(at, n).map(|at| x.wrapping_add(at));
    let mut w = block.weights.as_ptr();
    let mut sums = [[d.zero(); V]; P];
    let mut is_written = out.add;
    for segment in block.segments {
        let mut at = segment.offset as usize;
        let end = at + 4 * segment.words as usize;
        while at < end {
            let weights: [D::Vector; V] = std::array::from_fn(|v| {
                // SAFETY: the caller's promise: V registers of weights for each word.
                unsafe { d.load(w.wrapping_add(v * 4 * D::LANES)) }
            });
            w = w.wrapping_add(V * 4 * D::LANES);
            for p in 0..P {
                // SAFETY: the walk's invariant.
                let x = unsafe { d.broadcast(xs[p].wrapping_add(at)) };
                for v in 0..V {
                    sums[p][v] = d.dot(sums[p][v], x, weights[v]);
                }
            }
            at += 4;
        }
        if segment.flush {
            for p in 0..P {
                for v in 0..V {
                    let to = out.first.wrapping_add(p * out.stride + v * D::LANES);
                    let mut sum = d.widen(sums[p][v]);
                    if p < n {
                        if is_written {
                            // SAFETY: the caller's promise; the first flush, or who asked to add, has written it.
                            sum = d.add(sum, unsafe { d.load(to) });
                        }
                        // SAFETY: the caller's promise.
                        unsafe { d.store(to, sum) };
                    }
                    sums[p][v] = d.zero();
                }
            }
            is_written = true;
        }
    }
}
