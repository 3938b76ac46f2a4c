//! INCLUDE: the files that a Dockerfile of a directory may name.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lapstrake_diag::{Excerpt, Outcome, Report, SourceFile};
use lapstrake_dockerfile::{Dialect, with_includes};
use lapstrake_tree::inroot::{Root, open_host_dir};
use rustix::fs::{FileType, Mode, OFlags};

/// No included file is longer, in bytes.
const LONGEST: u64 = 16 << 20;

/// `file` with all files in it that it includes. It lies in the directory `below` of `root`.
///
/// Paths in it are relative to the file they stand in, and with a slash in front to the root; nothing outside of the root
/// is ever read.
pub fn included(file: SourceFile, dialect: Dialect, root: &OwnedFd, below: &Path) -> Outcome<SourceFile> {
    let own = file.name().to_owned();
    let load = |path: &str, from: &str| {
        let dir = if from == own { below } else { Path::new(from).parent().unwrap_or(Path::new("")) };
        load(root, &plain(&dir.join(path)))
    };
    with_includes(file, dialect, &load).map_err(|bad| {
        let report = Report::new(format!("failed to solve: {}", bad.diagnostic.message));
        report.at(&Arc::new(bad.file), Excerpt::Findings(vec![bad.diagnostic]))
    })
}

/// The root and the directory in it for a file in the directory `here`: the context, or, for a file from elsewhere, its own
/// directory.
pub fn root_of(here: &Path, context: &Path) -> Outcome<(OwnedFd, PathBuf)> {
    let inside =
        |dir: &Path| Some(here.canonicalize().ok()?.strip_prefix(dir.canonicalize().ok()?).ok()?.to_owned());
    Ok(match inside(context) {
        Some(below) => (open_host_dir(context)?, below),
        None => (open_host_dir(here)?, PathBuf::new()),
    })
}

/// The path from the root, without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// Reads a file of a root. Links are followed within the root.
pub(crate) fn load(root: &OwnedFd, path: &Path) -> Result<SourceFile, String> {
    Ok(SourceFile::from_bytes(path.to_string_lossy(), &load_bytes(root, path)?))
}

/// Reads the bytes of a regular file of a root. Links are followed within the root.
pub fn load_bytes(root: &OwnedFd, path: &Path) -> Result<Vec<u8>, String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let opened = Root::new(root).open(path.as_os_str().as_encoded_bytes(), flags, Mode::empty());
    let file = std::fs::File::from(opened.map_err(|error| reason(&error))?);
    let stat = rustix::fs::fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    Ok(bytes)
}

/// The kernel's reason alone, as Go's programs write it: the path is in the message already.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
