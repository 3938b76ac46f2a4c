//! `lapstrake debug`: what the pure halves make of a text, for tests and tools. Nothing is built.

mod expand;
mod parse;

use std::process::ExitCode;

use crate::args::debug::Debug;

/// Answers one question.
pub(crate) fn debug(what: &Debug) -> anyhow::Result<ExitCode> {
    match what {
        Debug::Parse(args) => parse::parse(&args.file),
        Debug::Expand => expand::expand(),
    }
}
