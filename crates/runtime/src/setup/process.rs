//! The operations on the process itself, from inside the root: limits, directory, ids, capabilities, filter, program.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use lapstrake_sys::{fd, process};
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::resolve::{self, Kind};
use super::{About, Fault};
use crate::ids;
use crate::spec::DEFAULT_PATH;
use crate::spec::{Rlimit, User};

pub(super) fn limit(limit: &Rlimit) -> Result<(), Fault> {
    let new = rustix::process::Rlimit { current: limit.soft, maximum: limit.hard };
    Ok(rustix::process::setrlimit(limit.resource.kernel(), new)?)
}

/// What is missing belongs to the user, as if `WORKDIR` had made it.
pub(super) fn cwd(path: &str, (uid, gid): (u32, u32), record: bool) -> Result<(), Fault> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .about("/")?;
    let mut owned = |made: &resolve::Made<'_>| {
        if record {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(made.parent, made.name, flags, Mode::empty())?;
            let owner = format!("{uid}:{gid}");
            return rustix::fs::fsetxattr(&made, ids::OWNER, owner.as_bytes(), XattrFlags::empty());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(made.parent, made.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    };
    let directory = resolve::ensure(&root, path, Kind::Directory, &mut owned).about(path)?;
    rustix::process::fchdir(&directory).about(path)?;
    // The kernel says "(unreachable)…" or nothing at all of a directory outside the root (CVE-2024-21626).
    let inside = rustix::process::getcwd(Vec::new()).about(path)?;
    if inside.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::XDEV).about(path) }
}

pub(super) fn bounding_set(keep: u64) -> Result<(), Fault> {
    for bit in (0..64).filter(|bit| keep & (1 << bit) == 0) {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the last one that this kernel has.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whatever descriptor or link a program finds, it opens nothing that is not beneath its root.
pub(super) fn landlock() -> Result<(), Fault> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .about("/")?;
    lapstrake_sys::landlock::keep_beneath(&root)?;
    Ok(())
}

/// `proc` is the mount made for `/proc`; what is found by that name could be anything.
pub(super) fn become_user(user: &User, proc: Option<&OwnedFd>) -> Result<(), Fault> {
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A user namespace of one id keeps the groups of its maker, and has no others that could be given.
        Err(Errno::PERM) if proc.is_some_and(forbidden) => {}
        result => result.about(&format!("(groups {:?})", user.groups))?,
    }
    rustix::thread::set_keep_capabilities(true)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).about(&format!("(gid {})", user.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).about(&format!("(uid {})", user.uid))
}

/// Whether the user namespace gave up setting groups, as one of a single id has to.
fn forbidden(proc: &OwnedFd) -> bool {
    let file = rustix::fs::openat(proc, c"self/setgroups", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let text = file.and_then(|file| {
        let mut text = [0; 16];
        rustix::io::read(&file, &mut text).map(|length| text[..length].trim_ascii() == b"deny")
    });
    text.unwrap_or(false)
}

pub(super) fn capabilities(keep: u64, ambient: bool) -> Result<(), Fault> {
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let kept = permitted.intersection(CapabilitySet::from_bits_retain(keep));
    let inheritable = if ambient { kept } else { CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    if ambient {
        for bit in (0..64).filter(|bit| kept.bits() & (1 << bit) != 0) {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            rustix::thread::configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}

/// Comes back only with the reason why not.
pub(super) fn exec(args: &[String], env: &[String]) -> Result<(), Fault> {
    let strings = |all: &[String]| -> Result<Vec<CString>, Fault> {
        all.iter().map(|one| CString::new(one.as_str()).map_err(|_| Fault::from(Errno::INVAL))).collect()
    };
    let (argv, envp) = (strings(args)?, strings(env)?);
    let program = args.first().ok_or(Errno::INVAL)?;
    fd::cloexec_from(3)?;
    if program.contains('/') {
        let path = CString::new(program.as_str()).map_err(|_| Errno::INVAL)?;
        return process::exec(&path, &argv, &envp).map(drop).about(program);
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut reason = Errno::NOENT;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = CString::new(format!("{directory}/{program}")).map_err(|_| Errno::INVAL)?;
        match process::exec(&candidate, &argv, &envp) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => {}
            // Another directory may have one that can be run.
            Err(Errno::ACCESS) => reason = Errno::ACCESS,
            other => return other.map(drop).about(program),
        }
    }
    Err(reason).about(program)
}
