//! How much memory this process can have, and what becomes of memory that was freed: reading and packing a network
//! needs about as much as the network has, once, and the allocator of the GNU C library would keep it.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Gives freed memory back to the system.
pub fn release_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call has no conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From here on large buffers are given back as soon as they are freed, those of other threads too: for a program that
/// owns its process and allocates them seldom.
pub fn never_keep_large_buffers() {
    /// Bytes of a large buffer.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    const LARGE: libc::c_int = 1 << 18;
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call has no conditions.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Bytes below which nobody asks whether there are as many.
const SMALL: u64 = 1 << 26;

/// More memory than this process can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that are needed.
    pub needed: u64,
    /// Bytes that this process can still have.
    pub free: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [needed, free] = [self.needed, self.free].map(|bytes| bytes.div_ceil(1_000_000));
        write!(f, "needs about {needed} MB of memory, and {free} MB can be had here")
    }
}

/// Tells whether this process can have `needed` bytes more, as far as [`free`] tells; 64 MiB are taken for granted.
///
/// # Errors
/// It cannot.
pub fn check(needed: u64) -> Result<(), Shortage> {
    if needed <= SMALL {
        return Ok(());
    }
    match free().filter(|&free| needed > free) {
        Some(free) => Err(Shortage { needed, free }),
        None => Ok(()),
    }
}

/// All bytes of the file at `path`, which may be a pipe.
///
/// # Errors
/// A file that cannot be read, one of more than `most` bytes, and one that needs more than this process can have.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    check(file.metadata()?.len().min(most))
        .map_err(|shortage| io::Error::new(io::ErrorKind::OutOfMemory, shortage.to_string()))?;
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {most} bytes, the most that is read")))
        }
        false => Ok(bytes),
    }
}

/// Bytes that this process can still have, as far as Linux tells: the least of what the machine has left, the limit of
/// the process's addresses and that of its control group.
pub fn free() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = machine_free(&read("/proc/meminfo"));
    let addresses = addresses_free(&read("/proc/self/limits"), &read("/proc/self/status"));
    let group = group_free(&read("/sys/fs/cgroup/memory.max"), &read("/sys/fs/cgroup/memory.current"));
    [machine, addresses, group].into_iter().flatten().min()
}

/// A field such as `MemAvailable:   23 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn machine_free(meminfo: &str) -> Option<u64> {
    Some(kilobytes(meminfo, "MemAvailable:")? + kilobytes(meminfo, "SwapFree:").unwrap_or(0))
}

fn addresses_free(limits: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let most: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(most.saturating_sub(kilobytes(status, "VmSize:")?))
}

fn group_free(most: &str, current: &str) -> Option<u64> {
    let (most, current): (u64, u64) = (most.trim().parse().ok()?, current.trim().parse().ok()?);
    Some(most.saturating_sub(current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_as_linux_tells_it() {
        let meminfo = "MemTotal: 100 kB\nMemAvailable:   24 kB\nSwapFree: 2 kB\n";
        assert_eq!(machine_free(meminfo), Some(26 * 1024));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space   5000000   unlimited   bytes\n";
        assert_eq!(addresses_free(limits, "VmSize:\t1000 kB\n"), Some(5_000_000 - 1_024_000));
        assert_eq!(addresses_free(&limits.replace("5000000", "unlimited"), "VmSize:\t1000 kB\n"), None);
        assert_eq!(
            [group_free("900\n", "1000\n"), group_free("max\n", "5\n"), group_free("", "")],
            [Some(0), None, None]
        );
        assert_eq!(machine_free(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_without_an_end_and_of_more_than_the_most_are_refused() {
        let own = read_at_most(Path::new("/proc/self/status"), 1 << 20).unwrap();
        assert!(own.starts_with(b"Name:"));
        for (path, most) in [("/dev/zero", 1000), ("/proc/self/status", 10)] {
            let text = read_at_most(Path::new(path), most).unwrap_err().to_string();
            assert_eq!(text, format!("more than {most} bytes, the most that is read"));
        }
        read_at_most(Path::new("/nowhere"), 10).unwrap_err();
    }

    #[test]
    fn more_than_there_is_is_told_with_both_sums() {
        assert_eq!(check(SMALL), Ok(()));
        if let Some(free) = free() {
            let shortage = check(u64::MAX).unwrap_err();
            assert!(shortage.needed == u64::MAX && shortage.free <= free.saturating_mul(2));
        }
        let text = Shortage { needed: 9_000_000_001, free: 400_000_000 }.to_string();
        assert_eq!(text, "needs about 9001 MB of memory, and 400 MB can be had here");
    }
}
