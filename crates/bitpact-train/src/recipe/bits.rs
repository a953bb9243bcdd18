//! Bits that change in the course of a run.

use std::fmt;
use std::str::FromStr;

use bitpact_graph::BitSpec;
use serde::{Deserialize, Serialize};

/// Bits of weights and activations over the epochs of a run: `W4A4`, or `W8A8@10,W4A4@20,W3A3`, which is W8A8 up to the
/// end of epoch 10, W4A4 up to the end of epoch 20 and W3A3 from then on. `float` is trained without quantizers, alone
/// or as the first of several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BitSchedule {
    /// Bits with the last epoch that has them, counted from 1.
    before: Vec<(BitSpec, u32)>,
    last: BitSpec,
}

impl BitSchedule {
    /// The bits of epoch `epoch`, counted from 0.
    pub fn at(&self, epoch: u32) -> BitSpec {
        self.before.iter().find(|(_, end)| epoch < *end).map_or(self.last, |(bits, _)| *bits)
    }

    /// The bits at the end of the run.
    pub fn last(&self) -> BitSpec {
        self.last
    }

    /// The first bits that are not float, if there are any.
    pub fn first_quantized(&self) -> BitSpec {
        self.all().find(|bits| *bits != BitSpec::Float).unwrap_or(BitSpec::Float)
    }

    /// All bits in their order.
    pub fn all(&self) -> impl Iterator<Item = BitSpec> + '_ {
        self.before.iter().map(|(bits, _)| *bits).chain([self.last])
    }

    /// Epochs done at the last change.
    pub fn last_change(&self) -> Option<u32> {
        self.before.last().map(|(_, end)| *end)
    }

    /// Tells whether the network has no quantizers at the end.
    pub fn is_float(&self) -> bool {
        self.last == BitSpec::Float
    }
}

impl From<BitSpec> for BitSchedule {
    fn from(last: BitSpec) -> Self {
        Self { before: Vec::new(), last }
    }
}

impl fmt::Display for BitSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.before.iter().try_for_each(|(bits, end)| write!(f, "{bits}@{end},"))?;
        self.last.fmt(f)
    }
}

impl FromStr for BitSchedule {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (before, last) = s.rsplit_once(',').map_or((None, s), |(before, last)| (Some(before), last));
        if let Some((bits, _)) = last.split_once('@') {
            return Err(format!("`{s}`: the last bits stay to the end of the run, expected `{bits}` without an epoch"));
        }
        let mut phases: Vec<(BitSpec, u32)> = Vec::new();
        for phase in before.into_iter().flat_map(|before| before.split(',')) {
            let Some((bits, end)) = phase.split_once('@') else {
                return Err(format!("`{phase}`: expected the last epoch that has these bits, such as `{phase}@10`"));
            };
            let end: u32 = end.parse().map_err(|_| format!("`{phase}`: `{end}` is no epoch"))?;
            let least = phases.last().map_or(0, |(_, end)| *end);
            if end <= least {
                return Err(format!("`{phase}`: expected an epoch above {least}"));
            }
            phases.push((bits.parse()?, end));
        }
        let schedule = Self { before: phases, last: last.parse()? };
        if schedule.all().skip(1).any(|bits| bits == BitSpec::Float) {
            return Err(format!("`{s}`: float can only come first"));
        }
        Ok(schedule)
    }
}

impl Serialize for BitSchedule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BitSchedule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_its_bits() {
        let bits: BitSchedule = "float@1,W8A8@3,w4a4@5,W2A2".parse().unwrap();
        let of: Vec<String> = (0..7).map(|epoch| bits.at(epoch).to_string()).collect();
        assert_eq!(of, ["float", "W8A8", "W8A8", "W4A4", "W4A4", "W2A2", "W2A2"]);
        assert_eq!(bits.to_string(), "float@1,W8A8@3,W4A4@5,W2A2");
        assert_eq!((bits.first_quantized().to_string(), bits.last_change()), ("W8A8".to_owned(), Some(5)));
        let one: BitSchedule = "W3A4".parse().unwrap();
        assert_eq!((one.to_string().as_str(), one.at(0), one.last_change()), ("W3A4", one.last(), None));
        assert_eq!(BitSchedule::from(one.last()), one);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, wanted) in [
            ("W4A4@3", "the last bits stay to the end of the run, expected `W4A4` without an epoch"),
            ("W8A8,W4A4", "`W8A8`: expected the last epoch that has these bits, such as `W8A8@10`"),
            ("W8A8@x,W4A4", "`x` is no epoch"),
            ("W8A8@0,W4A4", "expected an epoch above 0"),
            ("W8A8@3,W4A4@3,W2A2", "`W4A4@3`: expected an epoch above 3"),
            ("W8A8@3,float", "float can only come first"),
            ("W8A8@3,", "`` is not a bit width"),
            ("W9A8@3,W2A2", "9 bits for weights"),
        ] {
            let error = text.parse::<BitSchedule>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
