//! What look-ups read: the places of the tables that the codes of each pixel choose, and the sum of the codes.

use std::arch::x86_64::*;

use super::shuffle::Vbmi;
use crate::machine::registers::arrays::read512;

/// How codes choose tables: the first `codes` of a pixel's channels one of the first term, the next `codes` one of the
/// second, and so on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// Bits of a code.
    pub(super) code_bits: u32,
    /// Codes of a table, 2, 3, 4 or 6.
    pub(super) codes: usize,
    /// Tables whose sum is that of a group.
    pub(super) terms: usize,
    /// Bytes of a table, a power of two.
    pub(super) entries: usize,
}

/// Pixels, one behind the other, and what becomes of them.
pub(super) struct Strip<'a> {
    pub(super) x: &'a [u8],
    /// Codes of a pixel, and bytes from one to the next.
    pub(super) channels: (usize, usize),
    /// Bytes where the tables of every pixel's groups begin, as many for each pixel.
    pub(super) places: &'a mut [[u8; 2]],
    pub(super) sums: &'a mut [[u8; 2]],
}

impl<'a> Strip<'a> {
    /// Codes, places and sum of each pixel.
    #[inline(always)]
    fn pixels(self) -> impl Iterator<Item = (&'a [u8], &'a mut [[u8; 2]], &'a mut [u8; 2])> {
        let (c, cs) = self.channels;
        let places = self.places.len() / self.sums.len();
        let codes = self.x.chunks_exact(cs).map(move |pixel| &pixel[..c]);
        codes
            .zip(self.places.chunks_exact_mut(places))
            .zip(self.sums)
            .map(|((codes, places), sum)| (codes, places, sum))
    }
}

impl Tables {
    /// Codes of a group.
    pub(super) fn group(&self) -> usize {
        self.codes * self.terms
    }

    /// Bytes of all tables of a term.
    pub(super) fn term_bytes(&self) -> usize {
        self.entries << (self.codes as u32 * self.code_bits)
    }

    /// The tables of every term: entry `d` is the sum of a table's codes times their digits, of `bits` bits, in `d`,
    /// the index of the group.
    pub(super) fn bytes(&self, bits: u32) -> Vec<u8> {
        let field = |of: usize, bits: u32, k: usize| (of >> (bits as usize * k)) & ((1 << bits) - 1);
        let entry = |term: usize, table: usize, index: usize| {
            let product = |k| field(table, self.code_bits, k) * field(index, bits, term * self.codes + k);
            (0..self.codes).map(product).sum::<usize>() as u8
        };
        let tables = self.term_bytes() / self.entries;
        (0..self.terms)
            .flat_map(|term| (0..tables).map(move |table| (term, table)))
            .flat_map(|(term, table)| (0..self.entries).map(move |index| entry(term, table, index)))
            .collect()
    }

    /// Writes the places and the sums of a strip. Every place is that of a table, whatever the codes.
    #[inline(always)]
    pub(super) fn fill(&self, strip: Strip<'_>) {
        match self.codes {
            2 => self.fill_of::<2>(strip),
            3 => self.fill_of::<3>(strip),
            4 => self.fill_of::<4>(strip),
            _ => self.fill_of::<6>(strip),
        }
    }

    #[inline(always)]
    fn fill_of<const N: usize>(&self, strip: Strip<'_>) {
        let (bits, terms) = (self.code_bits, self.terms);
        let mask = (1 << bits) - 1;
        let place = |codes: &[u8; N], term: usize| {
            let table = (0..N).fold(0, |table, k| table | usize::from(codes[k] & mask) << (bits as usize * k));
            ((term * self.term_bytes() + table * self.entries) as u16).to_le_bytes()
        };
        for (codes, places, sum) in strip.pixels() {
            *sum = codes.iter().map(|&code| u16::from(code & mask)).sum::<u16>().to_le_bytes();
            let (whole, rest) = codes.as_chunks();
            let (first, last) = places.split_at_mut(whole.len());
            if terms == 1 {
                first.iter_mut().zip(whole).for_each(|(to, codes)| *to = place(codes, 0));
            } else {
                first.iter_mut().zip(whole).enumerate().for_each(|(i, (to, codes))| *to = place(codes, i % terms));
            }
            // Digits beyond the last channel are zero, so that the codes there do not matter.
            let mut padded = [0; N];
            padded[..rest.len()].copy_from_slice(rest);
            for (i, to) in last.iter_mut().enumerate() {
                *to = place(if i == 0 { &padded } else { &[0; N] }, (whole.len() + i) % terms);
            }
        }
    }

