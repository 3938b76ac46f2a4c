//! Tables of facts under `testdata`: questions to the parser with the answers that BuildKit gives, a row a line or a folder
//! a case.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Mount, Sharing, parse_json, parse_port};
use serde_json::{Value, json};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// Asks `answer` for each row; what it gives must be in the row as it is.
fn check(name: &str, least: usize, answer: impl Fn(&Value) -> Value) {
    let text = fs::read_to_string(testdata(name).join("rows.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut wrong = String::new();
    for row in &rows {
        let Value::Object(fields) = answer(row) else { panic!("{row}: no object") };
        for (key, found) in fields {
            if row.get(&key).unwrap_or(&Value::Null) != &found {
                wrong.push_str(&format!("{row}\n  {key}: {found}\n"));
            }
        }
    }
    assert!(rows.len() >= least && wrong.is_empty(), "{} rows, wrong:\n{wrong}", rows.len());
}

fn text(row: &Value) -> &str {
    row["text"].as_str().unwrap()
}

#[test]
fn words() {
    let env = fs::read_to_string(testdata("words").join("env.json")).unwrap();
    let env: BTreeMap<String, String> = serde_json::from_str(&env).unwrap();
    check("words", 400, |row| {
        let is = |key: &str| row[key] == true;
        let mode = Mode {
            escape: row["escape"].as_str().map_or('\\', |escape| escape.chars().next().unwrap()),
            raw_quotes: is("raw_quotes"),
            raw_escapes: is("raw_escapes"),
            skip_process_quotes: is("skip_process_quotes"),
            skip_unset_env: is("skip_unset_env"),
        };
        let word = row["word"].as_str().unwrap();
        match words::expand(word, &|name| env.get(name).cloned(), mode) {
            Err(error) => json!({ "error": error.to_string() }),
            Ok(found) if row["mode"] == "words" => json!({ "words": found.words, "error": null }),
            Ok(found) => json!({
                "result": found.text, "matched": found.matched, "unmatched": found.unmatched, "error": null,
            }),
        }
    });
}

#[test]
fn ports() {
    check("ports", 40, |row| match row.get("error").and_then(Value::as_str) {
        // The rows' errors tell the instruction too.
        Some(error) => {
            let why = parse_port(text(row)).err().unwrap_or_default();
            assert!(!why.is_empty() && error.ends_with(&why), "{row}: {why}");
            json!({})
        }
        None => {
            // Nothing at all is no word, and no port.
            let port = (!text(row).is_empty()).then(|| parse_port(text(row)).unwrap());
            let mut ports: Vec<String> = port.iter().flat_map(lapstrake_dockerfile::Port::entries).collect();
            ports.sort();
            json!({ "ports": ports })
        }
    });
}

#[test]
fn mounts() {
    check("mounts", 80, |row| {
        let found = Mount::parse(text(row), |value| Ok(value.to_owned()));
        // An unexpanded `from` is looked at before anything else.
        let from = row["error"].as_str().is_some_and(|error| error.starts_with("'from' doesn't support"));
        match found {
            _ if from => json!({}),
            Err(error) => json!({ "error": error }),
            Ok(mount) => json!({ "mount": without_nothing(&json!({
                "type": mount.kind.name(),
                "from": mount.from,
                "source": mount.source,
                "target": mount.target,
                "readonly": mount.readonly,
                "size": mount.size,
                "id": mount.id,
                "sharing": mount.sharing.map(Sharing::name),
                "required": mount.required,
                "env": mount.env,
                "mode": mount.mode,
                "uid": mount.uid,
                "gid": mount.gid,
            })) }),
        }
    });
}

#[test]
fn durations() {
    check("durations", 30, |row| {
        let text = format!("FROM a\nHEALTHCHECK --interval=\"{}\" CMD x\n", text(row));
        let tree = parse_json(&SourceFile::new("Dockerfile", text));
        match &tree["error"]["message"] {
            Value::Null => json!({ "ns": tree["stages"][0]["commands"][0]["fields"]["interval_ns"] }),
            why => json!({ "error": why }),
        }
    });
}

/// Without null, false, 0 and empty, which mean the same.
fn without_nothing(value: &Value) -> Value {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    };
    match value {
        Value::Array(items) => items.iter().map(without_nothing).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), without_nothing(value)))
            .filter(|(_, value)| !nothing(value))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn parser_cases() {
    let mut count = 0;
    let mut wrong = String::new();
    for entry in fs::read_dir(testdata("parse")).unwrap() {
        let dir = entry.unwrap().path();
        let file = SourceFile::new("Dockerfile", fs::read_to_string(dir.join("Dockerfile")).unwrap());
        let expected: Value =
            serde_json::from_str(&fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
        let mut found = without_nothing(&parse_json(&file));
        let fields = found.as_object_mut().unwrap();
        for key in ["schema", "errors"] {
            fields.remove(key);
        }
        if let Some(Value::Object(error)) = fields.get_mut("error") {
            error.remove("column");
        }
        count += 1;
        if found != expected {
            wrong.push_str(&format!("{}\n{found:#}\n", dir.display()));
        }
    }
    assert!(count > 50 && wrong.is_empty(), "{count} cases, wrong:\n{wrong}");
}
