//! What differs between two trees, for people. Times do not count.

use std::cmp::Ordering;

use super::Tree;
use crate::entry::{Entry, Kind};
use crate::path::TreePath;

/// How an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is of another kind: a directory that was a file, say.
    Kind,
    /// Other bytes, another link target or another device number.
    Content,
    /// Other permission bits.
    Mode,
    /// Another owner or group.
    Owner,
    /// Other extended attributes.
    Xattrs,
}

impl Difference {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Difference::Added => "new",
            Difference::Removed => "removed",
            Difference::Kind => "kind",
            Difference::Content => "content",
            Difference::Mode => "mode",
            Difference::Owner => "owner",
            Difference::Xattrs => "attributes",
        }
    }
}

impl Tree {
    /// What is different in `later`, in walk order; the first difference of each entry counts.
    #[must_use]
    pub fn changes(&self, later: &Tree) -> Vec<(TreePath, Difference)> {
        let (mut before, mut after) = (self.entries().iter().peekable(), later.entries().iter().peekable());
        let mut found = Vec::new();
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            match order {
                Ordering::Less => {
                    found.extend(before.next().map(|old| (old.path.clone(), Difference::Removed)));
                }
                Ordering::Greater => {
                    found.extend(after.next().map(|new| (new.path.clone(), Difference::Added)));
                }
                Ordering::Equal => {
                    if let (Some(old), Some(new)) = (before.next(), after.next())
                        && let Some(difference) = difference(old, new)
                    {
                        found.push((new.path.clone(), difference));
                    }
                }
            }
        }
    }
}

fn difference(old: &Entry, new: &Entry) -> Option<Difference> {
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return Some(Difference::Kind);
    }
    // A link to another file of the same content would show at that file.
    if old.kind != new.kind && !matches!(new.kind, Kind::Dir { .. }) {
        return Some(Difference::Content);
    }
    let (old, new) = (&old.meta, &new.meta);
    if old.mode != new.mode {
        Some(Difference::Mode)
    } else if (old.uid, old.gid) != (new.uid, new.gid) {
        Some(Difference::Owner)
    } else {
        (old.xattrs != new.xattrs).then_some(Difference::Xattrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{ContentDigest, Meta};

    fn file(path: &str, content: &str, mode: u32, mtime: i64) -> Entry {
        let kind = Kind::File { size: 1, content: ContentDigest::of(content.as_bytes()) };
        let meta = Meta { mode, mtime, ..Meta::default() };
        Entry { path: TreePath::parse(path.as_bytes()).unwrap(), kind, meta }
    }

    #[test]
    fn everything_but_times() {
        let old = [file("a", "1", 0o644, 1), file("b", "1", 0o644, 1), file("c", "1", 0o644, 1)];
        let new = [
            file("a", "1", 0o644, 2),
            file("b", "2", 0o600, 1),
            file("d", "1", 0o644, 1),
            file("e", "1", 0o644, 1),
        ];
        let tree = |entries: &[Entry]| Tree::from_entries(entries.to_vec()).unwrap();
        let mut more = new.to_vec();
        more[2] = file("c", "1", 0o755, 1);
        let said = |old: &[Entry], new: &[Entry]| -> Vec<String> {
            let changes = tree(old).changes(&tree(new));
            changes.into_iter().map(|(path, what)| format!("{path} {}", what.name())).collect()
        };
        assert_eq!(said(&old, &new), ["/b content", "/c removed", "/d new", "/e new"]);
        assert_eq!(said(&old, &more), ["/b content", "/c mode", "/e new"]);
        assert!(said(&old, &old).is_empty());
    }
}
