//! A directory with copies of all that layers show together, for where no overlay can be mounted.
//!
//! What shows is known from the layers' trees, so that deletions need no marks on the disk. Files are copied (as
//! reflinks where the file system has them) and never linked: programs write to them in place. What a program has changed
//! is found by stamps that it cannot set; [`crate::scan`] has the rules.

mod copy;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::inroot::{open_plain_raw, set_times_at};
use crate::path::TreePath;
use crate::relink::relink;
use crate::scan::changes::{Before, Known, Stamp, changed, changes, strip_marks};
use crate::scan::{ScanOptions, read_names};
use crate::tree::Tree;
use crate::unpack::Marks;
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
        let mut shown = Shown::new();
        for (number, layer) in layers.iter().enumerate() {
            show(&mut shown, number, layer)?;
        }
        let disk = Disk::new(dest, true);
        for (path, _) in shown.iter().filter(|(_, node)| node.is_dir) {
            disk.mkdir(path)?;
        }
        let copier = Copier::new(&layers, dest);
        let origins = copier.files(&by_directory(&shown))?;
        link_again(dest, &shown, &origins)?;
        let dirs: Vec<_> = shown.iter().rev().filter(|(_, node)| node.is_dir).collect();
        let mut dir_origins = HashMap::new();
        for (path, node) in dirs {
            dir_origins.insert(path.clone(), copier.directory(path, node)?);
        }
        let mut before =
            noted(dest, &shown, |path| origins.get(path).or_else(|| dir_origins.get(path)).copied())?;
        before.trusted = pass(dest, &before);
        before.origins = layers.into_iter().flat_map(|layer| layer.dirs).collect();
        Ok(Replica { before })
    }

    /// What has changed beneath `root`, the directory that was filled.
    ///
    /// # Errors
    /// As [`crate::scan::scan`].
    pub fn changes(&self, root: BorrowedFd<'_>, options: &ScanOptions<'_>) -> Result<Tree, TreeError> {
        changes(root, &self.before, options)
    }
}

/// Makes the layer `tree`, which [`Replica::changes`] has found beneath `root`, in the empty directory `to`. Its files are
/// those of `root`, which nobody may write to any more.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn take_changes(
    root: BorrowedFd<'_>,
    tree: &Tree,
    to: BorrowedFd<'_>,
    squash_ids: bool,
) -> Result<(), TreeError> {
    strip_marks(root, tree)?;
    relink(root, tree, to, (squash_ids, Marks::InTree))
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
