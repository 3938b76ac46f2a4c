//! As much as unpacking an archive looks at.

use std::io::Read;

use tar::EntryType;

use super::SkeletonTree;
use crate::archive::ExtractOptions;
use crate::entry::Kind;
use crate::error::TreeError;
use crate::path::TreePath;
use crate::tar_read::{TarEntry, entries};

impl SkeletonTree<'_> {
    /// Takes in what unpacking `archive` to `dest` looks at. False if that cannot be told from its headers alone: where it
    /// goes over a link (of its own, or one that the destination confines), replaces something by another kind or perhaps by
    /// its equal, or names files of the tree.
    ///
    /// # Errors
    /// As [`Self::follow`], and what is wrong with the archive.
    pub fn archive(
        &mut self,
        archive: impl Read + Send,
        dest: &[u8],
        options: &ExtractOptions,
    ) -> Result<bool, TreeError> {
        let mut reader = entries(archive, options.limits.limits())?;
        let top = self.follow(dest)?;
        while let Some(entry) = reader.next_entry()? {
            let name = TreePath::clean(&entry.name)?;
            let Some(parent) = name.parent() else {
                if entry.kind != EntryType::Directory {
                    return Ok(false);
                }
                continue;
            };
            let named = top.join(&parent);
            let above = self.follow(named.as_bytes())?;
            let confined = above != named && !top.is_root();
            if confined || self.over_made_link || !self.unpacked(&above.join_name(name.name()), &entry) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes in what an entry replaces at `place`.
    fn unpacked(&mut self, place: &TreePath, entry: &TarEntry) -> bool {
        if entry.kind == EntryType::Symlink {
            self.made_links.insert(place.clone());
        }
        if entry.kind == EntryType::Link {
            // To a file of the archive or of the tree: nobody knows which without a look at all of it.
            return false;
        }
        self.take(place);
        let Some(there) = self.tree.get(place) else { return true };
        match (&self.tree.resolve_hardlink(there).kind, entry.kind) {
            (Kind::Dir { .. }, EntryType::Directory) => true,
            (Kind::File { size, .. }, EntryType::Regular | EntryType::Continuous) if *size != entry.size => {
                // Of neither's size, so that it is not taken for what comes.
                let length = if *size == 0 {
                    0
                } else if entry.size == 1 {
                    2
                } else {
                    1
                };
                self.contents.insert(place.clone(), vec![0; length]);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tree;
    use crate::tree::tests::{dir, file};

    fn enough(entries: &[(EntryType, &str, &str)]) -> bool {
        let tree = Tree::from_entries(vec![dir("d"), file("d/f", b"four"), file("d/e", b"")]).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, data) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let content = if is_link { "" } else { data };
            header.set_size(content.len() as u64);
            match is_link {
                true => builder.append_link(&mut header, name, data).unwrap(),
                false => builder.append_data(&mut header, name, content.as_bytes()).unwrap(),
            }
        }
        let archive = builder.into_inner().unwrap();
        SkeletonTree::new(&tree).archive(&archive[..], b"/", &ExtractOptions::default()).unwrap()
    }

    #[test]
    fn headers_tell_enough_or_nothing_is_made_up() {
        use EntryType::{Directory as D, Link as H, Regular as F, Symlink as S};
        assert!(enough(&[(D, "d/", ""), (F, "d/new", "x"), (F, "d/f", "longer"), (F, "d/e", "x")]));
        assert!(enough(&[(S, "l", "d"), (F, "n/a", "x")]));
        // The same size may be the same file.
        assert!(!enough(&[(F, "d/f", "fout")]));
        assert!(!enough(&[(S, "l", "d"), (F, "l/f", "longer")]));
        assert!(!enough(&[(S, "l", "d"), (F, "l/x/y", "x")]));
        assert!(!enough(&[(F, "a", "x"), (H, "b", "a")]));
        assert!(!enough(&[(F, "d", "x")]) && !enough(&[(D, "d/f", "")]) && !enough(&[(S, "d/f", "e")]));
    }
}
