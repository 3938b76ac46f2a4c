//! Each flag of each verb has exactly one row in the tables of `crates/cli/docs`.
//!
//! A table of flags begins with `` | flags of `VERB` `VERB` | meaning | ``. A row of the table holds for each of these
//! verbs that has the flag. Hidden flags may have a row.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Command;

use super::Args;

const HEADING: &str = "| flags of ";

/// A flag of a verb. `builds ls` is one verb.
type Flag = (String, String);

/// The flags that a row of a table documents, and the verbs of the table.
struct Row {
    page: String,
    verbs: Vec<String>,
    flags: Vec<String>,
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The long names of flags in the first column of a row.
fn flags(row: &str) -> Vec<String> {
    // A bar in a cell is written `\|`.
    let row = row.replace("\\|", "/");
    let cell = row.trim_start_matches('|').split('|').next().unwrap_or_default();
    let names = in_backticks(cell).filter_map(|word| word.strip_prefix("--"));
    names.map(|name| name.split([' ', '=', '[']).next().unwrap_or_default().to_owned()).collect()
}

fn rows(page: &str, text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut verbs: Option<Vec<String>> = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix(HEADING) {
            let cell = heading.split('|').next().unwrap_or_default();
            verbs = Some(in_backticks(cell).map(str::to_owned).collect());
        } else if !line.starts_with('|') {
            verbs = None;
        } else if let Some(verbs) = verbs.as_ref().filter(|_| !line.starts_with("|--")) {
            rows.push(Row { page: page.to_owned(), verbs: verbs.clone(), flags: flags(line) });
        }
    }
    rows
}

fn documented() -> Vec<Row> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        let page = path.file_name().unwrap().to_string_lossy().into_owned();
        all.extend(rows(&page, &std::fs::read_to_string(&path).unwrap()));
    }
    all
}

/// The flags of all verbs, and whether help shows them.
fn flags_of(command: &Command, verb: &str, found: &mut BTreeMap<Flag, bool>) {
    let ours = |id: &str| !matches!(id, "help" | "version");
    for arg in command.get_arguments().filter(|arg| ours(arg.get_id().as_str())) {
        if let Some(long) = arg.get_long() {
            let shown = !arg.is_hide_set() && !command.is_hide_set();
            let owner = if verb.is_empty() { command.get_name() } else { verb };
            found.insert((owner.to_owned(), long.to_owned()), shown);
        }
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let name = if verb.is_empty() { String::new() } else { format!("{verb} ") };
        flags_of(inner, &format!("{name}{}", inner.get_name()), found);
    }
}

#[test]
fn each_flag_is_documented_once() {
    let mut known = BTreeMap::new();
    flags_of(&Args::all(), "", &mut known);
    let mut pages: BTreeMap<Flag, Vec<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in documented() {
        for flag in &row.flags {
            let pairs: Vec<Flag> = row.verbs.iter().map(|verb| (verb.clone(), flag.clone())).collect();
            if !pairs.iter().any(|pair| known.contains_key(pair)) {
                wrong.push(format!("{}: no verb of the table has `--{flag}`", row.page));
            }
            for pair in pairs.into_iter().filter(|pair| known.contains_key(pair)) {
                pages.entry(pair).or_default().push(row.page.clone());
            }
        }
    }
    for ((verb, flag), shown) in known {
        match pages.get(&(verb.clone(), flag.clone())).map_or(&[][..], Vec::as_slice) {
            [] if shown => wrong.push(format!("`{verb} --{flag}` is in no table")),
            [] | [_] => {}
            several => wrong.push(format!("`{verb} --{flag}` has several rows: {}", several.join(", "))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rows_are_read_from_tables_of_flags() {
    let text = "| flags of `a` `b c` | meaning |\n|---|---|\n| `-o`, `--out A\\|B` `--in[=X]` | `--no` |\n\n| `--x` | y |\n";
    let rows = rows("page", text);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].verbs, ["a", "b c"]);
    assert_eq!(rows[0].flags, ["out", "in"]);
}
