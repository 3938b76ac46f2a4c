//! `lapstrake build`

use std::process::ExitCode;
use std::sync::Arc;

use lapstrake_build::{
    Build as Building, BuildRecord, Client, Delivered, Failure, Journal, Machine, Resolved, Subject, Trace,
    check_engine, timeline,
};
use lapstrake_diag::{Context as _, Fault, Outcome};
use lapstrake_oci::Reference;
use lapstrake_ops::Worker;
use lapstrake_request::BuildRequest;
use lapstrake_snapshot::OTHER_STATE;
use lapstrake_store::{Stacking, Store};
use lapstrake_sys::outfile::{clear_output, remove_cleared};

use super::call::call;
use super::file::put;
use super::sweeper;
use crate::args::Build;
use crate::client::{self, LocalClient};
use crate::env;
use crate::progress::{self, Mode};
use crate::session;

/// Runs the verb `build`.
pub(crate) fn build(args: &Build) -> Outcome<ExitCode> {
    if let Some(told) = call(args)? {
        return Ok(told);
    }
    let (request, client) = (client::request(args)?, LocalClient::of(args)?);
    let resolved = Resolved::parse(&request, &client)?;
    resolved.warnings.iter().for_each(|warning| tell!("{warning}"));
    check_engine(&resolved, &*client)?;
    if let Some(path) = &args.iidfile {
        clear_output(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let done = build_resolved(args, (&request, &*client), resolved);
    if let Some(path) = &args.iidfile {
        remove_cleared(path);
    }
    done
}

fn build_resolved(
    args: &Build,
    (request, client): (&BuildRequest, &dyn Client),
    resolved: Resolved,
) -> Outcome<ExitCode> {
    let machine = session::open()?;
    let mode = mode(args);
    let quiet = matches!(mode, Mode::Quiet | Mode::Rawjson);
    let stacking = lapstrake_snapshot::stacking(&machine.store)?;
    if !quiet {
        tell_stacking(&machine.store, &stacking);
    }
    let mut record = BuildRecord::begin(Subject::of(request, &resolved)?);
    record.names = resolved.names.iter().map(Reference::familiar).collect();
    let secrets = resolved.secrets();
    let (progress, display) = progress::start(mode, progress::Work::Build);
    let mut trace = Trace { build: record.id.clone(), ..Trace::default() };
    let worker = Arc::new(Worker::new(machine.store.clone(), machine.single_id));
    let building = Building { worker: &worker, client, progress };
    let result = super::block_on(lapstrake_build::build(building, request, resolved, &mut trace));
    let (failures, mut journal) = display.finish();
    let Trace { checked, steps, network, notes, .. } = trace;
    record.steps = steps;
    record.end(result.as_ref().map(Some));
    record.hide(&secrets);
    journal.hide(&secrets);
    keep(args, record, &machine, &journal)?;
    if let Some((file, findings)) = &checked
        && let Some(summary) = lapstrake_build::summary(findings, file).filter(|_| !quiet)
    {
        tell!("{summary}\n");
    }
    if let Some(chosen) = &network {
        super::run::tell_network(chosen);
    }
    // The kernel may have refused an overlay where none had to be tried.
    if let Some(found) = machine.store.stacking().filter(|found| *found != stacking && !quiet) {
        tell_stacking(&machine.store, &found);
    }
    sweeper::start_if_needed(&machine.store);
    notes.iter().for_each(|note| tell!("{note}"));
    let delivered = result.inspect_err(|report| {
        if !matches!(report.fault(), Fault::Canceled(_)) {
            print_failures(&failures);
        }
    })?;
    leave(args, &delivered)
}

/// Tells of what was built, on standard output and in files.
fn leave(args: &Build, Delivered { id, metadata, .. }: &Delivered) -> Outcome<ExitCode> {
    if let Some(path) = &args.metadata_file {
        put(path, metadata.document())?;
    }
    if let Some(id) = id {
        if args.quiet {
            say!("{id}");
        }
        if let Some(path) = &args.iidfile {
            put(path, id.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How progress is shown.
fn mode(args: &Build) -> Mode {
    if args.debug.is_some() {
        // Nothing may be redrawn over the shell.
        Mode::Plain
    } else if args.quiet {
        Mode::Quiet
    } else {
        progress_mode(args.progress)
    }
}

/// The mode that a flag or the environment names.
pub(super) fn progress_mode(asked: Option<Mode>) -> Mode {
    let from_env = || env::progress().and_then(|text| <Mode as clap::ValueEnum>::from_str(&text, true).ok());
    asked.or_else(from_env).unwrap_or(Mode::Auto)
}

/// Says that builds are slower than they could be, and what helps.
pub(super) fn tell_stacking(store: &Store, stacking: &Stacking) {
    if let Stacking::Copy { why } = stacking {
        let place = store.root().display();
        tell!(
            "lapstrake: builds are slower here: layers are copied in the state directory `{place}`, as {why}"
        );
        tell!("hint: {OTHER_STATE}");
    }
}

/// Keeps the record. A build does not fail for want of it.
fn keep(args: &Build, record: BuildRecord, session: &Machine, journal: &Journal) -> Outcome<()> {
    if let Some(path) = &args.timeline {
        let page = timeline(&record, journal);
        put(path, page)?;
    }
    if let Err(error) = record.keep(&session.store, journal) {
        tell!("the record of this build could not be kept: {}", error);
    }
    Ok(())
}

pub(super) fn print_failures(failures: &[Failure]) {
    for failure in failures.iter().filter(|failure| !failure.lines.is_empty()) {
        tell!("------\n > {}:", failure.name);
        for (at, line) in &failure.lines {
            tell!("{:.3} {line}", at.as_secs_f64());
        }
        tell!("------");
    }
}
