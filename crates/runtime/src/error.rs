//! What can go wrong with a container, typed: the operation, the path, the system's word.

use lapstrake_diag::{Code, Fault, Reported};
use std::io;

use rustix::io::Errno;

use crate::plan::{SetupOp, SpecError, limit_name};
use crate::wire::Failure;

/// Why a container did not run.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RuntimeError {
    /// The spec contradicts itself.
    #[error("cannot run this")]
    Spec(#[from] SpecError),
    /// The kernel lacks a system call that the sandbox is built on.
    #[error("this kernel is too old for the sandbox, which needs Linux 5.12: cannot {action}")]
    Kernel {
        /// What it was needed for.
        action: String,
    },
    /// The process that makes containers could not be started.
    #[error("cannot start the sandbox: {action}")]
    Start {
        /// What failed.
        action: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The machine's null device is missing or is something else.
    #[error("cannot start the sandbox: this machine's /dev/null cannot be used: {why}")]
    NullDevice {
        /// What is there instead.
        why: String,
    },
    /// A container could not be set up.
    #[error("cannot {action} {path}")]
    Setup {
        /// What failed: [`SetupOp::describe`].
        action: &'static str,
        /// On what.
        path: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The program could not be run; see [`RuntimeError::exit_code`].
    #[error("cannot run {program}")]
    Exec {
        /// The program as it was given.
        program: String,
        /// The system's word: not found, permission denied, exec format error.
        #[source]
        source: io::Error,
    },
    /// There is no network for it.
    #[error("cannot give the container a network of its own")]
    Network(#[from] lapstrake_net::NetError),
    /// A limit that cannot be set here.
    #[error("cannot limit {kind}: {why}")]
    Limit {
        /// What was to be limited.
        kind: &'static str,
        /// Why that is not possible.
        why: String,
    },
    /// The sandbox has died.
    #[error("the sandbox has died")]
    Gone,
    /// Talking to the sandbox failed.
    #[error("cannot talk to the sandbox")]
    Talk {
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl RuntimeError {
    /// What a shell would exit with: 127 where the program does not exist, 126 where it cannot be run.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(127),
            Self::Exec { .. } => Some(126),
            _ => None,
        }
    }

    pub(crate) fn start(action: impl Into<String>, errno: Errno) -> Self {
        let action = action.into();
        match errno {
            Errno::NOSYS => Self::Kernel { action },
            _ => Self::Start { action, source: errno.into() },
        }
    }

    pub(crate) fn talk(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Gone,
            _ => Self::Talk { source: errno.into() },
        }
    }

    pub(crate) fn setup(failure: Failure, ops: &[SetupOp]) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        let op = ops.get(failure.op);
        match op {
            Some(SetupOp::Exec { args, .. }) => {
                Self::Exec { program: args.first().cloned().unwrap_or_default(), source }
            }
            Some(op) if failure.errno == Errno::NOSYS.raw_os_error() => {
                Self::Kernel { action: format!("{} {}", op.describe(), failure.path) }
            }
            Some(SetupOp::Rlimit { limit }) => {
                let path = limit_name(limit.resource);
                Self::Setup { action: "set the limit", path, source }
            }
            Some(op) => Self::Setup { action: op.describe(), path: failure.path, source },
            None => {
                Self::Setup { action: "make the namespaces of", path: "the container".to_owned(), source }
            }
        }
    }
}

impl Reported for RuntimeError {
    fn code(&self) -> Code {
        Code::new("runtime", self.into())
    }

    fn inner(&self) -> Option<&(dyn Reported + 'static)> {
        match self {
            Self::Network(error) => Some(error),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Kernel { .. }
            | Self::NullDevice { .. }
            | Self::Start { .. }
            | Self::Limit { .. }
            | Self::Network(_) => Fault::Environment,
            _ => self.inner().map_or(Fault::Build, Reported::fault),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Network(error) => error.hint().map(str::to_owned),
            Self::NullDevice { .. } => Some(lapstrake_sys::kernel::NULL_DEVICE_HINT.to_owned()),
            Self::Kernel { .. } | Self::Start { .. } => {
                Some("`lapstrake doctor` says what this machine lacks".to_owned())
            }
            _ => None,
        }
    }
}
