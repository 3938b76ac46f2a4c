//! Overlays by `mount(2)`, for kernels before 6.5: their `fsconfig` takes no layer by itself, and no value of more than
//! 256 bytes.
//!
//! That call wants a place in a mount namespace, and the main process attaches no mount. So a thread gets a namespace of
//! its own for the moment, mounts there, and takes a clone along that is attached nowhere. Layers are named by descriptor:
//! one page has to hold them all, and a path may have any character.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use lapstrake_sys::namespace::unshare;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags};
use rustix::thread::UnshareFlags;

use crate::error::SnapshotError;

/// The kernel reads one page of options.
const MOST_OPTIONS: usize = 4095;

/// As [`crate::mount`], for at least one layer.
pub(crate) fn overlay(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[&str],
) -> Result<OwnedFd, SnapshotError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || apart(lowers, upper, flags));
        let thread = thread.map_err(|source| SnapshotError::Mount { step: "starting a thread", source })?;
        thread.join().map_err(|_| refused("mounting it")(Errno::IO))?
    })
}

fn refused(step: &'static str) -> impl Fn(Errno) -> SnapshotError {
    move |errno| SnapshotError::Mount { step, source: errno.into() }
}

/// Runs on a thread that ends with it.
fn apart(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[&str],
) -> Result<OwnedFd, SnapshotError> {
    unshare(UnshareFlags::NEWNS).map_err(refused("making a mount namespace"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private).map_err(refused("making mounts private"))?;
    // In this namespace: overlayfs takes no directory of another.
    let open = |path: &Path| {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, how, Mode::empty())
            .map_err(|errno| SnapshotError::Directory { path: path.to_owned(), source: errno.into() })
    };
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let below = lowers.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = below.iter().map(name).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    let above = match upper {
        Some((upper, work)) => Some((open(upper)?, open(work)?)),
        None => None,
    };
    if let Some((upper, work)) = &above {
        options += &format!(",upperdir={},workdir={}", name(upper), name(work));
    }
    for flag in flags {
        options = options + "," + flag;
    }
    if options.len() > MOST_OPTIONS {
        let limit = lowers.len() * MOST_OPTIONS / options.len();
        return Err(SnapshotError::TooMany { count: lowers.len(), limit });
    }
    let options = CString::new(options).map_err(|_| refused("naming the layers")(Errno::INVAL))?;
    let [place, ..] = lowers else { return Err(refused("naming the layers")(Errno::INVAL)) };
    let flags = MountFlags::empty();
    rustix::mount::mount(c"overlay", place, c"overlay", flags, Some(options.as_c_str()))
        .map_err(refused("mounting it"))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, place, clone).map_err(refused("taking it along"))
}
