//! Files of a tree that somebody else has made: every path and every link in it may be hostile.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use lapstrake_proto::fsutil::types::Stat;
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_tree::TreePath;
use lapstrake_tree::ignore::{DirState, Patterns};
use lapstrake_tree::inroot::Root;
use prost::Message as _;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tonic::{Code, Status};

use crate::files::wire_stat;

/// The most that one answer has, in bytes: clients take messages of 16 MiB.
const LONGEST: u64 = (16 << 20) - (64 << 10);
/// The entries that are looked at for one pattern.
const MOST_ENTRIES: usize = 1 << 20;
/// The levels of directories that are looked at for one pattern.
const DEEPEST: usize = 128;
/// How often a lookup that raced with a rename is tried again.
const RACES: usize = 64;
/// The attribute that has the owner where only one id is mapped, as `UID:GID`.
const OWNER: &str = "user.lapstrake.owner";
/// The longest value of an attribute, in bytes.
const LONGEST_VALUE: usize = 64 << 10;

/// A tree, and how links in it are followed.
#[derive(Clone, Copy)]
pub(crate) struct Files<'fd> {
    root: BorrowedFd<'fd>,
    links: Links,
}

/// How links are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    /// The tree is the whole root: an absolute link begins at its top.
    InRoot,
    /// The tree is one mount of a container: a link may lead to another mount, and is not followed then.
    Beneath,
}

impl<'fd> Files<'fd> {
    /// The files of a whole tree.
    pub(crate) fn of_root(root: BorrowedFd<'fd>) -> Files<'fd> {
        Files { root, links: Links::InRoot }
    }

    /// The files of one mount of a container.
    pub(crate) fn of_mount(root: BorrowedFd<'fd>) -> Files<'fd> {
        Files { root, links: Links::Beneath }
    }

    /// The content of a regular file, or the asked part of it.
    ///
    /// # Errors
    /// There is no such file, or there are more bytes than an answer takes.
    pub(crate) fn read(&self, request: &api::ReadFileRequest) -> Result<Vec<u8>, Status> {
        let path = &request.file_path;
        let failed = |errno| failed("open", path, errno);
        let found = self.find(path, true).map_err(failed)?;
        let stat = rustix::fs::fstat(&found).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Status::unknown(format!("{path} is not a regular file")));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (offset, length) = range(request.range.as_ref(), size)?;
        if length > LONGEST {
            return Err(Status::resource_exhausted(format!(
                "{path} has {size} bytes, and one answer at most {LONGEST}: ask for a range"
            )));
        }
        let file = File::from(reopen(&found, OFlags::RDONLY).map_err(failed)?);
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(offset)).map_err(failed)?;
        let mut data = Vec::new();
        // A file that grows meanwhile is cut.
        file.take(length)
            .read_to_end(&mut data)
            .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(data)
    }

    /// Facts about a file. A last link is followed; in a container one that leads out of its mount is itself meant.
    ///
    /// # Errors
    /// There is no such file.
    pub(crate) fn stat(&self, path: &str) -> Result<Stat, Status> {
        let failed = |errno| failed("lstat", path, errno);
        let (found, name) = match (self.find(path, true), self.links) {
            (Err(Errno::XDEV), Links::Beneath) => (self.find(path, false).map_err(failed)?, None),
            (Ok(found), Links::InRoot) => (found, self.real_name(path)),
            (found, _) => (found.map_err(failed)?, None),
        };
        let own = path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
        facts(&found, name.unwrap_or_else(|| own.unwrap_or("/").to_owned())).map_err(failed)
    }

