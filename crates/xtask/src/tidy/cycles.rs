//! Files of one crate that import each other in a circle.
//!
//! A file is one point, whatever it is called and however deep it lies. A name that a module re-exports belongs to the
//! file that it comes from. That a module holds the modules below it, and calls them, is no import: an arrow leads from a
//! file to another one that is not below it. Files that `#[cfg(test)]` declares are no part of the program.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use super::source::Source;

/// The path of a module from the root of its crate; the root's is empty.
type Module = Vec<String>;
/// The modules that each module imports from.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Re-exports of re-exports end somewhere, unless the program is wrong.
const MAX_STEPS: usize = 16;

/// The modules of one crate, file by file.
#[derive(Debug, Default)]
pub(super) struct Modules {
    files: BTreeMap<Module, File>,
}

#[derive(Debug)]
struct File {
    paths: BTreeSet<Vec<String>>,
    uses: Vec<(String, Vec<String>)>,
    modules: BTreeMap<String, bool>,
    public: BTreeSet<String>,
}

impl Modules {
    /// Takes in a file by its path beneath the directory of the crate's root.
    pub(super) fn add(&mut self, path: &Path, source: &Source) {
        let file = File {
            paths: source.paths.clone(),
            uses: source.uses.clone(),
            modules: source.modules.clone(),
            public: source.public.clone(),
        };
        self.files.insert(module_of(path), file);
    }

    /// The cycles, each as the names along it.
    pub(super) fn cycles(&self) -> Vec<String> {
        let imports = self.imports();
        let all = imports.keys().filter_map(|module| round(module, &imports));
        // A cycle is told once, from its first module on.
        let once = all.filter(|way| way.iter().all(|name| *name >= way[0]));
        once.map(|way| way.iter().map(|module| name(module)).collect::<Vec<_>>().join(" -> ")).collect()
    }

    fn imports(&self) -> Imports {
        let program = self.files.iter().filter(|(module, _)| !self.is_test_module(module));
        program
            .map(|(module, file)| {
                let targets = file.paths.iter().filter_map(|path| self.target(module, path, 0));
                let targets = targets.filter(|target| !target.starts_with(module));
                (module.clone(), targets.collect())
            })
            .collect()
    }

    /// Whether a file, by its path beneath the directory of the crate's root, was declared for tests only.
    pub(super) fn is_test(&self, path: &Path) -> bool {
        self.is_test_module(&module_of(path))
    }

    /// Whether a module, or one that it is in, was declared for tests only.
    fn is_test_module(&self, module: &[String]) -> bool {
        (0..module.len()).any(|depth| {
            let parent = self.files.get(&module[..depth]);
            parent.is_some_and(|file| file.modules.get(&module[depth]) == Some(&true))
        })
    }

    /// The module in whose file the item is that `path` names in the file of `from`.
    fn target(&self, from: &[String], path: &[String], steps: usize) -> Option<Module> {
        let up = path.iter().take_while(|name| *name == "super").count();
        let (mut at, names) = match path.first().map(String::as_str) {
            Some("crate") => (Module::new(), &path[1..]),
            Some("super") => (from.get(..from.len().checked_sub(up)?)?.to_vec(), &path[up..]),
            Some(first) if self.files.get(from)?.modules.contains_key(first) => (from.to_vec(), path),
            _ => return None,
        };
        for (number, name) in names.iter().enumerate() {
            let below = [&at[..], std::slice::from_ref(name)].concat();
            if self.files.contains_key(&below) {
                at = below;
                continue;
            }
            let Some(found) = (steps < MAX_STEPS).then(|| self.exported(&at, name, steps)).flatten() else {
                break;
            };
            let rest = &names[number + 1..];
            let whole: Vec<String> = ["crate".to_owned()].iter().chain(&found).chain(rest).cloned().collect();
            return self.target(&[], &whole, steps + 1);
        }
        Some(at)
    }

