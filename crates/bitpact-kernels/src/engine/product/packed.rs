//! Weights of at most sixteen levels in memory as numbers of 1, 2 or 4 bits, expanded by a byte shuffle.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::machine::isa::Avx512;
use crate::machine::registers::arrays::{read128, read512, write512};
use crate::machine::weights::{WeightArena, Weights};

/// Bytes of a register.
const REGISTER: usize = 64;

/// Packed weights: byte j of register i has the levels of the bytes `(i * 8 / bits + k) * 64 + j`, the k-th in its bits
/// `bits * k..`.
#[derive(Debug)]
pub(super) struct Packed {
    simd: Avx512,
    bits: u32,
    /// The value of each level.
    levels: [i8; 16],
    /// Packed bytes of a panel.
    panel: usize,
    registers: Weights<u8>,
}

impl Packed {
    /// Packs panels of `panel` bytes into `arena`; `None` where they have more than sixteen levels or do not fill
    /// registers.
    pub(super) fn new(simd: Avx512, weights: &[i8], panel: usize, arena: &WeightArena) -> Option<Packed> {
        let mut seen = [false; 256];
        weights.iter().for_each(|&w| seen[usize::from(w as u8)] = true);
        let mut levels = [0; 16];
        let mut places = [0; 256];
        let mut n = 0;
        for (value, _) in seen.iter().enumerate().filter(|&(_, &seen)| seen) {
            *levels.get_mut(n)? = value as u8 as i8;
            places[value] = n as u8;
            n += 1;
        }
        let fits = |bits: u32| n <= 1 << bits && panel.is_multiple_of(REGISTER * 8 / bits as usize);
        let bits = [1, 2, 4].into_iter().find(|&bits| fits(bits))?;
        let per_byte = 8 / bits as usize;
        let mut registers = vec![0; weights.len() / per_byte];
        let parts = weights.chunks_exact(REGISTER * per_byte);
        for (register, weights) in registers.chunks_exact_mut(REGISTER).zip(parts) {
            for (k, weights) in weights.chunks_exact(REGISTER).enumerate() {
                for (byte, &w) in register.iter_mut().zip(weights) {
                    *byte |= places[usize::from(w as u8)] << (bits * k as u32);
                }
            }
        }
        Some(Packed { simd, bits, levels, panel: panel / per_byte, registers: arena.keep(&registers) })
    }

    /// Bits of a weight.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.registers.len()
    }

    /// Writes panel `b` as bytes and says where the next one lies; `None` beyond the last.
    ///
    /// # Panics
    /// If `to` is no panel.
    pub(super) fn expand(&self, b: usize, to: &mut [u8]) -> Option<Range<*const u8>> {
        let panel = self.registers.get(b * self.panel..(b + 1) * self.panel)?;
        assert_eq!(to.len(), panel.len() * 8 / self.bits as usize, "bytes of a panel");
        let _ = self.simd;
        match self.bits {
            // SAFETY: the token proves the features.
            1 => unsafe { expand::<1, 8>(&self.levels, panel, to) },
            // SAFETY: as above.
            2 => unsafe { expand::<2, 4>(&self.levels, panel, to) },
            // SAFETY: as above.
            _ => unsafe { expand::<4, 2>(&self.levels, panel, to) },
        }
        let next = panel.as_ptr_range().end;
        Some(next..next.wrapping_add(self.panel))
    }
}

/// `PARTS` weights of `BITS` bits in a byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn expand<const BITS: u32, const PARTS: usize>(levels: &[i8; 16], packed: &[u8], to: &mut [u8]) {
    let levels = _mm512_broadcast_i32x4(read128(levels));
    let mask = _mm512_set1_epi8((1 << BITS) - 1);
    let registers = packed.as_chunks::<REGISTER>().0;
    for (from, to) in registers.iter().zip(to.as_chunks_mut::<REGISTER>().0.as_chunks_mut::<PARTS>().0) {
        let from = read512(from);
        for (k, to) in to.iter_mut().enumerate() {
            let shifted = _mm512_srl_epi16(from, _mm_cvtsi32_si128((BITS * k as u32) as i32));
            let weights = _mm512_shuffle_epi8(levels, _mm512_and_si512(shifted, mask));
            write512(to, weights);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expanding_gives_the_weights_back() {
        let Some(simd) = Avx512::detect() else { return };
        let arena = WeightArena::new();
        for (levels, bits) in [(&[5][..], 1), (&[-1, 1], 1), (&[-3, -1, 1, 3], 2), (&[-128, 0, 127, 1, 2], 4)] {
            let weights: Vec<i8> = (0..3 * 1024).map(|i| levels[i * 7 % 11 % levels.len()]).collect();
            let packed = Packed::new(simd, &weights, 1024, &arena).expect("few levels");
            assert_eq!((packed.bits(), packed.bytes()), (bits, 3 * 128 * bits as usize));
            let mut panel = vec![0; 1024];
            for b in 0..3 {
                assert!(packed.expand(b, &mut panel).is_some());
                assert!(panel.iter().zip(&weights[b * 1024..]).all(|(&a, &w)| a as i8 == w), "panel {b}, {levels:?}");
            }
            assert!(packed.expand(3, &mut panel).is_none());
        }
        let many: Vec<i8> = (0..1024).map(|i| (i % 17) as i8).collect();
        assert!(Packed::new(simd, &many, 1024, &arena).is_none());
        assert!(Packed::new(simd, &[1; 3 * 64], 64, &arena).is_none());
    }
}
