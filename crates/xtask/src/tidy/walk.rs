//! The functions that documents name: each must be in the source.

use std::collections::BTreeSet;

use super::source::Source;

/// The functions, types and modules of a file that documents may name.
pub(super) struct Names {
    /// The crate's directory, such as `solver/ops`.
    krate: String,
    /// The file's modules below the crate's root, such as `exec` of `src/exec.rs`; none of the root.
    modules: Vec<String>,
    items: BTreeSet<String>,
}

impl Names {
    /// Those of a file by its path below the top.
    pub(super) fn of(name: &str, source: &Source) -> Option<Self> {
        let (krate, inside) = name.split_once("/src/")?;
        let modules = inside.trim_end_matches(".rs").split('/').map(str::to_owned);
        let modules = modules.filter(|module| module != "lib" && module != "main").collect();
        let functions = source.functions.iter().map(|function| function.name.clone());
        let items = functions.chain(source.public.iter().cloned()).chain(source.modules.keys().cloned());
        Some(Self { krate: krate.to_owned(), modules, items: items.collect() })
    }

    fn is_in(&self, krate: &str) -> bool {
        self.krate.rsplit('/').next() == Some(krate)
    }
}

/// The paths in `page` that lead to nothing. A path in backticks begins with the name of a crate; its last name is an
/// item of a file of this crate. If names stand between, one of them is a module of that file or another of its items.
pub(super) fn missing(page: &str, text: &str, files: &[Names]) -> Vec<String> {
    let mut missing = Vec::new();
    for path in paths(text) {
        let names: Vec<&str> = path.split("::").collect();
        let (Some(krate), Some(last)) = (names.first(), names.last()) else { continue };
        let of_crate: Vec<&Names> = files.iter().filter(|file| file.is_in(krate)).collect();
        if of_crate.is_empty() {
            continue;
        }
        let between = &names[1..names.len() - 1];
        let leads = |file: &&Names| {
            let has =
                |name: &&str| file.modules.iter().any(|module| module == name) || file.items.contains(*name);
            (file.items.contains(*last) || file.modules.last().is_some_and(|module| module == last))
                && between.iter().all(has)
        };
        if !of_crate.iter().any(leads) {
            missing.push(format!("{page}: `{path}` is not in the source"));
        }
    }
    missing
}

/// The source files that `page` names by a path from the top, and that `is_file` does not find.
pub(super) fn missing_files(page: &str, text: &str, is_file: impl Fn(&str) -> bool) -> Vec<String> {
    let quoted = text.split("```").step_by(2).flat_map(|block| block.split('`').skip(1).step_by(2));
    let named = quoted.filter(|word| {
        let inside = ["crates/", "frontend/", "solver/", "exporters/", "testdata/"];
        let whole = !word.contains(|c: char| c.is_whitespace() || c.is_uppercase() || "<*…".contains(c));
        whole && inside.iter().any(|dir| word.starts_with(dir))
    });
    named.filter(|word| !is_file(word)).map(|word| format!("{page}: there is no file `{word}`")).collect()
}

/// What stands in backticks and looks like a path: `a::b`, `a::B::c`. Code blocks have none.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```").step_by(2);
    let quoted = blocks.flat_map(|block| block.split('`').skip(1).step_by(2));
    quoted.map(|word| word.trim_end_matches("()")).filter(|word| {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        word.contains("::") && word.split("::").all(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_files_must_be_there() {
        let of = |text: &str| missing_files("page", text, |name| name == "crates/a/src/b.rs").join("\n");
        assert_eq!(of("`crates/a/src/b.rs` `a/c.rs` `crates/a/NAME` `cargo x crates/`"), "");
        assert_eq!(of("`crates/a/src/c.rs`"), "page: there is no file `crates/a/src/c.rs`");
    }

    #[test]
    fn named_functions_must_be_there() {
        let file = |name, text| Names::of(name, &Source::parse(text).unwrap()).unwrap();
        let files = [
            file("solver/ops/src/exec.rs", "//! .\npub struct Run; impl Run { fn go(&self) {} }"),
            file("solver/ops/src/lib.rs", "//! .\npub fn at_the_root() {}"),
        ];
        let of = |text: &str| missing("page", text, &files).join("\n");
        for good in
            ["`ops::exec::Run::go`", "`ops::Run::go()`", "`ops::at_the_root`", "`ops::exec`", "`std::env`"]
        {
            assert_eq!(of(good), "", "{good}");
        }
        for bad in ["`ops::exec::stop`", "`ops::other::go`", "`ops::exec::at_the_root`", "`ops::Ran::go`"] {
            assert_ne!(of(bad), "", "{bad}");
        }
        assert_eq!(of("```text\n`ops::none`\n```"), "");
    }
}
