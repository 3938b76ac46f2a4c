//! A layer's tar into a fresh directory in overlay format, and its [`Tree`].
//!
//! The archive is hostile. Names are made normal first; links on the way are resolved in memory, against what this
//! very archive made; the disk is only touched beneath the destination, by paths free of links. The destination
//! has to be empty and nobody else's. Whiteouts become devices 0:0, opaque directories get `user.overlay.opaque`;
//! neither deletes anything of the same layer. Attributes of overlayfs itself are never taken from an archive.

pub(crate) mod disk;
mod nodes;
mod partial_extract;
mod stream;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::BorrowedFd;

use tar::EntryType;

use crate::entry::{ContentDigest, Kind, Meta, Xattr, xattr_counts};
use crate::error::TreeError;
use crate::layer_tar::{OPAQUE, WHITEOUT};
use crate::path::TreePath;
use crate::resolve::{Found, Links, Lookup, Names, resolve};
use crate::tar_read::{MAX_MEMORY, TarEntry, TarReader};
use crate::tree::Tree;
use disk::Disk;
pub use disk::WhiteoutStorage;
use nodes::Nodes;
pub use partial_extract::PartialExtract;

/// Most headers of a layer, extensions included. What is in memory of them is bounded by [`crate::tar_read`].
const MAX_ENTRIES: u64 = 2_000_000;

/// How an archive is unpacked, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    /// Leave owners as they come on disk (one mapped id); the tree has the archive's.
    pub single_id: bool,
    /// How deletions are marked.
    pub marks: WhiteoutStorage,
    /// Most entries an archive may have, extension headers included.
    pub max_entries: u64,
    /// Most bytes it may have uncompressed.
    pub max_bytes: u64,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            single_id: false,
            marks: WhiteoutStorage::OnDisk,
            max_entries: MAX_ENTRIES,
            max_bytes: 256 << 30,
        }
    }
}

impl UnpackOptions {
    /// The most entries and bytes of an archive.
    pub(crate) fn limits(&self) -> (u64, u64) {
        (self.max_entries, self.max_bytes)
    }
}

/// What came out of an archive.
#[derive(Debug)]
pub struct Unpacked {
    /// All entries, with what the disk could not hold.
    pub tree: Tree,
    /// sha256 of the uncompressed stream, up to its very end.
    pub diff_id: [u8; 32],
    /// Length of the uncompressed stream.
    pub size: u64,
    /// Directories that no entry named but others lie in: made 0755, 0:0, at the epoch. Where a lower layer has
    /// the same directory, its metadata are what the layer's author meant.
    pub implied_dirs: Vec<TreePath>,
    /// Devices that could not be made; they are in the tree only.
    pub skipped_devices: Vec<TreePath>,
}

/// Unpacks a tar, plain or compressed (gzip, bzip2, xz, zstd), into the empty directory `dest`.
///
/// # Errors
/// [`TreeError::BadArchive`], [`TreeError::BadPath`], [`TreeError::TooBig`], [`TreeError::LinkTarget`],
/// [`TreeError::NotADirectory`] for what the archive does wrong; [`TreeError::Io`] for what the disk refuses. What
/// was unpacked before stays: the caller throws the directory away.
pub fn unpack_layer(
    input: impl Read + Send,
    dest: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Unpacked, TreeError> {
    unpack(input, Disk::new(dest, options.single_id).with_marks(options.marks), options)
}

/// What [`unpack_layer`] would give, with the same errors, and nothing on any disk.
///
/// # Errors
/// As [`unpack_layer`].
pub fn read_layer(input: impl Read + Send, options: &UnpackOptions) -> Result<Unpacked, TreeError> {
    unpack(input, Disk::none(), options)
}

fn unpack(input: impl Read + Send, disk: Disk<'_>, options: &UnpackOptions) -> Result<Unpacked, TreeError> {
    let ((tree, implied_dirs, skipped_devices), diff_id, size) =
        stream::with_plain(input, options.max_bytes, |plain| {
            let mut reader = TarReader::new(plain, options.max_entries);
            let mut unpacker = Unpacker::new(disk, Limits::default());
            while let Some(entry) = reader.next_entry()? {
                unpacker.entry(&entry, &mut reader)?;
            }
            reader.drain()?;
            unpacker.finish()
        })?;
    Ok(Unpacked { tree, diff_id, size, implied_dirs, skipped_devices })
}

struct Unpacker<'a> {
    disk: Disk<'a>,
    nodes: Nodes,
    /// The last directory a name was resolved to: most entries lie beside the one before.
    last_dir: Option<(TreePath, TreePath)>,
    skipped: BTreeSet<TreePath>,
    /// How many bytes of names were followed to directories.
    followed: u64,
    limits: Limits,
}

