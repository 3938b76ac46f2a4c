//! Resolution of a path component by component, in user space.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{MAX_LINKS, open_child, read_link_fd};
use crate::path::TreePath;

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

/// The state of a resolution: the directories entered and what is still to do.
pub(super) struct Walk<'fd> {
    root: BorrowedFd<'fd>,
    /// Every directory from below the root down, so that `..` needs no second look-up.
    stack: Vec<(OwnedFd, Box<[u8]>)>,
    /// Components still to do, the next one last.
    todo: Vec<Box<[u8]>>,
    links: u32,
    /// What was still to do when the outermost link that is being followed was met.
    link_from: Option<usize>,
}

impl<'fd> Walk<'fd> {
    /// Resolves `path`; a missing tail is returned as names.
    pub(super) fn run(root: BorrowedFd<'fd>, path: &[u8], follow_last: bool) -> Result<Place, Errno> {
        if path.contains(&0) {
            return Err(Errno::INVAL);
        }
        let mut walk = Self { root, stack: Vec::new(), todo: Vec::new(), links: 0, link_from: None };
        walk.push(path);
        walk.go(follow_last)
    }

    fn push(&mut self, path: &[u8]) {
        let parts = path.rsplit(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".");
        self.todo.extend(parts.map(Box::from));
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root, |(fd, _)| fd.as_fd())
    }

    fn go(mut self, follow_last: bool) -> Result<Place, Errno> {
        let mut last = None;
        while let Some(name) = self.todo.pop() {
            if &*name == b".." {
                self.stack.pop();
                continue;
            }
            let fd = match open_child(self.here(), &name, OFlags::PATH) {
                Err(Errno::NOENT) => return self.missing(name),
                other => other?,
            };
            match FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) {
                FileType::Symlink if follow_last || !self.todo.is_empty() => {
                    self.links += 1;
                    if self.links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = read_link_fd(fd.as_fd())?;
                    if !self.is_in_link() {
                        self.link_from = Some(self.todo.len());
                    }
                    if target.starts_with(b"/") {
                        self.stack.clear();
                    }
                    self.push(&target);
                }
                FileType::Directory => self.stack.push((fd, name)),
                _ if self.todo.is_empty() => last = Some(name),
                _ => return Err(Errno::NOTDIR),
            }
        }
        let rest = match last {
            Some(name) => vec![name],
            // A directory is given by its parent and its name, as everything else is.
            None => self.stack.pop().map(|(_, name)| name).into_iter().collect(),
        };
        self.place(rest, false)
    }

    /// Whether the component that was taken last is from the text of a link.
    fn is_in_link(&self) -> bool {
        self.link_from.is_some_and(|from| self.todo.len() >= from)
    }

    fn missing(mut self, name: Box<[u8]>) -> Result<Place, Errno> {
        let by_link = self.is_in_link();
        let mut rest = vec![name];
        while let Some(name) = self.todo.pop() {
            match &*name {
                b".." if rest.pop().is_none() => drop(self.stack.pop()),
                b".." => {}
                _ => rest.push(name),
            }
        }
        if rest.is_empty() {
            rest.extend(self.stack.pop().map(|(_, name)| name));
        }
        self.place(rest, by_link)
    }

    fn place(mut self, rest: Vec<Box<[u8]>>, by_link: bool) -> Result<Place, Errno> {
        let dir_path = self.stack.iter().fold(TreePath::root(), |path, (_, name)| path.join_name(name));
        let dir = match self.stack.pop() {
            Some((fd, _)) => fd,
            None => open_child(self.root, b".", OFlags::PATH | OFlags::DIRECTORY)?,
        };
        Ok(Place { dir, dir_path, rest, by_link })
    }
}
