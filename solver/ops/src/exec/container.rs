//! Containers that a client holds: root and mounts are made once, and any number of processes run in them.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use lapstrake_engine::{CacheMap, Progress, StepId};
use lapstrake_graph::{Exec, MountKind};
use lapstrake_runtime::{EntryFds, Mount, MountSource, RunFds, Running, WindowSize};
use lapstrake_snapshot::{Active, bind};
use rustix::process::Signal;

use crate::error::OpsError;
use crate::exec::binfmt::exec_error;
use crate::exec::mounts::{MountResource, Mounts};
use crate::exec::{add_mount, add_secret_env, check_entitlements, spec};
use crate::file::context_reads::ContextReads;
use crate::file::copy;
use crate::job::Job;
use crate::stack::SharedStack;

/// A container. Writes to its root and to its mounts of trees are thrown away with it. Dropping it removes its directories on
/// disk; its processes must have ended.
pub struct Container {
    job: Job,
    /// The mounts, the network and the names. Each process has its own arguments, user and so on.
    exec: Exec,
    root: Active,
    /// The files of the mounts, in the order of `exec.mounts`; `None` for those that have none outside of a process.
    files: Vec<Option<OwnedFd>>,
    first: Mutex<First>,
    _kept: Vec<MountResource>,
}

/// The first process of a container, which all others need.
enum First {
    /// It has not been asked for. These are its mounts.
    Wanted(Box<Mounts>),
    /// It has been started.
    Started(OwnedFd),
    /// It could not be started.
    Failed,
}

/// The standard streams of a process; not used with a terminal.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A process that a client asks for.
#[derive(Clone, Debug)]
pub struct ProcessRequest {
    /// Arguments, environment, directory, user, security mode and secrets in the environment. Values of the container replace
    /// the other fields.
    pub exec: Exec,
    /// The size of its terminal; `None` for no terminal.
    pub terminal: Option<WindowSize>,
}

impl Container {
    /// Makes the root, which is the first of `inputs`, and the mounts of `exec`. Blocks.
    ///
    /// # Errors
    /// A mount cannot be made.
    pub fn new(job: &Job, exec: Exec, inputs: &[SharedStack]) -> Result<Container, OpsError> {
        let made = reading(job, inputs, |reads| make(reads, &exec, inputs))?;
        let Made { root, mut mounts, files } = made;
        let kept = std::mem::take(&mut mounts.resources);
        let first = Mutex::new(First::Wanted(Box::new(mounts)));
        Ok(Container { job: job.clone(), exec, root, files, first, _kept: kept })
    }

