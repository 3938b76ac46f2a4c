//! Programs for the other architectures of one kernel: what the call filter refuses must not come in by another table, or
//! by a call that stands for many.
//!
//! The programs are written here, byte by byte: each makes one system call and exits with the number of its error.

use std::fs;

use lapstrake_testkit::skip;

use super::place::{Mode, dockerfile, expect, lap, must};

pub(super) const CASES: &[super::Case] = &[("sockets_of_i386", sockets_of_i386)];

/// Where a program is loaded to.
const BASE: u32 = 0x0804_8000;
/// Both kinds of headers fit in front of the data.
const HEAD: u32 = 120;
/// The four words that `socketcall` and others read.
const WORDS: u32 = BASE + HEAD;
/// Two words that `socketpair` writes, or the structure that `io_uring_setup` reads.
const SPACE: u32 = WORDS + 16;
const SPACE_LENGTH: u32 = 128;
const ENTRY: u32 = SPACE + SPACE_LENGTH;

/// The word size of a program and its way into the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A 32-bit program and `int 0x80`.
    I386,
    /// A 64-bit program with `int 0x80`, which the kernel takes for i386.
    Mixed,
    /// A 64-bit program and `syscall`; x32 is a bit of the call's number.
    Amd64,
}

/// One call with its arguments, and the words at [`WORDS`].
struct Call {
    kind: Kind,
    number: u32,
    arguments: [u32; 4],
    words: [u32; 4],
}

impl Call {
    fn new(kind: Kind, number: u32, arguments: [u32; 4]) -> Self {
        Self { kind, number, arguments, words: [0; 4] }
    }

    /// `socketcall(what, words)`.
    fn multiplexed(kind: Kind, what: u32, words: [u32; 4]) -> Self {
        Self { kind, number: 102, arguments: [what, WORDS, 0, 0], words }
    }

    fn code(&self) -> Vec<u8> {
        // mov eax, number
        let mut code = vec![0xb8];
        code.extend(self.number.to_le_bytes());
        // mov ebx, ecx, edx, esi; or mov edi, esi, edx, r10d.
        let registers: [&[u8]; 4] = match self.kind {
            Kind::I386 | Kind::Mixed => [&[0xbb], &[0xb9], &[0xba], &[0xbe]],
            Kind::Amd64 => [&[0xbf], &[0xbe], &[0xba], &[0x41, 0xba]],
        };
        for (register, argument) in registers.into_iter().zip(self.arguments) {
            code.extend(register);
            code.extend(argument.to_le_bytes());
        }
        // int 0x80 or syscall; then, in the same way, exit(error).
        let (enter, first, exit): ([u8; 2], [u8; 2], u8) = match self.kind {
            // mov ebx, eax
            Kind::I386 | Kind::Mixed => ([0xcd, 0x80], [0x89, 0xc3], 1),
            // mov edi, eax
            Kind::Amd64 => ([0x0f, 0x05], [0x89, 0xc7], 60),
        };
        code.extend(enter);
        // test eax, eax; js over; xor eax, eax; over: neg eax
        code.extend([0x85, 0xc0, 0x78, 0x02, 0x31, 0xc0, 0xf7, 0xd8]);
        code.extend(first);
        code.extend([0xb8, exit, 0, 0, 0]);
        code.extend(enter);
        code
    }

