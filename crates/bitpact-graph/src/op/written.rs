//! How the parameters of ops are written: one number where both directions or all sides are alike.
//!
//! Defaults that came later are not written: the checksum of a checkpoint covers the text of its graph.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BatchNorm;
use crate::Padding;

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number, [rows, columns] or [top, left, bottom, right]")]
enum Numbers {
    One(usize),
    Two([usize; 2]),
    Four([usize; 4]),
}

/// `3` or `[3, 1]`.
pub(super) mod pair {
    use serde::de::Error;

    use super::*;

    pub(in crate::op) fn serialize<S: Serializer>(pair: &[usize; 2], to: S) -> Result<S::Ok, S::Error> {
        match *pair {
            [a, b] if a == b => Numbers::One(a),
            pair => Numbers::Two(pair),
        }
        .serialize(to)
    }

    pub(in crate::op) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[usize; 2], D::Error> {
        match Numbers::deserialize(from)? {
            Numbers::One(n) => Ok([n; 2]),
            Numbers::Two(pair) => Ok(pair),
            Numbers::Four(_) => Err(D::Error::custom("expected a whole number or [rows, columns]")),
        }
    }
}

/// `1`, `[rows, columns]` or `[top, left, bottom, right]`.
pub(super) mod sides {
    use super::*;

    pub(in crate::op) fn serialize<S: Serializer>(padding: &Padding, to: S) -> Result<S::Ok, S::Error> {
        match *padding {
            Padding { top, left, bottom, right } if top == bottom && left == right && top == left => Numbers::One(top),
            Padding { top, left, bottom, right } if top == bottom && left == right => Numbers::Two([top, left]),
            Padding { top, left, bottom, right } => Numbers::Four([top, left, bottom, right]),
        }
        .serialize(to)
    }

    pub(in crate::op) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Padding, D::Error> {
        Ok(match Numbers::deserialize(from)? {
            Numbers::One(n) => Padding::all(n),
            Numbers::Two([rows, columns]) => Padding { top: rows, left: columns, bottom: rows, right: columns },
            Numbers::Four([top, left, bottom, right]) => Padding { top, left, bottom, right },
        })
    }
}

pub(super) fn is_one(n: &usize) -> bool {
    *n == 1
}

pub(super) fn is_ones(pair: &[usize; 2]) -> bool {
    *pair == [1; 2]
}

pub(super) fn is_zeros(pair: &[usize; 2]) -> bool {
    *pair == [0; 2]
}

pub(super) fn is_false(b: &bool) -> bool {
    !b
}

pub(super) fn is_true(b: &bool) -> bool {
    *b
}

pub(super) fn is_default_eps(eps: &f64) -> bool {
    *eps == BatchNorm::default_eps()
}

pub(super) fn is_default_momentum(momentum: &f64) -> bool {
    *momentum == BatchNorm::default_momentum()
}
