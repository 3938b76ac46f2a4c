//! A result's root as a tar: all layers as one tree.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::layer_tar::{TarOptions, write_layer};
use lapstrake_tree::put::{CopyOptions, Dest, put};
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::Selector;
use lapstrake_tree::{Entry, Kind, Meta, Tree, TreePath};
use rustix::fs::{Mode, OFlags};

use crate::error::OutputError;

/// Writes everything in the mounted root as a tar; below the directory `prefix`, where given. With an epoch, in seconds,
/// that is the time of everything, older or not.
pub fn write_rootfs(
    root: BorrowedFd<'_>,
    epoch: Option<i64>,
    prefix: Option<&str>,
    out: impl Write,
) -> Result<(), OutputError> {
    let mut tree = timed(scan(root, &ScanOptions::default())?, epoch)?;
    let prefix = prefix.map(|prefix| TreePath::clean(prefix.as_bytes())).transpose()?.unwrap_or_default();
    if !prefix.is_root() {
        tree = below(tree, &prefix, epoch.unwrap_or(0))?;
    }
    let inside = Root::from_fd(root.as_fd());
    let open = |path: &TreePath| -> io::Result<File> {
        let path = path.relative_to(&prefix).unwrap_or_default();
        inside.open_plain(&path, OFlags::RDONLY, Mode::empty()).map(File::from).map_err(io::Error::other)
    };
    let options = TarOptions { clamp_mtime: epoch.map(nanoseconds), ..TarOptions::default() };
    write_layer(&tree, open, out, &options)?;
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

/// How files are put into a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// What else is in the directory goes.
    pub delete: bool,
    /// The time of everything that is put there, in seconds.
    pub epoch: Option<i64>,
}

/// Puts everything in the mounted root into the directory `dest`, as the files of whoever runs this.
pub fn write_files(root: BorrowedFd<'_>, dest: &Path, how: Files) -> Result<(), OutputError> {
    let target = open_host_dir(dest)?;
    let tree = timed(scan(root, &ScanOptions::default())?, how.epoch)?;
    if how.delete {
        remove_others(&tree, dest)?;
    }
    let selection = tree.select(&Selector::new("/"))?;
    let options = CopyOptions { squash_ids: true, ..CopyOptions::default() };
    put(root, &selection, Dest::plain(target.as_fd()), b"/", &options)?;
    Ok(())
}

/// Removes what the tree does not have, and what is of another kind there. Descends only into what is a directory in the
/// tree and is none that a link leads to on the disk.
fn remove_others(tree: &Tree, dest: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { what: "directory", source };
    let mut dirs = vec![TreePath::root()];
    while let Some(dir) = dirs.pop() {
        let here = dest.join(dir.as_path().strip_prefix("/").unwrap_or(dir.as_path()));
        for entry in fs::read_dir(&here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = dir.join_name(entry.file_name().as_encoded_bytes());
            let is_dir = entry.file_type().map_err(failed)?.is_dir();
            let wanted = tree.get(&path).map(|wanted| matches!(wanted.kind, Kind::Dir { .. }));
            match (wanted, is_dir) {
                (Some(true), true) => dirs.push(path),
                (Some(false), false) => {}
                (_, true) => fs::remove_dir_all(entry.path()).map_err(failed)?,
                (_, false) => fs::remove_file(entry.path()).map_err(failed)?,
            }
        }
    }
    Ok(())
}