    /// The same for tables of three codes, sixteen at a time.
    pub(super) fn fill_threes(&self, _: Vbmi, strip: Strip<'_>) {
        assert!(self.codes == 3 && self.code_bits <= 3, "{self:?}");
        // SAFETY: the token proves the features.
        unsafe { self.threes(strip) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma")]
    fn threes(&self, strip: Strip<'_>) {
        const CODES: usize = 48;
        let bits = self.code_bits;
        let spread: [u8; 64] = std::array::from_fn(|i| (i / 4 * 3 + (i % 4).min(2)) as u8);
        let spread = read512(&spread);
        let factors = _mm512_set1_epi32(i32::from_le_bytes([1, 1 << bits, 1 << (2 * bits), 0]));
        let terms: [i32; 16] = std::array::from_fn(|i| (i % self.terms * self.term_bytes()) as i32);
        let terms = read512(&terms);
        let entries = _mm_cvtsi32_si128(self.entries.ilog2() as i32);
        let mask = _mm512_set1_epi8((1 << bits) - 1);
        for (codes, places, sum) in strip.pixels() {
            let mut sums = _mm512_setzero_si512();
            for (codes, places) in codes.chunks(CODES).zip(places.chunks_mut(CODES / 3)) {
                let lanes = u64::MAX >> (64 - codes.len());
                // SAFETY: so many codes are readable, the others are masked.
                let codes = unsafe { _mm512_maskz_loadu_epi8(lanes, codes.as_ptr().cast()) };
                let codes = _mm512_and_si512(codes, mask);
                sums = _mm512_add_epi64(sums, _mm512_sad_epu8(codes, _mm512_setzero_si512()));
                let threes = _mm512_permutexvar_epi8(spread, codes);
                let tables = _mm512_dpbusd_epi32(_mm512_setzero_si512(), threes, factors);
                let at = _mm512_cvtepi32_epi16(_mm512_add_epi32(_mm512_sll_epi32(tables, entries), terms));
                let lanes = u16::MAX >> (CODES / 3 - places.len());
                // SAFETY: so many places are writable, the others are masked.
                unsafe { _mm256_mask_storeu_epi16(places.as_mut_ptr().cast(), lanes, at) };
            }
            *sum = (_mm512_reduce_add_epi64(sums) as u16).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::isa::Avx512;

    #[test]
    fn places_are_the_same_in_every_form() {
        let Some(vbmi) = Avx512::detect().and_then(Vbmi::detect) else { return };
        for (code_bits, terms, entries) in [(1, 1, 64), (2, 1, 64), (2, 2, 64), (3, 1, 16)] {
            let tables = Tables { code_bits, codes: 3, terms, entries };
            for c in [1_usize, 3, 5, 6, 47, 48, 49, 64, 96, 97, 128] {
                let (cs, pixels, groups) = (c + 5, 3, c.div_ceil(tables.group()));
                let x: Vec<u8> = (0..cs * pixels).map(|i| (i * i * 7 % 251) as u8).collect();
                let [mut a, mut b] = [(); 2].map(|()| (vec![[9; 2]; pixels * groups * terms], vec![[9; 2]; pixels]));
                fn strip<'a>(
                    x: &'a [u8],
                    channels: (usize, usize),
                    to: &'a mut (Vec<[u8; 2]>, Vec<[u8; 2]>),
                ) -> Strip<'a> {
                    Strip { x, channels, places: &mut to.0, sums: &mut to.1 }
                }
                tables.fill(strip(&x, (c, cs), &mut a));
                tables.fill_threes(vbmi, strip(&x, (c, cs), &mut b));
                assert_eq!(a, b, "{tables:?}, {c} channels");
            }
        }
    }
}
