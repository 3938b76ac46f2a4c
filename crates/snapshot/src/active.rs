//! A root that is being changed, and what becomes of the changes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lapstrake_store::{LayerId, Store, TempDir};
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::put::{Copied, Layers};
use lapstrake_tree::scan::{ScanMode, ScanOptions, scan};
use lapstrake_tree::{ContentDigest, Entry, Kind, Tree, TreePath};
use rustix::fs::{Mode, OFlags, Stat};

use crate::error::SnapshotError;
use crate::mount::mount;

/// Lower layers with a fresh upper directory on them. Only this can be written to; [`Active::commit`] ends it.
pub struct Active {
    dir: TempDir,
    lowers: Vec<PathBuf>,
    mount: OwnedFd,
}

impl Active {
    /// Puts a fresh upper directory on `lowers` (lowest first).
    pub fn new(store: &Store, lowers: Vec<PathBuf>) -> Result<Active, SnapshotError> {
        let dir = store.temp_dir()?;
        let made = |name: &str| {
            let path = dir.join(name);
            // The umask of whoever builds is not the mode of the image's root.
            fs::create_dir(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
                .map_err(|source| SnapshotError::Directory { path: path.clone(), source })?;
            Ok::<PathBuf, SnapshotError>(path)
        };
        made("layer")?;
        let (upper, work) = (made("layer/fs")?, made("work")?);
        let lowers = if lowers.is_empty() { vec![made("empty")?] } else { lowers };
        let mount = mount(&lowers, Some((&upper, &work)))?;
        Ok(Active { dir, lowers, mount })
    }

    /// The root as it is now.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// The root's halves, for a single big copy: after that the root itself is out of date.
    pub fn halves(&self) -> Result<Halves, SnapshotError> {
        Ok(Halves { upper: open_host_dir(&self.dir.join("layer/fs"))?, below: mount(&self.lowers, None)? })
    }

    /// Makes a layer of everything that was changed. `copied` is what is known about that, and whom the disk cannot
    /// say that things belong to; with `single_id` everything else belongs to 0:0. All users of the root must be gone.
    pub fn commit(self, store: &Store, copied: &Copied, single_id: bool) -> Result<LayerId, SnapshotError> {
        let upper = open_host_dir(&self.dir.join("layer/fs"))?;
        drop(self.mount);
        let options = ScanOptions {
            mode: ScanMode::OverlayUpper,
            owners: Some(&copied.owners),
            owner_default: single_id.then_some((0, 0)),
            known: copied.known.as_ref(),
            ..ScanOptions::default()
        };
        let tree = scan(upper.as_fd(), &options)?;
        let tree = if tree.is_empty() {
            tree
        } else {
            without_copies(tree, &mount(&self.lowers, None)?, single_id)?
        };
        put(store, &self.dir.join("layer"), &tree)
    }
}

/// The upper directory, and the layers below it mounted alone.
pub struct Halves {
    upper: OwnedFd,
    below: OwnedFd,
}

impl Halves {
    /// As a copy takes them.
    pub fn layers(&self) -> Layers<'_> {
        Layers { upper: self.upper.as_fd(), below: self.below.as_fd() }
    }
}

/// Takes `dir`, whose files are in `fs/`, into the store as the layer `tree`.
pub(crate) fn put(store: &Store, dir: &Path, tree: &Tree) -> Result<LayerId, SnapshotError> {
    let id: LayerId = tree.l_digest().to_string().parse()?;
    let content = tree.k_digest().0;
    store.put_layer(&id, dir, &tree.encode(), content, tree.content_size())?;
    Ok(id)
}

/// The tree without what overlayfs copied up and nobody changed, and without deletions of what is not there.
fn without_copies(tree: Tree, lower: &OwnedFd, single_id: bool) -> Result<Tree, SnapshotError> {
    let root = Root::new(lower);
    let linked: std::collections::BTreeSet<TreePath> = tree
        .entries()
        .iter()
        .filter_map(|e| if let Kind::Hardlink { to } = &e.kind { Some(to.clone()) } else { None })
        .collect();
    let in_new = in_new_directories(&root, tree.entries());
    let mut kept: Vec<Entry> = Vec::with_capacity(tree.len());
    // Backwards, so that a directory comes after all that is in it.
    for (entry, in_new) in tree.into_entries().into_iter().zip(in_new).rev() {
        let has_child =
            kept.last().is_some_and(|next| next.path.starts_with(&entry.path) && next.path != entry.path);
        let same = || match in_new {
            true => Ok(matches!(entry.kind, Kind::Whiteout)),
            false => is_same(&root, &entry, single_id),
        };
        let keep = has_child || linked.contains(&entry.path) || !same()?;
        if keep {
            kept.push(entry);
        }
    }
    Ok(Tree::from_entries(kept)?)
}

/// For every entry in walk order, whether it lies in a directory that is not there below: then nothing about it has to
/// be looked up. Most of what a build adds is in such directories.
fn in_new_directories(root: &Root<'_>, entries: &[Entry]) -> Vec<bool> {
    let mut new: Option<&TreePath> = None;
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let inside = new.is_some_and(|dir| entry.path.starts_with(dir));
        if !inside && entry.is_dir() {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let is_new = root.open_plain(&entry.path, flags, Mode::empty()).is_err();
            new = is_new.then_some(&entry.path);
        }
        found.push(inside);
    }
    found
}

fn is_same(root: &Root<'_>, entry: &Entry, single_id: bool) -> Result<bool, SnapshotError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let Ok(below) = root.open_plain(&entry.path, flags, Mode::empty()) else {
        return Ok(matches!(entry.kind, Kind::Whiteout));
    };
    let stat = rustix::fs::fstat(&below)
        .map_err(|e| SnapshotError::Mount { step: "looking below", source: e.into() })?;
    let same = match &entry.kind {
        Kind::Dir { opaque } => !opaque && is_kind(&stat, 0o040_000) && same_meta(&stat, entry, single_id),
        Kind::File { size, content } => {
            // Nor does one that was given: such a file is never taken for an untouched copy.
            entry.meta.xattrs.is_empty()
                && is_kind(&stat, 0o100_000)
                && u64::try_from(stat.st_size).is_ok_and(|below| below == *size)
                && same_meta(&stat, entry, single_id)
                && same_content(root, &entry.path, *content)?
        }
        _ => false,
    };
    Ok(same)
}

fn is_kind(stat: &Stat, kind: u32) -> bool {
    stat.st_mode & 0o170_000 == kind
}

fn same_meta(stat: &Stat, entry: &Entry, single_id: bool) -> bool {
    let mtime = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64);
    stat.st_mode & 0o7777 == entry.meta.mode
        && (single_id || (stat.st_uid, stat.st_gid) == (entry.meta.uid, entry.meta.gid))
        && mtime == entry.meta.mtime
}

fn same_content(root: &Root<'_>, path: &TreePath, content: ContentDigest) -> Result<bool, SnapshotError> {
    let fd = root.open_plain(path, OFlags::RDONLY, Mode::empty())?;
    // A capability taken away is a change that shows nowhere else.
    if rustix::fs::fgetxattr(&fd, "security.capability", &mut [0u8; 64]).is_ok() {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .read_to_end(&mut bytes)
        .map_err(|source| SnapshotError::Directory { path: path.as_path().to_owned(), source })?;
    Ok(ContentDigest::of(&bytes) == content)
}
