//! Reading files, and writing them so that a reader sees the old one or the new one, never half of either.

use std::io::Write;
use std::path::Path;

use crate::ModelError;

/// All bytes of the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}

/// Writes what became of a value, atomically; an error in either names `path`.
pub(crate) fn save(path: &Path, bytes: Result<Vec<u8>, ModelError>) -> Result<(), ModelError> {
    write_atomically(path, &bytes.map_err(|e| e.in_file(path))?)
}

/// Writes `bytes` to `path`: into a temporary file beside it, flushed to the disk, then renamed.
///
/// # Errors
/// Names `path`. Whatever stood there before is untouched, and no temporary file stays behind.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), ModelError> {
    let path = path.as_ref();
    write(path, bytes).map_err(|source| ModelError::Write { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".bitpact-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_a_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(entries(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_failed_write_names_the_path_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"old").unwrap();
        let directory = folder.path().join("directory");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("inside"), b"x").unwrap();
        for bad in [folder.path().join("missing/a.bin"), file.join("a.bin"), directory.clone()] {
            let message = write_atomically(&bad, b"new").unwrap_err().to_string();
            assert!(message.contains(bad.to_str().unwrap()) && message.contains("cannot write"), "{message}");
        }
        assert_eq!(entries(folder.path()), ["directory", "file"]);
        assert_eq!(entries(&directory), ["inside"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn folders_that_take_no_file_are_errors() {
        for bad in ["/dev/null/a.bin", "/proc/a.bin"] {
            let message = write_atomically(bad, b"new").unwrap_err().to_string();
            assert!(message.contains(bad), "{message}");
        }
    }
}
