//! Printing a tree and parsing the text again gives the same tree, places aside; and no text at all makes the parser
//! panic.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{parse, parse_json, print};
use proptest::prelude::*;
use serde_json::Value;

/// The tree without places.
fn tree(text: &str) -> Value {
    let mut tree = parse_json(&SourceFile::new("Dockerfile", text));
    tree.as_object_mut().unwrap().remove("warnings");
    without_places(&mut tree);
    tree
}

fn without_places(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_places),
        Value::Object(fields) => {
            fields.remove("lines");
            fields.remove("line");
            fields.values_mut().for_each(without_places);
        }
        _ => {}
    }
}

/// Whether `text` has a tree, and it survives.
fn survives(text: &str) -> Result<bool, String> {
    let parsed = parse(&SourceFile::new("Dockerfile", text));
    if parsed.first_error().is_some() {
        return Ok(false);
    }
    let printed = print(&parsed.dockerfile);
    let (before, after) = (tree(text), tree(&printed));
    if before == after {
        return Ok(true);
    }
    Err(format!("{text:?}\nbecame\n{printed:?}\n{before:#}\n{after:#}"))
}

fn dockerfiles(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            dockerfiles(&path, found);
        } else if path.file_name().is_some_and(|name| name == "Dockerfile") {
            found.push(path);
        }
    }
}

#[test]
fn all_dockerfiles_survive() {
    let mut all = Vec::new();
    dockerfiles(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata"), &mut all);
    let mut survived = 0;
    for path in &all {
        let text = fs::read_to_string(path).unwrap();
        survived += usize::from(survives(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display())));
    }
    assert!(survived > 80, "{survived} of {}", all.len());
}

/// Pieces of Dockerfiles, whole and broken.
const PIECES: [&str; 96] = [
    "FROM a\n",
    "FROM a AS b\n",
    "FROM --platform=$X a\n",
    "from b as c\n",
    "RUN ",
    "RUN x",
    "CMD ",
    "ENTRYPOINT ",
    "COPY ",
    "ADD ",
    "ENV ",
    "LABEL ",
    "ARG ",
    "EXPOSE ",
    "VOLUME ",
    "USER ",
    "WORKDIR ",
    "STOPSIGNAL ",
    "SHELL ",
    "HEALTHCHECK ",
    "ONBUILD ",
    "MAINTAINER ",
    "\n",
    "\n",
    "\n",
    "\r\n",
    " ",
    "  ",
    "\t",
    "\\\n",
    "\\ \n",
    "\\\n\n",
    "\\",
    "\\\\",
    "`",
    "`\n",
    "# c\n",
    "# syntax=x\n",
    "# escape=`\n",
    "# check=skip=all\n",
    "#",
    "a",
    "b",
    "a=b",
    "a=\"b c\"",
    "a='b",
    "=",
    "\"",
    "'",
    "$x",
    "${x}",
    "${x:-y}",
    "${",
    "[",
    "]",
    "[\"a\", \"b\"]",
    "[\"a\"",
    "[]",
    "[1]",
    ",",
    "--from=a ",
    "--x=y ",
    "--link ",
    "--mount=type=cache,target=/c ",
    "--mount=\"a b\" ",
    "--chown=é ",
    "--",
    "-- ",
    "--interval=5s ",
    "<<E\n",
    "<<-E\n",
    "<<\"E\"\n",
    "<<E <<F\n",
    "E\n",
    "F\n",
    "\tE\n",
    "body\n",
    "é",
    "\u{feff}",
    "\u{a0}",
    "\u{b}",
    "\u{c}",
    "CMD x\n",
    "NONE\n",
    "80/tcp",
    "/x",
    "a b",
    "https://h/x",
    "RUN <<E\nx\nE\n",
    "COPY <<E /x\ny\nE\n",
    "AS",
    "KEY value with spaces\n",
    "x \\\n  y\n",
    "\\\"",
    "\\'",
    "INCLUDE x\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_survive(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 1..24)) {
        let text = format!("FROM a\n{}", pieces.concat());
        prop_assert!(survives(&text).is_ok(), "{}", survives(&text).unwrap_err());
        let bare = pieces.concat();
        prop_assert!(survives(&bare).is_ok(), "{}", survives(&bare).unwrap_err());
    }

    #[test]
    fn nothing_panics(text in "(\\PC|[\\\\\n\t\"'<\\$\\{\\}=#-]){0,200}") {
        let file = SourceFile::new("Dockerfile", text);
        parse(&file);
        parse_json(&file);
    }
}
