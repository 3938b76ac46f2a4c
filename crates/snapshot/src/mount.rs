//! Mounts that are descriptors: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, `open_tree(2)`.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use lapstrake_sys::kernel;
use lapstrake_sys::mount::{Reach, change};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::error::SnapshotError;
use crate::legacy_mount;

/// The most lower layers that overlayfs takes.
pub const MAX_LAYERS: usize = 500;

/// The longest value that `fsconfig(2)` takes as a string, in bytes.
const LONGEST_VALUE: usize = 255;

/// Mounts `lowers` (lowest first, at least one) on top of each other, with `upper` (and its work directory) as what is
/// written to; without one nobody may write to the mount. Attached nowhere.
///
/// # Errors
/// [`SnapshotError::TooMany`], [`SnapshotError::Mount`].
pub fn mount(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, SnapshotError> {
    if lowers.len() > MAX_LAYERS {
        return Err(SnapshotError::TooMany { count: lowers.len(), limit: MAX_LAYERS });
    }
    // Overlayfs wants two layers where nothing is written: one alone is shown as it is.
    if let ([only], None) = (lowers, upper) {
        return bind(only);
    }
    let flags = flags(upper.is_some());
    match Way::now() {
        Way::Classic => legacy_mount::overlay(lowers, upper, flags),
        Way::ByLayer => by_layer(lowers, upper, flags),
        Way::Unknown => first(lowers, upper, flags),
    }
}

/// Mounts, and finds out how that is done here: a kernel that says it is new may yet not know the word `lowerdir+`.
fn first(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[&str],
) -> Result<OwnedFd, SnapshotError> {
    let refused = |error: &SnapshotError| match error {
        SnapshotError::Mount { source, .. } => source.raw_os_error() == Some(Errno::INVAL.raw_os_error()),
        _ => false,
    };
    match by_layer(lowers, upper, flags) {
        Err(error) if refused(&error) => {
            let made = legacy_mount::overlay(lowers, upper, flags)?;
            Way::Classic.is_it();
            Ok(made)
        }
        Err(error) => Err(error),
        Ok(made) => {
            Way::ByLayer.is_it();
            Ok(made)
        }
    }
}

/// `mount`, which is attached nowhere, and another one of the same. `place` is any directory.
pub(crate) fn clone_pair(mount: OwnedFd, place: &Path) -> Result<(OwnedFd, OwnedFd), SnapshotError> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match open_tree(&mount, "", clone) {
        Ok(twin) => Ok((mount, twin)),
        Err(_) => legacy_mount::clone_pair(&mount, place),
    }
}

/// Each layer by itself, as kernels from 6.5 on take them. Older ones refuse the first, or take whatever they are told
/// and refuse in the end.
fn by_layer(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[&str],
) -> Result<OwnedFd, SnapshotError> {
    let refused = |step| move |e: Errno| SnapshotError::Mount { step, source: e.into() };
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("opening overlayfs"))?;
    let set = |key: &str, path: &Path, step| {
        let named = Named::new(path)?;
        fsconfig_set_string(fs.as_fd(), key, named.path()).map_err(refused(step))
    };
    for lower in lowers.iter().rev() {
        set("lowerdir+", lower, "adding a layer")?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper, "setting the upper directory")?;
        set("workdir", work, "setting the work directory")?;
    }
    for flag in flags {
        fsconfig_set_flag(fs.as_fd(), *flag).map_err(refused("setting its options"))?;
    }
    fsconfig_create(fs.as_fd()).map_err(refused("creating it"))?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(refused("mounting it"))
}

/// A directory by a path that overlayfs takes for what it is: some kernels take a backslash in a path for an escape, and none
/// takes a path of more than 255 bytes.
enum Named<'p> {
    ByPath(&'p Path),
    /// The path names the descriptor, as long as that is open.
    ByDescriptor(PathBuf, #[expect(dead_code, reason = "it keeps the directory open")] OwnedFd),
}

impl<'p> Named<'p> {
    fn new(path: &'p Path) -> Result<Named<'p>, SnapshotError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() <= LONGEST_VALUE && !bytes.contains(&b'\\') {
            return Ok(Named::ByPath(path));
        }
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, how, Mode::empty())
            .map_err(|e| SnapshotError::Directory { path: path.to_owned(), source: e.into() })?;
        Ok(Named::ByDescriptor(PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())), fd))
    }

    fn path(&self) -> &Path {
        match self {
            Named::ByPath(path) => path,
            Named::ByDescriptor(path, _) => path,
        }
    }
}

/// Root too marks in `user.*`: one format on disk, one code path, and nothing that only root could read. What has to last
/// is synced by whoever makes an image of it: else each end of a step would sync the disk, and so would each program that
/// asks for it.
fn flags(written: bool) -> &'static [&'static str] {
    if written { &["userxattr", "volatile"] } else { &["userxattr"] }
}

