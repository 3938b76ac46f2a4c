//! Paths beneath a root whose content is hostile.
//!
//! What exists is found by one `openat2` that keeps every symlink inside the root. What does not exist is made on a
//! walk of single components ([`lapstrake_tree::resolve`]): each is opened without following it, and `..` goes back to a
//! directory that is still open. So no rename or exchange on the way can lead out.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lapstrake_tree::inroot::open_confined;
use lapstrake_tree::resolve::{End, Found, KERNEL_MAX_LINKS, Links, Lookup, Names, resolve};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::mountpoint::times;

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
/// The kernel resolves these paths, too: when [`find`] opens them, and when a program of the container does.
const LINKS: Links = Links { last: true, most: KERNEL_MAX_LINKS };

/// Opens (`O_PATH`) what `path` means inside `root`.
pub(super) fn find(root: impl AsFd, path: &str, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let relative = path.trim_start_matches('/');
    let path = CString::new(if relative.is_empty() { "." } else { relative }).map_err(|_| Errno::INVAL)?;
    let how = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_confined(root, path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
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
    let mut making = Making { root, stack: Vec::new(), found: None, kind, made };
    let end = resolve(&mut making, path.as_bytes(), LINKS)?;
    let found = match end {
        End::Directory => making.stack.pop(),
        End::Other(_) => making.found,
        End::NotADirectory => return Err(Errno::NOTDIR),
        End::Missing { .. } => return Err(Errno::NOENT),
    };
    found.map_or_else(|| rustix::io::fcntl_dupfd_cloexec(root, 3), Ok)
}

/// A resolution that makes what is missing.
struct Making<'r, 'm> {
    root: BorrowedFd<'r>,
    /// Every directory from below the root down.
    stack: Vec<OwnedFd>,
    /// The link or the file that was found last.
    found: Option<OwnedFd>,
    /// What is made of the last name.
    kind: Kind,
    made: &'m mut dyn FnMut(&Made<'_>) -> Result<(), Errno>,
}

impl Lookup for Making<'_, '_> {
    type Error = Errno;

    fn enter(&mut self, names: &Names<'_>) -> Result<Found, Errno> {
        let (taken, name) = (names.first().len(), CString::new(names.first()).map_err(|_| Errno::INVAL)?);
        let here = self.stack.last().map_or(self.root, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(here, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let kind = if names.is_last() { self.kind } else { Kind::Directory };
                match make(here, &name, kind, self.made) {
                    // Another container that shares this directory was faster.
                    Err(Errno::EXIST) => rustix::fs::openat(here, &name, flags, Mode::empty())?,
                    made => made?,
                }
            }
            found => found?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
            FileType::Directory => {
                self.stack.push(found);
                Ok(Found::Directory { taken })
            }
            FileType::Symlink if on_proc(&found)? => Err(Errno::LOOP),
            FileType::Symlink => {
                self.found = Some(found);
                Ok(Found::Link { taken })
            }
            _ => {
                self.found = Some(found);
                Ok(Found::Other { taken })
            }
        }
    }

    fn read_link(&mut self) -> Result<Box<[u8]>, Errno> {
        let link = self.found.take().ok_or(Errno::INVAL)?;
        Ok(rustix::fs::readlinkat(&link, c"", Vec::new())?.into_bytes().into())
    }

    fn up(&mut self) {
        self.stack.pop();
    }

    fn back_to_root(&mut self) {
        self.stack.clear();
    }

    fn too_many_links(&self) -> Errno {
        Errno::LOOP
    }
}

