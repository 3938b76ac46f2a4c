//! Holds the crate to what Go 1.27 itself says, and for CSV `go-csvvalue`: each line of `testdata/go` is an input and the
//! result there.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::path::{Path, PathBuf};

use lapstrake_go::{TabWriter, Template, csv, duration, parse_bool, path, quoted, to_json};
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/go").join(name)
}

/// Compares each row; `rows` is the least number of them.
fn check(name: &str, rows: usize, compare: impl Fn(&Value) -> Result<(), String>) {
    let text = std::fs::read_to_string(file(&format!("{name}.jsonl"))).unwrap();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        wrong.extend(compare(&row).err().map(|why| format!("{line}\n  here: {why}")));
    }
    assert!(text.lines().count() >= rows, "{name} has {} rows", text.lines().count());
    assert!(wrong.is_empty(), "{} rows of {name} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn same(here: impl Into<Value>, there: &Value) -> Result<(), String> {
    let here = here.into();
    if here == *there { Ok(()) } else { Err(here.to_string()) }
}

fn text<'r>(row: &'r Value, key: &str) -> &'r str {
    row[key].as_str().unwrap()
}

#[test]
fn durations() {
    check("durations", 150, |row| match duration::parse(text(row, "text")) {
        Ok(length) => same(length, &row["ns"]).and_then(|()| same(duration::text(length), &row["string"])),
        Err(error) => same(error.to_string(), &row["error"]),
    });
}

#[test]
fn fields() {
    check("csv", 150, |row| match csv::fields(text(row, "text")) {
        Ok(fields) => same(fields, &row["fields"]),
        Err(error) => same(error.to_string(), &row["error"]),
    });
}

#[test]
fn quotes_and_json() {
    check("quote", 100, |row| {
        same(quoted(text(row, "text")), &row["quoted"])?;
        same(String::from_utf8(to_json(text(row, "text"))).unwrap(), &row["json"])
    });
}

#[test]
fn clean_paths() {
    check("clean", 100, |row| same(path::clean(text(row, "path")), &row["clean"]));
}

#[test]
fn booleans() {
    check("bools", 18, |row| same(parse_bool(text(row, "text")), &row["value"]));
}

#[test]
fn tables() {
    check("tables", 60, |row| {
        let number = |key: &str| usize::try_from(row[key].as_u64().unwrap()).unwrap();
        let lines: Vec<&str> =
            row["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        same(TabWriter::new(number("least"), number("padding")).lines(&lines), &row["table"])
    });
}

#[test]
fn templates() {
    let data: Value = serde_json::from_str(&std::fs::read_to_string(file("data.json")).unwrap()).unwrap();
    check("templates", 40, |row| {
        let template = Template::parse(text(row, "template")).map_err(|error| error.to_string())?;
        same(template.show(&data).map_err(|error| error.to_string())?, &row["text"])
    });
}
