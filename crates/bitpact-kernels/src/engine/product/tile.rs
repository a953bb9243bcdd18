//! The loop nest of direct products: tiles of pixels times registers of channels, over segments of words.

use crate::machine::registers::Registers;
use crate::machine::registers::dot::{Dot, Vector};

/// Consecutive words of x, which meet consecutive weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Bytes from the first one that a pixel reads.
    pub(super) offset: u32,
    /// Words of four bytes.
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
}

/// Where pixels are read, one after the other.
pub(super) trait Source {
    /// Addresses of the next `n <= P` pixels; entries from `n` on repeat the last.
    fn take<const P: usize>(&mut self, n: usize) -> [*const u8; P];
}

/// Pixels at equal distances.
pub(super) struct Flat {
    pub(super) next: *const u8,
    pub(super) stride: usize,
}

impl Source for Flat {
    #[inline(always)]
    fn take<const P: usize>(&mut self, n: usize) -> [*const u8; P] {
        let pixels = std::array::from_fn(|p| self.next.wrapping_add(p.min(n - 1) * self.stride));
        self.next = self.next.wrapping_add(n * self.stride);
        pixels
    }
}

/// The sums of `pixels` pixels for one block of `V` registers, in tiles of `P` pixels.
///
/// # Safety
/// At each pixel of `source` the words of the block's segments are valid for reads; the block holds `4 * V * LANES`
/// bytes of weights for each word; `sums` is valid for writes of `V * LANES` numbers at each pixel.
#[inline(always)]
pub(super) unsafe fn run<D: Dot, S: Source, const P: usize, const V: usize>(
    d: D,
    mut source: S,
    pixels: usize,
    block: Block<'_>,
    sums: Sums,
) {
    let mut done = 0;
    while done < pixels {
        let n = (pixels - done).min(P);
        let sums = Sums { first: sums.first.wrapping_add(done * sums.stride), ..sums };
        match n {
            // SAFETY: the caller's promise; these n pixels are among `pixels`.
            1 => unsafe { dot_tile::<D, 1, V>(d, block, source.take(n), n, sums) },
            // SAFETY: as above.
            2 => unsafe { dot_tile::<D, 2, V>(d, block, source.take(n), n, sums) },
            // SAFETY: as above.
            3..=4 => unsafe { dot_tile::<D, 4, V>(d, block, source.take(n), n, sums) },
            // SAFETY: as above.
            _ => unsafe { dot_tile::<D, P, V>(d, block, source.take(n), n, sums) },
        }
        done += n;
    }
}

/// The sums of `n` of at most `P` pixels; those of the other `P - n` are computed and dropped.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn dot_tile<D: Dot, const P: usize, const V: usize>(
    d: D,
    block: Block<'_>,
    xs: [*const u8; P],
    n: usize,
    out: Sums,
) {
    let isa = d.isa();
    let mut w = block.weights.as_ptr();
    let mut sums = [[isa.zeros(); V]; P];
    let mut is_written = false;
    for segment in block.segments {
        let mut at = segment.offset as usize;
        let end = at + 4 * segment.words as usize;
        while at < end {
            let weights: [Vector<D>; V] = std::array::from_fn(|v| {
                // SAFETY: the caller's promise: V registers of weights for each word.
                unsafe { isa.load(w.wrapping_add(v * D::Isa::BYTES)) }
            });
            w = w.wrapping_add(V * D::Isa::BYTES);
            for p in 0..P {
                // SAFETY: the caller's promise: the words of the segments are readable at each pixel.
                let x = unsafe { isa.splat_word(xs[p].wrapping_add(at)) };
                for v in 0..V {
                    sums[p][v] = d.dot(sums[p][v], x, weights[v]);
                }
            }
            at += 4;
        }
        if segment.flush {
            for p in 0..P {
                for v in 0..V {
                    let to = out.first.wrapping_add(p * out.stride + v * D::Isa::LANES);
                    let mut sum = d.widen(sums[p][v]);
                    if p < n {
                        if is_written {
                            // SAFETY: the caller's promise; the first flush has written it.
                            sum = isa.add32(sum, unsafe { isa.load(to) });
                        }
                        // SAFETY: the caller's promise.
                        unsafe { isa.store(to, sum) };
                    }
                    sums[p][v] = isa.zeros();
                }
            }
            is_written = true;
        }
    }
}
