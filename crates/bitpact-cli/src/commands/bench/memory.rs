//! Memory of this process, as Linux counts it.

/// Resident memory: every page in RAM that this process has mapped, of the program itself too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Now; unknown where the system does not tell.
    pub(super) resident_bytes: Option<u64>,
    /// The most so far, loading the model included.
    pub(super) peak_bytes: Option<u64>,
}

impl Memory {
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { resident_bytes: field(&status, "VmRSS:"), peak_bytes: field(&status, "VmHWM:") }
    }
}

/// A field such as `VmRSS:     5108 kB`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_as_linux_writes_them() {
        let status = "Name:\tbitpact\nVmHWM:\t    6000 kB\nVmRSS:\t    5108 kB\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "VmHWM:")), (Some(5108 * 1024), Some(6000 * 1024)));
        assert_eq!(field("", "VmRSS:"), None);
        assert_eq!(field("VmRSS: many kB", "VmRSS:"), None);
    }
}
