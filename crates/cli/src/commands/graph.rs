//! `lapstrake graph`: what a Dockerfile builds, stage by stage, and what of it is cached.

mod draw;

use std::process::ExitCode;

use lapstrake_diag::{Context as _, Outcome};
use lapstrake_dockerfile::{Checks, check_syntax};
use lapstrake_engine::{Forecast, Progress, probe};
use lapstrake_ops::Cache;

use self::draw::{Node, dot, svg, text};
use super::check;
use super::file::put;
use super::plan::plan;
use super::read::{Tools, read};
use super::wanted::Wanted;
use crate::args::Graph;
use crate::session::{self, Session};

/// Draws.
pub(crate) fn graph(args: &Graph) -> Outcome<ExitCode> {
    let wanted = Wanted::parse(&args.build)?;
    let session = session::open()?;
    let nodes = super::block_on(nodes(args, wanted, &session))?;
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

async fn nodes(args: &Graph, mut wanted: Wanted, session: &Session) -> Outcome<Vec<Node>> {
    let tools = Tools::new(session, &mut wanted, args.build.pull);
    let (file, parsed) = read(&args.build, &mut wanted, &tools, &Progress::none()).await?;
    let checks = Checks::new(check::options(&file, &wanted.inputs)?);
    check_syntax(&parsed, &checks);
    let plan = plan(&mut wanted, (&file, &parsed, &checks), &tools, (&Progress::none(), None)).await;
    let plan = plan?;
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
