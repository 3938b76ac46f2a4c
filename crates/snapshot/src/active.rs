//! A root that is being changed, and what becomes of the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lapstrake_store::{LayerId, LayerSize, Stacking, Store, TempDir};
use lapstrake_tree::copy::{Copied, Layers};
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::prune_extra::prune_extra;
use lapstrake_tree::replica::{LayerFiles, Replica, copy_changes};
use lapstrake_tree::scan::{Found, Ownership, ScanMode, ScanOptions, compare, has_set_time, scan};
use lapstrake_tree::skeleton::SkeletonTree;
use lapstrake_tree::unpack::WhiteoutStorage;
use lapstrake_tree::{Entry, Kind, Tree, TreePath, record_owners};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, statat};
use rustix::io::Errno;

use crate::error::SnapshotError;
use crate::mount::{clone_pair, mount, mount_copy};
use crate::replica_cache;
use crate::stacking::{Lower, copy, directories, note_marks, stacking};

/// Lower layers with what is done to them. Only this can be written to; [`Active::commit`] ends it.
pub struct Active {
    dir: TempDir,
    ground: Ground,
    mount: OwnedFd,
    /// The same once more, for a second program.
    spare: Option<OwnedFd>,
}

/// What is written to.
enum Ground {
    /// A fresh upper directory on these.
    Overlay { lowers: Vec<PathBuf> },
    /// A copy of all that the lower layers show.
    Copy { lowers: Vec<Lower>, replica: Replica },
}

impl Active {
    /// Makes a root that shows `lowers` (lowest first) and can be written to.
    ///
    /// # Errors
    /// [`SnapshotError::Mount`], [`SnapshotError::TooMany`], [`SnapshotError::Tree`] where a copy fails.
    pub fn new(store: &Store, lowers: &[Lower]) -> Result<Active, SnapshotError> {
        Active::on(store, store.temp_dir()?, lowers)
    }

    /// Puts a fresh upper directory on what little of lower layers there is in `skeleton`, which must be all that is going to
    /// be looked at. With `single_id` owners are attributes.
    pub fn sketched(
        store: &Store,
        sketch: SkeletonTree<'_>,
        single_id: bool,
    ) -> Result<Active, SnapshotError> {
        let dir = store.temp_dir()?;
        let lower = made(&dir, "sketch")?;
        sketch.make(open_host_dir(&lower)?.as_fd(), single_id)?;
        Active::on(store, dir, &[Lower::Host(lower)])
    }

    fn on(store: &Store, dir: TempDir, lowers: &[Lower]) -> Result<Active, SnapshotError> {
        if stacking(store)? == Stacking::Overlay {
            match Active::overlay(store, dir, lowers) {
                // Nothing was tried before, as the file system is one that takes overlays.
                Err(error) if is_refused(&error) => {
                    let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    store.set_stacking(copy(store, &format!("{error}: {why}"))?);
                    return Active::copied(store, store.temp_dir()?, lowers);
                }
                made => return made,
            }
        }
        Active::copied(store, dir, lowers)
    }

    fn overlay(store: &Store, dir: TempDir, lowers: &[Lower]) -> Result<Active, SnapshotError> {
        let lowers = directories(store, lowers)?;
        made(&dir, "layer")?;
        let (upper, work) = (made(&dir, "layer/fs")?, made(&dir, "work")?);
        let lowers = if lowers.is_empty() { vec![made(&dir, "empty")?] } else { lowers };
        let mount = mount(&lowers, Some((&upper, &work)))?;
        Ok(Active { dir, ground: Ground::Overlay { lowers }, mount, spare: None })
    }

    fn copied(store: &Store, dir: TempDir, lowers: &[Lower]) -> Result<Active, SnapshotError> {
        let (dir, replica) = match replica_cache::take(store, lowers) {
            Some(found) => found,
            None => {
                let root = made(&dir, "root")?;
                let replica = Replica::make(layer_files(store, lowers)?, open_host_dir(&root)?.as_fd())?;
                (dir, replica)
            }
        };
        let mount = mount_copy(&dir.join("root"))?;
        let ground = Ground::Copy { lowers: lowers.to_vec(), replica };
        Ok(Active { dir, ground, mount, spare: None })
    }

