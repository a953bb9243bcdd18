//! Reading files, and writing them so that a reader sees the old one or the new one, never half of either.

use std::collections::BTreeMap;
use std::fs::{File, FileType, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use tempfile::NamedTempFile;

use crate::ModelError;
use crate::format::{HEADER_BYTES, MAGIC};

/// Prefix of the names of temporary files.
const TEMPORARY: &str = ".bitpact-";
/// Temporary files begun before a write is given up.
const ATTEMPTS: usize = 16;
/// Links that are followed, as Linux does.
const MOST_LINKS: usize = 40;
/// Read by every write under way.
static WRITES: RwLock<()> = RwLock::new(());

/// Bytes read of a file that is neither of ours nor safetensors: enough to tell what it is.
const OTHER_BYTES: u64 = 1 << 12;
/// Bytes of the longest header of a safetensors file.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes made room for before any of them came.
const AT_ONCE: u64 = 1 << 26;

/// The bytes of a `.bitpact` or safetensors file, or, of any other file, the first of them. The file is opened once and
/// read from its beginning to where its own header says it ends, and one byte beyond, so a pipe can be read, and a file
/// without an end is not.
///
/// # Errors
/// A file that cannot be read, or whose bytes and what is made of them are more than this process can have.
pub fn read_model_file(path: impl AsRef<Path>) -> Result<Vec<u8>, ModelError> {
    read(path.as_ref())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    let fail = |source| ModelError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    let mut bytes = Vec::new();
    let Some(promised) = promised(&mut file, &mut bytes).map_err(fail)? else {
        fill(&mut file, &mut bytes, OTHER_BYTES).map_err(fail)?;
        return Ok(bytes);
    };
    let needed = if metadata.is_file() { promised.min(metadata.len()) } else { promised };
    // The file, and what is made of it.
    bitpact_kernels::memory::check(needed.saturating_mul(2))
        .map_err(|shortage| ModelError::Memory { path: path.to_owned(), shortage })?;
    bytes.reserve_exact((needed.min(AT_ONCE) as usize + 1).saturating_sub(bytes.len()));
    fill(&mut file, &mut bytes, promised.saturating_add(1)).map_err(fail)?;
    Ok(bytes)
}

/// Reads until `bytes` are `length` long or the file ends.
fn fill(file: &mut File, bytes: &mut Vec<u8>, length: u64) -> std::io::Result<()> {
    file.take(length.saturating_sub(bytes.len() as u64)).read_to_end(bytes).map(|_| ())
}

/// The length of the file as its header says it; `None` for a file of another kind.
fn promised(file: &mut File, bytes: &mut Vec<u8>) -> std::io::Result<Option<u64>> {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_le_bytes(*word));
    fill(file, bytes, HEADER_BYTES as u64)?;
    if bytes.starts_with(&MAGIC) {
        return Ok(bytes.get(12..).and_then(word));
    }
    let Some(header) = word(bytes).filter(|header| (2..=LONGEST_HEADER).contains(header)) else { return Ok(None) };
    if bytes.get(8) != Some(&b'{') {
        return Ok(None);
    }
    fill(file, bytes, 8 + header)?;
    let end = bytes.get(8..8 + header as usize).and_then(data_end);
    // A header that is none is told by whoever reads the bytes.
    Ok(end.map(|end| end.saturating_add(8 + header)))
}

/// End of the last tensor of a safetensors header, in bytes from the end of the header.
fn data_end(header: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        data_offsets: Option<[u64; 2]>,
    }
    // The entry `__metadata__` has none.
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(header).ok()?;
    Some(entries.values().filter_map(|entry| entry.data_offsets).map(|[_, end]| end).max().unwrap_or(0))
}

/// Writes what became of a value, atomically; an error in either names `path`.
pub(crate) fn save(path: &Path, bytes: Result<Vec<u8>, ModelError>) -> Result<(), ModelError> {
    write_atomically(path, &bytes.map_err(|e| e.in_file(path))?)
}