    /// An ELF file of one segment that may be read, written and executed.
    fn program(&self) -> Vec<u8> {
        let code = self.code();
        let length = ENTRY - BASE + u32::try_from(code.len()).unwrap_or(u32::MAX);
        let wide = self.kind != Kind::I386;
        // Magic, class, byte order, version; then the type, the machine and the version.
        let mut file = b"\x7fELF".to_vec();
        file.extend([if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend([2, 0, if wide { 62 } else { 3 }, 0, 1, 0, 0, 0]);
        let halves = |sizes: [u16; 6]| sizes.into_iter().flat_map(u16::to_le_bytes);
        if wide {
            for word in [ENTRY, 64, 0] {
                file.extend(u64::from(word).to_le_bytes());
            }
            file.extend([0; 4]);
            file.extend(halves([64, 56, 1, 0, 0, 0]));
            file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
            for word in [0, BASE, BASE, length, length, 4096] {
                file.extend(u64::from(word).to_le_bytes());
            }
        } else {
            for word in [ENTRY, 52, 0, 0] {
                file.extend(word.to_le_bytes());
            }
            file.extend(halves([52, 32, 1, 0, 0, 0]));
            for word in [1, 0, BASE, BASE, length, length, 7, 4096] {
                file.extend(word.to_le_bytes());
            }
        }
        file.resize(HEAD as usize, 0);
        file.extend(self.words.into_iter().flat_map(u32::to_le_bytes));
        file.resize((ENTRY - BASE) as usize, 0);
        file.extend(code);
        file
    }
}

const UNIX: u32 = 1;
const INET: u32 = 2;
const ALG: u32 = 38;
const VSOCK: u32 = 40;
/// The error numbers that the filter answers with.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Programs by name, with what they exit with in a container.
fn calls() -> Vec<(String, Call, u32)> {
    let mut calls = Vec::new();
    for (label, kind) in [("i386", Kind::I386), ("mixed", Kind::Mixed)] {
        for (name, family, direct) in
            [("unix", UNIX, 0), ("inet", INET, 0), ("alg", ALG, EPERM), ("vsock", VSOCK, EPERM)]
        {
            let words = [family, 1, 0, SPACE];
            calls.extend([
                (format!("{label}-{name}-call"), Call::multiplexed(kind, 1, words), ENOSYS),
                (format!("{label}-{name}-call-pair"), Call::multiplexed(kind, 8, words), ENOSYS),
                (format!("{label}-{name}"), Call::new(kind, 359, words), direct),
            ]);
        }
        calls.extend([
            (format!("{label}-pair"), Call::new(kind, 360, [UNIX, 1, 0, SPACE]), 0),
            (format!("{label}-vsock-pair"), Call::new(kind, 360, [VSOCK, 1, 0, SPACE]), EPERM),
            (format!("{label}-alg-pair"), Call::new(kind, 360, [ALG, 5, 0, SPACE]), EPERM),
            // `ipc` stands for calls that are all allowed: 23 is `shmget`.
            (format!("{label}-shmget"), Call::new(kind, 117, [23, 0, 4096, 0o1600]), 0),
            (format!("{label}-uring"), Call::new(kind, 425, [1, SPACE, 0, 0]), EPERM),
        ]);
    }
    for (name, number, family, expected) in [
        ("amd64-inet", 41, INET, 0),
        ("amd64-alg", 41, ALG, EPERM),
        ("amd64-vsock", 41, VSOCK, EPERM),
        ("amd64-vsock-pair", 53, VSOCK, EPERM),
        ("x32-inet", 0x4000_0000 | 41, INET, ENOSYS),
        ("x32-vsock", 0x4000_0000 | 41, VSOCK, ENOSYS),
        ("x32-vsock-pair", 0x4000_0000 | 53, VSOCK, ENOSYS),
    ] {
        calls.push((name.to_owned(), Call::new(Kind::Amd64, number, [family, 1, 0, SPACE]), expected));
    }
    calls.push(("amd64-uring".to_owned(), Call::new(Kind::Amd64, 425, [1, SPACE, 0, 0]), EPERM));
    calls
}

/// No family that is refused comes in by `socketcall`, x32, `io_uring` or 32-bit calls of a 64-bit program.
///
/// A kernel without 32-bit programs runs those of this test neither outside nor in a step. That is then what the test
/// expects of them.
fn sockets_of_i386(mode: &Mode) -> Result<(), String> {
    if std::env::consts::ARCH != "x86_64" {
        skip("this machine has no calls of i386");
    }
    let dir = mode.place.join("sockets");
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let calls = calls();
    for (name, call, _) in &calls {
        fs::write(dir.join(name), call.program()).map_err(|error| error.to_string())?;
    }
    must(&format!("chmod 755 '{0}' '{0}'/*", dir.display()))?;
    // Outside the filter both ways make a socket: the programs are right, and the filter is the reason inside.
    must(&format!("'{}/amd64-inet'", dir.display()))?;
    let emulated = must(&format!("'{0}/i386-inet-call' && '{0}/i386-inet'", dir.display())).is_ok();
    dockerfile(
        mode,
        "sockets",
        "FROM busybox\nCOPY *-* /calls/\nRUN cd /calls && for name in *; do ./$name; echo $name says $?.; done\n",
    )?;
    let built = lap(mode, "build --no-cache --progress plain sockets")?;
    let said: Vec<String> = calls
        .iter()
        .filter(|(_, call, _)| emulated || call.kind == Kind::Amd64)
        .map(|(name, _, expected)| format!(" {name} says {expected}.\n"))
        .collect();
    expect(&built, 0, &said.iter().map(String::as_str).collect::<Vec<_>>())?;
    if emulated {
        return Ok(());
    }
    let made: Vec<_> = calls
        .iter()
        .filter(|(name, call, _)| {
            call.kind != Kind::Amd64
                && String::from_utf8_lossy(&built.stderr).contains(&format!(" {name} says 0."))
        })
        .map(|(name, ..)| name)
        .collect();
    if made.is_empty() { Ok(()) } else { Err(format!("without 32-bit programs, {made:?} made sockets")) }
}
