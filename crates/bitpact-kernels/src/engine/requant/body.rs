//! One row of pixels of one block of channels, in plain Rust: the definition of the SIMD rows.

use bitpact_core::Requantization;

use super::Row;

/// Channels a block.
pub(crate) const BLOCK: usize = 16;

/// The number in which sums are taken.
pub(super) trait Sum: Copy + Default {
    fn widen(value: i32) -> Self;
    /// A constant of a requantization whose sums are shifted by `shift`, as [`Sum::finish`] wants it.
    fn constant(self, shift: u32) -> Self;
    fn multiply_add(self, a: Self, b: Self) -> Self;
    /// `clamp(self >> shift, lo, hi)`, a code, with 0 <= lo <= hi <= 255.
    fn finish(self, shift: u32, lo: Self, hi: Self) -> u8;
}

macro_rules! sum {
    ($t:ty) => {
        impl Sum for $t {
            #[inline(always)]
            fn widen(value: i32) -> $t {
                <$t>::from(value)
            }
            fn constant(self, _shift: u32) -> $t {
                self
            }
            #[inline(always)]
            fn multiply_add(self, a: $t, b: $t) -> $t {
                self.wrapping_add(a.wrapping_mul(b))
            }
            #[inline(always)]
            fn finish(self, shift: u32, lo: $t, hi: $t) -> u8 {
                self.wrapping_shr(shift).max(lo).min(hi) as u8
            }
        }
    };
}
sum!(i32);
sum!(i64);

/// Constants are taken times 2^-shift, which is exact, and so are sums, integers below 2^53 times it.
impl Sum for f64 {
    #[inline(always)]
    fn widen(value: i32) -> f64 {
        value.into()
    }

    fn constant(self, shift: u32) -> f64 {
        self * f64::from_bits(u64::from(1023 - shift) << 52)
    }

    #[inline(always)]
    fn multiply_add(self, a: f64, b: f64) -> f64 {
        self + a * b
    }

    #[inline(always)]
    fn finish(self, _shift: u32, lo: f64, hi: f64) -> u8 {
        // Dropping the fraction of a number that is at least lo >= 0 is rounding down.
        let clamped = if self > lo { self } else { lo };
        let clamped = if clamped < hi { clamped } else { hi };
        // SAFETY: lo <= clamped <= hi lies in 0..=255 and is no NaN.
        let code: i32 = unsafe { clamped.to_int_unchecked() };
        code as u8
    }
}

/// The constants of a requantization, per channel, zeros in the channels beyond the last.
#[derive(Debug, Clone)]
pub(super) struct Constants<S> {
    pub(super) shift: u32,
    pub(super) blocks: Vec<Block<S>>,
}

#[derive(Debug, Clone)]
pub(super) struct Block<S> {
    pub(super) mul: [S; BLOCK],
    pub(super) mul2: [S; BLOCK],
    pub(super) res_mul: [S; BLOCK],
    pub(super) add: [S; BLOCK],
    /// Smallest and largest code; 0 where nothing is clamped.
    pub(super) lo: [u8; BLOCK],
    pub(super) hi: [u8; BLOCK],
    /// All ones in a channel, 0 beyond the last.
    pub(super) mask: [u8; BLOCK],
}

impl<S: Sum> Constants<S> {
    /// The terms of `requant` are the accumulator, a second accumulator where `second` says so, and the shortcut's code
    /// where one is left.
    pub(super) fn new(requant: &Requantization, second: bool, add: impl Fn(i64) -> S) -> Constants<S> {
        let channels = requant.channels();
        let term = |i: usize| requant.mul.get(i).map_or(&[][..], Vec::as_slice);
        let [mul, mul2, res_mul] = [term(0), if second { term(1) } else { &[] }, term(1 + usize::from(second))];
        let blocks = (0..channels.div_ceil(BLOCK))
            .map(|block| {
                let of = |list: &[i32]| {
                    let at = |k| list.get(block * BLOCK + k).copied().unwrap_or(0);
                    std::array::from_fn(|k| S::widen(at(k)).constant(requant.shift))
                };
                let bound = |k: usize| requant.bound((block * BLOCK + k).min(channels - 1));
                Block {
                    lo: std::array::from_fn(|k| bound(k).0 as u8),
                    hi: std::array::from_fn(|k| bound(k).1 as u8),
                    mul: of(mul),
                    mul2: of(mul2),
                    res_mul: of(res_mul),
                    add: std::array::from_fn(|k| {
                        requant.add.get(block * BLOCK + k).map_or(S::default(), |&a| add(a).constant(requant.shift))
                    }),
                    mask: std::array::from_fn(|k| if block * BLOCK + k < channels { 255 } else { 0 }),
                }
            })
            .collect();
        Constants { shift: requant.shift, blocks }
    }
}

/// Writes one row.
///
/// # Safety
/// `row.y` is valid for writes of 16 bytes at each of its pixels.
pub(super) unsafe fn row<S: Sum>(constants: &Constants<S>, block: usize, row: Row<'_>) {
    let Constants { shift, ref blocks } = *constants;
    let block = &blocks[block];
    for pixel in 0..row.pixels {
        let mut codes = [0; BLOCK];
        for (k, code) in codes.iter_mut().enumerate() {
            let at = pixel * row.stride + k;
            let mut sum = block.add[k].multiply_add(S::widen(row.acc[at]), block.mul[k]);
            if !row.acc2.is_empty() {
                sum = sum.multiply_add(S::widen(row.acc2[at]), block.mul2[k]);
            }
            if !row.res.is_empty() {
                sum = sum.multiply_add(S::widen(row.res[pixel * row.res_stride + k].into()), block.res_mul[k]);
            }
            *code = sum.finish(shift, S::widen(block.lo[k].into()), S::widen(block.hi[k].into())) & block.mask[k];
        }
        let y = row.y.wrapping_add(pixel * row.y_stride);
        // SAFETY: the caller's promise.
        unsafe { y.cast::<[u8; BLOCK]>().write_unaligned(codes) };
    }
}
