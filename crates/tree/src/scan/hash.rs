//! Content digests and attributes of one open file.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{channel, sync_channel};

use rustix::fs;
use rustix::io::{self, Errno};

use crate::entry::{ContentDigest, Xattr};

/// Big enough that blake3's wide implementation gets whole chunks, small enough for the second-level cache.
const BUFFER: usize = 128 << 10;
/// From this size on a file is hashed while its next piece is read.
pub(crate) const LARGE: u64 = 8 << 20;
/// The pieces of large files.
const PIECE: usize = 1 << 20;
/// The kernel's limits for a list of names and for one value.
const XATTR_MAX: usize = 64 << 10;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Length and digest of what can be read from `fd`; at most one byte more than `expected` is read, so that a file
/// that grows for ever ends.
pub(crate) fn hash_file(fd: &impl AsFd, expected: u64) -> Result<(u64, ContentDigest), Errno> {
    if (LARGE..u64::MAX - 1).contains(&expected) {
        return hash_large(fd, expected.saturating_add(1), |_| Ok(()));
    }
    // The length is known: the read that would only say "end" is saved for small files.
    hash_while(fd, expected.saturating_add(1), |total| total != expected || total >= BUFFER as u64)
}

/// Length and digest of what can be read from `fd`, up to `limit` bytes: what is behind them is not looked at.
pub(crate) fn hash_first(fd: &impl AsFd, limit: u64) -> Result<(u64, ContentDigest), Errno> {
    if limit >= LARGE {
        return hash_large(fd, limit, |_| Ok(()));
    }
    hash_while(fd, limit, |_| true)
}

/// Length and digest of at most `limit` bytes. Each piece is given to `each`, and hashed by another thread while the next one
/// is read. Not by rayon's threads: the caller may hold a lock that another of their jobs waits for.
pub(crate) fn hash_large(
    from: &impl AsFd,
    limit: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<(u64, ContentDigest), Errno> {
    let (to_hash, pieces) = sync_channel::<(Vec<u8>, usize)>(1);
    let (give_back, used) = channel();
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut hasher = blake3::Hasher::new();
            for (piece, length) in pieces {
                hasher.update(&piece[..length]);
                // Nobody takes it if the file could not be read on.
                give_back.send(piece).unwrap_or_default();
            }
            ContentDigest(*hasher.finalize().as_bytes())
        });
        let mut read_all = || {
            let mut total = 0;
            loop {
                let mut piece = used.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
                let got = read_piece(from, &mut piece, limit - total)?;
                if got == 0 {
                    return Ok(total);
                }
                each(&piece[..got])?;
                total += got as u64;
                // The thread takes all that comes.
                to_hash.send((piece, got)).unwrap_or_default();
            }
        };
        let read = read_all();
        drop(to_hash);
        let digest = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read.map(|total| (total, digest))
    })
}

/// Reads until the buffer is full, the file ends, or there are `limit` bytes.
fn read_piece(fd: &impl AsFd, buffer: &mut [u8], limit: u64) -> Result<usize, Errno> {
    let most = usize::try_from(limit).unwrap_or(buffer.len()).min(buffer.len());
    let mut have = 0;
    while have < most {
        match io::read(fd, &mut buffer[have..most]) {
            Ok(0) => break,
            Ok(got) => have += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
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

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    /// Large files have the digests that they would have in one piece, and what is behind the limit does not count.
    #[test]
    fn in_pieces_as_in_one() {
        let large = LARGE as usize;
        let bytes: Vec<u8> = (0..large + 3 * PIECE + 17).map(|at| (at % 253) as u8).collect();
        for length in [large - 1, large, large + 1, large + PIECE, bytes.len()] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes[..length]).unwrap();
            let digest = ContentDigest::of(&bytes[..length]);
            let rewound = |mut file: &std::fs::File| file.rewind().unwrap();
            rewound(&file);
            assert_eq!(hash_file(&file, length as u64).unwrap(), (length as u64, digest), "{length}");
            rewound(&file);
            let found = hash_file(&file, length as u64 - 1).unwrap();
            assert_eq!(found.0, length as u64, "one byte more is read: {length}");
            rewound(&file);
            assert_eq!(hash_first(&file, length as u64).unwrap(), (length as u64, digest), "{length}");
            rewound(&file);
            let mut seen = Vec::new();
            let take = |piece: &[u8]| {
                seen.extend_from_slice(piece);
                Ok(())
            };
            assert_eq!(hash_large(&file, length as u64, take).unwrap(), (length as u64, digest), "{length}");
            assert!(seen == bytes[..length], "{length}");
            rewound(&file);
            let failing = hash_large(&file, length as u64, |_| Err(Errno::NOSPC));
            assert_eq!(failing.unwrap_err(), Errno::NOSPC, "{length}");
        }
    }
}
