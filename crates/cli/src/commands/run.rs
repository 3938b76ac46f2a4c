//! `lapstrake run`

mod follow;
mod streams;
mod terminal;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Mutex;

use lapstrake_build::container::{self, Overrides, spec};
use lapstrake_build::{Machine, attrs};
use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_images::{NoImage, config, registry_name};
use lapstrake_ops::{Debug, Stack};
use lapstrake_runtime::{ChosenNetwork, Exit, Finished, Network, RunFds, RunSpec, RuntimeError, resolv_conf};
use lapstrake_snapshot::{Active, bind};
use lapstrake_store::ImageRow;

use self::follow::Signals;
use self::streams::Streams;
use crate::args::Run;
use crate::args::run::Pull;
use crate::commands::options;
use crate::env;
use crate::exit::OF_RUN;
use crate::progress;
use crate::session::{self, find_to_run};

/// Runs a command in an image.
pub(crate) fn run(args: &Run) -> Outcome<ExitCode> {
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        let text = "the input device is not a TTY".to_owned();
        return Err(Report::new(text).with_hint("leave -t away where standard input is a pipe or a file"));
    }
    let (limits, no_new_privs) =
        (attrs::limits(&args.hold.request())?, attrs::no_new_privs(&args.hold.request())?);
    let request = args.request(args.tty.then(terminal::size));
    let overrides = Overrides::read(&request)?;
    let session = session::open()?;
    lapstrake_snapshot::stacking(&session.store)?;
    let image = image(args, &session)?;
    claim(args, &session, &image)?;
    let config = config(&session.store, &image.id)?.config;
    let stack = Stack { layers: image.layers, ..Stack::default() };
    let active = Active::new(&session.store, &stack.lowers(&session.store, session.single_id)?)?;
    let (sandbox, chosen) = container::sandbox(&args.network, env::network().as_deref())?;
    let mut spec =
        spec(&request, &config, || options::variables("--env-file", &args.env_file, &args.env), &active)?;
    spec.network = chosen.network;
    spec.resolv_conf = resolv_conf(spec.network);
    overrides.apply(&mut spec)?;
    spec.single_id = session.single_id;
    (spec.limits, spec.no_new_privs) = (limits, no_new_privs);
    let mut mounts = Vec::new();
    for asked in container::mounts(&request)? {
        spec.mounts.push(asked.mount(mounts.len()));
        mounts.extend(asked.source.map(|source| bind(&source)).transpose()?);
    }
    let streams = if args.tty { Streams::unused()? } else { Streams::ours(args.interactive)? };
    let Streams { stdin, stdout, stderr, copies } = streams;
    let root = active.root().try_clone_to_owned()?;
    let fds = RunFds { root, mounts, stdin, stdout, stderr };
    tell_network(&chosen);
    let signals = Signals::catch()?;
    let running = match sandbox.run(&spec, fds) {
        Ok(running) => running,
        Err(error @ (RuntimeError::Limit { .. } | RuntimeError::Network(_))) => return Err(error.into()),
        Err(error) => {
            tell!("ERROR: {}", lapstrake_diag::text(&error));
            let code = error.exit_code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(OF_RUN)));
        }
    };
    let finished = follow::follow(signals, running, args.interactive)?;
    copies.finish();
    tell_limits(&finished, spec.shm_size);
    if spec.network == Network::Isolated && finished.exit != Exit::Code(0) {
        tell_unreached(&spec);
    }
    drop((sandbox, active));
    let code = match finished.exit {
        Exit::Code(code) => code & 0xff,
        Exit::Signal(signal) => 128 + signal,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Says what this process runs, and as what: the image stays, and nobody else has the name.
fn claim(args: &Run, session: &Machine, image: &ImageRow) -> Outcome<()> {
    if let Some(name) = &args.name
        && let Some(holder) = session.store.take_name(name)?
    {
        return Err(Report::new(format!(
            "the container name \"{name}\" is already in use by process {holder}"
        )));
    }
    let words = args.name.iter().map(String::as_str).chain([args.image()]);
    let words: Vec<&str> = words.chain(args.command().iter().map(String::as_str)).collect();
    if !session.store.pin_image(&image.id, &progress::printable(&words.join(" ")))? {
        return Err(Report::new(format!("no such image: {}", args.image())));
    }
    Ok(())
}

/// The image: the one that is here, or one that is pulled now.
fn image(args: &Run, session: &Machine) -> Outcome<ImageRow> {
    let here = || find_to_run(&session.store, args.image(), args.platform.as_deref());
    let missing = match (args.pull, here()) {
        (Pull::Always, _) => None,
        (Pull::Missing, Err(error)) if error.code() == NoImage::CODE => Some(error),
        (Pull::Missing | Pull::Never, found) => return found,
    };
    let id = args.image();
    let Some(reference) = registry_name(id) else {
        return Err(missing.unwrap_or_else(|| Report::new(format!("`{id}` is not a name of an image"))));
    };
    if missing.is_some() && !args.quiet {
        tell!("Unable to find image '{}' locally", reference.familiar());
    }
    super::push::pull_to_run(session, &reference, args.platform.as_deref(), args.quiet)?;
    here()
}

/// Says which network containers have, where that is not what was wanted.
pub(super) fn tell_network(chosen: &ChosenNetwork) {
    if let Some(notice) = &chosen.notice {
        tell!("lapstrake: {notice}");
    }
    if let Some(hint) = &chosen.hint {
        tell!("hint: {hint}");
    }
}

/// Says why a program that failed may not have reached what it is to use.
fn tell_unreached(spec: &RunSpec) {
    let texts = spec.env.iter().chain(&spec.args).map(String::as_str);
    if let Some(service) = lapstrake_ops::unreached_service(texts) {
        tell!(
            "hint: the container has a network of its own, where `{service}` is not the machine's: `--network host` gives it the machine's"
        );
    }
}

/// Says which limits a program ran into, which most likely did not know itself.
fn tell_limits(finished: &Finished, shm_size: u64) {
    let held = finished.limit_events.unwrap_or_default();
    if held.out_of_memory > 0 {
        tell!("lapstrake: out of memory: the limit of --memory was reached");
    }
    if held.refused_pids > 0 {
        tell!("lapstrake: processes were refused: the limit of --pids-limit was reached");
    }
    if finished.shm_full && finished.exit != Exit::Code(0) {
        tell!("lapstrake: no space left on /dev/shm: the limit of {shm_size} bytes was reached");
    }
}

/// Refuses a shell where there is no terminal for it.
pub(crate) fn can_debug() -> Result<(), Usage> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Usage("--debug needs a terminal as standard input".to_owned()))
}

/// The debugger of steps: a shell on this terminal.
pub(crate) fn debug(before: &str) -> Debug {
    let hand_over = |told: &str, running| {
        // What other steps say meanwhile is shown afterwards.
        let held = progress::hold();
        tell!("\n{told}");
        let signals = Signals::catch()?;
        let ended = follow::follow(signals, running, true)
            .map(drop)
            .map_err(|report| std::io::Error::other(report.to_string()));
        drop(held);
        ended
    };
    let (before, size) = (before.to_owned(), terminal::size());
    Debug { before, size, hand_over: Box::new(hand_over), turn: Mutex::default() }
}
