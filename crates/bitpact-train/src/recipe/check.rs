//! What a value must be besides being of its field's type. An error is the end of a message that begins with the key.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::Value;

use super::draft::short;
use super::{Augmentation, BitSchedule, Crop, GroupRates, InputScale};

/// Numbers, and the words for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) text: &'static str,
    holds: fn(f64) -> bool,
}

impl Range {
    /// Whether `value` is in the range and still what it is in f32, in which training keeps it.
    pub(super) fn holds(&self, value: f64) -> bool {
        (value as f32).is_finite() && (value == 0.0 || value as f32 != 0.0) && (self.holds)(value)
    }
}

pub(super) const POSITIVE: Range = Range { text: "a number above 0", holds: |v| v > 0.0 };
pub(super) const NOT_NEGATIVE: Range = Range { text: "a number of 0 or more", holds: |v| v >= 0.0 };
pub(super) const FRACTION: Range =
    Range { text: "a number of at least 0 and below 1", holds: |v| v >= 0.0 && (v as f32) < 1.0 };
pub(super) const FACTOR: Range = Range { text: "a number above 0 and at most 1", holds: |v| v > 0.0 && v <= 1.0 };
pub(super) const UNIT: Range = Range { text: "a number from 0 to 1", holds: |v| (0.0..=1.0).contains(&v) };
pub(super) const SHARE: Range = Range { text: "a number above 0 and below 1", holds: |v| v > 0.0 && v < 1.0 };
pub(super) const UP_TO_4: Range = Range { text: "a number from 0 to 4", holds: |v| (0.0..=4.0).contains(&v) };

/// The value as a `T`; none where it is another, which reading the field tells.
fn of<T: DeserializeOwned>(value: &Value) -> Option<T> {
    value.clone().try_into().ok()
}

fn expect(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

pub(super) fn any(_: &Value) -> Result<(), String> {
    Ok(())
}

/// Whether `name` can be part of a folder's name.
pub(super) fn is_plain(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

pub(super) fn name(value: &Value) -> Result<(), String> {
    expect(value.as_str().is_none_or(is_plain), || {
        let expected = "expected up to 64 letters, digits, dots, dashes and underscores, a letter or digit first";
        format!("= {}: {expected}", short(value))
    })
}

/// Any plain name is a data set here: a library user brings sets of their own. The command checks the known ones.
pub(super) fn dataset(value: &Value) -> Result<(), String> {
    let good = |name: &str| !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
    expect(value.as_str().is_none_or(good), || "expected a name of 1 to 64 characters".to_owned())
}

pub(super) fn bits(value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Ok(()) };
    text.parse::<BitSchedule>().map(drop).map_err(|message| format!("= {message}"))
}

pub(super) fn betas(value: &Value) -> Result<(), String> {
    let Some(betas) = of::<Vec<f64>>(value) else { return Ok(()) };
    expect(betas.len() == 2 && betas.iter().all(|&b| (FRACTION.holds)(b)), || {
        format!("= {betas:?}: expected two numbers of at least 0 and below 1")
    })
}

pub(super) fn crop(value: &Value) -> Result<(), String> {
    expect(of::<Crop>(value).is_some(), || {
        format!("= {}: expected a side, or rows and columns, of 1 to 65536 pixels", short(value))
    })
}

pub(super) fn random_crop(value: &Value) -> Result<(), String> {
    let Some(shares) = of::<Vec<f64>>(value) else { return Ok(()) };
    expect(matches!(shares[..], [least, most] if least > 0.0 && least <= most && most <= 1.0), || {
        format!("= {shares:?}: expected the least and the largest share of the area, above 0 and at most 1")
    })
}

pub(super) fn color_jitter(value: &Value) -> Result<(), String> {
    let Some(reach) = of::<Vec<f64>>(value) else { return Ok(()) };
    let holds = |reach: &[f64]| reach.iter().all(|&v| (0.0..=4.0).contains(&v)) && reach[3] <= 0.5;
    expect(reach.len() == 4 && holds(&reach), || {
        format!(
            "= {reach:?}: expected four numbers from 0 to 4, for brightness, contrast, saturation and hue, which is at most 0.5"
        )
    })
}

pub(super) fn milestones(value: &Value) -> Result<(), String> {
    let Some(milestones) = of::<Vec<f64>>(value) else { return Ok(()) };
    let inside = milestones.iter().all(|&m| m > 0.0 && m < 1.0);
    expect(inside && milestones.windows(2).all(|pair| pair[0] < pair[1]), || {
        let expected = "expected fractions of the run, each above 0, below 1 and above the one before";
        format!("= {milestones:?}: {expected}")
    })
}

pub(super) fn input(value: &Value) -> Result<(), String> {
    of::<toml::Table>(value).map_or(Ok(()), |table| InputScale::parse(&table).map(|_| ()))
}

pub(super) fn augment(value: &Value) -> Result<(), String> {
    let pad = of(value).map_or(0, |augment: Augmentation| augment.pad);
    expect(pad <= 1024, || format!("has pad = {pad}: expected at most 1024 pixels"))
}

pub(super) fn param_groups(value: &Value) -> Result<(), String> {
    for (pattern, rates) in of::<BTreeMap<String, GroupRates>>(value).unwrap_or_default() {
        for (key, value) in [("lr", rates.lr), ("weight_decay", rates.weight_decay)] {
            expect(value.is_none_or(|v| v >= 0.0 && (v as f32).is_finite()), || {
                let value = value.unwrap_or(f64::NAN);
                format!(".\"{pattern}\" has {key} = {value}: expected a number of 0 or more")
            })?;
        }
        expect(rates != GroupRates::default(), || {
            format!(".\"{pattern}\" says nothing: expected lr, weight_decay or both")
        })?;
    }
    Ok(())
}
