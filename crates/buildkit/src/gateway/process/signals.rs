//! Signals by the names that clients send.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tonic::Status;

/// The signals by their names without `SIG`.
const SIGNALS: [(&str, Signal); 34] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("IO", Signal::IO),
    ("IOT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("POLL", Signal::IO),
    ("PROF", Signal::PROF),
    ("PWR", Signal::POWER),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STKFLT", Signal::STKFLT),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("VTALRM", Signal::VTALARM),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

/// Sends the signal `name` to a process. A process that has ended already is no error.
///
/// # Errors
/// There is no such signal, or the kernel refuses.
pub(super) fn send(process: &OwnedFd, name: &str) -> Result<(), Status> {
    let found = SIGNALS.iter().find(|(own, _)| *own == name).map(|(_, signal)| *signal);
    let unknown = || match name.starts_with("RT") {
        true => Status::unimplemented(format!("signal {name}: real-time signals are not supported yet")),
        false => Status::invalid_argument(format!("Unknown signal {name}")),
    };
    let signal = found.ok_or_else(unknown)?;
    match pidfd_send_signal(process, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(Status::unknown(format!("signal {name}: {errno}"))),
    }
}

/// Kills a process.
pub(super) fn kill(process: &OwnedFd) {
    // A process that has ended already needs no more.
    pidfd_send_signal(process, Signal::KILL).unwrap_or_default();
}
