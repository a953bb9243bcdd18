//! A limit on what a network may cost, as people write it.

use std::fmt;
use std::str::FromStr;

use bitpact_graph::BitSpec;

use crate::SearchError;

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Weights and biases.
    Parameters,
    /// Bytes of the weight codes, packed.
    Bytes,
    /// Multiply-adds of an image.
    Macs,
    /// Multiply-adds times the bits of both operands.
    BitOperations,
    /// Seconds of an image.
    Latency,
    /// Joules of an image.
    Energy,
}

impl Quantity {
    const ALL: [Self; 6] =
        [Self::Parameters, Self::Bytes, Self::Macs, Self::BitOperations, Self::Latency, Self::Energy];

    /// Its word in a budget, such as `bitops`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "params",
            Self::Bytes => "bytes",
            Self::Macs => "macs",
            Self::BitOperations => "bitops",
            Self::Latency => "latency",
            Self::Energy => "energy",
        }
    }

    /// Whether it is of a device.
    pub fn is_of_device(self) -> bool {
        matches!(self, Self::Latency | Self::Energy)
    }

    /// Units and their factors.
    fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Bytes => &[
                ("", 1.0),
                ("B", 1.0),
                ("k", 1e3),
                ("kB", 1e3),
                ("KiB", 1024.0),
                ("M", 1e6),
                ("MB", 1e6),
                ("MiB", 1_048_576.0),
            ],
            Self::Parameters | Self::Macs | Self::BitOperations => &[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)],
            Self::Latency => &[("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0)],
            Self::Energy => &[("nJ", 1e-9), ("uJ", 1e-6), ("mJ", 1e-3), ("J", 1.0)],
        }
    }

    /// `value` for people, such as `12.3 kB` or `1.205 ms`.
    pub fn show(self, value: f64) -> String {
        let (factor, unit) = match self {
            Self::Latency => (1e-3, "ms"),
            Self::Energy => (1e-6, "uJ"),
            _ if value < 1e4 => (1.0, ""),
            _ if value < 1e7 => (1e3, "k"),
            _ if value < 1e10 => (1e6, "M"),
            _ => (1e9, "G"),
        };
        let end = if self == Self::Bytes { "B" } else { "" };
        let digits = if factor == 1.0 { 0 } else { 3 };
        format!("{:.digits$} {unit}{end}", value / factor).trim_end().to_owned()
    }
}

/// How much a budget allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// So many, in bytes, seconds, joules or a plain number.
    Value(f64),
    /// As much as the network takes with these bits everywhere.
    Like(BitSpec),
}

/// A limit such as `bytes=60k`, `bitops=W3A3` or `latency=1.2ms@cpu`.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// What is limited.
    pub quantity: Quantity,
    /// How much there may be of it.
    pub limit: Limit,
    /// The device, of latency and energy.
    pub device: Option<String>,
}

impl FromStr for Budget {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        let fail = |message: String| SearchError::Budget { text: text.to_owned(), message };
        let names = || Quantity::ALL.map(Quantity::name).join(", ");
        let form = || fail(format!("expected a form like bytes=60k or latency=1.2ms@cpu, of {}", names()));
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let quantity = Quantity::ALL.into_iter().find(|quantity| quantity.name() == name);
        let quantity = quantity.ok_or_else(|| fail(format!("`{name}` is none of {}", names())))?;
        let (amount, device) = match rest.split_once('@') {
            Some((_, "")) => return Err(fail("expected a device after @".to_owned())),
            Some((amount, device)) => (amount, Some(device.to_owned())),
            None => (rest, None),
        };
        match (quantity.is_of_device(), &device) {
            (true, None) => return Err(fail(format!("{name} is of a device: expected {name}={amount}@DEVICE"))),
            (false, Some(device)) => return Err(fail(format!("{name} is of no device: leave out @{device}"))),
            _ => {}
        }
        let limit = match amount.parse::<BitSpec>() {
            Ok(BitSpec::Float) => return Err(fail("a float network has no cost of this kind".to_owned())),
            Ok(bits) => Limit::Like(bits),
            Err(_) => Limit::Value(value(quantity, amount).map_err(fail)?),
        };
        Ok(Self { quantity, limit, device })
    }
}

fn value(quantity: Quantity, amount: &str) -> Result<f64, String> {
    let end = amount.find(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')).unwrap_or(amount.len());
    let (number, unit) = amount.split_at(end);
    let units = || quantity.units().iter().map(|unit| unit.0).filter(|unit| !unit.is_empty()).collect::<Vec<_>>();
    let expected =
        || format!("`{amount}`: expected a positive number with one of {}, or bits like W3A3", units().join(", "));
    let factor = quantity.units().iter().find(|known| known.0 == unit).ok_or_else(expected)?.1;
    let number: f64 = number.parse().map_err(|_| expected())?;
    if number.is_finite() && number > 0.0 { Ok(number * factor) } else { Err(expected()) }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.quantity.name())?;
        match self.limit {
            Limit::Value(value) => f.write_str(&self.quantity.show(value).replace(' ', ""))?,
            Limit::Like(bits) => write!(f, "{bits}")?,
        }
        self.device.as_ref().map_or(Ok(()), |device| write!(f, "@{device}"))
    }
}
