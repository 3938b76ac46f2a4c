//! System calls that are answered by another process: seccomp's user notification, and looking into the caller.
//!
//! What is answered is the caller's business. A process that asks is stopped until it has its answer; where nobody holds
//! the listener any more it is told `ENOSYS`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::check;
use crate::seccomp::{Instruction, Program};

// `_IOWR('!', 0, struct seccomp_notif)` and its kin; the sizes are part of the number.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const ADD_FD: libc::c_ulong = 0x4018_2103;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: the two sides take turns, so they may as well share a processor.
const SYNC_WAKE_UP: u64 = 1;

/// A system call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Names it in the answer.
    pub id: u64,
    /// The thread that made it, in the pid namespace of whoever asks.
    pub pid: Pid,
    /// Its number.
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it, as if nobody had been asked.
    Continue,
    /// It returns this.
    Value(i64),
    /// It fails with this.
    Fail(Errno),
}

/// As [`crate::seccomp::load`], and gives what to receive the calls from that the program wants answered.
///
/// # Errors
/// As there; `EBUSY` where the process has a listener already, as in some containers.
pub fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let program = Program::new(program)?;
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: `program` has the layout of `sock_fprog` and outlives the call, which copies the instructions.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    owned(fd)
}

/// Makes a switch to the listener and back cheaper, where the kernel can (6.6).
pub fn take_turns(listener: impl AsFd) {
    // SAFETY: the third argument is a number.
    unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
}

/// Waits for the next call. `None` where the one that was waiting has been interrupted.
///
/// # Errors
/// What the kernel says; a listener that nobody asks any more is told by `poll`.
pub fn receive(listener: impl AsFd) -> Result<Option<Call>, Errno> {
    // SAFETY: all-zero is a valid `seccomp_notif`, and what the kernel wants to get.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif`, which lives until the call returns.
    let result = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), RECEIVE as _, &raw mut notif) };
    match check(libc::c_long::from(result)) {
        Ok(_) => {}
        Err(Errno::NOENT | Errno::INTR) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let pid = i32::try_from(notif.pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let data = notif.data;
    Ok(Some(Call { id: notif.id, pid, number: data.nr, arch: data.arch, args: data.args }))
}

/// Whether the maker of a call still waits: only then its number means it, and not a process that came after it. To be
/// asked after something has been opened by the number, and before that is used.
///
/// # Errors
/// `ESRCH` where it is gone.
pub fn still_waits(listener: impl AsFd, call: &Call) -> Result<(), Errno> {
    // SAFETY: the kernel reads one 64-bit number, which lives until the call returns.
    let result = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), ID_VALID as _, &raw const call.id) };
    check(libc::c_long::from(result)).map(drop).map_err(|_| Errno::SRCH)
}

/// Answers a call. That its maker has gone meanwhile is no error.
///
/// # Errors
/// What the kernel says.
pub fn answer(listener: impl AsFd, call: &Call, answer: Answer) -> Result<(), Errno> {
    let (val, error, flags) = match answer {
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Value(value) => (value, 0, 0),
        Answer::Fail(errno) => (0, -errno.raw_os_error(), 0),
    };
    let response = libc::seccomp_notif_resp { id: call.id, val, error, flags };
    // SAFETY: the kernel reads one `seccomp_notif_resp`, which lives until the call returns.
    let result = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SEND as _, &raw const response) };
    gone_is_fine(libc::c_long::from(result))
}

/// Answers a call with a copy of `fd` as a new descriptor of its maker's.
///
/// # Errors
/// What the kernel says: `EMFILE` and the like are the caller's to pass on.
pub fn answer_fd(listener: impl AsFd, call: &Call, fd: impl AsFd, cloexec: bool) -> Result<(), Errno> {
    let request = libc::seccomp_notif_addfd {
        id: call.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: fd.as_fd().as_raw_fd().unsigned_abs(),
        newfd: 0,
        newfd_flags: if cloexec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
    };
    // SAFETY: the kernel reads one `seccomp_notif_addfd`, which lives until the call returns.
    let result = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), ADD_FD as _, &raw const request) };
    gone_is_fine(libc::c_long::from(result))
}

fn gone_is_fine(result: libc::c_long) -> Result<(), Errno> {
    match check(result) {
        Err(Errno::NOENT) => Ok(()),
        other => other.map(drop),
    }
}

/// Fills `to` from the memory of `pid`; gives how much there was.
///
/// # Errors
/// `EFAULT`, `ESRCH`, `EPERM`.
pub fn read_memory(pid: Pid, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: the kernel writes at most `to.len()` bytes to `to`; the other address is of another process, and checked there.
    let count = unsafe {
        libc::process_vm_readv(pid.as_raw_nonzero().get(), &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(check(count as libc::c_long)?).map_err(|_| Errno::FAULT)
}

/// The C string at `address` in the memory of `pid`, without its end; `None` where it is longer than any path.
///
/// # Errors
/// As [`read_memory`].
pub fn read_string(pid: Pid, address: u64) -> Result<Option<Vec<u8>>, Errno> {
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    let mut at = address;
    while text.len() <= libc::PATH_MAX as usize {
        // A page that is not there must not spoil what is before it; most paths are shorter than 256 bytes.
        let left = (PAGE - at % PAGE).min(256);
        let mut piece = [0_u8; 256];
        let piece = &mut piece[..left as usize];
        let got = read_memory(pid, at, piece)?;
        if let Some(end) = piece[..got].iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&piece[..end]);
            return Ok(Some(text));
        }
        text.extend_from_slice(&piece[..got]);
        at += got as u64;
    }
    Ok(None)
}

