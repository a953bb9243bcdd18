//! The walk over a sweep that all SIMD paths share; a path supplies its instructions as a [`Lanes`].

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::LANES;
use super::sweep::{Cursor, Sweep};

/// Pixels swept over all channel blocks before moving on, so that what they read stays in the first-level cache.
const CHUNK: usize = 64;

/// Bytes of packed weights up to which they are read again for every chunk of pixels; larger ones are read one group of
/// blocks at a time over all pixels, so that the group stays in the second-level cache.
const WEIGHTS_AT_ONCE: usize = 256 << 10;

/// The instructions of one path for one pair of element types. A value is a proof that the CPU has them, so its safe
/// methods are arithmetic and its unsafe ones are memory accesses.
///
/// A word is what one broadcast spreads over all lanes: `WORD` consecutive elements of x.
pub(super) trait Lanes: Copy {
    /// Element read.
    type X: Copy;
    /// Packed weight.
    type W: Copy;
    /// Element written.
    type Y: Copy;
    /// One sum in each lane.
    type Sums: Copy;
    /// One word of x, in every lane.
    type Word: Copy;
    /// One word of weights for each lane.
    type Weights: Copy;

    /// Lanes of a register, 8 or 16.
    const WIDTH: usize;
    /// Elements of x in a word.
    const WORD: usize;
    /// Elements of `W` in a `Weights`.
    const WEIGHTS: usize;
    /// Whether the register file holds 4 words of weights beside the sums.
    const UNROLL: bool;
    /// Whether a sum is short, two or more in a lane, and goes to the wide one of its lane by [`Lanes::widen`].
    const SHORT: bool = false;

    /// Zero sums.
    fn zero(self) -> Self::Sums;
    /// `sums` + x * w, lane by lane.
    fn multiply_add(self, sums: Self::Sums, x: Self::Word, w: Self::Weights) -> Self::Sums;
    /// Words whose products short sums can take.
    fn reach(self) -> usize {
        usize::MAX
    }
    /// Short sums as wide ones.
    fn widen(self, sums: Self::Sums) -> Self::Sums {
        sums
    }
    /// a + b, lane by lane.
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// Reads `WORD` elements.
    ///
    /// # Safety
    /// `x` is valid for reads of `WORD` elements.
    unsafe fn word(self, x: *const Self::X) -> Self::Word;
    /// Reads `WEIGHTS` elements.
    ///
    /// # Safety
    /// `w` is valid for reads of `WEIGHTS` elements.
    unsafe fn weights(self, w: *const Self::W) -> Self::Weights;
    /// Reads `WIDTH` sums.
    ///
    /// # Safety
    /// `y` is valid for reads of `WIDTH` elements.
    unsafe fn load(self, y: *const Self::Y) -> Self::Sums;
    /// Brings the line at `y`, which may be any address, into the first-level cache.
    #[inline(always)]
    fn prefetch(self, y: *const Self::Y) {
        // SAFETY: the instruction is part of every x86_64 CPU and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(y.cast()) };
    }
    /// Writes `WIDTH` sums.
    ///
    /// # Safety
    /// `y` is valid for writes of `WIDTH` elements.
    unsafe fn store(self, y: *mut Self::Y, sums: Self::Sums);
}

/// What the sums of a sweep begin or end with.
#[derive(Clone, Copy)]
pub(super) enum Base<Y> {
    /// Nothing: y = sums.
    Zero,
    /// One value a channel, `y_channels` of them: y = init + sums.
    Init(*const Y),
    /// What y holds: y += sums.
    Old,
}

/// One group of channel blocks: its first weights, first initial value and first output channel.
#[derive(Clone, Copy)]
struct Group<L: Lanes> {
    w: *const L::W,
    block_len: usize,
    y: *mut L::Y,
    base: Base<L::Y>,
}

/// Runs a sweep in tiles of `P1` pixels x `V1` registers (one block of 16 channels), or `P2` x `V2` (two blocks) where
/// `V2` is not 0 and two blocks are left.
///
/// # Safety
/// `x` is valid for reads of `sweep`'s x length and `y` for reads and writes of its y length; `w` for reads of
/// `[blocks][taps][words][16 / WIDTH]` times `WEIGHTS` elements, and the pointer in `base` of `y_channels`.
#[inline(always)]
pub(super) unsafe fn sweep<L: Lanes, const P1: usize, const V1: usize, const P2: usize, const V2: usize>(
    lanes: L,
    sweep: &Sweep,
    x: *const L::X,
    w: *const L::W,
    y: *mut L::Y,
    base: Base<L::Y>,
) {
    let blocks = sweep.y_channels() / LANES;
    let block_len = sweep.taps().len() * (sweep.reads() / L::WORD) * L::WEIGHTS * (LANES / L::WIDTH);
    let small = blocks * block_len * size_of::<L::W>() <= WEIGHTS_AT_ONCE;
    let chunk = if small { CHUNK } else { sweep.pixels() };
    let mut start = sweep.cursor();
    let mut left = sweep.pixels();
    while left > 0 {
        let count = left.min(chunk);
        left -= count;
        let mut end = start;
        let mut block = 0;
        while block < blocks {
            end = start;
            let group = Group::<L> {
                w: w.wrapping_add(block * block_len),
                block_len,
                y: y.wrapping_add(block * LANES),
                base: match base {
                    Base::Init(init) => Base::Init(init.wrapping_add(block * LANES)),
                    other => other,
                },
            };
            if V2 > 0 && blocks - block >= 2 {
                // SAFETY: the caller's promise, for two blocks of it; `count` pixels from `end` are in the grid.
                unsafe { pixels::<L, P2, V2>(lanes, sweep, &mut end, count, x, group) };
                block += 2;
            } else {
                // SAFETY: the caller's promise, for one block of it; `count` pixels from `end` are in the grid.
                unsafe { pixels::<L, P1, V1>(lanes, sweep, &mut end, count, x, group) };
                block += 1;
            }
        }
        start = end;
    }
}

