//! `testdata/ignore/rows.jsonl`: ignore files with what they say about paths, one a line, as moby's matcher has it.

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
    ignored: BTreeMap<String, bool>,
}

#[test]
fn rows() {
    let table = include_str!("../../../testdata/ignore/rows.jsonl");
    for line in table.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let patterns = Patterns::parse(&row.dockerignore);
        assert_eq!(patterns.is_err(), row.error, "{line}");
        let Ok(patterns) = patterns else { continue };
        assert_eq!(patterns.cleaned(), row.patterns, "{line}");
        for (path, ignored) in &row.ignored {
            let clean = TreePath::clean(path.as_bytes()).unwrap();
            assert_eq!(patterns.excluded(&clean).excluded, *ignored, "{path} in {line}");
        }
    }
}
