//! What an archive has made so far. There may be a million of it, so each takes as little memory as it can, and the
//! entries are made a tree where they lie.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::entry::{Entry, Kind, Meta};
use crate::error::TreeError;
use crate::length::{MAX_PATH, check_length};
use crate::path::TreePath;
use crate::tar_read::{ENTRY, check_memory};
use crate::tree::Tree;

/// Entries by their paths.
#[derive(Default)]
pub(super) struct Nodes {
    /// Where in `entries` each is.
    slots: BTreeMap<TreePath, u32>,
    /// Without their paths, which are in `slots` until the end.
    entries: Vec<Entry>,
    /// Slots that nothing is in any more.
    free: Vec<u32>,
    /// What tells hard links of one file together, of those that have one.
    files: HashMap<u32, u32>,
    next_file: u32,
    /// What all that was ever put here takes in memory: real paths are longer than names that go over links, implied
    /// directories have no name in the archive, and hard links repeat what their file has.
    memory: u64,
    /// The most that `memory` may be.
    limit: u64,
    /// Directories that no entry named.
    implied: BTreeSet<u32>,
}

impl Nodes {
    /// None yet, of which all may take so many bytes.
    pub(super) fn with_limit(limit: u64) -> Nodes {
        Nodes { limit, ..Nodes::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains(&self, path: &TreePath) -> bool {
        self.slots.contains_key(path)
    }

    fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(*self.slots.get(path)? as usize)
    }

    pub(super) fn kind(&self, path: &TreePath) -> Option<&Kind> {
        self.get(path).map(|entry| &entry.kind)
    }

    /// The deepest of the paths from `above` down to `path` that something is at; `above`, if nothing is below it. What
    /// something is at has only directories above it, so that the place is found by halving.
    pub(super) fn deepest(&self, above: &TreePath, path: &TreePath) -> TreePath {
        let ends = path.ends_below(above);
        let there = ends.partition_point(|end| self.contains(&path.beginning(*end)));
        if there == 0 { above.clone() } else { path.beginning(ends[there - 1]) }
    }

    /// Puts something at a path in place of what is there.
    ///
    /// # Errors
    /// [`TreeError::TooBig`] for more than may be kept in memory, [`TreeError::TooLong`] for a path that no kernel takes.
    pub(super) fn insert(&mut self, path: TreePath, kind: Kind, meta: Meta) -> Result<(), TreeError> {
        self.put(path, kind, meta).map(drop)
    }

    /// The same with a directory that no entry names.
    pub(super) fn insert_implied(&mut self, path: TreePath, kind: Kind, meta: Meta) -> Result<(), TreeError> {
        let slot = self.put(path, kind, meta)?;
        self.implied.insert(slot);
        Ok(())
    }

    fn put(&mut self, path: TreePath, kind: Kind, meta: Meta) -> Result<u32, TreeError> {
        check_length(path.as_bytes(), "its real path", path.as_bytes(), MAX_PATH)?;
        let text = if let Kind::Symlink { target } = &kind { target.len() } else { 0 };
        let attributes: usize = meta.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        self.memory += ENTRY + (path.as_bytes().len() + text + attributes) as u64;
        check_memory(self.memory, self.limit)?;
        let entry = Entry { path: TreePath::root(), kind, meta };
        let slot = match self.slots.get(&path).copied().or_else(|| self.free.pop()) {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                let slot = u32::try_from(self.entries.len());
                let most = u64::from(u32::MAX);
                let slot = slot.map_err(|_| TreeError::TooBig { what: "entries", limit: most })?;
                self.entries.push(entry);
                slot
            }
        };
        self.files.remove(&slot);
        self.implied.remove(&slot);
        self.slots.insert(path, slot);
        Ok(slot)
    }

    /// Hides what lower layers have in a directory.
    pub(super) fn set_opaque(&mut self, dir: &TreePath) {
        if let Some(entry) = self.slots.get(dir).and_then(|slot| self.entries.get_mut(*slot as usize)) {
            entry.kind = Kind::Dir { opaque: true };
        }
    }

    /// Gives what is at `target` the name `path` too. Nothing is at `path`.
    pub(super) fn link(&mut self, target: &TreePath, path: TreePath) -> Result<(), TreeError> {
        let Some(&from) = self.slots.get(target) else { return Ok(()) };
        let Entry { kind, meta, .. } = self.entries[from as usize].clone();
        let is_file = matches!(kind, Kind::File { .. });
        let to = self.put(path, kind, meta)?;
        if is_file {
            let next = self.next_file;
            let file = *self.files.entry(from).or_insert(next);
            self.next_file = next.max(file.saturating_add(1));
            self.files.insert(to, file);
        }
        Ok(())
    }

    /// `path` and what lies below it, in walk order.
    pub(super) fn subtree(&self, path: &TreePath) -> Vec<TreePath> {
        let all = self.slots.range(path.clone()..).map(|(at, _)| at);
        all.take_while(|at| at.starts_with(path)).cloned().collect()
    }

    pub(super) fn remove(&mut self, path: &TreePath) -> Option<Kind> {
        let slot = self.slots.remove(path)?;
        self.files.remove(&slot);
        self.implied.remove(&slot);
        self.free.push(slot);
        let gone = std::mem::replace(&mut self.entries[slot as usize], Entry::whiteout(TreePath::root()));
        Some(gone.kind)
    }

    /// All directories, deepest first.
    pub(super) fn dirs(&self) -> impl Iterator<Item = (&TreePath, &Meta, bool)> {
        self.slots.iter().rev().filter_map(|(path, slot)| {
            let entry = &self.entries[*slot as usize];
            let Kind::Dir { opaque } = entry.kind else { return None };
            Some((path, &entry.meta, opaque))
        })
    }

    /// The tree, and the directories in it that no entry named.
    pub(super) fn finish(self) -> Result<(Tree, Vec<TreePath>), TreeError> {
        let Self { slots, mut entries, mut free, files, implied, .. } = self;
        let implied =
            slots.iter().filter(|(_, slot)| implied.contains(slot)).map(|(path, _)| path.clone()).collect();
        for (path, slot) in slots {
            entries[slot as usize].path = path;
        }
        join(&mut entries, &files);
        // From the last on: what takes the place of a free one is none itself.
        free.sort_unstable();
        for slot in free.into_iter().rev() {
            entries.swap_remove(slot as usize);
        }
        Ok((Tree::from_entries(entries)?, implied))
    }
}

/// Of all names of one file the first in walk order is the file, the others link to it.
fn join(entries: &mut [Entry], files: &HashMap<u32, u32>) {
    let mut first: HashMap<u32, u32> = HashMap::new();
    for (&slot, &file) in files {
        let found = first.entry(file).or_insert(slot);
        if entries[slot as usize].path < entries[*found as usize].path {
            *found = slot;
        }
    }
    for (slot, file) in files {
        let found = first[file];
        if found != *slot {
            let to = entries[found as usize].path.clone();
            entries[*slot as usize].kind = Kind::Hardlink { to };
        }
    }
}
