//! Running a process on a stack.

pub(crate) mod agent;
mod binfmt;
mod cache_dirs;
pub(crate) mod cdi;
pub(crate) mod container;
pub(crate) mod debug;
mod left_over;
pub(crate) mod loopback;
pub(crate) mod mount_manifest;
pub(crate) mod mounts;
mod output;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use lapstrake_engine::{CacheMap, Dep, ResourceUsage, Selector, Step, Stream};
use lapstrake_graph::{Bind, CacheMount, Exec, MountKind, NetworkMode, SecurityMode, Sharing, VertexMeta};
use lapstrake_runtime::{
    Exit, Finished, LimitEvents, Limits, Mount, MountSource, Network, ProcessUsage, Resource, Rlimit, RunFds,
    RunSpec, Running, Security, User,
};
use lapstrake_snapshot::{Active, bind};
use lapstrake_tree::inroot::Root;
use lapstrake_tree::users::resolve_user;
use rustix::fs::FileType;

use crate::error::OpsError;
use crate::exec::agent::AgentSocket;
use crate::exec::binfmt::exec_error;
use crate::exec::cdi::Devices;
use crate::exec::debug::{Occasion, is_canceled};
use crate::exec::left_over::{by_inode, left_over};
use crate::exec::mounts::{KeptMount, MountResource, Mounts};
use crate::failed::FailedStep;
use crate::file::context_reads::ContextReads;
use crate::file::copy;
use crate::job::context::BuildContext;
use crate::stack::{SharedStack, Stack};

/// The longest pause between two tries of a command.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Dropping the first half tells the second that the step is not wanted any more.
pub(crate) fn kill_switch() -> (Sender<()>, Receiver<()>) {
    channel()
}

/// How `exec` is cached with this number of inputs: bind mounts count by the content that they show, other inputs by key.
pub(crate) fn cache_map(exec: &Exec, inputs: usize) -> CacheMap {
    CacheMap { op: lapstrake_go::to_json(&exec.for_key()), deps: deps(exec, inputs) }
}

/// How the inputs of `exec` count.
pub(crate) fn deps(exec: &Exec, inputs: usize) -> Vec<Dep> {
    let mut deps = vec![Dep::ByKey; inputs];
    for mount in &exec.mounts {
        if let MountKind::Bind(bind) = &mount.kind
            && let Some(dep) = deps.get_mut(bind.input).filter(|_| bind.input > 0)
        {
            let whole = matches!(bind.source.as_str(), "" | "/" | ".");
            let paths = if whole { Vec::new() } else { vec![bind.source.clone()] };
            // Two mounts of one input: all of it counts.
            let paths = if matches!(dep, Dep::ByContent(_)) { Vec::new() } else { paths };
            *dep = Dep::ByContent(Selector { paths, ..Selector::everything() });
        }
    }
    deps
}