    /// The entries of a directory in order, or those of them that match a pattern or have something below that does.
    ///
    /// # Errors
    /// There is no such directory, the pattern is none, or there are more entries than an answer takes.
    pub(crate) fn list(&self, path: &str, pattern: &str) -> Result<Vec<Stat>, Status> {
        let failed = |errno| failed("open", path, errno);
        let found = self.find(path, true).map_err(failed)?;
        let directory = reopen(&found, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut wanted = Wanted::new(pattern)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for name in names(&directory).map_err(failed)? {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = match rustix::fs::openat(&directory, name.as_slice(), flags, Mode::empty()) {
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(failed)?,
            };
            if !wanted.has(&entry, &name)? {
                continue;
            }
            let stat = facts(&entry, String::from_utf8_lossy(&name).into_owned()).map_err(failed)?;
            bytes += stat.encoded_len() + 8;
            if u64::try_from(bytes).unwrap_or(u64::MAX) > LONGEST {
                return Err(Status::resource_exhausted(format!("{path} has more entries than one answer")));
            }
            entries.push(stat);
        }
        Ok(entries)
    }

    /// A handle of the file at `path`. `follow` says whether a last link is followed.
    fn find(&self, path: &str, follow: bool) -> Result<OwnedFd, Errno> {
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::PATH | OFlags::CLOEXEC | nofollow;
        if self.links == Links::InRoot {
            let root = Root::from_fd(self.root);
            return root
                .open(path.as_bytes(), flags, Mode::empty())
                .map_err(|e| e.errno().unwrap_or(Errno::INVAL));
        }
        let relative = path.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACES {
            match rustix::fs::openat2(self.root, relative, flags, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                found => return found,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The last name of the place that `path` leads to.
    fn real_name(&self, path: &str) -> Option<String> {
        let place = Root::from_fd(self.root).place(path.as_bytes(), true).ok()?;
        let whole = place.path();
        let name = whole.as_bytes().rsplit(|byte| *byte == b'/').next()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

/// An error of the system as clients of BuildKit know it.
fn failed(action: &str, path: &str, errno: Errno) -> Status {
    let (code, text) = match errno {
        Errno::NOENT => (Code::NotFound, "no such file or directory".to_owned()),
        Errno::NOTDIR => (Code::Unknown, "not a directory".to_owned()),
        Errno::LOOP => (Code::Unknown, "too many levels of symbolic links".to_owned()),
        Errno::XDEV => (Code::Unknown, "path escapes from parent".to_owned()),
        Errno::ACCESS => (Code::PermissionDenied, "permission denied".to_owned()),
        other => (Code::Unknown, std::io::Error::from(other).to_string()),
    };
    Status::new(code, format!("{action} {path}: {text}"))
}

/// The first byte and the number of bytes that are asked for.
fn range(asked: Option<&api::FileRange>, size: u64) -> Result<(u64, u64), Status> {
    let Some(api::FileRange { offset, length }) = asked else { return Ok((0, size)) };
    let negative = |_| Status::invalid_argument(format!("the range {offset}+{length} is negative"));
    let (offset, length) =
        (u64::try_from(*offset).map_err(negative)?, u64::try_from(*length).map_err(negative)?);
    Ok((offset, length.min(size.saturating_sub(offset))))
}

/// The same file for reading. It is a regular file or a directory, whose opening does nothing else.
fn reopen(found: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::fs::openat(CWD, link, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// The names in a directory, in order.
fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_bytes().to_vec());
        }
        if names.len() > MOST_ENTRIES {
            return Err(Errno::TOOBIG);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Facts about the file behind the handle `found`.
fn facts(found: &OwnedFd, name: String) -> Result<Stat, Errno> {
    let stat = rustix::fs::statat(found, c"", AtFlags::EMPTY_PATH)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut link = String::new();
    if kind == FileType::Symlink {
        let target = rustix::fs::readlinkat(found, c"", Vec::new())?;
        link = String::from_utf8_lossy(target.to_bytes()).into_owned();
    }
    let mut told = wire_stat(name, &stat, link);
    if kind == FileType::Symlink {
        told.size = stat.st_size;
    }
    if matches!(kind, FileType::RegularFile | FileType::Directory)
        && let Ok(file) = reopen(found, OFlags::RDONLY)
    {
        told.xattrs = attributes(&file);
        if let Some((uid, gid)) = told.xattrs.remove(OWNER).and_then(|owner| ids(&owner)) {
            (told.uid, told.gid) = (uid, gid);
        }
        // How this program keeps a tree is nobody's business.
        told.xattrs
            .retain(|name, _| !name.starts_with("user.lapstrake.") && !name.starts_with("user.overlay."));
    }
    Ok(told)
}

/// `UID:GID`
fn ids(text: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// The extended attributes that can be read.
fn attributes(file: &OwnedFd) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; LONGEST_VALUE];
    let length = rustix::fs::flistxattr(file, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).ok()?;
        let mut value = vec![0; LONGEST_VALUE];
        let length = rustix::fs::fgetxattr(file, name.as_str(), &mut value[..]).ok()?;
        value.truncate(length);
        Some((name, value))
    };
    names.filter_map(value).collect()
}

/// The entries that a pattern asks for.
struct Wanted {
    patterns: Option<Patterns>,
    /// The number of names on the longest path that can match by itself; `None` for any number.
    depth: Option<usize>,
    /// The text, if it has no wildcards.
    plain: Option<String>,
    left: usize,
}

impl Wanted {
    fn new(pattern: &str) -> Result<Wanted, Status> {
        let bad = |_| Status::invalid_argument(format!("invalid includepatterns: [{pattern}]"));
        let patterns = match pattern {
            "" => None,
            pattern => Some(Patterns::from_list(&[pattern]).map_err(bad)?),
        };
        let clean = pattern.trim_matches('/');
        let depth = (!pattern.contains("**")).then(|| clean.split('/').count());
        let plain = (!pattern.contains(['*', '[', ']', '?', '^', '\\'])).then(|| clean.to_owned());
        Ok(Wanted { patterns, depth, plain, left: MOST_ENTRIES })
    }

    /// Whether the entry `name` of the directory that is listed matches, or something below it.
    fn has(&mut self, entry: &OwnedFd, name: &[u8]) -> Result<bool, Status> {
        let Some(patterns) = self.patterns.take() else { return Ok(true) };
        let found = self.search(&patterns, entry, &TreePath::root().join_name(name), &patterns.root_state());
        self.patterns = Some(patterns);
        found
    }

    fn search(
        &mut self,
        patterns: &Patterns,
        entry: &OwnedFd,
        path: &TreePath,
        above: &DirState,
    ) -> Result<bool, Status> {
        let names_on_path = path.as_bytes().split(|byte| *byte == b'/').count();
        if names_on_path > DEEPEST {
            return Err(Status::resource_exhausted(format!("directories lie deeper than {DEEPEST} levels")));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Status::resource_exhausted("the pattern asks for more entries than are looked at")
        })?;
        let (verdict, state) = patterns.child(above, path);
        let verdict = patterns.settled(verdict).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if verdict.excluded {
            return Ok(true);
        }
        let can_match = match (&self.plain, self.depth) {
            (Some(plain), _) => plain.as_bytes().starts_with(&[path.as_bytes(), b"/"].concat()),
            (None, Some(depth)) => names_on_path < depth,
            (None, None) => true,
        };
        let is_directory = || {
            let stat = rustix::fs::fstat(entry);
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        if !can_match || !is_directory() {
            return Ok(false);
        }
        let Ok(directory) = reopen(entry, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(false) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in names(&directory).map_err(|errno| failed("open", &path.to_string(), errno))? {
            let Ok(child) = rustix::fs::openat(directory.as_fd(), name.as_slice(), flags, Mode::empty())
            else {
                continue;
            };
            if self.search(patterns, &child, &path.join_name(&name), &state)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
