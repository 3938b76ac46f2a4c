//! Checks: what is allowed and most likely not meant.
//!
//! The rules are BuildKit's, with its names and texts. Those that the text alone decides are checked here
//! ([`check_syntax`]); those about values are reported by whoever expands them.

mod options;
mod rule;
mod syntax;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapstrake_diag::Span;

use crate::syntax::Command;
use crate::text::Text;

pub use options::CheckOptions;
pub use rule::Rule;
pub use syntax::check_syntax;

/// Where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its bytes.
    pub span: Span,
    /// First and last line.
    pub lines: (u32, u32),
}

impl Place {
    /// A whole instruction.
    pub fn of(command: &Command) -> Place {
        Place { span: command.span, lines: command.lines }
    }
}

/// Something that a rule has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What it is, in a sentence.
    pub detail: Cow<'static, str>,
    /// Where: the whole instruction.
    pub place: Place,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub struct Checks {
    options: CheckOptions,
    findings: Mutex<Vec<Finding>>,
}

impl Checks {
    /// Nothing yet.
    pub fn new(options: CheckOptions) -> Checks {
        Checks { options, findings: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, Vec<Finding>> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a finding, unless the options, with those in the comments above the instruction, do not want it.
    pub fn report(&self, comments: &[Text], rule: Rule, place: Place, detail: impl Into<Cow<'static, str>>) {
        if self.options.with_comments(comments).wants(rule) {
            let detail = detail.into();
            self.found().push(Finding { rule, detail, place });
        }
    }

    /// Everything found, from top to bottom.
    pub fn findings(&self) -> Vec<Finding> {
        let mut all = self.found().clone();
        all.sort_by_key(|finding| finding.place.lines.0);
        all
    }

    /// The error that findings are under `error=true`.
    pub fn error(&self) -> Option<String> {
        let all = self.found();
        let names: BTreeSet<&str> = all.iter().map(|finding| finding.rule.name()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        (self.options.error && !names.is_empty())
            .then(|| format!("lint violation found for rules: {}", names.join(", ")))
    }
}
