//! What the zygote sees of the machine: a root of its own with next to nothing in it.
//!
//! ```text
//! /       tmpfs, read-only
//! /proc   of the zygote's pid namespace; one has to be visible for a container to be given its own
//! /dev    the host's, to bind devices from
//! /sys    the host's, where the zygote is in a user namespace and a container may not have its own
//! /stage  where a container puts what it is made of
//! ```
//! A container's mount namespace starts as a copy of this, and then has nothing but its stage. So nothing of the host is
//! within its reach even before it has moved into its root, and the copy is cheap.

use std::os::fd::OwnedFd;

use lapstrake_sys::mount::{Reach, restrict};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::wire::StartError;

/// A step of the zygote's own start that failed.
type Start<T> = Result<T, StartError>;

const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// What has been learnt about the machine on the way.
#[derive(Debug)]
pub(crate) struct ZygoteRoot {
    /// Whether the host's control groups are version 2 and nothing else.
    pub(crate) unified_cgroups: bool,
}

/// Replaces the machine's tree by the small one.
pub(crate) fn shrink() -> Start<ZygoteRoot> {
    let unified_cgroups =
        rustix::fs::statfs(c"/sys/fs/cgroup").is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC);
    private()?;
    let root = memory()?;
    for name in [c"proc", c"dev", c"sys", c"stage"] {
        rustix::fs::mkdirat(&root, name, Mode::from(0o755)).map_err(start_error("make the zygote's root"))?;
    }
    let dev = whole(c"/dev").map_err(start_error("bind /dev"))?;
    let sys = if is_initial_user_namespace() { None } else { whole(c"/sys").ok() };
    let proc = proc_fs()?;
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&root, c"", CWD, c"/", here).map_err(start_error("mount the zygote's root"))?;
    let mounts = [(Some(dev), c"dev"), (sys, c"sys"), (Some(proc), c"proc")];
    for (mount, name) in mounts.into_iter().filter_map(|(mount, name)| Some((mount?, name))) {
        rustix::mount::move_mount(&mount, c"", &root, name, here)
            .map_err(start_error("fill the zygote's root"))?;
    }
    rustix::process::fchdir(&root).map_err(start_error("enter the zygote's root"))?;
    rustix::process::pivot_root(c".", c".").map_err(start_error("enter the zygote's root"))?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
        .map_err(start_error("let go of the machine's tree"))?;
    rustix::process::chdir(c"/").map_err(start_error("enter the zygote's root"))?;
    restrict(&root, MountAttrFlags::MOUNT_ATTR_RDONLY, Reach::One)
        .map_err(start_error("make the zygote's root read-only"))?;
    Ok(ZygoteRoot { unified_cgroups })
}

/// Nothing that is mounted from here on shows up outside.
fn private() -> Start<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", flags).map_err(start_error("make the mounts private"))
}

fn memory() -> Start<OwnedFd> {
    let make = || {
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"mode", c"755")?;
        rustix::mount::fsconfig_create(&context)?;
        let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
    };
    make().map_err(start_error("make the zygote's root"))
}

fn proc_fs() -> Start<OwnedFd> {
    let make = || {
        let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
    };
    make().map_err(start_error("mount /proc (inside a container, its /proc has to be unmasked)"))
}

/// A tree with all that is mounted in it: in a user namespace the parts cannot be had without each other.
fn whole(path: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

fn is_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Says what was being done when the kernel refused.
pub(crate) fn start_error(action: &'static str) -> impl Fn(Errno) -> StartError {
    move |errno| StartError { action: action.to_owned(), errno: errno.raw_os_error() }
}
