//! The digest of a selection: what a copy of it would bring, without times.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};

use crate::error::TreeError;
use crate::inroot::{Root, read_link_fd};
use crate::path::TreePath;
use crate::scan::hash::hash_file;
use crate::scan::read_names;

use super::select::{Filter, select};

/// The digest of what a copy of `sources` would bring. Owners count only `with_owner`: a local context has none.
///
/// # Errors
/// As [`select`], and [`TreeError::Io`] for what cannot be read.
pub fn content_key(
    root: &Root<'_>,
    sources: &[String],
    filter: &Filter<'_>,
    with_owner: bool,
) -> Result<[u8; 32], TreeError> {
    let mut all = blake3::Hasher::new();
    for picked in select(root, sources, filter)? {
        let mut walk = Walk { filter, with_owner, lines: BTreeMap::new() };
        let name = match picked.kind {
            FileType::Directory => TreePath::root(),
            // A renamed file is another file, though its content is the same.
            _ => TreePath::root().join_name(picked.path.name()),
        };
        match picked.kind {
            FileType::Directory => walk.directory(picked.fd.as_fd(), &picked.real, &name)?,
            _ => walk.entry(root.fd(), picked.real.as_bytes(), &picked.real, &name)?,
        }
        all.update(&[0]);
        all.update(picked.kept.as_bytes());
        for (path, line) in walk.lines {
            all.update(&(path.as_bytes().len() as u64).to_le_bytes());
            all.update(path.as_bytes());
            all.update(&line);
        }
    }
    Ok(*all.finalize().as_bytes())
}

struct Walk<'a> {
    filter: &'a Filter<'a>,
    with_owner: bool,
    lines: BTreeMap<TreePath, [u8; 32]>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: BorrowedFd<'_>, real: &TreePath, name: &TreePath) -> Result<(), TreeError> {
        let mut names = read_names(dir).map_err(TreeError::io("list", real))?;
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (child, kind) in names {
            let (real, name) = (real.join_name(&child), name.join_name(&child));
            let is_dir = kind == FileType::Directory;
            if self.filter.hides(&real, &name, is_dir) {
                continue;
            }
            if is_dir {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd =
                    openat(dir, &child[..], flags, Mode::empty()).map_err(TreeError::io("open", &real))?;
                let before = self.lines.len();
                self.directory(fd.as_fd(), &real, &name)?;
                if self.filter.only_passes(&real) && self.lines.len() == before {
                    continue;
                }
            }
            self.entry(dir, &child, &real, &name)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        child: &[u8],
        real: &TreePath,
        name: &TreePath,
    ) -> Result<(), TreeError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(dir, child, flags, Mode::empty()).map_err(TreeError::io("open", real))?;
        let stat = rustix::fs::fstat(&place).map_err(TreeError::io("look at", real))?;
        let mut hash = blake3::Hasher::new();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = if kind == FileType::Symlink { 0o777 } else { stat.st_mode & 0o7777 };
        for number in [u64::from(stat.st_mode & 0o170_000), u64::from(mode), stat.st_rdev] {
            hash.update(&number.to_le_bytes());
        }
        if self.with_owner {
            hash.update(&stat.st_uid.to_le_bytes());
            hash.update(&stat.st_gid.to_le_bytes());
        }
        match kind {
            FileType::Symlink => {
                hash.update(&read_link_fd(place.as_fd()).map_err(TreeError::io("read", real))?);
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(dir, child, flags, Mode::empty()).map_err(TreeError::io("open", real))?;
                let expected = u64::try_from(stat.st_size).unwrap_or(0);
                let (size, content) = hash_file(&file, expected).map_err(TreeError::io("read", real))?;
                hash.update(&size.to_le_bytes());
                hash.update(&content.0);
            }
            _ => {}
        }
        self.lines.insert(name.clone(), *hash.finalize().as_bytes());
        Ok(())
    }
}
