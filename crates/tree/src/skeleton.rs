//! As much of a tree as putting something on it looks at, made where the files themselves are not.
//!
//! A copy onto lower layers looks where its destination leads, at what it would replace, and perhaps at who is in
//! `/etc/passwd`; the rest of the tree says nothing to it. So those few entries, with their metadata, do in place of all.
//! Contents are not there: where a copy would have to be compared with one, there is no skeleton.

mod archive;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::entry::{Entry, Kind};
use crate::error::TreeError;
use crate::owner::record_owners;
use crate::path::TreePath;
use crate::resolve::{Found, Links, Lookup, Names, resolve};
use crate::select::Selection;
use crate::tree::Tree;
use crate::unpack::disk::Disk;

/// Entries of a tree, and what is to be in those that are files.
#[derive(Debug)]
pub struct SkeletonTree<'t> {
    tree: &'t Tree,
    entries: BTreeMap<TreePath, &'t Entry>,
    contents: BTreeMap<TreePath, Vec<u8>>,
    /// Links that archives make: what they lead to is not looked at here.
    made_links: BTreeSet<TreePath>,
    /// Whether something led over one of them.
    over_made_link: bool,
}

impl<'t> SkeletonTree<'t> {
    /// Of `tree`, with nothing in it so far.
    #[must_use]
    pub fn new(tree: &'t Tree) -> Self {
        Self {
            tree,
            entries: BTreeMap::new(),
            contents: BTreeMap::new(),
            made_links: BTreeSet::new(),
            over_made_link: false,
        }
    }

    /// Takes in what a resolution of `path` comes across, and returns where it leads: links are followed, the last one
    /// too, and what is missing is taken literally.
    ///
    /// # Errors
    /// [`TreeError::BadPath`]; [`TreeError::Io`] after too many links.
    pub fn follow(&mut self, path: &[u8]) -> Result<TreePath, TreeError> {
        let at = TreePath::root();
        self.take(&at);
        let mut walk = SketchWalk { sketch: self, at, link: None };
        resolve(&mut walk, path, Links::ALL)?;
        Ok(walk.at)
    }

    /// Takes in what copying `selection` to `dest` looks at. False if that is not all: the content of a file, or a device.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn copy(&mut self, selection: &Selection, dest: &[u8]) -> Result<bool, TreeError> {
        let top = self.follow(dest)?;
        let mut enough = true;
        for root in &selection.roots {
            for entry in &root.entries {
                let mut places = vec![top.join(&entry.to)];
                if !root.is_dir {
                    // A directory of this name takes the file in.
                    places.push(top.join(&TreePath::parse(&root.name)?));
                }
                for place in places {
                    enough &= self.replace(&place, &entry.kind);
                }
            }
        }
        Ok(enough)
    }

    /// Takes in the file that writing `content` as `name` to `dest` replaces; as [`Self::copy`].
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn write_file(&mut self, name: &[u8], content: &[u8], dest: &[u8]) -> Result<bool, TreeError> {
        let top = self.follow(dest)?;
        let size = content.len() as u64;
        let kind = Kind::File { size, content: crate::entry::ContentDigest::of(content) };
        let inside = top.join(&TreePath::parse(name)?);
        Ok(self.replace(&top, &kind) & self.replace(&inside, &kind))
    }

    /// Says what is in the file that `path` leads to; see [`Self::file`].
    pub fn fill(&mut self, path: TreePath, content: Vec<u8>) {
        self.contents.insert(path, content);
    }

    /// Where `path` leads, if that is a file, and its size.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn file(&mut self, path: &[u8]) -> Result<Option<(TreePath, u64)>, TreeError> {
        let place = self.follow(path)?;
        let entry = self.tree.get(&place).map(|entry| self.tree.resolve_hardlink(entry));
        Ok(match entry.map(|entry| &entry.kind) {
            Some(Kind::File { size, .. }) => Some((place, *size)),
            _ => None,
        })
    }

    fn take(&mut self, path: &TreePath) {
        if let Some(entry) = self.tree.get(path) {
            self.entries.insert(path.clone(), entry);
        }
    }

    /// Takes in what `new` would replace. False if it cannot be told from it without a content.
    fn replace(&mut self, path: &TreePath, new: &Kind) -> bool {
        // What lies on the way is not always copied itself.
        for above in path.ancestors().skip(1) {
            if !self.entries.contains_key(&above) {
                self.take(&above);
            }
        }
        let Some(entry) = self.tree.get(path) else { return true };
        self.entries.insert(path.clone(), entry);
        let there = &self.tree.resolve_hardlink(entry).kind;
        match (there, new) {
            (Kind::File { size: 0, .. }, _) | (Kind::Dir { .. } | Kind::Symlink { .. }, _) => {}
            (Kind::File { content, .. }, Kind::File { size, content: ours }) => {
                if content == ours {
                    return false;
                }
                // Whatever is there is another size: then nobody compares any further.
                self.contents.entry(path.clone()).or_insert_with(|| vec![0; if *size == 1 { 2 } else { 1 }]);
            }
            (Kind::File { .. }, _) => {
                self.contents.entry(path.clone()).or_insert_with(|| vec![0]);
            }
            _ => return false,
        }
        true
    }

    /// Makes the entries in the empty directory `to`. With `single_id` owners are attributes.
    ///
    /// # Errors
    /// [`TreeError::Io`] naming the path.
    pub fn make(self, to: BorrowedFd<'_>, single_id: bool) -> Result<(), TreeError> {
        let mut disk = Disk::new(to, single_id);
        let mut made = Vec::with_capacity(self.entries.len());
        for (path, entry) in &self.entries {
            let mut entry = (*entry).clone();
            let meta = &entry.meta;
            match &entry.kind {
                Kind::Dir { .. } if path.is_root() => {}
                Kind::Dir { .. } => disk.mkdir(path)?,
                Kind::Symlink { target } => disk.symlink(path, target, meta)?,
                Kind::File { .. } | Kind::Hardlink { .. } => {
                    let content = self.contents.get(path).map_or(&[][..], Vec::as_slice);
                    let content = disk.file(path, meta, &meta.xattrs, &mut content.take(u64::MAX))?;
                    // A second name is a file of its own here: the first one may not be in the skeleton.
                    entry.kind = Kind::File { size: 0, content };
                }
                // What is only passed by on the way to something else is in the way, whatever it is.
                _ => {
                    let content = disk.file(path, meta, &[], &mut std::io::empty())?;
                    entry.kind = Kind::File { size: 0, content };
                }
            }
            made.push(entry);
        }
        for entry in made.iter().rev() {
            if entry.is_dir() {
                disk.finish_dir(&entry.path, &entry.meta, false)?;
            }
        }
        if single_id { record_owners(to, &Tree::from_entries(made)?, false) } else { Ok(()) }
    }
}

