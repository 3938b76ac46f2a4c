//! From inodes to hard links: of all names of one inode the first in walk order is the file, the others link to it.

use std::collections::HashMap;

use crate::entry::{Entry, Kind};

/// What tells two names of one file from two files: device and inode number, or any other unique pair.
pub(crate) type Inode = (u64, u64);

/// The first names of the files of some entries.
#[derive(Default)]
struct Links {
    first: HashMap<Inode, usize>,
}

impl Links {
    /// Adds the next entry in walk order to those before: as a [`Kind::Hardlink`] if it is another name of one of them.
    fn push(&mut self, before: &mut Vec<Entry>, mut entry: Entry, inode: Option<Inode>) {
        if let (Some(inode), Kind::File { .. }) = (inode, &entry.kind) {
            let file = *self.first.entry(inode).or_insert(before.len());
            if let Some(file) = before.get(file) {
                entry.kind = Kind::Hardlink { to: file.path.clone() };
                entry.meta = file.meta.clone();
            }
        }
        before.push(entry);
    }
}

/// Turns all but the first [`Kind::File`] of each inode into [`Kind::Hardlink`] and returns the entries sorted.
pub(crate) fn join_links(mut found: Vec<(Entry, Option<Inode>)>) -> Vec<Entry> {
    found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let mut links = Links::default();
    let mut out: Vec<Entry> = Vec::with_capacity(found.len());
    for (entry, inode) in found {
        links.push(&mut out, entry, inode);
    }
    out
}
