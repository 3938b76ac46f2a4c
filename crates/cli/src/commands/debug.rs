//! `lapstrake debug`: what the pure halves make of a text, for tests and tools. Nothing is built.

mod ignore;
mod parse;
mod plan;

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use lapstrake_diag::{Context as _, Outcome, SourceFile};
use lapstrake_dockerfile::Dialect;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::debug::Debug;
use lapstrake_build::{expansion, included, root_of};

/// Answers one question.
pub(crate) fn debug(what: &Debug) -> Outcome<ExitCode> {
    match what {
        Debug::Parse(args) => parse::parse(&args.file),
        Debug::Expand => answer_all(expansion),
        Debug::Ignore(args) => ignore::ignore(args),
        Debug::Plan(args) => plan::plan(args),
    }
}

/// Answers every line of standard input, a JSON object, with a line of JSON.
fn answer_all<Q: DeserializeOwned, A: Serialize>(answer: impl Fn(Q) -> A) -> Outcome<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        serde_json::to_writer(&mut out, &answer(serde_json::from_str(&line)?))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// `file`, read from `path`, with all files that it includes.
fn with_includes(file: SourceFile, dialect: Dialect, path: &Path) -> Outcome<SourceFile> {
    if path == Path::new("-") {
        return Ok(file);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (root, below) = root_of(dir, dir)?;
    included(file, dialect, &root, &below)
}

/// The text of `file`; `-` is standard input.
fn read(file: &Path) -> Outcome<SourceFile> {
    let name = file.display().to_string();
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)?;
        bytes
    } else {
        std::fs::read(file).with_context(|| format!("cannot read `{name}`"))?
    };
    Ok(SourceFile::from_bytes(name, &bytes))
}
