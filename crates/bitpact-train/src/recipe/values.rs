//! Values of a recipe that are more than a number or a name.

use std::path::{Path, PathBuf};

use bitpact_graph::BitSpec;
use bitpact_model::Pixels;
use serde::{Deserialize, Serialize};

use super::draft::short;

/// Where the clip values start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClipInit {
    /// All clip values start at one value (the paper: 10).
    Fixed(f64),
    /// Clip values start at a percentile of the pre-activations of the first batches.
    Calibrate {
        /// Percentile of the values, 0 to 100.
        percentile: f64,
        /// Number of batches whose percentiles are averaged.
        batches: u32,
    },
}

impl ClipInit {
    /// What `clip_init = "calibrate"` stands for at these bits: the percentile of the clip value that rounds a
    /// half-normal input with the least mean square error, 1.2, 1.95, 2.5 and about 3 standard deviations for
    /// activations of 1, 2, 3 and more bits; the first 8 batches.
    pub fn calibrate(bits: BitSpec) -> ClipInit {
        let percentile = match bits {
            BitSpec::Bits { activations, .. } if activations.get() <= 3 => {
                [89.0, 97.5, 99.3][activations.get() as usize - 1]
            }
            _ => 99.9,
        };
        ClipInit::Calibrate { percentile, batches: 8 }
    }
}

/// The table form of a calibrated start, as files have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Calibration {
    pub(super) percentile: Option<f64>,
    pub(super) batches: Option<u32>,
}

/// Rows and columns of an image: in a recipe a number for both, or a list of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop(pub [usize; 2]);

impl Serialize for Crop {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [h, w] if h == w => h.serialize(serializer),
            sides => sides.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Crop {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Sides {
            Both(usize),
            Each(Vec<usize>),
        }
        let sides = match Sides::deserialize(deserializer)? {
            Sides::Both(side) => [side, side],
            Sides::Each(sides) => match sides[..] {
                [side] => [side, side],
                [h, w] => [h, w],
                _ => return Err(serde::de::Error::custom("expected a side, or rows and columns")),
            },
        };
        match sides.iter().all(|side| (1..=65_536).contains(side)) {
            true => Ok(Self(sides)),
            false => Err(serde::de::Error::custom("expected sides of 1 to 65536 pixels")),
        }
    }
}

/// Numbers of the backward products of quantized layers, and of all products that train a float network; see
/// [`Gradients`](crate::Gradients).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in float32.
    #[default]
    Fp32,
    /// Gradients rounded to bfloat16, sums in float32.
    Bf16,
}

/// Scale and zero point of pixels, or of the codes of an array: the network reads code p of channel c as
/// `x = scale[c] * (p - zero_point[c])`. One number stands for all channels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InputScale {
    /// Bits of a code: 8, or 16 where the data set has such.
    #[serde(skip_serializing_if = "is_eight")]
    pub bits: u8,
    /// The code that stands for 0.
    #[serde(serialize_with = "one_or_each")]
    pub zero_point: Vec<u16>,
    /// Real value of one step of a pixel.
    #[serde(serialize_with = "one_or_each")]
    pub scale: Vec<f64>,
}

fn is_eight(bits: &u8) -> bool {
    *bits == 8
}

/// A list, or its number where there is one alone.
fn one_or_each<T: Serialize, S: serde::Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match values {
        [value] => value.serialize(serializer),
        values => values.serialize(serializer),
    }
}

impl Default for InputScale {
    /// (p - 128) / 64: about zero mean and unit deviation on photographs.
    fn default() -> Self {
        Self { bits: 8, zero_point: vec![128], scale: vec![1.0 / 64.0] }
    }
}

impl<'de> Deserialize<'de> for InputScale {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        Self::parse(&table).map_err(|what| serde::de::Error::custom(format!("input {what}")))
    }
}

