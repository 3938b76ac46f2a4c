//! The calls about owners, which are asked about where one id is mapped; [`crate::ids`] has the answers.

use rustix::io::Errno;

use super::emit::Verdict;

/// Those that always are.
const ALWAYS: &[&str] = &[
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
    "creat",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "execve",
    "execveat",
];

/// What the filter does with a call; `None` for all others.
pub(super) fn verdict(name: &str) -> Option<Verdict> {
    const CREATE: u32 = 0o100;
    const PEER_CREDENTIALS: u32 = 17;
    /// `RLIMIT_LOCKS`, in which a process carries its mark.
    const MARKED: u32 = 10;
    match name {
        // Its flags are in memory, where a filter cannot look; programs fall back to `openat`.
        "openat2" => Some(Verdict::Errno(Errno::NOSYS)),
        "open" => Some(Verdict::AskIfAny { argument: 1, bits: CREATE }),
        "openat" => Some(Verdict::AskIfAny { argument: 2, bits: CREATE }),
        "getsockopt" => Some(Verdict::AskIf { argument: 2, value: PEER_CREDENTIALS }),
        "prlimit64" => Some(Verdict::AskIf { argument: 1, value: MARKED }),
        "setrlimit" => Some(Verdict::AskIf { argument: 0, value: MARKED }),
        _ => ALWAYS.contains(&name).then_some(Verdict::Ask),
    }
}
