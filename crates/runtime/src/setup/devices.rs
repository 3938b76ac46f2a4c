//! Device nodes: the container's own where they can be made. Elsewhere they are the host's, by mounts that are read-only:
//! devices can be written to through such a mount, and nobody can change their owner, permissions and times.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};

use lapstrake_sys::mount::{Reach, change, restrict};
use rustix::fs::{CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mounts::clone;
use super::resolve::Kind;
use super::{About, Fault, Setup};
use crate::plan::{PLAIN, Place};

/// What a mount of a device node cannot do.
const HELD: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// What makes up a device node.
struct Node {
    kind: FileType,
    number: Dev,
    mode: Mode,
    owner: (Uid, Gid),
}

impl Node {
    /// One that every container has.
    fn plain((major, minor): (u32, u32)) -> Self {
        let owner = (Uid::ROOT, Gid::ROOT);
        let number = rustix::fs::makedev(major, minor);
        Self { kind: FileType::CharacterDevice, number, mode: Mode::from(0o666), owner }
    }

    fn like(stat: &Stat) -> Result<Self, Errno> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(Errno::NODEV);
        }
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        Ok(Self { kind, number: stat.st_rdev, mode: Mode::from_raw_mode(stat.st_mode), owner })
    }

    fn is(&self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.kind && stat.st_rdev == self.number
    }
}

impl Setup<'_> {
    pub(super) fn device(&mut self, name: &str, number: Option<(u32, u32)>) -> Result<(), Fault> {
        let path = format!("/dev/{name}");
        let node = match number {
            Some(number) => Node::plain(number),
            None => match rustix::fs::stat(&path) {
                Err(Errno::NOENT) => return Ok(()),
                found => found.and_then(|found| Node::like(&found)).about(&path)?,
            },
        };
        let mount = match self.own(&node) {
            Err(Errno::PERM) => of_host(&path, &node),
            made => made,
        };
        self.attach_in_dev(&mount.about(&path)?, name, Kind::File).about(&path)
    }

    pub(super) fn node(&mut self, index: usize, at: &Place) -> Result<(), Fault> {
        let path = format!("/{}", at.path);
        let source = self.source(index).about(&path)?;
        let node = rustix::fs::fstat(&source).and_then(|found| Node::like(&found)).about(&path)?;
        let mount = match self.own(&node) {
            Err(Errno::PERM) => read_only(source),
            made => made,
        };
        self.attach_at(&mount.about(&path)?, at, Kind::File)
    }

    /// A mount of a node that is made for this container; `EPERM` where none can be made.
    ///
    /// It lies on the stage, which lets no device work, as does `/dev` itself: a node that the program makes is dead.
    fn own(&mut self, node: &Node) -> Result<OwnedFd, Errno> {
        let stage = self.stage()?;
        let name = CString::new(format!("node{}", self.nodes)).map_err(|_| Errno::INVAL)?;
        rustix::fs::mknodat(stage, &name, node.kind, node.mode, node.number)?;
        let (uid, gid) = node.owner;
        if (uid, gid) != (Uid::ROOT, Gid::ROOT) {
            rustix::fs::chownat(stage, &name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let mount = clone(stage, &name)?;
        change(&mount, HELD, MountAttrFlags::MOUNT_ATTR_NODEV, Reach::One)?;
        self.nodes += 1;
        Ok(mount)
    }

    /// A mount of the null device, which masks files. Taken from the container's own devices before anybody could change
    /// them (CVE-2025-31133).
    pub(super) fn null(&self) -> Result<OwnedFd, Errno> {
        let null = clone(self.dev()?, c"null")?;
        let stat = rustix::fs::fstat(&null)?;
        if Node::plain(PLAIN[0].1).is(&stat) { Ok(null) } else { Err(Errno::NODEV) }
    }

    /// A standard stream for the program: a device of the host's becomes the container's of the same number, as whoever
    /// has it open could change its owner and permissions.
    pub(super) fn own_stream(&self, stream: OwnedFd) -> Result<OwnedFd, Fault> {
        let stat = rustix::fs::fstat(&stream)?;
        let is = |(_, number): &&(&str, (u32, u32))| number.0 == 1 && Node::plain(*number).is(&stat);
        let Some((name, number)) = PLAIN.iter().find(is) else { return Ok(stream) };
        let flags = rustix::fs::fcntl_getfl(&stream)? & (OFlags::RWMODE | OFlags::APPEND | OFlags::NONBLOCK);
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = match &self.dev {
            Some(dev) => rustix::fs::openat(dev, *name, flags, Mode::empty()),
            None => self.open_found(name, &Node::plain(*number), flags),
        };
        opened.about(&format!("/dev/{name}"))
    }

    /// The device `name` of a container that runs. By now another thing may be in its place.
    fn open_found(&self, name: &str, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = format!("/dev/{name}");
        let found = OFlags::PATH | OFlags::CLOEXEC;
        let found = rustix::fs::openat2(CWD, path, found, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        if !node.is(&rustix::fs::fstat(&found)?) {
            return Err(Errno::NODEV);
        }
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        rustix::fs::openat(proc, format!("self/fd/{}", found.as_raw_fd()), flags, Mode::empty())
    }
}

/// The host's node of this path, which has to be the one that is meant.
fn of_host(path: &str, node: &Node) -> Result<OwnedFd, Errno> {
    let mount = clone(CWD, path)?;
    let stat = rustix::fs::fstat(&mount)?;
    if node.is(&stat) { read_only(mount) } else { Err(Errno::NODEV) }
}

fn read_only(mount: OwnedFd) -> Result<OwnedFd, Errno> {
    restrict(&mount, HELD.union(MountAttrFlags::MOUNT_ATTR_RDONLY), Reach::One)?;
    Ok(mount)
}