impl InputScale {
    /// Reads the table of a recipe: `zero_point` and `scale`, or `mean` and `std` of pixels from 0 to 1 as PyTorch's
    /// `Normalize` takes them, each a number or a list with one a channel. `x = (p / 255 - mean) / std` is
    /// `scale = 1 / (255 std)` and the zero point 255 mean, rounded to a pixel. `bits = 16` stands beside either, and
    /// then 65,535 for 255.
    ///
    /// # Errors
    /// What is wrong, and what was expected.
    pub(super) fn parse(table: &toml::Table) -> Result<Self, String> {
        if let Some(key) =
            table.keys().find(|key| !["bits", "zero_point", "scale", "mean", "std"].contains(&key.as_str()))
        {
            return Err(format!("has the key `{key}`: expected `zero_point` and `scale`, or `mean` and `std`"));
        }
        let read = |key: &str, expected: &str, holds: &dyn Fn(f64) -> bool| -> Result<Option<Vec<f64>>, String> {
            let Some(value) = table.get(key) else { return Ok(None) };
            let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|value| value as f64));
            let values: Option<Vec<f64>> = match value {
                toml::Value::Array(values) if !values.is_empty() => values.iter().map(number).collect(),
                value => number(value).map(|value| vec![value]),
            };
            match values.filter(|values| values.iter().all(|&value| holds(value))) {
                Some(values) => Ok(Some(values)),
                None => Err(format!("has {key} = {}: expected {expected}, or a list of them", short(value))),
            }
        };
        let bits = match table.get("bits").map(|bits| (bits, bits.as_integer())) {
            None | Some((_, Some(8))) => 8,
            Some((_, Some(16))) => 16,
            Some((bits, _)) => return Err(format!("has bits = {}: expected 8 or 16", short(bits))),
        };
        let (largest, expected) = match bits {
            16 => (65535.0, "a whole number from 0 to 65535"),
            _ => (255.0, "a whole number from 0 to 255"),
        };
        let zero_point = read("zero_point", expected, &|v| (0.0..=largest).contains(&v) && v.fract() == 0.0)?;
        let scale = read("scale", "a number from 1e-9 to 1e9", &|v| v > 1e-9 && v <= 1e9)?;
        let mean = read("mean", "a number from 0 to 1", &|v| (0.0..=1.0).contains(&v))?;
        let std = read("std", "a number from 1e-6 to 1e6", &|v| (1e-6..=1e6).contains(&v))?;
        let usual = Self::default();
        let input = match (mean, std) {
            (None, None) => Self {
                bits,
                zero_point: zero_point.map_or(usual.zero_point, |all| all.iter().map(|&v| v as u16).collect()),
                scale: scale.unwrap_or(usual.scale),
            },
            (Some(mean), Some(std)) if zero_point.is_none() && scale.is_none() => Self {
                bits,
                zero_point: mean.iter().map(|mean| (largest * mean).round_ties_even() as u16).collect(),
                scale: std.iter().map(|std| 1.0 / (largest * std)).collect(),
            },
            _ => {
                return Err(
                    "has a part of two forms: expected `zero_point` and `scale`, or `mean` and `std`".to_owned()
                );
            }
        };
        match [input.zero_point.len(), input.scale.len()] {
            [a, b] if a > 1 && b > 1 && a != b => {
                Err(format!("has {a} values and {b}: expected one a channel in both"))
            }
            _ => Ok(input),
        }
    }

    /// The same meaning in codes of 16 bits, of which 257 p stands for what pixel p stands for.
    pub fn widened(&self) -> Self {
        Self {
            bits: 16,
            zero_point: self.zero_point.iter().map(|zero| 257 * zero).collect(),
            scale: self.scale.iter().map(|scale| scale / 257.0).collect(),
        }
    }

    /// The table that the argument of a flag stands for ([`Pixels::parse`]).
    pub(super) fn said(text: &str) -> Result<toml::Value, String> {
        let Pixels { mean, std } = Pixels::parse(text)?;
        Ok(toml::Table::from_iter([("mean".to_owned(), mean.into()), ("std".to_owned(), std.into())]).into())
    }

    /// The number of channels that are told apart; `None` where one number stands for all.
    pub fn channels(&self) -> Option<usize> {
        Some(self.zero_point.len().max(self.scale.len())).filter(|&n| n > 1)
    }
}

/// Prefix of a path that is not text.
const BYTES: &str = "file:";

/// A path as text of a recipe: as it is where it is UTF-8, else `file:` and its bytes, those beyond ASCII letters,
/// digits and `/._-` as `%` and two hexadecimal digits.
pub fn path_to_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with(BYTES) => text.to_owned(),
        _ => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
            let bytes = path.as_os_str().as_encoded_bytes().iter();
            let text =
                bytes.map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") });
            BYTES.chars().map(String::from).chain(text).collect()
        }
    }
}

/// The path of which [`path_to_text`] made `text`.
pub(crate) fn text_to_path(text: &str) -> PathBuf {
    let Some(rest) = text.strip_prefix(BYTES) else { return PathBuf::from(text) };
    let (mut bytes, mut left) = (Vec::new(), rest.as_bytes());
    while let Some((&byte, after)) = left.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(code) => {
                bytes.push(code);
                left = &after[2..];
            }
            None => {
                bytes.push(byte);
                left = after;
            }
        }
    }
    of_bytes(bytes)
}

