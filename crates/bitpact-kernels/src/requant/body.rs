//! Pixels of one block of channels: plain loops, compiled once per instruction set.

use bitpact_core::IntegerStep;

use crate::isa::Proof;

/// Channels a block.
pub const BLOCK: usize = 16;

/// The number in which sums are taken.
pub(super) trait Sum: Copy + Default {
    fn widen(value: i32) -> Self;
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

/// Exact while every sum stays below 2^53.
impl Sum for f64 {
    #[inline(always)]
    fn widen(value: i32) -> f64 {
        value.into()
    }

    #[inline(always)]
    fn multiply_add(self, a: f64, b: f64) -> f64 {
        self + a * b
    }

    #[inline(always)]
    fn finish(self, shift: u32, lo: f64, hi: f64) -> u8 {
        // 2^-shift; dropping the fraction of a number that is at least lo >= 0 is rounding down.
        let scaled = self * f64::from_bits(u64::from(1023 - shift) << 52);
        let scaled = if scaled > lo { scaled } else { lo };
        let scaled = if scaled < hi { scaled } else { hi };
        // SAFETY: lo <= scaled <= hi lies in 0..=255 and is no NaN.
        let code: i32 = unsafe { scaled.to_int_unchecked() };
        code as u8
    }
}

/// The constants of a step, per channel, zeros in the channels beyond the last.
#[derive(Debug, Clone)]
pub(super) struct Constants<S> {
    shift: u32,
    lo: S,
    hi: S,
    blocks: Vec<Block<S>>,
}

#[derive(Debug, Clone)]
struct Block<S> {
    mul: [i32; BLOCK],
    mul2: [i32; BLOCK],
    res_mul: [i32; BLOCK],
    add: [S; BLOCK],
    /// All ones in a channel, 0 beyond the last.
    mask: [u8; BLOCK],
}

impl<S: Sum> Constants<S> {
    pub(super) fn new(step: &IntegerStep, add: impl Fn(i64) -> S) -> Constants<S> {
        let cs = step.mul.len().next_multiple_of(BLOCK);
        let blocks = (0..cs / BLOCK)
            .map(|block| {
                let of = |list: &[i32]| std::array::from_fn(|k| list.get(block * BLOCK + k).copied().unwrap_or(0));
                Block {
                    mul: of(&step.mul),
                    mul2: of(&step.mul2),
                    res_mul: of(&step.res_mul),
                    add: std::array::from_fn(|k| step.add.get(block * BLOCK + k).map_or(S::default(), |&a| add(a))),
                    mask: std::array::from_fn(|k| if block * BLOCK + k < step.mul.len() { 255 } else { 0 }),
                }
            })
            .collect();
        Constants { shift: step.shift, lo: S::widen(step.lo), hi: S::widen(step.hi), blocks }
    }
}

/// What the codes of some pixels are made of: 16 channels of each, `[pixel][stride]` for sums and `[pixel][16]` for residual codes;
/// absent inputs are empty.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) acc: &'a [i32],
    pub(super) acc2: &'a [i32],
    pub(super) stride: usize,
    pub(super) res: &'a [u8],
}

/// Writes the codes of one block, `[pixel][16]`.
pub(super) fn run<S: Sum>(proof: Proof, constants: &Constants<S>, block: usize, inputs: Inputs<'_>, y: &mut [u8]) {
    match proof {
        // SAFETY: the token proves the features.
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(_) => unsafe { avx512(constants, block, inputs, y) },
        // SAFETY: the token proves the features.
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(_) => unsafe { avx2(constants, block, inputs, y) },
        _ => select(constants, block, inputs, y),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn avx512<S: Sum>(constants: &Constants<S>, block: usize, inputs: Inputs<'_>, y: &mut [u8]) {
    select(constants, block, inputs, y);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<S: Sum>(constants: &Constants<S>, block: usize, inputs: Inputs<'_>, y: &mut [u8]) {
    select(constants, block, inputs, y);
}

#[inline(always)]
fn select<S: Sum>(constants: &Constants<S>, block: usize, inputs: Inputs<'_>, y: &mut [u8]) {
    match (inputs.acc2.is_empty(), inputs.res.is_empty()) {
        (true, true) => pixels::<S, false, false>(constants, block, inputs, y),
        (true, false) => pixels::<S, false, true>(constants, block, inputs, y),
        (false, true) => pixels::<S, true, false>(constants, block, inputs, y),
        (false, false) => pixels::<S, true, true>(constants, block, inputs, y),
    }
}

#[inline(always)]
fn pixels<S: Sum, const ACC2: bool, const RES: bool>(
    constants: &Constants<S>,
    block: usize,
    inputs: Inputs<'_>,
    y: &mut [u8],
) {
    let Constants { shift, lo, hi, ref blocks } = *constants;
    let block = &blocks[block];
    for (pixel, out) in y.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let at = pixel * inputs.stride;
        let Some(acc) = inputs.acc[at..].first_chunk::<BLOCK>() else { return };
        let mut sums: [S; BLOCK] = block.add;
        for k in 0..BLOCK {
            sums[k] = sums[k].multiply_add(S::widen(acc[k]), S::widen(block.mul[k]));
        }
        if ACC2 {
            let Some(acc2) = inputs.acc2[at..].first_chunk::<BLOCK>() else { return };
            for k in 0..BLOCK {
                sums[k] = sums[k].multiply_add(S::widen(acc2[k]), S::widen(block.mul2[k]));
            }
        }
        if RES {
            let Some(res) = inputs.res[pixel * BLOCK..].first_chunk::<BLOCK>() else { return };
            for k in 0..BLOCK {
                sums[k] = sums[k].multiply_add(S::widen(res[k].into()), S::widen(block.res_mul[k]));
            }
        }
        for k in 0..BLOCK {
            out[k] = sums[k].finish(shift, lo, hi) & block.mask[k];
        }
    }
}
