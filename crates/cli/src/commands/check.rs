//! `lapstrake check`: what a Dockerfile says and most likely does not mean.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::client::{self, LocalClient};
use lapstrake_build::{BuildError, CheckDocument, Resolved, Tools, read, wanted_rules, written};
use lapstrake_diag::{Outcome, SourceFile, excerpt};
use lapstrake_dockerfile::{Checks, Finding, Parsed, Rule};
use lapstrake_engine::Progress;
use lapstrake_ops::Worker;
use serde_json::{Value, json};

use crate::args::{Build, Format};

/// A Dockerfile that nothing is built of.
pub(super) struct Parsing {
    pub(super) tools: Tools,
    pub(super) request: Resolved,
    pub(super) file: Arc<SourceFile>,
    pub(super) parsed: Parsed,
}

/// Reads a Dockerfile that nothing is built of: no progress is shown.
pub(super) fn read_quietly(args: &Build) -> Outcome<Parsing> {
    let (request, client) = (client::request(args)?, LocalClient::of(args)?);
    let mut resolved = Resolved::to_tell(&request, &client)?;
    resolved.warnings.iter().for_each(|warning| tell!("{warning}"));
    let machine = crate::session::open()?;
    let worker = Arc::new(Worker::new(machine.store, machine.single_id));
    let tools = Tools::new(&worker, &*client, &mut resolved, args.pull);
    let progress = Progress::none();
    let reading = read((&request, &*client), &mut resolved, &tools, &progress);
    let (file, parsed) = super::block_on(reading)?;
    Ok(Parsing { tools, request: resolved, file, parsed })
}

/// Checks, and prints what was found. The status is 1 if that is anything.
pub(crate) fn check(args: &Build, format: Format) -> Outcome<ExitCode> {
    let Parsing { tools, mut request, file, parsed } = read_quietly(args)?;
    let (checks, error) = match wanted_rules(&file, &request.inputs)? {
        Ok(options) => {
            let checks = Checks::new(options);
            let checking = lapstrake_build::check(&tools, &mut request, (&file, &parsed), &checks);
            let error = super::block_on(async { Ok(checking.await) })?;
            (checks, error)
        }
        Err(error) => (Checks::default(), Some(error)),
    };
    tools.notes.take().iter().for_each(|note| tell!("{note}"));
    let findings = checks.findings();
    match format {
        Format::Text => print(&findings, error.as_ref(), &file)?,
        Format::Json => {
            let error = error.as_ref().map(|error| (error.message.as_str(), error.lines));
            say!("{}", written(&CheckDocument::new(&findings, error, &file)));
        }
        Format::Sarif => say!("{:#}", sarif(&findings, error.as_ref(), &file, args)),
    }
    let clean = findings.is_empty() && error.is_none();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(findings: &[Finding], error: Option<&BuildError>, file: &SourceFile) -> Outcome<()> {
    match findings.len() {
        0 if error.is_some() => {}
        0 => say!("Check complete, no warnings found."),
        1 => say!("Check complete, 1 warning has been found!"),
        many => say!("Check complete, {many} warnings have been found!"),
    }
    for finding in findings {
        say!("");
        match finding.rule.url() {
            Some(url) => say!("WARNING: {} - {url}", finding.rule.name()),
            None => say!("WARNING: {}", finding.rule.name()),
        }
        say!("{}", finding.detail);
        let (first, last) = finding.place.lines;
        say!("{}", excerpt(file, first, last).trim_end());
    }
    if let Some(error) = error {
        tell!("\nERROR: {}", error.message);
        if let Some((first, last)) = error.lines {
            tell!("{}", excerpt(file, first, last).trim_end());
        }
    }
    Ok(())
}

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

/// SARIF 2.1.0: one run, all rules, a result for each finding and one for the error.
fn sarif(findings: &[Finding], error: Option<&BuildError>, file: &SourceFile, args: &Build) -> Value {
    let main = args.file.clone().unwrap_or_else(|| args.context.join("Dockerfile"));
    let dir = main.parent().unwrap_or(Path::new("")).to_owned();
    let uri = |name: &str| {
        let path = if name == file.name() { main.clone() } else { dir.join(name) };
        uri_of(path.strip_prefix(".").unwrap_or(&path))
    };
    let place = |lines: (u32, u32)| {
        let (first, last) = (file.origin(lines.0), file.origin(lines.1));
        let end = file.line(lines.1).chars().count() + 1;
        let region = json!({
            "startLine": first.line, "startColumn": 1, "endLine": last.line, "endColumn": end,
        });
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
