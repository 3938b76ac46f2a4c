//! Landlock: a process gives up everything outside of one directory.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::check;

/// `struct landlock_ruleset_attr` as its first version had it.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Accesses that a version of the interface has, as bits: 13 at first, then one more each for linking to other
/// directories, truncating, and requests to devices.
fn accesses(version: libc::c_long) -> u64 {
    let bits = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// From now on this process and its descendants open, make, change and execute nothing that is not beneath `dir`,
/// whatever descriptors they have. Needs `CAP_SYS_ADMIN` or `no_new_privs`.
///
/// False where the kernel has no Landlock.
///
/// # Errors
/// What the kernel says.
pub fn keep_beneath(dir: impl AsFd) -> Result<bool, Errno> {
    const VERSION: libc::c_uint = 1;
    const PATH_BENEATH: libc::c_int = 1;
    let null = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag the kernel wants no structure, and gives a number.
    let version = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null, 0_usize, VERSION) });
    let version = match version {
        Err(Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(false),
        other => other?,
    };
    let ruleset = Ruleset { handled_access_fs: accesses(version) };
    // SAFETY: the kernel reads one `Ruleset`, whose size is passed along.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0 as libc::c_uint,
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let rule = PathBeneath { allowed_access: ruleset.handled_access_fs, parent_fd: dir.as_fd().as_raw_fd() };
    // SAFETY: the kernel reads one `PathBeneath`, which has the layout of its own.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            fd.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0 as libc::c_uint,
        )
    })?;
    // SAFETY: two numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0 as libc::c_uint) })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    /// A thread of its own is restricted, and no other.
    #[test]
    fn an_open_directory_outside_leads_nowhere() {
        let found = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let (inside, outside) = (File::open("/proc").unwrap(), File::open("/etc").unwrap());
            let fenced = keep_beneath(&inside).unwrap();
            let open =
                |dir: &File, name| rustix::fs::openat(dir, name, OFlags::RDONLY, Mode::empty()).map(drop);
            (fenced, open(&inside, "version"), open(&outside, "passwd"))
        });
        let (fenced, inside, outside) = found.join().unwrap();
        assert_eq!(inside, Ok(()));
        // An old kernel has no fence; there is nothing to hold it to then.
        assert_eq!(outside, if fenced { Err(Errno::ACCESS) } else { Ok(()) });
    }
}
