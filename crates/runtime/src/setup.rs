//! The interpreter: carries the operations of a plan out, as the first process of the container.
//!
//! It starts as a copy of the zygote in fresh namespaces and ends by becoming the user's program. Until then it is
//! trusted code, which treats everything beneath the root as hostile.
//!
//! Its first part is done ahead, so that a container is there when it is asked for: a *blank* has all that needs nothing
//! of the caller's, and waits for the rest.
//!
//! Invariants: whatever is made in the root is reported to the zygote before it is used, so that it is removed even
//! where this process dies on the way; nothing is looked up twice.

mod devices;
mod mounts;
mod process;
mod resolve;

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use lapstrake_sys::process::{Turns, exit_now, reset_signals, take_turns};
use lapstrake_sys::{SingleThreaded, fd, init};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::thread::ThreadNameSpaceType;

use crate::plan::{Filter, SetupOp, plan};
use crate::seccomp::Programs;
use crate::spec::RunSpec;
use crate::wire::{self, Failure, Kind, Report, Request};
use crate::zygote_root::ZygoteRoot;

/// What a blank is made from: a container that has everything but what one run asks for.
pub(crate) struct SetupRequest<'a> {
    pub(crate) kind: Kind,
    /// To the zygote.
    pub(crate) channel: OwnedFd,
    /// Counts 1 once the next thing is the user's program.
    pub(crate) leap: OwnedFd,
    /// The system call filters; `None` where this machine has no table for them.
    pub(crate) filters: Option<&'a Programs>,
    pub(crate) zygote_root: &'a ZygoteRoot,
}

/// The parts of one more process of a container.
pub(crate) struct EntryRequest<'a> {
    /// The socket that the request comes from.
    pub(crate) run: OwnedFd,
    /// Standard input, output and error.
    pub(crate) stdio: [OwnedFd; 3],
    /// The first process of the container.
    pub(crate) container: OwnedFd,
    /// To the zygote.
    pub(crate) channel: OwnedFd,
    /// Counts 1 once the next thing is the user's program.
    pub(crate) leap: OwnedFd,
    /// The system call filters; `None` where this machine has no table for them.
    pub(crate) filters: Option<&'a Programs>,
}

/// The type of file system that terminals are on.
const DEVPTS: i64 = 0x1cd1;
/// The type of `/proc`.
const PROC: i64 = 0x9fa0;

/// What went wrong, and on what.
#[derive(Debug)]
struct Fault {
    errno: Errno,
    path: String,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { errno, path: String::new() }
    }
}

/// Names the thing that a failed call was about.
trait About<T> {
    fn about(self, path: &str) -> Result<T, Fault>;
}

impl<T> About<T> for Result<T, Errno> {
    fn about(self, path: &str) -> Result<T, Fault> {
        self.map_err(|errno| Fault { errno, path: path.to_owned() })
    }
}

/// Makes a blank, waits for what it is to run, and becomes that; the status of a process that could not.
pub(crate) fn run(token: &SingleThreaded, job: SetupRequest<'_>) -> i32 {
    let SetupRequest { kind, channel, leap, filters, zygote_root } = job;
    let keep = [&channel, &leap].map(AsRawFd::as_raw_fd);
    let mut setup = Setup::new(token, (channel, leap), filters);
    setup.unified_cgroups = zygote_root.unified_cgroups;
    rustix::process::umask(Mode::empty());
    let ahead = kind.ops.len();
    let result = fd::close_others(token, &keep)
        .map_err(|errno| (0, Fault::from(errno)))
        .and_then(|()| setup.apply_all(&kind.ops, 0))
        .and_then(|()| rehearse().map_err(|errno| (ahead, Fault::from(errno))))
        .and_then(|()| match setup.receive() {
            Ok(Some(request)) => setup.apply_all(&request.ops, ahead),
            // Nobody wants it any more.
            Ok(None) => Ok(()),
            Err(errno) => Err((usize::MAX, Fault::from(errno))),
        });
    if let Err((op, fault)) = result {
        setup.report_failure(op, fault);
    }
    1
}

/// Enters a container and becomes a program there; the status of a process that could not. This process must be in the
/// container's pid namespace.
pub(crate) fn enter(token: &SingleThreaded, job: EntryRequest<'_>) -> i32 {
    let EntryRequest { run, stdio, container, channel, leap, filters } = job;
    let mut keep = [&run, &container, &channel, &leap].map(AsRawFd::as_raw_fd).to_vec();
    keep.extend(stdio.iter().map(AsRawFd::as_raw_fd));
    let mut setup = Setup::new(token, (channel, leap), filters);
    setup.stdio = Some(stdio);
    setup.sources = vec![Some(container)];
    rustix::process::umask(Mode::empty());
    let result = fd::close_others(token, &keep)
        .and_then(|()| wire::receive_request(run))
        .map_err(|errno| (usize::MAX, Fault::from(errno)))
        .and_then(|request| setup.apply_all(&request.ops, 0));
    if let Err((op, fault)) = result {
        setup.report_failure(op, fault);
    }
    1
}

