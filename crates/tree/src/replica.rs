//! A directory with copies of all that layers show together, for where no overlay can be mounted.
//!
//! The layers' trees tell which files the directory shows, so deletions need no marks on the disk. Files are copied, as
//! reflinks where the file system has them. Files are never linked, because programs write to them in place. Stamps that no
//! program can set tell which files were changed; [`crate::scan`] has the rules.

mod copy;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::inroot::{open_plain_raw, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::scan::changed;
pub use crate::scan::changes::Changes;
use crate::scan::changes::{Before, Known, Stamp, changes};
use crate::scan::{ScanOptions, mtime, read_names};
use crate::tree::Tree;
use crate::unpack::disk::Disk;
use copy::Copier;

/// A layer to be copied.
#[derive(Debug)]
pub struct LayerFiles {
    /// What is in it; `None` for a directory of the host, all of which shows.
    pub tree: Option<Tree>,
    /// The directories that have its files, the topmost first.
    pub dirs: Vec<OwnedFd>,
}

/// Something that shows.
#[derive(Debug)]
struct Node {
    /// In which layer.
    layer: usize,
    is_dir: bool,
    /// Which file of that layer it is a name of.
    file: Option<TreePath>,
}

/// What layers show together, sorted.
type Shown = BTreeMap<TreePath, Node>;

/// A directory that was filled, and what was put there.
#[derive(Debug)]
pub struct Replica {
    before: Before,
}

impl Replica {
    /// Copies what `layers` (lowest first) show to the empty directory `dest`.
    ///
    /// # Errors
    /// [`TreeError::Io`] naming the path.
    pub fn make(layers: Vec<LayerFiles>, dest: BorrowedFd<'_>) -> Result<Replica, TreeError> {
        let (shown, origins) = fill(&layers, dest)?;
        let mut before = noted(dest, &shown, |path| origins.get(path).copied())?;
        before.trusted = pass(dest, &before);
        before.origins = layers.into_iter().flat_map(|layer| layer.dirs).collect();
        Ok(Replica { before })
    }

    /// What has changed beneath `root`, the directory that was filled.
    ///
    /// # Errors
    /// As [`crate::scan::scan`].
    pub fn changes(&self, root: BorrowedFd<'_>, options: &ScanOptions<'_>) -> Result<Changes, TreeError> {
        changes(root, &self.before, options)
    }

    /// Goes on from `root` as it is now, with `changes` in a layer whose files are in `layer`. `None` if `root` is not all that
    /// layers say.
    ///
    /// # Errors
    /// [`TreeError::Io`] naming the path.
    pub fn go_on(
        mut self,
        root: BorrowedFd<'_>,
        changes: &Changes,
        layer: OwnedFd,
    ) -> Result<Option<Replica>, TreeError> {
        if changes.has_more {
            return Ok(None);
        }
        let before = &mut self.before;
        for (path, origin) in &changes.alike {
            let Some(origin) = before.origins.get(*origin) else { return Ok(None) };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let open = |dir: BorrowedFd<'_>| {
                open_plain_raw(dir, path, flags, Mode::empty()).map_err(TreeError::io("open", path))
            };
            let stat = fs::fstat(open(origin.as_fd())?).map_err(TreeError::io("stat", path))?;
            set_times_fd(open(root)?.as_fd(), mtime(&stat)).map_err(TreeError::io("set times of", path))?;
        }
        let number = before.origins.len();
        before.origins.push(layer);
        for entry in changes.tree.entries() {
            before.note(root, entry, number)?;
        }
        before.trusted &= pass(root, before);
        Ok(Some(self))
    }
}

/// Copies the layer `tree`, which [`Replica::changes`] has found beneath `root`, to the empty directory `to`, so that `root`
/// can be written to again.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn copy_changes(root: OwnedFd, tree: &Tree, to: BorrowedFd<'_>) -> Result<(), TreeError> {
    fill(&[LayerFiles { tree: Some(tree.clone()), dirs: vec![root] }], to).map(drop)
}

/// Copies what layers show, and says which of their directories had what.
fn fill(layers: &[LayerFiles], dest: BorrowedFd<'_>) -> Result<(Shown, HashMap<TreePath, usize>), TreeError> {
    let mut shown = Shown::new();
    for (number, layer) in layers.iter().enumerate() {
        show(&mut shown, number, layer)?;
    }
    let disk = Disk::new(dest, true);
    for (path, _) in shown.iter().filter(|(_, node)| node.is_dir) {
        disk.mkdir(path)?;
    }
    let copier = Copier::new(layers, dest);
    let mut origins = copier.files(&by_directory(&shown))?;
    link_again(dest, &shown, &origins)?;
    for (path, node) in shown.iter().rev().filter(|(_, node)| node.is_dir) {
        origins.insert(path.clone(), copier.directory(path, node)?);
    }
    Ok((shown, origins))
}

/// Adds a layer to what shows.
fn show(shown: &mut Shown, number: usize, layer: &LayerFiles) -> Result<(), TreeError> {
    match &layer.tree {
        Some(tree) => tree.entries().iter().for_each(|entry| show_entry(shown, number, entry)),
        None => {
            for dir in layer.dirs.iter().rev() {
                for (path, is_dir) in list(dir.as_fd())? {
                    put(shown, path, Node { layer: number, is_dir, file: None });
                }
            }
        }
    }
    Ok(())
}

