//! Rounding to the nearest integer, ties to even.

/// The integer nearest to `x`, ties to even; exact for every float, `NaN`, infinities and the sign of zero stay.
///
/// Equal to [`f32::round_ties_even`] bit for bit. From 2^23 on floats are integers and a sum has no fraction bits left,
/// so the addition itself rounds; loops over it vectorize on every x86-64.
#[inline]
pub fn round_half_even(x: f32) -> f32 {
    const INTEGERS: f32 = 8_388_608.0; // 2^23
    let magnitude = x.abs();
    let rounded = ((magnitude + INTEGERS) - INTEGERS).copysign(x);
    if magnitude < INTEGERS { rounded } else { x }
}

/// 1.5 * 2^23, whose sum with a small float is an integer.
const ROUNDER: f32 = 12_582_912.0;

/// `round_half_even(x)` as an integer, for `|x| <= 2^22`: the addition rounds, the low bits of the sum are the integer.
/// Unlike a cast, which saturates, it costs one subtraction.
#[inline(always)]
pub(crate) fn round_to_code(x: f32) -> i32 {
    debug_assert!(x.abs() <= 4_194_304.0, "{x}");
    (x + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
}

/// `round_half_even(x)` for `|x| <= 2^22`, in two additions.
#[inline(always)]
pub(crate) fn round_code(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_even_neighbour() {
        let table = [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (3.5, 4.0), (-0.5, 0.0), (-1.5, -2.0), (254.5, 254.0)];
        for (x, expected) in table {
            assert_eq!(round_half_even(x), expected, "{x}");
        }
        assert_eq!(round_half_even(0.49999997), 0.0);
        assert_eq!(round_half_even(8_388_607.5), 8_388_608.0);
    }

    #[test]
    fn equals_the_standard_library_on_floats_of_every_size() {
        for i in 0..(1u32 << 20) {
            let x = f32::from_bits(i.wrapping_mul(4093).wrapping_add(i >> 7));
            let (ours, theirs) = (round_half_even(x), x.round_ties_even());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{x:e}: {ours} {theirs}");
        }
        for half in -20_000_000i32..20_000_000 {
            if half % 7 == 0 {
                let x = half as f32 / 2.0;
                assert_eq!(round_half_even(x).to_bits(), x.round_ties_even().to_bits(), "{x}");
                if x.abs() <= 4_194_304.0 {
                    assert_eq!(round_to_code(x), x.round_ties_even() as i32, "{x}");
                    assert_eq!(round_code(x), x.round_ties_even(), "{x}");
                }
            }
        }
    }
}
