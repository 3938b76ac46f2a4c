//! A copy of a client's directory, which the next transfer only changes.
//!
//! The directory `tree` has the files, and `stats` what the client said of them, in order. The file `stats` is removed before
//! the first change and written after the last one: a copy without that file is begun anew.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lapstrake_proto::fsutil::types::Stat;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::removal::{remove_all, remove_all_at};
use prost::Message as _;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens,
    linkat, mkdirat, mknodat, openat2, symlinkat, utimensat,
};

use super::TransferError;
use super::entry::{Entry, Kind, in_order};

/// A change that still lacks something.
pub(super) enum Change {
    /// The tree has what the client says.
    Done,
    /// The content of the file is to be fetched.
    Content,
}

/// A copy that is being brought up to date.
pub(super) struct Mirror {
    root: OwnedFd,
    stats: PathBuf,
    /// The entries of the last transfer that this one has not come to yet, the last one first.
    before: Vec<Stat>,
    /// The entries of this transfer.
    now: Vec<Stat>,
    /// Paths of regular files that this transfer has made anew.
    renewed: BTreeSet<String>,
    /// Directories whose times are set last: paths, times and modes.
    directories: Vec<(String, i64, u32)>,
    /// Directories in which entries came or went.
    touched: BTreeSet<String>,
}

