//! `lapstrake run`

mod follow;
mod streams;
mod terminal;

use std::io::IsTerminal as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use lapstrake_oci::ContainerConfig;
use lapstrake_ops::{Debug, Stack, StackLayer};
use lapstrake_runtime::{
    Exit, Finished, Firewall, Mount, MountSource, Network, RunFds, RunSpec, RuntimeError, Sandbox, User,
    firewall, resolv_conf,
};
use lapstrake_snapshot::{Active, bind};
use lapstrake_tree::inroot::Root;
use lapstrake_tree::users::resolve_user;

use self::follow::Signals;
use self::streams::Streams;
use super::options;
use crate::args::Run;
use crate::exit::{Told, Usage};
use crate::progress;
use crate::session::{self, config, find_to_run};

/// What a shell says of a command that could not be started at all.
const CANNOT_START: u8 = 125;

/// Runs a command in an image.
pub(crate) fn run(args: &Run) -> anyhow::Result<ExitCode> {
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        let text = "the input device is not a TTY".to_owned();
        let hint = Some("leave -t away where standard input is a pipe or a file".to_owned());
        return Err(Told { text, hint, status: 1 }.into());
    }
    let (limits, no_new_privs) = (options::limits(&args.hold)?, options::no_new_privs(&args.hold)?);
    let session = session::open()?;
    let image = find_to_run(&session.store, &args.image, args.platform.as_deref())?;
    let told = progress::printable(&[vec![args.image.clone()], args.args.clone()].concat().join(" "));
    if !session.store.use_image(&image.id, &told)? {
        anyhow::bail!("no such image: {}", args.image);
    }
    let config = config(&session.store, &image.id)?.config;
    let layers: Vec<StackLayer> = serde_json::from_str(&image.layers)?;
    let stack = Stack { layers, ..Stack::default() };
    let active = Active::new(&session.store, stack.lowers(&session.store, session.single_id)?)?;
    let mut spec = spec(args, &config, &active)?;
    spec.one_id = session.single_id;
    (spec.limits, spec.no_new_privs) = (limits, no_new_privs);
    let mut mounts = Vec::new();
    for text in &args.volume {
        let (mount, fd) = volume(text, mounts.len())?;
        spec.mounts.push(mount);
        mounts.push(fd);
    }
    let streams = if args.tty { Streams::unused()? } else { Streams::ours(args.interactive)? };
    let Streams { stdin, stdout, stderr, copies } = streams;
    let root = active.root().try_clone_to_owned()?;
    let fds = RunFds { root, mounts, stdin, stdout, stderr };
    let sandbox = Sandbox::start()?;
    let signals = Signals::catch()?;
    let running = match sandbox.run(&spec, fds) {
        Ok(running) => running,
        Err(error @ (RuntimeError::Limit { .. } | RuntimeError::Network(_))) => return Err(error.into()),
        Err(error) => {
            tell!("ERROR: {}", crate::exit::text(crate::exit::chain(&error)));
            let code = error.exit_code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(CANNOT_START)));
        }
    };
    tell_firewall(spec.network == Network::Isolated);
    let finished = follow::follow(signals, running, args.interactive)?;
    copies.finish();
    tell_limits(&finished, spec.shm_size);
    drop((sandbox, active));
    let code = match finished.exit {
        Exit::Code(code) => code & 0xff,
        Exit::Signal(signal) => 128 + signal,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Says what keeps containers from a network of their own, where something does: they only see that nobody answers.
pub(super) fn tell_firewall(isolated: bool) {
    if !isolated {
        return;
    }
    if let Firewall::Drops(chains) = firewall() {
        tell!(
            "lapstrake: what the machine forwards is dropped by {}, so a container's own network may not get out",
            chains.join(", ")
        );
        tell!("hint: {}", Firewall::advice(&chains));
    }
}

/// Says which limits a program ran into, which most likely did not know itself.
fn tell_limits(finished: &Finished, shm_size: u64) {
    let held = finished.held.unwrap_or_default();
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

/// What steps are debugged by: a shell on our terminal.
pub(super) fn debug(before: &str) -> Result<Debug, Usage> {
    if !std::io::stdin().is_terminal() {
        return Err(Usage("--debug needs a terminal as standard input".to_owned()));
    }
    let hand_over = |told: &str, running| {
        tell!("\n{told}");
        let signals = Signals::catch()?;
        follow::follow(signals, running, true).map(drop).map_err(std::io::Error::other)
    };
    let (before, size) = (before.to_owned(), terminal::size());
    Ok(Debug { before, size, hand_over: Box::new(hand_over), turn: Mutex::default() })
}

fn spec(args: &Run, config: &ContainerConfig, active: &Active) -> anyhow::Result<RunSpec> {
    let mut command: Vec<String> = match &args.entrypoint {
        Some(entrypoint) => vec![entrypoint.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    if args.args.is_empty() && args.entrypoint.is_none() {
        command.extend(config.cmd.clone().unwrap_or_default());
    } else {
        command.extend(args.args.iter().cloned());
    }
    if command.is_empty() {
        return Err(Usage(format!("image `{}` has no command: name one", args.image)).into());
    }
    let root = active.root();
    let ids = resolve_user(&Root::new(&root), args.user.as_ref().unwrap_or(&config.user))?;
    let mut spec = RunSpec::new(command);
    if !config.env.is_empty() {
        spec.env.clone_from(&config.env);
    }
    for (key, value) in options::pairs(&args.env) {
        spec.env.retain(|pair| pair.split('=').next() != Some(&key));
        spec.env.push(format!("{key}={value}"));
    }
    if !spec.env.iter().any(|pair| pair.starts_with("HOME=")) {
        spec.env.push(format!("HOME={}", ids.home));
    }
    if args.tty && !spec.env.iter().any(|pair| pair.starts_with("TERM=")) {
        spec.env.push("TERM=xterm".to_owned());
    }
    let cwd = args.workdir.as_ref().unwrap_or(&config.working_dir);
    spec.cwd = if cwd.is_empty() { "/".to_owned() } else { cwd.clone() };
    spec.user = User { uid: ids.uid, gid: ids.gid, groups: ids.groups };
    spec.terminal = args.tty.then(terminal::size);
    spec.hostname = "lapstrake".to_owned();
    spec.network = options::run_network(&args.network)?;
    spec.resolv_conf = resolv_conf(spec.network);
    Ok(spec)
}

fn volume(text: &str, index: usize) -> anyhow::Result<(Mount, OwnedFd)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, readonly) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (*source, *target, false),
        [source, target, "ro"] => (*source, *target, true),
        _ => return Err(Usage(format!("-v {text}: not SRC:DST[:ro]")).into()),
    };
    if !target.starts_with('/') {
        return Err(Usage(format!("-v {text}: `{target}` is not an absolute path")).into());
    }
    let path = options::absolute(Path::new(source))?;
    let source = MountSource::Fd { index, subpath: String::new() };
    Ok((Mount { target: target.to_owned(), source, readonly }, bind(&path)?))
}
