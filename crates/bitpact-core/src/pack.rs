//! Bit packing of fields of 1 to 16 bits, least significant bit first.
//!
//! Field `i` fills the stream bits `i * bits .. (i + 1) * bits`; stream bit `j` is bit `j % 8` of byte `j / 8`. The unused bits of
//! the last byte are zero.

use crate::PackError;

/// Bytes taken by `n` fields of `bits` bits, `ceil(n * bits / 8)`; `usize::MAX` where that does not fit.
pub fn packed_bytes(n: usize, bits: u32) -> usize {
    usize::try_from(wide_bytes(n, bits)).unwrap_or(usize::MAX)
}

fn wide_bytes(n: usize, bits: u32) -> u128 {
    (n as u128 * u128::from(bits)).div_ceil(8)
}

/// Packs the low `bits` bits of each field.
///
/// # Panics
/// Where `bits` is outside 1..=16 or a field does not fit.
pub fn pack(fields: &[u32], bits: u32) -> Vec<u8> {
    assert!((1..=16).contains(&bits), "pack: {bits} bits, expected 1 to 16");
    let mut bytes = Vec::with_capacity(packed_bytes(fields.len(), bits));
    let (mut pending, mut pending_bits) = (0u32, 0);
    for &field in fields {
        assert!(field >> bits == 0, "pack: field {field} does not fit {bits} bits");
        pending |= field << pending_bits;
        pending_bits += bits;
        while pending_bits >= 8 {
            bytes.push(pending as u8);
            pending >>= 8;
            pending_bits -= 8;
        }
    }
    if pending_bits > 0 {
        bytes.push(pending as u8);
    }
    bytes
}

/// Unpacks `n` fields of `bits` bits from a stream of exactly [`packed_bytes`] bytes. Allocates only after the length is
/// checked, so `n` may come from an untrusted file.
///
/// # Errors
/// A width outside 1..=16, a stream of another length, unused bits that are not zero.
pub fn unpack(bytes: &[u8], n: usize, bits: u32) -> Result<Vec<u32>, PackError> {
    if !(1..=16).contains(&bits) {
        return Err(PackError::Bits { bits });
    }
    let expected = wide_bytes(n, bits);
    if expected != bytes.len() as u128 {
        return Err(PackError::Length { fields: n, bits, expected, got: bytes.len() });
    }
    let mut fields = Vec::with_capacity(n);
    let (mut pending, mut pending_bits) = (0u32, 0);
    let mut stream = bytes.iter();
    while fields.len() < n {
        while pending_bits < bits {
            pending |= u32::from(stream.next().copied().unwrap_or(0)) << pending_bits;
            pending_bits += 8;
        }
        fields.push(pending & ((1 << bits) - 1));
        pending >>= bits;
        pending_bits -= bits;
    }
    if pending != 0 {
        return Err(PackError::Padding { fields: n, bits, last: bytes.last().copied().unwrap_or(0) });
    }
    Ok(fields)
}
