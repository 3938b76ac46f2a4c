//! `testdata/git-refs/rows.jsonl`: addresses and what BuildKit takes them for, one a line.

use lapstrake_dockerfile::parse_git_ref;
use serde_json::{Value, json};

/// What became of an address, in the rows' form.
fn told(url: &str) -> Value {
    let mut row = json!({ "url": url, "git": false });
    let found = match parse_git_ref(url) {
        None => return row,
        Some(Err(why)) => return json!({ "url": url, "git": true, "error": why }),
        Some(Ok(found)) => found,
    };
    row["git"] = json!(true);
    row["remote"] = json!(found.remote);
    for (key, text) in [("ref", found.reference), ("subdir", found.subdir), ("checksum", found.checksum)] {
        if !text.is_empty() {
            row[key] = json!(text);
        }
    }
    let times = found.commit_times.map(|commit| json!(if commit { "commit" } else { "checkout" }));
    let more = [
        ("local", found.like_a_path.then_some(json!(true))),
        ("keep_git_dir", found.keep_git_dir.map(|keep| json!(keep))),
        ("submodules", found.submodules.map(|fetch| json!(fetch))),
        ("mtime", times),
        ("fetch_by_commit", found.fetch_by_commit.then_some(json!(true))),
    ];
    for (key, value) in more {
        if let Some(value) = value {
            row[key] = value;
        }
    }
    row
}

#[test]
fn rows() {
    let file = std::env::var("GIT_REFS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/git-refs/rows.jsonl").to_owned()
    });
    let rows = std::fs::read_to_string(file).unwrap();
    let wrong: Vec<String> = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|row| {
            let found = told(row["url"].as_str().unwrap());
            (found != row).then(|| format!("{found}\nnot {row}"))
        })
        .collect();
    assert!(rows.lines().count() > 50 && wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