/// What an archive may cost.
#[derive(Clone, Copy)]
struct Limits {
    /// Most bytes in memory.
    memory: u64,
    /// Most bytes of names that are followed to directories: links, and the names behind them.
    followed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: MAX_MEMORY, followed: 1 << 30 }
    }
}

impl<'a> Unpacker<'a> {
    fn new(disk: Disk<'a>, limits: Limits) -> Self {
        let nodes = Nodes::with_limit(limits.memory);
        Self { disk, nodes, last_dir: None, skipped: BTreeSet::new(), followed: 0, limits }
    }

    fn entry(&mut self, entry: &TarEntry, content: &mut impl Read) -> Result<(), TreeError> {
        let name = TreePath::clean_strict(&entry.name)?;
        let parent = match name.parent() {
            None if entry.kind == EntryType::Directory => return self.root(entry),
            None => return Err(entry.bad("it would replace the root")),
            Some(parent) => self.directory(&parent)?,
        };
        match name.name().strip_prefix(WHITEOUT) {
            Some(_) if name.name() == OPAQUE => self.set_opaque(&parent),
            // Left behind by AUFS; they mean nothing to anybody else.
            Some(rest) if rest.starts_with(WHITEOUT) => Ok(()),
            Some(b"" | b"." | b"..") => Err(entry.bad("it deletes no name")),
            Some(deleted) => self.whiteout(parent.join_name(deleted)),
            None => self.place(entry, parent.join_name(name.name()), content),
        }
    }

    fn root(&mut self, entry: &TarEntry) -> Result<(), TreeError> {
        let path = TreePath::root();
        let opaque = matches!(self.nodes.kind(&path), Some(Kind::Dir { opaque: true }));
        self.nodes.insert(path, Kind::Dir { opaque }, meta(entry))
    }

    /// The real place of a directory named by the archive, made where it is missing.
    fn directory(&mut self, named: &TreePath) -> Result<TreePath, TreeError> {
        if let Some((_, real)) = self.last_dir.as_ref().filter(|(last, _)| last == named) {
            return Ok(real.clone());
        }
        let mut walk = ArchiveWalk { unpacker: self, at: TreePath::root(), link: TreePath::root(), named };
        // What is missing is made and what is in the way is an error, so that each way ends in a directory.
        resolve(&mut walk, named.as_bytes(), Links::ALL)?;
        let real = walk.at;
        self.last_dir = Some((named.clone(), real.clone()));
        Ok(real)
    }

    /// Makes what is missing of the directory `path`, of which `found` is there.
    fn made_below(&mut self, found: &TreePath, path: TreePath) -> Result<TreePath, TreeError> {
        let missing = path.ends_below(found).into_iter().map(|end| path.beginning(end));
        for dir in [found.clone()].into_iter().chain(missing) {
            match self.nodes.kind(&dir) {
                _ if dir.is_root() => {}
                Some(Kind::Dir { .. }) => {}
                None | Some(Kind::Whiteout) => {
                    self.make_dir(dir, Meta { mode: 0o755, ..Meta::default() }, true)?;
                }
                Some(_) => return Err(TreeError::NotADirectory { path: dir }),
            }
        }
        Ok(path)
    }

    /// Counts the bytes of names that were followed: an archive of links to links has few of its own.
    fn follow(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.followed += bytes as u64;
        let limit = self.limits.followed;
        let what = "bytes of links to follow";
        if self.followed > limit { Err(TreeError::TooBig { what, limit }) } else { Ok(()) }
    }

