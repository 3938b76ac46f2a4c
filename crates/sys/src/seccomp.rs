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

/// `struct sock_fprog`. Points to the instructions that it was made of.
#[repr(C)]
pub(crate) struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

impl Program {
    pub(crate) fn new(instructions: &[Instruction]) -> Result<Self, Errno> {
        let len = libc::c_ushort::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
        Ok(Self { len, filter: instructions.as_ptr() })
    }
}

/// Puts `program` before every system call that this thread and its descendants make from now on.
///
/// Speculative store bypass stays as it is: without that flag kernels before 5.16 slow the whole process down.
///
/// # Errors
/// `EINVAL` for a program that the kernel's checker refuses or one longer than 4096 instructions, `EACCES` without
/// `CAP_SYS_ADMIN` while `no_new_privs` is off, `ENOSYS` or `EINVAL` on a kernel built without seccomp.
pub fn load(program: &[Instruction]) -> Result<(), Errno> {
    let program = Program::new(program)?;
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
