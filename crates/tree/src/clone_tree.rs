//! A tree out of another one's files: directories are made anew, everything else is linked.
//!
//! For trees that nobody writes to any more, such as committed layers.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::entry::Kind;
use crate::error::TreeError;
use crate::inroot::{open_plain_raw, set_times_fd};
use crate::path::TreePath;
use crate::tree::Tree;
use crate::unpack::WhiteoutStorage;
use crate::unpack::disk::Disk;

/// Makes `tree` in the empty directory `to`: directories as the tree says, what is no directory as links to what has
/// the same path in `from`. Deletions are made anew, as `marks` says. With `single_id` owners are in the tree only.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn clone_tree(
    from: BorrowedFd<'_>,
    tree: &Tree,
    to: BorrowedFd<'_>,
    (single_id, marks): (bool, WhiteoutStorage),
) -> Result<(), TreeError> {
    let disk = Disk::new(to, single_id).with_marks(marks);
    let mut last: Option<(TreePath, OwnedFd)> = None;
    for entry in tree.entries().iter().filter(|entry| !entry.path.is_root()) {
        if entry.is_dir() {
            disk.mkdir(&entry.path)?;
            continue;
        }
        if entry.kind == Kind::Whiteout {
            disk.whiteout(&entry.path)?;
            continue;
        }
        let dir = entry.path.parent().unwrap_or_default();
        if last.as_ref().is_none_or(|(last, _)| *last != dir) {
            let fd = open_plain_raw(from, &dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                .map_err(TreeError::io("open", &dir))?;
            last = Some((dir, fd));
        }
        let Some((_, dir)) = &last else { continue };
        match disk.link_from(dir.as_fd(), &entry.path) {
            // A device that could not be made is in the tree only.
            Err(error) if is_device(&entry.kind) && error.errno() == Some(Errno::NOENT) => {}
            other => other?,
        }
    }
    for entry in tree.entries().iter().rev() {
        if let Kind::Dir { opaque } = entry.kind {
            disk.finish_dir(&entry.path, &entry.meta, opaque)?;
        }
    }
    Ok(())
}

/// Marks on the disk what `tree`, whose files are beneath `root`, deletes and hides. What is marked already stays so.
///
/// # Errors
/// [`TreeError::Io`] naming the path.
pub fn make_marks(root: BorrowedFd<'_>, tree: &Tree) -> Result<(), TreeError> {
    let disk = Disk::new(root, true);
    let mut touched: BTreeSet<TreePath> = BTreeSet::new();
    for entry in tree.entries() {
        match entry.kind {
            Kind::Whiteout => {
                match disk.whiteout(&entry.path) {
                    Err(error) if error.errno() == Some(Errno::EXIST) => {}
                    other => other?,
                }
                touched.insert(entry.path.parent().unwrap_or_default());
            }
            Kind::Dir { opaque: true } => disk.hide_lower(&entry.path)?,
            _ => {}
        }
    }
    for path in touched.iter().filter(|path| !path.is_root()) {
        let Some(entry) = tree.get(path) else { continue };
        let dir = open_plain_raw(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", path))?;
        set_times_fd(dir.as_fd(), entry.meta.mtime).map_err(TreeError::io("set times of", path))?;
    }
    Ok(())
}

fn is_device(kind: &Kind) -> bool {
    matches!(kind, Kind::CharDev { .. } | Kind::BlockDev { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inroot::open_host_dir;
    use crate::scan::{ScanMode, ScanOptions, scan};

    #[test]
    fn the_same_tree_with_the_same_files() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("from/d/e")).unwrap();
        std::fs::write(at("from/d/f"), "f").unwrap();
        std::fs::hard_link(at("from/d/f"), at("from/d/e/g")).unwrap();
        std::os::unix::fs::symlink("f", at("from/d/l")).unwrap();
        std::fs::create_dir(at("to")).unwrap();
        let (from, to) = (open_host_dir(&at("from")).unwrap(), open_host_dir(&at("to")).unwrap());
        let options = ScanOptions { mode: ScanMode::OverlayUpper, ..ScanOptions::default() };
        let mut entries = scan(from.as_fd(), &options).unwrap().into_entries();
        entries[0].kind = Kind::Dir { opaque: true };
        entries[0].meta.mode = 0o1777;
        let tree = Tree::from_entries(entries).unwrap();
        clone_tree(
            from.as_fd(),
            &tree,
            to.as_fd(),
            (!rustix::process::geteuid().is_root(), WhiteoutStorage::OnDisk),
        )
        .unwrap();
        assert_eq!(scan(to.as_fd(), &options).unwrap(), tree);
        let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(at(name)).unwrap());
        assert_eq!(inode("from/d/f"), inode("to/d/e/g"));
    }
}
