//! What is built in the benchmarks.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Contexts below one directory, each made once.
pub(super) struct Inputs {
    dir: PathBuf,
}

impl Inputs {
    /// Below `place`, with a small base: the busybox of this machine and, as in the images of distributions, the places
    /// at which the sandbox mounts.
    pub(super) fn new(place: &Path) -> Result<Inputs, String> {
        let dir = place.join("inputs");
        let bin = dir.join("base/bin");
        let made = fs::create_dir_all(&bin)
            .and_then(|()| fs::copy("/bin/busybox", bin.join("busybox")))
            .and_then(|_| std::os::unix::fs::symlink("busybox", bin.join("sh")))
            .and_then(|()| {
                ["proc", "sys", "dev", "etc"]
                    .iter()
                    .try_for_each(|name| fs::create_dir_all(dir.join("base").join(name)))
            })
            .and_then(|()| {
                ["hosts", "resolv.conf"]
                    .iter()
                    .try_for_each(|name| fs::write(dir.join("base/etc").join(name), ""))
            });
        made.map_err(|error| format!("cannot make a base of busybox (package busybox-static): {error}"))?;
        Ok(Inputs { dir })
    }

    /// A context whose Dockerfile runs `count` steps that do nothing.
    pub(super) fn steps(&self, count: usize) -> Result<PathBuf, String> {
        let dir = self.dir.join(format!("steps-{count}"));
        let mut text = "FROM scratch\nCOPY base /\n".to_owned();
        for number in 0..count {
            writeln!(text, "RUN true {number}").map_err(|error| error.to_string())?;
        }
        let base = self.dir.join("base").display().to_string();
        let copied = || {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("Dockerfile"), text)
        };
        copied().map_err(|error: std::io::Error| error.to_string())?;
        crate::run("cp", &["-a", &base, &dir.display().to_string()])?;
        Ok(dir)
    }

    /// A context of `count` files of 4 KiB, a hundred to a directory.
    pub(super) fn files(&self, count: usize) -> Result<PathBuf, String> {
        let dir = self.dir.join(format!("files-{count}"));
        if dir.exists() {
            return Ok(dir);
        }
        let fill = || {
            for group in 0..count / 100 {
                let below = dir.join(format!("src/d{}/d{group}", group / 20));
                fs::create_dir_all(&below)?;
                for number in 0..100 {
                    let line = format!("{group} {number}\n");
                    fs::write(below.join(format!("f{number}")), line.repeat(4096 / line.len()))?;
                }
            }
            fs::write(dir.join("Dockerfile"), "FROM scratch\nWORKDIR /src\nCOPY src .\n")
        };
        fill().map_err(|error: std::io::Error| format!("cannot make {count} files: {error}"))?;
        Ok(dir)
    }
}