#[cfg(unix)]
fn of_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn of_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Learning rate and decay of the tensors that a pattern matches; what is absent is as for other tensors.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRates {
    /// Highest learning rate; it takes the same course as the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Weight decay of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// Random changes of a training image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Pixels the crop moves by at most.
    #[serde(default)]
    pub pad: usize,
    /// Whether half of the images are mirrored.
    #[serde(default)]
    pub flip: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(words: &str) -> Result<InputScale, String> {
        InputScale::parse(&toml::from_str(words).unwrap())
    }

    #[test]
    fn pixels_have_one_meaning_or_one_a_channel() {
        assert_eq!(input("").unwrap(), InputScale::default());
        let each = input("zero_point = [1, 2, 255]\nscale = 0.5").unwrap();
        assert_eq!(
            (each.zero_point.clone(), each.scale.clone(), each.channels()),
            (vec![1, 2, 255], vec![0.5], Some(3))
        );
        let torch = input("mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]").unwrap();
        assert_eq!((torch.zero_point, torch.scale[1]), (vec![124, 116, 104], 1.0 / (255.0 * 0.224)));
        assert_eq!(input("mean = 0.5\nstd = 0.25").unwrap().channels(), None);
        for (words, part) in [
            ("zero_point = 1.5", "zero_point = 1.5: expected a whole number from 0 to 255"),
            ("zero_point = [1, 256]", "expected a whole number from 0 to 255, or a list"),
            ("zero_point = []", "zero_point = []"),
            ("scale = [0.1, -1]", "expected a number from 1e-9 to 1e9"),
            ("scale = \"x\"", "scale = \"x\""),
            ("mean = 0.5", "two forms"),
            ("mean = 0.5\nstd = 0.2\nscale = 1", "two forms"),
            ("mean = 127\nstd = 64", "mean = 127: expected a number from 0 to 1"),
            ("mean = 0.5\nstd = 0", "expected a number from 1e-6 to 1e6"),
            ("mean = [0.5, 0.4]\nstd = [0.2, 0.2, 0.2]", "has 2 values and 3"),
            ("zero = 1", "the key `zero`"),
        ] {
            let error = input(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }

    #[test]
    fn codes_of_16_bits_mean_what_pixels_mean() {
        let narrow = input("zero_point = [3, 255]\nscale = [0.1, 0.2]").unwrap();
        let wide = narrow.widened();
        assert_eq!((wide.bits, &wide.zero_point), (16, &vec![771, 65_535]));
        let real = |input: &InputScale, c: usize, code: f64| input.scale[c] * (code - f64::from(input.zero_point[c]));
        for (c, pixel) in [(0, 0.0), (0, 200.0), (1, 17.0), (1, 255.0)] {
            assert!((real(&narrow, c, pixel) - real(&wide, c, 257.0 * pixel)).abs() < 1e-9);
        }
        assert_eq!(input("bits = 16\nmean = 0\nstd = 1").unwrap(), input("mean = 0\nstd = 1").unwrap().widened());
    }

    #[test]
    fn a_meaning_for_each_channel_is_kept_by_the_recipe() {
        let text = "dataset = \"builtin\"\narch = \"cnn\"\nepochs = 1\ninput = { zero_point = [3, 4, 5], scale = [0.1, 0.2, 0.3] }";
        let recipe = crate::Draft::parse(text, "test").unwrap().finish().unwrap();
        let again = crate::Draft::parse(&recipe.to_toml(), "test").unwrap().finish().unwrap();
        assert_eq!(again, recipe);
        let description = again.input_description(3);
        assert_eq!((description.zero_point, description.scale), (vec![3, 4, 5], vec![0.1, 0.2, 0.3]));
    }

    #[test]
    fn paths_go_through_text_and_back() {
        for path in ["runs/a", "runs/ä b", "file:x", "file:%41", "", "%ff"] {
            assert_eq!(text_to_path(&path_to_text(Path::new(path))), Path::new(path), "{path}");
        }
        assert_eq!(text_to_path("file:a%2fb%zz%4"), Path::new("a/b%zz%4"));
        #[cfg(unix)]
        {
            let odd = of_bytes(b"/runs/\xff \xc3\xa4%41".to_vec());
            let text = path_to_text(&odd);
            assert_eq!(text, "file:/runs/%ff%20%c3%a4%2541");
            assert_eq!(text_to_path(&text), odd);
        }
    }
}
