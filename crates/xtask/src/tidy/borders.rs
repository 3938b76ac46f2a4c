//! What belongs to the binary alone: the command line, the environment, the terminal. And names that the glossary has
//! replaced.

use super::source::Source;

/// The crate that owns the command line, the environment and the terminal.
const BINARY: &str = "crates/cli";
/// The one file that reads the environment.
const ENVIRONMENT: &str = "crates/cli/src/env.rs";

/// Names that no public item has any more. A word is added once its last item was renamed.
const BANNED: &[&str] = &[
    "Alone",
    "Arriving",
    "Blank",
    "Blanks",
    "Brought",
    "Chosen",
    "Clip",
    "Counting",
    "Deep",
    "Earlier",
    "Explained",
    "Fate",
    "Ground",
    "Habits",
    "Kept",
    "Opened",
    "Origins",
    "OwnTurn",
    "Passes",
    "Preference",
    "Putter",
    "Reading",
    "ReadyCopy",
    "Relink",
    "Remotes",
    "Remover",
    "Retaken",
    "Seen",
    "Sketch",
    "Stub",
    "Telling",
    "There",
    "Trouble",
    "Undertaker",
    "arriving",
    "ballast",
    "brought",
    "bury",
    "carry_out",
    "condemn_layers",
    "condemned_layers",
    "discard",
    "earlier",
    "ground",
    "habits",
    "has_packed",
    "import_packed",
    "keep_ballast",
    "keep_spare",
    "make_patch",
    "mount_classically",
    "noted",
    "nursery",
    "one_id",
    "packed_in",
    "parsed_digest",
    "passes",
    "relink",
    "resolve_there",
    "spare_layer",
    "spend_ballast",
    "squash_ids",
    "staying",
    "stub",
    "take_files",
    "twins",
    "undertaker",
    "unpack_packed",
    "use_spare",
    "wanted",
    "world",
];

/// Macros that write to the terminal.
const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// What of a shipped crate's file, which is no test, crosses a border. `name` is its path below the top.
pub(super) fn crossings(name: &str, source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let binary = name.starts_with(BINARY);
    let path = |path: &[String]| path.join("::");
    for (imported, whole) in source.paths.iter().filter_map(|path| path.first().map(|first| (first, path))) {
        if !binary && (imported == "clap" || imported.starts_with("clap_")) {
            found.push(format!("{name}: `{}`: only `{BINARY}` knows the command line", path(whole)));
        }
        if name != ENVIRONMENT && is_environment(whole) {
            found.push(format!("{name}: `{}`: only `{ENVIRONMENT}` reads the environment", path(whole)));
        }
        if !binary && is_terminal(whole) {
            found.push(format!("{name}: `{}`: only `{BINARY}` writes to the terminal", path(whole)));
        }
    }
    if !binary {
        let printing = source.macros.iter().filter(|name| PRINTING.contains(&name.as_str()));
        found.extend(
            printing.map(|word| format!("{name}: `{word}!`: only `{BINARY}` writes to the terminal")),
        );
    }
    let banned = source.public.iter().filter(|name| BANNED.contains(&name.as_str()));
    found.extend(banned.map(|word| format!("{name}: `{word}`: the glossary has another name for it")));
    found
}

/// Whether a path leads into `std::env`. Values of the compiler (`env!`) are no part of the environment.
fn is_environment(path: &[String]) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(names[..], ["std", "env"] | ["std", "env", ..]) && names.get(2) != Some(&"consts")
}

/// Whether a path names standard output or standard error.
fn is_terminal(path: &[String]) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let stream = |name: &str| matches!(name, "stdout" | "stderr" | "raw_stdout" | "raw_stderr");
    names.windows(2).any(|pair| matches!(pair[0], "io" | "stdio") && stream(pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, text: &str) -> String {
        crossings(name, &Source::parse(text).unwrap()).join("\n")
    }

    #[test]
    fn only_the_binary_has_a_command_line_and_a_terminal() {
        for text in [
            "use clap::Parser;",
            "#[derive(clap::Args)] struct A;",
            "use clap_complete as c;\nfn f() { clap_complete::generate() }",
            "fn f() { println!() }",
            "fn f() { g(|| { std::eprintln!(\"x\"); }) }",
            "fn f() { dbg!(1); }",
            "use std::io::{self, stderr};",
            "use std::io; fn f() { io::stdout().lock(); }",
            "fn f() { rustix::stdio::stderr(); }",
        ] {
            assert_ne!(at("crates/low/src/a.rs", text), "", "{text}");
            assert_eq!(at("crates/cli/src/a.rs", text), "", "{text}");
        }
        for text in
            ["fn f() { writeln!(out, \"x\"); }", "use std::process::Stdio;", "struct Args { clap: u8 }"]
        {
            assert_eq!(at("crates/low/src/a.rs", text), "", "{text}");
        }
    }

    #[test]
    fn names_that_the_glossary_has_replaced_do_not_come_back() {
        assert_ne!(at("crates/low/src/a.rs", "pub struct Seen;"), "");
        assert_ne!(at("crates/low/src/a.rs", "impl A { pub(crate) fn brought(&self) {} }"), "");
        assert_eq!(at("crates/low/src/a.rs", "struct Seen; pub struct Sight { pub seen: u8 }"), "");
    }

    #[test]
    fn one_file_reads_the_environment() {
        for text in [
            "fn f() { std::env::var(\"HOME\"); }",
            "use std::{env, fs};",
            "use std::env::var_os as get;",
            "use std::{env::{self, vars}};",
        ] {
            assert_ne!(at("crates/low/src/a.rs", text), "", "{text}");
            assert_ne!(at("crates/cli/src/a.rs", text), "", "{text}");
            assert_eq!(at(ENVIRONMENT, text), "", "{text}");
        }
        for text in [
            "fn f() { std::env::consts::ARCH; env!(\"CARGO\"); }",
            "use crate::env;\nfn f() { env::value() }",
            "#[cfg(test)] mod tests { fn f() { std::env::var(\"UPDATE\"); println!() } }",
        ] {
            assert_eq!(at("crates/low/src/a.rs", text), "", "{text}");
        }
    }
}
