//! Which entries of a tree a COPY, ADD or bind mount means, and their digest. Pure: asks a [`Tree`], never a disk.
//!
//! Links on the way to a named source are followed inside the tree, the last one too; links inside a selected
//! directory stay links. A directory stands for its contents. A wildcard that matches nothing is no error, a named
//! source that is not there is.

use std::collections::BTreeSet;

use crate::entry::{Entry, Kind, Meta};
use crate::error::TreeError;
use crate::ignore::{Pattern, Patterns};
use crate::path::{TreePath, lossy};
use crate::resolve::{self, End, Links, Lookup, Names, resolve};
use crate::tree::{KHasher, Tree, TreeDigest};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Sources as written; always relative to the tree's root, `..` stops there.
    pub sources: Vec<String>,
    /// `*`, `?`, `[…]` and `\` mean something (`**` only with `parents`).
    pub wildcards: bool,
    /// A source that is a link stands for what it points to.
    pub follow: bool,
    /// Patterns relative to each source, which is never tested itself; with `parents` relative to where the kept
    /// directories begin, and tested on sources too.
    pub exclude: Patterns,
    /// Patterns, relative to each source, of the only entries that are meant, with the directories above; empty for all. A source
    /// itself is never tested.
    pub include: Patterns,
    /// Keep the directories above each source, from `/./` on if the source has one.
    pub parents: bool,
    /// A named source that is missing stands for nothing.
    pub optional: bool,
    /// A pattern that matches nothing is an error.
    pub needs_match: bool,
}

impl Selector {
    /// One source with everything that COPY does by default.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self {
            sources: vec![source.to_owned()],
            wildcards: true,
            follow: true,
            exclude: Patterns::default(),
            include: Patterns::default(),
            parents: false,
            optional: false,
            needs_match: false,
        }
    }
}

/// An entry to be copied; never a hard link (copying finds those by inode).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Where it is in the source, free of links.
    pub source: TreePath,
    /// Where it goes, relative to the destination; empty for a source that is no directory.
    pub to: TreePath,
    /// What it is.
    pub kind: Kind,
    /// Its metadata.
    pub meta: Meta,
    /// It may be another name of a file that is copied too.
    pub linked: bool,
}

/// One source with what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedRoot {
    /// Name it was found under: what a file is called in a destination directory.
    pub name: Box<[u8]>,
    /// A directory: its contents go into the destination, which becomes a directory.
    pub is_dir: bool,
    /// Time of the source directory, for a destination that has to be made; of the root of a tree nothing is known.
    pub mtime: Option<i64>,
    /// The source directory itself, with an empty `to`; `None` for the root of a tree, and for other kinds of entries.
    pub own: Option<Picked>,
    /// What is copied, in walk order; a single entry with an empty `to` when it is no directory.
    pub entries: Vec<Picked>,
}

/// Everything a selector means, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The sources in the order written, matches of a wildcard in walk order.
    pub roots: Vec<SelectedRoot>,
}

impl Selection {
    /// Digest for cache keys: names, kinds, owners, modes, contents; no times.
    #[must_use]
    pub fn k_digest(&self) -> TreeDigest {
        let mut hasher = KHasher::new();
        for root in &self.roots {
            hasher.mark(if root.is_dir { b"dir" } else { b"file" });
            hasher.mark(if root.is_dir { b"" } else { &root.name });
            hasher.mark(&(root.entries.len() as u64).to_le_bytes());
            for entry in &root.entries {
                hasher.entry(entry.to.as_bytes(), &entry.kind, &entry.meta);
            }
        }
        hasher.finish()
    }

    /// How many entries will be copied.
    #[must_use]
    pub fn len(&self) -> usize {
        self.roots.iter().map(|root| root.entries.len()).sum()
    }

    /// True when nothing will be copied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Tree {
    /// Resolves a selector. Meant for whole trees (of a stage, an image, a context): whiteouts are not entries.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] for a named source that is missing, [`TreeError::Pattern`] for bad syntax.
    pub fn select(&self, selector: &Selector) -> Result<Selection, TreeError> {
        let mut selection = Selection::default();
        for source in &selector.sources {
            match self.select_source(source, selector) {
                Ok(roots) => selection.roots.extend(roots),
                Err(TreeError::NotFound { .. }) if selector.optional => {}
                Err(error) => return Err(error),
            }
        }
        Ok(selection)
    }

