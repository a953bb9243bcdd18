//! The loop nest compiled for each path.

use super::tile::{Block, Source, Sums, run};
use crate::machine::isa::{Avx2, Avx512, AvxVnni};
use crate::machine::registers::Registers;
use crate::machine::registers::dot::{Bytes, Dot, Narrow, Words};

/// Instructions with their tiles.
pub(super) trait Instructions: Dot {
    /// Tile and instructions.
    const NAME: &'static str;

    /// [`run`] for a block of 16 or 32 channels.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn run<S: Source>(self, source: S, pixels: usize, block: Block<'_>, sums: Sums);
}

macro_rules! instructions {
    ($dot:ident<$isa:ident>, $name:literal, $features:literal, $p:literal x $v:literal $(, or $p2:literal x $v2:literal)?) => {
        impl Instructions for $dot<$isa> {
            const NAME: &'static str = $name;

            unsafe fn run<S: Source>(self, source: S, pixels: usize, block: Block<'_>, sums: Sums) {
                #[target_feature(enable = $features)]
                unsafe fn compiled<S: Source>(d: $dot<$isa>, source: S, pixels: usize, block: Block<'_>, sums: Sums) {
                    $(if block.channels == $v2 * $isa::LANES {
                        // SAFETY: the caller's promise.
                        return unsafe { run::<$dot<$isa>, S, $p2, $v2>(d, source, pixels, block, sums) };
                    })?
                    assert_eq!(block.channels, $v * $isa::LANES, "channels of a block");
                    // SAFETY: the caller's promise.
                    unsafe { run::<$dot<$isa>, S, $p, $v>(d, source, pixels, block, sums) }
                }
                // SAFETY: self proves the features; the rest is the caller's promise.
                unsafe { compiled(self, source, pixels, block, sums) }
            }
        }
    };
}
instructions!(Narrow<Avx2>, "6x16_avx2_i16", "avx2,fma", 6 x 2);
instructions!(Words<Avx2>, "6x16_avx2_i16x2", "avx2,fma", 6 x 2);
instructions!(Bytes<AvxVnni>, "6x16_avxvnni", "avxvnni,avx2,fma", 6 x 2);
instructions!(Bytes<Avx512>, "avx512vnni", "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma", 16 x 1, or 8 x 2);
instructions!(
    Words<Avx512>,
    "avx512vnni_i16x2",
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma",
    16 x 1, or 8 x 2
);
