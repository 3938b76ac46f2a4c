//! `lapstrake debug ignore`: which paths an ignore file hides, and which of its lines decides.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use lapstrake_diag::{Outcome, Usage};
use lapstrake_tree::TreePath;
use lapstrake_tree::ignore::Patterns;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::debug::DebugIgnore;
use crate::client::LocalClient;
use lapstrake_build::local_context;

/// An ignore file, and paths.
#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: Value,
    dockerignore: String,
    /// A `/` at the end marks a directory.
    paths: Vec<String>,
}

/// The verdicts of the file on the paths.
#[derive(Default, Serialize)]
struct Answer {
    id: Value,
    patterns: Vec<String>,
    ignored: BTreeMap<String, bool>,
    sent: Vec<String>,
    error: Option<String>,
}

/// Runs the verb `debug ignore`.
pub(super) fn ignore(args: &DebugIgnore) -> Outcome<ExitCode> {
    if let Some(path) = &args.why {
        return why(args, path);
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let question: Question = serde_json::from_str(&line)?;
        serde_json::to_writer(&mut out, &answer(question))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
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

fn answer(question: Question) -> Answer {
    let patterns = match Patterns::parse(&question.dockerignore) {
        Ok(patterns) => patterns,
        Err(error) => return Answer { id: question.id, error: Some(error.to_string()), ..Answer::default() },
    };
    let mut answer = Answer { id: question.id, patterns: patterns.cleaned(), ..Answer::default() };
    let mut tree = BTreeMap::new();
    for path in &question.paths {
        let clean = match TreePath::clean(path.as_bytes()) {
            Ok(clean) => clean,
            Err(error) => return Answer { error: Some(error.to_string()), ..answer },
        };
        match patterns.settled(patterns.excluded(&clean)) {
            Ok(verdict) => drop(answer.ignored.insert(path.clone(), verdict.excluded)),
            Err(error) => return Answer { error: Some(error.to_string()), ..answer },
        }
        for parent in clean.ancestors().filter(|parent| !parent.is_root() && *parent != clean) {
            tree.insert(parent, true);
        }
        let is_dir = path.ends_with('/') || tree.get(&clean) == Some(&true);
        tree.insert(clean, is_dir);
    }
    answer.sent = sent(&patterns, &tree);
    answer
}

/// The paths of a tree that a walk carries: those that are not hidden, and the directories above them. The tree says
/// which paths are directories.
fn sent(patterns: &Patterns, tree: &BTreeMap<TreePath, bool>) -> Vec<String> {
    let mut carried: BTreeSet<TreePath> = BTreeSet::new();
    for path in tree.keys().filter(|path| !patterns.excluded(path).excluded) {
        carried.extend(path.ancestors().filter(|parent| !parent.is_root()));
        carried.insert(path.clone());
    }
    let text = |path: &TreePath| {
        let slash = if tree.get(path) == Some(&true) { "/" } else { "" };
        format!("{}{slash}", path.as_path().display())
    };
    carried.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let ask = |text: &str| answer(serde_json::from_str(text).expect("a question"));
        let found = ask(
            r##"{"id": 1, "dockerignore": "# x\n/a/\n!a/keep\n*.o", "paths": ["a/keep", "a/x", "b/", "c.o"]}"##,
        );
        assert_eq!(found.patterns, ["a", "!a/keep", "*.o"]);
        assert_eq!(found.ignored.values().copied().collect::<Vec<_>>(), [false, true, false, true]);
        assert_eq!(found.sent, ["a/", "a/keep", "b/"]);
        assert!(ask(r#"{"dockerignore": "!", "paths": []}"#).error.is_some());
    }
}
