//! Copying what is there: kind, content and all metadata that the disk has.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::{LayerFiles, Node};
use crate::error::TreeError;
use crate::inroot::{open_plain_raw, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::scan::changes::copy_attributes;
use crate::scan::mtime;

/// Below this the extra call for a reflink costs more than copying.
const SMALL: u64 = 64 << 10;
/// The most bytes that are copied by one call.
const PIECE: usize = 1 << 30;

/// Copies from layers to one directory.
pub(super) struct Copier<'a> {
    layers: &'a [LayerFiles],
    /// The number of each layer's first directory.
    numbers: Vec<usize>,
    dest: BorrowedFd<'a>,
    /// Reflinks seem to work.
    reflinks: AtomicBool,
    /// The kernel's own copying seems to work.
    by_kernel: AtomicBool,
}

impl<'a> Copier<'a> {
    pub(super) fn new(layers: &'a [LayerFiles], dest: BorrowedFd<'a>) -> Self {
        let mut next = 0;
        let number = |layer: &LayerFiles| {
            next += layer.dirs.len();
            next - layer.dirs.len()
        };
        let numbers = layers.iter().map(number).collect();
        Self { layers, numbers, dest, reflinks: true.into(), by_kernel: true.into() }
    }

    /// Copies what is in these directories and says which directory of a layer had it. Devices that were never made, or
    /// cannot be made here, are left out.
    pub(super) fn files(
        &self,
        dirs: &[(TreePath, Vec<(&TreePath, &Node)>)],
    ) -> Result<HashMap<TreePath, usize>, TreeError> {
        let copied: Vec<Vec<(TreePath, usize)>> =
            dirs.par_iter().map(|(dir, paths)| self.children(dir, paths)).collect::<Result<_, _>>()?;
        Ok(copied.into_iter().flatten().collect())
    }

    fn children(
        &self,
        dir: &TreePath,
        paths: &[(&TreePath, &Node)],
    ) -> Result<Vec<(TreePath, usize)>, TreeError> {
        let to = open_plain_raw(self.dest, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(TreeError::io("open", dir))?;
        let mut opened: HashMap<usize, Option<OwnedFd>> = HashMap::new();
        let mut copied = Vec::with_capacity(paths.len());
        for (path, node) in paths {
            for (number, layer_dir) in self.dirs(node) {
                let from = opened.entry(number).or_insert_with(|| {
                    open_plain_raw(layer_dir, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()
                });
                let Some(from) = from else { continue };
                let stat = match fs::statat(&*from, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    found => found.map_err(TreeError::io("stat", path))?,
                };
                if self.one(from.as_fd(), to.as_fd(), path, &stat)? {
                    copied.push(((*path).clone(), number));
                }
                break;
            }
        }
        Ok(copied)
    }

    /// The directories of a node's layer, the topmost first, with their numbers.
    fn dirs(&self, node: &Node) -> impl Iterator<Item = (usize, BorrowedFd<'a>)> + use<'a> {
        let dirs = self.layers.get(node.layer).map(|layer| layer.dirs.as_slice()).unwrap_or_default();
        let first = self.numbers.get(node.layer).copied().unwrap_or_default();
        dirs.iter().enumerate().map(move |(at, dir)| (first + at, dir.as_fd()))
    }

    /// Gives a directory that was made the metadata that it has in its layer; the directory's number.
    pub(super) fn directory(&self, path: &TreePath, node: &Node) -> Result<usize, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut found = Err(Errno::NOENT);
        for (number, dir) in self.dirs(node) {
            found = open_plain_raw(dir, path, flags, Mode::empty()).map(|fd| (number, fd));
            if found.is_ok() {
                break;
            }
        }
        let (number, from) = found.map_err(TreeError::io("open", path))?;
        let to =
            open_plain_raw(self.dest, path, flags, Mode::empty()).map_err(TreeError::io("open", path))?;
        let stat = fs::fstat(&from).map_err(TreeError::io("stat", path))?;
        finish(from.as_fd(), to.as_fd(), &stat).map_err(TreeError::io("set metadata of", path))?;
        Ok(number)
    }

    fn one(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &TreePath,
        stat: &Stat,
    ) -> Result<bool, TreeError> {
        let name = path.name();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.file(from, to, name, stat).map_err(TreeError::io("copy", path))?;
                return Ok(true);
            }
            FileType::Symlink => {
                let text =
                    fs::readlinkat(from, name, Vec::new()).map_err(TreeError::io("read link", path))?;
                fs::symlinkat(text.as_c_str(), to, name).map_err(TreeError::io("make link", path))?;
            }
            FileType::Directory | FileType::Socket => return Ok(false),
            kind => match fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev) {
                Err(Errno::PERM | Errno::ACCESS) if kind != FileType::Fifo => return Ok(false),
                made => made.map_err(TreeError::io("make", path))?,
            },
        }
        own(to, name, stat).map_err(TreeError::io("set owner of", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            fs::chmodat(to, name, mode(stat), AtFlags::empty())
                .map_err(TreeError::io("set mode of", path))?;
        }
        set_times_at(to, name, mtime(stat)).map_err(TreeError::io("set times of", path))?;
        Ok(true)
    }

    fn file(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = fs::openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        self.content(&from, &to, u64::try_from(stat.st_size).unwrap_or(0))?;
        finish(from.as_fd(), to.as_fd(), stat)
    }

    fn content(&self, from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
        if size == 0 {
            return Ok(());
        }
        if size >= SMALL && self.reflinks.load(Ordering::Relaxed) {
            match fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(_) => self.reflinks.store(false, Ordering::Relaxed),
            }
        }
        if self.by_kernel.load(Ordering::Relaxed) {
            match by_kernel(from, to, size) {
                Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                    self.by_kernel.store(false, Ordering::Relaxed);
                    fs::seek(from, fs::SeekFrom::Start(0))?;
                    fs::seek(to, fs::SeekFrom::Start(0))?;
                }
                copied => return copied,
            }
        }
        by_hand(from, to)
    }
}

fn by_kernel(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut left = size;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        match fs::copy_file_range(from, None, to, None, piece) {
            // Some file systems copy nothing and say that all is well.
            Ok(0) if left == size => return Err(Errno::INVAL),
            Ok(0) => return Ok(()),
            Ok(copied) => left = left.saturating_sub(copied as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn by_hand(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let got = match rustix::io::read(from, &mut buffer[..]) {
            Ok(0) => return Ok(()),
            Err(Errno::INTR) => continue,
            got => got?,
        };
        let mut rest = &buffer[..got];
        while !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Err(Errno::INTR) => {}
                sent => rest = &rest[sent?..],
            }
        }
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// Owner, attributes, mode, times, in this order: a change of the owner clears set-user-id and capabilities.
fn finish(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    if (stat.st_uid, stat.st_gid) != owner_of(to)? {
        fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    copy_attributes(from, to)?;
    fs::fchmod(to, mode(stat))?;
    set_times_fd(to, mtime(stat))
}

fn owner_of(fd: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    fs::fstat(fd).map(|stat| (stat.st_uid, stat.st_gid))
}

fn own(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    let made = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (made.st_uid, made.st_gid) == (stat.st_uid, stat.st_gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}
