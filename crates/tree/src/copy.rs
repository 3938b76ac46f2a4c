//! File actions of COPY, ADD and WORKDIR on roots given as descriptors.
//!
//! Source and destination are hostile: the source is opened by paths a [`Selection`] gave, free of links; the
//! destination path is resolved within its root once, what is nested below it is never followed. Where owners
//! cannot be set (one mapped id) they are returned instead.

mod delta;
mod entries;
mod file;
mod mode;
mod overlay_upper;
mod reread;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

pub use mode::ModeChange;
pub use overlay_upper::Layers;
use overlay_upper::{LowerDir, UpperAndLower};

use crate::context::Reread;
use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::inroot::{MadeDir, NewDir, Root};
use crate::path::TreePath;
use crate::scan::{Known, KnownContent, Ownership};
use crate::select::{SelectedRoot, Selection};
use crate::tree::Tree;
use delta::DeltaEntries;
use entries::EntryCopier;
pub(crate) use entries::make_room;

/// How things are copied.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Owner of everything that is copied and of directories made for it; `None` keeps the source's, and 0:0 for
    /// made directories.
    pub chown: Option<(u32, u32)>,
    /// Mode of everything that is copied, and in octal also of directories made for it; `None` keeps the source's, and 0755.
    pub chmod: Option<ModeChange>,
    /// The mode is also for the directory that contents are put into, if it is made for them.
    pub chmod_made: bool,
    /// Time of directories made on the way, nanoseconds; `None` is now.
    pub mtime: Option<i64>,
    /// Do not set owners on disk but report them.
    pub single_id: bool,
    /// Somebody may be writing the source: each file is taken as it is at one moment, and what is not as selected is
    /// reported. Else that is an error.
    pub live: bool,
    /// Whatever is in the way is removed: also a directory where a file is to be, and the other way round.
    pub replace: bool,
}

/// What a copy or another action did that the disk does not show.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    /// With `single_id`: whom things belong to, by their path in the destination root.
    pub owners: BTreeMap<TreePath, Ownership>,
    /// Files of a live source that were not as selected.
    pub retaken: Vec<Reread>,
    /// Those of them that never held still: the bytes are those up to the size at the last opening.
    pub cut: Vec<TreePath>,
    /// Devices that could not be made.
    pub skipped_devices: Vec<TreePath>,
    /// All there is in the upper directory below one of its directories, where that is known.
    pub known: Option<Known>,
    /// A large file that was put last.
    pub known_content: Option<KnownContent>,
    /// What of that is the same in the previous layer was not put: the new one has to lie on that one. The bytes of the
    /// files that were put.
    pub delta: Option<u64>,
}

/// Where things are put.
#[derive(Clone, Copy, Debug)]
pub struct Dest<'a> {
    /// The tree as it shows; places are looked up in it.
    pub root: BorrowedFd<'a>,
    /// The halves of an overlay of which `root` is the mount. With them a single directory is written to the upper
    /// half directly; afterwards the mount is out of date.
    pub layers: Option<Layers<'a>>,
    /// What the same copy gave before, on the same file system.
    pub previous: Option<Previous<'a>>,
}

/// A layer of an earlier build, whole. What is in it just as it would be now is left out if that is wanted and the rest is
/// little, else linked instead of copied: nobody ever writes to a file of a committed layer.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// Its files.
    pub files: BorrowedFd<'a>,
    /// What they are.
    pub tree: &'a Tree,
    /// Whether it will do to put what has changed since, so that the new layer lies on this one.
    pub delta: bool,
}

impl<'a> Dest<'a> {
    /// A plain tree.
    #[must_use]
    pub fn plain(root: BorrowedFd<'a>) -> Self {
        Self { root, layers: None, previous: None }
    }
}

impl CopyOptions {
    fn new_dir(&self) -> NewDir {
        // As mkdir(2) does it: the set-id and sticky bits are for what is copied.
        let mode = self.chmod.as_ref().and_then(ModeChange::octal).map_or(0o755, |mode| mode & 0o777);
        let owner = (!self.single_id).then(|| self.chown.unwrap_or((0, 0)));
        NewDir { mode, owner, mtime: self.mtime }
    }

    fn note_dirs(&self, made: &MadeDir, copied: &mut Copied) {
        if self.single_id {
            let (uid, gid) = self.chown.unwrap_or((0, 0));
            let owner = Ownership { uid, gid, mode: None };
            copied.owners.extend(made.made.iter().map(|path| (path.clone(), owner)));
        }
    }
}