/// The next `count` pixels of one group.
///
/// # Safety
/// As for [`sweep`], `V` registers from the group's first block on; `count` pixels from the cursor are in the grid.
#[inline(always)]
unsafe fn pixels<L: Lanes, const P: usize, const V: usize>(
    lanes: L,
    sweep: &Sweep,
    cursor: &mut Cursor,
    mut count: usize,
    x: *const L::X,
    group: Group<L>,
) {
    while count > 0 {
        let n = count.min(P);
        count -= n;
        if n == 1 {
            // SAFETY: the caller's promise.
            unsafe { sweep_tile::<L, 1, V>(lanes, sweep, cursor, n, x, group) };
        } else if n <= 4 {
            // SAFETY: the caller's promise.
            unsafe { sweep_tile::<L, 4, V>(lanes, sweep, cursor, n, x, group) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { sweep_tile::<L, P, V>(lanes, sweep, cursor, n, x, group) };
        }
    }
}

/// The next `n` of at most `P` pixels of one group; the sums of the other `P - n` are computed and dropped.
///
/// # Safety
/// As for [`pixels`].
#[inline(always)]
unsafe fn sweep_tile<L: Lanes, const P: usize, const V: usize>(
    lanes: L,
    sweep: &Sweep,
    cursor: &mut Cursor,
    n: usize,
    x: *const L::X,
    group: Group<L>,
) {
    let (xs, ys) = cursor.take::<P>(sweep, n);
    let xs = xs.map(|at| x.wrapping_add(at));
    let mut first = [lanes.zero(); V];
    if let Base::Init(init) = group.base {
        for v in 0..V {
            // SAFETY: register v of the group is within the y_channels initial values.
            first[v] = unsafe { lanes.load(init.wrapping_add(v * L::WIDTH)) };
        }
    }
    let mut wide = [first; P];
    let mut sums = if L::SHORT { [[lanes.zero(); V]; P] } else { wide };
    let mut reach = lanes.reach();
    let step = L::WEIGHTS * (LANES / L::WIDTH);
    let mut w = group.w;
    for run in sweep.runs() {
        let mut at = run.start;
        while L::UNROLL && at + 4 * L::WORD <= run.end {
            // SAFETY: the sweep's invariant: these 4 words are within x, and within the words w holds for this run.
            unsafe { words::<L, P, V, 4>(lanes, &xs, at, w, group.block_len, &mut sums) };
            at += 4 * L::WORD;
            w = w.wrapping_add(4 * step);
        }
        while at < run.end {
            let count = reach.min((run.end - at) / L::WORD);
            let end = at + count * L::WORD;
            // A loop of nothing else, lest the compiler keep a wide sum in the registers of the short ones.
            while at < end {
                // SAFETY: as above, for one word.
                unsafe { words::<L, P, V, 1>(lanes, &xs, at, w, group.block_len, &mut sums) };
                at += L::WORD;
                w = w.wrapping_add(step);
            }
            if L::SHORT {
                reach -= count;
                if reach == 0 {
                    widen(lanes, &mut wide, &mut sums);
                    reach = lanes.reach();
                }
            }
        }
    }
    if L::SHORT {
        widen(lanes, &mut wide, &mut sums);
    } else {
        wide = sums;
    }
    for p in 0..P {
        for v in 0..V {
            let y = group.y.wrapping_add(ys[p] + v * L::WIDTH);
            if p < n {
                let mut sum = wide[p][v];
                if let Base::Old = group.base {
                    // SAFETY: the sweep's invariant: all channels of a pixel of the grid are within y.
                    sum = lanes.add(unsafe { lanes.load(y) }, sum);
                }
                // SAFETY: as above.
                unsafe { lanes.store(y, sum) };
            }
        }
    }
}

/// Moves short sums to wide ones.
#[inline(always)]
fn widen<L: Lanes, const P: usize, const V: usize>(
    lanes: L,
    wide: &mut [[L::Sums; V]; P],
    sums: &mut [[L::Sums; V]; P],
) {
    for (wide, sums) in wide.as_flattened_mut().iter_mut().zip(sums.as_flattened_mut()) {
        *wide = lanes.add(*wide, lanes.widen(*sums));
        *sums = lanes.zero();
    }
}

/// `U` words of one tap for a tile of P x V registers.
///
/// # Safety
/// Words `at..at + U * WORD` from each of `xs` and U words of weights from `w`, for V registers, are valid for reads.
#[inline(always)]
unsafe fn words<L: Lanes, const P: usize, const V: usize, const U: usize>(
    lanes: L,
    xs: &[*const L::X; P],
    at: usize,
    w: *const L::W,
    block_len: usize,
    sums: &mut [[L::Sums; V]; P],
) {
    let per_block = LANES / L::WIDTH;
    let weights: [[L::Weights; V]; U] = std::array::from_fn(|u| {
        std::array::from_fn(|v| {
            let offset = (v / per_block) * block_len + (u * per_block + v % per_block) * L::WEIGHTS;
            // SAFETY: the caller's promise.
            unsafe { lanes.weights(w.wrapping_add(offset)) }
        })
    });
    for p in 0..P {
        for u in 0..U {
            // SAFETY: the caller's promise.
            let x = unsafe { lanes.word(xs[p].wrapping_add(at + u * L::WORD)) };
            for v in 0..V {
                sums[p][v] = lanes.multiply_add(sums[p][v], x, weights[u][v]);
            }
        }
    }
}
