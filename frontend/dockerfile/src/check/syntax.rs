//! The rules that the text alone decides.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::check::{Checks, Place, Rule};
use crate::parse::{Parsed, Phase, Refused};
use crate::syntax::{Command, Instruction, Keyword, Stage};
use crate::text::{Text, Word};
use lapstrake_go::{is_lower, is_upper, quoted, to_lower};

/// Names that mean something else already.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Checks what was parsed: up to the first error, which is where BuildKit stops too.
pub fn check_syntax(parsed: &Parsed, checks: &Checks) {
    let (phase, end) = match parsed.faults.first() {
        Some(fault) => (Some(fault.phase), fault.lines.0),
        None => (None, 0),
    };
    if phase == Some(Phase::Parse) {
        return;
    }
    // An error without a place is about the file as a whole, and comes last.
    let end = if end == 0 { u32::MAX } else { end };
    for found in &parsed.empty_continuations {
        let place = Place { lines: (found.line, found.line), span: found.span };
        checks.report(&[], Rule::NoEmptyContinuation, place, "Empty continuation line");
    }
    let file = &parsed.dockerfile;
    for command in file.global_args.iter().take_while(|command| command.lines.0 < end) {
        check_command(command, checks);
    }
    for stage in file.stages.iter().take_while(|stage| stage.lines.0 < end) {
        check_from(stage, checks);
        stage.instructions.iter().take_while(|c| c.lines.0 < end).for_each(|c| check_command(c, checks));
    }
    if let Some(refused) = &parsed.refused {
        check_refused(refused, checks);
    }
    if phase.is_none() {
        check_names(&file.stages, checks);
        check_casing(&file.stages, checks);
    }
}

/// BuildKit tells some things before it looks whether an instruction is right.
fn check_refused(refused: &Refused, checks: &Checks) {
    let place = Place { span: refused.span, lines: refused.lines };
    match (Keyword::parse(&refused.keyword.node), refused.args.as_slice()) {
        (Some(Keyword::Maintainer), _) => check_maintainer(&refused.comments, place, checks),
        (Some(Keyword::From), [_, word, names @ ..]) if !names.is_empty() => {
            let name = if let [name] = names { Some(name) } else { None };
            check_alias(&refused.keyword.node, (word, name), &refused.comments, place, checks);
        }
        _ => {}
    }
}

fn check_maintainer(comments: &[Text], place: Place, checks: &Checks) {
    let detail = "Maintainer instruction is deprecated in favor of using label";
    checks.report(comments, Rule::MaintainerDeprecated, place, detail);
}

fn check_command(command: &Command, checks: &Checks) {
    let place = Place::of(command);
    match &command.instruction {
        Instruction::Maintainer(_) => check_maintainer(command.around.comments(), place, checks),
        Instruction::Arg(args) if !command.around.comments().is_empty() => {
            let names: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
            check_description("ARG", &names, command.around.comments(), place, checks);
        }
        _ => {}
    }
}

fn check_from(stage: &Stage, checks: &Checks) {
    let place = Place { span: stage.span, lines: stage.lines };
    let Some((word, name)) = stage.from.alias.as_deref() else { return };
    check_alias(stage.keyword(), (word, Some(name)), stage.around.comments(), place, checks);
    if !stage.around.comments().is_empty() {
        check_description("FROM", &[&to_lower(&name.node)], stage.around.comments(), place, checks);
    }
}

/// AS and the name behind it.
fn check_alias(
    from: &str,
    (word, name): (&Word, Option<&Word>),
    comments: &[Text],
    place: Place,
    checks: &Checks,
) {
    if let Some(name) = name.filter(|name| !is_lower(&name.node)) {
        let detail = format!("Stage name '{}' should be lowercase", name.node);
        checks.report(comments, Rule::StageNameCasing, place, detail);
    }
    if !same_casing(from, word) {
        let detail = format!("'{}' and '{}' keywords' casing do not match", word.node, from);
        checks.report(comments, Rule::FromAsCasing, place, detail);
    }
}

/// Whether AS is written like FROM. A FROM in both cases is another rule's matter.
fn same_casing(from: &str, word: &Word) -> bool {
    if is_lower(from) { is_lower(&word.node) } else { !is_upper(from) || is_upper(&word.node) }
}

/// Only the last comment line counts.
fn check_description(keyword: &str, names: &[&str], comments: &[Text], place: Place, checks: &Checks) {
    let Some(last) = comments.last() else { return };
    let first_word = last.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first_word) {
        return;
    }
    let name = if let [name] = names { name } else { "<arg_key>" };
    let detail = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    checks.report(comments, Rule::InvalidDefinitionDescription, place, detail);
}

fn check_names(stages: &[Stage], checks: &Checks) {
    let mut seen = HashSet::new();
    for stage in stages {
        let Some((_, name)) = stage.from.alias.as_deref() else { continue };
        let name = match name.node.as_str() {
            name if is_lower(name) => Cow::Borrowed(name),
            name => Cow::Owned(to_lower(name)),
        };
        let place = Place { span: stage.span, lines: stage.lines };
        if RESERVED.contains(&&*name) {
            let detail =
                format!("Stage name should not use the same name as reserved stage {}", quoted(&name));
            checks.report(&[], Rule::ReservedStageName, place, detail);
        }
        if let Some(name) = seen.replace(name) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quoted(&name));
            checks.report(&[], Rule::DuplicateStageName, place, detail);
        }
    }
}

/// Keywords in both cases, and those in the case that fewer of them have.
fn check_casing(stages: &[Stage], checks: &Checks) {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let from = (stage.keyword(), Place { span: stage.span, lines: stage.lines });
            let rest = stage.instructions.iter().map(|command| (command.keyword(), Place::of(command)));
            std::iter::once(from).chain(rest)
        })
    };
    let (mut all, mut lowers, mut uppers) = (0, 0, 0);
    for (keyword, _) in keywords() {
        all += 1;
        lowers += usize::from(is_lower(keyword));
        uppers += usize::from(is_upper(keyword));
    }
    if uppers == all || lowers == all {
        return;
    }
    for (keyword, place) in keywords() {
        let (right, casing) =
            if lowers > uppers { (is_lower(keyword), "lowercase") } else { (is_upper(keyword), "uppercase") };
        if !right {
            let detail =
                format!("Command '{keyword}' should match the case of the command majority ({casing})");
            checks.report(&[], Rule::ConsistentInstructionCasing, place, detail);
        }
    }
}
