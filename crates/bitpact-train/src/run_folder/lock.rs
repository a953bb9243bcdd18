//! One owner of a run at a time: a lock that ends with the process that holds it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Locked by the process that trains in a folder; holds its id.
pub(super) const LOCK: &str = ".lock";
/// Attempts to lock a file that others remove.
const ATTEMPTS: usize = 100;

/// A held lock. Where the file system has no locks it holds nothing back.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

/// Reason why a folder cannot be locked.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another owner lives: its process id, where it can be read.
    Held(Option<u32>),
    /// The system's reason.
    Io(io::Error),
}

impl Lock {
    /// Locks the existing folder `folder` for this process.
    pub(super) fn take(folder: &Path) -> Result<Self, Refused> {
        let path = folder.join(LOCK);
        for _ in 0..ATTEMPTS {
            let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = open.map_err(Refused::Io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Refused::Held(process(&mut file))),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(Refused::Io(error)),
            }
            // The last owner may have removed the file between the two.
            if !is_at(&file, &path) {
                continue;
            }
            let write = |file: &mut File| {
                file.set_len(0)?;
                write!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(Refused::Io)?;
            return Ok(Self { path, file });
        }
        Err(Refused::Held(None))
    }
}

impl Drop for Lock {
    /// Removes the file while it is still locked, so that nobody's lock goes with it.
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether another process than this one owns `folder`, and its id where it can be read.
pub(super) fn other_owner(folder: &Path) -> Option<Option<u32>> {
    let mut file = OpenOptions::new().read(true).open(folder.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(process(&mut file)).filter(|id| *id != Some(std::process::id())),
        _ => None,
    }
}

fn process(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Tells whether `path` still names the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
    }
    #[cfg(not(unix))]
    {
        // An open file cannot be removed there.
        let _ = file;
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_until_it_is_dropped_and_keeps_no_file() {
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join(LOCK), "4000000000 left by a process that died").unwrap();
        let lock = Lock::take(at.path()).unwrap();
        assert_eq!(fs::read_to_string(at.path().join(LOCK)).unwrap(), std::process::id().to_string());
        assert!(matches!(Lock::take(at.path()), Err(Refused::Held(Some(id))) if id == std::process::id()));
        assert_eq!(other_owner(at.path()), None, "this process is no other");
        drop(lock);
        assert!(fs::read_dir(at.path()).unwrap().next().is_none());
        assert_eq!(other_owner(at.path()), None);
        drop(Lock::take(at.path()).unwrap());
    }

    #[test]
    fn threads_that_all_want_a_folder_get_it_one_after_the_other() {
        let at = tempfile::tempdir().unwrap();
        let (path, inside) = (at.path(), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let Ok(lock) = Lock::take(path) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(fs::read_dir(path).unwrap().next().is_none());
    }

    #[test]
    fn folders_that_cannot_be_locked_say_why() {
        let at = tempfile::tempdir().unwrap();
        assert!(matches!(Lock::take(&at.path().join("none")), Err(Refused::Io(_))));
        fs::create_dir(at.path().join(LOCK)).unwrap();
        assert!(matches!(Lock::take(at.path()), Err(Refused::Io(_))));
    }
}
