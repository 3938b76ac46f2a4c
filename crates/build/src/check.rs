//! Checks and outlines of a Dockerfile, which build nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_diag::{Excerpt, Outcome, Report, SourceFile};
use lapstrake_dockerfile::{CheckOptions, Checks, Finding, Parsed, check_syntax};
use lapstrake_engine::Warning;
use lapstrake_lower::{BuildInputs, Outline, Scope, lower_checked};

use crate::plan::guess_time;
use crate::resolve::Guessing;
use crate::resolved::Resolved;
use crate::source::{Tools, first_error, placed};

/// An error that ended the checking.
pub struct BuildError {
    /// The error's text.
    pub message: String,
    /// First and last line, counted from 1.
    pub lines: Option<(u32, u32)>,
}

/// The active rules: those of an argument, else those of the file. A mistake in the file is one of its errors.
pub fn wanted_rules(file: &SourceFile, inputs: &BuildInputs) -> Outcome<Result<CheckOptions, BuildError>> {
    if let Some(options) = from_argument(inputs)? {
        return Ok(Ok(options));
    }
    Ok(CheckOptions::of_file(file.text()).map_err(|message| {
        let lines = CheckOptions::line_in(file.text()).map(|line| (line, line));
        BuildError { message, lines }
    }))
}

/// The rules that an argument asks for. A mistake in the argument is an error of every request.
pub fn from_argument(inputs: &BuildInputs) -> Outcome<Option<CheckOptions>> {
    const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
    let Some(text) = inputs.build_args.get(ARGUMENT) else { return Ok(None) };
    let options = CheckOptions::parse(text);
    Ok(Some(options.map_err(|why| bad(format!("failed to parse build-arg:{ARGUMENT}: {why}")))?))
}

fn bad(text: String) -> Report {
    let hint = "a check is `skip=RULE,RULE|all`, `error=true` or `experimental=RULE|all`, `;` between them";
    Report::new(text).with_hint(hint)
}

/// The active rules of a build.
pub fn options(file: &Arc<SourceFile>, inputs: &BuildInputs) -> Outcome<CheckOptions> {
    wanted_rules(file, inputs)?.map_err(|error| {
        let report = bad(error.message);
        match error.lines {
            Some((first, last)) => report.at(file, Excerpt::Lines(first, last)),
            None => report,
        }
    })
}

/// Lowers the Dockerfile without building it, and gives the error that ended the checking. Without a target, all stages are
/// checked.
///
/// # Errors
/// None of the Dockerfile's: those are the result.
pub async fn check(
    tools: &Tools,
    request: &mut Resolved,
    (file, parsed): (&SourceFile, &Parsed),
    checks: &Checks,
) -> Option<BuildError> {
    check_syntax(parsed, checks);
    if let Some((message, lines)) = first_error(parsed, file) {
        return Some(BuildError { message, lines });
    }
    let scope = if request.inputs.target.is_none() { Scope::All } else { Scope::Target };
    guess_time(request, parsed, tools).await;
    let resolver = Guessing::new(tools.images.clone(), tools.notes.clone());
    let lowered = tokio::task::block_in_place(|| {
        lower_checked(&parsed.dockerfile, &request.inputs, &resolver, checks, scope)
    });
    let failed = lowered.err().map(|error| {
        let whole = |span| parsed.dockerfile.lines_at(span).unwrap_or_else(|| file.lines(span));
        let lines = error.span().map(whole);
        BuildError { message: error.to_string(), lines }
    });
    failed.or_else(|| checks.error().map(|message| BuildError { message, lines: None }))
}

/// The arguments, secrets and agents that the target of a Dockerfile takes.
///
/// # Errors
/// The Dockerfile cannot be built.
pub async fn outline(
    tools: &Tools,
    request: &mut Resolved,
    (file, parsed): (&Arc<SourceFile>, &Parsed),
    checks: &Checks,
) -> Outcome<Outline> {
    guess_time(request, parsed, tools).await;
    let resolver = Guessing::new(tools.images.clone(), tools.notes.clone());
    let made = tokio::task::block_in_place(|| {
        lapstrake_lower::outline(&parsed.dockerfile, &request.inputs, &resolver, checks)
    });
    let made = made.map_err(|error| placed(&error, file))?;
    crate::plan::nothing_found(checks)?;
    Ok(made)
}

/// One line a finding, as builds end with them.
pub fn summary(findings: &[Finding], file: &SourceFile) -> Option<String> {
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
pub(crate) fn short(finding: &Finding, file: &SourceFile) -> String {
    let origin = file.origin(finding.place.lines.0);
    let place = if origin.name == file.name() {
        format!("line {}", origin.line)
    } else {
        format!("{} line {}", origin.name, origin.line)
    };
    format!("{}: {} ({place})", finding.rule.name(), finding.detail)
}

/// The finding as an event of a build.
pub(crate) fn warning(finding: &Finding, file: &SourceFile) -> Warning {
    let (first, last) = finding.place.lines;
    let origin = file.origin(first);
    Warning {
        short: short(finding, file),
        detail: finding.rule.description().to_owned(),
        url: finding.rule.url(),
        file: origin.name.to_owned(),
        lines: (origin.line, origin.line + last - first),
        own: None,
    }
}

/// The names of the files that the text is put together of, without doubles, the main one first.
pub(crate) fn names(file: &SourceFile) -> Vec<&str> {
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
pub(crate) fn texts(file: &SourceFile) -> Vec<(&str, String)> {
    let text = |name: &str| -> String {
        let lines = (1..=file.line_count()).filter(|line| file.origin(*line).name == name);
        lines.map(|line| &file.text()[file.line_span(line).range()]).collect()
    };
    let data = |name: &str| if file.is_joined() { text(name) } else { file.text().to_owned() };
    names(file).into_iter().map(|name| (name, BASE64.encode(data(name)))).collect()
}

/// The source that lines are in, and their numbers in it.
pub(crate) fn place(file: &SourceFile, (first, last): (u32, u32)) -> (usize, impl Iterator<Item = u32>) {
    let source = names(file).iter().position(|name| *name == file.origin(first).name).unwrap_or_default();
    (source, (first..=last).map(|line| file.origin(line).line))
}
