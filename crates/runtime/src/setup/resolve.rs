//! Paths beneath a root whose content is hostile.
//!
//! What exists is found by one `openat2` that keeps every symlink inside the root. What does not exist is made on a
//! walk of single components: each is opened without following it, a symlink's text is put in front of what is left,
//! `..` goes back to a directory that is still open. So no rename or exchange on the way can lead out.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::stub::times;

/// What to make where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// An empty file, in directories that are made as well.
    File,
}

/// Something that [`ensure`] has made.
pub(super) struct Made<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    pub(super) directory: bool,
    pub(super) ino: u64,
}

pub(super) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;
/// A lookup gives `EAGAIN` where a rename elsewhere could have let it out; the kernel's advice is to try again.
const MAX_RACES: usize = 64;

/// Opens (`O_PATH`) what `path` means inside `root`.
pub(super) fn find(root: impl AsFd, path: &str, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let relative = path.trim_start_matches('/');
    let path = CString::new(if relative.is_empty() { "." } else { relative }).map_err(|_| Errno::INVAL)?;
    let how = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..MAX_RACES {
        match rustix::fs::openat2(&root, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// As [`find`], and makes what is missing: directories with mode 755, a file with 644. The times of the directories
/// things are made in stay as they were. `made` is called for each, from the top.
pub(super) fn ensure(
    root: impl AsFd,
    path: &str,
    kind: Kind,
    made: &mut dyn FnMut(&Made<'_>) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    match find(&root, path, ResolveFlags::empty()) {
        Err(Errno::NOENT) => walk(root.as_fd(), path, kind, made),
        other => other,
    }
}

fn walk(
    root: BorrowedFd<'_>,
    path: &str,
    kind: Kind,
    made: &mut dyn FnMut(&Made<'_>) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    let top = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut current = top;
    let mut left = components(path.as_bytes());
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == b".." {
            current = above.pop().unwrap_or(current);
            continue;
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (found, is_link) = match rustix::fs::openat(&current, &name, flags, Mode::empty()) {
            Ok(found) => {
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
                (found, kind == FileType::Symlink)
            }
            Err(Errno::NOENT) => {
                let kind = if left.is_empty() { kind } else { Kind::Directory };
                (make(current.as_fd(), &name, kind, made)?, false)
            }
            Err(errno) => return Err(errno),
        };
        if !is_link {
            above.push(std::mem::replace(&mut current, found));
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        if on_proc(&found)? {
            return Err(Errno::LOOP);
        }
        let text = rustix::fs::readlinkat(&found, c"", Vec::new())?.into_bytes();
        if text.first() == Some(&b'/') && !above.is_empty() {
            above.truncate(1);
            current = above.pop().expect("it has just been cut to one");
        }
        let mut new = components(&text);
        new.extend(left);
        left = new;
    }
    Ok(current)
}

/// Links in a procfs may be magic, and what they say is then not where they lead.
fn on_proc(link: impl AsFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(link)?.f_type == PROC_SUPER_MAGIC)
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

fn make(
    parent: BorrowedFd<'_>,
    name: &CStr,
    kind: Kind,
    made: &mut dyn FnMut(&Made<'_>) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    let times = times(&rustix::fs::statat(parent, c"", AtFlags::EMPTY_PATH)?);
    let directory = kind == Kind::Directory;
    if directory {
        rustix::fs::mkdirat(parent, name, Mode::from(0o755))?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        drop(rustix::fs::openat(parent, name, flags, Mode::from(0o644))?);
    }
    let found =
        rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let ino = rustix::fs::fstat(&found)?.st_ino;
    made(&Made { parent, name, directory, ino })?;
    rustix::fs::utimensat(parent, c"", &times, AtFlags::EMPTY_PATH)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct World {
        outer: tempfile::TempDir,
        root: OwnedFd,
    }

    fn world() -> World {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        let root = fs::File::open(outer.path().join("root")).unwrap().into();
        World { outer, root }
    }

    impl World {
        fn at(&self, path: &str) -> std::path::PathBuf {
            self.outer.path().join("root").join(path)
        }

        fn make(&self, path: &str, kind: Kind) -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            ensure(&self.root, path, kind, &mut |made| {
                names.push(made.name.to_str().unwrap().to_owned());
                Ok(())
            })
            .map(|_| names)
        }

        /// All that lies beside the root, which nothing may ever change.
        fn outside(&self) -> Vec<String> {
            let entries = fs::read_dir(self.outer.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    #[test]
    fn what_is_missing_is_made_and_told_from_the_top() {
        let world = world();
        assert_eq!(world.make("/a/b/c", Kind::File), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert!(world.at("a/b/c").is_file());
        assert_eq!(world.make("/a/b/d", Kind::Directory), Ok(vec!["d".into()]));
        assert!(world.at("a/b/d").is_dir());
        assert_eq!(world.make("/a/b/d", Kind::Directory), Ok(vec![]));
        assert_eq!(world.make("/a/b/c/x", Kind::File), Err(Errno::NOTDIR));
    }

    #[test]
    fn links_stay_inside() {
        for (text, expected) in [
            ("/etc", "etc/new"),
            ("../../../../etc", "etc/new"),
            ("deep/../../..", "new"),
            ("/", "new"),
            ("./other", "other/new"),
        ] {
            let world = world();
            symlink(text, world.at("link")).unwrap();
            world.make("/link/new", Kind::File).unwrap();
            assert!(world.at(expected).is_file(), "{text}");
            assert_eq!(world.outside(), ["root"], "{text}");
        }
    }

    #[test]
    fn a_dangling_link_is_made_where_it_points() {
        let world = world();
        fs::create_dir(world.at("etc")).unwrap();
        symlink("../run/resolv/stub.conf", world.at("etc/resolv.conf")).unwrap();
        let made = world.make("/etc/resolv.conf", Kind::File).unwrap();
        assert_eq!(made, ["run", "resolv", "stub.conf"]);
        assert!(world.at("run/resolv/stub.conf").is_file());
    }

    #[test]
    fn circles_end() {
        let world = world();
        symlink("b", world.at("a")).unwrap();
        symlink("a", world.at("b")).unwrap();
        assert_eq!(world.make("/a/x", Kind::File), Err(Errno::LOOP));
    }

    #[test]
    fn times_of_parents_stay() {
        let world = world();
        let old =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(1_500_000_000_123_456_789);
        fs::File::open(world.at("")).unwrap().set_modified(old).unwrap();
        world.make("/x/y", Kind::File).unwrap();
        assert_eq!(fs::metadata(world.at("")).unwrap().modified().unwrap(), old);
    }
}