/// How this machine mounts overlays.
#[derive(Clone, Copy)]
enum Way {
    /// Not found out yet.
    Unknown,
    ByLayer,
    /// With `mount(2)`.
    Classic,
}

static WAY: AtomicU8 = AtomicU8::new(Way::Unknown as u8);

impl Way {
    fn now() -> Way {
        match WAY.load(Ordering::Relaxed) {
            by_layer if by_layer == Way::ByLayer as u8 => Way::ByLayer,
            classic if classic == Way::Classic as u8 => Way::Classic,
            // Not tried there: each refusal would stand in the kernel's log.
            _ if kernel::is_before((6, 5)) => Way::Classic.is_it(),
            _ => Way::Unknown,
        }
    }

    /// Remembers it, unless something else was found out or asked for meanwhile.
    fn is_it(self) -> Way {
        let unknown = Way::Unknown as u8;
        // Whoever was first has said something that works, too.
        let _ = WAY.compare_exchange(unknown, self as u8, Ordering::Relaxed, Ordering::Relaxed);
        self
    }
}

/// From now on overlays are mounted as on kernels before 6.5, which is what happens there by itself.
pub fn use_legacy_mount() {
    WAY.store(Way::Classic as u8, Ordering::Relaxed);
}

/// A clone of the mount at `path`, a directory or file of the host, with what is mounted below. Attached nowhere.
///
/// # Errors
/// [`SnapshotError::Directory`].
pub fn bind(path: &Path) -> Result<OwnedFd, SnapshotError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
        .map_err(|e| SnapshotError::Directory { path: path.to_owned(), source: e.into() })
}

/// The root of a container that is a plain directory, as a mount: [`bind`], on which programs run whatever the mount of the
/// state directory forbids.
///
/// # Errors
/// [`SnapshotError::Directory`], [`SnapshotError::Mount`] if programs on it may not be run.
pub(crate) fn mount_copy(path: &Path) -> Result<OwnedFd, SnapshotError> {
    let made = bind(path)?;
    let refused = |source: Errno| SnapshotError::Mount {
        step: "running programs in its directory",
        source: source.into(),
    };
    let flags = rustix::fs::fstatvfs(&made).map_err(refused)?.f_flag;
    let clear = [
        (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
    ];
    let clear = clear.into_iter().filter(|(flag, _)| flags.contains(*flag));
    let clear = clear.fold(MountAttrFlags::empty(), |all, (_, attribute)| all | attribute);
    if clear.is_empty() {
        return Ok(made);
    }
    match change(&made, MountAttrFlags::empty(), clear, Reach::One) {
        Err(errno) if clear.contains(MountAttrFlags::MOUNT_ATTR_NOEXEC) => Err(refused(errno)),
        _ => Ok(made),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::Read as _;

    use rustix::fs::openat;

    use super::*;

    fn read(mount: &OwnedFd, name: &str) -> Option<String> {
        let fd = openat(mount, name, OFlags::RDONLY, Mode::empty()).ok()?;
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text).unwrap();
        Some(text)
    }

    /// Empty directories of these names, which go with the first; `None` without the right to mount: an ordinary user has it
    /// in a user namespace only, where whole builds are tested.
    pub(crate) fn places<const N: usize>(names: [&str; N]) -> Option<(tempfile::TempDir, [PathBuf; N])> {
        if !rustix::process::geteuid().is_root() {
            lapstrake_testkit::skipped("an ordinary user may mount in a user namespace only");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let made = names.map(|name| {
            let path = temp.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        Some((temp, made))
    }

    #[test]
    fn one_layer_and_several_with_and_without_an_upper() {
        let Some((temp, [low, high, upper, work])) = places(["low", "high", "upper", "work"]) else { return };
        fs::write(low.join("f"), "low").unwrap();
        fs::write(low.join("g"), "low").unwrap();
        fs::write(high.join("f"), "high").unwrap();
        let one = mount(std::slice::from_ref(&low), None).unwrap();
        assert_eq!(read(&one, "f").as_deref(), Some("low"));
        let two = mount(&[low.clone(), high.clone()], None).unwrap();
        assert_eq!((read(&two, "f").as_deref(), read(&two, "g").as_deref()), (Some("high"), Some("low")));
        let with = mount(&[low, high], Some((&upper, &work))).unwrap();
        rustix::fs::unlinkat(&with, "g", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(read(&with, "g"), None);
        let many = vec![temp.path().to_owned(); MAX_LAYERS + 1];
        assert!(matches!(mount(&many, None), Err(SnapshotError::TooMany { .. })));
    }
}
