//! The rules about the values of instructions: what variables and paths turn out to be.

use std::collections::BTreeSet;

use lapstrake_diag::{Span, did_you_mean_exactly};
use lapstrake_dockerfile::{Command, Pair, Place, Port, Rule, quoted};
use lapstrake_tree::TreePath;

use crate::stage::{NOT_IN_ENV, StageRun};
use crate::stages::Step;

/// Words that names of secrets have in them, whole, between underscores.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that names have which are about secrets and are none.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

impl StageRun<'_, '_> {
    fn report(&self, rule: Rule, detail: String) {
        self.lowering.checks.report(&self.comments, rule, self.at, detail);
    }

    /// Names that a word uses and that nobody has set. Each word is reported once, however often it is expanded.
    pub(crate) fn check_variables(&self, unmatched: &BTreeSet<String>, word: Span) {
        if self.state.guessed {
            return;
        }
        for name in unmatched {
            let declared = self.state.args.iter().any(|(arg, _)| arg == name);
            let known = declared || NOT_IN_ENV.contains(&name.as_str());
            if known || !self.reported.borrow_mut().insert((word.start, name.clone())) {
                continue;
            }
            let hint = did_you_mean_exactly(name, self.state.env.keys())
                .map_or(String::new(), |found| format!(" (did you mean ${found}?)"));
            self.report(Rule::UndefinedVar, format!("Usage of undefined variable '${name}'{hint}"));
        }
    }

    pub(crate) fn check_legacy(&self, step: &Step<'_>, pair: &Pair) {
        if pair.legacy {
            let keyword = &step.command.keyword.node;
            let detail = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.report(Rule::LegacyKeyValueFormat, detail);
        }
    }

    pub(crate) fn check_secret(&self, keyword: &str, name: &str) {
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRET) && !has(&HARMLESS) {
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", quoted(name));
            self.report(Rule::SecretsUsedInArgOrEnv, detail);
        }
    }

    /// Told of the earlier one: it is the one without effect.
    pub(crate) fn check_once(&self, command: &Command, earlier: Option<Place>) {
        let Some(place) = earlier else { return };
        let keyword = &command.keyword.node;
        let detail = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        );
        self.lowering.checks.report(&self.comments, Rule::MultipleInstructionsDisallowed, place, detail);
    }

    pub(crate) fn check_shell_form(&self, command: &Command) {
        if self.state.config.config.shell.is_empty() {
            let keyword = &command.keyword.node;
            let detail = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.report(Rule::JsonArgsRecommended, detail);
        }
    }

    pub(crate) fn check_port(&self, text: &str, port: &Port) {
        if port.protocol != port.protocol.to_lowercase() {
            let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
            self.report(Rule::ExposeProtoCasing, detail);
        }
        if port.has_host_part {
            let detail = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
            );
            self.report(Rule::ExposeInvalidFormat, detail);
        }
    }

    pub(crate) fn check_workdir(&self, path: &str) {
        if !self.state.workdir_set && !path.starts_with('/') {
            let detail = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                quoted(path)
            );
            self.report(Rule::WorkdirRelativePath, detail);
        }
    }

    /// A source of the main context that an ignore file hides. Files with negations are not judged: a part of what is
    /// hidden may be there all the same.
    pub(crate) fn check_ignored(&self, verb: &str, source: &str) {
        let patterns = &self.lowering.inputs.ignore;
        if patterns.is_empty() || patterns.has_negation() {
            return;
        }
        let source = crate::paths::clean_source(source);
        let hidden = if matches!(source.as_str(), "." | "/") {
            patterns.cleaned().iter().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"))
        } else {
            !source.starts_with('/')
                && TreePath::clean(source.as_bytes()).is_ok_and(|path| patterns.excluded(&path).excluded)
        };
        if hidden {
            let detail =
                format!("Attempting to {verb} file {} that is excluded by .dockerignore", quoted(&source));
            self.report(Rule::CopyIgnoredFile, detail);
        }
    }
}
