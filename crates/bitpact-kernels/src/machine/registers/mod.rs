//! The register layer: vectors of one instruction set behind the token that proves it. An instruction set is one file
//! with an implementation of [`Registers`]; kernels over them are written once and compiled for each.
//!
//! Arithmetic is safe, for a token exists only where the CPU has the instructions. Reading and writing memory by its
//! address is unsafe. Every method is inlined into the kernel that enables the features.

#[cfg(target_arch = "x86_64")]
pub(crate) mod arrays;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dot;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::fmt::Debug;

/// The vectors of one instruction set. Integers are signed and wrap around; 8, 16 and 32 say how wide they are.
pub(crate) trait Registers: Copy + Debug + Send + Sync + 'static {
    /// A register of integers.
    type Ints: Copy;
    /// A register of float32 numbers.
    type Floats: Copy;

    /// Bytes of a register.
    const BYTES: usize;
    /// 16-bit numbers of a register.
    const WORDS: usize = Self::BYTES / 2;
    /// 32-bit numbers of a register.
    const LANES: usize = Self::BYTES / 4;
    /// Registers of the CPU.
    const COUNT: usize;

    /// Zeros.
    fn zeros(self) -> Self::Ints;
    /// `value` in every 16 bits.
    fn splat16(self, value: i16) -> Self::Ints;
    /// `value` in every 32 bits.
    fn splat32(self, value: i32) -> Self::Ints;
    /// a & b.
    fn and(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// a + b in 8 bits.
    fn add8(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// a + b in 16 bits.
    fn add16(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// a - b in 16 bits.
    fn sub16(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// 2 a in 16 bits.
    fn twice16(self, a: Self::Ints) -> Self::Ints;
    /// 4 a in 16 bits.
    fn four_times16(self, a: Self::Ints) -> Self::Ints;
    /// The upper byte of every 16 bits as a 16-bit number.
    fn upper_bytes(self, a: Self::Ints) -> Self::Ints;
    /// The lower byte of every 16 bits, moved to the upper.
    fn raised_bytes(self, a: Self::Ints) -> Self::Ints;
    /// a + b in 32 bits.
    fn add32(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// a - b in 32 bits.
    fn sub32(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// a * b in 32 bits.
    fn multiply32(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// 2 a in 32 bits.
    fn twice32(self, a: Self::Ints) -> Self::Ints;
    /// 4 a in 32 bits.
    fn four_times32(self, a: Self::Ints) -> Self::Ints;
    /// a >> 2 in 32 bits.
    fn fourth32(self, a: Self::Ints) -> Self::Ints;
    /// `a >> shift` in 32 bits.
    fn shift_right32(self, a: Self::Ints, shift: i32) -> Self::Ints;
    /// The products of u8 `x` and s8 `w`, two neighbours added up in 16 bits: exact where such a sum fits them.
    fn multiply_bytes(self, x: Self::Ints, w: Self::Ints) -> Self::Ints;
    /// The products of 16-bit numbers, two neighbours added up in 32 bits.
    fn multiply_words(self, x: Self::Ints, w: Self::Ints) -> Self::Ints;
    /// `sums` in 32 bits + [`Registers::multiply_words`].
    fn add_words(self, sums: Self::Ints, x: Self::Ints, w: Self::Ints) -> Self::Ints;
    /// In every group of sixteen bytes, the bytes of `table` that the numbers 0 to 15 of `index` name.
    fn look_up(self, table: Self::Ints, index: Self::Ints) -> Self::Ints;
    /// The first half of the unsigned 16-bit numbers, in 32 bits.
    fn first_words(self, a: Self::Ints) -> Self::Ints;
    /// The second half of the unsigned 16-bit numbers, in 32 bits.
    fn last_words(self, a: Self::Ints) -> Self::Ints;

    /// A register from memory.
    ///
    /// # Safety
    /// `at` is valid for reads of `BYTES` bytes.
    unsafe fn load<T>(self, at: *const T) -> Self::Ints;
    /// A register to memory.
    ///
    /// # Safety
    /// `at` is valid for writes of `BYTES` bytes.
    unsafe fn store<T>(self, at: *mut T, value: Self::Ints);
    /// Four bytes in every 32 bits.
    ///
    /// # Safety
    /// `at` is valid for reads of 4 bytes.
    #[inline(always)]
    unsafe fn splat_word(self, at: *const u8) -> Self::Ints {
        // SAFETY: the caller promises 4 readable bytes.
        self.splat32(unsafe { at.cast::<i32>().read_unaligned() })
    }
    /// Sixteen bytes, as often as they fit.
    ///
    /// # Safety
    /// `at` is valid for reads of 16 bytes.
    unsafe fn splat_sixteen(self, at: *const u8) -> Self::Ints;
    /// u8 numbers in 16 bits.
    ///
    /// # Safety
    /// `at` is valid for reads of `WORDS` bytes.
    unsafe fn load_codes(self, at: *const u8) -> Self::Ints;
    /// s8 numbers in 16 bits.
    ///
    /// # Safety
    /// `at` is valid for reads of `WORDS` bytes.
    unsafe fn load_weights(self, at: *const i8) -> Self::Ints;

    /// Zeros.
    fn zeros_f32(self) -> Self::Floats;
    /// `value` in every lane.
    fn splat_f32(self, value: f32) -> Self::Floats;
    /// a + b.
    fn add_f32(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// sums + x * w, rounded once.
    fn multiply_add_f32(self, sums: Self::Floats, x: Self::Floats, w: Self::Floats) -> Self::Floats;
    /// Numbers from memory.
    ///
    /// # Safety
    /// `at` is valid for reads of `LANES` numbers.
    unsafe fn load_f32(self, at: *const f32) -> Self::Floats;
    /// Numbers to memory.
    ///
    /// # Safety
    /// `at` is valid for writes of `LANES` numbers.
    unsafe fn store_f32(self, at: *mut f32, value: Self::Floats);
}

/// Instruction sets that multiply bytes straight into sums of 32 bits.
pub(crate) trait ByteDots: Registers {
    /// `sums` in 32 bits + the products of the four u8 in `x` with the four s8 in `w`.
    fn add_bytes(self, sums: Self::Ints, x: Self::Ints, w: Self::Ints) -> Self::Ints;
}

/// Methods that are arithmetic instructions and nothing else.
macro_rules! arithmetic {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty = $call:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: `self` exists only where the CPU has the features, and the instructions touch no memory.
            unsafe { $call }
        }
    )*};
}

/// Methods that are one load or store and nothing else.
macro_rules! memory {
    ($($name:ident $(<$t:ident>)? ($at:ident: $pointer:ty $(, $value:ident: $type:ty)?) $(-> $out:ty)? = $call:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name $(<$t>)? (self, $at: $pointer $(, $value: $type)?) $(-> $out)? {
            // SAFETY: `self` exists only where the CPU has the features; the caller promises the memory.
            unsafe { $call }
        }
    )*};
}

use {arithmetic, memory};
