//! `lapstrake graph`: what a Dockerfile builds, stage by stage, and what of it is cached.

use std::process::ExitCode;
use std::sync::Arc;

use lapstrake_build::{Build, Resolved, picture, planned_steps};
use lapstrake_diag::Outcome;
use lapstrake_engine::Progress;
use lapstrake_ops::Worker;

use super::file::put;
use crate::args::Graph;
use crate::client::{self, LocalClient};
use crate::session;

/// Runs the verb `graph`.
pub(crate) fn graph(args: &Graph) -> Outcome<ExitCode> {
    let (request, client) = (client::request(&args.build)?, LocalClient::of(&args.build)?);
    let resolved = Resolved::parse(&request, &client)?;
    resolved.warnings.iter().for_each(|warning| tell!("{warning}"));
    let machine = session::open()?;
    let worker = Arc::new(Worker::new(machine.store.clone(), machine.single_id));
    let building = Build { worker: &worker, client: &*client, progress: Progress::none() };
    let steps = super::block_on(planned_steps(&building, &request, resolved))?;
    let drawn = match (args.dot, args.svg) {
        (true, _) => picture::dot(&steps),
        (_, true) => picture::svg(&steps),
        _ => picture::text(&steps),
    };
    match &args.to {
        Some(path) => put(path, drawn)?,
        None => say!("{}", drawn.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
