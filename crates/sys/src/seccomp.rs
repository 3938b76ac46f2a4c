//! Loading a seccomp filter. What the filter says is the caller's business.

use rustix::io::Errno;

use crate::check;

/// One instruction of classic BPF (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation code.
    pub code: u16,
    /// How many instructions to skip where a comparison holds.
    pub jt: u8,
    /// How many instructions to skip where it does not.
    pub jf: u8,
    /// The constant operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

/// Puts `program` before every system call that this thread and its descendants make from now on.
///
/// Speculative store bypass stays as it is: without that flag kernels before 5.16 slow the whole process down.
///
/// # Errors
/// `EINVAL` for a program that the kernel's checker refuses or one longer than 4096 instructions, `EACCES` without
/// `CAP_SYS_ADMIN` while `no_new_privs` is off, `ENOSYS` or `EINVAL` on a kernel built without seccomp.
pub fn load(program: &[Instruction]) -> Result<(), Errno> {
    let program = Program {
        len: libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr(),
    };
    // SAFETY: `Program` has the layout of `sock_fprog` and `Instruction` that of `sock_filter`; both outlive the
    // call, and the kernel copies the `len` instructions.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    })
    .map(drop)
}
