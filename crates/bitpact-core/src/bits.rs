//! The width of a code: 1 to 8 bits.

use crate::SpecError;
use serde::{Deserialize, Serialize};

/// The width of a code in bits, 1..=8. Serializes as the plain integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u8")]
pub struct Bits(u8);

impl Bits {
    /// The width of so many bits; `None` outside 1..=8.
    pub const fn new(bits: u8) -> Option<Bits> {
        if bits >= 1 && bits <= 8 { Some(Bits(bits)) } else { None }
    }

    /// All widths from 1 to 8 bits, in ascending order.
    pub fn all() -> impl Iterator<Item = Bits> {
        (1..=8).map(Bits)
    }

    /// The width as a number, 1..=8.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// `2^bits - 1`: the largest unsigned code, 1..=255.
    pub const fn q_max(self) -> i32 {
        (1 << self.0) - 1
    }
}

impl TryFrom<u64> for Bits {
    type Error = SpecError;
    fn try_from(bits: u64) -> Result<Bits, SpecError> {
        u8::try_from(bits).ok().and_then(Bits::new).ok_or(SpecError::Bits { given: bits })
    }
}

impl From<Bits> for u8 {
    fn from(bits: Bits) -> u8 {
        bits.0
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_widths_1_to_8_exist() {
        let good: Vec<u8> = (0..=255).filter(|&b| Bits::new(b).is_some()).collect();
        assert_eq!(good, [1, 2, 3, 4, 5, 6, 7, 8]);
        let q_max: Vec<i32> = Bits::all().map(Bits::q_max).collect();
        assert_eq!(q_max, [1, 3, 7, 15, 31, 63, 127, 255]);
    }

    #[test]
    fn serde_is_the_plain_integer_and_names_the_range() {
        assert_eq!(serde_json::to_string(&Bits(4)).unwrap(), "4");
        assert_eq!(serde_json::from_str::<Bits>("8").unwrap(), Bits(8));
        for bad in ["0", "9", "256", "260", "18446744073709551615"] {
            let message = serde_json::from_str::<Bits>(bad).unwrap_err().to_string();
            assert!(message.contains(&format!("{bad} bits: a width is 1 to 8 bits")), "{message}");
        }
        for bad in ["-1", "2.5", "\"4\"", "null"] {
            assert!(serde_json::from_str::<Bits>(bad).is_err(), "{bad}");
        }
    }
}
