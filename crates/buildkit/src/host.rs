//! The machine that a server runs on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use lapstrake_diag::{Outcome, Report};
use lapstrake_oci::Platform;
use lapstrake_registry::Registries;
use lapstrake_store::Store;

/// What the server knows of its machine and of the person who started it.
pub struct Host {
    /// The state directory.
    pub state: PathBuf,
    /// How registries are reached. Logins are those of each client.
    pub registries: Registries,
    /// The environment of `git`: search path, certificates and proxies.
    pub git_environment: Vec<(OsString, OsString)>,
    /// The platforms that steps can run for, this machine's first.
    pub platforms: Vec<Platform>,
    /// Labels of the worker.
    pub labels: BTreeMap<String, String>,
    /// The entitlements that clients may ask for.
    pub entitlements: Vec<String>,
    /// Shows a warning to the person who started the server.
    pub warn: Box<dyn Fn(&str) + Send + Sync>,
    /// Is called after each build, for garbage collection.
    pub after_build: Box<dyn Fn(&Store) + Send + Sync>,
}

impl Host {
    /// Whether a client may have all of `asked`.
    ///
    /// # Errors
    /// The server does not grant one of them.
    pub(crate) fn allow(&self, asked: &[String]) -> Outcome<()> {
        let name = |text: &str| text.split('=').next().unwrap_or(text).to_owned();
        for entitlement in asked {
            if !self.entitlements.iter().any(|granted| name(granted) == name(entitlement)) {
                let hint =
                    format!("start the server with `--allow-insecure-entitlement {}`", name(entitlement));
                return Err(Report::new(format!("entitlement {entitlement} is not allowed")).with_hint(hint));
            }
        }
        Ok(())
    }

    pub(crate) fn warn(&self, text: &str) {
        (self.warn)(text);
    }
}
