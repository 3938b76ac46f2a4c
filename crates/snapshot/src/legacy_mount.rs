//! Mounts for kernels that cannot do it as we like it.
//!
//! Overlays by `mount(2)`, before 6.5: there `fsconfig` takes no layer by itself, and no value of more than 256 bytes.
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
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::UnshareFlags;

use crate::error::SnapshotError;

/// The kernel reads one page of options.
const MOST_OPTIONS: usize = 4095;

/// As [`crate::mount()`], for at least one layer.
pub(crate) fn overlay(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[&str],
) -> Result<OwnedFd, SnapshotError> {
    apart(|| attach(lowers, upper, flags))
}

/// Two clones of `mount`, which is attached nowhere: before 6.15 such a mount can be attached once and not be cloned.
/// `place` is any directory; nobody else sees what happens there.
pub(crate) fn clone_pair(mount: &OwnedFd, place: &Path) -> Result<(OwnedFd, OwnedFd), SnapshotError> {
    apart(|| {
        rustix::mount::move_mount(mount, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(refused("attaching it"))?;
        Ok((taken(place)?, taken(place)?))
    })
}

/// Does something on a thread with a mount namespace of its own, which end with it.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, SnapshotError> + Send) -> Result<T, SnapshotError> {
    let inside = || {
        unshare(UnshareFlags::NEWNS).map_err(refused("making a mount namespace"))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private).map_err(refused("making mounts private"))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, inside);
        let thread = thread.map_err(|source| SnapshotError::Mount { step: "starting a thread", source })?;
        thread.join().map_err(|_| refused("mounting it")(Errno::IO))?
    })
}

/// A clone of the mount at `place`, attached nowhere.
fn taken(place: &Path) -> Result<OwnedFd, SnapshotError> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, place, clone).map_err(refused("taking it along"))
}

/// Mounts the overlay on its lowest layer, in the namespace of the moment.
fn attach(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[&str],
) -> Result<OwnedFd, SnapshotError> {
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
    taken(place)
}

fn refused(step: &'static str) -> impl Fn(Errno) -> SnapshotError {
    move |errno| SnapshotError::Mount { step, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mount::tests::places;

    #[test]
    fn a_twin_shows_what_was_done_through_the_other() {
        let Some((_temp, [low, upper, work, place])) = places(["low", "upper", "work", "place"]) else {
            return;
        };
        let one = overlay(&[low], Some((&upper, &work)), &["userxattr", "volatile"]).unwrap();
        let (first, second) = clone_pair(&one, &place).unwrap();
        drop(one);
        rustix::fs::mkdirat(&first, "made", Mode::RWXU).unwrap();
        drop(first);
        assert!(rustix::fs::statat(&second, "made", rustix::fs::AtFlags::empty()).is_ok());
        assert!(upper.join("made").is_dir());
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}
