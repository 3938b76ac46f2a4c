//! `cargo xtask dist`: a static binary with its completions, man pages and checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the toolchain here can link statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the release, tries it in a root that has busybox only, and says where it is.
pub(crate) fn dist() -> Result<(), String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(format!(
            "releases are built and tested for {TARGET} only; `cargo install --path crates/cli` \
                            builds for this machine"
        ));
    }
    let build = [
        "rustc",
        "--package",
        "lapstrake",
        "--release",
        "--target",
        TARGET,
        "--features",
        "static-dns",
        "--",
        "-C",
        "target-feature=+crt-static",
    ];
    println!("compiling a static binary for {TARGET}: some minutes");
    crate::run("cargo", &build)?;
    let binary = crate::target()?.join(TARGET).join("release/lapstrake");
    let version = says(Command::new(&binary).arg("--version"))?;
    let name = format!("{}-{}", version.trim().replace(' ', "-"), "x86_64-linux");
    let to = crate::target()?.join("dist").join(&name);
    let failed = |error: std::io::Error| format!("cannot make `{}`: {error}", to.display());
    if to.exists() {
        fs::remove_dir_all(&to).map_err(failed)?;
    }
    fs::create_dir_all(to.join("completions")).map_err(failed)?;
    fs::copy(&binary, to.join("lapstrake")).map_err(failed)?;
    for (shell, file) in [("bash", "lapstrake.bash"), ("zsh", "_lapstrake"), ("fish", "lapstrake.fish")] {
        let text = says(Command::new(&binary).args(["completion", shell]))?;
        fs::write(to.join("completions").join(file), text).map_err(failed)?;
    }
    says(Command::new(&binary).args(["completion", "man", "--to"]).arg(to.join("man")))?;
    is_static(&binary)?;
    bare(&binary)?;
    let sums = format!(
        "cd '{}' && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum",
        to.display()
    );
    let sums = says(Command::new("sh").args(["-c", &sums]))?;
    fs::write(to.join("SHA256SUMS"), sums).map_err(failed)?;
    println!("{}", to.display());
    Ok(())
}

fn says(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// No program of the machine's loads it: then none of the machine's libraries is loaded either.
fn is_static(binary: &Path) -> Result<(), String> {
    let bytes = fs::read(binary).map_err(|error| error.to_string())?;
    match interpreted(&bytes) {
        Some(false) => Ok(()),
        Some(true) => Err(format!("`{}` needs the machine's C library", binary.display())),
        None => Err(format!("`{}` is no program for this machine", binary.display())),
    }
}

/// Whether a 64-bit ELF file names an interpreter, as its program headers say (elf(5)); `None` if it is no such file.
fn interpreted(elf: &[u8]) -> Option<bool> {
    const INTERP: u32 = 3;
    let short = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let first = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (length, count) = (usize::from(short(54)?), usize::from(short(56)?));
    for number in 0..count {
        let at = first.checked_add(number * length)?;
        if u32::from_le_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?) == INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// Imports, builds and runs in a root that has busybox and the binary, and nothing else.
fn bare(binary: &Path) -> Result<(), String> {
    let root = tempdir()?;
    let script = format!(
        "set -e; cd '{root}'; mkdir -p bin proc dev sys tmp etc state c; cp /bin/busybox bin/; cp '{binary}' bin/lapstrake; \
         for a in sh cat tar mkdir cp ln; do ln -s busybox bin/$a; done; \
         printf 'FROM base\\nRUN echo built > /made\\nCMD [\"cat\", \"/made\"]\\n' > c/Dockerfile; \
         mkdir -p r/bin; cp bin/busybox r/bin/; for a in sh cat echo; do ln -s busybox r/bin/$a; done; tar -C r -cf base.tar .; \
         exec unshare --mount --pid --fork --user --map-root-user sh -c 'mount --bind . . && cd \"$PWD\" && mount -t proc none proc; mount --rbind /dev dev; \
         mount -t tmpfs none state; mount -t tmpfs none tmp; exec chroot . /bin/sh -c \"export LAPSTRAKE_ROOT=/state PATH=/bin; \
         lapstrake import base.tar base && lapstrake build -q -t made c && lapstrake run made\"'",
        root = root.display(),
        binary = binary.display()
    );
    let said = says(Command::new("sh").args(["-c", &script]));
    // The directory is a temporary one.
    fs::remove_dir_all(&root).unwrap_or_default();
    if said?.ends_with("\nbuilt\n") {
        Ok(())
    } else {
        Err("the build in a bare root gave something else".to_owned())
    }
}

fn tempdir() -> Result<PathBuf, String> {
    let path = std::env::temp_dir().join(format!("lapstrake-dist-{}", std::process::id()));
    fs::create_dir_all(&path).map_err(|error| format!("cannot make `{}`: {error}", path.display()))?;
    Ok(path)
}
