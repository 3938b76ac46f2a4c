//! `testdata/platforms/rows.jsonl`: platforms as people write them, and what containerd's library makes or says of them.

use lapstrake_oci::Platform;
use serde_json::Value;

#[test]
fn rows() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/platforms/rows.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let mut wrong = String::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let found = row["text"].as_str().unwrap().parse::<Platform>();
        let right = match (&found, row.get("platform")) {
            (Ok(platform), Some(expected)) => *expected == platform.to_string(),
            (Err(error), None) => row["error"] == error.to_string(),
            _ => false,
        };
        if !right {
            wrong.push_str(&format!("{row}: {found:?}\n"));
        }
    }
    assert!(text.lines().count() > 40 && wrong.is_empty(), "{wrong}");
}
