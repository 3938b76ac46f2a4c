//! Why there is no user namespace, or not a full one, and what would help.

use std::fmt;
use std::fs;

use rustix::io::Errno;

use super::subid;

/// What keeps a namespace from having more than one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The file gives the user no range.
    Range {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// The user's name, or number where there is no name.
        user: String,
    },
    /// The caller wants one id.
    Wish,
    /// The set-user-id helper is not installed.
    Program {
        /// `newuidmap` or `newgidmap`.
        program: String,
    },
    /// The map was refused.
    Helper {
        /// The helper, or the file that was written to.
        program: String,
        /// What it said.
        message: String,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { file, user } => write!(f, "{file} has no range for {user}"),
            Self::Wish => f.write_str("as asked for"),
            Self::Program { program } => write!(f, "{program} is not installed"),
            Self::Helper { program, message } => write!(f, "{program} failed: {message}"),
        }
    }
}

impl Lack {
    /// What would help.
    pub fn hint(&self) -> String {
        match self {
            Self::Range { user, .. } => {
                let texts =
                    ["/etc/subuid", "/etc/subgid"].map(|file| fs::read_to_string(file).unwrap_or_default());
                match subid::free(texts.iter().map(String::as_str)) {
                    Some((first, last)) => format!(
                        "as root: usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}"
                    ),
                    None => "all ranges in /etc/subuid and /etc/subgid are taken: free one".to_owned(),
                }
            }
            Self::Wish => "unset LAPSTRAKE_IDS to have more".to_owned(),
            Self::Program { .. } => "install the package uidmap (Debian) or shadow-utils (Fedora)".to_owned(),
            Self::Helper { program, .. } => {
                format!("{program} has to be set-user-id root or have the capability to set ids")
            }
        }
    }

    /// For the pipe between the helper child and its parent; the inverse of [`Lack::decode`].
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Range { file, user } => format!("{file}\0{user}"),
            // Nobody starts a helper then.
            Self::Wish => "wish".to_owned(),
            Self::Program { program } => format!("program\0{program}"),
            Self::Helper { program, message } => format!("helper\0{program}\0{message}"),
        }
    }

    pub(super) fn decode(text: &str) -> Self {
        let mut fields = text.splitn(3, '\0').map(str::to_owned);
        let kind = fields.next().unwrap_or_default();
        let program = fields.next().unwrap_or_default();
        match kind.as_str() {
            "program" => Self::Program { program },
            "/etc/subuid" => Self::Range { file: "/etc/subuid", user: program },
            "/etc/subgid" => Self::Range { file: "/etc/subgid", user: program },
            _ => Self::Helper { program, message: fields.next().unwrap_or_default() },
        }
    }
}

/// Why a process could not become root of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum UsernsError {
    /// Called too late.
    #[error("a process with several threads cannot enter a user namespace")]
    Threads,
    /// The kernel was built without user namespaces.
    #[error("this kernel has no user namespaces")]
    Unsupported,
    /// A sysctl is zero.
    #[error("user namespaces are switched off: {sysctl} is 0")]
    Disabled {
        /// Its name.
        sysctl: &'static str,
    },
    /// The number of user namespaces, or their nesting, has reached its limit.
    #[error(
        "there are as many user namespaces as user.max_user_namespaces allows, or they are nested too deep"
    )]
    Exhausted,
    /// AppArmor takes the capabilities away.
    #[error(
        "AppArmor denies capabilities in user namespaces to programs without a profile ({call}: {errno})"
    )]
    AppArmor {
        /// The system call or file.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// A seccomp filter is in force, as in a container.
    #[error("{call} is denied by a seccomp filter: this looks like a container ({errno})")]
    Filtered {
        /// The system call or file.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// Something else failed.
    #[error("cannot set up a user namespace: {call}: {errno}")]
    Failed {
        /// The system call or file.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// The ids could not be mapped, or only by half.
    #[error("cannot map subordinate ids: {message}")]
    Helper {
        /// What the helper said.
        message: String,
    },
}

impl UsernsError {
    /// What would help, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Threads | Self::Unsupported | Self::Failed { .. } => None,
            Self::Disabled { sysctl: "kernel.unprivileged_userns_clone" } => {
                Some("as root: sysctl -w kernel.unprivileged_userns_clone=1")
            }
            Self::Disabled { .. } | Self::Exhausted => {
                Some("as root: sysctl -w user.max_user_namespaces=65536")
            }
            Self::AppArmor { .. } => Some(
                "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give the program an AppArmor \
                 profile that allows userns",
            ),
            Self::Filtered { .. } => Some(
                "run the outer container with a seccomp profile that allows user namespaces \
                 (docker: --security-opt seccomp=unconfined)",
            ),
            Self::Helper { .. } => Some("check the user's lines in /etc/subuid and /etc/subgid"),
        }
    }
}

/// Finds the reason for a failure by what the machine says about itself.
pub(super) fn diagnose(call: &'static str, errno: Errno) -> UsernsError {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok();
    let is = |name, value: &str| sysctl(name).is_some_and(|text| text.trim() == value);
    if is("user/max_user_namespaces", "0") {
        return UsernsError::Disabled { sysctl: "user.max_user_namespaces" };
    }
    match errno {
        // Docker's filter denies this call as if the kernel did not know it.
        Errno::NOSYS if call == "clone3" && seccomp_is_on() => UsernsError::Filtered { call, errno },
        Errno::NOSPC | Errno::USERS => UsernsError::Exhausted,
        Errno::INVAL if call == "unshare" => UsernsError::Unsupported,
        Errno::PERM | Errno::ACCESS => {
            if is("kernel/unprivileged_userns_clone", "0") {
                UsernsError::Disabled { sysctl: "kernel.unprivileged_userns_clone" }
            } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
                UsernsError::AppArmor { call, errno }
            } else if seccomp_is_on() {
                UsernsError::Filtered { call, errno }
            } else {
                UsernsError::Failed { call, errno }
            }
        }
        _ => UsernsError::Failed { call, errno },
    }
}

pub(super) fn diagnose_io(call: &'static str, error: &std::io::Error) -> UsernsError {
    diagnose(call, Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn seccomp_is_on() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_survives_the_pipe() {
        for lack in [
            Lack::Range { file: "/etc/subuid", user: "ann".into() },
            Lack::Range { file: "/etc/subgid", user: "7".into() },
            Lack::Program { program: "newuidmap".into() },
            Lack::Helper { program: "newgidmap".into(), message: "write to gid_map\0failed".into() },
        ] {
            assert_eq!(Lack::decode(&lack.encode()), lack);
        }
    }
}
