//! `lapstrake check`: what a Dockerfile says and most likely does not mean.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_diag::{Excerpt, Outcome, Report, SourceFile, excerpt};
use lapstrake_dockerfile::{CheckOptions, Checks, Finding, Parsed, Rule, check_syntax};
use lapstrake_engine::Warning;
use lapstrake_lower::{BuildInputs, Scope, lower_checked};
use serde_json::{Value, json};

use super::documents::{CheckDocument, written};
use super::plan::guess_time;
use super::read::{Tools, first_error, quietly};
use super::resolve::Guessing;
use super::wanted::Wanted;
use crate::args::{Build, Format};

/// An error that ended the checking.
struct BuildError {
    message: String,
    lines: Option<(u32, u32)>,
}

/// Checks, and prints what was found. The status is 1 if that is anything.
pub(crate) fn check(args: &Build, format: Format) -> Outcome<ExitCode> {
    let mut wanted = Wanted::to_tell(args)?;
    let tools = Tools::new(&crate::session::open()?, &mut wanted, args.pull);
    let (file, parsed) = quietly(args, &mut wanted, &tools)?;
    let (checks, error) = match wanted_rules(&file, &wanted.inputs)? {
        Ok(options) => {
            let checks = Checks::new(options);
            let error = run(&tools, &mut wanted, &file, &parsed, &checks)?;
            (checks, error)
        }
        Err(error) => (Checks::default(), Some(error)),
    };
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

/// Which rules count: what an argument says, else the file. A mistake in the file is one of its errors.
fn wanted_rules(file: &SourceFile, inputs: &BuildInputs) -> Outcome<Result<CheckOptions, BuildError>> {
    if let Some(options) = from_argument(inputs)? {
        return Ok(Ok(options));
    }
    Ok(CheckOptions::of_file(file.text()).map_err(|message| {
        let lines = CheckOptions::line_in(file.text()).map(|line| (line, line));
        BuildError { message, lines }
    }))
}

/// The rules that an argument asks for. What is wrong with them counts whatever is to be told.
pub(super) fn from_argument(inputs: &BuildInputs) -> Outcome<Option<CheckOptions>> {
    const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
    let Some(text) = inputs.build_args.get(ARGUMENT) else { return Ok(None) };
    let options = CheckOptions::parse(text);
    Ok(Some(options.map_err(|why| bad(format!("failed to parse build-arg:{ARGUMENT}: {why}")))?))
}

fn bad(text: String) -> Report {
    let hint = "a check is `skip=RULE,RULE|all`, `error=true` or `experimental=RULE|all`, `;` between them";
    Report::new(text).with_hint(hint)
}

/// Which rules count for a build.
pub(super) fn options(file: &Arc<SourceFile>, inputs: &BuildInputs) -> Outcome<CheckOptions> {
    wanted_rules(file, inputs)?.map_err(|error| {
        let report = bad(error.message);
        match error.lines {
            Some((first, last)) => report.at(file, Excerpt::Lines(first, last)),
            None => report,
        }
    })
}

/// Without a target, all stages are checked.
fn run(
    tools: &Tools,
    wanted: &mut Wanted,
    file: &SourceFile,
    parsed: &Parsed,
    checks: &Checks,
) -> Outcome<Option<BuildError>> {
    check_syntax(parsed, checks);
    if let Some((message, lines)) = first_error(parsed, file) {
        return Ok(Some(BuildError { message, lines }));
    }
    let scope = if wanted.inputs.target.is_none() { Scope::All } else { Scope::Target };
    super::block_on(async {
        guess_time(wanted, parsed, tools).await;
        let resolver = Guessing::new(tools.images.clone());
        let lowered = tokio::task::block_in_place(|| {
            lower_checked(&parsed.dockerfile, &wanted.inputs, &resolver, checks, scope)
        });
        let failed = lowered.err().map(|error| {
            let whole = |span| parsed.dockerfile.lines_at(span).unwrap_or_else(|| file.lines(span));
            let lines = error.span().map(whole);
            BuildError { message: error.to_string(), lines }
        });
        Ok(failed.or_else(|| checks.error().map(|message| BuildError { message, lines: None })))
    })
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

/// One line a finding, as builds end with them.
pub(super) fn summary(findings: &[Finding], file: &SourceFile) -> Option<String> {
    let count = findings.len();
    if count == 0 {
        return None;
    }
    let warnings = if count == 1 { "1 warning" } else { &format!("{count} warnings") };
    let mut text = format!("\n{warnings} found (`lapstrake check` shows where):");
    for finding in findings {
        text.push_str(&format!("\n - {}", short(finding, file)));
    }
    Some(text)
}

/// The finding in one line.
fn short(finding: &Finding, file: &SourceFile) -> String {
    let origin = file.origin(finding.place.lines.0);
    let place = if origin.name == file.name() {
        format!("line {}", origin.line)
    } else {
        format!("{} line {}", origin.name, origin.line)
    };
    format!("{}: {} ({place})", finding.rule.name(), finding.detail)
}

/// The finding as an event of a build.
pub(super) fn warning(finding: &Finding, file: &SourceFile) -> Warning {
    let (first, last) = finding.place.lines;
    let origin = file.origin(first);
    Warning {
        short: short(finding, file),
        detail: finding.rule.description().to_owned(),
        url: finding.rule.url(),
        file: origin.name.to_owned(),
        lines: (origin.line, origin.line + last - first),
    }
}

/// The names of the files that the text is put together of, without doubles, the main one first.
fn names(file: &SourceFile) -> Vec<&str> {
    let mut names = vec![file.name()];
    let mut line = 1;
    while line <= file.line_count() {
        let origin = file.origin(line);
        if !names.contains(&origin.name) {
            names.push(origin.name);
        }
        line = origin.part.1 + 1;
    }
    names
}

/// The sources by name, each with its text in base64.
pub(super) fn texts(file: &SourceFile) -> Vec<(&str, String)> {
    let text = |name: &str| -> String {
        let lines = (1..=file.line_count()).filter(|line| file.origin(*line).name == name);
        lines.map(|line| &file.text()[file.line_span(line).range()]).collect()
    };
    let data = |name: &str| if file.is_joined() { text(name) } else { file.text().to_owned() };
    names(file).into_iter().map(|name| (name, BASE64.encode(data(name)))).collect()
}

/// Which of the sources lines stand in, and which lines of it they are.
pub(super) fn place(file: &SourceFile, (first, last): (u32, u32)) -> (usize, impl Iterator<Item = u32>) {
    let source = names(file).iter().position(|name| *name == file.origin(first).name).unwrap_or_default();
    (source, (first..=last).map(|line| file.origin(line).line))
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
