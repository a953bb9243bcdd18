//! The lanes of convolutions over the register layer: float32, codes by each kind of integer product, and bfloat16.

use std::arch::x86_64::{__m512, __m512i};

use super::kernel::Lanes;
use crate::machine::isa::{Avx512, Bf16};
use crate::machine::registers::Registers;
use crate::machine::registers::dot::{Dot, Vector};

/// float32, one element a lane.
#[derive(Clone, Copy)]
pub(in crate::train::conv) struct F32<I>(pub(in crate::train::conv) I);

impl<I: Registers> Lanes for F32<I> {
    type X = f32;
    type W = f32;
    type Y = f32;
    type Sums = I::Floats;
    type Word = I::Floats;
    type Weights = I::Floats;
    const WIDTH: usize = I::LANES;
    const WORD: usize = 1;
    const WEIGHTS: usize = I::LANES;
    const UNROLL: bool = I::COUNT == 32;

    #[inline(always)]
    fn zero(self) -> I::Floats {
        self.0.zeros_f32()
    }

    #[inline(always)]
    fn multiply_add(self, sums: I::Floats, x: I::Floats, w: I::Floats) -> I::Floats {
        self.0.multiply_add_f32(sums, x, w)
    }

    #[inline(always)]
    fn add(self, a: I::Floats, b: I::Floats) -> I::Floats {
        self.0.add_f32(a, b)
    }

    #[inline(always)]
    unsafe fn word(self, x: *const f32) -> I::Floats {
        // SAFETY: the caller promises a readable element.
        self.0.splat_f32(unsafe { *x })
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const f32) -> I::Floats {
        // SAFETY: the caller promises a register of readable elements.
        unsafe { self.0.load_f32(w) }
    }

    #[inline(always)]
    unsafe fn load(self, y: *const f32) -> I::Floats {
        // SAFETY: the caller promises a register of readable elements.
        unsafe { self.0.load_f32(y) }
    }

    #[inline(always)]
    unsafe fn store(self, y: *mut f32, sums: I::Floats) {
        // SAFETY: the caller promises a register of writable elements.
        unsafe { self.0.store_f32(y, sums) }
    }
}

/// The sums of 32-bit integers, in memory as in registers.
macro_rules! sums_of_integers {
    ($isa:expr, $vector:ty) => {
        type X = u8;
        type W = i8;
        type Y = i32;
        type Sums = $vector;

        #[inline(always)]
        fn zero(self) -> $vector {
            $isa(self).zeros()
        }

        #[inline(always)]
        fn add(self, a: $vector, b: $vector) -> $vector {
            $isa(self).add32(a, b)
        }

        #[inline(always)]
        unsafe fn load(self, y: *const i32) -> $vector {
            // SAFETY: the caller promises a register of readable elements.
            unsafe { $isa(self).load(y) }
        }

        #[inline(always)]
        unsafe fn store(self, y: *mut i32, sums: $vector) {
            // SAFETY: the caller promises a register of writable elements.
            unsafe { $isa(self).store(y, sums) }
        }
    };
}

/// Words of four codes and four weights, multiplied by `dot`; `reach` is how many of them a short sum takes.
#[derive(Clone, Copy)]
pub(in crate::train::conv) struct Codes<D> {
    pub(in crate::train::conv) dot: D,
    pub(in crate::train::conv) reach: usize,
}

impl<D: Dot> Lanes for Codes<D> {
    sums_of_integers!(|codes: Self| codes.dot.isa(), Vector<D>);
    type Word = Vector<D>;
    type Weights = Vector<D>;
    const WIDTH: usize = D::Isa::LANES;
    const WORD: usize = 4;
    const WEIGHTS: usize = D::Isa::BYTES;
    const UNROLL: bool = D::Isa::COUNT == 32;
    const SHORT: bool = D::REACH.is_some();

    #[inline(always)]
    fn multiply_add(self, sums: Vector<D>, x: Vector<D>, w: Vector<D>) -> Vector<D> {
        self.dot.dot(sums, x, w)
    }