/// Reads a request as one will come. A fork shares its memory with its maker, and each page of it that reading touches
/// costs some microseconds the first time.
fn rehearse() -> Result<(), Errno> {
    let any = plan(&RunSpec::new(vec!["true".to_owned()]), 0).map_err(|_| Errno::INVAL)?;
    let (here, there) = wire::pair()?;
    wire::send_request(&here, &Request { ops: any.ops })?;
    wire::receive_request(&there)?;
    // From here on somebody waits for this process.
    take_turns(Turns::Short);
    Ok(())
}

/// A container under construction.
struct Setup<'a> {
    token: &'a SingleThreaded,
    root: Option<OwnedFd>,
    /// The caller's mounts, each until it is attached.
    sources: Vec<Option<OwnedFd>>,
    stdio: Option<[OwnedFd; 3]>,
    channel: OwnedFd,
    leap: OwnedFd,
    filters: Option<&'a Programs>,
    unified_cgroups: bool,
    /// The roots of the mounts made so far: looked things up beneath, never by path again.
    stage: Option<OwnedFd>,
    /// Mounts of the files on the stage, each until it is attached.
    files: Vec<(usize, OwnedFd)>,
    /// Device nodes made on the stage so far.
    nodes: usize,
    /// The caller's mounts that are on the stage.
    staged: Vec<usize>,
    proc: Option<OwnedFd>,
    sys: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    pts: Option<OwnedFd>,
}

impl<'a> Setup<'a> {
    /// Nothing made yet. `channel` leads to the zygote; `leap` counts 1 once the next thing is the user's program.
    fn new(
        token: &'a SingleThreaded,
        (channel, leap): (OwnedFd, OwnedFd),
        filters: Option<&'a Programs>,
    ) -> Self {
        Self {
            token,
            root: None,
            sources: Vec::new(),
            stdio: None,
            channel,
            leap,
            filters,
            unified_cgroups: false,
            stage: None,
            files: Vec::new(),
            nodes: 0,
            staged: Vec::new(),
            proc: None,
            sys: None,
            dev: None,
            pts: None,
        }
    }
}

