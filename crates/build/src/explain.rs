//! Why steps of a build were done again: a build beside an earlier one of the same.

use lapstrake_diag::Outcome;
use lapstrake_engine::{Change, Key, KeyPart, Reason, StepExplanation, explain};
use lapstrake_ops::{StackReport, mount_manifest, record};
use lapstrake_store::{BuildRow, Store};
use lapstrake_tree::{Tree, TreePath};
use serde_json::{Value, json};

use crate::history::{BuildRecord, find_build};

/// Two builds and the store that has their layers.
pub struct Comparison<'a> {
    store: &'a Store,
    /// The build that is explained.
    pub this: BuildRecord,
    /// The earlier build, if there is one.
    pub earlier: Option<BuildRecord>,
    /// The most changed files that a list shows.
    pub files: usize,
}

impl<'a> Comparison<'a> {
    /// The build that `build` names, else the last one, beside the one that `earlier` names, else the one before of the same.
    ///
    /// # Errors
    /// There is no such build, or its record cannot be read.
    pub fn new(
        store: &'a Store,
        build: Option<&str>,
        earlier: Option<&str>,
        files: usize,
    ) -> Outcome<Comparison<'a>> {
        let this = find_build(store, build)?;
        let earlier: Option<BuildRow> = match earlier {
            Some(name) => Some(find_build(store, Some(name))?),
            None => store.build_before(&this)?,
        };
        let earlier = earlier.as_ref().map(BuildRecord::decode).transpose()?;
        Ok(Comparison { store, this: BuildRecord::decode(&this)?, earlier, files })
    }

    /// The steps of the build, with the reasons for which each was done again.
    #[must_use]
    pub fn explained(&self) -> Vec<StepExplanation> {
        let before = self.earlier.as_ref().map(|earlier| earlier.steps.as_slice());
        explain(&self.this.steps, before, |key| self.parts(key))
    }

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

    /// The files that differ between the two builds of a step, each with its change; `None` where that is not known any more.
    /// A copy has them in its layer; of mounts there are notes.
    #[must_use]
    pub fn files_of(
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

    /// The explanation as JSON.
    ///
    /// # Errors
    /// A step cannot be written as JSON.
    pub fn document(&self, explained: &[StepExplanation]) -> Outcome<Value> {
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
