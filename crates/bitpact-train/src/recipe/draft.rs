//! A recipe in the making: values with the place each came from, files first, flags on top.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use bitpact_graph::{Graph, zoo};
use bitpact_model::InputDescription;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::error::hint;
use super::{BUILTIN_NAMES, Key, Recipe, RecipeError, builtin_text, path_to_text};
use crate::Catalogue;

/// Largest recipe or network file that is read.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// The place where a value was written: a file, a flag or a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file or of a built-in recipe.
    Line {
        /// Path of the file.
        file: String,
        /// Number of the line, counted from 1.
        line: usize,
    },
    /// A command line flag.
    Flag(String),
    /// Nowhere: the value a key has when nothing is written.
    Default,
}

impl Origin {
    /// Beginning of an error about a value from this origin: the place and a colon, or nothing.
    pub(super) fn prefix(&self) -> String {
        match self {
            Origin::Default => String::new(),
            place => format!("{place}: "),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A parser that does not know says 0.
            Origin::Line { file, line: 0 } => f.write_str(file),
            Origin::Line { file, line } => write!(f, "{file}, line {line}"),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A recipe that may still change.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) file: String,
    /// Folder that file names in the recipe start from.
    pub(super) folder: PathBuf,
    /// Name of the recipe where no key says it.
    pub(super) stem: String,
    pub(super) values: BTreeMap<String, (Origin, toml::Value)>,
    /// Whether it is what a run has stored, of whatever version.
    pub(super) is_stored: bool,
}

impl Draft {
    /// The built-in recipe or row of [`Catalogue::builtin`] called `name`, or the TOML file at that path.
    ///
    /// # Errors
    /// Neither of the two, a file that cannot be read, or the errors of [`Draft::parse`].
    pub fn open(name: impl AsRef<Path>) -> Result<Self, RecipeError> {
        let path = name.as_ref();
        let name = &*path.to_string_lossy();
        if let Some(text) = path.to_str().and_then(builtin_text) {
            let mut draft = Self::parse(text, &format!("built-in recipe {name}"))?;
            draft.stem = name.to_owned();
            return Ok(draft);
        }
        let rows = Catalogue::builtin();
        if let Some(row) = rows.row(name) {
            return rows.draft(row);
        }
        if !path.exists() {
            return Err(RecipeError::Unknown {
                name: name.to_owned(),
                hint: hint(name, BUILTIN_NAMES.into_iter().chain(rows.rows().map(|row| &*row.name))),
                known: BUILTIN_NAMES.join(", "),
            });
        }
        Self::read(path)
    }

    /// The TOML file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read, or the errors of [`Draft::parse`].
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let mut draft = Self::parse(&read_text(path)?, &path.display().to_string())?;
        draft.folder = path.parent().unwrap_or(Path::new("")).to_owned();
        draft.stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("recipe").to_owned();
        Ok(draft)
    }