/// Writes `bytes` to `path`: into a temporary file beside it, flushed to the disk, then renamed. A link is followed,
/// and the file it leads to replaced; a file that is replaced keeps its permissions. A pipe or a character device is
/// written into.
///
/// # Errors
/// Names `path`. Whatever stood there before is untouched, and no temporary file stays behind. A read-only file, a
/// block device and a socket are refused.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), ModelError> {
    let path = path.as_ref();
    write(path, bytes).map_err(|source| ModelError::Write { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let old = std::fs::metadata(path).ok();
    if let Some(kind) = old.as_ref().map(std::fs::Metadata::file_type).filter(|kind| !kind.is_file() && !kind.is_dir())
    {
        return write_into(path, kind, bytes);
    }
    if old.as_ref().is_some_and(|old| old.is_file() && old.permissions().readonly()) {
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, "it is there and read-only"));
    }
    let path = &followed(path)?;
    let _under_way = WRITES.read().unwrap_or_else(PoisonError::into_inner);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    if let Some(old) = old {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Writes into what is not a file and stays what it is.
fn write_into(path: &Path, kind: FileType, bytes: &[u8]) -> std::io::Result<()> {
    #[cfg(unix)]
    let takes_bytes = {
        use std::os::unix::fs::FileTypeExt;
        kind.is_fifo() || kind.is_char_device()
    };
    #[cfg(not(unix))]
    let takes_bytes = {
        let _ = kind;
        false
    };
    if !takes_bytes {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "neither a file nor a pipe or character device"));
    }
    File::options().write(true).open(path)?.write_all(bytes)
}

/// Target of the chain of links that begins at `path`, whether or not a file is there.
fn followed(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("a link that leads to itself"))
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

/// Removes from `folder` what interrupted calls of [`write_atomically`] left there: temporary files that no living
/// process writes to. What cannot be removed harms nothing.
pub fn remove_leftovers(folder: impl AsRef<Path>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_temporary = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        if !is_temporary || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        // Locked until it is gone: whoever has just made it will notice.
        if file.try_lock().is_ok() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Waits for the calls of [`write_atomically`] that other threads of this process are in, and holds back further ones
/// for as long as the returned value lives: a process that exits meanwhile leaves no temporary file.
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

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_stay_links() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("elsewhere")).unwrap();
        std::fs::write(at("elsewhere/real.bin"), "old").unwrap();
        for (target, link) in [
            ("elsewhere/real.bin", "link"),
            ("link", "second"),
            ("elsewhere/new.bin", "dangling"),
            ("itself", "itself"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        write_atomically(at("second"), b"one").unwrap();
        write_atomically(at("dangling"), b"two").unwrap();
        assert_eq!(std::fs::read(at("elsewhere/real.bin")).unwrap(), b"one");
        assert_eq!(std::fs::read(at("elsewhere/new.bin")).unwrap(), b"two");
        write_atomically(at("itself"), b"x").unwrap_err();
        assert!(["link", "second", "dangling", "itself"].iter().all(|link| at(link).is_symlink()));
        assert_eq!(entries(&at("elsewhere")), ["new.bin", "real.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_keeps_its_permissions_and_a_read_only_one_its_bytes() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        write_atomically(&path, b"one").unwrap();
        set(0o600);
        write_atomically(&path, b"two").unwrap();
        assert_eq!((mode(), std::fs::read(&path).unwrap()), (0o600, b"two".to_vec()));
        set(0o444);
        let text = write_atomically(&path, b"three").unwrap_err().to_string();
        assert!(text.contains("a.bin: cannot write: it is there and read-only"), "{text}");
        assert_eq!((mode(), std::fs::read(&path).unwrap()), (0o444, b"two".to_vec()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_pipes_and_sockets_stay_what_they_are() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| std::fs::read(&pipe).unwrap());
            write_atomically(&pipe, b"through").unwrap();
            assert_eq!(reader.join().unwrap(), b"through");
        });
        assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = write_atomically(&socket, b"x").unwrap_err().to_string();
        assert!(text.contains("socket: cannot write: neither a file"), "{text}");
        write_atomically("/dev/null", b"x").unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let text = write_atomically("/dev/full", b"x").unwrap_err().to_string();
        assert!(text.contains("/dev/full: cannot write: No space left"), "{text}");
        assert_eq!(entries(folder.path()), ["pipe", "socket"]);
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