    #[inline(always)]
    fn reach(self) -> usize {
        self.reach
    }

    #[inline(always)]
    fn widen(self, sums: Vector<D>) -> Vector<D> {
        self.dot.widen(sums)
    }

    #[inline(always)]
    unsafe fn word(self, x: *const u8) -> Vector<D> {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { self.dot.isa().splat_word(x) }
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const i8) -> Vector<D> {
        // SAFETY: the caller promises a register of readable elements.
        unsafe { self.dot.isa().load(w) }
    }
}

/// Words of four codes, widened to 16 bits where they are read, and weights that were widened before.
#[derive(Clone, Copy)]
pub(in crate::train::conv) struct Wide<I>(pub(in crate::train::conv) I);

impl<I: Registers> Lanes for Wide<I> {
    sums_of_integers!(|wide: Self| wide.0, I::Ints);
    /// Codes 0 and 2 of the word, then codes 1 and 3, as 16-bit pairs.
    type Word = [I::Ints; 2];
    /// Weights 0 and 2 of each lane, then weights 1 and 3, as 16-bit pairs.
    type Weights = [I::Ints; 2];
    const WIDTH: usize = I::LANES;
    const WORD: usize = 4;
    const WEIGHTS: usize = 2 * I::BYTES;
    const UNROLL: bool = false;

    #[inline(always)]
    fn multiply_add(self, sums: I::Ints, x: [I::Ints; 2], w: [I::Ints; 2]) -> I::Ints {
        let (even, odd) = (self.0.multiply_words(x[0], w[0]), self.0.multiply_words(x[1], w[1]));
        self.0.add32(self.0.add32(sums, even), odd)
    }

    #[inline(always)]
    unsafe fn word(self, x: *const u8) -> [I::Ints; 2] {
        // SAFETY: the caller promises 4 readable elements.
        let x = unsafe { self.0.splat_word(x) };
        [self.0.and(x, self.0.splat16(255)), self.0.upper_bytes(x)]
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const i8) -> [I::Ints; 2] {
        // SAFETY: the caller promises two registers of readable elements.
        let even = unsafe { self.0.load(w) };
        // SAFETY: as above, the second of them.
        let odd = unsafe { self.0.load(w.wrapping_add(I::BYTES)) };
        [even, odd]
    }
}

/// Pairs of bfloat16, kept as bytes.
#[derive(Clone, Copy)]
pub(in crate::train::conv) struct Pairs(pub(in crate::train::conv) Bf16);

impl Lanes for Pairs {
    type X = [u8; 2];
    type W = [u8; 2];
    type Y = f32;
    type Sums = __m512;
    type Word = __m512i;
    type Weights = __m512i;
    const WIDTH: usize = Avx512::LANES;
    const WORD: usize = 2;
    const WEIGHTS: usize = 2 * Avx512::LANES;
    const UNROLL: bool = true;

    #[inline(always)]
    fn zero(self) -> __m512 {
        self.0.avx512().zeros_f32()
    }

    #[inline(always)]
    fn multiply_add(self, sums: __m512, x: __m512i, w: __m512i) -> __m512 {
        self.0.add_pairs(sums, x, w)
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512().add_f32(a, b)
    }

    #[inline(always)]
    unsafe fn word(self, x: *const [u8; 2]) -> __m512i {
        // SAFETY: the caller promises 2 readable elements.
        unsafe { self.0.avx512().splat_word(x.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(self, w: *const [u8; 2]) -> __m512i {
        // SAFETY: the caller promises 32 readable elements.
        unsafe { self.0.avx512().load(w) }
    }

    #[inline(always)]
    unsafe fn load(self, y: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { self.0.avx512().load_f32(y) }
    }

    #[inline(always)]
    unsafe fn store(self, y: *mut f32, sums: __m512) {
        // SAFETY: the caller promises 16 writable elements.
        unsafe { self.0.avx512().store_f32(y, sums) }
    }
}
