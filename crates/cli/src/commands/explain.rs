//! `lapstrake explain`: why steps of a build were done again.

use std::process::ExitCode;

use lapstrake_build::format::time;
use lapstrake_build::{BuildRecord, Comparison};
use lapstrake_diag::Outcome;
use lapstrake_engine::{Change, Reason, StepExplanation, StepOutcome};

use super::builds::outcome;
use crate::args::builds::Explain;
use crate::rows::ago;
use crate::session;

/// No value of an op is shown longer than this, in characters.
const LONGEST: usize = 120;

/// Explains a build.
pub(crate) fn explain(args: &Explain) -> Outcome<ExitCode> {
    let session = session::open()?;
    let comparison =
        Comparison::new(&session.store, args.build.as_deref(), args.earlier.as_deref(), args.files)?;
    let explained = comparison.explained();
    if args.json {
        say!("{:#}", comparison.document(&explained)?);
    } else {
        tell(&comparison, &explained)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(comparison: &Comparison<'_>, explained: &[StepExplanation]) -> Outcome<()> {
    let named = |build: &BuildRecord| {
        format!(
            "{} ({}, {})",
            &build.id[..12.min(build.id.len())],
            build.title(),
            ago(Some(&time(build.started)))
        )
    };
    match &comparison.earlier {
        Some(earlier) => say!("build {}\ncompared with {}\n", named(&comparison.this), named(earlier)),
        None => {
            say!(
                "build {}: no earlier build of the same context, Dockerfile and target\n",
                named(&comparison.this)
            );
        }
    }
    for one in explained {
        let step = &comparison.this.steps[one.step];
        // The context itself is no step that anybody wrote.
        if step.lines.is_none() && step.outcome != StepOutcome::Failed {
            continue;
        }
        say!("{:<8} {}", outcome(step), step.name.replace('\n', " "));
        // Sources are looked at in each build.
        if step.inputs.is_empty() && one.reasons == [Reason::Lost] {
            continue;
        }
        for reason in &one.reasons {
            for line in lines(comparison, one, reason) {
                say!("         {line}");
            }
        }
    }
    if comparison.this.steps.is_empty()
        && let Some(error) = &comparison.this.error
    {
        say!("no step began: {error}");
    }
    Ok(())
}

fn lines(comparison: &Comparison<'_>, explained: &StepExplanation, reason: &Reason) -> Vec<String> {
    let step = |at: usize| comparison.this.steps[at].name.replace('\n', " ");
    match reason {
        Reason::First => vec!["no earlier build had this step".to_owned()],
        Reason::New => vec!["the earlier build did not have this step".to_owned()],
        Reason::Forced => vec!["--no-cache runs it even if it is cached".to_owned()],
        Reason::Unfinished => vec!["the earlier build did not finish it".to_owned()],
        Reason::Lost => {
            vec!["nothing changed, but its result was pruned".to_owned()]
        }
        Reason::Unknown => {
            vec!["the earlier build's record of it was pruned".to_owned()]
        }
        Reason::Input(input) => vec![format!("its input changed: {}", step(*input))],
        Reason::Op(changes) => changes.iter().map(change_line).collect(),
        Reason::Content { input, label, digests } => {
            let mut lines = vec![format!("{label} changed, in {}", step(*input))];
            match comparison.files_of(explained, digests) {
                Some(files) => lines.extend(file_lines(comparison, &files)),
                None => lines.push("  (the changed files are unknown)".to_owned()),
            }
            lines
        }
    }
}

fn file_lines(comparison: &Comparison<'_>, files: &[(String, &'static str)]) -> Vec<String> {
    let mut lines: Vec<String> =
        files.iter().take(comparison.files).map(|(path, how)| format!("  {path}: {how}")).collect();
    if files.len() > comparison.files {
        lines.push(format!("  and {} more", files.len() - comparison.files));
    }
    lines
}

/// A changed value in words.
fn change_line(change: &Change) -> String {
    let place = match change.place.split_once(' ') {
        Some((_, variable)) => format!("the variable {variable}"),
        None if change.place.ends_with("args") => "the command".to_owned(),
        None if change.place.ends_with("manifest") => "the base image".to_owned(),
        // The op as a whole: an image where there was none, say.
        None if change.place.is_empty() => "what it does".to_owned(),
        None => format!("`{}`", change.place),
    };
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{place} was `{}` and is `{}`", short(before), short(after)),
        (None, Some(after)) => format!("{place} is new: `{}`", short(after)),
        (Some(before), None) => format!("{place} is gone; it was `{}`", short(before)),
        (None, None) => place,
    }
}

fn short(text: &str) -> String {
    let text = text.replace('\n', "⏎");
    if text.chars().count() <= LONGEST {
        text
    } else {
        text.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}
