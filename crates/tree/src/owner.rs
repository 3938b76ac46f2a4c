//! Owners on disk where only one id is mapped: an attribute of a file or directory that says whom it belongs to, and one
//! that says which device an empty file stands for. The sandbox writes the same ones for running programs.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::entry::Kind;
use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::tree::Tree;

// All attributes of ours begin so, and are in no tree: see `entry::xattr_counts`.
const OWNER: &[u8] = b"user.lapstrake.owner";
const NODE: &[u8] = b"user.lapstrake.node";

/// What attributes say of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) node: Option<Kind>,
}

impl Recorded {
    /// Takes an attribute; what is none of ours or makes no sense is passed over.
    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        match name {
            OWNER => self.owner = two(text),
            NODE => {
                self.node = text.split_once(':').and_then(|(kind, numbers)| {
                    let (major, minor) = two(numbers)?;
                    match kind {
                        "c" => Some(Kind::CharDev { major, minor }),
                        "b" => Some(Kind::BlockDev { major, minor }),
                        _ => None,
                    }
                });
            }
            _ => {}
        }
    }
}

fn two(text: &str) -> Option<(u32, u32)> {
    let (first, second) = text.split_once(':')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

/// Writes the owners of `tree`, whose files are beneath `root`, as attributes. A file system without them has none. Of a
/// `delta` most files are elsewhere.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn record_owners(root: BorrowedFd<'_>, tree: &Tree, delta: bool) -> Result<(), TreeError> {
    for entry in tree.entries().iter().filter(|entry| !entry.path.is_root()) {
        let (is_dir, owner) = (entry.is_dir(), (entry.meta.uid, entry.meta.gid));
        let flags = match entry.kind {
            Kind::Dir { .. } => OFlags::RDONLY | OFlags::DIRECTORY,
            Kind::File { .. } if owner != (0, 0) => OFlags::RDONLY | OFlags::NONBLOCK,
            _ => continue,
        };
        let fd = match open_plain_raw(root, &entry.path, flags, Mode::empty()) {
            Err(Errno::NOENT) if delta => continue,
            opened => opened.map_err(TreeError::io("open", &entry.path))?,
        };
        let result = if owner == (0, 0) && is_dir {
            // A directory may have come up from a lower layer, with its owner there.
            fs::fremovexattr(&fd, OWNER)
        } else {
            let text = format!("{}:{}", owner.0, owner.1);
            fs::fsetxattr(&fd, OWNER, text.as_bytes(), XattrFlags::empty())
        };
        match result {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(TreeError::io("record the owner of", &entry.path)(errno)),
        }
    }
    Ok(())
}

/// Records the owner of one directory of ours.
///
/// # Errors
/// What the kernel says.
pub fn record_owner(path: &std::path::Path, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    fs::setxattr(path, OWNER, format!("{uid}:{gid}").as_bytes(), XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read() {
        let mut found = Recorded::default();
        found.take(b"user.lapstrake.owner", b"7:8");
        found.take(b"user.lapstrake.node", b"c:1:3");
        found.take(b"user.other", b"1:1");
        assert_eq!(found, Recorded { owner: Some((7, 8)), node: Some(Kind::CharDev { major: 1, minor: 3 }) });
        found.take(b"user.lapstrake.owner", b"-1:8");
        assert_eq!(found.owner, None);
    }
}
