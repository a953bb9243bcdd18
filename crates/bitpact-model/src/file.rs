//! Reading files, and writing them so that a reader sees the old one or the new one, never half of either.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use tempfile::NamedTempFile;

use crate::ModelError;

/// Prefix of the names of temporary files.
const TEMPORARY: &str = ".bitpact-";
/// Temporary files begun before a write is given up.
const ATTEMPTS: usize = 16;
/// Read by every write under way.
static WRITES: RwLock<()> = RwLock::new(());

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
    let _under_way = WRITES.read().unwrap_or_else(PoisonError::into_inner);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// A temporary file in `folder`, locked as long as it is open, so that nobody takes it for a leftover.
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(folder)?;
        // Between the two somebody may have taken it for a leftover.
        let locked = !matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        if locked && file.path().exists() {
            return Ok(file);
        }
    }
    Err(std::io::Error::other("another process removes its temporary file"))
}

/// Removes from `folder` what interrupted calls of [`write_atomically`] left there: temporary files that no living process
/// writes to. What cannot be removed harms nothing.
pub fn remove_leftovers(folder: impl AsRef<Path>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_temporary = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        if !is_temporary || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Waits for the calls of [`write_atomically`] that other threads of this process are in, and holds back further ones for as
/// long as the returned value lives: a process that exits meanwhile leaves no temporary file.
pub fn hold_writes() -> impl Drop {
    WRITES.write().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn only_temporary_files_that_nobody_writes_to_are_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let living = temporary(folder.path()).unwrap();
        std::fs::write(folder.path().join(".bitpact-dead"), "half").unwrap();
        std::fs::write(folder.path().join("bitpact-other"), "mine").unwrap();
        std::fs::create_dir(folder.path().join(".bitpact-folder")).unwrap();
        remove_leftovers(folder.path());
        let name = living.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = [".bitpact-folder".to_owned(), name, "bitpact-other".to_owned()];
        expected.sort();
        assert_eq!(entries(folder.path()), expected);
        living.persist(folder.path().join("a.bin")).unwrap();
    }

    #[test]
    fn writers_and_cleaners_side_by_side_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|i| {
                    scope.spawn(move || (0..200).for_each(|_| write_atomically(at.join(format!("{i}")), b"x").unwrap()))
                })
                .collect();
            while writers.iter().any(|writer| !writer.is_finished()) {
                remove_leftovers(at);
            }
        });
        assert_eq!(entries(at), ["0", "1"]);
    }

    #[test]
    fn writes_wait_while_they_are_held_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let held = hold_writes();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_atomically(&path, b"x"));
            assert!(entries(folder.path()).is_empty());
            drop(held);
            writer.join().unwrap().unwrap();
        });
        assert_eq!(entries(folder.path()), ["a.bin"]);
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
