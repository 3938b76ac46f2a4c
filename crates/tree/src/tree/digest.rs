//! Digests of trees.
//!
//! Both digests hash, for every entry in walk order, `u32 path length, path, record`; numbers are little-endian and
//! every variable part carries its length. A record is
//!
//! | field          | K (keys)                         | L (layers)                      |
//! |----------------|----------------------------------|---------------------------------|
//! | kind           | u8; a hard link counts as its file | u8; a hard link is a kind      |
//! | mode, uid, gid | 3 × u32                          | 3 × u32 (not for a hard link)   |
//! | mtime          | –                                | i64 (not for a hard link)       |
//! | file           | u64 size, 32 bytes content digest | the same                       |
//! | hard link      | –                                | u32 length, path of the file    |
//! | directory      | u8 opaque                        | u8 opaque                       |
//! | symbolic link  | u32 length, text                 | the same                        |
//! | device         | u32 major, u32 minor             | the same                        |
//! | xattrs         | u32 count, then for each u32 length, name, u32 length, value | the same |
//!
//! The root's own entry is part of a whole-tree digest when the tree has one.

use std::fmt;

use blake3::Hasher;

use super::Tree;
use crate::entry::{Entry, Kind, Meta};
use crate::path::TreePath;

/// Domain separation; the number changes whenever the table above does.
const K_CONTEXT: &str = "lapstrake tree K 1";
const L_CONTEXT: &str = "lapstrake tree L 1";

/// A digest of a tree or of a part of one (blake3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeDigest(pub [u8; 32]);

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Collects K records under names of the caller's choice; what a selection is hashed with.
#[derive(Debug)]
pub(crate) struct KHasher {
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl KHasher {
    pub(crate) fn new() -> Self {
        Self { hasher: Hasher::new_derive_key(K_CONTEXT), buffer: Vec::with_capacity(1 << 16) }
    }

    /// Adds an entry that is already resolved (no hard link).
    pub(crate) fn entry(&mut self, path: &[u8], kind: &Kind, meta: &Meta) {
        bytes(&mut self.buffer, path);
        record_k(&mut self.buffer, kind, meta);
        if self.buffer.len() >= 1 << 16 {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// Adds anything that separates groups of entries.
    pub(crate) fn mark(&mut self, text: &[u8]) {
        bytes(&mut self.buffer, text);
    }

    pub(crate) fn finish(mut self) -> TreeDigest {
        self.hasher.update(&self.buffer);
        TreeDigest(*self.hasher.finalize().as_bytes())
    }
}

impl Tree {
    /// The digest for cache keys: everything but times.
    #[must_use]
    pub fn k_digest(&self) -> TreeDigest {
        self.k_of(&self.entries, &TreePath::root())
    }

    /// The digest for cache keys of `path` and all below it, under names relative to `path`; so that equal
    /// directories at two places have equal digests. `None` when there is nothing at `path`.
    #[must_use]
    pub fn k_digest_of(&self, path: &TreePath) -> Option<TreeDigest> {
        let entries = self.subtree(path);
        (!entries.is_empty() || path.is_root()).then(|| self.k_of(entries, path))
    }

    fn k_of(&self, entries: &[Entry], base: &TreePath) -> TreeDigest {
        let mut hasher = KHasher::new();
        for entry in entries {
            let real = self.resolve_hardlink(entry);
            hasher.entry(entry.path.strip_prefix(base).unwrap_or_default(), &real.kind, &real.meta);
        }
        hasher.finish()
    }

    /// The identity of a layer: everything, times and hard links included.
    #[must_use]
    pub fn l_digest(&self) -> TreeDigest {
        let mut hasher = Hasher::new_derive_key(L_CONTEXT);
        let mut buffer = Vec::with_capacity(1 << 16);
        for entry in &self.entries {
            put_entry(&mut buffer, entry);
            if buffer.len() >= 1 << 16 {
                hasher.update(&buffer);
                buffer.clear();
            }
        }
        hasher.update(&buffer);
        TreeDigest(*hasher.finalize().as_bytes())
    }
}

/// An entry as L digests hash it: its path and its record.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    bytes(out, entry.path.as_bytes());
    record_l(out, entry);
}

fn bytes(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(part);
}

fn tag(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Hardlink { .. } => 2,
        Kind::Dir { .. } => 3,
        Kind::Symlink { .. } => 4,
        Kind::CharDev { .. } => 5,
        Kind::BlockDev { .. } => 6,
        Kind::Fifo => 7,
        Kind::Whiteout => 8,
    }
}

fn owner(out: &mut Vec<u8>, meta: &Meta) {
    for number in [meta.mode, meta.uid, meta.gid] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn body(out: &mut Vec<u8>, kind: &Kind, meta: &Meta) {
    match kind {
        Kind::File { size, content } => {
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&content.0);
        }
        Kind::Hardlink { to } => bytes(out, to.as_bytes()),
        Kind::Dir { opaque } => out.push(u8::from(*opaque)),
        Kind::Symlink { target } => bytes(out, target),
        Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        Kind::Fifo | Kind::Whiteout => {}
    }
    out.extend_from_slice(&u32::try_from(meta.xattrs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for xattr in &meta.xattrs {
        bytes(out, &xattr.name);
        bytes(out, &xattr.value);
    }
}

/// The K record of an entry that is no hard link.
fn record_k(out: &mut Vec<u8>, kind: &Kind, meta: &Meta) {
    out.push(tag(kind));
    owner(out, meta);
    body(out, kind, meta);
}

fn record_l(out: &mut Vec<u8>, entry: &Entry) {
    out.push(tag(&entry.kind));
    if let Kind::Hardlink { to } = &entry.kind {
        return bytes(out, to.as_bytes());
    }
    owner(out, &entry.meta);
    out.extend_from_slice(&entry.meta.mtime.to_le_bytes());
    body(out, &entry.kind, &entry.meta);
}
