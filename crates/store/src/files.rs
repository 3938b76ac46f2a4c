//! The one way in which files of the state directory are opened. No file of ours is a symbolic link or a pipe, so a link is
//! refused where it stands (`ELOOP`), and no opening waits for the other end of a pipe.
//!
//! [`crate::state_dir`] has refused links among the directories on the way before anything is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Options that follow no link in the last component of a path.
fn options() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = File::options();
    options.custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a file or a directory for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    options().read(true).open(path)
}

/// Opens a file that is there for reading and writing.
pub(crate) fn open_to_change(path: &Path) -> io::Result<File> {
    options().read(true).write(true).open(path)
}

/// Opens a file for writing, empty; makes the file where there is none.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Opens a file for writing at its end; makes the file where there is none. Locks are files of this kind.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    options().append(true).create(true).open(path)
}

/// As [`append`], of a file that is there.
pub(crate) fn append_existing(path: &Path) -> io::Result<File> {
    options().append(true).open(path)
}

/// The content of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of a file that is text.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Gives a file this content; makes the file where there is none.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    create(path)?.write_all(content.as_ref())
}

/// Makes a directory where there is none. What is no directory itself is an error.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() { Ok(()) } else { Err(error) }
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// No function follows a link or waits at a pipe, and what the link names stays as it was.
    #[test]
    fn no_link_is_followed() {
        type Use = fn(&Path) -> io::Result<()>;
        let dir = tempfile::tempdir().unwrap();
        let (victim, link, pipe) =
            (dir.path().join("victim"), dir.path().join("link"), dir.path().join("pipe"));
        let uses: [(&str, Use); 9] = [
            ("open", |path| open(path).map(drop)),
            ("open_to_change", |path| open_to_change(path).map(drop)),
            ("create", |path| create(path).map(drop)),
            ("append", |path| append(path).map(drop)),
            ("append_existing", |path| append_existing(path).map(drop)),
            ("read", |path| read(path).map(drop)),
            ("read_to_string", |path| read_to_string(path).map(drop)),
            ("write", |path| write(path, "changed")),
            ("make_dir", make_dir),
        ];
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for (name, used) in uses {
            for to_directory in [false, true] {
                fs::remove_file(&link).unwrap_or_default();
                fs::remove_file(&victim).unwrap_or_default();
                fs::remove_dir(&victim).unwrap_or_default();
                match to_directory {
                    true => fs::create_dir(&victim).unwrap(),
                    false => fs::write(&victim, "kept").unwrap(),
                }
                symlink(&victim, &link).unwrap();
                assert!(used(&link).is_err(), "{name}");
                assert!(to_directory || fs::read(&victim).unwrap() == b"kept", "{name}");
            }
            // Whether it fails or not: it ends.
            used(&pipe).unwrap_or_default();
        }
    }
}
