//! The machine that a server runs on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_oci::{Platform, Reference};
use lapstrake_ops::{KnownDevice, USUAL_DIRS, known_devices};
use lapstrake_registry::Registries;

use crate::upkeep::KeepPolicy;

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
    /// Whether the images called `docker/dockerfile` are run. Else the built-in frontend stands for them.
    pub dockerfile_images: bool,
    /// The repositories of images that may be frontends; `None` for all.
    pub frontend_images: Option<Vec<String>>,
    /// Shows a warning to the person who started the server.
    pub warn: Box<dyn Fn(&str) + Send + Sync>,
    /// The devices that steps may ask for.
    pub devices: Devices,
    /// The part of the build cache that stays.
    pub keep: KeepPolicy,
}

/// The CDI devices that steps may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Those in the usual directories.
    #[default]
    Usual,
    /// Those in these directories.
    In(Vec<PathBuf>),
    /// None.
    Disabled,
}

impl Host {
    /// The directories with specs of devices, for a build. Empty for the usual ones.
    pub(crate) fn cdi_dirs(&self) -> Vec<PathBuf> {
        match &self.devices {
            Devices::Usual => Vec::new(),
            Devices::In(dirs) => dirs.clone(),
            // A directory that does not exist has no devices.
            Devices::Disabled => vec![self.state.join("no-devices")],
        }
    }

    /// The devices that clients are told of.
    pub(crate) fn known_devices(&self) -> Vec<KnownDevice> {
        match &self.devices {
            Devices::Usual => known_devices(&USUAL_DIRS.map(PathBuf::from)),
            Devices::In(dirs) => known_devices(dirs),
            Devices::Disabled => Vec::new(),
        }
    }

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

    /// Whether the image `source` may be a frontend.
    ///
    /// # Errors
    /// The server only allows others.
    pub(crate) fn allow_frontend(&self, source: &str) -> Outcome<()> {
        let Some(allowed) = &self.frontend_images else { return Ok(()) };
        let name = |text: &str| {
            let read: Option<Reference> = text.parse().ok();
            read.map(|read| format!("{}/{}", read.registry(), read.repository()))
        };
        let wanted = name(source);
        if wanted.is_some() && allowed.iter().any(|one| name(one) == wanted) {
            return Ok(());
        }
        let hint = "add its repository to `allowedRepositories` of `[frontend.\"gateway.v0\"]`";
        let report = Report::new(format!("'{source}' is not an allowed gateway source"));
        Err(report.with_fault(Fault::Usage).with_hint(hint))
    }

    pub(crate) fn warn(&self, text: &str) {
        (self.warn)(text);
    }
}

#[cfg(test)]
impl Host {
    /// A machine that can do nothing.
    pub(crate) fn of_nothing() -> Host {
        Host {
            state: PathBuf::new(),
            registries: Registries::default(),
            git_environment: Vec::new(),
            platforms: Vec::new(),
            labels: BTreeMap::new(),
            entitlements: Vec::new(),
            dockerfile_images: false,
            frontend_images: None,
            warn: Box::new(|_| {}),
            devices: Devices::Usual,
            keep: KeepPolicy::All,
        }
    }
}