/// A resolution that takes in what it comes across. What is missing counts as a directory.
struct SketchWalk<'s, 't> {
    sketch: &'s mut SkeletonTree<'t>,
    at: TreePath,
    /// The last link.
    link: Option<(TreePath, &'t [u8])>,
}

impl Lookup for SketchWalk<'_, '_> {
    type Error = TreeError;

    fn enter(&mut self, names: &Names<'_>) -> Result<Found, TreeError> {
        let (name, sketch) = (names.first(), &mut *self.sketch);
        let next = self.at.join(&TreePath::parse(name)?);
        sketch.take(&next);
        sketch.over_made_link |= sketch.made_links.contains(&next);
        let taken = name.len();
        match sketch.tree.get(&next).map(|entry| &entry.kind) {
            Some(Kind::Symlink { target }) => {
                self.link = Some((next, target));
                Ok(Found::Link { taken })
            }
            _ => {
                self.at = next;
                Ok(Found::Directory { taken })
            }
        }
    }

    fn read_link(&mut self) -> Result<Box<[u8]>, TreeError> {
        Ok(self.link.as_ref().map_or(&[][..], |(_, target)| target).into())
    }

    fn up(&mut self) {
        self.at = self.at.parent().unwrap_or_default();
    }

    fn back_to_root(&mut self) {
        self.at = TreePath::root();
    }

    fn too_many_links(&self) -> TreeError {
        let link = self.link.as_ref().map_or_else(TreePath::root, |(link, _)| link.clone());
        TreeError::io("resolve", &link)(rustix::io::Errno::LOOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{dir, file, path};

    fn link(at: &str, target: &str) -> Entry {
        let mut entry = file(at, b"");
        entry.kind = Kind::Symlink { target: target.as_bytes().into() };
        entry.meta.mode = 0o777;
        entry
    }

    fn names(sketch: &SkeletonTree<'_>) -> Vec<String> {
        sketch.entries.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn links_lead_where_they_would_in_the_root() {
        let tree = Tree::from_entries(vec![
            dir("usr"),
            dir("usr/bin"),
            file("usr/bin/x", b"x"),
            link("bin", "usr/bin"),
            link("up", "../../../usr/../bin/."),
            link("loop", "loop"),
        ])
        .unwrap();
        for (asked, leads) in [
            ("/bin/new/", "/usr/bin/new"),
            ("/up/x", "/usr/bin/x"),
            ("missing/../bin", "/usr/bin"),
            ("//./usr//bin", "/usr/bin"),
            ("/../..", "/"),
        ] {
            assert_eq!(
                SkeletonTree::new(&tree).follow(asked.as_bytes()).unwrap().to_string(),
                leads,
                "{asked}"
            );
        }
        let mut sketch = SkeletonTree::new(&tree);
        sketch.follow(b"/up").unwrap();
        assert_eq!(names(&sketch), ["/bin", "/up", "/usr", "/usr/bin"]);
        assert!(SkeletonTree::new(&tree).follow(b"/loop/x").is_err());
    }

    #[test]
    fn a_content_that_counts_is_not_made_up() {
        let tree = Tree::from_entries(vec![dir("d"), file("d/f", b"same"), file("d/e", b"")]).unwrap();
        let asked = |name: &str, content: &[u8]| {
            SkeletonTree::new(&tree).write_file(name.as_bytes(), content, b"/d").unwrap()
        };
        assert!(!asked("f", b"same"));
        assert!(asked("f", b"else") && asked("new", b"same") && asked("e", b"") && asked("e", b"x"));
        let mut sketch = SkeletonTree::new(&tree);
        assert!(sketch.write_file(b"f", b"x", b"/d").unwrap());
        assert_ne!(sketch.contents[&path("d/f")].len(), 1, "it would be taken for the new one");
    }
}
