//! Modules of one crate that need each other. A module is a top-level one with all that is below it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use super::source::Source;

/// A crate's error type names what went wrong, and everything can go wrong: to need it makes no circle.
const ERRORS: &str = "error";

/// Who needs whom.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// The modules of one crate, file by file.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// Names that the root of the crate takes from its modules: where they are from.
    exported: BTreeMap<String, String>,
    /// By file: the module, how deep the file is in it, and its paths.
    files: Vec<(String, usize, BTreeSet<Vec<String>>)>,
}

impl Modules {
    /// Takes in a file by its path beneath `src/`.
    pub(super) fn add(&mut self, path: &Path, text: &str, source: &Source) {
        let mut parts: Vec<String> = path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into())
            .collect();
        if parts == ["lib"] || parts == ["main"] {
            self.exported.extend(exports(text));
            return;
        }
        // Tests may look at whatever they like.
        if parts.last().is_some_and(|name| name == "tests") || parts.iter().any(|name| name == "tests") {
            return;
        }
        let depth = parts.len();
        self.files.push((parts.swap_remove(0), depth, source.paths.clone()));
    }

    /// The cycles, each as the names along it.
    pub(super) fn cycles(&self) -> Vec<String> {
        let mut needs = Needs::new();
        for (module, ..) in &self.files {
            needs.entry(module.clone()).or_default();
        }
        for (module, depth, paths) in &self.files {
            let found: BTreeSet<String> = paths
                .iter()
                .filter_map(|path| self.target(path, *depth, &needs))
                .filter(|target| target != module && target != ERRORS)
                .collect();
            needs.entry(module.clone()).or_default().extend(found);
        }
        let all = needs.keys().filter_map(|module| round(module, &needs));
        // A cycle is told once, from its first module on.
        all.filter(|way| way.iter().all(|name| *name >= way[0])).map(|way| way.join(" -> ")).collect()
    }

    /// The top-level module that a path leads to from a file that is `depth` modules deep.
    fn target(&self, path: &[String], depth: usize, known: &Needs) -> Option<String> {
        let (name, way) = path.split_last()?;
        let at_root = way == ["crate"] || way.len() == depth && way.iter().all(|part| part == "super");
        if !at_root {
            return None;
        }
        if known.contains_key(name) { Some(name.clone()) } else { self.exported.get(name).cloned() }
    }
}

/// The shortest way from a module back to itself.
fn round(module: &str, needs: &Needs) -> Option<Vec<String>> {
    let mut from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([module]);
    while let Some(at) = queue.pop_front() {
        for next in needs.get(at).into_iter().flatten() {
            if next == module {
                let mut way = vec![module.to_owned()];
                let mut back = at;
                while back != module {
                    way.insert(0, back.to_owned());
                    back = from.get(back)?;
                }
                way.insert(0, module.to_owned());
                return Some(way);
            }
            if !from.contains_key(next.as_str()) {
                from.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

/// What the root re-exports or imports, by name: `use a::{B, c::D};` gives B and D from a.
fn exports(text: &str) -> BTreeMap<String, String> {
    let Ok(file) = syn::parse_file(text) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for item in file.items {
        if let syn::Item::Use(item) = item {
            leaves(&item.tree, None, &mut found);
        }
    }
    found
}

fn leaves(tree: &syn::UseTree, module: Option<&str>, found: &mut BTreeMap<String, String>) {
    let mut leaf = |name: &syn::Ident| {
        if let Some(module) = module {
            found.insert(name.to_string(), module.to_owned());
        }
    };
    match tree {
        syn::UseTree::Path(path) => {
            let name = path.ident.to_string();
            let skipped = matches!(name.as_str(), "self" | "crate");
            let module = if skipped { module } else { module.or(Some(&name)) };
            leaves(&path.tree, module, found);
        }
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, module, found);
            }
        }
        syn::UseTree::Name(name) => leaf(&name.ident),
        syn::UseTree::Rename(rename) => leaf(&rename.rename),
        syn::UseTree::Glob(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(files: &[(&str, &str)]) -> Vec<String> {
        let mut modules = Modules::default();
        for (path, text) in files {
            modules.add(Path::new(path), text, &Source::parse(text).unwrap());
        }
        modules.cycles()
    }

    #[test]
    fn cycles_are_found_with_their_way() {
        let lib = ("lib.rs", "mod a; mod b; mod c; pub use b::Thing; pub use self::c::{d::Deep, E};");
        assert!(
            cycles(&[lib, ("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "")]).is_empty()
        );
        let ring = [lib, ("a.rs", "use crate::b::X;"), ("b.rs", "use super::c;"), ("c.rs", "use crate::a;")];
        assert_eq!(cycles(&ring), ["a -> b -> c -> a"]);
        // By way of the root, and from further down.
        let hidden = [lib, ("b.rs", "fn f() { crate::Deep }"), ("c/d.rs", "use super::super::Thing;")];
        assert_eq!(cycles(&hidden), ["b -> c -> b"]);
    }

    #[test]
    fn a_module_and_its_own_parts_are_one() {
        let files = [("a.rs", "use crate::a::b; mod b;"), ("a/b.rs", "use super::X; use crate::a::Y;")];
        assert!(cycles(&files).is_empty());
        let tests = [("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)] mod t { use crate::a; }")];
        assert!(cycles(&tests).is_empty());
    }
}
