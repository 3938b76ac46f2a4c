//! The caller's side: starting the zygote, asking it for containers, waiting for them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lapstrake_net::{Choice, Lease, NetError, Networks};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::process::Signal;

use crate::cgroup::{Group, LimitEvents};
use crate::error::RuntimeError;
use crate::ids::OwnedInode;
use crate::launch;
use crate::plan::{Plan, SetupOp, plan, plan_entry};
use crate::resolv::DnsSettings;
use crate::spec::{Network, RunSpec, Security};
use crate::wire::{self, Hello, Kind, Request, Update};

/// A process that makes containers. Threads share it; dropping it kills every container it has made.
#[derive(Debug)]
pub struct Sandbox {
    control: OwnedFd,
    keeper: Child,
    networks: OnceLock<Arc<Networks>>,
    dns: DnsSettings,
}

/// What a container is given of the caller's.
#[derive(Debug)]
pub struct RunFds {
    /// The root: a detached mount, or a directory.
    pub root: OwnedFd,
    /// What [`crate::MountSource::Fd`] means: detached mounts, directories or files.
    pub mounts: Vec<OwnedFd>,
    /// Standard input; not used with a terminal.
    pub stdin: OwnedFd,
    /// Standard output; not used with a terminal.
    pub stdout: OwnedFd,
    /// Standard error; not used with a terminal.
    pub stderr: OwnedFd,
}

/// A container whose program has been started. Dropping it kills the container and waits until it is gone.
#[derive(Debug)]
pub struct Running {
    channel: OwnedFd,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    finished: bool,
    /// Ends after everything that is in it.
    group: Option<Group>,
    network: Option<Lease>,
    /// Whether its program could change its network.
    changes_network: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What a container's first process and the children it waited for have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The largest resident set of one process, in bytes.
    pub max_rss: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

/// The end of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How its program ended.
    pub exit: Exit,
    /// What it used.
    pub usage: ProcessUsage,
    /// With [`RunSpec::limits`]: which of them it has run into.
    pub limit_events: Option<LimitEvents>,
    /// Whether there was no room left on `/dev/shm`.
    pub shm_full: bool,
    /// With [`RunSpec::single_id`]: whose things are that no attribute can say it of.
    pub owned: Vec<OwnedInode>,
}

impl Sandbox {
    /// Starts the zygote from this program's own executable, whose `main` has to call
    /// [`crate::zygote_main_if_asked`] before anything else.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] where the kernel refuses what every container needs, [`RuntimeError::Kernel`] where it
    /// does not know it.
    pub fn start() -> Result<Self, RuntimeError> {
        Self::start_from(None, OnceLock::new(), DnsSettings::default())
    }

