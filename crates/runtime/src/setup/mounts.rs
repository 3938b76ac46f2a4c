//! The operations on mounts: from the stage to the move into the root that covers it.

use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use lapstrake_sys::mount::{Reach, restrict};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Gid, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::resolve::{self, Kind, PROC_SUPER_MAGIC};
use super::{About, Fault, Setup};
use crate::plan::{Attr, Base, FROZEN_PROC, Fs, MASKED_PROC, Place, Source};
use crate::spec::WindowSize;
use crate::wire::{self, Report};

/// In the zygote's root; see `zygote_root.rs`.
const STAGE: &CStr = c"/stage";
const SYS: &CStr = c"/sys";

/// Directory of the stage that stays empty.
const VOID: &CStr = c"void";

const LOCKED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

impl Setup<'_> {
    /// Covers the stage with the root.
    pub(super) fn attach_root(&mut self, attrs: &[Attr]) -> Result<(), Fault> {
        let root = self.root()?;
        restrict(root, flags(attrs), Reach::Tree)?;
        Ok(rustix::mount::move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    pub(super) fn mount_staging(&mut self) -> Result<(), Fault> {
        let stage = new(&Fs::Tmpfs { size: None, mode: 0o700 }, &[Attr::Nosuid, Attr::Nodev, Attr::Noexec])?;
        rustix::mount::move_mount(&stage, c"", CWD, STAGE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        for name in [VOID, c"proc", c"dev", c"sys"] {
            rustix::fs::mkdirat(&stage, name, Mode::from(0o755))?;
        }
        self.stage = Some(stage);
        Ok(())
    }

    /// From here on the mount namespace has nothing but the stage and what is on it.
    pub(super) fn pivot_to_staging(&mut self) -> Result<(), Fault> {
        rustix::process::fchdir(self.stage()?)?;
        rustix::process::pivot_root(c".", c".")?;
        // The old root is stacked on the new one, and "." is still what it was.
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir(c"/")?)
    }

    pub(super) fn install(&mut self, name: &str) -> Result<(), Fault> {
        let mount = match name {
            "proc" => &self.proc,
            "dev" => &self.dev,
            _ => &self.sys,
        };
        let path = format!("/{name}");
        let mount = mount.as_ref().ok_or(Errno::NXIO).about(&path)?;
        let root = self.root()?;
        let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let target = match resolve::find(root, name, how) {
            Err(Errno::NOENT) => {
                resolve::ensure(root, name, Kind::Directory, &mut |made| self.report_stub(made))
            }
            found => found,
        };
        attach(mount, &target.about(&path)?).about(&path)
    }

    pub(super) fn stage_file(
        &mut self,
        slot: usize,
        data: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Fault> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.stage()?, file_name(slot), flags, Mode::from(0o600))?;
        let mut file = std::fs::File::from(file);
        file.write_all(data).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .about(&format!("(owner {uid}:{gid})"))?;
        }
        rustix::fs::fchmod(&file, Mode::from_bits_truncate(mode))?;
        self.files.push((slot, clone(self.stage()?, file_name(slot))?));
        Ok(())
    }

    pub(super) fn stage_source(&mut self, index: usize) -> Result<(), Fault> {
        let source = self.source(index)?;
        let (stage, name) = (self.stage()?, source_name(index));
        if is_directory(&source)? {
            rustix::fs::mkdirat(stage, &name, Mode::from(0o700))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::openat(stage, &name, flags, Mode::from(0o600))?);
        }
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&source, c"", stage, &name, empty)?;
        self.staged.push(index);
        Ok(())
    }

    pub(super) fn mount(&mut self, fs: &Fs, at: &Place, attrs: &[Attr]) -> Result<(), Fault> {
        let path = &at.path;
        if *fs == Fs::Cgroup && !self.unified_cgroups {
            return Ok(());
        }
        let mount = match (fs, new(fs, attrs)) {
            // sysfs shows the network namespace, and belongs to whoever owns that one.
            (Fs::Sys, Err(Errno::PERM)) => host_sys(attrs).about(path)?,
            // Optional parts of a kernel; a container can do without.
            (Fs::Cgroup, Err(_)) | (Fs::Mqueue, Err(Errno::NODEV)) => return Ok(()),
            (_, mount) => mount.about(path)?,
        };
        self.attach_at(&mount, at, Kind::Directory)?;
        match (fs, at.base, path.as_str()) {
            (Fs::Proc, ..) => self.proc = Some(mount),
            (Fs::Sys, ..) => self.sys = Some(mount),
            (Fs::Devpts, ..) => self.pts = Some(mount),
            (_, Base::Kit, "dev") => self.dev = Some(mount),
            (_, Base::Dev, "shm") => wire::send(&self.channel, &Report::Shm, &[mount.as_fd()])?,
            _ => {}
        }
        Ok(())
    }

    /// Attaches a mount in the directory of devices. That is ours and fresh, so a name in it is made blindly; what is
    /// there, or lies deeper, is looked for as in any root.
    pub(super) fn attach_in_dev(&self, mount: &OwnedFd, name: &str, kind: Kind) -> Result<(), Errno> {
        let (dev, place) = (self.dev()?, CString::new(name).map_err(|_| Errno::INVAL)?);
        let made = match kind {
            _ if name.is_empty() || name.contains('/') => Err(Errno::EXIST),
            Kind::Directory => rustix::fs::mkdirat(dev, &place, Mode::from(0o755)),
            Kind::File => rustix::fs::mknodat(dev, &place, FileType::RegularFile, Mode::from(0o644), 0),
        };
        match made {
            Ok(()) => {
                let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(mount, c"", dev, &place, empty)
            }
            Err(Errno::EXIST) => attach(mount, resolve::ensure(dev, name, kind, &mut |_| Ok(()))?),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn symlink(&mut self, name: &str, target: &str) -> Result<(), Fault> {
        rustix::fs::symlinkat(target, self.dev()?, name).about(&format!("/dev/{name}"))
    }

    pub(super) fn bind(&mut self, source: &Source, at: &Place, attrs: &[Attr]) -> Result<(), Fault> {
        let path = format!("/{}", at.path);
        let mount = match source {
            Source::Fd { index } => self.source(*index)?,
            Source::File { slot } => {
                let found = self.files.iter().position(|(staged, _)| staged == slot);
                self.files.swap_remove(found.ok_or(Errno::NXIO).about(&path)?).1
            }
            Source::Part { index, path: part } => {
                let whole = find_plain(self.stage()?, &source_name(*index))?;
                let found = resolve::find(&whole, part, ResolveFlags::empty()).about(part)?;
                clone_fd(&found).about(part)?
            }
        };
        let is_file = matches!(source, Source::File { .. });
        let kind = if !is_file && is_directory(&mount).about(&path)? { Kind::Directory } else { Kind::File };
        restrict(&mount, flags(attrs), Reach::Tree).about(&path)?;
        self.attach_at(&mount, at, kind)
    }

    pub(super) fn mask(&mut self, at: &Place) -> Result<(), Fault> {
        let Some(target) = self.existing(at)? else { return Ok(()) };
        let cover = if is_directory(&target).about(&at.path)? {
            clone(self.stage()?, VOID).about(&at.path)?
        } else {
            self.null().about("/dev/null")?
        };
        restrict(&cover, LOCKED.difference(MountAttrFlags::MOUNT_ATTR_NODEV), Reach::One).about(&at.path)?;
        attach(&cover, &target).about(&at.path)
    }

    pub(super) fn remount_readonly(&mut self, at: &Place) -> Result<(), Fault> {
        let Some(target) = self.existing(at)? else { return Ok(()) };
        freeze_at(&target).about(&at.path)
    }

    /// The kernel keeps owner, group and permissions of these files once for all mounts of `/proc`.
    pub(super) fn remount_proc_readonly(&mut self) -> Result<(), Fault> {
        let proc = self.proc.as_ref().ok_or(Errno::NXIO).about("/proc")?;
        let version =
            rustix::fs::statat(proc, c"version", AtFlags::SYMLINK_NOFOLLOW).about("/proc/version")?;
        // In a user namespace they belong to nobody who could be in it.
        if version.st_uid != 0 {
            return Ok(());
        }
        let held = |name: &[u8]| MASKED_PROC.iter().chain(&FROZEN_PROC).any(|known| known.as_bytes() == name);
        let list = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = rustix::fs::openat(proc, c".", list, Mode::empty()).about("/proc")?;
        for entry in Dir::new(list).about("/proc")? {
            let entry = entry.about("/proc")?;
            let name = entry.file_name();
            let of_process = name.to_bytes().first().is_none_or(u8::is_ascii_digit);
            let plain = matches!(entry.file_type(), FileType::RegularFile | FileType::Directory);
            if !plain || of_process || name.to_bytes().starts_with(b".") || held(name.to_bytes()) {
                continue;
            }
            let freeze = || freeze_at(find_plain(proc, name)?);
            freeze().about(&format!("/proc/{}", name.to_string_lossy()))?;
        }
        Ok(())
    }

    /// Goes on with a copy of the whole tree whose top alone is read-only. The original stays writable, so that what
    /// has been made in it can be removed after the exit.
    pub(super) fn remount_root_readonly(&mut self) -> Result<(), Fault> {
        let copy = clone_fd(self.root()?)?;
        restrict(&copy, MountAttrFlags::MOUNT_ATTR_RDONLY, Reach::One)?;
        attach(&copy, self.root()?)?;
        self.root = Some(copy);
        Ok(())
    }

    pub(super) fn session(&mut self, terminal: Option<WindowSize>, uid: Option<u32>) -> Result<(), Fault> {
        // Fails only for the leader of a process group, which a fresh process is not.
        rustix::process::setsid()?;
        if let Some(size) = terminal {
            self.open_terminal(size, uid)?;
        }
        let [stdin, stdout, stderr] = self.stdio.take().ok_or(Errno::BADF)?;
        rustix::stdio::dup2_stdin(&self.own_stream(stdin)?)?;
        rustix::stdio::dup2_stdout(&self.own_stream(stdout)?)?;
        Ok(rustix::stdio::dup2_stderr(&self.own_stream(stderr)?)?)
    }

    /// A terminal of the container's own; its other side is opened through the master, not by its name.
    fn open_terminal(&mut self, size: WindowSize, uid: Option<u32>) -> Result<(), Fault> {
        let pts = self.pts.as_ref().ok_or(Errno::NXIO)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(pts, c"ptmx", flags, Mode::empty()).about("/dev/ptmx")?;
        rustix::pty::unlockpt(&master).about("/dev/ptmx")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).about("/dev/ptmx")?;
        // Now, not by the caller once it has the master: a program that asks at once would be told nothing.
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).about("/dev/console")?;
        rustix::fs::fchown(&slave, uid.map(Uid::from_raw), None).about("/dev/console")?;
        // A further process of a container leaves the console to the first.
        if self.dev.is_some() {
            let console = clone_fd(&slave).about("/dev/console")?;
            self.attach_in_dev(&console, "console", Kind::File).about("/dev/console")?;
        }
        rustix::process::ioctl_tiocsctty(&slave).about("/dev/console")?;
        wire::send(&self.channel, &Report::Terminal, &[master.as_fd()])?;
        let again = || rustix::io::fcntl_dupfd_cloexec(&slave, 3);
        self.stdio = Some([again()?, again()?, slave]);
        Ok(())
    }

    /// The stage stays beneath the root: `..` does not lead from the root of a mount to what it covers, and there is
    /// nothing of the machine there. Going with `pivot_root` would take the unmounting of it, and that waits until every
    /// processor has noticed. Only what the container may see parts of and not the whole is taken away first.
    pub(super) fn pivot_to_root(&mut self) -> Result<(), Fault> {
        for index in &self.staged {
            let path = [b"/", source_name(*index).as_bytes()].concat();
            rustix::mount::unmount(path, UnmountFlags::DETACH)?;
        }
        rustix::process::fchdir(self.root()?)?;
        Ok(rustix::process::chroot(c".")?)
    }

    /// Attaches a mount at its place, which is made if it is missing.
    pub(super) fn attach_at(&self, mount: &OwnedFd, at: &Place, kind: Kind) -> Result<(), Fault> {
        let path = &at.path;
        let target = match at.base {
            Base::Dev => return self.attach_in_dev(mount, path, kind).about(&format!("/dev/{path}")),
            Base::Root => self.in_root(path, kind)?,
            Base::Kit => find_plain(self.stage()?, &name(path)).about(path)?,
            Base::Proc | Base::Sys => match self.existing(at)? {
                Some(target) => target,
                None => return Err(Errno::NOENT).about(path),
            },
        };
        attach(mount, &target).about(&format!("/{path}"))
    }

    /// Opens the place in the root that something is to be mounted at.
    fn in_root(&self, path: &str, kind: Kind) -> Result<OwnedFd, Fault> {
        let path = format!("/{path}");
        let mut made = |made: &resolve::Made<'_>| self.report_stub(made);
        let target = resolve::ensure(self.root()?, &path, kind, &mut made).about(&path)?;
        // Through a symlink of the image: mounts there could fool whoever reads /proc (CVE-2025-52881).
        if rustix::fs::fstatfs(&target).about(&path)?.f_type == PROC_SUPER_MAGIC {
            return Err(Errno::PERM).about(&path);
        }
        // Of two files of different types one cannot cover the other, and the kernel's word is EINVAL.
        match (is_directory(&target).about(&path)?, kind) {
            (true, Kind::File) => Err(Errno::ISDIR).about(&path),
            (false, Kind::Directory) => Err(Errno::NOTDIR).about(&path),
            _ => Ok(target),
        }
    }

    /// Opens a place in one of the kernel's own file systems.
    fn existing(&self, at: &Place) -> Result<Option<OwnedFd>, Fault> {
        let base = match at.base {
            Base::Proc => &self.proc,
            Base::Sys => &self.sys,
            Base::Dev => &self.dev,
            Base::Root | Base::Kit => return Err(Errno::INVAL).about(&at.path),
        };
        let base = base.as_ref().ok_or(Errno::NXIO).about(&at.path)?;
        match resolve::find(base, &at.path, ResolveFlags::NO_SYMLINKS) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno).about(&at.path),
        }
    }

    pub(super) fn source(&mut self, index: usize) -> Result<OwnedFd, Errno> {
        self.sources.get_mut(index).and_then(Option::take).ok_or(Errno::BADF)
    }

    fn root(&self) -> Result<&OwnedFd, Errno> {
        self.root.as_ref().ok_or(Errno::NXIO)
    }

    pub(super) fn stage(&self) -> Result<&OwnedFd, Errno> {
        self.stage.as_ref().ok_or(Errno::NXIO)
    }

    pub(super) fn dev(&self) -> Result<&OwnedFd, Errno> {
        self.dev.as_ref().ok_or(Errno::NXIO)
    }
}

