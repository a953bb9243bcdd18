//! The error of models and their files; every variant names the file, the place and what was expected.

use std::fmt::{self, Display, Formatter, Write};
use std::path::{Path, PathBuf};

use bitpact_graph::PlanError;
use bitpact_kernels::memory::Shortage;

/// Why a model or a file of one is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error that caused this one.
        source: std::io::Error,
    },
    /// A file needs more memory than there is.
    #[error("{}: {shortage}", path.display())]
    Memory {
        /// Path of the file.
        path: PathBuf,
        /// Bytes needed and bytes there are.
        shortage: Shortage,
    },
    /// A file cannot be written; what stood there before still does.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error that caused this one.
        source: std::io::Error,
    },
    /// A file was read, but what it holds is not valid. What the message quotes from the file is escaped and, where it
    /// is long, cut; so this error is the last of its chain.
    #[error("{}: {}", path.display(), Shown(error))]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong in it, with names as they stand in the file.
        error: Box<ModelError>,
    },
    /// The bytes are not a file of this kind.
    #[error("not a {kind}: {what}")]
    Kind {
        /// The kind of file that was expected.
        kind: &'static str,
        /// The thing that was found, in words.
        what: String,
    },
    /// A newer or unknown version of a file.
    #[error("{kind} version {got}: this program reads {expected}")]
    Version {
        /// The kind of file.
        kind: &'static str,
        /// Version of the file.
        got: u64,
        /// The version that this program reads.
        expected: String,
    },
    /// The bytes changed after they were written.
    #[error("checksum {computed:08x}, expected {stored:08x}: the {kind} is damaged")]
    Checksum {
        /// The kind of file.
        kind: &'static str,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of what the file holds.
        computed: u32,
    },
    /// A field of a `.bitpact` file.
    #[error("byte {offset}, {field}: {what}")]
    Field {
        /// Offset of the field in the file, in bytes.
        offset: usize,
        /// Name of the field.
        field: String,
        /// The fault that was found, in words.
        what: String,
    },
    /// A named tensor of a model.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// Name of the tensor or layer that is wrong.
        name: String,
        /// The fault that was found, in words.
        what: String,
    },
    /// The plan does not fit the graph.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The input description or the class names do not fit the graph.
    #[error("{place}: {what}")]
    Description {
        /// Part of the model that is wrong.
        place: &'static str,
        /// The fault that was found, in words.
        what: String,
    },
    /// A layer of an integer model.
    #[error("layer `{layer}`: {what}")]
    Layer {
        /// Name of the tensor or layer that is wrong.
        layer: String,
        /// The fault that was found, in words.
        what: String,
    },
}

impl ModelError {
    pub(crate) fn in_file(self, path: impl AsRef<Path>) -> Self {
        ModelError::File { path: path.as_ref().to_owned(), error: Box::new(self) }
    }

    pub(crate) fn tensor(name: &str, what: impl Into<String>) -> Self {
        ModelError::Tensor { name: name.to_owned(), what: what.into() }
    }

    pub(crate) fn layer(layer: &str, what: impl Into<String>) -> Self {
        ModelError::Layer { layer: layer.to_owned(), what: what.into() }
    }
}

/// A message about a hostile file: its control characters, and others that are not seen, appear as `\u{1b}`, and of a
/// long one both ends are shown.
struct Shown<'a>(&'a ModelError);

/// Characters at either end of a long message.
const END: usize = 500;

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let length = text.chars().count();
        for (i, c) in text.chars().enumerate() {
            match c {
                _ if length > 2 * END && (END..length - END).contains(&i) => {
                    if i == END {
                        f.write_str(" [...] ")?;
                    }
                }
                '"' | '\'' | '\\' => f.write_char(c)?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}
