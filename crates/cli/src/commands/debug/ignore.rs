//! `lapstrake debug ignore`: which paths an ignore file hides, and which of its lines decides.

use std::path::Path;
use std::process::ExitCode;

use lapstrake_build::{ignored, local_context};
use lapstrake_diag::{Outcome, Usage};
use lapstrake_tree::TreePath;

use crate::args::debug::DebugIgnore;
use crate::client::LocalClient;

/// Answers one question, or every line of standard input.
pub(super) fn ignore(args: &DebugIgnore) -> Outcome<ExitCode> {
    if let Some(path) = &args.why {
        return why(args, path);
    }
    super::answer_all(ignored)
}

/// Says which line of the context's ignore file decides about one path.
fn why(args: &DebugIgnore, path: &str) -> Outcome<ExitCode> {
    let context = args.context.as_deref().unwrap_or_else(|| Path::new("."));
    let mut warnings = Vec::new();
    let patterns =
        local_context(&LocalClient::default(), context, args.file.as_deref(), &mut warnings)?.ignore;
    warnings.iter().for_each(|warning| tell!("{warning}"));
    let clean = TreePath::clean(path.as_bytes()).map_err(|error| Usage(format!("{path}: {error}")))?;
    let verdict = patterns.settled(patterns.excluded(&clean))?;
    let what = if verdict.excluded { "hidden" } else { "sent" };
    match verdict.rule.and_then(|rule| patterns.rule(rule)) {
        Some((text, line)) => say!("{path} is {what}: line {line} of the ignore file says `{text}`"),
        None => say!("{path} is {what}: no line of an ignore file matches it"),
    }
    Ok(ExitCode::SUCCESS)
}