/// True when a destination as written means a directory: it ends in `/` or `/.`, or is `.` or empty.
#[must_use]
pub fn names_directory(dest: &[u8]) -> bool {
    matches!(dest, b"" | b".") || dest.ends_with(b"/") || dest.ends_with(b"/.")
}

/// Copies a selection made from the tree behind `source` to `path`, an absolute path in `dest`.
///
/// # Errors
/// [`TreeError::CopyToNonDirectory`], [`TreeError::ReplaceDirectory`] where kinds clash, [`TreeError::Changed`] when a
/// file is not what was selected any more (of a live source: if it has gone, and only changes to a previous layer are
/// put), else [`TreeError::Io`].
pub fn copy(
    source: BorrowedFd<'_>,
    selection: &Selection,
    dest: Dest<'_>,
    path: &[u8],
    options: &CopyOptions,
) -> Result<Copied, TreeError> {
    let mut copied = Copied::default();
    // What a second source finds at its place has to show in the mount.
    let dest = if selection.roots.len() == 1 { dest } else { Dest::plain(dest.root) };
    for from in &selection.roots {
        // It may be replaced.
        copied.known_content = None;
        if from.is_dir {
            copy_contents(source, from, dest, path, options, &mut copied)?;
        } else {
            copy_file(source, from, &Root::from_fd(dest.root), path, options, &mut copied)?;
        }
    }
    Ok(copied)
}