    /// Adds a file that only its owner can read, and that is in memory. Only processes see it. It comes too late once a process
    /// has been started.
    #[must_use]
    pub fn with_file(self, target: &str, data: Vec<u8>) -> Container {
        if let First::Wanted(mounts) = &mut *self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            let source = MountSource::Bytes { data, mode: 0o400, uid: 0, gid: 0 };
            mounts.mounts.push(Mount { target: target.to_owned(), source, readonly: true });
        }
        self
    }

    /// Starts a process; returns when its program has been executed. The container ends with the first one. Blocks.
    ///
    /// # Errors
    /// The process cannot be started, the job may not have its network or its security mode, or the container has ended.
    pub fn start(&self, request: ProcessRequest, streams: Streams) -> Result<Running, OpsError> {
        let context = &*self.job.0;
        let exec = Exec {
            mounts: Vec::new(),
            readonly_root: self.exec.readonly_root,
            network: self.exec.network,
            hostname: self.exec.hostname.clone(),
            extra_hosts: self.exec.extra_hosts.clone(),
            ..request.exec
        };
        check_entitlements(context, &exec)?;
        let sandbox = context.sandbox(&exec)?;
        let network = context.network(&exec)?;
        // Further processes wait until there is a container to enter.
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = match &mut *first {
            First::Wanted(mounts) => std::mem::take(&mut **mounts),
            First::Started(_) => Mounts::default(),
            First::Failed => return Err(OpsError::NoContainer),
        };
        add_secret_env(context, &exec, &mut own)?;
        let mut spec = spec(&exec, network, &self.root, &mut own)?;
        spec.resolv_conf = context.worker.dns.resolv_conf(spec.network);
        spec.terminal = request.terminal;
        spec.single_id = context.worker.single_id();
        spec.no_new_privs = context.settings.no_new_privs;
        let refused = |error| exec_error(error, self.root.root(), &spec);
        let Streams { stdin, stdout, stderr } = streams;
        if let First::Started(container) = &*first {
            let fds = EntryFds { stdin, stdout, stderr };
            return sandbox.enter(container.as_fd(), &spec, fds).map_err(refused);
        }
        *first = First::Failed;
        let root =
            self.root.root().try_clone_to_owned().map_err(OpsError::io("duplicate", Path::new("/")))?;
        let fds = RunFds { root, mounts: own.fds, stdin, stdout, stderr };
        let running = sandbox.run(&spec, fds).map_err(refused)?;
        let pidfd = running.pidfd().try_clone_to_owned();
        *first = First::Started(pidfd.map_err(OpsError::io("duplicate", Path::new("/proc")))?);
        Ok(running)
    }

    /// The files of a mount, by its place in the request; `None` for a mount without files outside of a process.
    pub fn files(&self, mount: usize) -> Option<BorrowedFd<'_>> {
        self.files.get(mount)?.as_ref().map(OwnedFd::as_fd)
    }

    /// The files of the root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.root()
    }

    /// Kills all processes.
    pub fn kill(&self) {
        if let First::Started(first) = &*self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            // A process that has ended already is killed, too.
            rustix::process::pidfd_send_signal(first, Signal::KILL).unwrap_or_default();
        }
    }
}

impl Job {
    /// `stack` as layers: a local context is copied to one. Blocks.
    ///
    /// # Errors
    /// The context cannot be read, or the layer cannot be written.
    pub fn as_layers(&self, stack: SharedStack) -> Result<SharedStack, OpsError> {
        if stack.local.is_none() {
            return Ok(stack);
        }
        let inputs = [stack];
        reading(self, &inputs, |reads| copy::base_stack(reads, &inputs))
    }
}

/// Does `work`, which belongs to no step, with the known files of local contexts.
fn reading<T>(
    job: &Job,
    inputs: &[SharedStack],
    work: impl Fn(&ContextReads<'_>) -> Result<T, OpsError>,
) -> Result<T, OpsError> {
    let map = CacheMap { op: Vec::new(), deps: Vec::new() };
    let silent = Progress::none().start(StepId(String::new()), "");
    ContextReads::during(&job.0, &silent, (&map, inputs), work).map(|(done, _)| done)
}

/// The parts of a container that are on disk.
struct Made {
    root: Active,
    mounts: Mounts,
    files: Vec<Option<OwnedFd>>,
}

fn make(reads: &ContextReads<'_>, exec: &Exec, inputs: &[SharedStack]) -> Result<Made, OpsError> {
    let context = reads.job;
    let base = copy::base_stack(reads, inputs)?;
    let root = Active::new(&context.store, &base.lowers(&context.store, context.worker.single_id())?)?;
    let mut mounts = Mounts::default();
    for path in &base.binds {
        mounts.add(&path.to_string_lossy(), bind(path)?, "", true);
    }
    let mut files = Vec::new();
    for mount in &exec.mounts {
        let before = mounts.fds.len();
        add_mount(reads, &mount.target, &mount.kind, inputs, &mut mounts)?;
        // A socket has no files, and what is in memory only exists inside of a process.
        let has_files = matches!(mount.kind, MountKind::Bind(_) | MountKind::Cache(_));
        let made = mounts.fds.get(before).filter(|_| has_files);
        let made = made.map(OwnedFd::try_clone).transpose();
        files.push(made.map_err(OpsError::io("duplicate", Path::new(&mount.target)))?);
    }
    // Clients find an agent by the place that they asked for.
    mounts.env.clear();
    Ok(Made { root, mounts, files })
}
