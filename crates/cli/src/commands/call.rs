//! `build --call`: telling something of a Dockerfile instead of building it.

use std::process::ExitCode;

use super::check::{self, Asked, Parsing, read_quietly};
use lapstrake_build::{
    OutlineDocument, SUBREQUESTS, TargetsDocument, from_argument, options, outline, subrequests,
    targets_rows, usable, written,
};
use lapstrake_diag::{Outcome, Usage};
use lapstrake_dockerfile::{Checks, Phase, check_syntax};
use lapstrake_go::TabWriter;
use lapstrake_lower::{Outline, OutlineItem};

use crate::args::{Build, Format};

/// A method of `--call`.
#[derive(Clone, Copy)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
}

/// What is told in place of a build.
#[derive(Clone, Copy)]
pub(super) struct Call {
    method: Method,
    format: Format,
}

impl Call {
    /// Reads the value of `--call`; `None` if something is to be built.
    pub(super) fn read(text: &str) -> Result<Option<Call>, Usage> {
        let bad = |why: &str| Usage(format!("--call {text}: {why}"));
        let (method, options) = text.split_once(',').unwrap_or((text, ""));
        let format = match options {
            "" | "format=text" => Format::Text,
            "format=json" => Format::Json,
            _ => return Err(bad("only `format=text` and `format=json` can follow")),
        };
        let method = match method {
            "build" if options.is_empty() => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            "subrequests.describe" => Method::Describe,
            _ => return Err(bad("not one of build, check, outline, targets, subrequests.describe")),
        };
        Ok(Some(Call { method, format }))
    }

    /// Tells of the build that is asked for.
    pub(super) fn tell(self, asked: Asked) -> Outcome<ExitCode> {
        match self.method {
            Method::Check => check::check(asked, self.format),
            Method::Outline => tell_outline(asked, self.format),
            Method::Targets => tell_targets(asked, self.format),
            Method::Describe => describe(self.format),
        }
    }
}

/// Tells what `--call` or `--check` ask for; `None` if something is to be built.
pub(super) fn call(args: &Build) -> Outcome<Option<ExitCode>> {
    let text = if args.check { "check" } else { args.call.as_deref().unwrap_or("build") };
    match Call::read(text)? {
        None => Ok(None),
        Some(call) if matches!(call.method, Method::Describe) => describe(call.format).map(Some),
        Some(call) => call.tell(Asked::of(args)?).map(Some),
    }
}

fn tell_targets(asked: Asked, format: Format) -> Outcome<ExitCode> {
    let Parsing { request, file, parsed, .. } = read_quietly(asked)?;
    from_argument(&request.inputs)?;
    // Of a file without stages there is nothing to tell, which is no error here.
    if !(parsed.dockerfile.stages.is_empty() && parsed.faults.iter().all(|fault| fault.phase == Phase::Stage))
    {
        usable(&parsed, &file)?;
    }
    match format {
        Format::Json => say!("{}", written(&TargetsDocument::new(&parsed, &file))),
        Format::Text | Format::Sarif => {
            say!("{}", TabWriter::new(0, 1).rows(&targets_rows(&parsed)).trim_end_matches('\n'));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_outline(asked: Asked, format: Format) -> Outcome<ExitCode> {
    let Parsing { tools, mut request, file, parsed, .. } = read_quietly(asked)?;
    let checks = Checks::new(options(&file, &request.inputs)?);
    check_syntax(&parsed, &checks);
    usable(&parsed, &file)?;
    let making = outline(&tools, &mut request, (&file, &parsed), &checks);
    let outline = super::block_on(making);
    tools.notes.take().iter().for_each(|note| tell!("{note}"));
    let outline = outline?;
    match format {
        Format::Json => say!("{}", written(&OutlineDocument::new(&outline, &file))),
        Format::Text | Format::Sarif => outline_text(&outline)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn outline_text(outline: &Outline) -> Outcome<()> {
    if outline.name.is_some() || !outline.description.is_empty() {
        let name = outline.name.clone().unwrap_or_else(|| "(default)".to_owned());
        let mut rows = vec![["TARGET:".to_owned(), name]];
        if !outline.description.is_empty() {
            rows.push(["DESCRIPTION:".to_owned(), outline.description.clone()]);
        }
        say!("{}", TabWriter::new(0, 1).rows(&rows));
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        rows.extend(
            outline.args.iter().map(|arg| [&arg.name, &arg.value, &arg.description].map(Clone::clone)),
        );
        say!("{}", TabWriter::new(0, 3).rows(&rows));
    }
    for (title, items) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if items.is_empty() {
            continue;
        }
        let mut rows = vec![[title, "REQUIRED"].map(str::to_owned)];
        let required = |item: &OutlineItem| if item.required { "true".to_owned() } else { String::new() };
        rows.extend(items.iter().map(|item| [item.name.clone(), required(item)]));
        say!("{}", TabWriter::new(0, 3).rows(&rows));
    }
    Ok(())
}

fn describe(format: Format) -> Outcome<ExitCode> {
    if format == Format::Json {
        say!("{:#}", subrequests());
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(SUBREQUESTS.map(|(name, description)| [name, "1.0.0", description].map(str::to_owned)));
    say!("{}", TabWriter::new(0, 1).rows(&rows).trim_end_matches('\n'));
    Ok(ExitCode::SUCCESS)
}
