//! What becomes of memory that was freed. Reading and packing a network needs about as much as the network has, once, and the
//! allocator of the GNU C library would keep it.

/// Gives freed memory back to the system.
pub fn release_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call has no conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// From here on large buffers are given back as soon as they are freed, those of other threads too: for a program that owns its process
/// and allocates them seldom.
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
