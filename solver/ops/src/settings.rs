//! What a build may use of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use lapstrake_diag::Outcome;
use lapstrake_runtime::{Limits, NetworkPreference};
use lapstrake_tree::ignore::Patterns;

use crate::error::OpsError;
use crate::exec::debug::Debug;
use crate::failed::FailedSteps;

/// Everything that steps may use besides their inputs.
#[derive(Default)]
pub struct Settings {
    /// Local build contexts by name.
    pub contexts: BTreeMap<String, LocalContext>,
    /// Further local build contexts by name, which the caller is asked for when a step needs them.
    pub more_contexts: Ask<LocalContext>,
    /// Secrets by id.
    pub secrets: Ask<Secret>,
    /// Hosts of repositories that the command line names: a git secret that names no host is for them.
    pub git_hosts: BTreeSet<String>,
    /// The environment of git: `PATH`, proxies, certificates.
    pub git_environment: Vec<(OsString, OsString)>,
    /// Sockets of SSH agents by id.
    pub ssh: Ask<PathBuf>,
    /// Entitlements that the command line grants.
    pub allowed: BTreeSet<String>,
    /// Where the spec files of CDI devices are, least important first.
    pub cdi_dirs: Vec<PathBuf>,
    /// Who looks at steps.
    pub debug: Option<Debug>,
    /// Keeps what steps that fail leave. Without one, all of that is thrown away.
    pub failed: Option<FailedSteps>,
    /// How many bytes of each output of a step are shown; without one all of them.
    pub output_limit: Option<u64>,
    /// What each step may use at most.
    pub limits: Limits,
    /// The network of steps that do not say.
    pub network: NetworkPreference,
    /// Set-user-id programs gain nothing.
    pub no_new_privs: bool,
    /// Read all files of contexts that count, whatever their times say.
    pub distrust_times: bool,
}

impl Settings {
    /// The local context `name`. May ask the caller, and so block.
    pub(crate) fn context(&self, name: &str) -> Result<LocalContext, OpsError> {
        let known = self.contexts.get(name).cloned();
        let found = known.map_or_else(|| self.more_contexts.value(name), |context| Ok(Some(context)))?;
        found.ok_or_else(|| OpsError::NoContext { name: name.to_owned() })
    }
}

/// A directory of the host to copy from.
#[derive(Clone)]
pub struct LocalContext {
    /// Where it is.
    pub path: PathBuf,
    /// What its ignore file says.
    pub ignore: Patterns,
}

/// The answer to one question of [`Ask`].
type Answer<T> = dyn Fn(&str) -> Outcome<Option<T>> + Send + Sync;

/// A way to ask the caller of a build for a value by its id, at the time when a step needs the value.
///
/// An answer may take long. Steps ask on threads for blocking work only.
pub struct Ask<T>(Option<Arc<Answer<T>>>);

impl<T> Ask<T> {
    /// Asks with `answer`, which gives `None` for an id that the caller does not know.
    pub fn new(answer: impl Fn(&str) -> Outcome<Option<T>> + Send + Sync + 'static) -> Ask<T> {
        Ask(Some(Arc::new(answer)))
    }

    /// The value of `id`, if the caller knows that id.
    pub(crate) fn value(&self, id: &str) -> Result<Option<T>, OpsError> {
        self.0.as_ref().map_or(Ok(None), |answer| answer(id)).map_err(OpsError::Client)
    }
}

/// The values of a caller that has none.
impl<T> Default for Ask<T> {
    fn default() -> Ask<T> {
        Ask(None)
    }
}

impl<T> Clone for Ask<T> {
    fn clone(&self) -> Ask<T> {
        Ask(self.0.clone())
    }
}

/// The value of a secret, which no message and no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, as steps see them.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(value: Vec<u8>) -> Secret {
        Secret(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}
