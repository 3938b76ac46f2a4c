//! The rules about FROM.

use std::collections::BTreeSet;

use lapstrake_diag::did_you_mean_exactly;
use lapstrake_dockerfile::words::{self, Expanded, Mode};
use lapstrake_dockerfile::{Checks, Dockerfile, Place, Rule, Stage, Word};
use lapstrake_go::quoted;
use lapstrake_oci::{Platform, Reference};

use crate::globals::Globals;
use crate::inputs::BuildInputs;

/// Bases that are no images unless arguments are given.
pub(crate) fn check_default_bases(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
    target: &Platform,
    checks: &Checks,
) {
    let Ok(args) = Globals::defaults(dockerfile, inputs, target) else { return };
    for stage in &dockerfile.stages {
        let base = &stage.from.base.node;
        let known = |name: &str| args.get(name).map(str::to_owned);
        let Ok(expanded) = words::expand(base, &known, Mode::plain(dockerfile.escape)) else { return };
        if expanded.text.parse::<Reference>().is_err() {
            let detail = format!("Default value for ARG {base} results in empty or invalid base image name");
            checks.report(&[], Rule::InvalidDefaultArgInFrom, place(stage), detail);
        }
    }
}

fn place(stage: &Stage) -> Place {
    Place { span: stage.span, lines: stage.lines }
}

/// Names in a FROM that no ARG declares.
pub(crate) fn check_from_args(
    stage: &Stage,
    unmatched: &BTreeSet<String>,
    globals: &Globals,
    dockerfile_args: &BTreeSet<&str>,
    checks: &Checks,
) {
    let known: BTreeSet<&str> = globals.args.keys().chain(dockerfile_args.iter().copied()).collect();
    for name in unmatched.iter().filter(|name| !known.contains(name.as_str())) {
        let hint = did_you_mean_exactly(name, known.iter().copied())
            .map_or(String::new(), |found| format!(" (did you mean {found}?)"));
        let detail = format!("FROM argument '{name}' is not declared{hint}");
        checks.report(stage.around.comments(), Rule::UndefinedArgInFrom, place(stage), detail);
    }
}

/// A `--platform` that says nothing new, or always the same.
pub(crate) fn check_from_platform(
    stage: &Stage,
    word: &Word,
    expanded: &Expanded,
    globals: &Globals,
    checks: &Checks,
) {
    const TARGET: &str = "TARGETPLATFORM";
    let only = expanded.unmatched.is_empty() && expanded.matched.len() == 1;
    if only && expanded.matched.contains(TARGET) && globals.args.get(TARGET) == Some(&expanded.text) {
        let detail = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            word.node
        );
        checks.report(stage.around.comments(), Rule::RedundantTargetPlatform, place(stage), detail);
    }
    if !expanded.matched.is_empty() || !expanded.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = expanded.text.parse::<Platform>() else { return };
    let name = stage.from.name().unwrap_or_default();
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let detail = format!("FROM --platform flag should not use constant value {}", quoted(&expanded.text));
        checks.report(stage.around.comments(), Rule::FromPlatformFlagConstDisallowed, place(stage), detail);
    }
}