impl Setup<'_> {
    /// Waits for the request; `None` where there will be none.
    fn receive(&mut self) -> Result<Option<Request>, Errno> {
        let Some((_, fds)) = wire::receive_bytes(&self.channel)? else { return Ok(None) };
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(Errno::BADF);
        let run = next()?;
        self.stdio = Some([next()?, next()?, next()?]);
        self.root = Some(next()?);
        self.sources = fds.map(Some).collect();
        wire::receive_request(run).map(Some)
    }

    /// Carries operations out of which the first is number `first`; says at which one it failed.
    fn apply_all(&mut self, ops: &[SetupOp], first: usize) -> Result<(), (usize, Fault)> {
        ops.iter().zip(first..).try_for_each(|(op, at)| self.apply(op, at).map_err(|fault| (at, fault)))
    }

    fn apply(&mut self, op: &SetupOp, at: usize) -> Result<(), Fault> {
        match op {
            SetupOp::Join { index } => self.join(*index),
            SetupOp::Network { index } => self.network(*index),
            SetupOp::Enter { index, network } => self.enter(*index, *network),
            SetupOp::Loopback => Ok(lapstrake_sys::net::loopback_up()?),
            SetupOp::Hostname { name } => rustix::system::sethostname(name.as_bytes()).about(name),
            SetupOp::AttachRoot { attrs } => self.attach_root(attrs),
            SetupOp::Install { name } => self.install(name),
            SetupOp::MountStaging => self.mount_staging(),
            SetupOp::PivotToStaging => self.pivot_to_staging(),
            SetupOp::StageFile { slot, data, mode, owner } => self.stage_file(*slot, data, *mode, *owner),
            SetupOp::StageSource { index } => self.stage_source(*index),
            SetupOp::Mount { fs, at, attrs } => self.mount(fs, at, attrs),
            SetupOp::Device { name, number } => self.device(name, *number),
            SetupOp::Node { index, at } => self.node(*index, at),
            SetupOp::Symlink { name, target } => self.symlink(name, target),
            SetupOp::Bind { source, at, attrs } => self.bind(source, at, attrs),
            SetupOp::Mask { at } => self.mask(at),
            SetupOp::RemountReadonly { at } => self.remount_readonly(at),
            SetupOp::RemountProcReadonly => self.remount_proc_readonly(),
            SetupOp::RemountRootReadonly => self.remount_root_readonly(),
            SetupOp::Session { terminal, uid } => self.session(*terminal, *uid),
            SetupOp::PivotToRoot => self.pivot_to_root(),
            SetupOp::Rlimit { limit } => process::limit(limit),
            SetupOp::Cwd { path, uid, gid, record } => process::cwd(path, (*uid, *gid), *record),
            SetupOp::Umask { mask } => {
                rustix::process::umask(Mode::from_bits_truncate(*mask));
                Ok(())
            }
            SetupOp::BoundingSet { keep } => process::bounding_set(*keep),
            SetupOp::Landlock => process::landlock(),
            SetupOp::Filter { filter } => self.filter(*filter),
            SetupOp::NoNewPrivs => Ok(rustix::thread::set_no_new_privs(true)?),
            SetupOp::SetUser { user } => process::become_user(user, self.proc.as_ref()),
            SetupOp::Capabilities { keep, ambient } => process::capabilities(*keep, *ambient),
            SetupOp::Exec { args, env, init: false } => self.exec(args, env),
            SetupOp::Exec { args, env, init: true } => self.exec_below_init(args, env, at),
        }
    }

    /// Comes back only with the reason why not.
    fn exec(&self, args: &[String], env: &[String]) -> Result<(), Fault> {
        // Nobody is woken: the zygote looks when the channel ends, which is at once.
        rustix::io::write(&self.leap, &1_u64.to_ne_bytes())?;
        take_turns(Turns::Plain);
        process::exec(args, env)
    }

    /// Becomes an init process, and has its child become the program. The child reports what operation `at` failed with.
    fn exec_below_init(&self, args: &[String], env: &[String], at: usize) -> Result<(), Fault> {
        init::block_signals(self.token);
        let child = init::fork(self.token, || {
            init::lead_group();
            reset_signals(self.token);
            if let Err(fault) = self.exec(args, env) {
                self.report_failure(at, fault);
            }
            1
        })?;
        // The zygote waits for the end of the channel, of which this process has a copy.
        fd::close_others(self.token, &[])?;
        exit_now(init::serve(self.token, child))
    }

    fn report_failure(&self, op: usize, Fault { errno, path }: Fault) {
        let failure = Failure { op, errno: errno.raw_os_error(), path };
        let _ = wire::send(&self.channel, &Report::Failed(failure), &[]);
    }

    /// Writing 0 means whoever writes.
    fn join(&mut self, index: usize) -> Result<(), Fault> {
        let door = self.sources.get_mut(index).and_then(Option::take).ok_or(Errno::BADF)?;
        Ok(rustix::io::write(&door, b"0").map(drop)?)
    }

    fn network(&mut self, index: usize) -> Result<(), Fault> {
        let network = self.sources.get_mut(index).and_then(Option::take).ok_or(Errno::BADF)?;
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind)).about("the container")
    }

    /// By now the container may have put anything anywhere: what is found is used only if it is on the right kind of file
    /// system.
    fn enter(&mut self, index: usize, network: bool) -> Result<(), Fault> {
        let container = self.sources.get_mut(index).and_then(Option::take).ok_or(Errno::BADF)?;
        let mut namespaces = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::CONTROL_GROUP;
        if network {
            namespaces |= ThreadNameSpaceType::NETWORK;
        }
        rustix::thread::move_into_thread_name_spaces(container.as_fd(), namespaces).about("the container")?;
        let find = |path: &CStr, kind: i64| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let found = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).ok();
            found.filter(|found| rustix::fs::fstatfs(found).is_ok_and(|found| found.f_type == kind))
        };
        self.proc = find(c"/proc", PROC);
        self.pts = find(c"/dev/pts", DEVPTS);
        Ok(())
    }

    /// Loads a filter. Where it has questions, the zygote gets what they are answered through.
    fn filter(&self, filter: Filter) -> Result<(), Fault> {
        let filters = self.filters.ok_or(Errno::OPNOTSUPP).about("(no table for this machine)")?;
        let program = match filter {
            Filter::Early => return Ok(lapstrake_sys::seccomp::load(&filters.early)?),
            Filter::Late => return Ok(lapstrake_sys::seccomp::load(&filters.late)?),
            Filter::OneId => &filters.single_id,
            Filter::OneIdInsecure => &filters.one_id_insecure,
        };
        let listener = lapstrake_sys::notify::load(program)?;
        Ok(wire::send(&self.channel, &Report::Listener, &[listener.as_fd()])?)
    }

    /// Tells the zygote of something made in the root.
    fn report_stub(&self, made: &resolve::Made<'_>) -> Result<(), Errno> {
        let (name, directory, ino) = (made.name.to_bytes().to_vec(), made.directory, made.ino);
        // By a mount of its own: what is removed through the one that has been covered takes the cover apart first, and
        // waits for the whole machine to have noticed.
        let apart =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let apart = rustix::mount::open_tree(made.parent, c"", apart);
        let parent = apart.as_ref().map_or(made.parent, AsFd::as_fd);
        wire::send(&self.channel, &Report::Mountpoint { name, directory, ino }, &[parent])
    }
}
