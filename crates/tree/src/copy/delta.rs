//! Putting only what has changed since the same copy was last made.
//!
//! The layer that it made then stays where it is, and what is put goes on top of it: a saved file costs one file, and not
//! a link for each that was not saved. What is then known of the destination is all of it, as ever.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::os::fd::BorrowedFd;

use rayon::prelude::*;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::entries::EntryCopier;
use super::overlay_upper::check_room;
use crate::entry::{Entry, Kind, Xattr};
use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::path::TreePath;
use crate::select::Picked;
use crate::tree::Tree;

/// So many changes are always few.
const FEW: usize = 16;

/// What has become of a destination of which only changes were put.
pub(super) struct DeltaEntries {
    /// All that is there, put or not.
    pub(super) all: Vec<Entry>,
    /// The bytes of the files that were put.
    pub(super) bytes: u64,
}

impl EntryCopier<'_> {
    /// Puts what is not in the previous layer already, and returns all that is then there. `None`, and nothing is put,
    /// where that layer has something that is not there any more, where files share an inode, or where most is new.
    pub(super) fn delta(&mut self, entries: &[Picked]) -> Result<Option<DeltaEntries>, TreeError> {
        let Some(previous) = self.previous else { return Ok(None) };
        let shared = |entry: &Picked| match entry.kind {
            Kind::File { .. } => entry.linked,
            Kind::Hardlink { .. } => true,
            _ => false,
        };
        if entries.iter().any(shared) {
            return Ok(None);
        }
        let all = self.foreseen(entries)?;
        let Some(changed) = changes(previous.tree, self.base, &all) else { return Ok(None) };
        let needed = with_directories(entries, &changed);
        let picked: Vec<Picked> = needed.iter().map(|at| entries[*at].clone()).collect();
        self.previous = None;
        self.patching = true;
        let put = self.all(&picked)?;
        let bytes =
            put.iter().map(|entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 }).sum();
        let rest = all.into_iter().enumerate().filter(|(at, _)| !needed.contains(at));
        let all = rest.map(|(_, entry)| entry).chain(put).collect();
        for (at, entry) in entries.iter().enumerate() {
            if !needed.contains(&at) {
                self.note(entry);
            }
        }
        Ok(Some(DeltaEntries { all, bytes }))
    }

    /// All entries as they will be, nothing being made. What may not be put where it goes is refused here as well.
    fn foreseen(&mut self, entries: &[Picked]) -> Result<Vec<Entry>, TreeError> {
        let mut kept: BTreeMap<usize, Vec<Xattr>> = BTreeMap::new();
        // Files come last, as they do when they are put: of two errors the same one is told.
        let (last, first): (Vec<_>, Vec<_>) =
            entries.iter().enumerate().partition(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
        for (at, entry) in first.into_iter().chain(last) {
            if matches!(entry.kind, Kind::Dir { .. }) {
                let there = self.kept(entry)?;
                if !there.is_empty() {
                    kept.insert(at, there);
                }
            } else {
                let below = self.below.dir(&entry.to.parent().unwrap_or_default());
                check_room(below.as_ref(), entry.to.name(), || self.at(entry))?;
            }
        }
        let entry = |(at, picked)| self.entry(picked, kept.get(&at).map_or(&[], Vec::as_slice));
        Ok(entries.par_iter().enumerate().map(entry).collect())
    }
}

/// The places in `new` of what is not the same in `old` below `base`; `None` if something of `old` has no counterpart in
/// `new`, or too much is changed.
fn changes(old: &Tree, base: &TreePath, new: &[Entry]) -> Option<Vec<usize>> {
    let mut changed = Vec::new();
    let mut at = 0;
    let below = old.subtree(base).iter().filter(|entry| entry.path != *base);
    for before in below {
        let now = loop {
            let now = new.get(at)?;
            match now.path.cmp(&before.path) {
                Ordering::Less => changed.push(at),
                Ordering::Equal => break now,
                Ordering::Greater => return None,
            }
            at += 1;
        };
        // Overlayfs puts a directory on what is none and the other way round; but then more than the entry goes.
        let like = discriminant(&before.kind) == discriminant(&now.kind);
        if !like || before.kind == (Kind::Dir { opaque: true }) {
            return None;
        }
        if before != now {
            changed.push(at);
        }
        at += 1;
    }
    changed.extend(at..new.len());
    (changed.len() <= FEW + new.len() / 8).then_some(changed)
}

/// The changed entries with the directories above them.
fn with_directories(entries: &[Picked], changed: &[usize]) -> BTreeSet<usize> {
    let mut needed: BTreeSet<usize> = BTreeSet::new();
    for at in changed {
        let mut next = Some(*at);
        while let Some(at) = next.filter(|at| needed.insert(*at)) {
            let parent = entries[at].to.parent().filter(|parent| !parent.is_root());
            next = parent.and_then(|parent| entries.binary_search_by(|entry| entry.to.cmp(&parent)).ok());
        }
    }
    needed
}

/// Whether a directory on the way to `path`, or itself, hides what is below it: then it would hide the previous layer, or
/// that one what it must not.
pub(super) fn hides(root: BorrowedFd<'_>, path: &TreePath) -> bool {
    let mut next = Some(path.clone());
    while let Some(at) = next.filter(|at| !at.is_root()) {
        let mut value = [0u8; 1];
        let opaque = open_plain_raw(root, &at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .and_then(|dir| fs::fgetxattr(&dir, "user.overlay.opaque", &mut value[..]));
        match opaque {
            Ok(_) | Err(Errno::RANGE) => return true,
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            // It cannot be told.
            Err(_) => return true,
        }
        next = at.parent();
    }
    false
}