/// Writes `bytes` to the memory of `pid`.
///
/// # Errors
/// `EFAULT`, `ESRCH`, `EPERM`.
pub fn write_memory(pid: Pid, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel only reads `bytes`; the other address is of another process, and checked there.
    let count = unsafe {
        libc::process_vm_writev(pid.as_raw_nonzero().get(), &raw const local, 1, &raw const remote, 1, 0)
    };
    let count = check(count as libc::c_long)?;
    if usize::try_from(count) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::FAULT) }
}

/// Who owns a file, and what it is, as somebody is to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Instead of a regular file: a device's type bits and number.
    pub device: Option<(u32, u64)>,
}

/// Writes what `stat(2)` says of `fd` to the memory of `pid`, with the owner of `shown`.
///
/// # Errors
/// What `fstat(2)` says, and as [`write_memory`].
pub fn write_stat(pid: Pid, address: u64, fd: impl AsFd, shown: &Shown) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid `stat`, which the kernel overwrites; the path is an empty C string.
    let bytes = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let flags = libc::AT_EMPTY_PATH;
        check(libc::c_long::from(libc::fstatat(fd.as_fd().as_raw_fd(), c"".as_ptr(), &raw mut stat, flags)))?;
        (stat.st_uid, stat.st_gid) = (shown.uid, shown.gid);
        if let Some((kind, number)) = shown.device {
            stat.st_mode = stat.st_mode & !libc::S_IFMT | kind;
            stat.st_rdev = number;
        }
        bytes_of(&stat).to_vec()
    };
    write_memory(pid, address, &bytes)
}

/// As [`write_stat`], of `statx(2)` with its `flags` and `mask`.
///
/// # Errors
/// As [`write_stat`].
pub fn write_statx(
    pid: Pid,
    address: u64,
    fd: impl AsFd,
    (flags, mask): (u64, u64),
    shown: &Shown,
) -> Result<(), Errno> {
    let sync = libc::c_int::try_from(flags & 0x6000).unwrap_or(0);
    // SAFETY: all-zero is a valid `statx`, which the kernel overwrites; the path is an empty C string.
    let bytes = unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let mask = libc::c_uint::try_from(mask & 0xffff_ffff).unwrap_or(libc::STATX_BASIC_STATS);
        let flags = libc::AT_EMPTY_PATH | sync;
        let raw = fd.as_fd().as_raw_fd();
        check(libc::c_long::from(libc::statx(raw, c"".as_ptr(), flags, mask, &raw mut stat)))?;
        (stat.stx_uid, stat.stx_gid) = (shown.uid, shown.gid);
        if let Some((kind, number)) = shown.device {
            stat.stx_mode = stat.stx_mode & !(libc::S_IFMT as u16) | kind as u16;
            (stat.stx_rdev_major, stat.stx_rdev_minor) = (libc::major(number), libc::minor(number));
        }
        bytes_of(&stat).to_vec()
    };
    write_memory(pid, address, &bytes)
}

/// # Safety
/// `value` must have been zeroed before it was filled, so that its padding is initialised too.
unsafe fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: as many bytes as the value has, all of them initialised by the caller's word.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// A number that a process carries along, and its children after it: the soft limit for file locks, which means nothing
/// to the kernel since 2.4. Programs that set all limits there are (`sudo`, PAM) have to be kept from this one.
///
/// # Errors
/// `ESRCH`, `EPERM`.
pub fn mark(pid: Pid) -> Result<u64, Errno> {
    Ok(limits(pid, None)?.rlim_cur)
}

/// Changes the [`mark`] of a process.
///
/// # Errors
/// `ESRCH`, `EPERM`; `EINVAL` above the hard limit.
pub fn set_mark(pid: Pid, mark: u64) -> Result<(), Errno> {
    let before = limits(pid, None)?;
    limits(pid, Some(libc::rlimit64 { rlim_cur: mark, rlim_max: before.rlim_max })).map(drop)
}

fn limits(pid: Pid, new: Option<libc::rlimit64>) -> Result<libc::rlimit64, Errno> {
    let new = new.as_ref().map_or(std::ptr::null(), |new| &raw const *new);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `new` is null or points to a live `rlimit64`, and `old` is one that the kernel writes to.
    let result =
        unsafe { libc::prlimit64(pid.as_raw_nonzero().get(), libc::RLIMIT_LOCKS, new, &raw mut old) };
    check(libc::c_long::from(result)).map(|_| old)
}

/// Who is at the other end of the socket that `fd` is in the process `pid` (a whole process, no thread).
///
/// # Errors
/// What `pidfd_getfd(2)` and `getsockopt(2)` say.
pub fn peer(pid: Pid, fd: RawFd) -> Result<Option<Pid>, Errno> {
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    // SAFETY: three numbers.
    let socket = owned(check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?)?;
    // SAFETY: all-zero is a valid `ucred`.
    let mut found: libc::ucred = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `found`.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    }))?;
    Ok(Pid::from_raw(found.pid))
}

fn owned(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
