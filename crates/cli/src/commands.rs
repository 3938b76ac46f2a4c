//! The verbs, one file each.

mod about;
mod bake;
mod build;
mod builds;
mod call;
mod check;
mod debug;
mod df;
mod dial;
mod doctor;
mod explain;
pub(crate) mod file;
mod graph;
mod history;
mod images;
mod import;
mod inspect;
mod load;
mod login;
pub(crate) mod options;
mod prune;
mod push;
pub(crate) mod run;
mod save;
mod search;
mod serve;
mod signals;
mod sweeper;

use std::process::ExitCode;

use crate::args::Command;
use lapstrake_diag::{Outcome, Report};

/// Does what was asked.
pub(crate) fn run(command: Command) -> Outcome<ExitCode> {
    signals::or_canceled(dispatch(command))
}

fn dispatch(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Build(args) => build::build(&args),
        Command::Bake(args) => bake::bake(&args),
        Command::Check(args) => check::check(check::Asked::of(&args.build)?, args.format),
        Command::Run(args) => run::run(&args),
        Command::Images(args) => images::images(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::History(args) => history::history(&args),
        Command::Rmi(args) => images::rmi(&args),
        Command::Tag(args) => push::tag(&args),
        Command::Push(args) => push::push(&args),
        Command::Pull(args) => push::pull(&args),
        Command::Search(args) => search::search(&args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Save(args) => save::save(&args),
        Command::Import(args) => import::import(&args),
        Command::Load(args) => load::load(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::DialStdio(args) => dial::dial(&args),
        Command::Graph(args) => graph::graph(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Builds(what) => builds::builds(&what),
        Command::Df(args) => df::df(&args),
        Command::Prune(args) => prune::prune(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Version(args) => about::version(&args),
        Command::Info(args) => about::info(&args),
        Command::Completion(args) => about::completion(&args),
        Command::Builders(args) => about::builders(&args),
        Command::Debug(what) => debug::debug(&what),
    }
}

/// Runs `work` on a runtime of its own, or until Ctrl-C or SIGTERM, which end everything: the sandbox dies with this
/// process, and what was unfinished is swept away.
fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    // A build is tens of kilobytes, which would be moved from frame to frame.
    let work = Box::pin(work);
    // Work that takes long has threads of its own; this one waits for the network.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // A task of its own: the work may block on an output.
    let signals = runtime.spawn(signals::received());
    let result = runtime.block_on(async {
        tokio::select! {
            result = work => result,
            received = signals => {
                received.map_err(std::io::Error::other)??;
                Err(Report::new("canceled"))
            }
        }
    });
    let result = signals::or_canceled(result);
    // Steps that nobody wants any more are killed when their futures go; they get a moment to put things away.
    runtime.shutdown_timeout(std::time::Duration::from_secs(3));
    result
}
