//! What a build may use of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use lapstrake_runtime::{Limits, Preference};
use lapstrake_tree::ignore::Patterns;

use crate::error::OpsError;
use crate::exec::debug::Debug;

/// Everything that steps may use besides their inputs.
#[derive(Default)]
pub struct Settings {
    /// Local build contexts by name.
    pub contexts: BTreeMap<String, LocalContext>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Hosts of repositories that the command line names: a git secret that names no host is for them.
    pub git_hosts: BTreeSet<String>,
    /// The environment of git: `PATH`, proxies, certificates.
    pub git_environment: Vec<(OsString, OsString)>,
    /// Sockets of SSH agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Entitlements that the command line grants.
    pub allowed: BTreeSet<String>,
    /// Where the spec files of CDI devices are, least important first.
    pub cdi_dirs: Vec<PathBuf>,
    /// Who looks at steps.
    pub debug: Option<Debug>,
    /// How many bytes of each output of a step are shown; without one all of them.
    pub output_limit: Option<u64>,
    /// What each step may use at most.
    pub limits: Limits,
    /// The network of steps that do not say.
    pub network: Preference,
    /// Set-user-id programs gain nothing.
    pub no_new_privs: bool,
    /// Read all files of contexts that count, whatever their times say.
    pub distrust_times: bool,
}

impl Settings {
    /// The local context `name`.
    pub(crate) fn context(&self, name: &str) -> Result<&LocalContext, OpsError> {
        self.contexts.get(name).ok_or_else(|| OpsError::NoContext { name: name.to_owned() })
    }
}

/// A directory of the host to copy from.
pub struct LocalContext {
    /// Where it is.
    pub path: PathBuf,
    /// What its ignore file says.
    pub ignore: Patterns,
}

/// Where a secret's value is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}
