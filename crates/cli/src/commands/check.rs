//! `lapstrake check`: what a Dockerfile says and most likely does not mean.

use std::process::ExitCode;
use std::sync::Arc;

use crate::client::{self, LocalClient};
use lapstrake_build::{
    BuildError, CheckDocument, Client, Machine, Resolved, Tools, read, sarif, wanted_rules, written,
};
use lapstrake_diag::{Outcome, SourceFile, excerpt};
use lapstrake_dockerfile::{Checks, Finding, Parsed};
use lapstrake_engine::Progress;
use lapstrake_ops::Worker;
use lapstrake_request::BuildRequest;

use crate::args::{Build, Format};

/// A Dockerfile that nothing is built of.
pub(super) struct Parsing {
    pub(super) tools: Tools,
    pub(super) request: Resolved,
    pub(super) file: Arc<SourceFile>,
    pub(super) parsed: Parsed,
    /// The request as it was made.
    asked: BuildRequest,
}

/// A build that is asked for and told of.
pub(super) struct Asked {
    pub(super) request: BuildRequest,
    pub(super) client: Arc<dyn Client>,
    pub(super) machine: Machine,
}

impl Asked {
    /// The build of the command line.
    pub(super) fn of(args: &Build) -> Outcome<Asked> {
        let (request, client) = (client::request(args)?, LocalClient::of(args)?);
        // A wrong value is told before the state is opened.
        Resolved::to_tell(&request, &client)?;
        Ok(Asked { request, client, machine: crate::session::open()? })
    }
}

/// Reads a Dockerfile that nothing is built of: no progress is shown.
pub(super) fn read_quietly(asked: Asked) -> Outcome<Parsing> {
    let Asked { request, client, machine } = asked;
    let mut resolved = Resolved::to_tell(&request, &client)?;
    resolved.warnings.iter().for_each(|warning| tell!("{warning}"));
    let worker = Arc::new(Worker::new(machine.store, machine.single_id));
    let tools = Tools::new(&worker, &*client, &mut resolved, request.pull);
    let progress = Progress::none();
    let reading = read((&request, &*client), &mut resolved, &tools, &progress);
    let (file, parsed) = super::block_on(reading)?;
    Ok(Parsing { tools, request: resolved, file, parsed, asked: request })
}

/// Checks, and prints what was found. The status is 1 if that is anything.
pub(super) fn check(asked: Asked, format: Format) -> Outcome<ExitCode> {
    let Parsing { tools, mut request, file, parsed, asked } = read_quietly(asked)?;
    let (checks, error) = match wanted_rules(&file, &request.inputs)? {
        Ok(options) => {
            let checks = Checks::new(options);
            let checking = lapstrake_build::check(&tools, &mut request, (&file, &parsed), &checks);
            let error = super::block_on(async { Ok(checking.await) })?;
            (checks, error)
        }
        Err(error) => (Checks::default(), Some(error)),
    };
    tools.notes.take().iter().for_each(|note| tell!("{note}"));
    let findings = checks.findings();
    match format {
        Format::Text => print(&findings, error.as_ref(), &file)?,
        Format::Json => {
            let error = error.as_ref().map(|error| (error.message.as_str(), error.lines));
            say!("{}", written(&CheckDocument::new(&findings, error, &file)));
        }
        Format::Sarif => say!("{:#}", sarif(&findings, error.as_ref(), &file, &asked)),
    }
    let clean = findings.is_empty() && error.is_none();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(findings: &[Finding], error: Option<&BuildError>, file: &SourceFile) -> Outcome<()> {
    match findings.len() {
        0 if error.is_some() => {}
        0 => say!("Check complete, no warnings found."),
        1 => say!("Check complete, 1 warning has been found!"),
        many => say!("Check complete, {many} warnings have been found!"),
    }
    for finding in findings {
        say!("");
        match finding.rule.url() {
            Some(url) => say!("WARNING: {} - {url}", finding.rule.name()),
            None => say!("WARNING: {}", finding.rule.name()),
        }
        say!("{}", finding.detail);
        let (first, last) = finding.place.lines;
        say!("{}", excerpt(file, first, last).trim_end());
    }
    if let Some(error) = error {
        tell!("\nERROR: {}", error.message);
        if let Some((first, last)) = error.lines {
            tell!("{}", excerpt(file, first, last).trim_end());
        }
    }
    Ok(())
}
