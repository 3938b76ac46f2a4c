//! How layers are put on each other in a state directory, found out before anything is fetched.

use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_store::{LayerId, Stacking, Store};
use lapstrake_tree::clone_tree::make_marks;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::unpack::WhiteoutStorage;
use lapstrake_tree::{Kind, Tree};
use rustix::fs::StatVfsMountFlags;
use rustix::thread::CapabilitySet;

use crate::error::SnapshotError;
use crate::mount::{mount, mount_copy};

/// File systems that every kernel stacks layers on: ext2 to ext4, xfs, btrfs, tmpfs, f2fs.
const GOOD: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010];
/// An overlay, on which no kernel stacks further ones.
const OVERLAY: u64 = 0x794c_7630;

/// What a root stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lower {
    /// A layer of the store, whose files are there.
    Layer(LayerId),
    /// A directory of the host.
    Host(PathBuf),
}

/// How layers are put on each other in this state directory: as an overlay wherever that can be mounted, else by copying.
/// Asked for once; nothing is tried where the file system's kind says it.
///
/// # Errors
/// [`SnapshotError::NoStacking`] with the kernel's reason, if neither can be.
pub fn stacking(store: &Store) -> Result<Stacking, SnapshotError> {
    if let Some(known) = store.stacking() {
        return Ok(known);
    }
    let right = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let chosen =
        if right && GOOD.contains(&kind_of(store)) { Stacking::Overlay } else { probe_stacking(store)? };
    tracing::info!(?chosen, tried = !right, "how layers are stacked");
    store.set_stacking(chosen.clone());
    Ok(chosen)
}

/// The kind of the state directory's file system.
fn kind_of(store: &Store) -> u64 {
    rustix::fs::statfs(store.root()).map(|found| found.f_type as u64).unwrap_or_default()
}

/// As [`stacking`], with an overlay tried wherever one may be possible.
///
/// # Errors
/// As [`stacking`].
pub fn probe_stacking(store: &Store) -> Result<Stacking, SnapshotError> {
    if kind_of(store) == OVERLAY {
        return copy(store, "it is on an overlay itself, and no kernel stacks further layers there");
    }
    match try_overlay(store) {
        Ok(()) => Ok(Stacking::Overlay),
        Err(error @ SnapshotError::Mount { .. }) => {
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            copy(store, &format!("{error}: {why}")).map_err(|copying| match copying {
                // The first refusal says more.
                SnapshotError::NoStacking { path, .. } if !is_mounted_without_programs(store) => {
                    SnapshotError::NoStacking { path, source: Box::new(error) }
                }
                other => other,
            })
        }
        Err(error) => Err(error),
    }
}

/// Copying, if that can be done.
///
/// # Errors
/// [`SnapshotError::NoStacking`].
pub fn copy(store: &Store, why: &str) -> Result<Stacking, SnapshotError> {
    match mount_copy(store.root()) {
        Ok(_) => Ok(Stacking::Copy { why: why.to_owned() }),
        Err(error) => {
            Err(SnapshotError::NoStacking { path: store.root().to_owned(), source: Box::new(error) })
        }
    }
}

fn is_mounted_without_programs(store: &Store) -> bool {
    rustix::fs::statvfs(store.root()).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

fn try_overlay(store: &Store) -> Result<(), SnapshotError> {
    let dir = store.temp_dir()?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.path().join(name));
    for made in [&lower, &upper, &work] {
        let refused = |source| SnapshotError::Directory { path: made.clone(), source };
        fs::create_dir(made).map_err(refused)?;
    }
    mount(&[lower], Some((&upper, &work))).map(drop)
}

/// The directories of layers, to be mounted on each other, lowest first. Overlayfs takes no directory twice: of one that is
/// there more than once (two steps that did the same, or changes to the same layer) only the topmost counts, which
/// hides nothing that the lower ones would show.
pub(crate) fn directories(store: &Store, lowers: &[Lower]) -> Result<Vec<PathBuf>, SnapshotError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut dirs = Vec::new();
    for lower in lowers.iter().rev() {
        match lower {
            Lower::Host(path) => dirs.push(path.clone()),
            Lower::Layer(id) => {
                if store.is_unmarked(id) {
                    mark(store, id)?;
                }
                let own = store.layer_dirs(id).into_iter().rev();
                dirs.extend(own.filter(|dir| seen.insert(dir.clone())));
            }
        }
    }
    dirs.reverse();
    Ok(dirs)
}

/// Marks on the disk what a layer deletes, which was made where no marks could be.
fn mark(store: &Store, id: &LayerId) -> Result<(), SnapshotError> {
    let lock = store.lock(&format!("unpack-{id}"))?;
    if store.is_unmarked(id)
        && let Some(dir) = store.layer_dirs(id).pop()
    {
        let tree = Tree::decode(&store.layer_tree(id)?)?;
        make_marks(std::os::fd::AsFd::as_fd(&open_host_dir(&dir)?), &tree)?;
        store.set_marked(id)?;
    }
    drop(lock);
    Ok(())
}

/// How deletions can be marked in the state directory.
pub(crate) fn marks(store: &Store) -> Result<WhiteoutStorage, SnapshotError> {
    Ok(match stacking(store)? {
        Stacking::Overlay => WhiteoutStorage::OnDisk,
        Stacking::Copy { .. } => WhiteoutStorage::InTree,
    })
}

/// Notes in the layer's directory-to-be whether marks that its tree has are lacking on the disk.
pub(crate) fn note_marks(dir: &Path, tree: &Tree, marks: WhiteoutStorage) -> Result<(), SnapshotError> {
    if marks == WhiteoutStorage::InTree && has_marks(tree) { Ok(Store::note_unmarked(dir)?) } else { Ok(()) }
}

/// Whether a layer deletes or hides what is below it.
fn has_marks(tree: &Tree) -> bool {
    tree.entries().iter().any(|entry| matches!(entry.kind, Kind::Whiteout | Kind::Dir { opaque: true }))
}
