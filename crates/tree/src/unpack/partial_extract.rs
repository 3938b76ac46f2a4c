//! Some files of a layer's tar, and nothing else of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use tar::EntryType;

use super::UnpackOptions;
use super::disk::Disk;
use crate::entry::{ContentDigest, Kind, Meta};
use crate::error::TreeError;
use crate::inroot::open_plain_raw;
use crate::path::TreePath;
use crate::tar_read::entries;
use crate::tree::Tree;

/// A file to be taken out of an archive.
#[derive(Debug)]
struct Wanted {
    size: u64,
    content: ContentDigest,
    /// All names that it is to have.
    places: Vec<TreePath>,
}

/// Files of one layer that are wanted.
#[derive(Debug, Default)]
pub struct PartialExtract {
    files: Vec<Wanted>,
    /// Under which names the archive may have which of them: any of those that the file has in the tree.
    names: HashMap<TreePath, usize>,
}

impl PartialExtract {
    /// The files that `tree` has at these paths. What is no file is not counted.
    #[must_use]
    pub fn of<'p>(tree: &Tree, paths: impl IntoIterator<Item = &'p TreePath>) -> PartialExtract {
        let mut part = PartialExtract::default();
        let mut numbers: BTreeMap<&TreePath, usize> = BTreeMap::new();
        for path in paths {
            let Some(file) = tree.get(path).map(|entry| tree.resolve_hardlink(entry)) else { continue };
            let Kind::File { size, content } = file.kind else { continue };
            let number = *numbers.entry(&file.path).or_insert_with(|| {
                part.files.push(Wanted { size, content, places: Vec::new() });
                part.files.len() - 1
            });
            part.files[number].places.push(path.clone());
            part.names.insert(file.path.clone(), number);
        }
        for entry in tree.entries() {
            if let Kind::Hardlink { to } = &entry.kind
                && let Some(number) = numbers.get(to)
            {
                part.names.insert(entry.path.clone(), *number);
            }
        }
        part
    }

    /// True where nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Writes the files to the directory `dest`, below directories of ours, from the layer's tar, plain or compressed;
    /// reads no further than to the last of them. False if not all were found under names that a tree tells: then the
    /// archive went over links of its own, and only unpacking all of it finds them.
    ///
    /// Their metadata are not those of the archive.
    ///
    /// # Errors
    /// [`TreeError`] for what is wrong with the archive; [`TreeError::Io`] for what the disk refuses.
    pub fn take_from(
        &self,
        tar: impl Read + Send,
        dest: BorrowedFd<'_>,
        options: &UnpackOptions,
    ) -> Result<bool, TreeError> {
        let mut dirs = Dirs { disk: Disk::new(dest, true), made: BTreeSet::new() };
        let mut taken = vec![false; self.files.len()];
        let mut left = self.files.len();
        let mut reader = entries(tar, options.limits())?;
        while left > 0 {
            let Some(entry) = reader.next_entry()? else { return Ok(false) };
            if !matches!(entry.kind, EntryType::Regular | EntryType::Continuous) {
                continue;
            }
            let Some(&number) = self.names.get(&TreePath::clean(&entry.name)?) else { continue };
            let file = &self.files[number];
            // One of that name may come again: the tree says which of them counts.
            if !taken[number] && entry.size == file.size && dirs.file(file, &mut reader)? {
                taken[number] = true;
                left -= 1;
            }
        }
        Ok(true)
    }

    /// The same from a directory that has the files under their names. False if one cannot be linked.
    ///
    /// # Errors
    /// [`TreeError::Io`] where a directory cannot be made.
    pub fn link_from(&self, dirs: &[BorrowedFd<'_>], dest: BorrowedFd<'_>) -> Result<bool, TreeError> {
        let mut made = Dirs { disk: Disk::new(dest, true), made: BTreeSet::new() };
        for place in self.files.iter().flat_map(|file| &file.places) {
            made.above(place)?;
            let parent = place.parent().unwrap_or_default();
            let linked = dirs.iter().any(|dir| {
                open_plain_raw(*dir, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                    .is_ok_and(|from| made.disk.link_from(from.as_fd(), place).is_ok())
            });
            if !linked {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A directory that is filled, and what has been made in it.
struct Dirs<'d> {
    disk: Disk<'d>,
    made: BTreeSet<TreePath>,
}

impl Dirs<'_> {
    fn above(&mut self, path: &TreePath) -> Result<(), TreeError> {
        let mut missing: Vec<TreePath> = Vec::new();
        for dir in path.ancestors().skip(1) {
            if !dir.is_root() && !self.made.contains(&dir) {
                missing.push(dir);
            }
        }
        missing.sort();
        for dir in missing {
            match self.disk.mkdir(&dir) {
                Err(error) if error.errno() != Some(rustix::io::Errno::EXIST) => return Err(error),
                _ => self.made.insert(dir),
            };
        }
        Ok(())
    }

    /// False if the content is another one.
    fn file(&mut self, file: &Wanted, content: &mut impl Read) -> Result<bool, TreeError> {
        let Some((first, others)) = file.places.split_first() else { return Ok(true) };
        self.above(first)?;
        let meta = Meta { mode: 0o600, ..Meta::default() };
        if self.disk.file(first, &meta, &[], content)? != file.content {
            self.disk.unlink(first, false)?;
            return Ok(false);
        }
        for other in others {
            self.above(other)?;
            self.disk.link(first, other)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::inroot::open_host_dir;
    use crate::unpack::read_layer;

    /// Entries of a tar: a link has the text behind `>`.
    fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_ustar();
            let (kind, link) = match (text.strip_prefix('>'), text.strip_prefix('=')) {
                (Some(target), _) => (EntryType::Symlink, target),
                (_, Some(target)) => (EntryType::Link, target),
                _ => (EntryType::Regular, ""),
            };
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let content = if link.is_empty() { text.as_bytes() } else { b"" };
            header.set_size(content.len() as u64);
            if link.is_empty() {
                builder.append_data(&mut header, name, content).unwrap();
            } else {
                builder.append_link(&mut header, name, link).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn take(archive: &[u8], paths: &[&str]) -> (tempfile::TempDir, Result<bool, TreeError>) {
        let tree = read_layer(archive, &UnpackOptions::default()).unwrap().tree;
        let paths: Vec<TreePath> =
            paths.iter().map(|path| TreePath::parse(path.as_bytes()).unwrap()).collect();
        let to = tempfile::tempdir().unwrap();
        let dir = open_host_dir(to.path()).unwrap();
        let part = PartialExtract::of(&tree, &paths);
        let taken = part.take_from(archive, dir.as_fd(), &UnpackOptions::default());
        (to, taken)
    }

    #[test]
    fn only_what_is_wanted() {
        let archive = tar(&[
            ("usr/bin/x", "old"),
            ("other", "other"),
            ("usr/bin/z", "=usr/bin/x"),
            ("usr/bin/x", "new"),
            ("usr/bin/a", "=usr/bin/x"),
            ("e", ""),
        ]);
        let (to, taken) = take(&archive, &["usr/bin/x", "usr/bin/a", "e", "usr"]);
        assert!(taken.unwrap());
        let at = |name: &str| to.path().join(name);
        assert_eq!(std::fs::read(at("usr/bin/x")).unwrap(), b"new");
        assert_eq!(std::fs::metadata(at("usr/bin/a")).unwrap().nlink(), 2);
        assert!(at("e").exists() && !at("other").exists() && !at("usr/bin/z").exists());
        // Its content came under a name that is another file's now.
        assert!(!take(&archive, &["usr/bin/z"]).1.unwrap());
    }

    #[test]
    fn what_lies_behind_is_not_read() {
        let mut archive = tar(&[("a", "1"), ("b", "2")]);
        let tree = read_layer(&archive[..], &UnpackOptions::default()).unwrap().tree;
        archive.truncate(1024);
        let to = tempfile::tempdir().unwrap();
        let dir = open_host_dir(to.path()).unwrap();
        let part = |name: &str| PartialExtract::of(&tree, &[TreePath::parse(name.as_bytes()).unwrap()]);
        let options = UnpackOptions::default();
        assert!(part("a").take_from(&archive[..], dir.as_fd(), &options).unwrap());
        assert!(!part("b").take_from(&archive[..], dir.as_fd(), &options).unwrap());
        assert!(part("nothing").is_empty());
    }

    #[test]
    fn names_over_links_are_not_found() {
        let archive = tar(&[("real/f", "1"), ("way", ">real"), ("way/g", "2")]);
        let (to, taken) = take(&archive, &["real/f"]);
        assert!(taken.unwrap() && to.path().join("real/f").exists());
        assert!(!take(&archive, &["real/g"]).1.unwrap());
    }
}