impl Mirror {
    /// Opens the copy in the directory `place`, to which nobody else has access meanwhile.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(super) fn open(place: &Path) -> Result<Mirror, TransferError> {
        let (tree, stats) = (place.join("tree"), place.join("stats"));
        let io = |source| TransferError::io("", source);
        let before = match fs::read(&stats) {
            Ok(bytes) => decode(&bytes),
            Err(_) => None,
        };
        // From here on the copy counts as broken until `finish`.
        match fs::remove_file(&stats) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        if before.is_none() {
            match remove_all(&tree) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
            fs::create_dir(&tree).map_err(io)?;
        }
        let mut before = before.unwrap_or_default();
        before.reverse();
        let root = open_host_dir(&tree).map_err(|error| io(std::io::Error::other(error)))?;
        Ok(Mirror {
            root,
            stats,
            before,
            now: Vec::new(),
            renewed: BTreeSet::new(),
            directories: Vec::new(),
            touched: BTreeSet::new(),
        })
    }

    /// Takes in the next entry. Entries come in order, directories before what is in them.
    ///
    /// # Errors
    /// An entry out of order or in no directory, or one that cannot be made.
    pub(super) fn next(&mut self, stat: Stat) -> Result<Change, TransferError> {
        let entry = Entry::read(&stat)?;
        self.check_place(&entry)?;
        self.remove_before(&entry.path)?;
        let old = match self.before.last() {
            Some(old) if old.path == entry.path => self.before.pop(),
            _ => None,
        };
        let change = self.apply(&entry, &stat, old.as_ref())?;
        self.now.push(Stat { path: entry.path, ..stat });
        Ok(change)
    }

    fn check_place(&self, entry: &Entry) -> Result<(), TransferError> {
        let wrong = |why: &str| Err(TransferError::Protocol(format!("`{}` {why}", entry.path)));
        if self.now.last().is_some_and(|last| !in_order(&last.path, &entry.path)) {
            return wrong("out of order");
        }
        let parent = entry.parent();
        // The directories above the last entry are those that are open, so to speak: an entry in another one is out of order.
        let known = parent.is_empty() || self.directory(parent);
        if known { Ok(()) } else { wrong("without its directory") }
    }

    /// Whether this transfer has the directory `path`.
    fn directory(&self, path: &str) -> bool {
        let at = self.now.binary_search_by(|stat| stat.path.split('/').cmp(path.split('/')));
        at.ok()
            .and_then(|at| Entry::read(&self.now[at]).ok())
            .is_some_and(|entry| entry.kind == Kind::Directory)
    }

    /// Removes what the client has no more, up to `path`.
    fn remove_before(&mut self, path: &str) -> Result<(), TransferError> {
        while let Some(old) = self.before.pop_if(|old| in_order(&old.path, path)) {
            self.remove(&old)?;
        }
        Ok(())
    }

    /// Removes an entry of the last transfer with all below.
    fn remove(&mut self, old: &Stat) -> Result<(), TransferError> {
        let (parent, name) = old.path.rsplit_once('/').unwrap_or(("", &old.path));
        let dir = self.inside(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        match remove_all_at(&dir, name.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TransferError::io(&old.path, error));
            }
            _ => {}
        }
        let below = format!("{}/", old.path);
        while self.before.pop_if(|next| next.path.starts_with(&below)).is_some() {}
        self.touched.insert(parent.to_owned());
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, stat: &Stat, old: Option<&Stat>) -> Result<Change, TransferError> {
        let same = old.is_some_and(|old| {
            (old.mode, old.size, old.mod_time, &old.linkname)
                == (stat.mode, stat.size, stat.mod_time, &stat.linkname)
        });
        let relinked = matches!(&entry.kind, Kind::HardLink(to) if self.renewed.contains(to));
        let was_directory = old.is_some_and(|old| old.mode & 1 << 31 != 0);
        if entry.kind == Kind::Directory && was_directory {
            self.directories.push((entry.path.clone(), entry.mtime, entry.mode));
            if !same {
                self.touched.insert(entry.path.clone());
            }
            return Ok(Change::Done);
        }
        if same && !relinked {
            return Ok(Change::Done);
        }
        if let Some(old) = old {
            self.remove(old)?;
        }
        self.make(entry)
    }

    fn make(&mut self, entry: &Entry) -> Result<Change, TransferError> {
        let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
        let dir = self.inside(entry.parent(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.touched.insert(entry.parent().to_owned());
        let io = |source: rustix::io::Errno| TransferError::io(&entry.path, source);
        match &entry.kind {
            Kind::Directory => {
                mkdirat(&dir, name, Mode::from_raw_mode(0o755)).map_err(io)?;
                self.directories.push((entry.path.clone(), entry.mtime, entry.mode));
                self.touched.insert(entry.path.clone());
            }
            Kind::File(_) => {
                mknodat(&dir, name, FileType::RegularFile, Mode::from_raw_mode(0o600), 0).map_err(io)?;
                self.renewed.insert(entry.path.clone());
                return Ok(Change::Content);
            }
            Kind::HardLink(to) => {
                let (parent, target) = to.rsplit_once('/').unwrap_or(("", to));
                let from = self.inside(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
                linkat(&from, target, &dir, name, AtFlags::empty()).map_err(io)?;
                self.renewed.insert(entry.path.clone());
            }
            Kind::Symlink(target) => {
                symlinkat(target, &dir, name).map_err(io)?;
                set_link_time(&dir, name, entry.mtime).map_err(io)?;
            }
            Kind::Fifo => {
                mknodat(&dir, name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0).map_err(io)?;
                set_link_time(&dir, name, entry.mtime).map_err(io)?;
            }
            Kind::Other => {}
        }
        Ok(Change::Done)
    }

    /// The file at `path` for its content.
    ///
    /// # Errors
    /// The file is not there.
    pub(super) fn writer(&self, path: &str) -> Result<File, TransferError> {
        Ok(File::from(self.inside(path, OFlags::WRONLY | OFlags::NOFOLLOW)?))
    }

    /// The file has its content: sets mode and time.
    ///
    /// # Errors
    /// They cannot be set.
    pub(super) fn written(&self, file: &File, entry: &Entry) -> Result<(), TransferError> {
        let io = |source: rustix::io::Errno| TransferError::io(&entry.path, source);
        fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(io)?;
        futimens(file, &times(entry.mtime)).map_err(io)
    }

    /// The entry `number` of this transfer.
    pub(super) fn entry(&self, number: u32) -> Option<Entry> {
        Entry::read(self.now.get(usize::try_from(number).ok()?)?).ok()
    }

    /// All entries and contents are there.
    ///
    /// # Errors
    /// The rest of the last transfer cannot be removed, or the copy cannot be noted.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        while let Some(old) = self.before.pop() {
            self.remove(&old)?;
        }
        for (path, mtime, mode) in self.directories.iter().rev() {
            if self.touched.contains(path) {
                let dir = self.inside(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let io = |source: rustix::io::Errno| TransferError::io(path, source);
                fchmod(&dir, Mode::from_raw_mode(*mode)).map_err(io)?;
                futimens(&dir, &times(*mtime)).map_err(io)?;
            }
        }
        let mut bytes = Vec::new();
        for stat in &self.now {
            stat.encode_length_delimited(&mut bytes)
                .map_err(|error| TransferError::Protocol(error.to_string()))?;
        }
        let io = |source| TransferError::io("", source);
        let new = self.stats.with_extension("new");
        File::create(&new).and_then(|mut file| file.write_all(&bytes)).map_err(io)?;
        fs::rename(&new, &self.stats).map_err(io)
    }

    /// Opens a path of the tree. No link is followed: the tree has names of a client.
    fn inside(&self, path: &str, flags: OFlags) -> Result<OwnedFd, TransferError> {
        let path = if path.is_empty() { "." } else { path };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
            .map_err(|source| TransferError::io(path, source))
    }
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Stat>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.push(Stat::decode_length_delimited(&mut bytes).ok()?);
    }
    Some(all)
}

fn times(mtime: i64) -> Timestamps {
    let mtime =
        Timespec { tv_sec: mtime.div_euclid(1_000_000_000), tv_nsec: mtime.rem_euclid(1_000_000_000) };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: mtime }
}

fn set_link_time(dir: &OwnedFd, name: &str, mtime: i64) -> rustix::io::Result<()> {
    utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}
