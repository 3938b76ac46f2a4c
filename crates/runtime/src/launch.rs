//! Starting the zygote: which file is executed, and with what.
//!
//! Containers run as children of that process. Whoever gets to write through some `/proc/PID/exe` must not reach the
//! file that the host will execute next (CVE-2019-5736), so the zygote runs from a read-only mount of its own or, where
//! there can be none, from a sealed copy in memory.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lapstrake_sys::mount::{Reach, restrict};
use rustix::fs::{CWD, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use crate::error::RuntimeError;

/// What the zygote is called, and knows itself by.
pub(crate) const NAME: &str = "lapstrake-zygote";

/// Starts the zygote with `control` as its standard input. Descriptors that are not close-on-exec reach it and are
/// closed there, before it makes anything.
pub(crate) fn launch(executable: Option<&Path>, control: OwnedFd) -> Result<Child, RuntimeError> {
    let image = match executable {
        Some(path) => guarded(path),
        None => own(),
    };
    let image = image.map_err(|errno| RuntimeError::start("open the executable", errno))?;
    Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()))
        .arg0(NAME)
        // Containers get the limit that this process was started with, and not the one it gave itself.
        .args(lapstrake_sys::process::file_limit_before().map(|limit| limit.to_string()))
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        // Ctrl-C at a terminal goes to the whole group: what becomes of the containers is the caller's to say.
        .process_group(0)
        .spawn()
        .map_err(|source| RuntimeError::Start { action: "run the executable".to_owned(), source })
}

/// This program's own file, even where another has taken its place on disk since.
fn own() -> Result<OwnedFd, Errno> {
    const LINK: &str = "/proc/self/exe";
    let path = std::fs::read_link(LINK).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let clone = read_only_clone(&path);
    if let Ok(clone) = clone {
        let (mounted, running) = (rustix::fs::fstat(&clone)?, rustix::fs::stat(LINK)?);
        if (mounted.st_dev, mounted.st_ino) == (running.st_dev, running.st_ino) {
            return Ok(clone);
        }
    }
    sealed_copy(Path::new(LINK))
}

fn guarded(path: &Path) -> Result<OwnedFd, Errno> {
    read_only_clone(path).or_else(|_| sealed_copy(path))
}

fn read_only_clone(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, path, flags)?;
    restrict(&clone, MountAttrFlags::MOUNT_ATTR_RDONLY, Reach::One)?;
    Ok(clone)
}

fn sealed_copy(path: &Path) -> Result<OwnedFd, Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut from = File::open(path).map_err(errno)?;
    let memory = rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut to = File::from(memory);
    std::io::copy(&mut from, &mut to).map_err(errno)?;
    rustix::fs::fcntl_add_seals(
        &to,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    // A file that is open for writing cannot be executed.
    let read_only = File::open(format!("/proc/self/fd/{}", to.as_raw_fd())).map_err(errno)?;
    Ok(read_only.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sealed_copy_runs_and_cannot_be_written() {
        let copy = sealed_copy(Path::new("/bin/true")).unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        assert!(Command::new(&path).status().unwrap().success());
        let refused =
            std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"x"));
        assert!(refused.is_err());
    }
}
