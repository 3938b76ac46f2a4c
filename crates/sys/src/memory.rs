//! The heap of a process that runs for long.
//!
//! The GNU C library keeps freed memory for the thread that used it. A server that had a hundred threads for a minute would
//! keep hundreds of megabytes for good.

/// Lets threads share `most` heaps at most, in place of eight for each processor. To be called before there are threads.
/// Changes nothing with another C library than GNU's.
pub fn limit_heaps(most: usize) {
    #[cfg(target_env = "gnu")]
    {
        let most = libc::c_int::try_from(most.max(1)).unwrap_or(libc::c_int::MAX);
        // SAFETY: The call takes two numbers, and changes a setting of the allocator under the allocator's own lock.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = most;
}

/// Gives memory that was freed back to the kernel. Takes some milliseconds. Does nothing with another C library than GNU's.
pub fn give_back() {
    // SAFETY: The call takes a number, and only unmaps pages that hold no allocation, under the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