/// Runs `exec`, as often as it may be tried, and gives the stack with what it changed.
pub(crate) fn run(
    reads: &ContextReads<'_>,
    (exec, meta): (&Exec, &VertexMeta),
    inputs: &[SharedStack],
    step: &Step,
    cancel: &Receiver<()>,
) -> Result<Stack, OpsError> {
    check_entitlements(reads.job, exec)?;
    let name = meta.name.as_str();
    if meta.fresh_cache_mounts {
        cache_dirs::renew(reads.job, exec, inputs)?;
    }
    let base = copy::base_stack(reads, inputs)?;
    let mut pause = Duration::from_secs(1);
    for left in (1..=exec.retry).rev() {
        let error = match attempt(reads, (exec, name), &base, inputs, step, cancel) {
            Err(error) if error.is_of_command() => error,
            other => return other,
        };
        let tries = if left == 1 { "try" } else { "tries" };
        let told = format!("{error}; {left} more {tries}, the next one in {} s\n", pause.as_secs());
        step.log(Stream::Stderr, told.into_bytes());
        if cancel.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return Err(error);
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
    attempt(reads, (exec, name), &base, inputs, step, cancel)
}

/// Runs `exec` once, on a fresh layer.
fn attempt(
    reads: &ContextReads<'_>,
    (exec, name): (&Exec, &str),
    base: &Stack,
    inputs: &[SharedStack],
    step: &Step,
    cancel: &Receiver<()>,
) -> Result<Stack, OpsError> {
    let job = reads.job;
    let debug = job.settings.debug.as_ref();
    if debug.is_some_and(|debug| debug.stops_before(name)) {
        stop_before(reads, (exec, name), base, inputs, cancel)?;
    }
    let mut active = Active::new(&job.store, &base.lowers(&job.store, job.worker.single_id())?)?;
    if debug.is_some() {
        active.keep_backup()?;
    }
    let (spec, mut mounts) = prepare(reads, exec, base, inputs, &active)?;
    let (out, stdout) = pipe()?;
    let (err, stderr) = pipe()?;
    // Without a usable null device there is no sandbox, and its error says so.
    let sandbox = job.sandbox(exec)?;
    let stdin = File::open("/dev/null").map_err(OpsError::io("open", Path::new("/dev/null")))?.into();
    let root = active.root().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/")))?;
    let fds = RunFds { root, mounts: std::mem::take(&mut mounts.fds), stdin, stdout, stderr };
    let running = sandbox.run(&spec, fds).map_err(|error| exec_error(error, active.root(), &spec))?;
    let limit = (exec.timeout > 0).then(|| Duration::from_nanos(exec.timeout));
    let watch = Watch { cancel, limit, output: job.settings.output_limit.unwrap_or(u64::MAX) };
    let ended = supervise(running, step, [(out, Stream::Stdout), (err, Stream::Stderr)], &watch)?;
    let Some((Finished { exit, usage, limit_events, shm_full, owned }, last_output)) = ended else {
        let limit = limit.unwrap_or_default();
        return Err(OpsError::TimedOut { command: exec.args.join(" "), limit });
    };
    step.used(used(&usage, limit_events));
    let code = status(exit);
    if !succeeds(exec, code) {
        let shm = shm_full.then_some(spec.shm_size);
        let failed = failed(exec, code, (&job.settings.limits, shm), limit_events.unwrap_or_default());
        let failed = unreached_service(failed, &spec, &last_output);
        // Asked while what it wrote is still there.
        let full = is_full(job.store.root());
        // One that was killed because another one failed has nothing to show.
        if let Some(debug) = debug.filter(|_| !is_canceled(cancel)) {
            // Its locks, which the shell takes again.
            drop(mounts);
            active.use_backup();
            let prepare = || prepare(reads, exec, base, inputs, &active);
            let tools = (&*job.sandbox(exec)?, debug);
            debug::shell(tools, Occasion::Failed(name), exec, &active, prepare, cancel)?;
        } else if let Some(steps) = job.settings.failed.as_ref().filter(|_| !is_canceled(cancel) && !full) {
            let trees = left_over(exec, (base, inputs), (active, mounts), &by_inode(&owned));
            steps.add(FailedStep { step: step.id().0.clone(), trees });
        }
        return Err(if full { failed.on_full_disk(&job.store) } else { failed });
    }
    let kept = std::mem::take(&mut mounts.kept);
    drop(mounts);
    let root = (!exec.readonly_root).then_some(active);
    commit_all(job, &by_inode(&owned), (root, base), kept)
}

/// Commits the changes of a process: those to its root, unless the root was read-only, and those to further trees.
fn commit_all(
    job: &BuildContext,
    owned: &BTreeMap<(u64, u64), (u32, u32)>,
    (root, base): (Option<Active>, &Stack),
    kept: Vec<KeptMount>,
) -> Result<Stack, OpsError> {
    let commit = |active: Active, base: &Stack| -> Result<Stack, OpsError> {
        let copied = active.owners(owned)?;
        Ok(base.with(active.commit(&job.store, copied, job.worker.single_id())?))
    };
    let mut result = root.map_or_else(|| Ok(base.clone()), |active| commit(active, base))?;
    result.outputs = kept.into_iter().map(|one| commit(one.active, &one.base)).collect::<Result<_, _>>()?;
    Ok(result)
}

/// Whether `code` counts as success.
fn succeeds(exec: &Exec, code: i32) -> bool {
    if exec.valid_exit_codes.is_empty() { code == 0 } else { exec.valid_exit_codes.contains(&code) }
}

/// Opens a shell in the root that the step would begin with. Changes to this root are thrown away.
fn stop_before(
    reads: &ContextReads<'_>,
    (exec, name): (&Exec, &str),
    base: &Stack,
    inputs: &[SharedStack],
    cancel: &Receiver<()>,
) -> Result<(), OpsError> {
    let job = reads.job;
    let Some(debug) = &job.settings.debug else { return Ok(()) };
    let scratch = Active::new(&job.store, &base.lowers(&job.store, job.worker.single_id())?)?;
    let prepare = || prepare(reads, exec, base, inputs, &scratch);
    let tools = (&*job.sandbox(exec)?, debug);
    debug::shell(tools, Occasion::Before(name), exec, &scratch, prepare, cancel)
}

/// As a shell has it.
fn status(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    }
}

