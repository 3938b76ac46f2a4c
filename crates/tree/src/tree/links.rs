//! From inodes to hard links: of all names of one inode the first in walk order is the file, the others link to it.

use std::collections::HashMap;

use crate::entry::{Entry, Kind};

/// What tells two names of one file from two files: device and inode number, or any other unique pair.
pub(crate) type Inode = (u64, u64);

/// Turns all but the first [`Kind::File`] of each inode into [`Kind::Hardlink`] and returns the entries sorted.
pub(crate) fn join_links(mut found: Vec<(Entry, Option<Inode>)>) -> Vec<Entry> {
    found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let mut first: HashMap<Inode, usize> = HashMap::new();
    let mut out: Vec<Entry> = Vec::with_capacity(found.len());
    for (mut entry, inode) in found {
        if let (Some(inode), Kind::File { .. }) = (inode, &entry.kind) {
            let file = *first.entry(inode).or_insert(out.len());
            if let Some(file) = out.get(file) {
                entry.kind = Kind::Hardlink { to: file.path.clone() };
                entry.meta = file.meta.clone();
            }
        }
        out.push(entry);
    }
    out
}
