//! Content digests and attributes of one open file.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs;
use rustix::io::{self, Errno};

use crate::entry::{ContentDigest, Xattr};

/// Big enough that blake3's wide implementation gets whole chunks, small enough for the second-level cache.
const BUFFER: usize = 128 << 10;
/// The kernel's limits for a list of names and for one value.
const XATTR_MAX: usize = 64 << 10;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Length and digest of what can be read from `fd`; at most one byte more than `expected` is read, so that a file
/// that grows for ever ends.
pub(crate) fn hash_file(fd: &impl AsFd, expected: u64) -> Result<(u64, ContentDigest), Errno> {
    // The length is known: the read that would only say "end" is saved for small files.
    hash_while(fd, expected.saturating_add(1), |total| total != expected || total >= BUFFER as u64)
}

/// Length and digest of what can be read from `fd`, up to `limit` bytes: what is behind them is not looked at.
pub(crate) fn hash_first(fd: &impl AsFd, limit: u64) -> Result<(u64, ContentDigest), Errno> {
    hash_while(fd, limit, |_| true)
}

/// Reads at most `limit` bytes, as long as `more` says so of the number of bytes that were read.
fn hash_while(fd: &impl AsFd, limit: u64, more: impl Fn(u64) -> bool) -> Result<(u64, ContentDigest), Errno> {
    READ.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER, 0);
        let mut hasher = blake3::Hasher::new();
        let mut total = 0u64;
        while total < limit {
            let most = usize::try_from(limit - total).unwrap_or(BUFFER).min(BUFFER);
            match io::read(fd, &mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    total += n as u64;
                }
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            }
            if !more(total) {
                break;
            }
        }
        Ok((total, ContentDigest(*hasher.finalize().as_bytes())))
    })
}

/// Attributes for which `keep(name, value)` says so, sorted by name. A file system without attributes has none.
pub(crate) fn read_xattrs(
    fd: BorrowedFd<'_>,
    mut keep: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<Vec<Xattr>, Errno> {
    let mut small = [0u8; 1024];
    let mut big: Vec<u8>;
    let list: &[u8] = match fs::flistxattr(fd, &mut small[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(len) => &small[..len],
        Err(Errno::RANGE) => {
            big = vec![0; XATTR_MAX];
            let len = fs::flistxattr(fd, &mut big[..])?;
            &big[..len]
        }
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in list.split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let value = match read_xattr(fd, name) {
            // Listed but not for us (`trusted.*` without privilege), or gone.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
            other => other?,
        };
        if keep(name, &value) {
            found.push(Xattr { name: name.into(), value: value.into() });
        }
    }
    found.sort();
    Ok(found)
}

fn read_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(value);
            }
            Err(Errno::RANGE) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
            Err(e) => return Err(e),
        }
    }
}
