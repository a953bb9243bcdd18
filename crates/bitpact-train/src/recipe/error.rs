//! What can be wrong with a recipe; every message says where the value came from and what was expected.

use std::path::PathBuf;

use bitpact_graph::PlanError;

use super::Origin;

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Neither a built-in recipe nor a file.
    #[error("`{name}` is neither a built-in recipe nor a file{hint}; built in are {known}")]
    Unknown {
        /// The value that was asked for.
        name: String,
        /// The nearest name, as a phrase, or nothing.
        hint: String,
        /// The names of all built-in recipes.
        known: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The text is not TOML, or not JSON for a network in JSON.
    #[error("{origin}: {message}")]
    Syntax {
        /// File and line.
        origin: Origin,
        /// The parser's own message.
        message: String,
    },
    /// A key that no recipe has.
    #[error("{origin}: unknown key `{key}`{hint}; the keys are {known}")]
    UnknownKey {
        /// File and line.
        origin: Origin,
        /// Name of the key.
        key: String,
        /// The nearest key, as a phrase, or nothing.
        hint: String,
        /// The keys that are known.
        known: String,
    },
    /// A key that every recipe needs is not there.
    #[error("{file}: the key `{key}` is missing")]
    Missing {
        /// Path of the file.
        file: String,
        /// Name of the key.
        key: &'static str,
    },
    /// A value that its key cannot have.
    #[error("{}`{key}` {message}", origin.prefix())]
    Value {
        /// File and line, or the flag.
        origin: Origin,
        /// Name of the key.
        key: String,
        /// The value and what was expected.
        message: String,
    },
    /// The network does not go with the data set.
    #[error("architecture `{arch}` on data set `{dataset}`: {message}")]
    Network {
        /// The architecture.
        arch: String,
        /// The data set.
        dataset: String,
        /// The misfit that was found, in words.
        message: String,
    },
    /// A group of tensors that is empty.
    #[error("`{key}`.\"{pattern}\": no trained tensor has a name like this; there are {tensors}")]
    EmptyGroup {
        /// The key that the pattern belongs to.
        key: &'static str,
        /// Pattern that names of layers are matched with.
        pattern: String,
        /// Names it could have matched.
        tensors: String,
    },
    /// The quantization keys do not go with the network.
    #[error("the recipe's bits: {0}")]
    Plan(#[from] PlanError),
}

/// The name of `known` that `given` was probably meant to be, if any is close: case, dashes and blanks do not count,
/// and about one letter in three may be wrong.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_lowercase().replace(['-', ' '], "_");
    let given = plain(given);
    let allowed = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &plain(name)), name))
        .filter(|&(distance, name)| distance <= allowed || is_part(&given, &plain(name)))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// Tells whether one name begins or ends the other, as `rate` and `learning_rate` do.
fn is_part(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short.len() >= 3 && (long.starts_with(short) || long.ends_with(short))
}

/// `, did you mean ...?` for messages; nothing where no name is near.
pub(super) fn hint<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}