fn used(usage: &ProcessUsage, limit_events: Option<LimitEvents>) -> ResourceUsage {
    let ProcessUsage { user, system, max_rss, read, written } = *usage;
    let peak_memory = limit_events.and_then(|limit_events| limit_events.peak_memory).unwrap_or(max_rss);
    ResourceUsage { user, system, peak_memory, read, written }
}

/// A step that failed; where it ran into a limit, that is most likely why.
fn failed(
    exec: &Exec,
    code: i32,
    (limits, shm): (&Limits, Option<u64>),
    limit_events: LimitEvents,
) -> OpsError {
    let command = exec.args.join(" ");
    match (limits.memory, limits.pids, shm) {
        (Some(limit), ..) if limit_events.out_of_memory > 0 => OpsError::OutOfMemory { command, code, limit },
        (_, Some(limit), _) if limit_events.refused_pids > 0 => {
            OpsError::TooManyProcesses { command, code, limit }
        }
        (_, _, Some(limit)) => OpsError::SharedMemory { command, code, limit },
        _ => OpsError::ExitCode { command, code, unreached: None },
    }
}

/// The same error, with the service of the machine's loopback interface that the step may have wanted.
fn unreached_service(mut error: OpsError, spec: &RunSpec, last_output: &[String]) -> OpsError {
    if let (OpsError::ExitCode { unreached, .. }, Network::Isolated) = (&mut error, spec.network) {
        let texts = spec.env.iter().chain(&spec.args).chain(last_output);
        *unreached = loopback::unreached_service(texts.map(String::as_str));
    }
    error
}

/// What the process of `exec` is on `active`, and what is mounted for it.
fn prepare(
    reads: &ContextReads<'_>,
    exec: &Exec,
    base: &Stack,
    inputs: &[SharedStack],
    active: &Active,
) -> Result<(RunSpec, Mounts), OpsError> {
    let job = reads.job;
    let mut mounts = Mounts::default();
    for path in &base.binds {
        let target = path.to_string_lossy().into_owned();
        mounts.add(&target, bind(path)?, "", true);
    }
    for mount in &exec.mounts {
        add_mount(reads, &mount.target, &mount.kind, inputs, &mut mounts)?;
    }
    add_secret_env(job, exec, &mut mounts)?;
    let groups = add_devices(job, exec, &mut mounts)?;
    let mut spec = spec(exec, job.network(exec)?, active, &mut mounts)?;
    spec.resolv_conf = job.worker.dns.resolv_conf(spec.network);
    spec.single_id = job.worker.single_id();
    spec.limits = job.settings.limits.clone();
    spec.no_new_privs = job.settings.no_new_privs;
    spec.user.groups.extend(groups);
    Ok((spec, mounts))
}

