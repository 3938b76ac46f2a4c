//! Resolution of a path component by component, in user space.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{open_child, read_link_fd};
use crate::path::TreePath;
use crate::resolve::{End, Found, Links, Lookup, Names, resolve};

/// Where a path leads inside a root.
#[derive(Debug)]
pub struct Place {
    /// The deepest existing directory on the way (`O_PATH`); the parent when the path itself exists.
    pub dir: OwnedFd,
    /// The real path of `dir`, all links resolved.
    pub dir_path: TreePath,
    /// The names below `dir`: one that may exist, or several that do not; none when the path is the root.
    pub rest: Vec<Box<[u8]>>,
    /// Whether the first missing name is one that a symbolic link gave: the link leads to nothing.
    pub by_link: bool,
}

impl Place {
    /// The whole path, all links resolved.
    #[must_use]
    pub fn path(&self) -> TreePath {
        self.rest.iter().fold(self.dir_path.clone(), |path, name| path.join_name(name))
    }

    /// Opens it; the last component is not followed any more.
    pub(super) fn open(&self, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        match self.rest.as_slice() {
            [] => fs::openat(&self.dir, c".", flags, mode),
            [name] => fs::openat(&self.dir, &**name, flags, mode),
            _ => Err(Errno::NOENT),
        }
    }
}

/// A resolution on a disk: the directories that were entered.
pub(super) struct Walk<'fd> {
    root: BorrowedFd<'fd>,
    /// Every directory from below the root down, so that `..` needs no second look-up.
    stack: Vec<(OwnedFd, Box<[u8]>)>,
    /// The last link.
    link: Option<OwnedFd>,
}

impl<'fd> Walk<'fd> {
    /// Resolves `path`; a missing tail is returned as names.
    pub(super) fn run(root: BorrowedFd<'fd>, path: &[u8], follow_last: bool) -> Result<Place, Errno> {
        if path.contains(&0) {
            return Err(Errno::INVAL);
        }
        let mut walk = Self { root, stack: Vec::new(), link: None };
        match resolve(&mut walk, path, Links::and_last(follow_last))? {
            // A directory is given by its parent and its name, as everything else is.
            End::Directory => walk.place(Vec::new(), false),
            End::Other(name) => walk.place(vec![name], false),
            End::NotADirectory => Err(Errno::NOTDIR),
            End::Missing { names, by_link } => walk.place(names, by_link),
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root, |(fd, _)| fd.as_fd())
    }

    fn place(mut self, mut rest: Vec<Box<[u8]>>, by_link: bool) -> Result<Place, Errno> {
        if rest.is_empty() {
            rest.extend(self.stack.pop().map(|(_, name)| name));
        }
        let dir_path = self.stack.iter().fold(TreePath::root(), |path, (_, name)| path.join_name(name));
        let dir = match self.stack.pop() {
            Some((fd, _)) => fd,
            None => open_child(self.root, b".", OFlags::PATH | OFlags::DIRECTORY)?,
        };
        Ok(Place { dir, dir_path, rest, by_link })
    }
}

impl Lookup for Walk<'_> {
    type Error = Errno;

    fn enter(&mut self, names: &Names<'_>) -> Result<Found, Errno> {
        let name = names.first();
        let taken = name.len();
        let fd = match open_child(self.here(), name, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(Found::Missing),
            other => other?,
        };
        Ok(match FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) {
            FileType::Symlink => {
                self.link = Some(fd);
                Found::Link { taken }
            }
            FileType::Directory => {
                self.stack.push((fd, name.into()));
                Found::Directory { taken }
            }
            _ => Found::Other { taken },
        })
    }

    fn read_link(&mut self) -> Result<Box<[u8]>, Errno> {
        let link = self.link.take().ok_or(Errno::INVAL)?;
        Ok(read_link_fd(link.as_fd())?.into())
    }

    fn up(&mut self) {
        self.stack.pop();
    }

    fn back_to_root(&mut self) {
        self.stack.clear();
    }

    fn too_many_links(&self) -> Errno {
        Errno::LOOP
    }
}