    fn make_dir(&mut self, path: TreePath, meta: Meta, implied: bool) -> Result<(), TreeError> {
        // A deletion of the name came before: what lower layers have below it must not show through.
        let opaque = match self.nodes.kind(&path) {
            Some(Kind::Dir { opaque }) => {
                let kind = Kind::Dir { opaque: *opaque };
                return self.insert_dir(path, kind, meta, implied);
            }
            Some(Kind::Whiteout) => true,
            _ => false,
        };
        self.remove(&path)?;
        self.disk.mkdir(&path)?;
        self.insert_dir(path, Kind::Dir { opaque }, meta, implied)
    }

    fn insert_dir(&mut self, path: TreePath, kind: Kind, meta: Meta, implied: bool) -> Result<(), TreeError> {
        match implied {
            true => self.nodes.insert_implied(path, kind, meta),
            false => self.nodes.insert(path, kind, meta),
        }
    }

    /// Takes away what an earlier entry put there.
    fn remove(&mut self, path: &TreePath) -> Result<(), TreeError> {
        if !self.nodes.contains(path) {
            return Ok(());
        }
        self.last_dir = None;
        let below = self.nodes.subtree(path);
        for path in below.iter().rev() {
            if let Some(kind) = self.nodes.remove(path)
                && !self.skipped.remove(path)
            {
                match kind {
                    Kind::Whiteout => self.disk.unmark(path)?,
                    kind => self.disk.unlink(path, matches!(kind, Kind::Dir { .. }))?,
                }
            }
        }
        Ok(())
    }

    fn set_opaque(&mut self, dir: &TreePath) -> Result<(), TreeError> {
        if dir.is_root() && !self.nodes.contains(dir) {
            let meta = Meta { mode: 0o755, ..Meta::default() };
            self.nodes.insert_implied(dir.clone(), Kind::Dir { opaque: true }, meta)?;
        }
        self.nodes.set_opaque(dir);
        Ok(())
    }

    fn whiteout(&mut self, path: TreePath) -> Result<(), TreeError> {
        match self.nodes.kind(&path) {
            Some(Kind::Dir { .. }) => self.set_opaque(&path),
            // Whatever else this layer has there hides the lower one already.
            Some(_) => Ok(()),
            None => {
                self.disk.whiteout(&path)?;
                self.nodes.insert(path, Kind::Whiteout, Meta::default())
            }
        }
    }

    fn place(&mut self, entry: &TarEntry, path: TreePath, content: &mut impl Read) -> Result<(), TreeError> {
        let mut meta = meta(entry);
        let (major, minor) = entry.device;
        let kind = match entry.kind {
            EntryType::Directory => return self.make_dir(path, meta, false),
            EntryType::Link => return self.link(entry, path),
            EntryType::Symlink => Kind::Symlink { target: entry.link.clone().into() },
            EntryType::Char => Kind::CharDev { major, minor },
            EntryType::Block => Kind::BlockDev { major, minor },
            EntryType::Fifo => Kind::Fifo,
            EntryType::Regular | EntryType::Continuous => {
                Kind::File { size: entry.size, content: ContentDigest([0; 32]) }
            }
            _ => return Err(entry.bad("it is of no known kind")),
        };
        if matches!(kind, Kind::CharDev { major: 0, minor: 0 }) {
            return Err(entry.bad("a device 0:0 would be taken for a deletion"));
        }
        self.remove(&path)?;
        let kind = match kind {
            Kind::File { size, .. } => {
                let digest = self.disk.file(&path, &meta, &entry.xattrs, content)?;
                Kind::File { size, content: digest }
            }
            Kind::Symlink { target } => {
                if target.is_empty() || target.contains(&0) {
                    return Err(entry.bad("its link text is empty or has a NUL byte"));
                }
                (meta.mode, meta.xattrs) = (0o777, Vec::new());
                self.disk.symlink(&path, &target, &meta)?;
                Kind::Symlink { target }
            }
            special => {
                meta.xattrs = Vec::new();
                if !self.disk.special(&path, &special, &meta)? {
                    self.skipped.insert(path.clone());
                }
                special
            }
        };
        self.nodes.insert(path, kind, meta)
    }

