//! `lapstrake builds`

use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_engine::StepOutcome;
use lapstrake_go::size::human as size;
use lapstrake_go::{TabWriter, duration};
use lapstrake_ops::StackReport;
use lapstrake_store::Store;

use super::file::put;
use crate::args::builds::Builds;
use crate::progress::replay;
use crate::rows::ago;
use crate::session;
use lapstrake_build::Journal;
use lapstrake_build::format::{cpu, millis, time};
use lapstrake_build::{BuildRecord, build_document, build_summary, find_build, timeline, used_by_step};

/// Shows or forgets builds.
pub(crate) fn builds(what: &Builds) -> Outcome<ExitCode> {
    let removes = matches!(what, Builds::Rm { .. });
    let session = if removes { session::open_to_remove() } else { session::open() }?;
    let store = &*session.store;
    match what {
        Builds::Ls { quiet, json } => list(store, *quiet, *json)?,
        Builds::Inspect { json, build } => inspect(store, build.as_deref(), *json)?,
        Builds::Logs { build } => {
            let row = find_build(store, build.as_deref())?;
            replay(Journal::decode(&store.build_log(&row.id)?)?);
        }
        Builds::Rm { all, builds } => remove(store, *all, builds)?,
        Builds::Timeline { build, output } => {
            let row = find_build(store, build.as_deref())?;
            let (record, journal) =
                (BuildRecord::decode(&row)?, Journal::decode(&store.build_log(&row.id)?)?);
            let page = timeline(&record, &journal);
            match output {
                Some(path) => put(path, page)?,
                None => say!("{page}"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, quiet: bool, json: bool) -> Outcome<()> {
    let headings = ["BUILD ID", "NAME", "STATUS", "CREATED", "DURATION", "CACHED"];
    let mut rows = vec![headings.map(str::to_owned)];
    for row in store.builds()? {
        let record = BuildRecord::decode(&row)?;
        let (cached, all) = record.cached();
        if quiet {
            say!("{}", record.id);
        } else if json {
            say!("{}", build_summary(&record));
        } else {
            let mut title = record.title();
            // All columns together are as wide as a terminal: 80.
            if title.chars().count() > 18 {
                title = title.chars().take(17).chain(['…']).collect();
            }
            let (age, took) = (ago(Some(&time(record.started))), duration::short(record.took));
            let (id, status) = (&record.id[..12.min(record.id.len())], record.status.name());
            rows.push([id.to_owned(), title, status.to_owned(), age, took, format!("{cached}/{all}")]);
        }
    }
    if !quiet && !json {
        say!("{}", TabWriter::columns(&[13, 19, 10, 23, 9], 1).rows(&rows).trim_end_matches('\n'));
    }
    Ok(())
}

fn inspect(store: &Store, name: Option<&str>, as_json: bool) -> Outcome<()> {
    let row = find_build(store, name)?;
    let record = BuildRecord::decode(&row)?;
    let used = used_by_step(&Journal::decode(&store.build_log(&row.id)?)?);
    if as_json {
        say!("{:#}", build_document(&record, &used)?);
        return Ok(());
    }
    let (cached, all) = record.cached();
    let mut rows = vec![
        ("ID", record.id.clone()),
        ("Name", record.title()),
        ("Context", record.subject.context.clone()),
        ("Dockerfile", record.subject.dockerfile.clone()),
    ];
    rows.extend(record.subject.target.clone().map(|target| ("Target", target)));
    rows.extend(record.subject.platform.clone().map(|platform| ("Platform", platform)));
    rows.push(("Status", record.status.name().to_owned()));
    rows.extend(record.error.clone().map(|error| ("Error", error)));
    rows.push(("Started", format!("{} ({})", time(record.started), ago(Some(&time(record.started))))));
    rows.push(("Duration", duration::short(record.took)));
    rows.extend(record.image.clone().map(|image| ("Image", image)));
    rows.push(("Steps", format!("{all}, {cached} of them cached")));
    for (label, value) in rows {
        say!("{:<12} {value}", format!("{label}:"));
    }
    say!("");
    for step in &record.steps {
        let used = used.get(&step.digest).map_or_else(String::new, |used| {
            format!(" (CPU {}, peak memory {})", millis(cpu(*used)), size(used.peak_memory))
        });
        say!("{:<9} {}{used}", outcome(step), step.name.replace('\n', " "));
    }
    Ok(())
}

/// The outcome of a step, in a word.
pub(super) fn outcome(step: &StackReport) -> &'static str {
    match step.outcome {
        StepOutcome::Cached => "CACHED",
        StepOutcome::Executed => "DONE",
        StepOutcome::Failed => "FAILED",
        StepOutcome::Skipped => "SKIPPED",
    }
}

fn remove(store: &Store, all: bool, names: &[String]) -> Outcome<()> {
    let mut rows = if all { store.builds()? } else { Vec::new() };
    for name in names {
        rows.push(find_build(store, Some(name))?);
    }
    for row in rows {
        store.remove_build(&row.id)?;
        say!("{}", row.id);
    }
    Ok(())
}
