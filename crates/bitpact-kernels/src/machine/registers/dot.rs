//! Products of integers that training and the engine share: four codes of x with four weights, or two with two in 16
//! bits, in every lane of 32 bits.

use std::fmt::Debug;

use super::{ByteDots, Registers};

/// One way to multiply and add up. A lane of 32 bits belongs to one output channel.
pub(crate) trait Dot: Copy + Debug + Send + Sync + 'static {
    /// The registers it works on.
    type Isa: Registers;
    /// Most that the positive, or the negative, products of a 16-bit half lane may sum up to before [`Dot::widen`];
    /// `None` where sums have 32 bits from the start.
    const REACH: Option<i64>;

    /// The proof that the CPU has the registers.
    fn isa(self) -> Self::Isa;
    /// `sums` + the products of what a lane of `x` and one of `w` hold.
    fn dot(self, sums: Vector<Self>, x: Vector<Self>, w: Vector<Self>) -> Vector<Self>;
    /// Sums as 32-bit numbers.
    #[inline(always)]
    fn widen(self, sums: Vector<Self>) -> Vector<Self> {
        sums
    }
}

/// The registers of integers of a [`Dot`].
pub(crate) type Vector<D> = <<D as Dot>::Isa as Registers>::Ints;

/// Bytes with sums of 16 bits, two a lane, where the range of the codes proves that many of them fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrow<I>(pub(crate) I);

impl<I: Registers> Dot for Narrow<I> {
    type Isa = I;
    const REACH: Option<i64> = Some(i16::MAX as i64);

    #[inline(always)]
    fn isa(self) -> I {
        self.0
    }

    #[inline(always)]
    fn dot(self, sums: I::Ints, x: I::Ints, w: I::Ints) -> I::Ints {
        self.0.add16(sums, self.0.multiply_bytes(x, w))
    }

    #[inline(always)]
    fn widen(self, sums: I::Ints) -> I::Ints {
        self.0.multiply_words(sums, self.0.splat16(1))
    }
}

/// Signed 16-bit numbers, two a lane. Sums wrap around modulo 2^32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<I>(pub(crate) I);

impl<I: Registers> Dot for Words<I> {
    type Isa = I;
    const REACH: Option<i64> = None;

    #[inline(always)]
    fn isa(self) -> I {
        self.0
    }

    #[inline(always)]
    fn dot(self, sums: I::Ints, x: I::Ints, w: I::Ints) -> I::Ints {
        self.0.add_words(sums, x, w)
    }
}

/// Bytes with sums of 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<I>(pub(crate) I);

impl<I: ByteDots> Dot for Bytes<I> {
    type Isa = I;
    const REACH: Option<i64> = None;

    #[inline(always)]
    fn isa(self) -> I {
        self.0
    }

    #[inline(always)]
    fn dot(self, sums: I::Ints, x: I::Ints, w: I::Ints) -> I::Ints {
        self.0.add_bytes(sums, x, w)
    }
}