/// Whether the disk that `path` is on has (nearly) no room left. Programs write some hundred kilobytes at once, so not
/// every full disk has none at all.
fn is_full(path: &Path) -> bool {
    const ROOM: u64 = 1 << 20;
    rustix::fs::statvfs(path).is_ok_and(|disk| {
        let inodes = disk.f_files > 0 && disk.f_favail == 0;
        inodes || disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM
    })
}

/// What ends a process early.
struct Watch<'a> {
    /// Disconnected once nobody wants it any more.
    cancel: &'a Receiver<()>,
    /// How long it may take.
    limit: Option<Duration>,
    /// How many bytes of each of its outputs are passed on.
    output: u64,
}

/// Carries output to the step until the process ends, and kills it if nobody wants it any more or if it takes too
/// long. Gives nothing in the latter case, else also the last that it said.
fn supervise(
    running: Running,
    step: &Step,
    outputs: [(OwnedFd, Stream); 2],
    watch: &Watch<'_>,
) -> Result<Option<(Finished, Vec<String>)>, OpsError> {
    let begun = Instant::now();
    let mut late = false;
    let pidfd =
        running.pidfd().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/proc")))?;
    let output = watch.output;
    std::thread::scope(|scope| {
        let forwarders =
            outputs.map(|(fd, stream)| scope.spawn(move || output::forward(fd, stream, step, output)));
        let waiter = scope.spawn(|| running.wait());
        while !waiter.is_finished() {
            // The pidfd is readable once the process is gone; a dropped build is noticed within a tenth of a second.
            let mut wait = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            let tenth = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let gone = rustix::event::poll(&mut wait, Some(&tenth)).is_ok_and(|ready| ready > 0);
            if gone {
                break;
            }
            late |= watch.limit.is_some_and(|limit| begun.elapsed() >= limit);
            if late || is_canceled(watch.cancel) {
                // It may have ended this very moment.
                rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap_or_default();
            }
        }
        let finished = waiter.join().map_err(|_| OpsError::Worker)??;
        let last_output = forwarders.map(|forwarder| forwarder.join().map_err(|_| OpsError::Worker));
        let last_output = last_output.into_iter().collect::<Result<_, _>>()?;
        Ok((!late).then_some((finished, last_output)))
    })
}

fn pipe() -> Result<(OwnedFd, OwnedFd), OpsError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| OpsError::io("make", Path::new("pipe"))(e.into()))
}

fn check_entitlements(job: &BuildContext, exec: &Exec) -> Result<(), OpsError> {
    let needs = [
        (exec.network == NetworkMode::Host, "network.host"),
        (exec.security == SecurityMode::Insecure, "security.insecure"),
    ];
    for (needed, entitlement) in needs {
        if needed && !job.settings.allowed.contains(entitlement) {
            return Err(OpsError::NotAllowed { entitlement });
        }
    }
    Ok(())
}

fn spec(exec: &Exec, network: Network, active: &Active, mounts: &mut Mounts) -> Result<RunSpec, OpsError> {
    let root = active.root();
    let ids = resolve_user(&Root::new(&root), &exec.user)?;
    let mut spec = RunSpec::new(exec.args.clone());
    for pair in exec.env.iter().chain(&exec.proxy_env).chain(&mounts.env) {
        // Programs disagree on which of two values counts.
        let name = pair.split_inclusive('=').next().unwrap_or(pair);
        spec.env.retain(|known| !known.starts_with(name));
        spec.env.push(pair.clone());
    }
    if !spec.env.iter().any(|pair| pair.starts_with("HOME=")) {
        spec.env.push(format!("HOME={}", ids.home));
    }
    spec.cwd.clone_from(&exec.cwd);
    spec.user = User { uid: ids.uid, gid: ids.gid, groups: ids.groups };
    if !exec.hostname.is_empty() {
        spec.hostname.clone_from(&exec.hostname);
    }
    spec.network = network;
    spec.readonly_root = exec.readonly_root;
    if exec.security == SecurityMode::Insecure {
        spec.security = Security::Insecure;
    }
    if exec.shm_size > 0 {
        spec.shm_size = exec.shm_size;
    }
    for limit in &exec.ulimits {
        let resource = Resource::from_name(&limit.name)
            .ok_or_else(|| OpsError::Unsupported { what: format!("unknown ulimit `{}`", limit.name) })?;
        let value = |number: i64| u64::try_from(number).ok();
        spec.rlimits.push(Rlimit { resource, soft: value(limit.soft), hard: value(limit.hard) });
    }
    spec.extra_hosts.clone_from(&exec.extra_hosts);
    spec.mounts = std::mem::take(&mut mounts.mounts);
    Ok(spec)
}