/// A fresh file system, mounted nowhere.
fn new(fs: &Fs, attrs: &[Attr]) -> Result<OwnedFd, Errno> {
    let attrs = flags(attrs);
    match fs {
        Fs::Proc => configure(c"proc", &[], attrs),
        Fs::Sys => configure(c"sysfs", &[], attrs),
        Fs::Cgroup => configure(c"cgroup2", &[], attrs),
        Fs::Mqueue => configure(c"mqueue", &[], attrs),
        Fs::Tmpfs { size, mode } => {
            let mut options = vec![(c"mode", format!("{mode:o}"))];
            options.extend(size.map(|size| (c"size", size.to_string())));
            configure(c"tmpfs", &options, attrs)
        }
        Fs::Devpts => {
            let mut options = vec![(c"ptmxmode", "0666".to_owned()), (c"mode", "0620".to_owned())];
            options.push((c"gid", "5".to_owned()));
            match configure(c"devpts", &options, attrs) {
                // A user namespace of one id has no group 5.
                Err(Errno::INVAL) => configure(c"devpts", &options[..2], attrs),
                other => other,
            }
        }
    }
}

fn configure(name: &CStr, options: &[(&CStr, String)], attrs: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// Makes what is open read-only, by a mount of it over itself.
fn freeze_at(target: impl AsFd) -> Result<(), Errno> {
    let part = clone_fd(&target)?;
    restrict(&part, LOCKED, Reach::Tree)?;
    attach(&part, &target)
}

fn host_sys(attrs: &[Attr]) -> Result<OwnedFd, Errno> {
    let sys = clone(CWD, SYS)?;
    restrict(&sys, flags(attrs), Reach::Tree)?;
    Ok(sys)
}

/// A mount of what is at a trusted path, with all that is mounted in it.
pub(super) fn clone(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(at, path, CLONE)
}

/// A mount of what is open.
fn clone_fd(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(fd, c"", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
}

const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

fn find_plain(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", empty)
}

fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn flags(attrs: &[Attr]) -> MountAttrFlags {
    attrs.iter().fold(MountAttrFlags::empty(), |flags, attr| {
        flags
            | match attr {
                Attr::Readonly => MountAttrFlags::MOUNT_ATTR_RDONLY,
                Attr::Nosuid => MountAttrFlags::MOUNT_ATTR_NOSUID,
                Attr::Nodev => MountAttrFlags::MOUNT_ATTR_NODEV,
                Attr::Noexec => MountAttrFlags::MOUNT_ATTR_NOEXEC,
            }
    })
}

fn name(path: &str) -> CString {
    CString::new(path).unwrap_or_default()
}

fn file_name(slot: usize) -> CString {
    CString::new(format!("file{slot}")).expect("a number has no NUL")
}

fn source_name(index: usize) -> CString {
    CString::new(format!("source{index}")).expect("a number has no NUL")
}