fn is_directory(root: &Root<'_>, path: &[u8]) -> bool {
    root.stat(path, true).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

fn mkdir(
    root: &Root<'_>,
    path: &[u8],
    options: &CopyOptions,
    copied: &mut Copied,
) -> Result<MadeDir, TreeError> {
    let made = root.mkdir_p(path, &options.new_dir()).map_err(|e| match e {
        TreeError::NotADirectory { path } => TreeError::CopyToNonDirectory { path },
        e => e,
    })?;
    options.note_dirs(&made, copied);
    Ok(made)
}

fn copy_contents(
    source: BorrowedFd<'_>,
    from: &SelectedRoot,
    dest: Dest<'_>,
    path: &[u8],
    options: &CopyOptions,
    copied: &mut Copied,
) -> Result<(), TreeError> {
    let made = mkdir(&Root::from_fd(dest.root), path, options, copied)?;
    let is_new = made.made.last() == Some(&made.path);
    // An `O_PATH` descriptor can neither be listed nor have its mode and times set.
    let seen = crate::inroot::open_child(made.dir.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(TreeError::io("open", &made.path))?;
    if let Some(change) = options.chmod.as_ref().filter(|_| is_new && options.chmod_made) {
        fs::fchmod(&seen, Mode::from_raw_mode(change.apply(0o755, true)))
            .map_err(TreeError::io("set mode of", &made.path))?;
    }
    let halves = dest.layers.and_then(|layers| layers.enter(seen.as_fd(), &made.path, is_new));
    let directly = halves.is_some();
    let UpperAndLower { upper, below } =
        halves.unwrap_or(UpperAndLower { upper: seen, below: LowerDir::nothing() });
    let mut putter = EntryCopier::new(source, upper.as_fd(), &made.path, options, copied).onto(below);
    if directly {
        // A file that overlayfs has to make cannot be a link to one that it does not know.
        putter.previous = dest.previous;
    }
    let patched = match (dest.layers, putter.previous) {
        (Some(layers), Some(previous))
            if previous.delta
                && !delta::hides(layers.upper, &made.path)
                && !delta::hides(previous.files, &made.path) =>
        {
            putter.delta(&from.entries)?
        }
        _ => None,
    };
    let (entries, delta) = match patched {
        Some(DeltaEntries { all, bytes }) => (all, Some(bytes)),
        None => (putter.all(&from.entries)?, None),
    };
    copied.delta = delta;
    copied.known = directly.then(|| Known { dir: made.path.clone(), entries });
    // The last source decides, also of a directory that was there before. The root of an image has no time in any layer.
    if let Some(mtime) = options.mtime.or(from.mtime).filter(|_| !made.path.is_root()) {
        crate::inroot::set_times_fd(upper.as_fd(), mtime)
            .map_err(TreeError::io("set times of", &made.path))?;
    }
    Ok(())
}

/// The directory that a file goes to, made if need be, and the name that it gets there.
fn file_place(
    root: &Root<'_>,
    dest: &[u8],
    own_name: &[u8],
    options: &CopyOptions,
    copied: &mut Copied,
) -> Result<(MadeDir, Box<[u8]>), TreeError> {
    if names_directory(dest) || is_directory(root, dest) {
        return Ok((mkdir(root, dest, options, copied)?, own_name.into()));
    }
    // A link in the last place is followed, also to what is not there yet.
    let place = root.place(dest, true)?.path();
    let parent = place.parent().unwrap_or_default();
    Ok((mkdir(root, parent.as_bytes(), options, copied)?, place.name().into()))
}

fn copy_file(
    source: BorrowedFd<'_>,
    from: &SelectedRoot,
    root: &Root<'_>,
    dest: &[u8],
    options: &CopyOptions,
    copied: &mut Copied,
) -> Result<(), TreeError> {
    let Some(entry) = from.entries.first() else { return Ok(()) };
    let (dir, name) = file_place(root, dest, &from.name, options, copied)?;
    let mut putter = EntryCopier::new(source, dir.dir.as_fd(), &dir.path, options, copied);
    let put = putter.one_as(entry, &name)?;
    settle(&dir, options)?;
    copied.known_content = put.and_then(|put| known_content(dir.dir.as_fd(), put));
    Ok(())
}

/// What is known of a file that was put into `dir`, if it is worth keeping.
fn known_content(dir: BorrowedFd<'_>, put: Entry) -> Option<KnownContent> {
    const WORTH: u64 = 1 << 20;
    let Kind::File { size: WORTH.., content } = put.kind else { return None };
    let stat = fs::statat(dir, put.path.name(), fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(KnownContent::new(put.path, content, &stat))
}

/// Gives a directory that something was put into the time that there is for all that is made: else it would be now.
fn settle(dir: &MadeDir, options: &CopyOptions) -> Result<(), TreeError> {
    match options.mtime.filter(|_| !dir.path.is_root()) {
        Some(mtime) => crate::inroot::set_times_at(dir.dir.as_fd(), b".", mtime)
            .map_err(TreeError::io("set times of", &dir.path)),
        None => Ok(()),
    }
}

/// Makes a directory with everything above it, as WORKDIR does; existing ones are left as they are.
///
/// # Errors
/// [`TreeError::NotADirectory`] when something else is in the way, else [`TreeError::Io`].
pub fn make_directory(
    dest_root: BorrowedFd<'_>,
    path: &[u8],
    options: &CopyOptions,
) -> Result<Copied, TreeError> {
    let mut copied = Copied::default();
    let made = Root::from_fd(dest_root).mkdir_p(path, &options.new_dir())?;
    options.note_dirs(&made, &mut copied);
    Ok(copied)
}

/// Makes a symbolic link at `path`, whose parent has to be there. Its time is `options.mtime` or now.
///
/// # Errors
/// [`TreeError::Io`]; `EXIST` if something is there already.
pub fn make_symlink(
    dest_root: BorrowedFd<'_>,
    path: &[u8],
    text: &[u8],
    options: &CopyOptions,
) -> Result<Copied, TreeError> {
    let root = Root::from_fd(dest_root);
    let clean = TreePath::clean(path)?;
    let parent = clean.parent().unwrap_or_default();
    let dir = root.open(parent.as_bytes(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    fs::symlinkat(text, &dir, clean.name()).map_err(TreeError::io("make link", &clean))?;
    let mut copied = Copied::default();
    let (uid, gid) = options.chown.unwrap_or((0, 0));
    if options.single_id {
        let real = root.place(parent.as_bytes(), true)?.path();
        copied.owners.insert(real.join_name(clean.name()), Ownership { uid, gid, mode: None });
    } else {
        let (uid, gid) = (Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)));
        fs::chownat(&dir, clean.name(), uid, gid, fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(TreeError::io("set owner of", &clean))?;
    }
    if let Some(mtime) = options.mtime {
        crate::inroot::set_times_at(dir.as_fd(), clean.name(), mtime)
            .map_err(TreeError::io("set times of", &clean))?;
    }
    Ok(copied)
}

/// Removes a file or a whole directory. Links above it are followed within the root, the last part is not. With `wildcards`
/// the parts of the path are patterns, which never match the way through a link. With `optional` nothing need be there.
///
/// # Errors
/// [`TreeError::NotFound`] if nothing is there, [`TreeError::Pattern`], [`TreeError::Io`].
pub fn remove(
    dest_root: BorrowedFd<'_>,
    path: &[u8],
    wildcards: bool,
    optional: bool,
) -> Result<(), TreeError> {
    let clean = TreePath::clean(path)?;
    if clean.is_root() {
        return Err(TreeError::io("remove", &clean)(Errno::BUSY));
    }
    let missing = || TreeError::NotFound { path: clean.to_string(), hidden_by: None, nearest: String::new() };
    let root = Root::from_fd(dest_root);
    let found = if wildcards { matching(&root, &clean)? } else { vec![clean.clone()] };
    if found.is_empty() && !optional {
        return Err(missing());
    }
    for path in found {
        let parent = path.parent().unwrap_or_default();
        let removed = match root.open(parent.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => Err(Errno::NOENT),
            dir => crate::removal::remove_at(dir?.as_fd(), path.name()),
        };
        match removed {
            Err(Errno::NOENT) if optional => {}
            Err(Errno::NOENT) => return Err(missing()),
            done => done.map_err(TreeError::io("remove", &path))?,
        }
    }
    Ok(())
}

/// The paths on the disk that a pattern matches. Links are followed in front of the first part with wildcards only.
fn matching(root: &Root<'_>, pattern: &TreePath) -> Result<Vec<TreePath>, TreeError> {
    let mut parts = Vec::new();
    for part in pattern.components() {
        let text = crate::path::lossy(part);
        let bad = || TreeError::Pattern { pattern: text.clone(), line: 0, file: None };
        parts.push((part, crate::ignore::Pattern::shallow(&text).ok_or_else(bad)?));
    }
    // The last part is never followed, so that it is no part of the way.
    let way = parts.len().saturating_sub(1);
    let literal = parts.iter().take(way).take_while(|(_, pattern)| pattern.is_literal()).count();
    let prefix = parts[..literal].iter().fold(TreePath::root(), |path, (part, _)| path.join_name(part));
    let mut here = vec![root.place(prefix.as_bytes(), true)?.path()];
    for (part, pattern) in &parts[literal..] {
        let mut next = Vec::new();
        for dir in here {
            let Ok(fd) = root.open_plain(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) else {
                continue;
            };
            if pattern.is_literal() {
                next.push(dir.join_name(part));
                continue;
            }
            for entry in fs::Dir::read_from(&fd).map_err(TreeError::io("list", &dir))? {
                let entry = entry.map_err(TreeError::io("list", &dir))?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") && pattern.matches(name) {
                    next.push(dir.join_name(name));
                }
            }
        }
        here = next;
    }
    // A pattern in the middle matches directories that do not have the rest.
    here.retain(|path| root.exists(path.as_bytes()));
    Ok(here)
}

/// A file whose content is known.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// What it is called when the destination is a directory.
    pub name: &'a [u8],
    /// What is in it.
    pub content: &'a [u8],
    /// Permission bits, which [`CopyOptions::chmod`] may change.
    pub mode: u32,
}

/// Writes a file, as a heredoc of COPY does. Its time is `options.mtime` or now.
///
/// # Errors
/// As [`copy`].
pub fn write_file(
    dest_root: BorrowedFd<'_>,
    dest: &[u8],
    new: &NewFile<'_>,
    options: &CopyOptions,
) -> Result<Copied, TreeError> {
    let root = Root::from_fd(dest_root);
    let mut copied = Copied::default();
    let (dir, name) = file_place(&root, dest, TreePath::parse(new.name)?.name(), options, &mut copied)?;
    let path = dir.path.join_name(&name);
    let mode = options.chmod.as_ref().map_or(new.mode, |change| change.apply(new.mode, false));
    make_room(dir.dir.as_fd(), &name, &path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(&dir.dir, &*name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(TreeError::io("create", &path))?;
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, new.content).map_err(TreeError::io("write", &path))?;
    let (uid, gid) = options.chown.unwrap_or((0, 0));
    let finish = || -> Result<(), Errno> {
        if !options.single_id {
            fs::fchown(&file, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))?;
        }
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        options.mtime.map_or(Ok(()), |mtime| crate::inroot::set_times_fd(file.as_fd(), mtime))
    };
    finish().map_err(TreeError::owning("finish", &path, (uid, gid)))?;
    if options.single_id {
        copied.owners.insert(path, Ownership { uid, gid, mode: None });
    }
    settle(&dir, options)?;
    Ok(copied)
}

#[cfg(test)]
mod tests;
