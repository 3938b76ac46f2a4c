//! Listing of one directory by its descriptor.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

/// Names in a directory without `.` and `..`, in no order.
/// The descriptor has to be at the directory's start.
pub(crate) fn read_names(dir: BorrowedFd<'_>) -> Result<Vec<Box<[u8]>>, Errno> {
    // 32 KiB is what libc uses: most directories need one call for the names and one for the end.
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut names = Vec::new();
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.into()),
        }
    }
    Ok(names)
}
