//! What a row of the list of keys says, and what follows from it: the reading of a value, a flag, a line of the page.

use std::ffi::OsString;
use std::fmt::Write;

use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::Value;

use super::check::Range;
use super::draft::{quoted, short, toml_message};
use super::error::hint;
use super::{Draft, InputScale, Recipe, RecipeError};

/// A key of a recipe. Its flag has the same name, with dashes.
#[derive(Debug)]
pub struct Key {
    /// Name of the key.
    pub name: &'static str,
    pub(super) values: Values,
    pub(super) default: Default,
    /// Name of the value in the help of the flag; empty where the key has no flag.
    pub flag_value: &'static str,
    pub(super) help: &'static str,
    pub(super) more: &'static str,
}

/// The values that a key can have. Those of a form or list have a text that names them and a check that gives what is
/// wrong.
#[derive(Debug)]
pub(super) enum Values {
    Number(Range),
    /// From the least to the most.
    Whole(i64, i64),
    Names(&'static [&'static str]),
    Bool,
    Form(&'static str, fn(&Value) -> Result<(), String>),
    List(&'static str, fn(&Value) -> Result<(), String>),
}

/// The value of a key that is not written.
#[derive(Debug)]
pub(super) enum Default {
    Required,
    /// No value.
    Unset,
    /// In TOML, strings without quotes.
    Is(&'static str),
    /// The default of another key.
    As(&'static str),
    /// A default that these words describe and that [`Draft::settle`] or the reader of the recipe computes.
    Other(&'static str),
}

impl Key {
    /// The name of the flag, without dashes in front.
    pub fn flag(&self) -> String {
        // It adds one.
        if self.name == "param_groups" { "param-group".to_owned() } else { self.name.replace('_', "-") }
    }

    /// The help of the flag.
    pub fn flag_help(&self) -> String {
        match self.values {
            Values::Names([names @ .., last]) => format!("{}: {} or {last}", self.help, names.join(", ")),
            _ => self.help.replace('`', ""),
        }
    }

    /// The value that `text` stands for as the argument of the flag.
    ///
    /// # Errors
    /// A text that is no number where one is expected, or neither true nor false.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        let number = || text.parse().map(Value::Float).map_err(|_| "expected a number");
        let plain = |text: &str| match text.parse() {
            Ok(whole) => Value::Integer(whole),
            Err(_) => text.parse().map_or_else(|_| Value::from(text), Value::Float),
        };
        match self.values {
            Values::Number(_) => number(),
            Values::Whole(..) => text.parse().map(Value::Integer).map_err(|_| "expected a whole number"),
            Values::Bool => text.parse().map(Value::Boolean).map_err(|_| "expected true or false"),
            Values::List(..) => Ok(text.split(',').map(plain).collect::<Vec<_>>().into()),
            _ if self.name == "clip_init" => Ok(plain(text)),
            _ if self.name == "input" => return InputScale::said(text),
            _ => Ok(text.into()),
        }
        .map_err(str::to_owned)
    }

    /// Whether `text` can be the argument of the flag, which for a file may be any name; what it stands for is checked
    /// with the recipe.
    ///
    /// # Errors
    /// A text that is no number where one is expected, or neither true nor false.
    pub fn check_flag(&self, text: OsString) -> Result<OsString, String> {
        // Paths need not be text.
        if !["arch", "teacher"].contains(&self.name) {
            self.parse(text.to_str().ok_or("expected a text in UTF-8")?)?;
        }
        Ok(text)
    }

    /// The value where none is written and no other key decides it.
    pub(super) fn default(&self) -> Option<Value> {
        let Default::Is(text) = self.default else { return None };
        if let Values::Number(_) = self.values {
            return text.parse().ok().map(Value::Float);
        }
        let parsed = toml::from_str(&format!("v = {text}")).ok();
        Some(parsed.and_then(|mut table: toml::Table| table.remove("v")).unwrap_or_else(|| text.into()))
    }

    /// Checks `value`; an error is the end of a message that begins with the key. Values of another type than the
    /// field's pass: reading them tells more.
    fn check(&self, value: &Value) -> Result<(), String> {
        let not = |what: String| Err(format!("= {}: expected {what}", short(value)));
        match &self.values {
            Values::Number(range) => match value.clone().try_into::<f64>() {
                Ok(number) if !range.holds(number) => Err(format!("= {number}: expected {}", range.text)),
                _ => Ok(()),
            },
            Values::Whole(least, most) => match value {
                Value::Integer(value) if (least..=most).contains(&value) => Ok(()),
                _ if least == most => not(format!("{least}, or no such key")),
                _ => not(whole(*least, *most)),
            },
            Values::Names(names) => match value.as_str() {
                Some(name) if names.contains(&name) => Ok(()),
                name => {
                    let hint = name.map_or(String::new(), |name| hint(name, names.iter().copied()));
                    not(format!("one of {}{hint}", quoted(names)))
                }
            },
            Values::Bool => Ok(()),
            Values::Form(_, check) | Values::List(_, check) => check(value),
        }
    }

    /// The row of the table of docs/recipe.md.
    fn row(&self) -> String {
        let values = match &self.values {
            Values::Number(range) => range.text.trim_start_matches("a ").to_owned(),
            Values::Whole(least, most) if least == most => least.to_string(),
            Values::Whole(least, most) => whole(*least, *most).trim_start_matches("a ").to_owned(),
            Values::Names(names) => format!("`{}`", names.join("`, `")),
            Values::Bool => "`true`, `false`".to_owned(),
            Values::Form(text, _) | Values::List(text, _) => (*text).to_owned(),
        };
        let default = match self.default {
            Default::Required => "required".to_owned(),
            Default::Unset | Default::Is("{}") => "none".to_owned(),
            Default::Is(text) => format!("`{text}`"),
            Default::As(key) => format!("as `{key}`"),
            Default::Other(text) => text.to_owned(),
        };
        format!("| `{}` | {values} | {default} | {}{} |", self.name, self.help, self.more)
    }
}

fn whole(least: i64, most: i64) -> String {
    if most >= 1 << 40 {
        format!("a whole number, {least} or more")
    } else {
        format!("a whole number, {least} to {most}")
    }
}

impl Recipe {
    /// The names of all keys, in the order of `config.toml`.
    pub fn key_names() -> impl Iterator<Item = &'static str> {
        Self::KEYS.iter().map(|key| key.name)
    }

    /// The key called `name`.
    pub(super) fn key(name: &str) -> Option<&'static Key> {
        Self::KEYS.iter().find(|key| key.name == name)
    }

    /// The table of all keys in Markdown, as in docs/recipe.md.
    pub fn key_table() -> String {
        let head = "| key | values | default | meaning |\n|---|---|---|---|\n".to_owned();
        Self::KEYS.iter().fold(head, |mut table, key| {
            writeln!(table, "{}", key.row()).expect("a string takes every text");
            table
        })
    }
}

impl Draft {
    /// The checked value of `name`, or its default.
    pub(super) fn value<T: DeserializeOwned>(&self, name: &str) -> Result<T, RecipeError> {
        let key = Recipe::key(name).expect("a key of the list");
        let Some(value) = self.values.get(name).map(|(_, value)| value.clone()).or_else(|| key.default()) else {
            return match key.default {
                Default::Required => Err(RecipeError::Missing { file: self.file.clone(), key: key.name }),
                Default::As(other) => self.value(other),
                _ => Ok(T::deserialize(().into_deserializer()).map_err(|error: toml::de::Error| {
                    self.wrong(name, format!("has no value: {}", toml_message(&error)))
                })?),
            };
        };
        key.check(&value).map_err(|message| self.wrong(name, message))?;
        let shown = short(&value);
        value.try_into().map_err(|error| self.wrong(name, format!("= {shown}: {}", toml_message(&error))))
    }
}
