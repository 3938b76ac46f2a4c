//! ADD of a local archive: told by content, unpacked onto a tree that is there already.
//!
//! Names are made normal and may not climb; the directory an entry lies in is resolved within the destination's
//! root (its links are followed there, and nowhere else); the entry itself never is. Deletion marks of layers mean
//! nothing here.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use crate::decompress::decompress;
use crate::entry::xattr_counts;
use crate::error::TreeError;
use crate::inroot::{NewDir, Root, set_times_at, set_times_fd};
use crate::path::TreePath;
use crate::put::{Copied, make_room};
use crate::scan::Ownership;
use crate::tar_read::{TarEntry, TarReader, entries};
use crate::unpack::UnpackOptions;

/// How an archive is added.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtractOptions {
    /// Owner of everything, instead of what the archive says.
    pub chown: Option<(u32, u32)>,
    /// Time of directories made for the destination, nanoseconds; `None` is now.
    pub mtime: Option<i64>,
    /// Limits, and whether owners are set on disk or reported.
    pub limits: UnpackOptions,
}

/// True when the file is a tar, plain or compressed (gzip, bzip2, xz, zstd). The file's position is put back.
///
/// # Errors
/// [`TreeError::Stream`] when the file cannot be read; what does not decompress is no archive.
pub fn is_archive(file: &mut File) -> Result<bool, TreeError> {
    let start = file.stream_position().map_err(TreeError::stream("read the file"))?;
    let found = match decompress(BufReader::new(&mut *file)) {
        Ok((_, plain)) => {
            matches!(TarReader::new(plain, 4).next_entry(), Ok(Some(_)) | Err(TreeError::TooLong { .. }))
        }
        Err(_) => false,
    };
    file.seek(io::SeekFrom::Start(start)).map_err(TreeError::stream("read the file"))?;
    Ok(found)
}

/// When the newest regular file of an archive is from, in seconds since 1970. What is no archive, or a broken one, has no
/// time.
///
/// # Errors
/// [`TreeError::TooBig`]: it has more entries or bytes than anything that can be unpacked.
pub fn newest(archive: impl Read + Send) -> Result<Option<i64>, TreeError> {
    let Ok(mut reader) = entries(archive, UnpackOptions::default().limits()) else { return Ok(None) };
    let mut newest = None;
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) if matches!(entry.kind, EntryType::Regular | EntryType::Continuous) => {
                newest = newest.max(Some(entry.mtime));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(newest.map(|time: i64| time.div_euclid(1_000_000_000))),
            Err(error @ TreeError::TooBig { .. }) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
}