    /// What `selection`, made of the path `path` alone, has, each entry at its own place, with the directories above; and
    /// the place of `path` itself, free of links.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] if nothing is there.
    pub fn in_place(&self, selection: Selection, path: &str) -> Result<(Selection, TreePath), TreeError> {
        let path = TreePath::clean(path.as_bytes())?;
        let place = self.follow(&path, true)?.ok_or_else(|| self.not_found(&path))?;
        let above = place.ancestors().chain([place.clone()]).filter(|dir| !dir.is_root());
        let above: Vec<&Entry> = above.filter_map(|dir| self.get(&dir)).collect();
        let above = above
            .into_iter()
            .filter(|entry| entry.is_dir())
            .map(|entry| self.picked(entry, entry.path.clone()));
        let mut entries: Vec<Picked> = above.collect();
        for picked in selection.roots.into_iter().flat_map(|root| root.entries) {
            entries.push(Picked { to: picked.source.clone(), ..picked });
        }
        let root = SelectedRoot { name: Box::default(), is_dir: true, mtime: None, own: None, entries };
        Ok((Selection { roots: vec![root] }, place))
    }

    fn select_source(&self, source: &str, selector: &Selector) -> Result<Vec<SelectedRoot>, TreeError> {
        if selector.parents {
            return self.with_parents(source, selector);
        }
        let path = TreePath::clean(source.as_bytes())?;
        let found = self.matches(source, &path, selector)?;
        found.iter().map(|found| self.selected(&found.name, &found.path, selector)).collect()
    }

    fn matches(&self, source: &str, path: &TreePath, selector: &Selector) -> Result<Vec<Found>, TreeError> {
        let glob = selector.wildcards && source.contains(['*', '?', '[', '\\']);
        if !glob {
            let real = self.follow(path, selector.follow)?.ok_or_else(|| self.not_found(path))?;
            return Ok(vec![Found { name: path.name().into(), path: real }]);
        }
        let bad = || TreeError::Pattern { pattern: source.to_owned(), line: 0, file: None };
        let mut here = vec![TreePath::root()];
        let components: Vec<&[u8]> = path.components().collect();
        let mut literal = true;
        for (i, component) in components.iter().enumerate() {
            let pattern = Pattern::shallow(&lossy(component)).ok_or_else(bad)?;
            let last = i + 1 == components.len();
            literal &= pattern.is_literal();
            let mut next = Vec::new();
            for dir in &here {
                // A wildcard never goes through a link: what it matches has to lie where it says.
                let dir = if literal || i == 0 { self.follow(dir, true)? } else { Some(dir.clone()) };
                let Some(dir) = dir else { continue };
                let children = self.children(&dir).filter(|e| pattern.matches(e.path.name()));
                next.extend(children.map(|e| e.path.clone()));
            }
            if next.is_empty() && literal && last {
                return Err(self.not_found(path));
            }
            here = next;
        }
        let mut found = Vec::new();
        for path in here {
            // A dangling link among the matches is an error, as one that is named.
            let real = self.follow(&path, selector.follow)?.ok_or_else(|| self.not_found(&path))?;
            found.push(Found { name: path.name().into(), path: real });
        }
        if found.is_empty() && selector.needs_match {
            return Err(self.not_found(path));
        }
        Ok(found)
    }

    /// The real path behind links; `None` when it leads nowhere.
    fn follow(&self, path: &TreePath, last: bool) -> Result<Option<TreePath>, TreeError> {
        let mut walk = TreeWalk { tree: self, at: TreePath::root(), link: None, path };
        Ok(match resolve(&mut walk, path.as_bytes(), Links::and_last(last))? {
            End::Directory => Some(walk.at),
            End::Other(name) => Some(walk.at.join_name(&name)),
            End::NotADirectory | End::Missing { .. } => None,
        })
    }

    fn not_found(&self, path: &TreePath) -> TreeError {
        let nearest = path.ancestors().filter(|p| p.is_root() || self.get(p).is_some()).last();
        TreeError::NotFound {
            path: path.to_string(),
            hidden_by: None,
            nearest: nearest.unwrap_or_default().to_string(),
        }
    }

    fn picked(&self, entry: &Entry, to: TreePath) -> Picked {
        let real = self.resolve_hardlink(entry);
        let (kind, meta) = (real.kind.clone(), real.meta.clone());
        // A tree that knows its links says so by another entry's kind: nobody looks for that here.
        Picked { source: entry.path.clone(), to, kind, meta, linked: true }
    }

