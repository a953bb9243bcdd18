//! Finding and opening the files of a set.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::DataError;

/// A regular file that was opened for reading.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) bytes: u64,
}

impl Opened {
    pub(crate) fn io(&self, source: io::Error) -> DataError {
        DataError::Io { path: self.path.clone(), source }
    }

    pub(crate) fn format(&self, message: impl Into<String>) -> DataError {
        DataError::Format { path: self.path.clone(), message: message.into() }
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_folder(path: &Path) -> Result<bool, DataError> {
    fs::metadata(path).map(|m| m.is_dir()).map_err(|source| DataError::Io { path: path.to_path_buf(), source })
}

/// The folder with the files of a set: `dir` where it holds one of `files`, else the first of `dir`'s usual `folders`
/// that exists, else `dir`.
pub(crate) fn find_root(
    dir: &Path,
    folders: &[&str],
    files: impl IntoIterator<Item = impl AsRef<Path>>,
    expected: &'static str,
) -> Result<PathBuf, DataError> {
    if !is_folder(dir)? {
        return Err(DataError::NotAFolder { path: dir.to_path_buf(), expected });
    }
    let here = files.into_iter().any(|name| exists(&dir.join(name)));
    let nested = folders.iter().map(|folder| dir.join(folder)).find(|nested| exists(nested));
    match nested {
        Some(nested) if !here => match is_folder(&nested)? {
            true => Ok(nested),
            false => Err(DataError::NotAFolder { path: nested, expected }),
        },
        _ => Ok(dir.to_path_buf()),
    }
}

/// Opens the first of `names` that is in `root`, a result of [`find_root`]; `expected` says what it should be.
pub(crate) fn open(
    set: &'static str,
    dir: &Path,
    root: &Path,
    folders: &[&str],
    names: &[impl AsRef<str>],
    expected: &'static str,
) -> Result<Opened, DataError> {
    let Some(path) = names.iter().map(|name| root.join(name.as_ref())).find(|path| exists(path)) else {
        let places = [dir.to_path_buf()].into_iter().chain(folders.iter().map(|folder| dir.join(folder)));
        let tried = places.map(|place| place.join(names[0].as_ref())).collect();
        return Err(DataError::MissingFile {
            set,
            file: names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" or "),
            tried,
        });
    };
    let io = |source| DataError::Io { path: path.clone(), source };
    let metadata = fs::metadata(&path).map_err(io)?;
    if !metadata.is_file() {
        return Err(DataError::NotAFile { path, expected });
    }
    let file = File::open(&path).map_err(io)?;
    Ok(Opened { path, file, bytes: metadata.len() })
}

/// Reads exactly `bytes` bytes, growing the buffer only as they come: what a header promises may be a lie.
pub(crate) fn read_promised(reader: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    const MOST_AT_ONCE: u64 = 1 << 26;
    // The bytes, and what is made of them.
    bitpact_kernels::memory::check(bytes.saturating_mul(2))
        .map_err(|shortage| io::Error::new(io::ErrorKind::OutOfMemory, shortage.to_string()))?;
    let mut out = Vec::with_capacity(bytes.min(MOST_AT_ONCE) as usize);
    reader.take(bytes).read_to_end(&mut out)?;
    if out.len() as u64 == bytes {
        return Ok(out);
    }
    let message = format!("the data end after {} of {bytes} bytes", out.len());
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
}
