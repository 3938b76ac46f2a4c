//! Why steps were done again: two builds compared, part by part of each step's key.
//!
//! Pure: what a changed content was is for whoever can look into results.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::key::Key;
use crate::report::{KeyPart, StepOutcome, StepReport};

/// A value in an op that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where in the op: `args`, `env PATH`, `image.manifest`.
    pub place: String,
    /// What it was; `None` if there was nothing.
    pub before: Option<String>,
    /// What it is; `None` if there is nothing.
    pub after: Option<String>,
}

/// Why a step was not cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no earlier build to compare with.
    First,
    /// The earlier build has no such step.
    New,
    /// It was to be done whatever records there are.
    Forced,
    /// The instruction, or what it depends on besides files, is not what it was.
    Op(Vec<Change>),
    /// A step below it has another key. The number is its place in the list.
    Input(usize),
    /// Files of a step or context have another content.
    Content {
        /// The step whose files they are, by its place in the list.
        input: usize,
        /// Which of them count, as the key says it.
        label: String,
        /// The digests of what counts, then and now, as keys have them.
        digests: (Option<String>, String),
    },
    /// The earlier build did not finish it, so there was nothing to take.
    Unfinished,
    /// Nothing changed: its record, or the layers that the record names, were gone.
    Lost,
    /// What the earlier build knew of it is gone, so nobody can tell.
    Unknown,
}

/// A step with why it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepExplanation {
    /// Its place in the list of this build.
    pub step: usize,
    /// The step of the earlier build that it was compared with.
    pub earlier: Option<usize>,
    /// Why; empty for what was cached, or never came to be done.
    pub reasons: Vec<Reason>,
}

/// Explains each step of `this` build by an `earlier` one. `parts_of` gives the parts of a record's key, where the
/// earlier build left them out.
pub fn explain<T>(
    this: &[StepReport<T>],
    earlier: Option<&[StepReport<T>]>,
    parts_of: impl Fn(&Key) -> Option<Vec<KeyPart>>,
) -> Vec<StepExplanation> {
    let pairs = earlier.map(|earlier| pair(this, earlier));
    let one = |step: usize| {
        let counterpart = pairs.as_ref().and_then(|pairs| pairs[step]);
        let done = matches!(this[step].outcome, StepOutcome::Executed | StepOutcome::Failed);
        let reasons = match (earlier, counterpart) {
            _ if !done => Vec::new(),
            _ if this[step].forced => vec![Reason::Forced],
            (None, _) => vec![Reason::First],
            (Some(_), None) => vec![Reason::New],
            (Some(earlier), Some(at)) => compare(&this[step], &earlier[at], &parts_of),
        };
        StepExplanation { step, earlier: counterpart, reasons }
    };
    (0..this.len()).map(one).collect()
}

fn compare<T>(
    this: &StepReport<T>,
    earlier: &StepReport<T>,
    parts_of: &impl Fn(&Key) -> Option<Vec<KeyPart>>,
) -> Vec<Reason> {
    let recorded = || earlier.key.as_ref().and_then(parts_of);
    let parts = if earlier.parts.is_empty() { recorded() } else { Some(earlier.parts.clone()) };
    let Some(parts) = parts else { return vec![Reason::Unknown] };
    let mut reasons = Vec::new();
    for (number, part) in this.parts.iter().enumerate() {
        let before = parts.get(number);
        if before == Some(part) {
            continue;
        }
        reasons.push(match number.checked_sub(1).and_then(|input| this.inputs.get(input)) {
            None => Reason::Op(changes(before.map_or("", |part| &part.value), &part.value)),
            Some(input) if part.label.starts_with("content of") => {
                let digests = (before.map(|part| part.value.clone()), part.value.clone());
                Reason::Content { input: *input, label: part.label.clone(), digests }
            }
            Some(input) => Reason::Input(*input),
        });
    }
    if !reasons.is_empty() {
        reasons
    } else if matches!(earlier.outcome, StepOutcome::Failed | StepOutcome::Skipped) {
        vec![Reason::Unfinished]
    } else {
        vec![Reason::Lost]
    }
}

/// Which step of `earlier` each step of `this` is compared with: in the same stage the next one with the same text,
/// else the next one of the same kind. Steps keep their order.
fn pair<T>(this: &[StepReport<T>], earlier: &[StepReport<T>]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; this.len()];
    let mut taken = vec![false; earlier.len()];
    type Same = fn((&str, &str), (&str, &str)) -> bool;
    let rules: [Same; 3] = [
        |(stage, text), (other, before)| stage == other && text == before,
        |(_, text), (_, before)| text == before,
        |(stage, text), (other, before)| stage == other && keyword(text) == keyword(before),
    ];
    for same in rules {
        for (step, report) in
            this.iter().enumerate().filter(|(step, _)| pairs[*step].is_none()).collect::<Vec<_>>()
        {
            let name = split(&report.name);
            // Between the partners of its neighbours, so that what was moved does not look like what was changed.
            let from = pairs[..step].iter().rev().flatten().next().map_or(0, |at| at + 1);
            let found = (from..earlier.len())
                .chain(0..from.min(earlier.len()))
                .find(|at| !taken[*at] && same(name, split(&earlier[*at].name)));
            if let Some(at) = found {
                taken[at] = true;
                pairs[step] = Some(at);
            }
        }
    }
    pairs
}

/// A step's stage, and its text: `[build 2/5] RUN make` is `build` and `RUN make`.
fn split(name: &str) -> (&str, &str) {
    let Some((place, text)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
        return ("", name);
    };
    // The number is the last word, and a stage without a name has nothing else.
    let stage = place.rsplit_once(' ').map_or("", |(stage, _)| stage.trim());
    (stage, text)
}

fn keyword(text: &str) -> &str {
    text.split(' ').next().unwrap_or("")
}

/// What differs between two ops, given as JSON.
fn changes(before: &str, after: &str) -> Vec<Change> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::String(text.to_owned()));
    let mut found = Vec::new();
    walk(String::new(), Some(&parse(before)), Some(&parse(after)), &mut found);
    found
}

fn walk(place: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                walk(below(name), old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if place.ends_with("env") => {
            let (old, new) = (variables(old), variables(new));
            let names: std::collections::BTreeSet<&&str> = old.keys().chain(new.keys()).collect();
            for name in names {
                let (before, after) = (old.get(*name), new.get(*name));
                if before != after {
                    let value = |value: Option<&&str>| value.map(|value| (*value).to_owned());
                    found.push(Change {
                        place: format!("{place} {name}"),
                        before: value(before),
                        after: value(after),
                    });
                }
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new)))
            if old.len() == new.len() && new.iter().any(Value::is_object) =>
        {
            for (number, (old, new)) in old.iter().zip(new).enumerate() {
                walk(below(&number.to_string()), Some(old), Some(new), found);
            }
        }
        _ => found.push(Change { place, before: before.map(shown), after: after.map(shown) }),
    }
}

fn variables(list: &[Value]) -> BTreeMap<&str, &str> {
    list.iter().filter_map(Value::as_str).map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // What a shell runs is its last argument; the rest is the same for all.
        Value::Array(words) if words.iter().all(Value::is_string) => {
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
