//! The trees of a process that failed.

use std::collections::BTreeMap;

use lapstrake_graph::{Exec, MountKind};
use lapstrake_runtime::OwnedInode;
use lapstrake_snapshot::Active;

use crate::exec::mounts::{MountResource, Mounts};
use crate::failed::{Changes, FailedTrees, LeftTree};
use crate::stack::{SharedStack, Stack};

/// Owners by device and inode.
pub(super) fn by_inode(owned: &[OwnedInode]) -> BTreeMap<(u64, u64), (u32, u32)> {
    owned.iter().map(|one| ((one.dev, one.ino), (one.uid, one.gid))).collect()
}

/// The trees of a process that failed.
pub(super) fn left_over(
    exec: &Exec,
    (base, inputs): (&Stack, &[SharedStack]),
    (root, mounts): (Active, Mounts),
    owned: &BTreeMap<(u64, u64), (u32, u32)>,
) -> FailedTrees {
    let mut before = BTreeMap::from([("/".to_owned(), base.clone().into())]);
    for mount in &exec.mounts {
        if let MountKind::Bind(bind) = &mount.kind
            && let Some(input) = inputs.get(bind.input)
        {
            before.insert(mount.target.clone(), input.clone());
        }
    }
    let left =
        |active: Active, base: &Stack| LeftTree::new(active, base.clone(), Changes::Owners(owned.clone()));
    let mut after = BTreeMap::new();
    if !exec.readonly_root {
        after.insert("/".to_owned(), left(root, base));
    }
    after.extend(mounts.kept.into_iter().map(|one| (one.target, left(one.active, &one.base))));
    for resource in mounts.resources {
        if let MountResource::Scratch { active, target, base: Some(base) } = resource {
            after.insert(target, left(active, &base));
        }
    }
    FailedTrees::Exec { before, after }
}