    /// The root as it is now.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Keeps what a second program can have as its root when a first one has used it up: before Linux 6.15 a mount like
    /// this is attached once only.
    ///
    /// # Errors
    /// [`SnapshotError::Mount`].
    pub fn keep_backup(&mut self) -> Result<(), SnapshotError> {
        if matches!(self.ground, Ground::Copy { .. }) {
            self.spare = Some(mount_copy(&self.dir.path().join("root"))?);
            return Ok(());
        }
        let mount = self
            .mount
            .try_clone()
            .map_err(|source| SnapshotError::Mount { step: "duplicating it", source })?;
        let (mount, spare) = clone_pair(mount, self.dir.path())?;
        (self.mount, self.spare) = (mount, Some(spare));
        Ok(())
    }

    /// From now on the root is what was kept.
    pub fn use_backup(&mut self) {
        if let Some(spare) = self.spare.take() {
            self.mount = spare;
        }
    }

    /// The root's halves, for a single big copy: after that the root itself is out of date. `None` if it has none.
    pub fn halves(&self) -> Result<Option<UpperAndLower>, SnapshotError> {
        let Ground::Overlay { lowers } = &self.ground else { return Ok(None) };
        let upper = open_host_dir(&self.dir.join("layer/fs"))?;
        Ok(Some(UpperAndLower { upper, below: mount(lowers, None)? }))
    }

    /// Makes a layer of everything that was changed. `copied` is what is known about that, and whom the disk cannot
    /// say that things belong to; with `single_id` everything else belongs to 0:0. All users of the root must be gone.
    pub fn commit(self, store: &Store, copied: Copied, single_id: bool) -> Result<LayerId, SnapshotError> {
        self.commit_on(store, copied, None, single_id)
    }

    /// As [`Active::commit`]; if `copied` says that only changes to the layer `base` were put, the new one lies on it.
    ///
    /// # Errors
    /// [`SnapshotError::NotADelta`] if `base` has something that is no change here: then all of it has to be put.
    pub fn commit_on(
        self,
        store: &Store,
        copied: Copied,
        base: Option<&LayerId>,
        single_id: bool,
    ) -> Result<LayerId, SnapshotError> {
        match self.ground {
            Ground::Copy { lowers, replica } => {
                drop((self.mount, self.spare));
                commit_copy(store, self.dir, (lowers, replica), &copied, single_id)
            }
            Ground::Overlay { ref lowers } => {
                let lowers = lowers.clone();
                self.commit_upper(store, copied, (&lowers, base), single_id)
            }
        }
    }

    /// The layer that an upper directory is.
    fn commit_upper(
        self,
        store: &Store,
        copied: Copied,
        (lowers, base): (&[PathBuf], Option<&LayerId>),
        single_id: bool,
    ) -> Result<LayerId, SnapshotError> {
        let upper = open_host_dir(&self.dir.join("layer/fs"))?;
        drop((self.mount, self.spare));
        let options = ScanOptions {
            mode: ScanMode::OverlayUpper,
            owners: Some(&copied.owners),
            owner_default: single_id.then_some((0, 0)),
            known: copied.known.as_ref().map(|known| &known.dir),
            known_content: copied.known_content.as_ref(),
            ..ScanOptions::default()
        };
        let mut tree = scan(upper.as_fd(), &options)?;
        if let Some(known) = copied.known {
            let scanned = tree.into_entries().into_iter();
            tree = Tree::from_entries(scanned.chain(known.entries).collect())?;
        }
        let base = base.zip(copied.delta);
        if !tree.is_empty() {
            let (kept, gone) = without_copies(tree, (&upper, &mount(lowers, None)?), single_id)?;
            if let Some((base, _)) = base.filter(|_| !gone.is_empty()) {
                let below = Tree::decode(&store.layer_tree(base)?)?;
                if gone.iter().any(|entry| below.get(&entry.path).is_some()) {
                    return Err(SnapshotError::NotADelta);
                }
            }
            // The same tree may come of other roots: what it does not tell of would be shown there.
            prune_extra(upper.as_fd(), &gone, &kept)?;
            tree = kept;
        }
        store_layer(store, &self.dir.join("layer"), &tree, base, single_id)
    }

