//! Bits of the two operands of a multiplication.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Bits of the two operands of a multiplication, 1 to 16 each: wider than [`bitpact_graph::BitSpec`], because the
/// machines low bits are compared with compute at 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Widths {
    activations: u8,
    weights: u8,
}

impl Widths {
    /// `None` where one is outside 1..=16.
    pub const fn new(activations: u8, weights: u8) -> Option<Self> {
        if activations >= 1 && activations <= 16 && weights >= 1 && weights <= 16 {
            Some(Self { activations, weights })
        } else {
            None
        }
    }

    /// Both operands of `bits`; `None` outside 1..=16.
    pub const fn same(bits: u8) -> Option<Self> {
        Self::new(bits, bits)
    }

    /// Bits of an activation, 1..=16.
    pub const fn activations(self) -> u8 {
        self.activations
    }

    /// Bits of a weight, 1..=16.
    pub const fn weights(self) -> u8 {
        self.weights
    }

    /// Both at least `bits` wide.
    pub(crate) fn at_least(self, bits: u8) -> Self {
        Self { activations: self.activations.max(bits), weights: self.weights.max(bits) }
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{}A{}", self.weights, self.activations)
    }
}

impl FromStr for Widths {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parse = || -> Option<(u8, u8)> {
            let (w, a) = s.strip_prefix(['W', 'w'])?.split_once(['A', 'a'])?;
            Some((w.parse().ok()?, a.parse().ok()?))
        };
        let (w, a) = parse().ok_or_else(|| format!("`{s}` is not a pair of widths: expected a form like `W4A8`"))?;
        Self::new(a, w).ok_or_else(|| format!("`{s}`: expected 1 to 16 bits for each operand"))
    }
}

impl Serialize for Widths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_read_as_they_print() {
        for text in ["W2A8", "W8A2", "W16A16", "W1A1"] {
            assert_eq!(text.parse::<Widths>().unwrap().to_string(), text);
        }
        assert_eq!("w2a8".parse::<Widths>().unwrap(), Widths::new(8, 2).unwrap());
        for bad in ["", "W2", "A2W2", "W0A2", "W2A17", "W2A2 ", "W-1A2", "W256A2"] {
            assert!(bad.parse::<Widths>().unwrap_err().contains(bad), "{bad}");
        }
    }
}