fn add_mount(
    reads: &ContextReads<'_>,
    target: &str,
    kind: &MountKind,
    inputs: &[SharedStack],
    mounts: &mut Mounts,
) -> Result<(), OpsError> {
    let job = reads.job;
    match kind {
        MountKind::Bind(bind) => add_bind(reads, target, bind, inputs, mounts),
        MountKind::Cache(cache) => add_cache(reads, target, cache, inputs, mounts),
        MountKind::Tmpfs { size } => {
            let source = MountSource::Tmpfs { size: (*size > 0).then_some(*size), mode: 0o1777, exec: true };
            mounts.mounts.push(Mount { target: target.to_owned(), source, readonly: false });
            Ok(())
        }
        MountKind::Secret(secret) => {
            if let Some(data) = secret_value(job, &secret.id, secret.required)? {
                let source = MountSource::Bytes { data, mode: secret.mode, uid: secret.uid, gid: secret.gid };
                mounts.mounts.push(Mount { target: target.to_owned(), source, readonly: true });
            }
            Ok(())
        }
        MountKind::Ssh(ssh) => match job.settings.ssh.value(&ssh.id)? {
            Some(socket) => {
                if !mounts.env.iter().any(|pair| pair.starts_with("SSH_AUTH_SOCK=")) {
                    mounts.env.push(format!("SSH_AUTH_SOCK={target}"));
                }
                let agent = AgentSocket::open(&job.store, socket, ssh, job.worker.single_id())?;
                // One can talk to an agent through a mount that is read-only.
                mounts.add(target, bind(&agent.path())?, "", true);
                mounts.resources.push(MountResource::Agent(agent));
                Ok(())
            }
            None if ssh.required => Err(OpsError::NoSsh { id: ssh.id.clone() }),
            None => Ok(()),
        },
    }
}

fn add_bind(
    reads: &ContextReads<'_>,
    target: &str,
    bind: &Bind,
    inputs: &[SharedStack],
    mounts: &mut Mounts,
) -> Result<(), OpsError> {
    let job = reads.job;
    let input = inputs.get(bind.input).ok_or(OpsError::Worker)?;
    if bind.keep {
        let base = copy::layered(reads, input)?;
        let kept = Active::new(&job.store, &base.lowers(&job.store, job.worker.single_id())?)?;
        let root = kept.root().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/")))?;
        mounts.add(target, root, &bind.source, false);
        mounts.kept.push(KeptMount { active: kept, target: target.to_owned(), base });
        return Ok(());
    }
    // A local context is mounted as COPY would see it: what the mount selects, without what its ignore file hides, and never
    // writable itself.
    let lowers = match &input.local {
        Some(_) => {
            let copy = Active::new(&job.store, &[])?;
            let place = copy::copy_in_place(reads, input, &bind.source, copy.root())?;
            let root = copy.root().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/")))?;
            mounts.add(target, root, &place.to_string(), bind.readonly);
            let (target, base) = (target.to_owned(), None);
            mounts.resources.push(MountResource::Scratch { active: copy, target, base });
            return Ok(());
        }
        None => input.lowers(&job.store, job.worker.single_id())?,
    };
    if bind.readonly {
        let (view, copy) = input.open(&job.store, job.worker.single_id())?.into_parts();
        mounts.add(target, view, &bind.source, true);
        mounts.resources.extend(copy.map(MountResource::Copy));
    } else {
        let scratch = Active::new(&job.store, &lowers)?;
        let root = scratch.root().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/")))?;
        mounts.add(target, root, &bind.source, false);
        let (target, base) = (target.to_owned(), Some(input.clone()));
        mounts.resources.push(MountResource::Scratch { active: scratch, target, base });
    }
    Ok(())
}

