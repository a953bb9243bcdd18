//! The walk of a weight gradient in f32 that all SIMD paths share.

use std::ops::Range;

use super::LANES;
use super::kernel::Lanes;
use super::sweep::{Images, Sweep};

/// Pixels whose weight gradient is summed in registers before it is added to the partial sum: rows of one image, or
/// several images.
const GRAD_CHUNK: usize = 128;

/// What one sum in registers covers: some rows of some images.
#[derive(Clone, Copy)]
struct Part {
    images: Images,
    rows: (usize, usize),
}

/// Adds the weight gradient of images to `partial`, for blocks `blocks` of 16 channels of dy, in tiles of `C1` channels
/// of x times `V1` registers (one block of 16 channels of dy), or `C2` times `V2` (two blocks) where `V2` is not 0 and
/// two blocks are left.
///
/// # Safety
/// `x` and `dy` are valid for reads of `sweep`'s x and y length at every image, `partial` for reads and writes of
/// `[blocks][taps][reads][16]` elements; `blocks` are some of the sweep's.
#[inline(always)]
pub(super) unsafe fn weight_grad<L, const C1: usize, const V1: usize, const C2: usize, const V2: usize>(
    lanes: L,
    sweep: &Sweep,
    images: Images,
    x: *const f32,
    dy: *const f32,
    partial: *mut f32,
    blocks: Range<usize>,
) where
    L: Lanes<X = f32, W = f32, Y = f32>,
{
    let block_len = sweep.taps().len() * sweep.reads() * LANES;
    let rows = (GRAD_CHUNK / sweep.cols().max(1)).max(1);
    let at_once = (GRAD_CHUNK / sweep.pixels().max(1)).max(1);
    for first in (0..images.n).step_by(at_once) {
        let images = Images { n: at_once.min(images.n - first), ..images };
        let (x, dy) = (x.wrapping_add(first * images.x), dy.wrapping_add(first * images.dy));
        for row in (0..sweep.rows()).step_by(rows) {
            let part = Part { images, rows: (row, (row + rows).min(sweep.rows())) };
            let mut block = blocks.start;
            while block < blocks.end {
                let two = V2 > 0 && blocks.end - block >= 2;
                let dy = dy.wrapping_add(block * LANES);
                let partial = partial.wrapping_add((block - blocks.start) * block_len);
                // All taps of some channels read the same lines of x.
                for first in (0..sweep.reads()).step_by(LANES) {
                    let channels = LANES.min(sweep.reads() - first);
                    for (t, tap) in sweep.taps().iter().enumerate() {
                        let x = x.wrapping_add(tap.offset + first);
                        let partial = partial.wrapping_add((t * sweep.reads() + first) * LANES);
                        if two {
                            // SAFETY: the caller's promise, for some channels at one tap of two blocks.
                            unsafe {
                                grad_channels::<L, C2, V2>(lanes, sweep, part, channels, x, dy, partial, block_len)
                            };
                        } else {
                            // SAFETY: the caller's promise, for some channels at one tap of one block.
                            unsafe {
                                grad_channels::<L, C1, V1>(lanes, sweep, part, channels, x, dy, partial, block_len)
                            };
                        }
                    }
                }
                block += if two { 2 } else { 1 };
            }
        }
    }
}

/// One tap, some channels of x, V registers of channels of dy.
///
/// # Safety
/// As for [`weight_grad`], with `x`, `dy` and `partial` at the first elements of the tap, the channels and the block.
#[inline(always)]
unsafe fn grad_channels<L, const C: usize, const V: usize>(
    lanes: L,
    sweep: &Sweep,
    part: Part,
    channels: usize,
    x: *const f32,
    dy: *const f32,
    partial: *mut f32,
    block_len: usize,
) where
    L: Lanes<X = f32, W = f32, Y = f32>,
{
    let mut c = 0;
    while c < channels {
        let (x, partial, rest) = (x.wrapping_add(c), partial.wrapping_add(c * LANES), channels - c);
        if rest >= C {
            // SAFETY: the caller's promise, for C channels of x.
            unsafe { grad_tile::<L, C, V>(lanes, sweep, part, x, dy, partial, block_len) };
            c += C;
        } else if rest >= 3 {
            // SAFETY: as above, for 3 channels.
            unsafe { grad_tile::<L, 3, V>(lanes, sweep, part, x, dy, partial, block_len) };
            c += 3;
        } else {
            // SAFETY: as above, for one channel.
            unsafe { grad_tile::<L, 1, V>(lanes, sweep, part, x, dy, partial, block_len) };
            c += 1;
        }
    }
}

/// `C` channels of x by V registers of channels of dy, over the pixels of a part.
///
/// # Safety
/// As for [`grad_channels`], with C channels of x.
#[inline(always)]
unsafe fn grad_tile<L, const C: usize, const V: usize>(
    lanes: L,
    sweep: &Sweep,
    part: Part,
    x: *const f32,
    dy: *const f32,
    partial: *mut f32,
    block_len: usize,
) where
    L: Lanes<X = f32, W = f32, Y = f32>,
{
    let per_block = LANES / L::WIDTH;
    let out =
        |c: usize, v: usize| partial.wrapping_add((v / per_block) * block_len + c * LANES + (v % per_block) * L::WIDTH);
    for c in 0..C {
        for v in 0..V {
            lanes.prefetch(out(c, v));
        }
    }
    let mut sums = [[lanes.zero(); V]; C];
    for image in 0..part.images.n {
        let (x, dy) = (x.wrapping_add(image * part.images.x), dy.wrapping_add(image * part.images.dy));
        for r in part.rows.0..part.rows.1 {
            let mut x = x.wrapping_add(sweep.x_at(r, 0));
            let mut dy = dy.wrapping_add(sweep.y_at(r, 0));
            for _ in 0..sweep.cols() {
                let d: [L::Weights; V] = std::array::from_fn(|v| {
                    // SAFETY: the sweep's invariant: all channels of a pixel of the grid are within dy.
                    unsafe { lanes.weights(dy.wrapping_add(v * L::WIDTH)) }
                });
                for c in 0..C {
                    // SAFETY: the sweep's invariant: a tap's channels are within x.
                    let xv = unsafe { lanes.word(x.wrapping_add(c)) };
                    for v in 0..V {
                        sums[c][v] = lanes.multiply_add(sums[c][v], xv, d[v]);
                    }
                }
                x = x.wrapping_add(sweep.x_col());
                dy = dy.wrapping_add(sweep.y_col());
            }
        }
    }
    for c in 0..C {
        for v in 0..V {
            // SAFETY: the caller's promise.
            let old = unsafe { lanes.load(out(c, v)) };
            // SAFETY: the caller's promise.
            unsafe { lanes.store(out(c, v), lanes.add(old, sums[c][v])) };
        }
    }
}