    fn selected(&self, name: &[u8], path: &TreePath, selector: &Selector) -> Result<SelectedRoot, TreeError> {
        let own = self.get(path);
        let (is_dir, mtime) = own.map_or((true, None), |e| (e.is_dir(), Some(e.meta.mtime)));
        let mut entries = Vec::new();
        if let Some(entry) = own.filter(|_| !is_dir) {
            entries.push(self.picked(entry, TreePath::root()));
        } else {
            for entry in filtered(self.subtree(path), path, (&selector.include, &selector.exclude))? {
                let to = entry.path.relative_to(path).unwrap_or_default();
                entries.push(self.picked(entry, to));
            }
        }
        let own = own.filter(|_| is_dir).map(|entry| self.picked(entry, TreePath::root()));
        Ok(SelectedRoot { name: name.into(), is_dir, mtime, own, entries })
    }

    /// A source of `--parents`: the directories above what it matches are copied with it, from `/./` on. What stands in
    /// front of that may have wildcards, too, and each directory that it matches is a root of its own.
    fn with_parents(&self, source: &str, selector: &Selector) -> Result<Vec<SelectedRoot>, TreeError> {
        let source = source.trim_start_matches('/');
        let (pivot, rest) = source.split_once("/./").unwrap_or(("", source));
        let rest = TreePath::clean(rest.as_bytes())?;
        let pattern = Pattern::new(&lossy(rest.as_bytes()))
            .filter(|pattern| !pattern.is_broken())
            .ok_or_else(|| TreeError::Pattern { pattern: source.to_owned(), line: 0, file: None })?;
        let pattern = Some(pattern).filter(|pattern| selector.wildcards && !pattern.is_literal());
        let named = pattern.is_none() && !(selector.wildcards && pivot.contains(['*', '?', '[', '\\']));
        let pivot_path = TreePath::clean(pivot.as_bytes())?;
        let bases = match self.matches(pivot, &pivot_path, selector) {
            Err(TreeError::NotFound { .. }) if named => return Err(self.not_found(&pivot_path.join(&rest))),
            bases => bases?,
        };
        let mut roots = Vec::new();
        for Found { path: base, .. } in bases {
            let mut keep: BTreeSet<TreePath> = BTreeSet::new();
            // What a source matches is followed by what is below it.
            let mut hit = rest.is_root().then(|| base.clone());
            for entry in self.subtree(&base) {
                let to = entry.path.relative_to(&base).unwrap_or_default();
                if hit.as_ref().is_none_or(|hit| !entry.path.starts_with(hit)) {
                    let fits = pattern.as_ref().map_or(to == rest, |pattern| pattern.matches(to.as_bytes()));
                    if !fits {
                        continue;
                    }
                    hit = Some(entry.path.clone());
                }
                let exclude = &selector.exclude;
                if exclude.is_empty() || !exclude.settled(exclude.excluded(&to))?.excluded {
                    keep.extend(entry.path.ancestors().filter(|p| p.starts_with(&base)));
                    keep.insert(entry.path.clone());
                }
            }
            if hit.is_none() && named {
                return Err(self.not_found(&base.join(&rest)));
            }
            keep.remove(&base);
            let picked =
                |entry: &Entry| self.picked(entry, entry.path.relative_to(&base).unwrap_or_default());
            let entries = keep.iter().filter_map(|path| self.get(path)).map(picked).collect();
            let mtime = self.get(&base).map(|entry| entry.meta.mtime);
            roots.push(SelectedRoot { name: Box::default(), is_dir: true, mtime, own: None, entries });
        }
        Ok(roots)
    }
}

/// A resolution in a tree.
struct TreeWalk<'t> {
    tree: &'t Tree,
    at: TreePath,
    /// The text of the last link.
    link: Option<&'t [u8]>,
    /// The whole path, for errors.
    path: &'t TreePath,
}

impl Lookup for TreeWalk<'_> {
    type Error = TreeError;

    fn enter(&mut self, names: &Names<'_>) -> Result<resolve::Found, TreeError> {
        let (next, taken) = (self.at.join_name(names.first()), names.first().len());
        Ok(match self.tree.get(&next).map(|entry| &entry.kind) {
            Some(Kind::Symlink { target }) => {
                self.link = Some(target);
                resolve::Found::Link { taken }
            }
            Some(Kind::Dir { .. }) => {
                self.at = next;
                resolve::Found::Directory { taken }
            }
            None | Some(Kind::Whiteout) => resolve::Found::Missing,
            Some(_) => resolve::Found::Other { taken },
        })
    }

    fn read_link(&mut self) -> Result<Box<[u8]>, TreeError> {
        Ok(self.link.take().unwrap_or_default().into())
    }

    fn up(&mut self) {
        self.at = self.at.parent().unwrap_or_default();
    }

    fn back_to_root(&mut self) {
        self.at = TreePath::root();
    }

    fn too_many_links(&self) -> TreeError {
        TreeError::Loop { path: self.path.to_string() }
    }
}