fn add_cache(
    reads: &ContextReads<'_>,
    target: &str,
    cache: &CacheMount,
    inputs: &[SharedStack],
    mounts: &mut Mounts,
) -> Result<(), OpsError> {
    let job = reads.job;
    let sharing = match cache.sharing {
        Sharing::Shared => lapstrake_store::Sharing::Shared,
        Sharing::Private => lapstrake_store::Sharing::Private,
        Sharing::Locked => lapstrake_store::Sharing::Locked,
    };
    let seed = cache.from.and_then(|input| inputs.get(input));
    let identity = cache_dirs::identity(cache, inputs);
    let own = cache.sharing == Sharing::Private;
    // A process that mounts one directory at two places must not wait for itself.
    if let Some(path) = mounts.caches.get(&identity).filter(|_| !own) {
        let fd = bind(path)?;
        mounts.add(target, fd, &cache.source, cache.readonly);
        return Ok(());
    }
    let mut dir = job.store.cache_dir(&identity, sharing)?;
    if !own {
        mounts.caches.insert(identity, dir.path().to_owned());
    }
    let fd = bind(dir.path())?;
    if dir.is_fresh() {
        if let Some(seed) = seed {
            copy::copy_all(reads, seed, fd.as_fd())?;
        }
        let path = dir.path();
        let refused = |e: rustix::io::Errno| OpsError::io("set the owner of", path)(e.into());
        if job.worker.single_id() {
            lapstrake_tree::record_owner(path, (cache.uid, cache.gid)).map_err(refused)?;
        } else {
            let (uid, gid) = (rustix::fs::Uid::from_raw(cache.uid), rustix::fs::Gid::from_raw(cache.gid));
            rustix::fs::chown(path, Some(uid), Some(gid)).map_err(refused)?;
        }
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(cache.mode)).map_err(refused)?;
        dir.settle()?;
    }
    mounts.add(target, fd, &cache.source, cache.readonly);
    mounts.resources.push(MountResource::Cache(dir));
    Ok(())
}

/// Mounts the wanted devices with all that belongs to them, and gives the groups that the process needs for them.
fn add_devices(job: &BuildContext, exec: &Exec, mounts: &mut Mounts) -> Result<BTreeSet<u32>, OpsError> {
    if exec.devices.is_empty() {
        return Ok(BTreeSet::new());
    }
    let settings = &job.settings;
    let edits = Devices::load(&settings.cdi_dirs).edits(&exec.devices, &settings.allowed)?;
    for (source, target) in edits.nodes {
        let node = bind(&source)?;
        let stat = rustix::fs::fstat(&node).map_err(|e| OpsError::io("look at", &source)(e.into()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(OpsError::Unsupported { what: format!("`{}` is no device", source.display()) });
        }
        let source = MountSource::Device { index: mounts.fds.len() };
        mounts.fds.push(node);
        mounts.mounts.push(Mount { target, source, readonly: false });
    }
    for mount in edits.mounts {
        mounts.add(&mount.target, bind(&mount.source)?, "", mount.readonly);
    }
    mounts.env.extend(edits.env);
    Ok(edits.groups)
}

fn add_secret_env(job: &BuildContext, exec: &Exec, mounts: &mut Mounts) -> Result<(), OpsError> {
    for secret in &exec.secret_env {
        // An optional secret that is missing is an empty variable.
        let value = secret_value(job, &secret.id, secret.required)?.unwrap_or_default();
        mounts.env.push(format!("{}={}", secret.name, String::from_utf8_lossy(&value)));
    }
    Ok(())
}

fn secret_value(job: &BuildContext, id: &str, required: bool) -> Result<Option<Vec<u8>>, OpsError> {
    match job.settings.secrets.value(id)? {
        Some(secret) => Ok(Some(secret.into_bytes())),
        None if required => Err(OpsError::NoSecret { id: id.to_owned() }),
        None => Ok(None),
    }
}
