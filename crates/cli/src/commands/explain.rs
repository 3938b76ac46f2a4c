//! `lapstrake explain`: why steps of a build were done again.

use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_engine::{Change, Key, KeyPart, Reason, StepExplanation, StepOutcome, explain as compare};
use lapstrake_ops::{StackReport, mount_manifest, record};
use lapstrake_store::{BuildRow, Store};
use lapstrake_tree::{Tree, TreePath};
use serde_json::{Value, json};

use super::builds::outcome;
use crate::args::builds::Explain;
use crate::rows::ago;
use crate::session;
use lapstrake_build::format::time;
use lapstrake_build::{BuildRecord, find_build};

/// No value of an op is shown longer than this, in characters.
const LONGEST: usize = 120;

/// Two builds and the store that has their layers.
struct Comparison<'a> {
    store: &'a Store,
    this: BuildRecord,
    earlier: Option<BuildRecord>,
    files: usize,
}

/// Explains a build.
pub(crate) fn explain(args: &Explain) -> Outcome<ExitCode> {
    let session = session::open()?;
    let store = &*session.store;
    let this = find_build(store, args.build.as_deref())?;
    let earlier: Option<BuildRow> = match &args.earlier {
        Some(name) => Some(find_build(store, Some(name))?),
        None => store.build_before(&this)?,
    };
    let earlier = earlier.as_ref().map(BuildRecord::decode).transpose()?;
    let comparison = Comparison { store, this: BuildRecord::decode(&this)?, earlier, files: args.files };
    let before = comparison.earlier.as_ref().map(|earlier| earlier.steps.as_slice());
    let explained = compare(&comparison.this.steps, before, |key| comparison.parts(key));
    if args.json {
        say!("{:#}", comparison.to_json(&explained)?);
    } else {
        comparison.tell(&explained)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Comparison<'_> {
    fn parts(&self, key: &Key) -> Option<Vec<KeyPart>> {
        let parts = record(self.store, key)?.parts.into_iter();
        Some(parts.map(|(label, value)| KeyPart { label, value }).collect())
    }

    /// The files of a step's own layer.
    fn layer(&self, step: &StackReport) -> Option<Tree> {
        let recorded = || Some(record(self.store, step.key.as_ref()?)?.result.value);
        let stack = step.result.clone().or_else(recorded)?;
        Tree::decode(&self.store.layer_tree(&stack.layers.last()?.id).ok()?).ok()
    }

    /// The differing files of a step's inputs, as (path, how). `None` if they are unknown by now. A copy's files are in its
    /// layer; mounted files are in notes.
    fn files_of(
        &self,
        explained: &StepExplanation,
        digests: &(Option<String>, String),
    ) -> Option<Vec<(String, &'static str)>> {
        let step = &self.this.steps[explained.step];
        let (above, before, this) = if copies(step) {
            ("", self.layer(&self.earlier.as_ref()?.steps[explained.earlier?])?, self.layer(step)?)
        } else {
            // Below what the mount shows.
            ("/", mount_manifest(self.store, digests.0.as_ref()?)?, mount_manifest(self.store, &digests.1)?)
        };
        let named = |path: &TreePath| path.to_string().trim_start_matches(above).to_owned();
        Some(before.changes(&this).iter().map(|(path, what)| (named(path), what.name())).collect())
    }

    fn tell(&self, explained: &[StepExplanation]) -> Outcome<()> {
        let named = |build: &BuildRecord| {
            format!(
                "{} ({}, {})",
                &build.id[..12.min(build.id.len())],
                build.title(),
                ago(Some(&time(build.started)))
            )
        };
        match &self.earlier {
            Some(earlier) => say!("build {}\ncompared with {}\n", named(&self.this), named(earlier)),
            None => {
                say!(
                    "build {}: no earlier build of the same context, Dockerfile and target\n",
                    named(&self.this)
                );
            }
        }
        for one in explained {
            let step = &self.this.steps[one.step];
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
                for line in self.lines(one, reason) {
                    say!("         {line}");
                }
            }
        }
        if self.this.steps.is_empty()
            && let Some(error) = &self.this.error
        {
            say!("no step began: {error}");
        }
        Ok(())
    }

    fn lines(&self, explained: &StepExplanation, reason: &Reason) -> Vec<String> {
        let step = |at: usize| self.this.steps[at].name.replace('\n', " ");
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
                match self.files_of(explained, digests) {
                    Some(files) => lines.extend(self.file_lines(&files)),
                    None => lines.push("  (the changed files are unknown)".to_owned()),
                }
                lines
            }
        }
    }

    fn file_lines(&self, files: &[(String, &'static str)]) -> Vec<String> {
        let mut lines: Vec<String> =
            files.iter().take(self.files).map(|(path, how)| format!("  {path}: {how}")).collect();
        if files.len() > self.files {
            lines.push(format!("  and {} more", files.len() - self.files));
        }
        lines
    }

    fn to_json(&self, explained: &[StepExplanation]) -> Outcome<Value> {
        let mut steps = Vec::new();
        for one in explained {
            let step = &self.this.steps[one.step];
            let reasons: Vec<Value> =
                one.reasons.iter().map(|reason| self.reason_json(one, reason)).collect();
            steps.push(json!({
                "name": step.name,
                "digest": step.digest,
                "lines": step.lines,
                "fate": serde_json::to_value(step.outcome)?,
                "reasons": reasons,
            }));
        }
        let earlier = self.earlier.as_ref().map(|earlier| earlier.id.as_str());
        Ok(json!({"build": self.this.id, "earlier": earlier, "steps": steps}))
    }

    fn reason_json(&self, explained: &StepExplanation, reason: &Reason) -> Value {
        let step = |at: usize| self.this.steps[at].name.as_str();
        match reason {
            Reason::First => json!({"kind": "first"}),
            Reason::New => json!({"kind": "new"}),
            Reason::Forced => json!({"kind": "asked"}),
            Reason::Unfinished => json!({"kind": "unfinished"}),
            Reason::Lost => json!({"kind": "lost"}),
            Reason::Unknown => json!({"kind": "unknown"}),
            Reason::Input(input) => json!({"kind": "input", "step": step(*input)}),
            Reason::Op(changes) => {
                let one = |change: &Change| json!({"place": change.place, "before": change.before, "after": change.after});
                json!({"kind": "op", "changes": changes.iter().map(one).collect::<Vec<_>>()})
            }
            Reason::Content { input, label, digests } => {
                let files = self.files_of(explained, digests);
                let count = files.as_ref().map(Vec::len);
                let files = files.map(|files| {
                    let named = files.into_iter().take(self.files);
                    named.map(|(path, how)| json!({"path": path, "change": how})).collect::<Vec<_>>()
                });
                json!({"kind": "content", "step": step(*input), "label": label, "count": count, "files": files})
            }
        }
    }
}

/// Whether what the step was given is in its own layer.
fn copies(step: &StackReport) -> bool {
    let op =
        step.parts.first().and_then(|part| serde_json::from_str::<lapstrake_graph::File>(&part.value).ok());
    op.is_some()
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
