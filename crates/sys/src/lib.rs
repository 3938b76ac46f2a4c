//! The only `unsafe` of the workspace: what rustix does not offer safely.
//!
//! Thin wrappers, one system call each where possible, and [`userns`], which makes an ordinary user root of a
//! namespace of its own. Decides no policy and knows nothing of containers, images or builds.
//!
//! Invariants: every descriptor that leaves this crate is owned and close-on-exec; every `unsafe` block says why
//! it is sound; whatever needs a single-threaded process asks for a [`SingleThreaded`] token.

pub mod fd;
pub mod init;
pub mod kernel;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod notify;
pub mod outfile;
pub mod persist;
pub mod process;
pub mod seccomp;
pub mod userns;

pub use process::SingleThreaded;

use rustix::io::Errno;

/// Turns the return value of a raw system call into a result.
fn check(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value < 0 { Err(last_errno()) } else { Ok(value) }
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