/// Links in a procfs may be magic, and what they say is then not where they lead.
fn on_proc(link: impl AsFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(link)?.f_type == PROC_SUPER_MAGIC)
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

    struct ZygoteRoot {
        outer: tempfile::TempDir,
        root: OwnedFd,
    }

    fn zygote_root() -> ZygoteRoot {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        let root = fs::File::open(outer.path().join("root")).unwrap().into();
        ZygoteRoot { outer, root }
    }

    impl ZygoteRoot {
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
        let zygote_root = zygote_root();
        assert_eq!(zygote_root.make("/a/b/c", Kind::File), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert!(zygote_root.at("a/b/c").is_file());
        assert_eq!(zygote_root.make("/a/b/d", Kind::Directory), Ok(vec!["d".into()]));
        assert!(zygote_root.at("a/b/d").is_dir());
        assert_eq!(zygote_root.make("/a/b/d", Kind::Directory), Ok(vec![]));
        assert_eq!(zygote_root.make("/a/b/c/x", Kind::File), Err(Errno::NOTDIR));
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
            let zygote_root = zygote_root();
            symlink(text, zygote_root.at("link")).unwrap();
            zygote_root.make("/link/new", Kind::File).unwrap();
            assert!(zygote_root.at(expected).is_file(), "{text}");
            assert_eq!(zygote_root.outside(), ["root"], "{text}");
        }
    }

    #[test]
    fn a_dangling_link_is_made_where_it_points() {
        let zygote_root = zygote_root();
        fs::create_dir(zygote_root.at("etc")).unwrap();
        symlink("../run/resolv/stub.conf", zygote_root.at("etc/resolv.conf")).unwrap();
        let made = zygote_root.make("/etc/resolv.conf", Kind::File).unwrap();
        assert_eq!(made, ["run", "resolv", "stub.conf"]);
        assert!(zygote_root.at("run/resolv/stub.conf").is_file());
    }

    #[test]
    fn circles_end() {
        let zygote_root = zygote_root();
        symlink("b", zygote_root.at("a")).unwrap();
        symlink("a", zygote_root.at("b")).unwrap();
        assert_eq!(zygote_root.make("/a/x", Kind::File), Err(Errno::LOOP));
    }

    /// What is there is where [`lapstrake_tree::inroot::Root`] and the kernel find it, and what is missing is made where the former says.
    #[test]
    fn as_roots_find_it() {
        use std::os::unix::fs::MetadataExt as _;
        for path in [
            "a/b",
            "l/b",
            "up/a/b",
            "abs/b",
            "l/../f",
            "a/./b/",
            "f",
            "f/x",
            "f/..",
            "dangling",
            "dangling/x",
            "new/../a",
            "l/new/../b",
            "round",
            "deep/b",
            "",
            "..",
            "/../a",
        ] {
            let zygote_root = zygote_root();
            fs::create_dir_all(zygote_root.at("a/b")).unwrap();
            fs::write(zygote_root.at("f"), "").unwrap();
            for (text, name) in [
                ("a", "l"),
                ("../..", "up"),
                ("/a", "abs"),
                ("n/../m/x", "dangling"),
                ("round", "round"),
                ("l/../up/l/", "deep"),
            ] {
                symlink(text, zygote_root.at(name)).unwrap();
            }
            let root = lapstrake_tree::inroot::Root::new(&zygote_root.root);
            let place = root.place(path.as_bytes(), true).map(|place| place.path());
            let found = ensure(&zygote_root.root, path, Kind::Directory, &mut |_| Ok(()));
            match (place, found) {
                (Ok(place), Ok(found)) => {
                    let at = fs::symlink_metadata(zygote_root.at(place.to_string().trim_start_matches('/')))
                        .unwrap();
                    assert_eq!(rustix::fs::fstat(&found).unwrap().st_ino, at.ino(), "{path}");
                }
                (Err(place), Err(found)) => assert_eq!(place.errno(), Some(found), "{path}"),
                (place, found) => panic!("{path}: {place:?} and {found:?}"),
            }
            assert_eq!(zygote_root.outside(), ["root"], "{path}");
        }
    }

    #[test]
    fn times_of_parents_stay() {
        let zygote_root = zygote_root();
        let old =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(1_500_000_000_123_456_789);
        fs::File::open(zygote_root.at("")).unwrap().set_modified(old).unwrap();
        zygote_root.make("/x/y", Kind::File).unwrap();
        assert_eq!(fs::metadata(zygote_root.at("")).unwrap().modified().unwrap(), old);
    }
}
