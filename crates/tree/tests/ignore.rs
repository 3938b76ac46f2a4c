//! `testdata/ignore/rows.jsonl`: ignore files with what they say about paths, one a line, as moby's matcher has it where it
//! walks a tree; null stands for a pattern that is none.
//! `testdata/ignore-sources/rows.jsonl`: what they say about paths as they are written, as checks of COPY ask for them.

use std::collections::BTreeMap;

use lapstrake_tree::TreePath;
use lapstrake_tree::ignore::Patterns;

#[derive(serde::Deserialize)]
struct Row {
    dockerignore: String,
    #[serde(default)]
    error: bool,
    #[serde(default)]
    patterns: Vec<String>,
    #[serde(default)]
    ignored: BTreeMap<String, Option<bool>>,
}

#[test]
fn rows() {
    let rows = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/ignore/rows.jsonl");
    let table = std::fs::read_to_string(std::env::var("IGNORE_ROWS").unwrap_or(rows.to_owned())).unwrap();
    for line in table.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let patterns = Patterns::parse(&row.dockerignore);
        assert_eq!(patterns.is_err(), row.error, "{line}");
        let Ok(patterns) = patterns else { continue };
        assert_eq!(patterns.cleaned(), row.patterns, "{line}");
        for (path, ignored) in &row.ignored {
            let clean = TreePath::clean(path.as_bytes()).unwrap();
            let found = patterns.settled(patterns.excluded(&clean)).ok().map(|verdict| verdict.excluded);
            assert_eq!(found, *ignored, "{path} in {line}");
        }
    }
}

#[derive(serde::Deserialize)]
struct Source {
    patterns: Vec<String>,
    source: String,
    hidden: bool,
}

#[test]
fn sources_as_written() {
    let table = include_str!("../../../testdata/ignore-sources/rows.jsonl");
    for line in table.lines() {
        let row: Source = serde_json::from_str(line).unwrap();
        let patterns = Patterns::from_list(&row.patterns).unwrap();
        assert_eq!(patterns.matches_or_parent(&row.source), row.hidden, "{line}");
    }
}