struct Found {
    name: Box<[u8]>,
    path: TreePath,
}

/// Entries below `base` (itself not included) that `include` means and `exclude` leaves; a hidden directory stays for what is
/// left in it.
fn filtered<'t>(
    entries: &'t [Entry],
    base: &TreePath,
    (include, exclude): (&Patterns, &Patterns),
) -> Result<impl Iterator<Item = &'t Entry>, TreeError> {
    let mut kept: Vec<&Entry> = Vec::new();
    let mut hidden: Vec<&Entry> = Vec::new();
    for entry in entries.iter().filter(|e| e.path != *base) {
        if exclude.is_empty() && include.is_empty() {
            kept.push(entry);
            continue;
        }
        hidden.retain(|dir| entry.path.starts_with(&dir.path));
        let relative = entry.path.relative_to(base).unwrap_or_default();
        let meant = include.is_empty() || include.settled(include.excluded(&relative))?.excluded;
        if meant && (exclude.is_empty() || !exclude.settled(exclude.excluded(&relative))?.excluded) {
            kept.append(&mut hidden);
            kept.push(entry);
        } else if entry.is_dir() {
            hidden.push(entry);
        }
    }
    Ok(kept.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{dir, file, path};

    fn link(at: &str, target: &str) -> Entry {
        let kind = Kind::Symlink { target: target.as_bytes().into() };
        Entry { path: path(at), kind, meta: Meta { mode: 0o777, ..Meta::default() } }
    }

    fn tree() -> Tree {
        Tree::from_entries(vec![
            dir("a"),
            dir("a/b"),
            file("a/b/x.txt", b"x"),
            file("a/b/y.md", b"y"),
            link("a/in", "/f1"),
            file("f1", b"1"),
            file("f2", b"2"),
            link("la", "a/b"),
            link("lf", "/la/../b/x.txt"),
            link("up", "../../../f1"),
            link("dead", "nowhere"),
            link("loop", "loop"),
        ])
        .unwrap()
    }

    fn list(selector: &Selector) -> Vec<String> {
        let selection = tree().select(selector).unwrap();
        let name = |r: &SelectedRoot, p: &Picked| {
            format!("{}:{}<{}", lossy(&r.name), lossy(p.to.as_bytes()), lossy(p.source.as_bytes()))
        };
        selection.roots.iter().flat_map(|r| r.entries.iter().map(move |p| name(r, p))).collect()
    }

    #[test]
    fn sources() {
        let cases: &[(&str, &[&str])] = &[
            ("f1", &["f1:<f1"]),
            ("/./f1", &["f1:<f1"]),
            ("../../f1", &["f1:<f1"]),
            ("f*", &["f1:<f1", "f2:<f2"]),
            ("a/b", &["b:x.txt<a/b/x.txt", "b:y.md<a/b/y.md"]),
            ("a/b/.", &["b:x.txt<a/b/x.txt", "b:y.md<a/b/y.md"]),
            ("la", &["la:x.txt<a/b/x.txt", "la:y.md<a/b/y.md"]),
            ("la/x.txt", &["x.txt:<a/b/x.txt"]),
            ("lf", &["lf:<a/b/x.txt"]),
            ("up", &["up:<f1"]),
            ("nope*", &[]),
            ("a/*/*.txt", &["x.txt:<a/b/x.txt"]),
            ("a/b/[xy].*", &["x.txt:<a/b/x.txt", "y.md:<a/b/y.md"]),
            ("**/x.txt", &[]),
            ("a/in", &["in:<f1"]),
        ];
        for (source, want) in cases {
            assert_eq!(list(&Selector::new(source)), *want, "{source}");
        }
        let inside = list(&Selector::new("a"));
        assert!(inside.contains(&"a:in<a/in".to_owned()), "a link inside a directory stays one: {inside:?}");
    }

    #[test]
    fn missing() {
        let error = |source: &str| tree().select(&Selector::new(source)).unwrap_err();
        let TreeError::NotFound { path, nearest, .. } = error("a/b/z") else { panic!() };
        assert_eq!((path.as_str(), nearest.as_str()), ("/a/b/z", "/a/b"));
        assert_eq!(error("/x").to_string(), "\"/x\": not found");
        let optional = |parents| Selector { optional: true, parents, ..Selector::new("/x") };
        assert!(tree().select(&optional(false)).unwrap().is_empty());
        assert!(tree().select(&optional(true)).unwrap().is_empty());
        assert!(matches!(error("dead"), TreeError::NotFound { .. }));
        assert!(matches!(error("loop"), TreeError::Loop { .. }));
        assert!(matches!(error("f1/x"), TreeError::NotFound { .. }));
        assert!(matches!(error("a/[x"), TreeError::Pattern { .. }));
    }

    #[test]
    fn excluding() {
        let exclude = Patterns::from_list(&["b", "!b/y.md"]).unwrap();
        let selector = Selector { exclude, ..Selector::new("a") };
        assert_eq!(list(&selector), ["a:b<a/b", "a:b/y.md<a/b/y.md", "a:in<a/in"]);
        // Unlike in a file, a slash in front stays, and then nothing is meant.
        let rooted = Selector { exclude: Patterns::from_list(&["/b", "!/b"]).unwrap(), ..Selector::new("a") };
        assert_eq!(list(&rooted).len(), 4);
        let exclude = Patterns::from_list(&["f1"]).unwrap();
        assert_eq!(list(&Selector { exclude, ..Selector::new("f1") }), ["f1:<f1"]);
    }

    #[test]
    fn parents() {
        let selector = |source: &str| Selector { parents: true, ..Selector::new(source) };
        assert_eq!(list(&selector("a/b/x.txt")), [":a<a", ":a/b<a/b", ":a/b/x.txt<a/b/x.txt"]);
        assert_eq!(list(&selector("a/./b/x.txt")), [":b<a/b", ":b/x.txt<a/b/x.txt"]);
        assert_eq!(list(&selector("**/*.md")), [":a<a", ":a/b<a/b", ":a/b/y.md<a/b/y.md"]);
        assert_eq!(list(&selector("a/nope*")), [""; 0]);
        assert!(tree().select(&selector("a/nope")).is_err());
        // In front of the pivot wildcards stand for directories, and then nothing has to be there.
        assert_eq!(list(&selector("[a]/./b/x.txt")), [":b<a/b", ":b/x.txt<a/b/x.txt"]);
        assert_eq!(list(&selector("[a]/./nope")), [""; 0]);
        assert_eq!(
            list(&selector("./.")).len(),
            tree().entries().iter().filter(|e| !e.path.is_root()).count()
        );
        let missing = tree().select(&selector("nope/./b")).unwrap_err();
        assert_eq!(missing.to_string(), "\"/nope/b\": not found");
    }

    /// Without `--parents` patterns begin at the source, with it where the kept directories begin.
    #[test]
    fn excluding_from_parents() {
        let selector = |source: &str, exclude: &str| {
            let exclude = Patterns::from_list(&[exclude]).unwrap();
            list(&Selector { exclude, parents: true, ..Selector::new(source) })
        };
        let all = [":a<a", ":a/b<a/b", ":a/b/x.txt<a/b/x.txt", ":a/b/y.md<a/b/y.md", ":a/in<a/in"];
        assert_eq!(selector("a", "b"), all);
        assert_eq!(selector("a", "a/b"), [all[0], all[4]]);
        assert_eq!(selector("a/b", "**/*.md"), all[..3]);
        assert_eq!(selector("a", "a"), [""; 0]);
        assert_eq!(selector("a/./b", "b/x.txt"), [":b<a/b", ":b/y.md<a/b/y.md"]);
    }

    #[test]
    fn digests() {
        let digest = |tree: &Tree, source: &str| tree.select(&Selector::new(source)).unwrap().k_digest();
        let one = tree();
        let mut entries = one.clone().into_entries();
        entries.iter_mut().find(|e| e.path == path("f2")).unwrap().meta.mode = 0o600;
        let two = Tree::from_entries(entries).unwrap();
        assert_eq!(digest(&one, "f1"), digest(&two, "f1"));
        assert_ne!(digest(&one, "f*"), digest(&two, "f*"));
        assert_eq!(digest(&one, "la"), digest(&one, "a/b"));
        assert_ne!(digest(&one, "f1"), digest(&one, "f2"));
    }
}