fn show_entry(shown: &mut Shown, layer: usize, entry: &Entry) {
    let path = entry.path.clone();
    match &entry.kind {
        Kind::Whiteout => hide(shown, &path),
        Kind::Dir { opaque } => {
            if *opaque {
                hide(shown, &path);
            }
            if !path.is_root() {
                put(shown, path, Node { layer, is_dir: true, file: None });
            }
        }
        Kind::Hardlink { to } => {
            let file = Some(to.clone());
            put(shown, path, Node { layer, is_dir: false, file });
        }
        Kind::File { .. } => {
            let file = Some(path.clone());
            put(shown, path, Node { layer, is_dir: false, file });
        }
        _ => put(shown, path, Node { layer, is_dir: false, file: None }),
    }
}

fn put(shown: &mut Shown, path: TreePath, node: Node) {
    if shown.get(&path).is_some_and(|there| there.is_dir != node.is_dir) {
        hide(shown, &path);
    }
    shown.insert(path, node);
}

/// Takes away `path` and everything below it.
fn hide(shown: &mut Shown, path: &TreePath) {
    let range = shown.range(path.clone()..).map(|(at, _)| at);
    let below: Vec<TreePath> = range.take_while(|at| at.starts_with(path)).cloned().collect();
    for path in below {
        shown.remove(&path);
    }
}

/// Everything in a directory of the host, but for sockets, and whether it is a directory.
fn list(root: BorrowedFd<'_>) -> Result<Vec<(TreePath, bool)>, TreeError> {
    let mut left = vec![TreePath::root()];
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        let dir = open_plain_raw(root, &path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", &path))?;
        for (name, kind) in read_names(dir.as_fd()).map_err(TreeError::io("list", &path))? {
            let at = path.join_name(&name);
            let kind = match kind {
                FileType::Unknown => {
                    let stat = fs::statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW);
                    FileType::from_raw_mode(stat.map_err(TreeError::io("stat", &at))?.st_mode)
                }
                kind => kind,
            };
            if kind == FileType::Directory {
                left.push(at.clone());
            }
            if kind != FileType::Socket {
                found.push((at, kind == FileType::Directory));
            }
        }
    }
    Ok(found)
}

/// What is to be copied, directory by directory: of the names of one file the first.
fn by_directory(shown: &Shown) -> Vec<(TreePath, Vec<(&TreePath, &Node)>)> {
    let first = first_names(shown);
    let mut found: BTreeMap<TreePath, Vec<(&TreePath, &Node)>> = BTreeMap::new();
    for (path, node) in shown.iter().filter(|(_, node)| !node.is_dir) {
        if node.file.as_ref().is_none_or(|file| first.get(&(node.layer, file)) == Some(&path)) {
            found.entry(path.parent().unwrap_or_default()).or_default().push((path, node));
        }
    }
    found.into_iter().collect()
}

fn first_names(shown: &Shown) -> HashMap<(usize, &TreePath), &TreePath> {
    let mut first = HashMap::new();
    for (path, node) in shown {
        if let Some(file) = &node.file {
            first.entry((node.layer, file)).or_insert(path);
        }
    }
    first
}

/// Gives files their other names.
fn link_again(
    dest: BorrowedFd<'_>,
    shown: &Shown,
    copied: &HashMap<TreePath, usize>,
) -> Result<(), TreeError> {
    let first = first_names(shown);
    let disk = Disk::new(dest, true);
    for (path, node) in shown {
        let Some(file) = &node.file else { continue };
        match first.get(&(node.layer, file)) {
            Some(first) if *first != path && copied.contains_key(*first) => disk.link(first, path)?,
            _ => {}
        }
    }
    Ok(())
}

/// The stamps of all that was copied.
fn noted(
    dest: BorrowedFd<'_>,
    shown: &Shown,
    origin: impl Fn(&TreePath) -> Option<usize> + Sync,
) -> Result<Before, TreeError> {
    let first = first_names(shown);
    let mut names: BTreeMap<TreePath, Vec<(&TreePath, &Node)>> = BTreeMap::new();
    names.insert(TreePath::root(), Vec::new());
    for (path, node) in shown {
        names.entry(path.parent().unwrap_or_default()).or_default().push((path, node));
    }
    let names: Vec<_> = names.into_iter().collect();
    let note = |(dir, paths): &(TreePath, Vec<(&TreePath, &Node)>)| {
        let fd = open_plain_raw(dest, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", dir))?;
        let mut known = BTreeMap::new();
        for (path, node) in paths {
            let copied = node.file.as_ref().and_then(|file| first.get(&(node.layer, file)).copied());
            // A device that could not be made is nowhere.
            let Some(origin) = origin(copied.unwrap_or(path)) else { continue };
            let (stamp, _) = Stamp::of(fd.as_fd(), path.name()).map_err(TreeError::io("stat", path))?;
            known.insert(path.name().into(), Known { is_dir: node.is_dir, stamp, origin });
        }
        Ok((dir.clone(), known))
    };
    let dirs: Result<HashMap<_, _>, TreeError> = names.par_iter().map(note).collect();
    Ok(Before { dirs: dirs?, ..Before::default() })
}

/// Waits until the file system's clock has passed all stamps, so that later changes have others. False if it does not pass.
fn pass(dest: BorrowedFd<'_>, before: &Before) -> bool {
    const TRIES: u32 = 60;
    let stamps = before.dirs.values().flat_map(BTreeMap::values);
    let Some(newest) = stamps.map(|known| known.stamp.changed()).max() else { return true };
    for _ in 0..TRIES {
        // The root is in no layer, and what its times are is nobody's business.
        let now = set_now(dest).and_then(|()| fs::fstat(dest));
        match now {
            Ok(stat) if changed(&stat) > newest => return true,
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
    false
}

fn set_now(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    set_times_at(dir, b".", i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
