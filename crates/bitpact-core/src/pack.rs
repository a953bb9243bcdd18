//! Bit packing of fields of 1 to 16 bits, least significant bit first.
//!
//! Field `i` fills the stream bits `i * bits .. (i + 1) * bits`; stream bit `j` is bit `j % 8` of byte `j / 8`. The
//! unused bits of the last byte are zero.

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

/// Unpacks `n` fields of `bits` bits from a stream of exactly [`packed_bytes`] bytes. Allocates only after the length
/// is checked, so `n` may come from an untrusted file.
///
/// # Errors
/// A width outside 1..=16, a stream of another length, unused bits that are not zero.
pub fn unpack(bytes: &[u8], n: usize, bits: u32) -> Result<Vec<u32>, PackError> {
    let mut fields = Vec::new();
    unpack_into(&mut fields, bytes, n, bits, |field| field)?;
    Ok(fields)
}

/// Unpacks fields as [`unpack`] does, appending `f` of each one to `to`.
///
/// # Errors
/// Those of [`unpack`]; fields may have been appended by then.
pub fn unpack_into<T>(
    to: &mut Vec<T>,
    bytes: &[u8],
    n: usize,
    bits: u32,
    f: impl Fn(u32) -> T,
) -> Result<(), PackError> {
    if !(1..=16).contains(&bits) {
        return Err(PackError::Bits { bits });
    }
    let expected = wide_bytes(n, bits);
    if expected != bytes.len() as u128 {
        return Err(PackError::Length { fields: n, bits, expected, got: bytes.len() });
    }
    to.reserve(n);
    macro_rules! widths {
        ($($b:literal)*) => {
            match bits {
                $($b => unpack_width::<$b, T>(to, bytes, n, f),)*
                _ => 0,
            }
        };
    }
    match widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16) {
        0 => Ok(()),
        _ => Err(PackError::Padding { fields: n, bits, last: bytes.last().copied().unwrap_or(0) }),
    }
}

/// Appends the fields, and returns the unused bits. Eight fields are a whole number of bytes, at most 16.
fn unpack_width<const BITS: usize, T>(to: &mut Vec<T>, bytes: &[u8], n: usize, f: impl Fn(u32) -> T) -> u128 {
    let field = |eight: u128, i: usize| (eight >> (BITS * i)) as u32 & ((1 << BITS) - 1);
    let (wholes, rest) = bytes.as_chunks::<BITS>();
    let (wholes, rest) = if n.is_multiple_of(8) { (wholes, rest) } else { (&wholes[..n / 8], &bytes[n / 8 * BITS..]) };
    for whole in wholes {
        let mut eight = [0; 16];
        eight[..BITS].copy_from_slice(whole);
        let eight = u128::from_le_bytes(eight);
        to.extend((0..8).map(|i| f(field(eight, i))));
    }
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let last = u128::from_le_bytes(last);
    to.extend((0..n % 8).map(|i| f(field(last, i))));
    last >> (BITS * (n % 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_by_hand() {
        assert_eq!(pack(&[1, 2, 3, 0, 5], 3), [0b1101_0001, 0b0101_0000]);
        assert_eq!(pack(&[0x123, 0xabc], 12), [0x23, 0xc1, 0xab]);
        assert_eq!(pack(&[0xbeef], 16), [0xef, 0xbe]);
        assert_eq!(pack(&[1, 0, 0, 0, 0, 0, 0, 1, 1], 1), [0x81, 0x01]);
        assert!(pack(&[], 5).is_empty());
    }

    #[test]
    fn sizes_round_up_and_never_wrap() {
        assert_eq!([0, 1, 2, 3, 8].map(|n| packed_bytes(n, 3)), [0, 1, 1, 2, 3]);
        assert_eq!(packed_bytes(usize::MAX, 16), usize::MAX);
    }

    #[test]
    fn malformed_streams_are_refused() {
        let short = PackError::Length { fields: 5, bits: 3, expected: 2, got: 1 };
        assert_eq!(unpack(&[0], 5, 3), Err(short));
        assert_eq!(unpack(&[0; 3], 5, 3).unwrap_err().to_string(), "5 fields of 3 bits take 2 bytes, got 3");
        assert!(unpack(&[0; 8], usize::MAX, 16).is_err(), "an enormous count allocates nothing");
        for bits in [0, 17, 32, u32::MAX] {
            assert_eq!(unpack(&[0], 1, bits), Err(PackError::Bits { bits }));
        }
        for bit in 0..16 {
            let stream = (1u16 << bit).to_le_bytes();
            assert_eq!(unpack(&stream, 5, 3).is_ok(), bit < 15, "stream bit {bit}");
        }
        let padding = unpack(&[0b1000_0001], 1, 1).unwrap_err().to_string();
        assert!(padding.contains("last byte 0b10000001"), "{padding}");
    }

    #[test]
    #[should_panic(expected = "field 8 does not fit 3 bits")]
    fn a_field_too_wide_is_a_bug_of_the_caller() {
        pack(&[7, 8], 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn round_trip_and_bit_positions(bits in 1u32..=16, raw in prop::collection::vec(any::<u32>(), 0..90)) {
            let fields: Vec<u32> = raw.iter().map(|f| f & ((1 << bits) - 1)).collect();
            let bytes = pack(&fields, bits);
            prop_assert_eq!(bytes.len(), packed_bytes(fields.len(), bits));
            for (i, field) in fields.iter().enumerate() {
                for b in 0..bits {
                    let j = i * bits as usize + b as usize;
                    prop_assert_eq!(u32::from(bytes[j / 8] >> (j % 8) & 1), field >> b & 1);
                }
            }
            prop_assert_eq!(unpack(&bytes, fields.len(), bits), Ok(fields));
        }

        #[test]
        fn any_bytes_unpack_or_fail_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), n in 0usize..100, bits in 0u32..20) {
            if let Ok(fields) = unpack(&bytes, n, bits) {
                prop_assert_eq!(pack(&fields, bits), bytes);
            }
        }
    }
}
