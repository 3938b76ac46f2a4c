//! The rules about the values of instructions: what variables and paths turn out to be.

use std::collections::BTreeSet;

use lapstrake_diag::did_you_mean_exactly;
use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{
    Command, Instruction, Mount, MountFlag, Pair, Place, Rule, Transfer, Word, port_style,
};
use lapstrake_go::{path, quoted};

use crate::stage::{NOT_IN_ENV, StageRun};
use crate::stages::Step;

/// Words that names of secrets have in them, whole, between underscores.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that names have which are about secrets and are none.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// The words of an instruction that are expanded, in BuildKit's order; those of mounts and heredocs come behind them.
fn expanded_words(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.iter().flat_map(|pair| [pair.key.as_str(), pair.value.as_str()]).collect()
        }
        Instruction::Copy(copy) => transfer_words(&copy.transfer, None),
        Instruction::Add(add) => transfer_words(&add.transfer, add.checksum.as_ref()),
        Instruction::Volume(words) => words.iter().map(|word| word.node.as_str()).collect(),
        Instruction::Workdir(word) | Instruction::User(word) | Instruction::Stopsignal(word) => {
            vec![word.node.as_str()]
        }
        _ => Vec::new(),
    }
}

fn transfer_words<'t>(transfer: &'t Transfer, checksum: Option<&'t Word>) -> Vec<&'t str> {
    let flags = transfer.chown.iter().chain(&transfer.chmod).chain(checksum);
    flags.chain(&transfer.sources).chain([&transfer.dest]).map(|word| word.node.as_str()).collect()
}

impl StageRun<'_, '_> {
    fn report(&self, rule: Rule, detail: String) {
        self.lowering.checks.report(&self.comments, rule, self.at, detail);
    }

    /// Variables that an instruction uses and that nobody has set: word by word as BuildKit expands them, all of them
    /// before anything else is looked at, and none behind a word that cannot be expanded. EXPOSE is expanded in silence,
    /// and ARG knows itself which of its defaults count.
    pub(crate) fn check_words(&self, command: &Command) {
        let mode = Mode::plain(self.lowering.escape);
        let words = expanded_words(&command.instruction);
        if words.into_iter().any(|word| self.check_word(word, mode).is_err()) {
            return;
        }
        let body = Mode { skip_process_quotes: true, ..Mode::plain('\\') };
        match &command.instruction {
            // The last one: whether it stops the rest does not matter.
            Instruction::Run(run) => {
                let check = |flag: &MountFlag| {
                    Mount::parse(&self.mount_text(&flag.text.node), |word| self.check_word(word, mode))
                };
                let _stopped = run.flags().mounts.iter().any(|flag| check(flag).is_err());
            }
            Instruction::Copy(_) | Instruction::Add(_) => {
                let transfer = match &command.instruction {
                    Instruction::Copy(copy) => &copy.transfer,
                    Instruction::Add(add) => &add.transfer,
                    _ => return,
                };
                let mut bodies = transfer.inline.iter().filter(|file| file.expand);
                let _stopped = bodies.any(|file| self.check_word(&file.data, body).is_err());
            }
            _ => {}
        }
    }

    /// Expands a word and reports the names in it that nobody has set.
    pub(crate) fn check_word(&self, word: &str, mode: Mode) -> Result<String, String> {
        match words::expand(word, &|name| self.state.lookup(name), mode) {
            Ok(expanded) => {
                self.check_variables(&expanded.unmatched);
                Ok(expanded.text)
            }
            Err(error) => {
                self.check_variables(&error.unmatched);
                Err(error.to_string())
            }
        }
    }

    fn check_variables(&self, unmatched: &BTreeSet<String>) {
        if unmatched.is_empty() || self.state.guessed {
            return;
        }
        let declared: BTreeSet<&str> = self.state.args.iter().map(|(name, _)| name.as_str()).collect();
        for name in unmatched {
            if declared.contains(name.as_str()) || NOT_IN_ENV.contains(&name.as_str()) {
                continue;
            }
            let hint = did_you_mean_exactly(name, self.state.env.keys())
                .filter(|found| !found.is_empty())
                .map_or(String::new(), |found| format!(" (did you mean ${found}?)"));
            self.report(Rule::UndefinedVar, format!("Usage of undefined variable '${name}'{hint}"));
        }
    }

    pub(crate) fn check_legacy(&self, step: &Step<'_>, pair: &Pair) {
        if pair.legacy {
            let keyword = step.command.keyword();
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
        let keyword = command.keyword();
        let detail = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        );
        self.lowering.checks.report(&self.comments, Rule::MultipleInstructionsDisallowed, place, detail);
    }

    pub(crate) fn check_shell_form(&self, command: &Command) {
        if self.state.config.config.shell.is_empty() {
            let keyword = command.keyword();
            let detail = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.report(Rule::JsonArgsRecommended, detail);
        }
    }

    /// Told of an item even if its numbers turn out to be wrong.
    pub(crate) fn check_port(&self, text: &str) {
        let Some(style) = port_style(text) else { return };
        if style.shouted {
            let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
            self.report(Rule::ExposeProtoCasing, detail);
        }
        if style.has_host_part {
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
        let source = path::clean(source);
        let hidden = if matches!(source.as_str(), "." | "/") {
            patterns.cleaned().iter().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"))
        } else {
            patterns.matches_or_parent(&source)
        };
        if hidden {
            let detail =
                format!("Attempting to {verb} file {} that is excluded by .dockerignore", quoted(&source));
            self.report(Rule::CopyIgnoredFile, detail);
        }
    }
}
