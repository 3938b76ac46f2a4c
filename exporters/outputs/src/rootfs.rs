//! A result's root as a tar: all layers as one tree.

use std::collections::{BTreeMap, btree_map};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use lapstrake_tree::copy::{CopyOptions, Dest, copy};
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::layer_tar::{TarOptions, write_layer};
use lapstrake_tree::removal::remove_all;
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::Selector;
use lapstrake_tree::{Entry, Kind, Meta, Tree, TreeError, TreePath};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, futimens};

use crate::error::OutputError;

/// A mounted root that leaves as files.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The platform that it is for.
    pub platform: String,
    /// The root.
    pub root: BorrowedFd<'a>,
    /// The time of everything in it, in seconds, older or not.
    pub epoch: Option<i64>,
}

impl Part<'_> {
    /// The directory that the root is in where platforms are kept apart.
    fn dir(&self) -> String {
        self.platform.replace('/', "_")
    }

    fn scanned(&self) -> Result<Tree, OutputError> {
        timed(scan(self.root, &ScanOptions::default())?, self.epoch)
    }
}

/// How the roots of several platforms lie beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In directories, which have the platforms' names.
    Split,
    /// In each other.
    Merged,
}

/// Writes everything in mounted roots as a tar.
///
/// # Errors
/// [`OutputError::Overwrite`] if two roots that are merged have the same file, and what cannot be read or written.
pub fn write_rootfs(parts: &[Part<'_>], shape: Shape, out: impl Write) -> Result<(), OutputError> {
    let mut trees = parts.iter().map(Part::scanned).collect::<Result<Vec<_>, _>>()?;
    let prefix = |part: &Part<'_>| TreePath::clean(part.dir().as_bytes()).map_err(TreeError::from);
    let prefixes = match shape {
        Shape::Split => parts.iter().map(prefix).collect::<Result<Vec<_>, _>>()?,
        Shape::Merged => vec![TreePath::root(); parts.len()],
    };
    if shape == Shape::Merged {
        refuse_doubles(parts, &trees)?;
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut from: BTreeMap<TreePath, usize> = BTreeMap::new();
    for (number, tree) in trees.drain(..).enumerate() {
        let tree = match shape {
            Shape::Split => below(tree, &prefixes[number], parts[number].epoch.unwrap_or(0))?,
            Shape::Merged => tree,
        };
        for entry in tree.into_entries() {
            if parts.len() == 1 {
                entries.push(entry);
            } else if let btree_map::Entry::Vacant(place) = from.entry(entry.path.clone()) {
                place.insert(number);
                entries.push(entry);
            }
        }
    }
    let tree = Tree::from_entries(entries)?;
    let roots: Vec<Root<'_>> = parts.iter().map(|part| Root::from_fd(part.root)).collect();
    let open = |path: &TreePath| -> io::Result<File> {
        let number = from.get(path).copied().unwrap_or(0);
        let path = path.relative_to(&prefixes[number]).unwrap_or_default();
        roots[number]
            .open_plain(&path, OFlags::RDONLY, Mode::empty())
            .map(File::from)
            .map_err(io::Error::other)
    };
    let latest = parts.iter().map(|part| part.epoch).max().flatten();
    let options = TarOptions { clamp_mtime: latest.map(nanoseconds), ..TarOptions::default() };
    write_layer(&tree, || &open, out, &options)?;
    Ok(())
}

/// Of roots that are put into each other no two may have the same path, unless it is a directory in both.
fn refuse_doubles(parts: &[Part<'_>], trees: &[Tree]) -> Result<(), OutputError> {
    if parts.len() < 2 {
        return Ok(());
    }
    let mut seen: BTreeMap<&TreePath, (&str, bool)> = BTreeMap::new();
    for (part, tree) in parts.iter().zip(trees) {
        for entry in tree.entries() {
            let is_dir = matches!(entry.kind, Kind::Dir { .. });
            if let Some((first, was_dir)) = seen.insert(&entry.path, (&part.platform, is_dir))
                && !(is_dir && was_dir)
            {
                let path = entry.path.as_path().strip_prefix("/").unwrap_or(entry.path.as_path()).to_owned();
                return Err(OutputError::Overwrite {
                    path,
                    first: first.to_owned(),
                    second: part.platform.clone(),
                });
            }
        }
    }
    Ok(())
}

fn nanoseconds(seconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000)
}

/// The same tree, of one time.
fn timed(tree: Tree, epoch: Option<i64>) -> Result<Tree, OutputError> {
    let Some(mtime) = epoch.map(nanoseconds) else { return Ok(tree) };
    let mut entries = tree.into_entries();
    entries.iter_mut().for_each(|entry| entry.meta.mtime = mtime);
    Ok(Tree::from_entries(entries)?)
}

/// The same tree in the directory `prefix`.
fn below(tree: Tree, prefix: &TreePath, seconds: i64) -> Result<Tree, OutputError> {
    let meta = Meta { mode: 0o755, mtime: nanoseconds(seconds), ..Meta::default() };
    let mut entries = vec![Entry { path: prefix.clone(), kind: Kind::Dir { opaque: false }, meta }];
    for mut entry in tree.into_entries().into_iter().filter(|entry| !entry.path.is_root()) {
        entry.path = prefix.join(&entry.path);
        if let Kind::Hardlink { to } = &mut entry.kind {
            *to = prefix.join(to);
        }
        entries.push(entry);
    }
    Ok(Tree::from_entries(entries)?)
}

/// Puts everything in mounted roots into the directory `dest`, as the files of whoever runs this. With `delete`, what else
/// is there goes.
///
/// # Errors
/// As [`write_rootfs`].
pub fn write_files(parts: &[Part<'_>], shape: Shape, dest: &Path, delete: bool) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { what: "directory", source };
    let trees = parts.iter().map(Part::scanned).collect::<Result<Vec<_>, _>>()?;
    let dirs: Vec<PathBuf> = match shape {
        Shape::Split => parts.iter().map(|part| dest.join(part.dir())).collect(),
        Shape::Merged => {
            refuse_doubles(parts, &trees)?;
            vec![dest.to_owned(); parts.len()]
        }
    };
    let new = match shape {
        Shape::Split => {
            dirs.iter().map(|dir| own_dir(dir)).collect::<io::Result<Vec<_>>>().map_err(failed)?
        }
        Shape::Merged => vec![false; parts.len()],
    };
    if delete {
        match shape {
            Shape::Split => {
                remove_but(dest, &dirs).map_err(failed)?;
                for (tree, dir) in trees.iter().zip(&dirs) {
                    remove_others(&[tree], dir)?;
                }
            }
            Shape::Merged => remove_others(&trees.iter().collect::<Vec<_>>(), dest)?,
        }
    }
    for (number, (part, dir)) in parts.iter().zip(&dirs).enumerate() {
        let target = open_host_dir(dir)?;
        let selection = trees[number].select(&Selector::new("/"))?;
        let options = CopyOptions { single_id: true, ..CopyOptions::default() };
        copy(part.root, &selection, Dest::plain(target.as_fd()), b"/", &options)?;
        // A platform's directory is a part of what is exported, unless it was there.
        if let Some(tv_sec) = part.epoch.filter(|_| new[number]) {
            let time = Timespec { tv_sec, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            futimens(&target, &times).map_err(|errno| failed(errno.into()))?;
        }
    }
    Ok(())
}

/// Makes a platform's directory; says whether it is new. What an earlier export left in its place, perhaps a link out of
/// there, gives way: nothing is written or removed through it.
fn own_dir(dir: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(false),
        Ok(_) => fs::remove_file(dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir(dir).map(|()| true)
}

/// Removes what is in `dest` and none of `dirs`.
fn remove_but(dest: &Path, dirs: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(dest)? {
        let entry = entry?;
        if dirs.contains(&entry.path()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes what none of the trees has, and what is of another kind there. Descends only into what is a directory in a
/// tree and is none that a link leads to on the disk.
fn remove_others(trees: &[&Tree], dest: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { what: "directory", source };
    let mut dirs = vec![TreePath::root()];
    while let Some(dir) = dirs.pop() {
        let here = dest.join(dir.as_path().strip_prefix("/").unwrap_or(dir.as_path()));
        for entry in fs::read_dir(&here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = dir.join_name(entry.file_name().as_encoded_bytes());
            let is_dir = entry.file_type().map_err(failed)?.is_dir();
            let wanted = trees
                .iter()
                .find_map(|tree| tree.get(&path))
                .map(|wanted| matches!(wanted.kind, Kind::Dir { .. }));
            match (wanted, is_dir) {
                (Some(true), true) => dirs.push(path),
                (Some(false), false) => {}
                (_, true) => remove_all(&entry.path()).map_err(failed)?,
                (_, false) => fs::remove_file(entry.path()).map_err(failed)?,
            }
        }
    }
    Ok(())
}
