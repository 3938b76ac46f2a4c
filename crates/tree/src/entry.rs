//! One entry of a tree: what it is and the metadata that belong to it. Plain data, no IO.

use std::fmt;

use crate::path::TreePath;

/// blake3 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest(pub [u8; 32]);

impl ContentDigest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{self}")
    }
}

/// What an entry is, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; the first one of its hard links in walk order.
    File {
        /// Length in bytes.
        size: u64,
        /// Digest of the content.
        content: ContentDigest,
    },
    /// A further name of a file of the same tree. Its own metadata repeat those of the file.
    Hardlink {
        /// The [`Kind::File`] entry it is another name of; always earlier in walk order.
        to: TreePath,
    },
    /// A directory.
    Dir {
        /// Hides whatever lower layers have at the same place.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its text, not interpreted.
        target: Box<[u8]>,
    },
    /// A character device.
    CharDev {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDev {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A mark that lower layers' entry of that name is deleted. Has no metadata: all are zero.
    Whiteout,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name, with its name space.
    pub name: Box<[u8]>,
    /// Value.
    pub value: Box<[u8]>,
}

/// Metadata that every kind of entry has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-user-id, set-group-id and sticky (`0o7777`); `0o777` for symbolic links.
    pub mode: u32,
    /// Owner, as seen inside the container.
    pub uid: u32,
    /// Group, as seen inside the container.
    pub gid: u32,
    /// Time of last modification, nanoseconds since the epoch, saturating.
    pub mtime: i64,
    /// Extended attributes that count, sorted by name: all but `security.*` and `system.*` (of which
    /// `security.capability` is kept) and those of overlayfs itself.
    pub xattrs: Vec<Xattr>,
}

/// One entry of a [`crate::Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: Kind,
    /// Its metadata.
    pub meta: Meta,
}

impl Entry {
    /// A whiteout at `path`.
    #[must_use]
    pub fn whiteout(path: TreePath) -> Self {
        Self { path, kind: Kind::Whiteout, meta: Meta::default() }
    }

    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir { .. })
    }
}

/// Whether an attribute is part of a tree: `security.capability` and whatever the kernel, overlayfs and we do not own.
pub(crate) fn xattr_counts(name: &[u8]) -> bool {
    let owned: [&[u8]; 5] =
        [b"security.", b"system.", b"trusted.overlay.", b"user.overlay.", b"user.lapstrake."];
    name == b"security.capability" || !owned.iter().any(|prefix| name.starts_with(prefix))
}
