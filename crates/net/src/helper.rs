//! The way out for who may not change the machine's network: a program that has an interface in the namespace and
//! speaks for it through ordinary sockets outside.

use std::io::{self, Read as _};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::NetError;
use crate::link;
use crate::namespace::Namespace;

/// How long a program may take until the namespace has a route.
const PATIENCE: Duration = Duration::from_secs(10);

const SLIRP: &str = "slirp4netns";

/// Both find the namespace in their standard input, since no other descriptor of ours reaches them. Both leave the
/// machine's loopback interface out, and let nobody in. The addresses are not the machine's own, so that those can be
/// reached as on any other network.
const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "pasta",
        &[
            "--foreground",
            "--quiet",
            "--config-net",
            "--no-map-gw",
            "--tcp-ports=none",
            "--udp-ports=none",
            "--tcp-ns=none",
            "--udp-ns=none",
            "--ns-ifname=eth0",
            "--address=10.0.2.100",
            "--netmask=24",
            "--gateway=10.0.2.2",
            // The name of the descriptor is no file that could be watched for its end.
            "--no-netns-quit",
            "--netns-only",
            "--netns=/proc/self/fd/0",
        ],
    ),
    (
        SLIRP,
        &[
            "--configure",
            "--mtu=65520",
            "--enable-ipv6",
            "--disable-host-loopback",
            "--netns-type=path",
            "/proc/self/fd/0",
            "eth0",
        ],
    ),
];

/// Whether `pasta` is one to be used only where there is nothing else.
static DOUBTFUL: OnceLock<bool> = OnceLock::new();

/// That of Debian 12, which does not know its version, was seen to keep connections open and to send data twice.
fn is_doubtful() -> bool {
    let asked = Command::new("pasta").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    asked.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("unknown version"))
}

/// A program that works for a namespace, and ends with this value or with us.
#[derive(Debug)]
pub(crate) struct Helper {
    pub(crate) program: &'static str,
    pidfd: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// Starts the first program that works.
pub(crate) fn start(namespace: &Namespace) -> Result<Helper, NetError> {
    let mut first = NetError::NoHelper;
    let mut programs = PROGRAMS;
    if *DOUBTFUL.get_or_init(is_doubtful) {
        programs.reverse();
    }
    for (program, args) in programs {
        match Helper::start(program, args, namespace) {
            Ok(Some(helper)) => return Ok(helper),
            Ok(None) => {}
            Err(error) if matches!(first, NetError::NoHelper) => first = error,
            Err(_) => {}
        }
    }
    Err(first)
}

impl Helper {
    /// Nothing where there is no such program.
    fn start(program: &'static str, args: &[&str], namespace: &Namespace) -> Result<Option<Self>, NetError> {
        let failed = |message: String| NetError::Helper { program, message };
        let stdin = namespace.as_fd().try_clone_to_owned().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::from(stdin)).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C at a terminal is ours to answer.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        lapstrake_sys::process::dies_with_thread(&mut command);
        let (say, hear) = channel();
        let (last, words) = channel();
        // The program is killed when the thread that has started it ends, so that thread stays.
        let run = move || match command.spawn() {
            Ok(mut child) => {
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                let pidfd = pid.ok_or(Errno::SRCH);
                let pidfd = pidfd.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
                // Whoever waits gives up after a while; so nobody may listen.
                say.send(pidfd.map_err(io::Error::from)).unwrap_or_default();
                last.send(child.stderr.take().map(words_of).unwrap_or_default()).unwrap_or_default();
                // It has closed its output, or has ended.
                drop(child.wait());
            }
            Err(error) => say.send(Err(error)).unwrap_or_default(),
        };
        let thread = std::thread::Builder::new().name(program.to_owned()).spawn(run);
        let thread = thread.map_err(|error| failed(error.to_string()))?;
        match hear.recv() {
            Ok(Ok(pidfd)) => {
                let helper = Self { program, pidfd, thread: Some(thread) };
                ready(namespace, &words).map_err(failed)?;
                if program == SLIRP {
                    // Without IPv6 there is only the rest.
                    address6(namespace).unwrap_or_default();
                }
                Ok(Some(helper))
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("it could not be started".to_owned())),
        }
    }
}

/// Waits until the namespace has a way out.
fn ready(namespace: &Namespace, words: &Receiver<String>) -> Result<(), String> {
    let begun = Instant::now();
    while !namespace.links.leads_out(libc::AF_INET) {
        match words.recv_timeout(Duration::from_millis(1)) {
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < PATIENCE => {}
            Err(RecvTimeoutError::Timeout) => return Err(format!("it took more than {PATIENCE:?}")),
            Ok(said) if !said.is_empty() => return Err(said),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err("it ended without a word".to_owned()),
        }
    }
    Ok(())
}

/// Says what `slirp4netns` would announce a second later: its network of IPv6 and its own address there.
fn address6(namespace: &Namespace) -> Result<(), Errno> {
    let address = |host| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host).into();
    let link = namespace.links.index("eth0")?;
    let orders = vec![link::address(link, (address(0x100), 64)), link::default_route(link, address(2))];
    namespace.links.all(orders)
}

/// What a program says until it ends, in one line.
fn words_of(mut from: std::process::ChildStderr) -> String {
    const MAX: u64 = 4096;
    let mut text = Vec::new();
    // What cannot be read is not told.
    drop(from.by_ref().take(MAX).read_to_end(&mut text));
    drop(io::copy(&mut from, &mut io::sink()));
    let text = String::from_utf8_lossy(&text).into_owned();
    // `pasta` first complains about a system log that nobody runs.
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains("syslog"));
    lines.collect::<Vec<_>>().join("; ")
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).unwrap_or_default();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
