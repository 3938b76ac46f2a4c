//! Whether files on the disk are still what a tree says.

use std::os::fd::OwnedFd;

use rayon::prelude::*;
use rustix::fs::OFlags;

use super::hash::hash_file;
use crate::entry::Kind;
use crate::inroot::open_plain_in;
use crate::path::TreePath;
use crate::tree::Tree;
use crate::unpack::WhiteoutStorage;

/// The first entry of `tree` that none of `roots` has, or that is of another kind or has other bytes in the first root that
/// has it; owners, modes and times are not looked at, nor deletions that are not marked on the disk. Reads every file.
#[must_use]
pub fn first_damage(roots: &[OwnedFd], tree: &Tree, marks: WhiteoutStorage) -> Option<TreePath> {
    let damaged = tree.entries().par_iter().find_first(|entry| {
        let open = |flags| open_plain_in(roots, &entry.path, flags);
        match &entry.kind {
            Kind::File { size, content } => open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
                .ok()
                .and_then(|fd| hash_file(&fd, *size).ok())
                .is_none_or(|found| found != (*size, *content)),
            Kind::Whiteout if marks == WhiteoutStorage::InTree => false,
            Kind::Dir { .. } => open(OFlags::PATH | OFlags::DIRECTORY).is_err(),
            // They have no bytes of their own; that they are there is enough.
            _ => open(OFlags::PATH | OFlags::NOFOLLOW).is_err(),
        }
    });
    damaged.map(|entry| entry.path.clone())
}
