//! The program's files as the supervisor sees them: where a path leads, whom a thing belongs to.
//!
//! Whatever is opened here is opened as a place only (`O_PATH`) or is new, so nothing blocks and no device is touched.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use lapstrake_sys::notify::Shown;
use lapstrake_tree::inroot::open_confined;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid};

use super::{NODE, OWNER, OwnedInode};

/// Owner and group.
pub(super) type Owner = (u32, u32);

/// What a path is relative to.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) pid: Pid,
    /// A descriptor of the asker's, or `AT_FDCWD`.
    pub(super) dir: i32,
}

pub(super) struct Files {
    /// The zygote's procfs, which is also our working directory.
    proc: OwnedFd,
    /// Device and inode of the container's root, which is ours too.
    root: (u64, u64),
    special: HashMap<(u64, u64), Owner>,
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Files {
    pub(super) fn new(proc: OwnedFd) -> Result<Self, Errno> {
        let root = rustix::fs::stat(c"/")?;
        Ok(Self { proc, root: (root.st_dev, root.st_ino), special: HashMap::new() })
    }

    pub(super) fn into_special(self) -> Vec<OwnedInode> {
        let list = self.special.into_iter();
        list.map(|((dev, ino), (uid, gid))| OwnedInode { dev, ino, uid, gid }).collect()
    }

    /// What `path` is to the asker; with `follow` what a link at its end leads to.
    pub(super) fn look(&self, asker: Asker, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        let flags = if follow { PLACE } else { PLACE | OFlags::NOFOLLOW };
        if path.is_empty() {
            return self.base(asker);
        }
        if let Some(known) = own_entry(path) {
            let place = format!("{}/{known}", asker.pid.as_raw_nonzero());
            return rustix::fs::openat(&self.proc, place, flags, Mode::empty());
        }
        let text = CString::new(path).map_err(|_| Errno::INVAL)?;
        if path[0] != b'/' {
            // In one go: a way up in the path goes on from where the entry leads.
            let mut place = base_name(asker).into_bytes();
            place.push(b'/');
            place.extend(path);
            let place = CString::new(place).map_err(|_| Errno::INVAL)?;
            return rustix::fs::openat(&self.proc, &place, flags, Mode::empty());
        }
        let root = format!("{}/root", asker.pid.as_raw_nonzero());
        let found = rustix::fs::statat(&self.proc, &root, AtFlags::empty())?;
        if (found.st_dev, found.st_ino) == self.root {
            return rustix::fs::openat(CWD, &text, flags, Mode::empty());
        }
        let root = rustix::fs::openat(&self.proc, root, PLACE, Mode::empty())?;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        open_confined(&root, text.as_c_str(), flags, Mode::empty(), how)
    }

    /// The directory that `path` names something in, and the name.
    pub(super) fn parent(&self, asker: Asker, path: &[u8]) -> Result<(OwnedFd, CString), Errno> {
        let end = path.iter().rposition(|byte| *byte != b'/').ok_or(Errno::EXIST)?;
        let path = &path[..=end];
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..=at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if name == b"." || name == b".." || own_entry(path).is_some() {
            return Err(Errno::EXIST);
        }
        let dir = self.look(asker, dir, true)?;
        Ok((dir, CString::new(name).map_err(|_| Errno::INVAL)?))
    }

    fn base(&self, asker: Asker) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.proc, base_name(asker), PLACE, Mode::empty())
    }

    /// A number of `/proc/PID/status`: the last one of its line.
    pub(super) fn status(&self, pid: Pid, name: &str, radix: u32) -> Result<u32, Errno> {
        let path = format!("{}/status", pid.as_raw_nonzero());
        let text = std::fs::read_to_string(path).map_err(|_| Errno::SRCH)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(Errno::SRCH)?;
        let last = line.split_whitespace().next_back().ok_or(Errno::SRCH)?;
        u32::from_str_radix(last, radix).map_err(|_| Errno::SRCH)
    }

    /// Whose it was wished to be; `None` for root's.
    pub(super) fn owner(&self, fd: &OwnedFd) -> Option<Owner> {
        let mut buffer = [0_u8; 32];
        if let Ok(length) = rustix::fs::getxattr(place(fd), OWNER, &mut buffer[..]) {
            return parse(&buffer[..length]);
        }
        if self.special.is_empty() {
            return None;
        }
        let stat = rustix::fs::fstat(fd).ok()?;
        self.special.get(&(stat.st_dev, stat.st_ino)).copied()
    }

    /// What `stat` is to say instead of the kernel; `None` where the kernel is right.
    pub(super) fn shown(&self, fd: &OwnedFd) -> Option<Shown> {
        let (uid, gid) = self.owner(fd)?;
        let mut buffer = [0_u8; 32];
        let node = rustix::fs::getxattr(place(fd), NODE, &mut buffer[..]);
        let device = node.ok().and_then(|length| parse_node(&buffer[..length]));
        Some(Shown { uid, gid, device })
    }

    /// Makes it somebody's, and does to it what the kernel does then: set-user-id bits and capabilities go.
    pub(super) fn give(&mut self, fd: &OwnedFd, owner: Owner) -> Result<(), Errno> {
        let (root, group) = (Some(Uid::ROOT), Some(Gid::ROOT));
        rustix::fs::chownat(fd, c"", root, group, AtFlags::EMPTY_PATH)?;
        self.record(fd, owner)
    }

    /// Remembers whose it is.
    pub(super) fn record(&mut self, fd: &OwnedFd, owner: Owner) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::RegularFile | FileType::Directory) {
            let text = format!("{}:{}", owner.0, owner.1);
            if rustix::fs::setxattr(place(fd), OWNER, text.as_bytes(), XattrFlags::empty()).is_ok() {
                return Ok(());
            }
        }
        self.special.insert(key(&stat), owner);
        Ok(())
    }

    /// Remembers which device an empty file stands for.
    pub(super) fn record_node(&self, fd: &OwnedFd, kind: char, number: u64) -> Result<(), Errno> {
        let text = format!("{kind}:{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        rustix::fs::setxattr(place(fd), NODE, text.as_bytes(), XattrFlags::empty())
    }

    /// Whose group something new in `dir` gets.
    pub(super) fn group_in(&self, dir: &OwnedFd, own: u32) -> u32 {
        const SET_GROUP_ID: u32 = 0o2000;
        let inherits = rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_mode & SET_GROUP_ID != 0);
        if inherits { self.owner(dir).map_or(0, |(_, gid)| gid) } else { own }
    }
}

