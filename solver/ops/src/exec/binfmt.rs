//! Programs that the kernel does not know how to run: for another processor, or scripts that do not say for what.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;

use lapstrake_oci::Platform;
use lapstrake_runtime::{RunSpec, RuntimeError};
use lapstrake_tree::inroot::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::OpsError;

/// Where programs are looked for if nothing says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As much of a program as tells what it is.
const HEAD: usize = 20;

/// The error of a run, with what is known of the program if it is none for this machine.
pub(crate) fn exec_error(error: RuntimeError, root: BorrowedFd<'_>, spec: &RunSpec) -> OpsError {
    let RuntimeError::Exec { program, source } = &error else { return error.into() };
    if source.raw_os_error() != Some(Errno::NOEXEC.raw_os_error()) {
        return error.into();
    }
    let program = program.clone();
    match program_head(&Root::from_fd(root), &program, spec).as_deref().map(program_kind) {
        Some(ProgramKind::Program(processor)) if processor != Platform::host().architecture => {
            OpsError::Foreign { program, processor, host: Platform::host().architecture }
        }
        Some(ProgramKind::Text) => OpsError::NoInterpreter { program },
        _ => error.into(),
    }
}

/// The first bytes of a program, with the interpreter's instead of a script's.
fn program_head(root: &Root<'_>, program: &str, spec: &RunSpec) -> Option<Vec<u8>> {
    let found = read_head(root, program, spec)?;
    let Some(line) = found.strip_prefix(b"#!") else { return Some(found) };
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next()?).into_owned();
    read_head(root, line.split_whitespace().next()?, spec)
}

fn read_head(root: &Root<'_>, program: &str, spec: &RunSpec) -> Option<Vec<u8>> {
    let open = |path: &str| root.open(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).ok();
    let fd = if program.contains('/') {
        open(&if program.starts_with('/') { program.to_owned() } else { format!("{}/{program}", spec.cwd) })
    } else {
        let path = spec.env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(PATH);
        path.split(':').find_map(|dir| open(&format!("{dir}/{program}")))
    };
    let mut bytes = Vec::new();
    let read: io::Result<usize> = File::from(fd?).take(256).read_to_end(&mut bytes);
    read.ok().map(|_| bytes)
}

#[derive(Debug, PartialEq, Eq)]
enum ProgramKind {
    /// For a processor, in Go's names.
    Program(String),
    /// Something to be read by an interpreter that nobody named.
    Text,
    Unknown,
}

/// What the first bytes are those of.
fn program_kind(head: &[u8]) -> ProgramKind {
    if head.len() < HEAD || !head.starts_with(b"\x7fELF") {
        let text = !head.is_empty() && std::str::from_utf8(head).is_ok_and(|text| !text.contains('\0'));
        return if text { ProgramKind::Text } else { ProgramKind::Unknown };
    }
    let little = head[5] == 1;
    let wide = head[4] == 2;
    let machine = [head[18], head[19]];
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    let name = match (machine, wide, little) {
        (62, ..) => "amd64",
        (3, ..) => "386",
        (183, ..) => "arm64",
        (40, ..) => "arm",
        (243, true, _) => "riscv64",
        (22, ..) => "s390x",
        (21, _, true) => "ppc64le",
        (21, _, false) => "ppc64",
        (258, ..) => "loong64",
        (8, true, true) => "mips64le",
        (8, true, false) => "mips64",
        _ => return ProgramKind::Unknown,
    };
    ProgramKind::Program(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let elf = |class: u8, order: u8, machine: [u8; 2]| {
            let mut bytes = b"\x7fELF".to_vec();
            bytes.extend([class, order, 1]);
            bytes.resize(18, 0);
            bytes.extend(machine);
            program_kind(&bytes)
        };
        assert_eq!(elf(2, 1, [183, 0]), ProgramKind::Program("arm64".to_owned()));
        assert_eq!(elf(2, 2, [0, 22]), ProgramKind::Program("s390x".to_owned()));
        assert_eq!(elf(2, 1, [21, 0]), ProgramKind::Program("ppc64le".to_owned()));
        assert_eq!(elf(2, 1, [99, 9]), ProgramKind::Unknown);
        assert_eq!(program_kind(b"echo x\n"), ProgramKind::Text);
        assert_eq!(program_kind(b"\x7fELF"), ProgramKind::Text, "too short for a program");
        assert_eq!(program_kind(b"\0asm and more than twenty bytes"), ProgramKind::Unknown);
        assert_eq!(program_kind(b""), ProgramKind::Unknown);
    }
}