    fn link(&mut self, entry: &TarEntry, path: TreePath) -> Result<(), TreeError> {
        let named = TreePath::clean_strict(&entry.link)?;
        let missing = || TreeError::LinkTarget { path: path.clone(), target: named.clone() };
        let above = named.parent().ok_or_else(missing)?;
        let target = self.existing_dir(&above).ok_or_else(missing)?.join_name(named.name());
        if target == path {
            return if self.nodes.contains(&path) { Ok(()) } else { Err(missing()) };
        }
        let linkable = |kind: &Kind| !matches!(kind, Kind::Dir { .. } | Kind::Whiteout);
        if !self.nodes.kind(&target).is_some_and(linkable) || target.starts_with(&path) {
            return Err(missing());
        }
        self.remove(&path)?;
        if self.skipped.contains(&target) {
            self.skipped.insert(path.clone());
        } else {
            self.disk.link(&target, &path)?;
        }
        self.nodes.link(&target, path)
    }

    /// The real place of a directory that has to be there already.
    fn existing_dir(&mut self, named: &TreePath) -> Option<TreePath> {
        let before = self.nodes.len();
        // Making a missing one would leave a trace of a link that is an error anyway: the whole is thrown away.
        self.directory(named).ok().filter(|_| self.nodes.len() == before)
    }

    fn finish(self) -> Result<(Tree, Vec<TreePath>, Vec<TreePath>), TreeError> {
        let Self { disk, nodes, skipped, .. } = self;
        // Deepest first: nothing that is done to a directory's children comes after its own times.
        for (path, meta, opaque) in nodes.dirs() {
            disk.finish_dir(path, meta, opaque)?;
        }
        let (tree, implied) = nodes.finish()?;
        Ok((tree, implied, skipped.into_iter().collect()))
    }
}

/// A resolution in what an archive has made so far.
struct ArchiveWalk<'u, 'a> {
    unpacker: &'u mut Unpacker<'a>,
    at: TreePath,
    /// The last link.
    link: TreePath,
    /// The whole path, for errors.
    named: &'u TreePath,
}

impl Lookup for ArchiveWalk<'_, '_> {
    type Error = TreeError;

    fn enter(&mut self, names: &Names<'_>) -> Result<Found, TreeError> {
        let run = self.at.join(&TreePath::parse(names.all())?);
        self.unpacker.follow(self.at.as_bytes().len() + run.as_bytes().len())?;
        let found = self.unpacker.nodes.deepest(&self.at, &run);
        let taken = names.all().len();
        if let Some(Kind::Symlink { .. }) = self.unpacker.nodes.kind(&found) {
            self.at = found.parent().unwrap_or_default();
            let taken = taken - (run.as_bytes().len() - found.as_bytes().len());
            self.link = found;
            return Ok(Found::Link { taken });
        }
        self.at = self.unpacker.made_below(&found, run)?;
        Ok(Found::Directory { taken })
    }

    fn read_link(&mut self) -> Result<Box<[u8]>, TreeError> {
        let Some(Kind::Symlink { target }) = self.unpacker.nodes.kind(&self.link) else {
            return Ok(Box::default());
        };
        let target = target.clone();
        self.unpacker.follow(target.len())?;
        Ok(target)
    }

    fn up(&mut self) {
        self.at = self.at.parent().unwrap_or_default();
    }

    fn back_to_root(&mut self) {
        self.at = TreePath::root();
    }

    fn too_many_links(&self) -> TreeError {
        TreeError::Loop { path: self.named.to_string() }
    }
}

fn meta(entry: &TarEntry) -> Meta {
    let xattrs: Vec<Xattr> = entry.xattrs.iter().filter(|x| xattr_counts(&x.name)).cloned().collect();
    Meta { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs }
}

#[cfg(test)]
mod limits;
#[cfg(test)]
mod tests;