    /// Whom links, pipes and the like belong to, by their inodes as the root shows them: no attribute can say it of them.
    pub fn owners(&self, by_inode: &BTreeMap<(u64, u64), (u32, u32)>) -> Result<Copied, SnapshotError> {
        let mut copied = Copied::default();
        let written = match self.ground {
            Ground::Overlay { .. } => "layer/fs",
            Ground::Copy { .. } => "root",
        };
        let upper = open_host_dir(&self.dir.join(written))?;
        let (upper, root) = (Root::new(&upper), Root::new(&self.mount));
        let mut left = if by_inode.is_empty() { Vec::new() } else { vec![TreePath::root()] };
        while let Some(path) = left.pop() {
            let open =
                |root: &Root<'_>| root.open_plain(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            let refused =
                |e: Errno| SnapshotError::Directory { path: path.as_path().to_owned(), source: e.into() };
            let (list, shown) = (Dir::read_from(open(&upper)?).map_err(refused)?, open(&root)?);
            for entry in list {
                let entry = entry.map_err(refused)?;
                let name = entry.file_name();
                match entry.file_type() {
                    FileType::Directory if !matches!(name.to_bytes(), b"." | b"..") => {
                        left.push(path.join_name(name.to_bytes()));
                    }
                    FileType::Directory | FileType::RegularFile => {}
                    _ => {
                        // A deletion is not shown.
                        let Ok(stat) = statat(&shown, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                        if let Some((uid, gid)) = by_inode.get(&(stat.st_dev, stat.st_ino)) {
                            let owner = Ownership { uid: *uid, gid: *gid, mode: None };
                            copied.owners.insert(path.join_name(name.to_bytes()), owner);
                        }
                    }
                }
            }
        }
        Ok(copied)
    }
}

/// The layer of what was changed in a copy. The copy is kept for the next step.
fn commit_copy(
    store: &Store,
    dir: TempDir,
    (mut lowers, replica): (Vec<Lower>, Replica),
    copied: &Copied,
    single_id: bool,
) -> Result<LayerId, SnapshotError> {
    let root = open_host_dir(&dir.join("root"))?;
    let options = ScanOptions {
        owners: Some(&copied.owners),
        owner_default: single_id.then_some((0, 0)),
        ..ScanOptions::default()
    };
    let changes = replica.changes(root.as_fd(), &options)?;
    if single_id {
        // What runs in it next sees the owners that the layer has.
        record_owners(root.as_fd(), &changes.tree, false)?;
    }
    let own = store.temp_dir()?;
    let layer = made(&own, "layer")?;
    let files = open_host_dir(&made(&own, "layer/fs")?)?;
    let again =
        root.try_clone().map_err(|source| SnapshotError::Directory { path: dir.join("root"), source })?;
    copy_changes(again, &changes.tree, files.as_fd())?;
    note_marks(&layer, &changes.tree, WhiteoutStorage::InTree)?;
    let id = store_layer(store, &layer, &changes.tree, None, single_id)?;
    // A skeleton is not all that there is.
    let is_whole = !matches!(lowers.as_slice(), [Lower::Host(path)] if path.starts_with(dir.path()));
    if is_whole && let Some(files) = store.layer_dirs(&id).pop() {
        let origin = open_host_dir(&files)?;
        if let Some(replica) = replica.go_on(root.as_fd(), &changes, origin)? {
            lowers.push(Lower::Layer(id.clone()));
            replica_cache::keep(store.root().to_owned(), lowers, (dir, replica));
        }
    }
    Ok(id)
}

/// Whether the kernel has no overlay for us at all.
fn is_refused(error: &SnapshotError) -> bool {
    const REFUSALS: [Errno; 5] = [Errno::PERM, Errno::ACCESS, Errno::NODEV, Errno::NOSYS, Errno::OPNOTSUPP];
    let SnapshotError::Mount { source, .. } = error else { return false };
    REFUSALS.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}

/// Layers as they are copied.
pub(crate) fn layer_files(store: &Store, lowers: &[Lower]) -> Result<Vec<LayerFiles>, SnapshotError> {
    let files = |lower: &Lower| {
        Ok(match lower {
            Lower::Host(path) => LayerFiles { tree: None, dirs: vec![open_host_dir(path)?] },
            Lower::Layer(id) => {
                let dirs = store.layer_dirs(id);
                let dirs = dirs.iter().rev().map(|dir| open_host_dir(dir)).collect::<Result<_, _>>()?;
                LayerFiles { tree: Some(Tree::decode(&store.layer_tree(id)?)?), dirs }
            }
        })
    };
    lowers.iter().map(files).collect()
}

/// A fresh directory in `dir`.
pub(crate) fn made(dir: &TempDir, name: &str) -> Result<PathBuf, SnapshotError> {
    let path = dir.join(name);
    // The umask of whoever builds is not the mode of the image's root.
    fs::create_dir(&path)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|source| SnapshotError::Directory { path: path.clone(), source })?;
    Ok(path)
}

