//! Listing of one directory by its descriptor.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// A name in a directory, and what it is.
pub(crate) type Named = (Box<[u8]>, FileType);

/// Names in a directory without `.` and `..`, in no order, with the kind if the file system tells it for free.
/// The descriptor has to be at the directory's start.
pub(crate) fn read_names(dir: BorrowedFd<'_>) -> Result<Vec<Named>, Errno> {
    // 32 KiB is what libc uses: most directories need one call for the names and one for the end.
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut names = Vec::new();
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push((name.into(), entry.file_type())),
        }
    }
    Ok(names)
}