/// Unpacks an archive into `dest`, which is made a directory if it is none.
///
/// # Errors
/// What the archive does wrong, as for a layer; [`TreeError::ReplaceDirectory`] and
/// [`TreeError::CopyToNonDirectory`] where kinds clash; [`TreeError::Io`] from the disk.
pub fn extract(
    archive: impl Read + Send,
    dest_root: BorrowedFd<'_>,
    dest: &[u8],
    options: &ExtractOptions,
) -> Result<Copied, TreeError> {
    let mut reader = entries(archive, options.limits.limits())?;
    let mut extractor = Extractor::new(dest_root, dest, options)?;
    while let Some(entry) = reader.next_entry()? {
        extractor.entry(&entry, &mut reader)?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    root: Root<'a>,
    base: TreePath,
    options: &'a ExtractOptions,
    copied: Copied,
    /// The directory of the last entry: by the name in the archive, its real place, opened.
    last: Option<(TreePath, TreePath, OwnedFd)>,
    /// Directories whose metadata come last.
    dirs: Vec<(TreePath, TarEntry)>,
    /// Directories that something was put into.
    touched: BTreeSet<TreePath>,
}

impl<'a> Extractor<'a> {
    fn new(root: BorrowedFd<'a>, dest: &[u8], options: &'a ExtractOptions) -> Result<Self, TreeError> {
        let root = Root::from_fd(root);
        let mut new = Self {
            root,
            base: TreePath::root(),
            options,
            copied: Copied::default(),
            last: None,
            dirs: Vec::new(),
            touched: BTreeSet::new(),
        };
        new.base = new.mkdir(dest)?.0;
        Ok(new)
    }

    fn mkdir(&mut self, path: &[u8]) -> Result<(TreePath, OwnedFd), TreeError> {
        let squash = self.options.limits.squash_ids;
        let (uid, gid) = self.options.chown.unwrap_or((0, 0));
        let new = NewDir { mode: 0o755, owner: (!squash).then_some((uid, gid)), mtime: self.options.mtime };
        let made = self.root.mkdir_p(path, &new).map_err(|e| match e {
            TreeError::NotADirectory { path } => TreeError::CopyToNonDirectory { path },
            e => e,
        })?;
        if squash {
            let owner = Ownership { uid, gid, mode: None };
            self.copied.owners.extend(made.made.into_iter().map(|path| (path, owner)));
        }
        Ok((made.path, made.dir))
    }

    fn parent(&mut self, named: &TreePath) -> Result<(TreePath, &OwnedFd), TreeError> {
        if self.last.as_ref().is_none_or(|(last, ..)| last != named) {
            let (real, fd) = self.mkdir(self.base.join(named).as_bytes())?;
            self.touched.insert(real.clone());
            self.last = Some((named.clone(), real, fd));
        }
        let (_, real, fd) = self.last.as_ref().expect("it was set above");
        Ok((real.clone(), fd))
    }

    fn entry(&mut self, entry: &TarEntry, content: &mut impl Read) -> Result<(), TreeError> {
        let name = TreePath::clean_strict(&entry.name)?;
        let Some(parent) = name.parent() else { return Ok(()) };
        let (dir_path, dir) = self.parent(&parent)?;
        let dir = dir.try_clone().map_err(TreeError::io("open", &dir_path))?;
        let (dir, base) = (dir.as_fd(), name.name());
        let path = dir_path.join_name(base);
        if entry.kind == EntryType::Directory {
            return self.directory(dir, base, path, entry);
        }
        make_room(dir, base, &path)?;
        // What was there may have been the link that led to the last directory.
        self.last = None;
        let done = match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                self.file(dir, base, &path, entry, content).map(|()| true)
            }
            EntryType::Link => return self.link(dir, base, &path, entry),
            EntryType::Symlink if entry.link.is_empty() || entry.link.contains(&0) => {
                return Err(entry.bad("its link text is empty or has a NUL byte"));
            }
            EntryType::Symlink => fs::symlinkat(&*entry.link, dir, base)
                .map(|()| true)
                .map_err(TreeError::io("make link", &path)),
            EntryType::Char | EntryType::Block | EntryType::Fifo => node(dir, base, &path, entry),
            _ => Err(entry.bad("it is of no known kind")),
        }?;
        if !done {
            self.copied.skipped_devices.push(path);
            return Ok(());
        }
        self.own(&path, entry);
        if matches!(entry.kind, EntryType::Regular | EntryType::Continuous) {
            return Ok(());
        }
        let finish = || -> Result<(), Errno> {
            if let Some((uid, gid)) = self.owner(entry) {
                fs::chownat(dir, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if entry.kind != EntryType::Symlink {
                fs::chmodat(dir, base, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
            set_times_at(dir, base, entry.mtime)
        };
        finish().map_err(TreeError::io("finish", &path))
    }

    fn owner(&self, entry: &TarEntry) -> Option<(Uid, Gid)> {
        let (uid, gid) = self.options.chown.unwrap_or((entry.uid, entry.gid));
        (!self.options.limits.squash_ids).then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn own(&mut self, path: &TreePath, entry: &TarEntry) {
        if self.options.limits.squash_ids {
            let (uid, gid) = self.options.chown.unwrap_or((entry.uid, entry.gid));
            self.copied.owners.insert(path.clone(), Ownership { uid, gid, mode: None });
        }
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: TreePath,
        entry: &TarEntry,
    ) -> Result<(), TreeError> {
        let kind = |e| TreeError::io("make directory", &path)(e);
        let made = match fs::mkdirat(dir, name, Mode::RWXU) {
            Err(Errno::EXIST) => false,
            other => other.map(|()| true).map_err(kind)?,
        };
        if !made {
            let stat =
                fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::io("stat", &path))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                make_room(dir, name, &path)?;
                self.last = None;
                fs::mkdirat(dir, name, Mode::RWXU).map_err(TreeError::io("make directory", &path))?;
            }
        }
        self.own(&path, entry);
        self.dirs.push((
            path,
            TarEntry { name: Vec::new(), link: Vec::new(), xattrs: entry.xattrs.clone(), ..*entry },
        ));
        Ok(())
    }

    fn file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
        entry: &TarEntry,
        content: &mut impl Read,
    ) -> Result<(), TreeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(TreeError::io("create", path))?;
        let mut file = File::from(fd);
        io::copy(content, &mut file).map_err(TreeError::io("write", path))?;
        self.finish_fd(file.as_fd(), entry).map_err(TreeError::io("finish", path))
    }

    fn finish_fd(&self, fd: BorrowedFd<'_>, entry: &TarEntry) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner(entry) {
            fs::fchown(fd, Some(uid), Some(gid))?;
        }
        for xattr in entry.xattrs.iter().filter(|x| xattr_counts(&x.name)) {
            // Attributes are kept where that is possible.
            fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()).unwrap_or_default();
        }
        fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?;
        set_times_fd(fd, entry.mtime)
    }

    fn link(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
        entry: &TarEntry,
    ) -> Result<(), TreeError> {
        let target = TreePath::clean_strict(&entry.link)?;
        let missing = || TreeError::LinkTarget { path: path.clone(), target: target.clone() };
        let place = self.root.place(self.base.join(&target).as_bytes(), false)?;
        let [last] = place.rest.as_slice() else { return Err(missing()) };
        fs::linkat(&place.dir, &**last, dir, name, AtFlags::empty()).map_err(|e| match e {
            Errno::NOENT => missing(),
            e => TreeError::io("link", path)(e),
        })?;
        if let Some(owner) = self.copied.owners.get(&place.path()).copied() {
            self.copied.owners.insert(path.clone(), owner);
        }
        Ok(())
    }

    fn finish(self) -> Result<Copied, TreeError> {
        if let Some(mtime) = self.options.mtime {
            // What was there before gets the time that there is for all that is made: else it would be now.
            for path in self.touched.iter().filter(|path| !path.is_root()) {
                match self.root.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
                    Ok(fd) => {
                        set_times_fd(fd.as_fd(), mtime).map_err(TreeError::io("set times of", path))?;
                    }
                    Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        for (path, entry) in self.dirs.iter().rev() {
            match self.root.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
                Ok(fd) => self.finish_fd(fd.as_fd(), entry).map_err(TreeError::io("finish", path))?,
                // A later entry of the archive put something else there.
                Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.copied)
    }
}

/// False when the kernel refuses devices to us, and for 0:0, which would be taken for a deletion.
fn node(dir: BorrowedFd<'_>, name: &[u8], path: &TreePath, entry: &TarEntry) -> Result<bool, TreeError> {
    let kind = match entry.kind {
        EntryType::Char if entry.device == (0, 0) => return Ok(false),
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = if kind == FileType::Fifo { 0 } else { fs::makedev(entry.device.0, entry.device.1) };
    match fs::mknodat(dir, name, kind, Mode::empty(), device) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS) if kind != FileType::Fifo => Ok(false),
        Err(e) => Err(TreeError::io("make device", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    use tar::{Builder, Header};

    use super::*;
    use crate::inroot::open_host_dir;

    fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for &(kind, name, text) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let content = if kind == EntryType::Regular { text } else { "" };
            if kind != EntryType::Regular {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_size(content.len() as u64);
            header.set_mode(0o750);
            header.set_uid(1);
            header.set_gid(2);
            header.set_mtime(1_000_000_000);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("root/run")).unwrap();
        std::fs::create_dir_all(temp.path().join("root/var")).unwrap();
        std::fs::create_dir(temp.path().join("host")).unwrap();
        symlink("/run", temp.path().join("root/var/run")).unwrap();
        symlink("../../host", temp.path().join("root/var/up")).unwrap();
        let fd = open_host_dir(&temp.path().join("root")).unwrap();
        (temp, fd)
    }

    fn options() -> ExtractOptions {
        let limits = UnpackOptions { squash_ids: true, ..UnpackOptions::default() };
        ExtractOptions { limits, ..ExtractOptions::default() }
    }

    #[test]
    fn told_by_content() {
        let plain = tar(&[(EntryType::Regular, "f", "x")]);
        let zst = zstd::encode_all(&plain[..], 1).unwrap();
        let not = zstd::encode_all(&b"just text"[..], 1).unwrap();
        for (bytes, want) in [
            (&plain[..], true),
            (&zst, true),
            (&not, false),
            (b"text", false),
            (b"", false),
            (&[0; 1024], false),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file.rewind().unwrap();
            assert_eq!(is_archive(&mut file).unwrap(), want);
            assert_eq!(file.stream_position().unwrap(), 0);
        }
    }

    #[test]
    fn onto_a_tree() {
        use EntryType::{Directory as D, Link as H, Regular as F, Symlink as S};
        let (temp, fd) = root();
        let bytes = tar(&[
            (F, "var/run/x", "1"),
            (H, "var/y", "var/run/x"),
            (S, "l", "/etc"),
            (D, "d", ""),
            (F, "deep/er/f", "2"),
            (F, ".wh.d", ""),
        ]);
        let copied = extract(&bytes[..], fd.as_fd(), b"/", &options()).unwrap();
        let at = |p: &str| temp.path().join("root").join(p);
        assert_eq!(std::fs::read(at("run/x")).unwrap(), b"1");
        assert_eq!(std::fs::metadata(at("var/y")).unwrap().nlink(), 2);
        assert_eq!(std::fs::metadata(at("d")).unwrap().mtime(), 1_000_000_000);
        assert!(at(".wh.d").exists() && at("deep/er/f").exists());
        assert_eq!(copied.owners[&TreePath::parse(b"run/x").unwrap()].uid, 1);
        extract(&bytes[..], fd.as_fd(), b"/new/place", &options()).unwrap();
        assert!(at("new/place/var/run/x").exists());
    }

    #[test]
    fn hostile() {
        use EntryType::{Link as H, Regular as F, Symlink as S};
        let refused: &[&[(EntryType, &str, &str)]] = &[
            &[(F, "../x", "")],
            &[(H, "h", "../../host")],
            &[(H, "h", "nope")],
            &[(F, "var", "x")],
            &[(S, "s", "")],
        ];
        for entries in refused {
            let (_temp, fd) = root();
            assert!(extract(&tar(entries)[..], fd.as_fd(), b"/", &options()).is_err(), "{entries:?}");
        }
        let (temp, fd) = root();
        let inside = tar(&[
            (F, "var/up/x", "1"),
            (S, "a", "../../../host"),
            (F, "a/y", "2"),
            (S, "b", "/"),
            (F, "b/z", "3"),
        ]);
        extract(&inside[..], fd.as_fd(), b"/", &options()).unwrap();
        assert_eq!(std::fs::read_dir(temp.path().join("host")).unwrap().count(), 0);
        assert!(temp.path().join("root/host/x").exists() && temp.path().join("root/z").exists());
    }
}
