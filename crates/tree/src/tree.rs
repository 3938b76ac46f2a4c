//! The sorted list of all entries of a layer or a directory.
//!
//! Invariants: sorted in walk order without duplicates; the parent of every entry is a directory entry (the root
//! itself may be missing: then its metadata are nobody's business); a hard link names an earlier regular file of
//! the same tree and repeats its metadata. Which layer lies on which is not known here.

mod changes;
mod codec;
mod digest;
mod links;
mod stack;

pub use changes::Difference;
pub use codec::TREE_VERSION;
pub use digest::TreeDigest;
pub(crate) use digest::{KHasher, put_entry};
pub(crate) use links::{Inode, join_links};

use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::path::{TreePath, walk_order};

/// A file tree as data. See the module for what always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

impl Tree {
    /// A tree of these entries, in any order.
    ///
    /// # Errors
    /// [`TreeError::Duplicate`], [`TreeError::NotADirectory`] when a parent is missing or of another kind,
    /// [`TreeError::LinkTarget`] when a hard link does not name an earlier file.
    pub fn from_entries(mut entries: Vec<Entry>) -> Result<Self, TreeError> {
        // In place: there may be a million.
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let tree = Self { entries };
        tree.check()?;
        Ok(tree)
    }

    fn check(&self) -> Result<(), TreeError> {
        // The directories which the current entry lies in, without the root.
        let mut open: Vec<&TreePath> = Vec::new();
        let mut previous: Option<&TreePath> = None;
        for entry in &self.entries {
            let path = &entry.path;
            if previous == Some(path) {
                return Err(TreeError::Duplicate { path: path.clone() });
            }
            previous = Some(path);
            while open.last().is_some_and(|dir| !path.starts_with(dir)) {
                open.pop();
            }
            let depth = path.components().count();
            if open.len() + 1 < depth {
                return Err(TreeError::NotADirectory { path: path.parent().unwrap_or_default() });
            }
            match &entry.kind {
                Kind::Dir { .. } if !path.is_root() => open.push(path),
                Kind::Hardlink { to } => self.check_link(entry, to)?,
                _ if path.is_root() && !entry.is_dir() => {
                    return Err(TreeError::NotADirectory { path: path.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_link(&self, link: &Entry, to: &TreePath) -> Result<(), TreeError> {
        let file = self.get(to).filter(|e| matches!(e.kind, Kind::File { .. }) && *to < link.path);
        match file {
            Some(file) if file.meta == link.meta => Ok(()),
            _ => Err(TreeError::LinkTarget { path: link.path.clone(), target: to.clone() }),
        }
    }

    /// All entries in walk order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, for building another tree.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of the lengths of all files, a hard-linked one counted once.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.entries.iter().map(|e| if let Kind::File { size, .. } = e.kind { size } else { 0 }).sum()
    }

    fn position(&self, path: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|e| walk_order(e.path.as_bytes(), path))
    }

    /// Where in [`Self::entries`] the entry of `path` is.
    pub(crate) fn index_of(&self, path: &TreePath) -> Result<usize, usize> {
        self.position(path.as_bytes())
    }

    /// The entry at `path`, links not followed.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.position(path.as_bytes()).ok().map(|i| &self.entries[i])
    }

    /// The file behind a hard link, else the entry itself.
    #[must_use]
    pub fn resolve_hardlink<'t>(&'t self, entry: &'t Entry) -> &'t Entry {
        match &entry.kind {
            Kind::Hardlink { to } => self.get(to).unwrap_or(entry),
            _ => entry,
        }
    }

    /// `path` itself (if it has an entry) and everything below it, in walk order.
    #[must_use]
    pub fn subtree(&self, path: &TreePath) -> &[Entry] {
        let start = self.position(path.as_bytes()).unwrap_or_else(|i| i);
        let len = self.entries[start..].partition_point(|e| e.path.starts_with(path));
        &self.entries[start..start + len]
    }

    /// The direct children of a directory.
    pub fn children<'t>(&'t self, dir: &'t TreePath) -> impl Iterator<Item = &'t Entry> {
        let depth = dir.components().count() + 1;
        let mut rest = self.subtree(dir);
        if rest.first().is_some_and(|e| e.path == *dir) {
            rest = &rest[1..];
        }
        std::iter::from_fn(move || {
            let (child, _) = rest.split_first()?;
            debug_assert_eq!(child.path.components().count(), depth);
            let len = rest.partition_point(|e| e.path.starts_with(&child.path));
            rest = &rest[len..];
            Some(child)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
