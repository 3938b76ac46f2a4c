//! Findings of checks as SARIF, which services for code review read.

use std::path::Path;

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{Finding, Rule};
use lapstrake_request::BuildRequest;
use serde_json::{Value, json};

use crate::check::BuildError;

/// A path as a reference that RFC 3986 allows: relative as it is, absolute as a `file` URI.
fn uri_of(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = if path.is_absolute() { "file://".to_owned() } else { String::new() };
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

/// The findings as SARIF 2.1.0: one run, all rules, a result for each finding and one for the error.
pub fn sarif(
    findings: &[Finding],
    error: Option<&BuildError>,
    file: &SourceFile,
    request: &BuildRequest,
) -> Value {
    let main = request.dockerfile.clone().unwrap_or_else(|| request.context.join("Dockerfile"));
    let dir = main.parent().unwrap_or(Path::new("")).to_owned();
    let uri = |name: &str| {
        let path = if name == file.name() { main.clone() } else { dir.join(name) };
        uri_of(path.strip_prefix(".").unwrap_or(&path))
    };
    let place = |lines: (u32, u32)| {
        let (first, last) = (file.origin(lines.0), file.origin(lines.1));
        let end = file.line(lines.1).chars().count() + 1;
        let region =
            json!({"startLine": first.line, "startColumn": 1, "endLine": last.line, "endColumn": end});
        let artifact = json!({ "uri": uri(first.name) });
        json!([{ "physicalLocation": { "artifactLocation": artifact, "region": region } }])
    };
    let rule = |rule: Rule| {
        let mut found = json!({
            "id": rule.name(),
            "shortDescription": { "text": rule.description() },
            "defaultConfiguration": { "level": "warning", "enabled": !rule.is_experimental() },
        });
        if let Some(url) = rule.url() {
            found["helpUri"] = json!(url);
        }
        found
    };
    let mut results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "ruleId": finding.rule.name(),
                "ruleIndex": Rule::all().position(|rule| rule == finding.rule),
                "level": "warning",
                "message": { "text": finding.detail },
                "locations": place(finding.place.lines),
            })
        })
        .collect();
    if let Some(error) = error {
        let whole = || json!([{ "physicalLocation": { "artifactLocation": { "uri": uri(file.name()) } } }]);
        let message = json!({ "text": error.message });
        let locations = error.lines.map_or_else(whole, place);
        results.push(json!({ "level": "error", "message": message, "locations": locations }));
    }
    let driver = json!({
        "name": "lapstrake",
        "version": env!("CARGO_PKG_VERSION"),
        "rules": Rule::all().map(rule).collect::<Vec<_>>(),
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{ "tool": { "driver": driver }, "columnKind": "unicodeCodePoints", "results": results }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        for (path, uri) in
            [("a b/Dockerfile", "a%20b/Dockerfile"), ("/x/é:y", "file:///x/%C3%A9%3Ay"), ("d", "d")]
        {
            assert_eq!(uri_of(Path::new(path)), uri);
        }
    }
}
