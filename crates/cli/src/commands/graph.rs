//! `lapstrake graph`: what a Dockerfile builds, stage by stage, and what of it is cached.

mod draw;

use std::process::ExitCode;
use std::sync::Arc;

use crate::client::{self, LocalClient};
use lapstrake_build::Machine;
use lapstrake_build::{Build, Client, Loaded, Notes, Resolved};
use lapstrake_diag::{Context as _, Outcome};
use lapstrake_engine::{Forecast, Progress, probe};
use lapstrake_ops::{Cache, Worker};
use lapstrake_request::BuildRequest;

use self::draw::{Node, dot, svg, text};
use super::file::put;
use crate::args::Graph;
use crate::session;

/// Runs the verb `graph`.
pub(crate) fn graph(args: &Graph) -> Outcome<ExitCode> {
    let (request, client) = (client::request(&args.build)?, LocalClient::of(&args.build)?);
    let resolved = Resolved::parse(&request, &client)?;
    resolved.warnings.iter().for_each(|warning| tell!("{warning}"));
    let machine = session::open()?;
    let nodes = super::block_on(nodes((&request, &*client), resolved, &machine))?;
    let drawn = match (args.dot, args.svg) {
        (true, _) => dot(&nodes),
        (_, true) => svg(&nodes),
        _ => text(&nodes),
    };
    match &args.to {
        Some(path) => put(path, drawn)?,
        None => say!("{}", drawn.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn nodes(
    (request, client): (&BuildRequest, &dyn Client),
    resolved: Resolved,
    machine: &Machine,
) -> Outcome<Vec<Node>> {
    let worker = Arc::new(Worker::new(machine.store.clone(), machine.single_id));
    let building = Build { worker: &worker, client, progress: Progress::none() };
    let loaded = Loaded::load(&building, request, resolved, Notes::default()).await?;
    let (tools, plan) = loaded.plan(&building, &mut None).await?.into_parts();
    let target = plan.targets.first().context("nothing to build")?;
    let cache = Cache::new(tools.worker.clone());
    let found = probe(&plan.graph, &tools.job, &cache, target.edge).await;
    // What was learnt about the context's files is of use to the next build.
    tools.job.finish()?;
    let place = |id| found.iter().position(|(other, _)| *other == id);
    let node = |(id, forecast): &(_, Forecast)| {
        let vertex = &plan.graph[*id];
        let inputs = vertex.inputs.iter().chain(&vertex.after);
        Node::new(&vertex.meta.name, *forecast, inputs.filter_map(|edge| place(edge.vertex)).collect())
    };
    let mut nodes = found.iter().map(node).collect::<Vec<_>>();
    Node::settle(&mut nodes);
    Ok(nodes)
}