const AT_FDCWD: i32 = -100;

/// What the asker's relative paths begin at, in our procfs.
fn base_name(asker: Asker) -> String {
    let pid = asker.pid.as_raw_nonzero();
    if asker.dir == AT_FDCWD { format!("{pid}/cwd") } else { format!("{pid}/fd/{}", asker.dir) }
}

/// A path to what is open, for calls that take no descriptor. From our working directory.
fn place(fd: &OwnedFd) -> String {
    format!("self/fd/{}", fd.as_raw_fd())
}

fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Opens a name in a directory without following it.
pub(super) fn open_name(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, PLACE | OFlags::NOFOLLOW, Mode::empty())
}

/// What of `/proc/PID` a path means that is another thing to everybody who asks.
///
/// Never with a way up: from the asker's directory in our procfs that would lead to the zygote's own, and out.
fn own_entry(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    for prefix in ["/proc/self/", "/proc/thread-self/"] {
        if let Some(rest) = path.strip_prefix(prefix) {
            return Some(rest.to_owned());
        }
    }
    match path {
        "/dev/stdin" => Some("fd/0".to_owned()),
        "/dev/stdout" => Some("fd/1".to_owned()),
        "/dev/stderr" => Some("fd/2".to_owned()),
        _ => path.strip_prefix("/dev/fd/").map(|rest| format!("fd/{rest}")),
    }
}

fn parse(text: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// The type bits and the number.
fn parse_node(text: &[u8]) -> Option<(u32, u64)> {
    let mut fields = std::str::from_utf8(text).ok()?.split(':');
    let kind = match fields.next()? {
        "c" => 0o020_000,
        "b" => 0o060_000,
        _ => return None,
    };
    let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((kind, rustix::fs::makedev(major, minor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_the_asker() {
        for (path, expected) in [
            ("/proc/self/fd/3", Some("fd/3")),
            ("/proc/selfish", None),
            ("/dev/stdout", Some("fd/1")),
            ("/dev/fd/7", Some("fd/7")),
            ("/proc/self/../1/root/dev", None),
            ("/dev/fd/../../1/root", None),
            ("/dev/null", None),
        ] {
            assert_eq!(own_entry(path.as_bytes()).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn attributes() {
        assert_eq!(parse(b"1000:33"), Some((1000, 33)));
        assert_eq!(parse(b"1000"), None);
        assert_eq!(parse_node(b"c:1:3"), Some((0o020_000, rustix::fs::makedev(1, 3))));
        assert_eq!(parse_node(b"x:1:3"), None);
    }
}
