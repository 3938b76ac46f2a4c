//! Files that are replaced whole: until all of the content is there, it has no name.
//!
//! This is the one place that gives such files their names, for outputs of users ([`crate::outfile`]) and for the
//! program's own files ([`replace`]). A new name is given to the file at once. Where a file is replaced, a second name
//! stands in the directory for two system calls; where the file system has no files without a name, it stands there from the
//! beginning. A process that is killed then leaves one such file, and [`is_temporary`] tells a sweeper so.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// How temporary names begin and end.
const BEGIN: &str = ".lapstrake-";
const END: &str = ".partial";

/// Whether a file of this name is one that has not got its own name yet.
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(BEGIN.as_bytes()) && name.ends_with(END.as_bytes())
}

/// Replaces a file of this program's own by one with this content and the mode 0600. Other processes see the old file or
/// the new one, and so does who comes after a kill. Nothing is synced: after a power cut the file may be empty.
///
/// `temporaries` is a directory of the same file system that is swept for files which [`is_temporary`] knows.
///
/// # Errors
/// What the system says. The old file is there then, and nothing else.
pub fn replace(path: &Path, temporaries: &Path, content: &[u8]) -> io::Result<()> {
    replaced(path, temporaries, content, |_| Ok(()))
}

/// As [`replace`]; the content is on the disk before the file has its name, so that a power cut leaves the old file or the
/// new one.
///
/// # Errors
/// As [`replace`].
pub fn replace_durably(path: &Path, temporaries: &Path, content: &[u8]) -> io::Result<()> {
    replaced(path, temporaries, content, File::sync_all)
}

fn replaced(
    path: &Path,
    temporaries: &Path,
    content: &[u8],
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let open = |dir: &Path| {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, dir, flags, Mode::empty())
    };
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let dir = open(path.parent().unwrap_or(Path::new("")))?;
    let (mut file, mut new) =
        New::begin_in(open(temporaries)?, dir, name.to_owned(), Mode::from_raw_mode(0o600))?;
    file.write_all(content)?;
    settle(&file)?;
    Ok(new.name_it(&file)?)
}

/// A file that has no name yet, or a temporary one. Dropped, it is gone.
pub(crate) struct New {
    /// The directory of the file.
    pub(crate) dir: OwnedFd,
    /// The name that the file is to have.
    pub(crate) name: OsString,
    /// The directory of temporary names, if it is another one.
    temporaries: Option<OwnedFd>,
    /// `None` for a file without a name.
    temporary: Option<OsString>,
}

impl Drop for New {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What is half-written must not stay; the first error is the one to report.
            rustix::fs::unlinkat(self.temporaries(), temporary, AtFlags::empty()).unwrap_or_default();
        }
    }
}

impl New {
    /// A file for reading and writing that is to be `name` in `dir`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn begin(dir: OwnedFd, name: OsString, mode: Mode) -> Result<(File, New), Errno> {
        let (file, temporary) = unnamed(&dir, mode)?;
        Ok((file, New { dir, name, temporaries: None, temporary }))
    }

    fn begin_in(
        temporaries: OwnedFd,
        dir: OwnedFd,
        name: OsString,
        mode: Mode,
    ) -> Result<(File, New), Errno> {
        let (file, temporary) = unnamed(&temporaries, mode)?;
        Ok((file, New { dir, name, temporaries: Some(temporaries), temporary }))
    }

    fn temporaries(&self) -> &OwnedFd {
        self.temporaries.as_ref().unwrap_or(&self.dir)
    }

    /// Gives the file its name, in place of what has it.
    ///
    /// # Errors
    /// What the system says; what had the name has it then.
    pub(crate) fn name_it(&mut self, file: &File) -> Result<(), Errno> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                // A new name needs no other one on the way.
                match rustix::fs::linkat(CWD, &from, &self.dir, &self.name, AtFlags::SYMLINK_FOLLOW) {
                    Err(Errno::EXIST) => {}
                    named => return named,
                }
                let temporary = fresh_name();
                rustix::fs::linkat(CWD, &from, self.temporaries(), &temporary, AtFlags::SYMLINK_FOLLOW)?;
                temporary
            }
        };
        // A failure from here on removes it again.
        self.temporary = Some(temporary.clone());
        rustix::fs::renameat(self.temporaries(), &temporary, &self.dir, &self.name)?;
        self.temporary = None;
        Ok(())
    }
}

/// A file for reading and writing in `dir` that has no name, or a temporary one where the file system wants names.
fn unnamed(dir: &OwnedFd, mode: Mode) -> Result<(File, Option<OsString>), Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, c".", flags | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok((file.into(), None)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let name = fresh_name();
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    Ok((rustix::fs::openat(dir, &name, flags, mode)?.into(), Some(name)))
}

/// A name that no other process and no other file of this one has.
fn fresh_name() -> OsString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{BEGIN}{}-{count}-{}{END}", std::process::id(), now.as_nanos()).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names: Vec<OsString> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn whole_or_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let (file, tmp) = (dir.path().join("f"), dir.path().join("tmp"));
        fs::create_dir(&tmp).unwrap();
        for content in [&b"one"[..], b"", b"two"] {
            replace(&file, &tmp, content).unwrap();
            assert_eq!(fs::read(&file).unwrap(), content);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        assert_eq!(names(dir.path()), ["f", "tmp"]);
        assert!(names(&tmp).is_empty());
        // A directory is nothing that a file replaces.
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(replace(&dir.path().join("d"), dir.path(), b"x").is_err());
        assert!(replace(&dir.path().join("none/f"), dir.path(), b"x").is_err());
        assert_eq!(names(dir.path()), ["d", "f", "tmp"]);
    }

    #[test]
    fn sweepers_know_what_is_left() {
        assert!(is_temporary(&fresh_name()));
        assert!(!is_temporary(OsStr::new("v2-seen-ab")) && !is_temporary(OsStr::new(".lapstrake-x")));
    }

    /// Readers see one of the contents that were written, always a whole one.
    #[test]
    fn many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        replace(&file, dir.path(), &[0; 5000]).unwrap();
        std::thread::scope(|scope| {
            for byte in 1..5u8 {
                let file = &file;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(file, file.parent().unwrap(), &[byte; 5000]).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let content = fs::read(&file).unwrap();
                assert!(content.len() == 5000 && content.iter().all(|byte| *byte == content[0]));
            }
        });
        assert_eq!(names(dir.path()), ["f"]);
    }
}