    /// A recipe from TOML text; `file` names it in errors.
    ///
    /// # Errors
    /// Text that is not TOML, or a key that no recipe has.
    pub fn parse(text: &str, file: &str) -> Result<Self, RecipeError> {
        let at = |offset: usize| Origin::Line { file: file.to_owned(), line: line_of(text, offset) };
        let syntax = |error: toml::de::Error| RecipeError::Syntax {
            origin: at(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        };
        let spans = DeTable::parse(text).map_err(syntax)?;
        let mut table: toml::Table = toml::from_str(text).map_err(syntax)?;
        let mut keys: Vec<_> = spans.get_ref().keys().collect();
        keys.sort_by_key(|key| key.span().start);
        let values = keys.into_iter().filter_map(|key| {
            let (name, value) = table.remove_entry(key.get_ref().as_ref())?;
            Some((name, at(key.span().start), value))
        });
        Self::new(values, file)
    }

    /// A recipe from a table that `file` holds somewhere; file names in it start from `folder`.
    ///
    /// # Errors
    /// A key that no recipe has.
    pub(crate) fn from_table(table: toml::Table, file: &str, folder: &Path) -> Result<Self, RecipeError> {
        let origin = Origin::Line { file: file.to_owned(), line: 0 };
        let draft = Self::new(table.into_iter().map(|(name, value)| (name, origin.clone(), value)), file)?;
        Ok(Self { folder: folder.to_owned(), ..draft })
    }

    fn new(written: impl Iterator<Item = (String, Origin, toml::Value)>, file: &str) -> Result<Self, RecipeError> {
        let mut values = BTreeMap::new();
        for (key, origin, value) in written {
            if Recipe::key(&key).is_none() {
                let known = Recipe::key_names().collect::<Vec<_>>().join(", ");
                let hint = hint(&key, Recipe::key_names());
                return Err(RecipeError::UnknownKey { origin, key, hint, known });
            }
            values.insert(key, (origin, value));
        }
        Ok(Self { file: file.to_owned(), folder: PathBuf::new(), stem: "recipe".to_owned(), values, is_stored: false })
    }

    /// Sets `key` as the flag `flag` says, over what the file says.
    pub fn set(&mut self, key: &'static str, value: impl Into<toml::Value>, flag: &str) {
        debug_assert!(Recipe::key(key).is_some(), "{key}");
        let value = value.into();
        if key == "arch" {
            self.values.remove("graph");
        }
        // DoReFa's weights have one scale a layer; what a file says of scales is of its own quantizer.
        if key == "weight_quant" && value.as_str() == Some("dorefa") {
            let is_of_file = |(origin, _): &(Origin, toml::Value)| !matches!(origin, Origin::Flag(_));
            if self.values.get("weight_scale").is_some_and(is_of_file) {
                self.values.remove("weight_scale");
            }
        }
        self.values.insert(key.to_owned(), (Origin::Flag(flag.to_owned()), value));
    }

    /// Sets `arch` to a name or a file relative to the working folder.
    ///
    /// # Errors
    /// A file that is no network.
    pub fn set_arch(&mut self, name: impl AsRef<Path>, flag: &str) -> Result<(), RecipeError> {
        self.set("arch", &*name.as_ref().to_string_lossy(), flag);
        let origin = Origin::Flag(flag.to_owned());
        if let Some(graph) = super::resolve::network_file(name.as_ref(), Path::new(""), &origin)? {
            self.set_network(&graph, origin);
        }
        Ok(())
    }

    /// Lays a short training at a low rate, which suits trained weights, over what files say.
    pub fn fine_tune(&mut self) {
        let text = include_str!("../../recipes/finetune.toml");
        let own = Self::parse(text, "built-in finetune").expect("the built-in text is a part of a recipe");
        for key in ["milestones", "lr_decay", "warmup_epochs", "clip_lr"] {
            self.values.remove(key);
        }
        self.values.extend(own.values);
    }

    /// Sets `arch` to `graph`: by its name where the zoo has it, else as a network of one's own. `flag` is where it is
    /// from.
    pub fn set_graph(&mut self, graph: &Graph, flag: &str) {
        self.set("arch", graph.name(), flag);
        let of_zoo = zoo::build(graph.name(), graph.input(), graph.classes());
        if of_zoo.and_then(Result::ok).as_ref() != Some(graph) {
            self.set_network(graph, Origin::Flag(flag.to_owned()));
        }
    }

    /// Sets what a pixel means, over what files say; `flag` is where it is from.
    pub fn set_input(&mut self, input: &InputDescription, flag: &str) {
        let zero_point: Vec<i64> = input.zero_point.iter().map(|&zero| zero.into()).collect();
        let scale: Vec<f64> = input.scale.iter().map(|&scale| scale.into()).collect();
        let mut table =
            toml::Table::from_iter([("zero_point".to_owned(), zero_point.into()), ("scale".to_owned(), scale.into())]);
        if input.bits != 8 {
            table.insert("bits".to_owned(), i64::from(input.bits).into());
        }
        self.set("input", table, flag);
    }

    /// Sets `arch` and `graph` to a network of one's own.
    pub(super) fn set_network(&mut self, graph: &Graph, origin: Origin) {
        self.values.insert("arch".to_owned(), (origin.clone(), graph.name().into()));
        let graph = toml::Value::try_from(graph).expect("a graph is TOML");
        self.values.insert("graph".to_owned(), (origin, graph));
    }

    /// Sets `key` as the argument `text` of its flag says, over what the file says.
    ///
    /// # Errors
    /// A text that is no value of this kind, or a file that is no network.
    pub fn set_flag(&mut self, key: &'static Key, text: &OsStr) -> Result<(), RecipeError> {
        let (flag, shown) = (format!("--{}", key.flag()), text.to_string_lossy());
        match key.name {
            "arch" => self.set_arch(text, &flag),
            "teacher" => {
                self.set("teacher", path_to_text(Path::new(text)), &flag);
                Ok(())
            }
            "param_groups" => self.add_param_group(&shown, &flag),
            name => {
                let value = key.parse(&shown).map_err(|message| RecipeError::Value {
                    origin: Origin::Flag(flag.clone()),
                    key: name.to_owned(),
                    message: format!("= \"{shown}\": {message}"),
                })?;
                self.set(name, value, &flag);
                Ok(())
            }
        }
    }

    /// Adds a group to `param_groups`, over one of the same pattern: `PATTERN:lr=RATE`, `PATTERN:weight_decay=D` or
    /// `PATTERN:lr=RATE,weight_decay=D`.
    ///
    /// # Errors
    /// A text of another form.
    pub fn add_param_group(&mut self, text: &str, flag: &str) -> Result<(), RecipeError> {
        let origin = Origin::Flag(flag.to_owned());
        let parse = || -> Option<(String, toml::Value)> {
            let (pattern, rates) = text.rsplit_once(':')?;
            let rate = |part: &str| -> Option<(String, toml::Value)> {
                let (key, value) = part.split_once('=')?;
                let known = ["lr", "weight_decay"].contains(&key);
                known.then_some((key.to_owned(), value.parse::<f64>().ok()?.into()))
            };
            let table = rates.split(',').map(rate).collect::<Option<toml::Table>>()?;
            Some((pattern.to_owned(), table.into()))
        };
        let Some((pattern, rates)) = parse() else {
            let message = format!("= \"{text}\": expected a form like `*.bias:lr=0.01,weight_decay=0`");
            return Err(RecipeError::Value { origin, key: "param_groups".to_owned(), message });
        };
        let mut groups = match self.values.remove("param_groups") {
            Some((_, toml::Value::Table(groups))) => groups,
            _ => toml::Table::new(),
        };
        groups.insert(pattern, rates);
        self.values.insert("param_groups".to_owned(), (origin, groups.into()));
        Ok(())
    }

    /// Marks the draft as one that a run has stored: values without effect are left as they are.
    pub fn stored(mut self) -> Self {
        self.is_stored = true;
        self
    }

    /// The keys that flags have set, in alphabetical order.
    pub fn flagged(&self) -> Vec<String> {
        let is_flag = |origin: &Origin| matches!(origin, Origin::Flag(_));
        self.values.iter().filter(|(_, (origin, _))| is_flag(origin)).map(|(key, _)| key.clone()).collect()
    }

    /// The value that is written for `key`.
    pub(super) fn take<T: DeserializeOwned>(&self, key: &str) -> Result<T, RecipeError> {
        let value = self.values[key].1.clone();
        let shown = short(&value);
        value.try_into().map_err(|error| self.wrong(key, format!("= {shown}: {}", toml_message(&error))))
    }

    /// Origin of the value of `key`.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    /// The error for the value of `key`.
    pub(super) fn wrong(&self, key: &str, message: String) -> RecipeError {
        RecipeError::Value { origin: self.origin(key), key: key.to_owned(), message }
    }
}

/// A file's text, up to a size that no recipe or network description reaches.
pub(crate) fn read_text(path: &Path) -> Result<String, RecipeError> {
    let read = || -> std::io::Result<String> {
        let metadata = std::fs::metadata(path)?;
        let refuse = |what: &str| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned()));
        if !metadata.is_file() {
            return refuse("not a regular file");
        }
        if metadata.len() > LARGEST_FILE_BYTES {
            return refuse("larger than 1 MiB, so it is not a recipe or a network description");
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|source| RecipeError::Read { path: path.to_owned(), source })
}

/// Line of a byte of `text`, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

pub(super) fn toml_message(error: &toml::de::Error) -> String {
    error.message().trim().replace('\n', " ")
}

/// A value as it may stand in a message.
pub(super) fn short(value: &toml::Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