    /// As [`Sandbox::start`], with other settings for the names that containers ask us for.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn start_with_dns(dns: DnsSettings) -> Result<Self, RuntimeError> {
        Self::start_from(None, OnceLock::new(), dns)
    }

    /// As [`Sandbox::start_with_dns`], and meanwhile makes a network for a container that will want one of its own.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn start_with_network(dns: DnsSettings) -> Result<Self, RuntimeError> {
        let networks = Networks::new(dns.relayed());
        networks.prepare();
        Self::start_from(None, OnceLock::from(networks), dns)
    }

    /// Whether the sandbox can make containers. One whose zygote was killed cannot.
    pub fn is_alive(&self) -> bool {
        let mut polled = [PollFd::new(&self.control, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A zygote that has ended hangs up.
        matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(0))
    }

    /// As [`Sandbox::start`], from another executable that does the same.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn start_with(executable: &Path) -> Result<Self, RuntimeError> {
        Self::start_from(Some(executable), OnceLock::new(), DnsSettings::default())
    }

    fn start_from(
        executable: Option<&Path>,
        networks: OnceLock<Arc<Networks>>,
        dns: DnsSettings,
    ) -> Result<Self, RuntimeError> {
        if let Some(why) = lapstrake_sys::kernel::null_device_fault() {
            return Err(RuntimeError::NullDevice { why });
        }
        let (control, theirs) = wire::pair().map_err(RuntimeError::talk)?;
        let keeper = launch::launch(executable, theirs)?;
        let sandbox = Self { control, keeper, networks, dns };
        let (hello, _) =
            wire::receive(&sandbox.control).map_err(RuntimeError::talk)?.ok_or(RuntimeError::Gone)?;
        match hello {
            Hello::Ready => Ok(sandbox),
            Hello::Failed(start_error) => {
                Err(RuntimeError::start(start_error.action, Errno::from_raw_os_error(start_error.errno)))
            }
        }
    }

    fn networks(&self) -> &Arc<Networks> {
        self.networks.get_or_init(|| Networks::new(self.dns.relayed()))
    }

    /// How containers with a network of their own get out.
    ///
    /// # Errors
    /// [`NetError`] where there are no such networks.
    pub fn way_out(&self) -> Result<Choice, NetError> {
        self.networks().choose()
    }

    /// Makes a container and starts its program; returns when that has been executed.
    ///
    /// Takes some milliseconds, and blocks for them.
    ///
    /// # Errors
    /// [`RuntimeError::Spec`], [`RuntimeError::Setup`] and [`RuntimeError::Exec`] are about this run;
    /// [`RuntimeError::Gone`] means that the sandbox cannot be used any more.
    pub fn run(&self, spec: &RunSpec, fds: RunFds) -> Result<Running, RuntimeError> {
        let Plan { mut ops, ahead } = plan(spec, fds.mounts.len())?;
        let (group, doors) = match spec.limits.is_none() {
            true => (None, Vec::new()),
            false => Group::new(&spec.limits).map(|(group, doors)| (Some(group), doors))?,
        };
        let network = match spec.network {
            Network::Isolated => Some(self.networks().take()?),
            Network::Host | Network::None => None,
        };
        let namespace = match network.as_ref().and_then(Lease::namespace) {
            Some(namespace) => Some(
                namespace
                    .try_clone_to_owned()
                    .map_err(|_| RuntimeError::Talk { source: Errno::MFILE.into() })?,
            ),
            None => None,
        };
        let first = fds.mounts.len();
        let joins = (first..first + doors.len()).map(|index| SetupOp::Join { index });
        let enters = namespace.iter().map(|_| SetupOp::Network { index: first + doors.len() });
        // Groups and networks are joined before anything of the caller's is touched.
        ops.splice(ahead..ahead, joins.chain(enters));
        let kind = Kind { private_network: spec.network == Network::None, ops: ops[..ahead].to_vec() };
        let kind = wire::to_bytes(&kind).map_err(RuntimeError::talk)?;
        let (channel, theirs) = wire::pair().map_err(RuntimeError::talk)?;
        wire::send_request(&channel, &Request { ops: ops[ahead..].to_vec() }).map_err(RuntimeError::talk)?;
        let root = detached(fds.root);
        let mounts: Vec<OwnedFd> =
            fds.mounts.into_iter().map(detached).chain(doors).chain(namespace).collect();
        let mut all: Vec<BorrowedFd<'_>> =
            [&theirs, &fds.stdin, &fds.stdout, &fds.stderr, &root].map(AsFd::as_fd).to_vec();
        all.extend(mounts.iter().map(AsFd::as_fd));
        wire::send_bytes(&self.control, &kind, &all).map_err(RuntimeError::talk)?;
        // Our copies would keep the pipes open beyond the container, and the channel beyond the zygote.
        drop(all);
        drop((theirs, fds.stdin, fds.stdout, fds.stderr, root, mounts));
        started(channel, &ops, (group, network, spec.security == Security::Insecure))
    }
}

/// The standard streams of one more process of a container; not used with a terminal.
#[derive(Debug)]
pub struct EntryFds {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Sandbox {
    /// Starts one more program in the container whose first process is `container` (see [`Running::pidfd`]); returns when the
    /// program has been executed. The program ends with the container. Mounts, names, limits
    /// and root are the container's, whatever `spec` says; the network of `spec` has to be.
    ///
    /// # Errors
    /// As [`Sandbox::run`]. A container that has ended is a [`RuntimeError::Setup`].
    pub fn enter(
        &self,
        container: BorrowedFd<'_>,
        spec: &RunSpec,
        fds: EntryFds,
    ) -> Result<Running, RuntimeError> {
        let ops = plan_entry(spec)?;
        let (channel, theirs) = wire::pair().map_err(RuntimeError::talk)?;
        wire::send_request(&channel, &Request { ops: ops.clone() }).map_err(RuntimeError::talk)?;
        let EntryFds { stdin, stdout, stderr } = fds;
        let all = [theirs.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), container];
        wire::send_bytes(&self.control, wire::ENTER, &all).map_err(RuntimeError::talk)?;
        drop((theirs, stdin, stdout, stderr));
        started(channel, &ops, (None, None, false))
    }
}