/// The upper directory, and the layers below it mounted alone.
pub struct UpperAndLower {
    upper: OwnedFd,
    below: OwnedFd,
}

impl UpperAndLower {
    /// As a copy takes them.
    pub fn layers(&self) -> Layers<'_> {
        Layers { upper: self.upper.as_fd(), below: self.below.as_fd() }
    }
}

/// Takes `dir`, whose files (or the changes to those of `base`, of so many bytes) are in `fs/`, into the store as the layer
/// `tree`. With `single_id` owners become attributes.
pub(crate) fn store_layer(
    store: &Store,
    dir: &Path,
    tree: &Tree,
    base: Option<(&LayerId, u64)>,
    single_id: bool,
) -> Result<LayerId, SnapshotError> {
    if single_id {
        record_owners(open_host_dir(&dir.join("fs"))?.as_fd(), tree, base.is_some())?;
    }
    if let Some((base, _)) = base {
        Store::make_delta(dir, base)?;
    }
    let id: LayerId = tree.l_digest().to_string().parse()?;
    let content = tree.k_digest().0;
    let size = LayerSize { files: tree.content_size(), own: base.map(|(_, bytes)| bytes) };
    store.put_layer(&id, dir, |to| tree.write_to(to), content, size)?;
    Ok(id)
}

/// The tree without what overlayfs copied up and nobody changed, and without deletions of what is not there; and these, what
/// is in a directory before it.
fn without_copies(
    tree: Tree,
    (upper, lower): (&OwnedFd, &OwnedFd),
    single_id: bool,
) -> Result<(Tree, Vec<Entry>), SnapshotError> {
    let below = ScanOptions { owner_default: single_id.then_some((0, 0)), ..ScanOptions::default() };
    let linked: BTreeSet<TreePath> = tree
        .entries()
        .iter()
        .filter_map(|e| if let Kind::Hardlink { to } = &e.kind { Some(to.clone()) } else { None })
        .collect();
    let in_new = in_new_directories(&Root::new(lower), tree.entries());
    let mut kept: Vec<Entry> = Vec::with_capacity(tree.len());
    let mut gone = Vec::new();
    // Backwards, so that a directory comes after all that is in it.
    for (entry, in_new) in tree.into_entries().into_iter().zip(in_new).rev() {
        let has_child =
            kept.last().is_some_and(|next| next.path.starts_with(&entry.path) && next.path != entry.path);
        let changed = || match in_new {
            true => Ok(entry.kind != Kind::Whiteout),
            false => is_change((upper, lower), &entry, &below),
        };
        let keep = has_child || linked.contains(&entry.path) || changed()?;
        if keep {
            kept.push(entry);
        } else {
            gone.push(entry);
        }
    }
    Ok((Tree::from_entries(kept)?, gone))
}

/// For every entry in walk order, whether it lies in a directory that is not there below, or hides what is: then nothing
/// about it has to be looked up. Most of what a build adds is in such directories.
fn in_new_directories(root: &Root<'_>, entries: &[Entry]) -> Vec<bool> {
    let mut new: Option<&TreePath> = None;
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let inside = new.is_some_and(|dir| entry.path.starts_with(dir));
        if !inside && entry.is_dir() {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let hides = entry.kind == Kind::Dir { opaque: true };
            let is_new = hides || root.open_plain(&entry.path, flags, Mode::empty()).is_err();
            new = is_new.then_some(&entry.path);
        }
        found.push(inside);
    }
    found
}

fn is_change(
    (upper, lower): (&OwnedFd, &OwnedFd),
    entry: &Entry,
    below: &ScanOptions<'_>,
) -> Result<bool, SnapshotError> {
    let unchanged = if entry.kind == Kind::Whiteout { Found::Nothing } else { Found::Same };
    if compare(lower.as_fd(), entry, below)? != unchanged {
        return Ok(true);
    }
    Ok(entry.is_dir() && has_set_time(upper.as_fd(), lower.as_fd(), &entry.path)?)
}
