//! The order of packed weights.
//!
//! A panel is 16 outputs. It is one stream: for every two groups (four with zero points of their own) their steps as
//! float16, 16 a group, then zero points as bytes where there are any, then the codes group by group. Steps in a place
//! of their own would be a second stream, and one token then reads at half the speed of memory. Codes come in blocks of
//! 32 inputs of 16 outputs, `64 * bits` bytes. A block expands to eight registers of bytes: byte `4 o + j` of register
//! `s` is output `o`, input `4 s + j`, so that a register times four activations, repeated, is what `vpdpbusd`
//! multiplies.
//!
//! - 8 bits: the registers themselves. 4 bits: two registers in one, the second in the high half. 2 bits: four in one.
//! - 3 bits: two bits of each code as above in two registers; the third bits in one more register, at the places where
//!   one selection by a mask makes the code contiguous: registers 0 to 3 at bits 2, 4 (above bits 0-1 and 2-3), 3 and 5
//!   (below bits 4-5 and 6-7); those of registers 4 to 7 the same after the register's double words are turned left by
//!   4 bits.

use super::Zeros;

/// Outputs of a panel.
pub(super) const OUTPUTS: usize = 16;
/// Inputs of a block.
pub(super) const INPUTS: usize = 32;
/// Longest group whose sums fit 32 bits: `255 * 127` twice an input, for codes and zeros.
pub(super) const MAX_GROUP: usize = 32768;
/// Place of the third bit of a code of 3 bits in registers 0 to 3.
const THIRD: [usize; 4] = [2, 4, 3, 5];

/// Sizes of packed weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bits: usize,
    pub(super) group: usize,
    pub(super) groups: usize,
    /// The zero of all groups; none where each has its own.
    pub(super) zero: Option<u8>,
    /// Bytes of a panel.
    pub(super) bytes: usize,
}

impl Panels {
    pub(super) fn new(rows: usize, cols: usize, bits: usize, group: usize, zeros: Zeros<'_>) -> Panels {
        assert!(matches!(bits, 2 | 3 | 4 | 8), "{bits} bits: expected 2, 3, 4 or 8");
        let fits = group > 0 && group.is_multiple_of(INPUTS) && group <= MAX_GROUP;
        assert!(fits, "groups of {group}: expected a multiple of {INPUTS} up to {MAX_GROUP}");
        let groups = cols.div_ceil(group);
        let zero = if let Zeros::All(zero) = zeros { Some(zero) } else { None };
        let mut panels = Panels { rows, cols, bits, group, groups, zero, bytes: 0 };
        panels.bytes = groups.div_ceil(panels.span()) * panels.header() + groups * panels.group_bytes();
        panels
    }

    /// Groups whose steps stand together.
    pub(super) fn span(&self) -> usize {
        if self.zero.is_some() { 2 } else { 4 }
    }

    /// Bytes of their steps and zeros.
    pub(super) fn header(&self) -> usize {
        if self.zero.is_some() { 64 } else { 192 }
    }

    /// Bytes of the codes of a group.
    pub(super) fn group_bytes(&self) -> usize {
        self.group / INPUTS * self.bits * 64
    }

    /// Where the steps and zeros of a span begin, and where the codes of group `g` do.
    pub(super) fn places(&self, g: usize) -> (usize, usize) {
        let span = g / self.span();
        let header = span * (self.header() + self.span() * self.group_bytes());
        (header, header + self.header() + g % self.span() * self.group_bytes())
    }

    /// The bytes of all panels. Outputs and inputs beyond the matrix get codes of 0 and steps of 0.
    pub(super) fn pack(&self, codes: &[u8], steps: &[u16], zeros: Zeros<'_>) -> Vec<u8> {
        assert_eq!(codes.len(), self.rows * self.cols, "codes");
        assert_eq!(steps.len(), self.rows * self.groups, "steps");
        if let Zeros::Each(zeros) = zeros {
            assert_eq!(zeros.len(), self.rows * self.groups, "zeros");
        }
        assert!(codes.iter().all(|&c| u32::from(c) >> self.bits == 0), "codes of more than {} bits", self.bits);
        let mut out = vec![0; self.rows.div_ceil(OUTPUTS) * self.bytes];
        for (row, codes) in codes.chunks_exact(self.cols).enumerate() {
            let (panel, o) = (&mut out[row / OUTPUTS * self.bytes..][..self.bytes], row % OUTPUTS);
            for g in 0..self.groups {
                let ((header, start), i) = (self.places(g), g % self.span());
                let step = header + (i * OUTPUTS + o) * 2;
                panel[step..step + 2].copy_from_slice(&steps[row * self.groups + g].to_le_bytes());
                if let Zeros::Each(zeros) = zeros {
                    panel[header + 128 + i * OUTPUTS + o] = zeros[row * self.groups + g];
                }
                let end = self.cols.min((g + 1) * self.group);
                for (k, &code) in codes[g * self.group..end].iter().enumerate() {
                    let block = start + k / INPUTS * self.bits * 64;
                    put(&mut panel[block..block + self.bits * 64], self.bits, o, k % INPUTS, code);
                }
            }
        }
        out
    }
}

/// Writes the code of output `o` and input `k` to a block of zeros.
fn put(block: &mut [u8], bits: usize, o: usize, k: usize, code: u8) {
    let (register, byte) = (k / 4, o * 4 + k % 4);
    match bits {
        8 => block[register * 64 + byte] = code,
        4 => block[register / 2 * 64 + byte] |= code << (register % 2 * 4),
        2 => block[register / 4 * 64 + byte] |= code << (register % 4 * 2),
        _ => {
            let quarter = register % 4;
            // Below the middle the two low bits stand in place and the third above them, otherwise the third is the
            // lowest.
            let (two, third) = if quarter < 2 { (code & 3, code >> 2) } else { (code >> 1, code & 1) };
            block[register / 4 * 64 + byte] |= two << (quarter * 2);
            let (at, place) = third_bit(register, byte);
            block[128 + at] |= third << place;
        }
    }
}

/// Byte and bit of the third bit in its register.
fn third_bit(register: usize, byte: usize) -> (usize, usize) {
    let place = THIRD[register % 4];
    if register < 4 {
        return (byte, place);
    }
    // Turning a double word left by 4 moves bit b to b + 4: what shall be at 32 bits' place b comes from b - 4.
    let bit = (byte % 4 * 8 + place + 28) % 32;
    (byte / 4 * 4 + bit / 8, bit % 8)
}

/// The code of output `o` and input `k` of a block.
pub(super) fn get(block: &[u8], bits: usize, o: usize, k: usize) -> u8 {
    let (register, byte) = (k / 4, o * 4 + k % 4);
    match bits {
        8 => block[register * 64 + byte],
        4 => block[register / 2 * 64 + byte] >> (register % 2 * 4) & 15,
        2 => block[register / 4 * 64 + byte] >> (register % 4 * 2) & 3,
        _ => {
            let quarter = register % 4;
            let two = block[register / 4 * 64 + byte] >> (quarter * 2) & 3;
            let (at, place) = third_bit(register, byte);
            let third = block[128 + at] >> place & 1;
            if quarter < 2 { two | third << 2 } else { two << 1 | third }
        }
    }
}