    /// Where a name comes from that the module `at` has by a `use`, as a path from the crate's root.
    fn exported(&self, at: &[String], name: &str, steps: usize) -> Option<Vec<String>> {
        let file = self.files.get(at)?;
        if let Some((_, path)) = file.uses.iter().find(|(here, _)| here == name) {
            let item = path.last()?.clone();
            let target = self.target(at, path, steps + 1)?;
            // The path was of a module, or of an item in it.
            return Some(if target.last() == Some(&item) { target } else { [target, vec![item]].concat() });
        }
        let mut globs = file.uses.iter().filter(|(here, _)| here == "*");
        globs.find_map(|(_, path)| {
            let target = self.target(at, path, steps + 1)?;
            let public = self.files.get(&target)?.public.contains(name);
            public.then(|| [target, vec![name.to_owned()]].concat())
        })
    }
}

/// The module that a file has, by its path beneath the directory of the crate's root.
fn module_of(path: &Path) -> Module {
    let stem = path.with_extension("");
    let module: Module = stem.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module == ["lib"] || module == ["main"] { Module::new() } else { module }
}

fn name(module: &[String]) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

/// The shortest way from a module back to itself.
fn round(module: &Module, imports: &Imports) -> Option<Vec<Module>> {
    let mut from: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut queue = VecDeque::from([module]);
    while let Some(at) = queue.pop_front() {
        for next in imports.get(at).into_iter().flatten() {
            if next == module {
                let mut way = vec![module.clone()];
                let mut back = at;
                while back != module {
                    way.insert(0, back.clone());
                    back = from.get(back)?;
                }
                way.insert(0, module.clone());
                return Some(way);
            }
            if !from.contains_key(next) {
                from.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(files: &[(&str, &str)]) -> Vec<String> {
        let mut modules = Modules::default();
        for (path, text) in files {
            modules.add(Path::new(path), &Source::parse(text).unwrap());
        }
        modules.cycles()
    }

    const LIB: (&str, &str) =
        ("lib.rs", "mod a; mod b; mod c; pub use b::Thing; pub use self::c::{d::Deep, E};");

    #[test]
    fn cycles_are_found_with_their_way() {
        let line = [LIB, ("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "")];
        assert!(cycles(&line).is_empty());
        let ring = [LIB, ("a.rs", "use crate::b::X;"), ("b.rs", "use super::c;"), ("c.rs", "use crate::a;")];
        assert_eq!(cycles(&ring), ["a -> b -> c -> a"]);
        // By way of the root, and from further down.
        let hidden = [
            LIB,
            ("b.rs", "fn f() { crate::Deep }"),
            ("c.rs", "pub mod d;"),
            ("c/d.rs", "use super::super::Thing;"),
        ];
        assert_eq!(cycles(&hidden), ["b -> c::d -> b"]);
    }

    #[test]
    fn files_of_one_folder_are_points_of_their_own() {
        let verbs = ("verbs.rs", "mod one; mod two; mod three; pub use three::*;");
        let ring =
            [verbs, ("verbs/one.rs", "use super::two::f;"), ("verbs/two.rs", "use super::{one::{g, h}};")];
        assert_eq!(cycles(&ring), ["verbs::one -> verbs::two -> verbs::one"]);
        let glob = [
            verbs,
            ("verbs/three.rs", "pub fn f() { super::one::g() }"),
            ("verbs/one.rs", "use crate::verbs::f;"),
        ];
        assert_eq!(cycles(&glob), ["verbs::one -> verbs::three -> verbs::one"]);
    }

    #[test]
    fn no_name_is_exempt() {
        for name in ["error", "tests"] {
            let file = format!("{name}.rs");
            let back = format!("use crate::{name}::X;");
            let ring = [("lib.rs", ""), (file.as_str(), "use crate::b;"), ("b.rs", back.as_str())];
            assert_eq!(cycles(&ring), [format!("b -> {name} -> b")]);
        }
    }

    #[test]
    fn a_module_holds_what_is_below_it() {
        let files = [
            ("a.rs", "mod b; use crate::a::b; fn f() { b::g() }"),
            ("a/b.rs", "use super::X; use crate::a::Y;"),
        ];
        assert!(cycles(&files).is_empty());
    }

    #[test]
    fn what_is_for_tests_only_may_import_anything() {
        let inside = [("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)] mod t { use crate::a; }")];
        assert!(cycles(&inside).is_empty());
        let beside = [
            ("a.rs", "use crate::b::f;"),
            ("b.rs", "#[cfg(test)] mod tests;"),
            ("b/tests.rs", "use crate::a; use super::X;"),
        ];
        assert!(cycles(&beside).is_empty());
    }
}
