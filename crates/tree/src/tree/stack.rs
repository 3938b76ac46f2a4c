//! One layer on top of another, as data: what a mount of both would show.

use super::Tree;
use crate::entry::{Entry, Kind};
use crate::path::TreePath;

impl Tree {
    /// The tree that shows when the layer lies on nothing: as [`Self::with_layer`] on an empty one, in place.
    #[must_use]
    pub fn alone(mut self) -> Tree {
        self.entries.retain_mut(|entry| {
            if let Kind::Dir { opaque } = &mut entry.kind {
                *opaque = false;
            }
            !matches!(entry.kind, Kind::Whiteout)
        });
        self
    }

    /// The tree that shows when `upper` lies on `self`: deletions are carried out, opaque directories hide. The
    /// result has neither whiteouts nor opaque directories.
    #[must_use]
    pub fn with_layer(&self, upper: &Tree) -> Tree {
        // What hides everything of ours below it; sorted, as it comes in walk order.
        let mut hiding: Vec<&TreePath> = Vec::new();
        let mut out: Vec<Entry> = Vec::with_capacity(self.len() + upper.len());
        for entry in upper.entries() {
            let below_is_dir = || self.get(&entry.path).is_some_and(Entry::is_dir);
            match entry.kind {
                Kind::Dir { opaque: false } if below_is_dir() => {}
                _ => hiding.push(&entry.path),
            }
            if matches!(entry.kind, Kind::Whiteout) {
                continue;
            }
            let mut shown = entry.clone();
            if let Kind::Dir { opaque } = &mut shown.kind {
                *opaque = false;
            }
            out.push(shown);
        }
        let hidden = |path: &TreePath| {
            upper.get(path).is_some() || path.ancestors().any(|above| hiding.binary_search(&&above).is_ok())
        };
        let kept: Vec<Entry> = self.entries().iter().filter(|e| !hidden(&e.path)).cloned().collect();
        out.extend(clone_tree(self, kept));
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Tree { entries: out }
    }
}

/// A file that went may leave other names behind: the first of them becomes the file.
fn clone_tree(before: &Tree, kept: Vec<Entry>) -> Vec<Entry> {
    let mut heirs: std::collections::BTreeMap<TreePath, TreePath> = std::collections::BTreeMap::new();
    let mut out: Vec<Entry> = Vec::with_capacity(kept.len());
    for mut entry in kept {
        if matches!(entry.kind, Kind::File { .. }) {
            heirs.insert(entry.path.clone(), entry.path.clone());
        }
        if let Kind::Hardlink { to } = &mut entry.kind {
            match heirs.get(to) {
                Some(heir) => *to = heir.clone(),
                None => {
                    heirs.insert(to.clone(), entry.path.clone());
                    if let Some(file) = before.get(to) {
                        entry.kind = file.kind.clone();
                    }
                }
            }
        }
        out.push(entry);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_tree, dir, file, path};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deletions_and_opaque_directories() {
        let mut link = file("z", b"1");
        link.kind = Kind::Hardlink { to: path("a/f") };
        let lower = Tree::from_entries(vec![
            dir("a"),
            file("a/f", b"1"),
            dir("b"),
            file("b/g", b"2"),
            dir("c"),
            file("c/h", b"3"),
            link,
        ])
        .unwrap();
        let mut opaque = dir("b");
        opaque.kind = Kind::Dir { opaque: true };
        let upper = Tree::from_entries(vec![
            dir("a"),
            Entry::whiteout(path("a/f")),
            opaque,
            file("b/new", b"4"),
            file("c", b"now a file"),
        ])
        .unwrap();
        let merged = lower.with_layer(&upper);
        let names: Vec<String> = merged.entries().iter().map(|e| e.path.to_string()).collect();
        assert_eq!(names, ["/a", "/b", "/b/new", "/c", "/z"]);
        assert!(matches!(merged.entries()[4].kind, Kind::File { size: 1, .. }), "the link inherits");
        merged.check().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn always_a_tree(lower in any_tree(), upper in any_tree()) {
            let bottom = Tree::default().with_layer(&lower);
            prop_assert_eq!(&lower.clone().alone(), &bottom);
            let merged = bottom.with_layer(&upper);
            merged.check().unwrap();
            let mark = |e: &Entry| matches!(e.kind, Kind::Whiteout | Kind::Dir { opaque: true });
            prop_assert!(!merged.entries().iter().any(mark));
        }
    }
}
