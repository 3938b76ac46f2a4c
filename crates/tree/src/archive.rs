//! ADD of an archive, which its content makes one: unpacked onto a tree that is there already.
//!
//! The destination confines the archive as `chroot` would, as it does in BuildKit: `..` and absolute names and links
//! stay in it. Links on the way to an entry are followed there; the entry itself replaces what has its name, but for a
//! directory on a directory. Deletion marks of layers mean nothing here.

mod extractor;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::BorrowedFd;

use tar::EntryType;

use crate::copy::Copied;
use crate::decompress::decompress;
use crate::error::TreeError;
use crate::tar_read::{TarReader, entries};
use crate::unpack::UnpackOptions;
use extractor::Extractor;

/// How an archive is added.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtractOptions {
    /// Owner of the destination, if it is made, and of every entry, instead of what the archive says. Directories that
    /// no entry names belong to 0:0 all the same.
    pub chown: Option<(u32, u32)>,
    /// Time of directories made on the way, nanoseconds; `None` is now.
    pub mtime: Option<i64>,
    /// Limits, and whether owners are set on disk or reported.
    pub limits: UnpackOptions,
}

/// True when the file is a tar, plain or compressed (gzip, bzip2, xz, zstd). The file's position is put back.
///
/// # Errors
/// [`TreeError::Stream`] when the file cannot be read; what does not decompress is no archive.
pub fn is_archive(file: &mut File) -> Result<bool, TreeError> {
    let start = file.stream_position().map_err(TreeError::stream("read the file"))?;
    let found = match decompress(BufReader::new(&mut *file)) {
        Ok((_, plain)) => {
            let first = TarReader::new(plain, 4).with_holes(u64::MAX).next_entry();
            matches!(first, Ok(Some(_)) | Err(TreeError::TooLong { .. }))
        }
        Err(_) => false,
    };
    file.seek(io::SeekFrom::Start(start)).map_err(TreeError::stream("read the file"))?;
    Ok(found)
}

/// When the newest regular file of an archive is from, in seconds since 1970. What is no archive, or a broken one, has no
/// time.
///
/// # Errors
/// [`TreeError::TooBig`]: it has more entries or bytes than anything that can be unpacked.
pub fn newest(archive: impl Read + Send) -> Result<Option<i64>, TreeError> {
    let Ok(mut reader) = entries(archive, UnpackOptions::default().limits()) else { return Ok(None) };
    let mut newest = None;
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) if matches!(entry.kind, EntryType::Regular | EntryType::Continuous) => {
                newest = newest.max(Some(entry.mtime));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(newest.map(|time: i64| time.div_euclid(1_000_000_000))),
            Err(error @ TreeError::TooBig { .. }) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
}

/// Unpacks an archive into `dest`, which is made a directory if it is none.
///
/// # Errors
/// What the archive does wrong, as for a layer; [`TreeError::DanglingLink`] and [`TreeError::NoLinkTarget`] where it leads
/// to what is missing; [`TreeError::CopyToNonDirectory`] for the destination; [`TreeError::Io`] from the disk.
pub fn extract(
    archive: impl Read + Send,
    dest_root: BorrowedFd<'_>,
    dest: &[u8],
    options: &ExtractOptions,
) -> Result<Copied, TreeError> {
    let mut reader = entries(archive, options.limits.limits())?;
    let mut extractor = Extractor::new(dest_root, dest, options)?;
    while let Some(entry) = reader.next_entry()? {
        extractor.entry(&entry, &mut reader)?;
    }
    extractor.finish()
}

#[cfg(test)]
mod tests;
