//! Copying what was selected.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown};
use rustix::fs::{linkat, mkdirat, mknodat, openat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::error::TreeError;
use crate::inroot::{NewDir, Root, read_link_fd, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::scan::{Ownership, mtime, read_names};

use super::mode::change_mode;
use super::select::{Filter, Picked};

/// Where things go, and what they are like there.
pub struct Target<'a> {
    /// The root that is changed.
    pub root: Root<'a>,
    /// The owner of everything copied and made; `None` keeps the source's.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`
    pub chmod: Option<&'a str>,
    /// The time of directories that are made, nanoseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
    /// Only one id can be set: other owners are recorded here.
    pub recorded: Option<&'a mut BTreeMap<TreePath, Ownership>>,
}

/// The destination of a copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyTo<'a> {
    /// From the root; a trailing slash (or `/.`) says that it is a directory.
    pub dest: &'a str,
    /// Keep the sources' parents below it.
    pub parents: bool,
}

type Links = HashMap<(u64, u64), (OwnedFd, Box<[u8]>, TreePath)>;

/// Copies what was picked.
///
/// # Errors
/// [`TreeError::CopyToNonDirectory`], [`TreeError::ReplaceDirectory`], [`TreeError::Io`].
pub fn copy(
    source: &Root<'_>,
    picked: &[Picked],
    filter: &Filter<'_>,
    target: &mut Target<'_>,
    to: CopyTo<'_>,
) -> Result<(), TreeError> {
    let mut links = Links::new();
    for picked in picked {
        let is_dir = picked.kind == FileType::Directory;
        let dest = if to.parents {
            let kept = if is_dir { Some(picked.kept.clone()) } else { picked.kept.parent() };
            format!("{}/{}", to.dest, kept.unwrap_or_default())
        } else {
            to.dest.to_owned()
        };
        let mut copier = Copier { filter, target, links: &mut links };
        if is_dir {
            let (dir, path) = copier.directory_at(&dest)?;
            copier.contents(picked.fd.as_fd(), &picked.real, &TreePath::root(), dir.as_fd(), &path)?;
            continue;
        }
        let (dir, path, name) = copier.target.place_for(&dest, picked.path.name(), to.parents)?;
        let parent = picked.real.parent().unwrap_or_default();
        let from = source.open_plain(&parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        copier.entry(
            from.as_fd(),
            picked.real.name(),
            &picked.real,
            dir.as_fd(),
            &name,
            &path.join_name(&name),
        )?;
    }
    Ok(())
}

/// Makes the directory `path`; with `parents` also those above, and nothing if it is there.
///
/// # Errors
/// [`TreeError::NotADirectory`], [`TreeError::Io`].
pub fn make_dir(target: &mut Target<'_>, path: &str, mode: u32) -> Result<(), TreeError> {
    target.make_dirs(path.as_bytes(), mode).map(drop)
}

/// Makes a file at `dest`, or in it under `name` if that is a directory.
///
/// # Errors
/// As [`copy`].
pub fn make_file(
    target: &mut Target<'_>,
    dest: &str,
    name: &str,
    data: &[u8],
    mode: u32,
) -> Result<(), TreeError> {
    let (dir, path, name) = target.place_for(dest, name.as_bytes(), false)?;
    let path = path.join_name(&name);
    clear(dir.as_fd(), &name, &path)?;
    let mut file = create(dir.as_fd(), &name, &path)?;
    io::Write::write_all(&mut file, data).map_err(TreeError::io("write", &path))?;
    target.own_fd(&file, (0, 0), &path)?;
    let mode = target.chmod.map_or(Ok(mode), |spec| change_mode(spec, mode, false))?;
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(TreeError::io("change the mode of", &path))?;
    if let Some(time) = target.timestamp {
        set_times_fd(file.as_fd(), time).map_err(TreeError::io("set the time of", &path))?;
    }
    Ok(())
}

impl Target<'_> {
    fn make_dirs(&mut self, path: &[u8], mode: u32) -> Result<(OwnedFd, TreePath), TreeError> {
        let owner = self.owner.unwrap_or((0, 0));
        let mode = self.chmod.map_or(Ok(mode), |spec| change_mode(spec, mode, true))?;
        let settable = if self.recorded.is_some() { None } else { Some(owner) };
        let new = NewDir { mode, owner: settable, mtime: self.timestamp };
        let made = self.root.mkdir_p(path, &new).map_err(|error| match error {
            TreeError::NotADirectory { path } => TreeError::CopyToNonDirectory { path },
            other => other,
        })?;
        for path in &made.made {
            self.record(path, owner);
        }
        let dir = self.root.open_plain(&made.path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok((dir, made.path))
    }

    /// The directory and the name that a file copied to `dest` gets; a name that is a link is followed.
    fn place_for(
        &mut self,
        dest: &str,
        name: &[u8],
        into: bool,
    ) -> Result<(OwnedFd, TreePath, Vec<u8>), TreeError> {
        let slashed = into || dest.ends_with('/') || dest.ends_with("/.");
        let is_dir =
            self.root.stat(dest.as_bytes(), true).is_ok_and(|stat| kind_of(&stat) == FileType::Directory);
        if slashed || is_dir {
            let (dir, path) = self.make_dirs(dest.as_bytes(), 0o755)?;
            return Ok((dir, path, name.to_vec()));
        }
        let real = self.root.place(dest.as_bytes(), true)?.path();
        let parent = real.parent().unwrap_or_default();
        let (dir, path) = self.make_dirs(parent.as_bytes(), 0o755)?;
        Ok((dir, path, real.name().to_vec()))
    }

    fn own_fd(&mut self, file: &File, source: (u32, u32), path: &TreePath) -> Result<(), TreeError> {
        let (uid, gid) = self.owner.unwrap_or(source);
        if self.recorded.is_some() {
            self.record(path, (uid, gid));
            return Ok(());
        }
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(TreeError::io("change the owner of", path))
    }

    fn own_at(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        source: (u32, u32),
        path: &TreePath,
    ) -> Result<(), TreeError> {
        let (uid, gid) = self.owner.unwrap_or(source);
        if self.recorded.is_some() {
            self.record(path, (uid, gid));
            return Ok(());
        }
        chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(TreeError::io("change the owner of", path))
    }

    fn record(&mut self, path: &TreePath, (uid, gid): (u32, u32)) {
        if let Some(recorded) = self.recorded.as_deref_mut() {
            recorded.insert(path.clone(), Ownership { uid, gid, mode: None });
        }
    }
}

struct Copier<'c, 't> {
    filter: &'c Filter<'c>,
    target: &'c mut Target<'t>,
    /// Files with several names: where the first copy is.
    links: &'c mut Links,
}

impl Copier<'_, '_> {
    fn directory_at(&mut self, dest: &str) -> Result<(OwnedFd, TreePath), TreeError> {
        self.target.make_dirs(dest.as_bytes(), 0o755)
    }

    fn contents(
        &mut self,
        from: BorrowedFd<'_>,
        real: &TreePath,
        picked: &TreePath,
        to: BorrowedFd<'_>,
        path: &TreePath,
    ) -> Result<(), TreeError> {
        let mut names = read_names(from).map_err(TreeError::io("list", real))?;
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in names {
            let (real, picked, path) =
                (real.join_name(&name), picked.join_name(&name), path.join_name(&name));
            let is_dir = kind == FileType::Directory;
            if self.filter.hides(&real, &picked, is_dir) {
                continue;
            }
            if !is_dir {
                self.entry(from, &name, &real, to, &name, &path)?;
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source =
                openat(from, &name[..], flags, Mode::empty()).map_err(TreeError::io("open", &real))?;
            let stat = rustix::fs::fstat(&source).map_err(TreeError::io("look at", &real))?;
            match mkdirat(to, &name[..], Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(TreeError::io("create", &path)(error)),
            }
            let dir = match openat(to, &name[..], flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(TreeError::CopyToNonDirectory { path }),
                Err(error) => return Err(TreeError::io("open", &path)(error)),
            };
            self.contents(source.as_fd(), &real, &picked, dir.as_fd(), &path)?;
            if self.filter.only_passes(&real) && unlinkat(to, &name[..], AtFlags::REMOVEDIR).is_ok() {
                continue;
            }
            self.finish(&File::from(dir), &stat, true, &path)?;
        }
        Ok(())
    }

    /// Owner, mode and time, in this order: a change of owner clears set-user-id.
    fn finish(&mut self, file: &File, stat: &Stat, is_dir: bool, path: &TreePath) -> Result<(), TreeError> {
        self.target.own_fd(file, (stat.st_uid, stat.st_gid), path)?;
        let mode = stat.st_mode & 0o7777;
        let mode = self.target.chmod.map_or(Ok(mode), |spec| change_mode(spec, mode, is_dir))?;
        fchmod(file, Mode::from_raw_mode(mode)).map_err(TreeError::io("change the mode of", path))?;
        set_times_fd(file.as_fd(), mtime(stat)).map_err(TreeError::io("set the time of", path))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "two places, each a directory with a name and a path for messages"
    )]
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        real: &TreePath,
        to: BorrowedFd<'_>,
        new_name: &[u8],
        path: &TreePath,
    ) -> Result<(), TreeError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(from, name, flags, Mode::empty()).map_err(TreeError::io("open", real))?;
        let stat = rustix::fs::fstat(&place).map_err(TreeError::io("look at", real))?;
        clear(to, new_name, path)?;
        let owner = (stat.st_uid, stat.st_gid);
        let kind = kind_of(&stat);
        match kind {
            FileType::RegularFile => self.file(from, name, real, &stat, to, new_name, path),
            FileType::Symlink => {
                let text = read_link_fd(place.as_fd()).map_err(TreeError::io("read", real))?;
                symlinkat(&text[..], to, new_name).map_err(TreeError::io("make the link", path))?;
                self.target.own_at(to, new_name, owner, path)?;
                set_times_at(to, new_name, mtime(&stat)).map_err(TreeError::io("set the time of", path))
            }
            // A socket means nothing without its process.
            FileType::Socket => {
                let file = create(to, new_name, path)?;
                self.finish(&file, &stat, false, path)
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                mknodat(to, new_name, kind, mode, stat.st_rdev).map_err(TreeError::io("make", path))?;
                self.target.own_at(to, new_name, owner, path)?;
                set_times_at(to, new_name, mtime(&stat)).map_err(TreeError::io("set the time of", path))
            }
            _ => Err(TreeError::Changed { path: real.clone() }),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "two places, each a directory with a name and a path for messages"
    )]
    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        real: &TreePath,
        stat: &Stat,
        to: BorrowedFd<'_>,
        new_name: &[u8],
        path: &TreePath,
    ) -> Result<(), TreeError> {
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some((dir, first, first_path)) = self.links.get(&inode)
        {
            linkat(dir, &first[..], to, new_name, AtFlags::empty())
                .map_err(TreeError::io("make the hard link", path))?;
            let owner = self.target.recorded.as_ref().and_then(|all| all.get(first_path).copied());
            if let (Some(owner), Some(all)) = (owner, self.target.recorded.as_deref_mut()) {
                all.insert(path.clone(), owner);
            }
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty()).map_err(TreeError::io("open", real))?;
        let mut file = create(to, new_name, path)?;
        // std uses copy_file_range(2) where the file systems have it.
        io::copy(&mut File::from(source), &mut file).map_err(TreeError::io("write", path))?;
        self.finish(&file, stat, false, path)?;
        if stat.st_nlink > 1 {
            let dir = to.try_clone_to_owned().map_err(TreeError::io("keep open", path))?;
            self.links.insert(inode, (dir, new_name.into(), path.clone()));
        }
        Ok(())
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn create(dir: BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<File, TreeError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from).map_err(TreeError::io("create", path))
}

/// Makes room: what is there goes, unless it is a directory.
fn clear(dir: BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<(), TreeError> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(TreeError::ReplaceDirectory { path: path.clone() }),
        Err(error) => Err(TreeError::io("replace", path)(error)),
    }
}