/// Waits until a program has been executed.
fn started(
    channel: OwnedFd,
    ops: &[SetupOp],
    (group, network, changes_network): (Option<Group>, Option<Lease>, bool),
) -> Result<Running, RuntimeError> {
    let (update, fds) = wire::receive(&channel).map_err(RuntimeError::talk)?.ok_or(RuntimeError::Gone)?;
    let mut fds = fds.into_iter();
    match update {
        Update::Started { terminal } => {
            let pidfd = fds.next().ok_or(RuntimeError::Gone)?;
            let terminal = if terminal { fds.next() } else { None };
            Ok(Running { channel, pidfd, terminal, finished: false, group, network, changes_network })
        }
        Update::Failed(failure) => Err(RuntimeError::setup(failure, ops)),
        Update::Exited { .. } => Err(RuntimeError::Gone),
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // End of file makes the keeper kill the zygote, and with it everything in its pid namespace.
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
        drop(self.keeper.wait());
        if let Some(networks) = self.networks.get() {
            networks.close();
        }
    }
}

/// A mount of its own for a directory or file of ours, which the zygote's mount namespace does not have.
///
/// What is a detached mount already can be passed on as it is; kernels before 6.15 refuse to clone one, and where the
/// kernel refuses for another reason, attaching it will say so.
fn detached(fd: OwnedFd) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(&fd, c"", flags).unwrap_or(fd)
}

impl Running {
    /// Readable when the program has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The master of the container's terminal, the first time it is asked for and where there is one.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Sends a signal to the program. Being the first process of its pid namespace, it gets only what it has a handler
    /// for, and `SIGKILL`.
    ///
    /// # Errors
    /// [`RuntimeError::Talk`] where the kernel refuses; a program that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), RuntimeError> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(RuntimeError::Talk { source: errno.into() }),
        }
    }

    /// Kills every process of the container.
    pub fn kill(&self) {
        drop(self.signal(Signal::KILL));
    }

    /// Waits for the end: the program has exited, nothing else of the container is alive, and what set-up had put into
    /// the root has been removed.
    ///
    /// # Errors
    /// [`RuntimeError::Gone`] where the sandbox died first.
    pub fn wait(mut self) -> Result<Finished, RuntimeError> {
        self.finished()
    }

    fn finished(&mut self) -> Result<Finished, RuntimeError> {
        self.finished = true;
        let (update, fds) =
            wire::receive(&self.channel).map_err(RuntimeError::talk)?.ok_or(RuntimeError::Gone)?;
        let Update::Exited { signal, status, user_us, system_us, max_rss, read, written, shm_full } = update
        else {
            return Err(RuntimeError::Gone);
        };
        let (user, system) = (Duration::from_micros(user_us), Duration::from_micros(system_us));
        let exit = if signal { Exit::Signal(status) } else { Exit::Code(status) };
        // Everything of the container is gone.
        if let Some(network) = self.network.as_mut().filter(|_| !self.changes_network) {
            network.is_clean();
        }
        let owned = fds.into_iter().next().map_or(Ok(Vec::new()), wire::from_memory);
        let owned = owned.map_err(RuntimeError::talk)?;
        let usage = ProcessUsage { user, system, max_rss, read, written };
        Ok(Finished {
            exit,
            usage,
            limit_events: self.group.as_ref().map(Group::limit_events),
            shm_full,
            owned,
        })
    }
}

/// How long a drop waits for a killed container: one that hangs in the kernel must not hang its caller.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

impl Drop for Running {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.kill();
        let ready = rustix::event::poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(&PATIENCE));
        if ready == Ok(1) {
            drop(self.finished());
        }
    }
}
